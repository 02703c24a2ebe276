"""Many steps in pieces, one piece after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def in_pieces(
    run_piece: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    of_steps: Any,
    *,
    size: int,
    reverse: bool,
) -> tuple[Any, Any]:
    """As `jax.lax.scan` of steps, but over pieces of `size` steps; the last may have fewer.

    `run_piece(carry, of_its_steps)` returns the next carry, and arrays of its steps. In all arrays
    of steps, time is first.
    """
    n_steps = jax.tree.leaves(of_steps)[0].shape[0]
    if n_steps == size:  # to reshape a single piece would lose how it is shared among devices
        return run_piece(carry, of_steps)
    n_left = n_steps % size
    n_whole = n_steps - n_left
    whole, left = (
        jax.tree.map(lambda array, part=part: array[part], of_steps)
        for part in (slice(n_whole), slice(n_whole, None))
    )
    whole = jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), whole)
    run_whole = partial(jax.lax.scan, run_piece, xs=whole, reverse=reverse)
    out_left = None
    if n_left and reverse:
        carry, out_left = run_piece(carry, left)
    carry, out = run_whole(carry)
    if n_left and not reverse:
        carry, out_left = run_piece(carry, left)
    out = jax.tree.map(lambda array: array.reshape(n_whole, *array.shape[2:]), out)
    return carry, out if not n_left else jax.tree.map(_joined, out, out_left)


def _joined(whole: jax.Array, left: jax.Array) -> jax.Array:
    return jnp.concatenate([whole, left])
