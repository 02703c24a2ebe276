"""Axes, masks and types of arrays that hold many steps of many sequences.

Outside of `recurrence.py` the batch axes of an array come before its steps. Inside it the steps
come first, as in `jax.lax.scan`.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxrnn.options import Run
from jaxrnn.params import RNNParams

Matmul = Callable[[jax.Array, jax.Array], jax.Array]


def time_first(array: jax.Array, axis: int = -2) -> jax.Array:
    """Move the axis of steps to the front."""
    return jnp.moveaxis(array, axis, 0)


def batch_first(array: jax.Array) -> jax.Array:
    """Move the steps from the front to behind the batch: `(*batch, n_steps, n)`."""
    return jnp.moveaxis(array, 0, -2)


def step_numbers(n_steps: Any) -> jax.Array:
    """The indices of the steps, from 0."""
    return jnp.arange(n_steps, dtype=jnp.int32)


def padding(run: Run, t: jax.Array) -> jax.Array | None:
    """Whether step `t` is padding, `(*batch,)`; of several steps, `(len(t), *batch)`."""
    if run.lengths is None:
        return None
    lengths = jnp.broadcast_to(run.lengths, (*t.shape, *run.lengths.shape))
    return jnp.expand_dims(t, range(t.ndim, lengths.ndim)) >= lengths


def x_without_padding(run: Run) -> jax.Array:
    """`x`, time first, with zeros in the padding, as NaN there would reach gradients by 0 * NaN."""
    return zero_where(padding(run, step_numbers(run.x.shape[-2])), time_first(run.x))


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen` where a mask is true, else `otherwise`; the mask may lack the last axes."""
    if where is None:
        return otherwise
    if where.ndim:  # `jax.lax.select` takes a scalar as it is
        where = broadcast(jnp.expand_dims(where, range(where.ndim, otherwise.ndim)), otherwise)
    return jax.lax.select(where, broadcast(chosen, otherwise), otherwise)


def zero_where(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zero where a mask is true, else `array`."""
    return array if where is None else select(where, jnp.zeros_like(array), array)


def broadcast(array: jax.Array, like: jax.Array) -> jax.Array:
    """Broadcast to the shape of another array, and share it among devices as that is shared.

    Without the latter, the transpose would gather what is shared in order to sum it up.
    """
    if array.shape == like.shape:
        return array
    sharding = jax.typeof(like).sharding
    return jnp.broadcast_to(
        array, like.shape, out_sharding=None if sharding.mesh.empty else sharding
    )


def leak_at(run: Run, t: jax.Array, skipped: jax.Array | None, like: jax.Array) -> jax.Array:
    """The leak of step `t` in the shape of the states, and zero where that step is not run."""
    leak: Any = run.leak
    leak_t = index(leak, t, axis=-2) if run.has_leak_of_steps() else leak[..., 0, :]
    return zero_where(skipped, broadcast(leak_t, like))


def times_wx(params: RNNParams[Any], x: jax.Array, matmul: Matmul = jnp.matmul) -> jax.Array:
    """What inputs add to the pre-activations: `x wx`, or `x` itself without `wx`."""
    return x if params.wx is None else matmul(x, params.wx)


def zero_states(
    params: RNNParams[Any],
    x: jax.Array,
    leak: jax.Array | None,
    lengths: jax.Array | None,
    resets: jax.Array | None,
) -> jax.Array:
    """Zeros `(*batch, n_nodes)` of the type that the states will have.

    The carry of a scan must have that type from the start. On a mesh it says how the states are
    shared among devices, and inside `jax.shard_map` over which axes they vary. It follows from
    everything that the states depend on, but for `h0` and `reset_to`, which are added to these
    zeros. Of `x` no step is read, as its padding may hold NaN.
    """
    # Without a mesh all arrays of a dtype have the same type. To derive it would take 3 ms of each
    # compilation on jax 0.12.
    if jax.sharding.get_abstract_mesh().empty:
        return jnp.zeros((*x.shape[:-2], len(params.wh)), x.dtype)
    like = jnp.sum(times_wx(params, x[..., :0, :]) @ params.wh, axis=-2)
    if params.b is not None:
        like = like + broadcast(params.b, like)
    if leak is not None:
        like = like + broadcast(jnp.sum(leak[..., :0, :], axis=-2), like)
    for mask in (lengths, None if resets is None else jnp.sum(resets, axis=-1)):
        if mask is not None:
            like = like + mask[..., None].astype(like.dtype)
    return jnp.zeros_like(like)


def index(array: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """Entry `i`, not negative, along an axis, which is dropped."""
    out = jax.lax.dynamic_index_in_dim(array, i, axis, False, allow_negative_indices=False)
    return cast(jax.Array, out)
