"""Many steps in pieces, one piece after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def in_pieces(
    run_piece: Callable[..., Any], carry: Any, of_steps: Any, n_steps: int, size: int, reverse: bool
) -> tuple[Any, Any]:
    """As `jax.lax.scan` of steps, but over pieces of `size` steps; the last may have fewer.

    `run_piece(size, carry, (first, of_steps[first : first + size]))` returns the next carry, and
    arrays of its steps. In all arrays of steps, time is first.
    """
    n_whole = n_steps - n_steps % size
    left = n_whole, jax.tree.map(lambda array: array[n_whole:], of_steps)
    if n_steps == size:  # to reshape a single piece would lose how it is shared among devices
        return run_piece(size, carry, (0, of_steps))  # type: ignore[no-any-return]
    if n_whole < n_steps and reverse:
        carry, out_left = run_piece(n_steps - n_whole, carry, left)
    split = partial(jax.tree.map, lambda array: array.reshape(-1, size, *array.shape[1:]))
    whole = split(jax.tree.map(lambda array: array[:n_whole], of_steps))
    firsts = jnp.arange(0, n_whole, size, dtype=jnp.int32)
    run_whole = partial(run_piece, size)
    carry, out = jax.lax.scan(run_whole, carry, (firsts, whole), reverse=reverse)
    out = jax.tree.map(lambda array: array.reshape(n_whole, *array.shape[2:]), out)
    if n_whole < n_steps and not reverse:
        carry, out_left = run_piece(n_steps - n_whole, carry, left)
    if n_whole < n_steps:
        out = jax.tree.map(lambda *parts: jnp.concatenate(parts), out, out_left)
    return carry, out
