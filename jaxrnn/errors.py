"""How errors of arguments are raised: each says `NAME must be EXPECTED, but is CAME`."""

from typing import Any, NoReturn

import jax
import numpy as np


def require(ok: bool, name: str, expected: str, came: Any, error: Any = TypeError) -> None:
    """Refuse an argument unless it is as expected."""
    if not ok:
        refuse(name, expected, came, error)


def refuse(name: str, expected: str, came: Any, error: Any = TypeError) -> NoReturn:
    """Raise an error that names an argument, what was expected of it, and what came."""
    raise error(f"{name} must be {expected}, but is {_describe(came)}")


def _describe(value: Any) -> str:
    """Describe arrays by shape and dtype, as they may be large, and what holds them by types."""
    arrays = (jax.Array, np.ndarray)
    if isinstance(value, arrays):
        return f"of shape {value.shape} and dtype {value.dtype}"
    if any(isinstance(leaf, arrays) for leaf in jax.tree.leaves(value)):
        kinds = ["array" if isinstance(each, arrays) else type(each).__name__ for each in value]
        return f"a {type(value).__name__} of {kinds}"
    return repr(value)
