"""Many steps in pieces, one piece after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_pieces(
    run_piece: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    of_steps: Any,
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
    n_whole = n_steps - n_steps % size
    whole = jax.tree.map(lambda a: a[:n_whole].reshape(-1, size, *a.shape[1:]), of_steps)
    left = jax.tree.map(lambda a: a[n_whole:], of_steps)
    if n_whole == n_steps:
        carry, out = jax.lax.scan(run_piece, carry, whole, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(n_steps, *a.shape[2:]), out)
    if reverse:
        carry, out_left = run_piece(carry, left)
    carry, out = jax.lax.scan(run_piece, carry, whole, reverse=reverse)
    if not reverse:
        carry, out_left = run_piece(carry, left)
    join = lambda a, b: jnp.concatenate([a.reshape(n_whole, *a.shape[2:]), b])  # noqa: E731
    return carry, jax.tree.map(join, out, out_left)
