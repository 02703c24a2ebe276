"""The public functions of the vanilla RNN: one step, the last state, all states."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn import recurrence
from jaxrnn.arguments import prepare_run, prepare_step
from jaxrnn.checkpointing import run_pieces
from jaxrnn.jitting import jitted
from jaxrnn.options import Activation, Options
from jaxrnn.params import RNNParams
from jaxrnn.recurrence import RNNStates


@jitted()
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
    params, h, x_t = prepare_step(params, h, x_t, activation)
    return recurrence.step(params, h, x_t, activation)


@jitted()
def rnn_forward(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
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
    return run_pieces(*prepare_run(params, x, h0, **options)).last


@jitted()
def rnn_states(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
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
    return run_pieces(*prepare_run(params, x, h0, **options)).states()
