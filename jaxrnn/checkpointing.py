"""Checkpointing: the forward pass stores one state of each piece of a run.

The backward pass computes the others again.

Griewank, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
differentiation", Optimization Methods and Software 1 (1992), 35-54, with a single level.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import recurrence
from jaxrnn.options import Run
from jaxrnn.params import RNNParams
from jaxrnn.recurrence import Trajectory


def run_pieces(params: RNNParams[Any], run: Run) -> Trajectory:
    """Run every step; the backward pass computes the states within a piece again."""
    n_steps, every = run.x.shape[-2], run.checkpoint_every
    if every is None or n_steps <= every:
        return recurrence.run_steps(params, run)

    def run_piece(size: int, h: jax.Array, first: Any) -> tuple[jax.Array, Any]:
        # Cut out of the arrays of all steps: a scan would keep a copy of inputs in pieces.
        out = recurrence.run_steps(params, run.cut(first, size, h))
        return out.last, (out.a, out.h, out.f)

    n_left = n_steps % every
    n_whole = n_steps - n_left
    run_whole = partial(
        jax.lax.scan,
        jax.checkpoint(partial(run_piece, every), prevent_cse=False),
        xs=jnp.arange(0, n_whole, every, dtype=jnp.int32),
        reverse=run.reverse,
    )
    run_left = partial(run_piece, n_left, first=jnp.int32(n_whole))
    if run.reverse:
        h, of_left = run_left(run.h0)
        h, of_whole = run_whole(h)
    else:
        h, of_whole = run_whole(run.h0)
        h, of_left = run_left(h)

    def join(whole: jax.Array, left: jax.Array) -> jax.Array:
        return jnp.concatenate([whole.reshape(n_whole, *left.shape[1:]), left])

    return Trajectory(h, *jax.tree.map(join, of_whole, of_left))
