"""How errors of arguments are raised: most say `NAME must be EXPECTED, but is CAME`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

# A checkpoint may give the arrays back in a list or a dict.
AN_RNN_PARAMS = "an RNNParams (RNNParams(*list) or RNNParams(**dict) makes one)"


def require(ok: bool, name: str, expected: str, came: Any, error: type = TypeError) -> None:
    """Refuse an argument, by what was expected of it and what came, unless it is as expected."""
    if not ok:
        raise error(f"{name} must be {expected}, but is {_describe(came):.120}")


def check_shape(
    name: str, array: Any, axes: str, fit: str = "", *, broadcasts: bool = False, **sizes: Any
) -> None:
    """Require the axes that words name: of the sizes that are given, of any where none is.

    A first word with a star is any number of axes; `*batch` those in `sizes["batch"]`, if given.
    What has the same word has the same size. An array that `broadcasts` may lack first axes, and
    each may have one entry. `fit` tells in the message what the sizes are of.
    """
    words, shape = axes.split(), array.shape
    known = {word: sizes[word] for word in axes.replace("*", "").split() if word in sizes}
    names = ", ".join(words) if len(words) > 1 else f"{axes},"
    expected = f"{'broadcastable to' if broadcasts else 'of shape'} ({names})"
    expected += " with " * bool(known) + ", ".join(f"{word} = {known[word]}" for word in known)
    first = known.get("batch", shape[: max(0, len(shape) - len(words) + 1)])
    wanted = [*first, *words[1:]] if words[0][0] == "*" else words
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    sized = [(n, known.setdefault(w, n) if isinstance(w, str) else w) for n, w in pairs]
    fits = all(n == size or (broadcasts and n == 1) for n, size in sized)
    fits &= len(shape) == len(wanted) or (broadcasts and len(shape) < len(wanted))
    require(fits, name, f"{expected} {fit}".rstrip(), array, ValueError)


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
