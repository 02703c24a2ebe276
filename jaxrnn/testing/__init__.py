"""Tools to test jaxrnn, and variants of it, by properties.

from jaxrnn.testing import oracle      # the executable specification, NumPy only
from jaxrnn.testing import strategies  # hypothesis strategies: the extra jaxrnn[testing]
"""
