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

    Example:
      Find a fixed point of the dynamics by Newton's method, and the eigenvalues of the Jacobian
      there. To find more of them, `jax.vmap` over many starts.

        import jax
        import jax.numpy as jnp
        from jax.nn.initializers import normal
        from jaxrnn import init_params, rnn_step

        params = init_params(jax.random.key(0), 2, 16, wh_init=normal(0.5), b_init=normal(0.1))
        step = lambda h: rnn_step(params, h, jnp.zeros(2))  # the input is held constant
        h = jax.random.uniform(jax.random.key(1), 16, minval=-1)
        for _ in range(20):
            h -= jnp.linalg.solve(jax.jacfwd(step)(h) - jnp.eye(16), step(h) - h)
        assert jnp.allclose(step(h), h, atol=1e-5)
        eigenvalues = jnp.linalg.eigvals(jax.jacfwd(step)(h))  # the point repels where |.| > 1
    """
    params, h, x_t = prepare_step(params, h, x_t, activation)
    return recurrence.step(params, h, x_t, activation)


@jitted()
def rnn_forward(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> jax.Array:
    """The last hidden state of a vanilla (Elman) RNN run over a sequence.

        a_t = x_t wx + h_{t-1} wh + b      h_t = activation(a_t)      t = 1 .. n_steps

    This is the network of Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211,
    without its output layer. `rnn_states` gives every step.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`, with any number of batch axes.
      h0: the state before the first step. It broadcasts to `(*batch, n_nodes)`: `(n_nodes,)` is one
        initial state for the whole batch. None is zero.
      activation: an elementwise function that keeps shape and dtype. Define it once, outside any
        loop: a new function object, such as a lambda at each call, is a new compilation. JAX keeps
        each compilation, of one or two megabytes, until `jax.clear_caches()`.
      lengths: how many steps each sequence has, integers `(*batch,)` from 0 to n_steps. What comes
        after them in `x` is padding. In the padding the state stays as it is, and nothing that the
        padding contains, NaN included, reaches a value or a gradient. Length 0 gives `h0`. A Python
        or NumPy length out of range is an error. The lengths in a JAX array, traced or not, are not
        checked: one out of range counts as the nearest in range.
      resets: bool `(*batch, n_steps)`. Where true, the state is set to `reset_to` before that step,
        as at the beginning of a sequence that is packed behind another. Resets in the padding do
        nothing.
      reset_to: the state after a reset, which broadcasts as `h0` does. None is `h0`. Pass it, for
        example as zeros, when a call runs on from the last state of another: without it a reset
        would return to that state.
      reverse: run from the last step that is not padding to the first.
      checkpoint_every: store one state in this many for the backward pass, and compute the others
        again there. The memory is some n_steps / checkpoint_every + checkpoint_every states, which
        is least near the square root of n_steps, for about a third more time. None stores all.
        Values and derivatives are the same, in every mode and order.
      unroll: steps in one iteration of the loop, passed on to `jax.lax.scan`.

    Returns:
      The state after the last step that is run, `(*batch, n_nodes)`; `h0` where no step is run.
      Everything is computed in the dtype of the result: what `params`, `x` and `h0` promote to by
      JAX's rules, made floating. bfloat16 with float32 gives float32, integers with float32 give
      float32, integers alone give JAX's default, and float64 needs x64. NumPy arrays and Python
      numbers are taken; lists are not, as in JAX.

    Raises:
      TypeError: `params` is not an `RNNParams`, an array does not hold real numbers, `activation`
        is not callable or changes shape or dtype, `lengths` are not integers or `resets` not bool,
        `reverse` is not a bool, `checkpoint_every` or `unroll` is not an integer.
      ValueError: shapes do not fit each other, a Python or NumPy length is out of range,
        `checkpoint_every` or `unroll` is less than 1, `checkpoint_every` is given with a symbolic
        n_steps, or `reset_to` is given without `resets`.

    Example:
      Sequences of 4 and 2 steps, where the padding of the second is NaN.

        import jax
        import jax.numpy as jnp
        from jax.nn import initializers as init
        from jaxrnn import init_params, rnn_forward

        params = init_params(jax.random.key(0), 3, 16, wh_init=init.orthogonal(), b_init=init.zeros)
        x = jax.random.normal(jax.random.key(1), (2, 4, 3)).at[1, 2:].set(jnp.nan)
        h = rnn_forward(params, x, lengths=jnp.array([4, 2]))
        assert jnp.allclose(h[1], rnn_forward(params, x[1, :2]), atol=1e-6)

      A gradient through 20,000 steps, in less than a twentieth of the memory.

        x = jax.random.normal(jax.random.key(1), (20_000, 3))

        def temporary_bytes(every):
            last = lambda params: jnp.sum(rnn_forward(params, x, checkpoint_every=every))
            compiled = jax.jit(jax.grad(last)).lower(params).compile()
            return compiled.memory_analysis().temp_size_in_bytes

        assert temporary_bytes(141) < temporary_bytes(None) / 20
    """
    return run_pieces(*prepare_run(params, x, h0, **options)).last


@jitted()
def rnn_states(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> RNNStates[jax.Array]:
    """Every pre-activation and every hidden state of a vanilla RNN run over a sequence.

    Arguments, dtype and errors are those of `rnn_forward`. If there is at least one step, its
    result is `h[..., -1, :]` here, or `h[..., 0, :]` with `reverse`.

    Returns:
      `RNNStates(a, h)`, each `(*batch, n_steps, n_nodes)`. Each step stands beside its input in
      `x`, with `reverse` too. In the padding `h` is the last real state and `a` is zero. Inside
      `jax.jit`, a field that is not used is not stored. For the last state alone, call
      `rnn_forward`, which stores neither.

    Example:
      Truncated backpropagation through time: each piece runs on from the last state of the piece
      before, and the gradient stops there.

        import jax
        import jax.numpy as jnp
        from jax.nn import initializers as init
        from jaxrnn import init_params, rnn_states

        params = init_params(jax.random.key(0), 3, 16, wh_init=init.orthogonal(), b_init=init.zeros)
        x = jax.random.normal(jax.random.key(1), (32, 100, 3))

        def loss(params, piece, h0):
            h = rnn_states(params, piece, h0).h
            return jnp.mean(h**2), h[..., -1, :]

        h = jnp.zeros(16)
        for piece in jnp.split(x, 5, axis=-2):
            gradient, h = jax.grad(loss, has_aux=True)(params, piece, jax.lax.stop_gradient(h))
        assert jnp.allclose(h, rnn_states(params, x).h[:, -1], atol=1e-5)

      Sequences of 4 and 7 steps, packed one behind the other.

        packed = x[0, :11]
        h = rnn_states(params, packed, resets=jnp.isin(jnp.arange(11), jnp.array([0, 4]))).h
        assert jnp.allclose(h[4:], rnn_states(params, packed[4:]).h, atol=1e-5)
    """
    return run_pieces(*prepare_run(params, x, h0, **options)).states()
