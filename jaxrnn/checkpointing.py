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


def run(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    """Every step; the states within a segment are computed again when they are differentiated."""
    n_steps, every = given.x.shape[-2], loop.checkpoint_every
    if every is None:
        return recurrence.run(loop, params, given)
    if not isinstance(n_steps, int):
        raise ValueError(
            "checkpoint_every needs a number of steps that is known when x is traced, "
            f"but x has shape {given.x.shape}"
        )
    if n_steps <= every:
        return recurrence.run(loop, params, given)

    def segment(size: int, h: jax.Array, first: Any) -> tuple[jax.Array, Any]:
        # Cut out of what is there, as a scan would keep a copy of what it is given in pieces.
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=size)
        piece = Sequences(
            cut(given.x, axis=-2),
            h,
            None if given.lengths is None else jnp.clip(given.lengths - first, 0, size),
            None if given.resets is None else cut(given.resets, axis=-1),
            given.restart,
        )
        out = recurrence.run(loop, params, piece)
        return out.last, (out.a, out.h)

    advance = partial(jax.checkpoint, prevent_cse=False)(partial(segment, every))
    n_left = n_steps % every
    n_whole = n_steps - n_left
    firsts = jnp.arange(0, n_whole, every, dtype=jnp.int32)
    if loop.reverse:
        h, of_left = segment(n_left, given.h0, jnp.int32(n_whole))
        h, of_segments = jax.lax.scan(advance, h, firsts, reverse=True)
    else:
        h, of_segments = jax.lax.scan(advance, given.h0, firsts)
        h, of_left = segment(n_left, h, jnp.int32(n_whole))
    a, h_all = jax.tree.map(
        lambda whole, left: jnp.concatenate([whole.reshape(n_whole, *whole.shape[2:]), left]),
        of_segments,
        of_left,
    )
    return Trajectory(h, a, h_all)
