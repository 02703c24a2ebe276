"""What a network runs over, and masks of its steps."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp


class Sequences(NamedTuple):
    """What a network runs over, and from where.

    Attributes:
      x: inputs, `(*batch, n_steps, n_features)`.
      h0: the state before the first step, `(*batch, n_nodes)`.
      lengths: how many of the steps are not padding, int32 `(*batch,)`; None is all.
      resets: whether a step starts from `restart`, bool `(*batch, n_steps)`; None is never.
      restart: the state after a reset, `(*batch, n_nodes)`; None where `resets` is.
    """

    x: jax.Array
    h0: jax.Array
    lengths: jax.Array | None
    resets: jax.Array | None
    restart: jax.Array | None


def step_numbers(given: Sequences) -> jax.Array:
    """The number of each step, from 0."""
    return jnp.arange(given.x.shape[-2], dtype=jnp.int32)


def padding(given: Sequences, t: jax.Array) -> jax.Array | None:
    """Whether step `t` is padding, `(*batch,)`; of several steps, `(len(t), *batch)`."""
    if given.lengths is None:
        return None
    lengths = jnp.broadcast_to(given.lengths, (*t.shape, *given.lengths.shape))
    return jnp.expand_dims(t, range(t.ndim, lengths.ndim)) >= lengths


def without_padding(given: Sequences) -> jax.Array:
    """`x` with time first, and zeros in the padding: there it could reach gradients, as 0 * NaN."""
    x = jnp.moveaxis(given.x, -2, 0)
    return masked(padding(given, step_numbers(given)), x)


def select(where: jax.Array | None, chosen: jax.Array, otherwise: jax.Array) -> jax.Array:
    """`chosen` where a mask, which may lack last axes, says so, else `otherwise`."""
    if where is None:
        return otherwise
    if where.ndim:  # else JAX takes it as it is
        where = broadcast(jnp.expand_dims(where, range(where.ndim, otherwise.ndim)), otherwise)
    return jnp.where(where, broadcast(chosen, otherwise), otherwise)


def broadcast(array: jax.Array, like: jax.Array) -> jax.Array:
    """To the shape of another, and where that is shared on explicit axes, shared in the same way.

    Else the transpose of this would gather what is shared, to sum it up.
    """
    if array.shape == like.shape:
        return array
    sharding = jax.typeof(like).sharding
    return jnp.broadcast_to(
        array, like.shape, out_sharding=None if sharding.mesh.empty else sharding
    )


def masked(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zero where a mask says so, else `array`."""
    return select(where, jnp.zeros_like(array), array)


def index(array: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """Entry `i`, not negative, along an axis, which is dropped."""
    out = jax.lax.dynamic_index_in_dim(array, i, axis, False, allow_negative_indices=False)
    return cast(jax.Array, out)
