"""How errors of arguments are raised: each says `NAME must be EXPECTED, but is CAME`."""

from typing import Any, NoReturn

import jax
import numpy as np

LONGEST = 120  # characters of what came that a message shows


def require(ok: bool, name: str, expected: str, came: Any, error: Any = TypeError) -> None:
    """Refuse an argument unless it is as expected."""
    if not ok:
        refuse(name, expected, came, error)


def refuse(name: str, expected: str, came: Any, error: Any = TypeError) -> NoReturn:
    """Raise an error that names an argument, what was expected of it, and what came."""
    said = _describe(came)
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
    raise error(f"{name} must be {expected}, but is {said}")


def _describe(value: Any) -> str:
    """Describe an array by shape and dtype, what holds arrays by its type, others by their repr."""
    arrays = (jax.Array, np.ndarray)
    if isinstance(value, arrays):
        return f"of shape {value.shape} and dtype {value.dtype}"
    if not any(isinstance(leaf, arrays) for leaf in jax.tree.leaves(value)):
        return repr(value)
    kind = type(value).__name__
    if kind not in ("list", "tuple"):
        return f"of type {kind}"
    kinds = ["array" if isinstance(each, arrays) else type(each).__name__ for each in value]
    return f"a {kind} of {', '.join(kinds)}"
