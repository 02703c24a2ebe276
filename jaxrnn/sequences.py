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


def steps(given: Sequences) -> jax.Array:
    """The number of each step, from 0."""
    return jnp.arange(given.x.shape[-2], dtype=jnp.int32)


def without_padding(given: Sequences) -> Sequences:
    """Zeros in its place: in a product it would reach gradients, as 0 * NaN."""
    if given.lengths is None:
        return given
    real = _real(given, given.lengths)
    return given._replace(x=select(real, given.x, jnp.zeros_like(given.x)))


def without_resets_in_padding(given: Sequences) -> Sequences:
    """What they put back to would reach gradients too, though no state."""
    if given.lengths is None or given.resets is None:
        return given
    return given._replace(resets=given.resets & _real(given, given.lengths))


def _real(given: Sequences, lengths: jax.Array) -> jax.Array:
    """Which steps are not padding, `(*batch, n_steps)`."""
    return jnp.moveaxis(_steps(given) < lengths[None], 0, -1)


def reset_steps(given: Sequences) -> jax.Array | None:
    """`resets` with time first."""
    return None if given.resets is None else jnp.moveaxis(given.resets, -1, 0)


def waiting_steps(given: Sequences, *, reverse: bool) -> jax.Array:
    """Before which steps none was run but padding, `(n_steps, *batch)`."""
    t = _steps(given)
    if not reverse:
        return t == 0
    return t >= (given.x.shape[-2] if given.lengths is None else given.lengths[None]) - 1


def _steps(given: Sequences) -> jax.Array:
    """The same, in as many axes as a mask has: time, and the batch's."""
    return jnp.expand_dims(steps(given), range(1, given.h0.ndim))


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen` where a mask, with the last axis or without it, says so, else `otherwise`."""
    if where is None:
        return otherwise
    if where.ndim < otherwise.ndim:
        where = jnp.broadcast_to(where[..., None], otherwise.shape)
    return jnp.where(where, jnp.broadcast_to(chosen, otherwise.shape), otherwise)
