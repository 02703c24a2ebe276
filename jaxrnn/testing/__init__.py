"""Tools to test jaxrnn, variants of it, and any other recurrence, by properties.

    from jaxrnn.testing import oracle      # the executable specification, NumPy only
    from jaxrnn.testing import relations   # what must hold of any recurrence
    from jaxrnn.testing import strategies  # hypothesis strategies

The last two need the extra jaxrnn[testing].
"""
