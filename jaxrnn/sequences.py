"""What a network runs over, and which of the steps are real, resets, or the first."""

from typing import Any, NamedTuple

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


def real_steps(given: Sequences) -> jax.Array | None:
    """Which steps are not padding, `(n_steps, *batch)`; None is all."""
    return None if given.lengths is None else _steps(given) < given.lengths[None]


def without_padding(given: Sequences) -> Sequences:
    """Zeros in its place: in a product it would reach gradients, as 0 * NaN."""
    real = real_steps(given)
    if real is None:
        return given
    return given._replace(x=select(jnp.moveaxis(real, 0, -1), given.x, jnp.zeros_like(given.x)))


def reset_steps(given: Sequences) -> jax.Array | None:
    """`resets` with time first."""
    return None if given.resets is None else jnp.moveaxis(given.resets, -1, 0)


def waiting_steps(given: Sequences, *, reverse: bool) -> jax.Array:
    """Before which steps none was run but padding, `(n_steps, *batch)`."""
    t = _steps(given)
    if given.lengths is None:
        return t == (given.x.shape[-2] - 1 if reverse else 0)
    if reverse:
        return t >= given.lengths[None] - 1
    return (t == 0) | (given.lengths[None] <= 0)


def _steps(given: Sequences) -> jax.Array:
    """The number of each step, from 0."""
    return jax.lax.broadcasted_iota(jnp.int32, (given.x.shape[-2], *given.h0.shape[:-1]), 0)


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen` where a mask without the last axis says so, else `otherwise`; so without a mask."""
    if where is None:
        return otherwise
    where = jnp.broadcast_to(where[..., None], otherwise.shape)
    return jnp.where(where, jnp.broadcast_to(chosen, otherwise.shape), otherwise)
