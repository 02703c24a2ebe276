"""The benchmark of jaxrnn: `python -m bench`."""
