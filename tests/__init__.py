"""The tests of jaxrnn."""
