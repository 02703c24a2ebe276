"""The recurrence of a vanilla (Elman) RNN.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = activation(a_t)                          t = 1 .. n_steps

Here time is the leading axis of `x`, the arguments are already checked, and all have one dtype.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.params import ArrayT, RNNParams

Activation = Callable[[jax.Array], jax.Array]


class RNNStates(NamedTuple, Generic[ArrayT]):
    """What a vanilla RNN passes through, step by step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states `activation(a)`, the same shape.
    """

    a: ArrayT
    h: ArrayT


jax.export.register_namedtuple_serialization(RNNStates, serialized_name="jaxrnn.RNNStates")


def step(
    params: RNNParams[Any], h_tm1: jax.Array, x_t: jax.Array, activation: Activation
) -> RNNStates[jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    a_t = x_t @ params.wx + h_tm1 @ params.wh
    if params.b is not None:
        a_t += jnp.broadcast_to(params.b, a_t.shape)  # in words, for jax_numpy_rank_promotion
    return RNNStates(a_t, activation(a_t))


def last_state(
    params: RNNParams[Any], x: jax.Array, h0: jax.Array, activation: Activation, unroll: int | bool
) -> jax.Array:
    """The state after the last step of `x (n_steps, *batch, n_features)`: `(*batch, n_nodes)`."""

    def advance(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        return step(params, h_tm1, x_t, activation).h, None

    return jax.lax.scan(advance, h0, x, unroll=unroll)[0]


def all_states(
    params: RNNParams[Any], x: jax.Array, h0: jax.Array, activation: Activation, unroll: int | bool
) -> RNNStates[jax.Array]:
    """Every step's `a` and `h`: each `(n_steps, *batch, n_nodes)`."""

    def advance(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, RNNStates[jax.Array]]:
        states = step(params, h_tm1, x_t, activation)
        return states.h, states

    return jax.lax.scan(advance, h0, x, unroll=unroll)[1]
