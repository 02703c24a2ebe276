"""The public functions of the vanilla RNN: one step, the last state, all states."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn import checkpointing, recurrence
from jaxrnn.arguments import (
    check_activation,
    check_features,
    prepared,
    promoted,
)
from jaxrnn.jitting import jitted
from jaxrnn.params import RNNParams
from jaxrnn.recurrence import Activation, RNNStates
from jaxrnn.sequences import broadcast


@jitted("activation")
def rnn_step(
    params: RNNParams[Any], h: ArrayLike, x_t: ArrayLike, *, activation: Activation = jnp.tanh
) -> jax.Array:
    """One step of the recurrence: `activation(x_t wx + h wh + b)`.

    Args:
      params: the network.
      h: the state before the step, `(*batch, n_nodes)`. It comes before the input, as the carry
        does in `jax.lax.scan`.
      x_t: the input of the step, `(*batch, n_features)`. The batch axes of `h` and `x_t` broadcast
        against each other: many states under one input, or one state under many inputs.
      activation: as in `rnn_forward`.

    Returns:
      The state after the step, `(*batch, n_nodes)`, in the dtype of `rnn_forward`.

    Raises:
      TypeError, ValueError: as `rnn_forward`.
    """
    params, (x_t, h) = promoted(params, {"x_t": x_t, "h": h})
    if x_t.ndim == 0:
        raise ValueError("x_t must have shape (*batch, n_features), but has shape ()")
    check_features("x_t", x_t, params)
    n_nodes = params.wh.shape[0]
    if h.ndim == 0 or h.shape[-1] != n_nodes:
        raise ValueError(
            f"h must have shape (*batch, n_nodes) with n_nodes = {n_nodes}, but has shape {h.shape}"
        )
    try:
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    except ValueError:
        raise ValueError(
            "h and x_t must have batch axes that broadcast against each other, "
            f"but have shapes {h.shape} and {x_t.shape}"
        ) from None
    if h.shape[:-1] != batch:
        like = jnp.sum(x_t, axis=-1, keepdims=True)
        h = broadcast(h, jnp.broadcast_to(like, (*batch, n_nodes)))
    x_t = jnp.broadcast_to(x_t, (*batch, x_t.shape[-1]))
    check_activation(activation, h.shape, h.dtype)
    return recurrence.step(params, h, x_t, activation).h


@jitted("activation", "reverse", "checkpoint_every", "unroll")
def rnn_forward(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Activation = jnp.tanh,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reset_to: ArrayLike | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> jax.Array:
    """The last hidden state of a vanilla (Elman) RNN run over a sequence.

        a_t = x_t wx + h_{t-1} wh + b      h_t = activation(a_t)      t = 1 .. n_steps

    The network of Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211,
    without its output layer; `SimpleRNN.forward` of the notebook. `rnn_states` gives every step.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`, with any number of batch axes.
      h0: the state before the first step, which broadcasts to `(*batch, n_nodes)`: `(n_nodes,)` is
        one initial state for the whole batch. None is zero.
      activation: an elementwise function that keeps shape and dtype. A new function object is a
        new compilation: define it once, outside any loop.
      lengths: how many steps each sequence has, integers `(*batch,)` from 0 to n_steps; what comes
        after them in `x` is padding. The state holds in the padding, whose contents, NaN included,
        reach no value and no gradient; with length 0 it is `h0`. A Python or NumPy length
        out of range is an error. The lengths in a JAX array, traced or not, are not checked: one
        out of range counts as the nearest in range.
      resets: bool `(*batch, n_steps)`: where true, the state is put back to `reset_to` before that
        step, as where a sequence begins that was packed behind another. In the padding they do
        nothing.
      reset_to: the state that resets put back to, which broadcasts as `h0` does. None is `h0`: give
        it where a call runs on from a state that is not where a sequence begins.
      reverse: run from the last step that is not padding to the first.
      checkpoint_every: keep one state in so many for the backward pass and compute the others again
        there: of n_steps, its memory is some n_steps / checkpoint_every + checkpoint_every states,
        least near the square root of n_steps, for about a third more time. None keeps all. Values
        and derivatives are the same, in every mode and order.
      unroll: steps in one iteration of the loop, passed on to `jax.lax.scan`.

    Returns:
      The state after the last step that is run, `(*batch, n_nodes)`; `h0` where there is none.
      Everything is computed in the dtype of the result: what `params`, `x` and `h0` promote to by
      JAX's rules, made floating.

    Raises:
      TypeError: `params` is not an `RNNParams`, an array does not hold real numbers, `activation`
        is not callable or changes shape or dtype, `lengths` are not integers or `resets` not bool,
        `reverse` is not a bool, `checkpoint_every` or `unroll` not an integer.
      ValueError: shapes do not fit each other, a Python or NumPy length is out of range,
        `checkpoint_every` or `unroll` is less than 1, the former is given with a symbolic n_steps,
        or `reset_to` without `resets`.
    """
    loop, params, given = prepared(
        params, x, h0, activation, lengths, resets, reset_to, reverse, checkpoint_every, unroll
    )
    return checkpointing.run(loop, params, given).last


@jitted("activation", "reverse", "checkpoint_every", "unroll")
def rnn_states(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Activation = jnp.tanh,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reset_to: ArrayLike | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> RNNStates[jax.Array]:
    """Every pre-activation and every hidden state of a vanilla RNN run over a sequence.

    Arguments, dtype and errors are those of `rnn_forward`, whose result, where there is at least
    one step, is `h[..., -1, :]`, or `h[..., 0, :]` with `reverse`.

    Returns:
      `RNNStates(a, h)`, each `(*batch, n_steps, n_nodes)`, step by step beside `x`, with `reverse`
      too. In the padding `h` is the state that holds there and `a` is zero. Inside `jax.jit`, a
      field that is not used is not stored; to store neither, for the last state alone, call
      `rnn_forward`.
    """
    loop, params, given = prepared(
        params, x, h0, activation, lengths, resets, reset_to, reverse, checkpoint_every, unroll
    )
    return recurrence.states(checkpointing.run(loop, params, given))
