"""A gallery of short programs, each to be read, copied and changed: README.md shows them all."""
