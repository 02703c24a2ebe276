"""How errors of arguments are raised: most say `NAME must be EXPECTED, but is CAME`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np


def require(ok: bool, name: str, expected: str, came: Any, error: Any = TypeError) -> None:
    """Refuse an argument, by what was expected of it and what came, unless it is as expected."""
    if not ok:
        raise error(f"{name} must be {expected}, but is {_describe(came):.120}")


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Add a note to an error that JAX, or a function of the user's, raises."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _describe(value: Any) -> str:
    """Arrays by shape and dtype, dicts by keys, lists of these in short, others by repr."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"of shape {value.shape} and dtype {value.dtype}"
    nested: Any = jax.Array | np.ndarray | list | tuple
    if isinstance(value, list | tuple) and any(isinstance(each, nested) for each in value):
        return f"a {type(value).__name__} of {len(value)} entries"
    return f"a dict of {', '.join(map(str, value))}" if isinstance(value, dict) else repr(value)
