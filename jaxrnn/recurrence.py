"""The recurrence of a vanilla (Elman) RNN.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = activation(a_t)                          t = 1 .. n_steps

Here time is the leading axis of `x`, the arguments are already checked, and all have one dtype.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.params import Array, RNNParams

Activation = Callable[[jax.Array], jax.Array]


class RNNStates(NamedTuple):
    """What a vanilla RNN passes through, step by step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states `activation(a)`, the same shape.
    """

    a: Array
    h: Array


jax.export.register_namedtuple_serialization(RNNStates, serialized_name="jaxrnn.RNNStates")


def step(
    activation: Activation, params: RNNParams, h_tm1: jax.Array, x_t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    a_t = x_t @ params.wx + h_tm1 @ params.wh
    if params.b is not None:
        a_t += jnp.broadcast_to(params.b, a_t.shape)
    h_t = activation(a_t)
    if getattr(h_t, "shape", None) != a_t.shape or h_t.dtype != a_t.dtype:
        came = f"{h_t.dtype}{h_t.shape}" if isinstance(h_t, jax.Array) else type(h_t).__name__
        raise TypeError(
            "activation must return the dtype and shape it is given, "
            f"{a_t.dtype}{a_t.shape}, but returned {came}"
        )
    return a_t, h_t


def last_state(
    activation: Activation, params: RNNParams, x: jax.Array, h0: jax.Array, unroll: int | bool
) -> jax.Array:
    """The state after the last step of `x (n_steps, *batch, n_features)`: `(*batch, n_nodes)`."""

    def advance(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        return step(activation, params, h_tm1, x_t)[1], None

    return jax.lax.scan(advance, h0, x, unroll=unroll)[0]


def all_states(
    activation: Activation, params: RNNParams, x: jax.Array, h0: jax.Array, unroll: int | bool
) -> RNNStates:
    """Every step's `a` and `h`: each `(n_steps, *batch, n_nodes)`."""

    def advance(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, RNNStates]:
        a_t, h_t = step(activation, params, h_tm1, x_t)
        return h_t, RNNStates(a_t, h_t)

    return jax.lax.scan(advance, h0, x, unroll=unroll)[1]
