"""The recurrence in segments, of which the backward pass keeps one state each.

Griewank, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
differentiation", Optimization Methods and Software 1 (1992), 35-54, with a single level.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import recurrence
from jaxrnn.params import RNNParams
from jaxrnn.recurrence import Loop, Trajectory
from jaxrnn.sequences import Sequences


def run(
    loop: Loop, params: RNNParams[Any], given: Sequences, checkpoint_every: int | None
) -> Trajectory:
    """Every step; the states within a segment are computed again when they are differentiated."""
    n_steps = given.x.shape[-2]
    if checkpoint_every is None:
        return recurrence.run(loop, params, given)
    if not isinstance(n_steps, int):
        raise ValueError(
            "checkpoint_every needs a number of steps that is known when x is traced, "
            f"but x has shape {given.x.shape}"
        )
    n_segments, n_left = divmod(n_steps, checkpoint_every)
    if n_segments + (n_left > 0) <= 1:
        return recurrence.run(loop, params, given)

    @partial(jax.checkpoint, prevent_cse=False)
    def advance(h: jax.Array, segment: Any) -> tuple[jax.Array, Any]:
        x, resets, first = segment
        lengths = given.lengths
        if lengths is not None:
            lengths = jnp.clip(lengths - first, 0, x.shape[-2])
        out = recurrence.run(loop, params, Sequences(x, h, lengths, resets, given.restart))
        return out.last, (out.a, out.before)

    n_whole = n_steps - n_left
    segments = (
        _cut(given.x[..., :n_whole, :], n_segments, axis=-2),
        None if given.resets is None else _cut(given.resets[..., :n_whole], n_segments, axis=-1),
        jnp.arange(0, n_whole, checkpoint_every, dtype=jnp.int32),
    )
    left = (
        given.x[..., n_whole:, :],
        None if given.resets is None else given.resets[..., n_whole:],
        jnp.int32(n_whole),
    )
    h, of_left = advance(given.h0, left) if loop.reverse else (given.h0, None)
    h, of_segments = jax.lax.scan(advance, h, segments, reverse=loop.reverse)
    if of_left is None:
        h, of_left = advance(h, left)
    a, before = jax.tree.map(
        lambda whole, rest: jnp.concatenate([whole.reshape(n_whole, *whole.shape[2:]), rest]),
        of_segments,
        of_left,
    )
    return Trajectory(h, a, before)


def _cut(array: jax.Array, n_segments: int, *, axis: int) -> jax.Array:
    """The axis of time as two, of segments and of steps within one, and the former first."""
    before, after = array.shape[:axis], array.shape[axis:][1:]
    pieces = array.reshape(*before, n_segments, array.shape[axis] // n_segments, *after)
    return jnp.moveaxis(pieces, axis - 1, 0)
