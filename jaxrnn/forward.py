"""The public functions of the vanilla RNN: one step, the last state, all states, and padding."""

from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn.arguments import as_array, as_lengths, check_lengths, prepare_run, prepare_step
from jaxrnn.derivative import loop_by_rule
from jaxrnn.errors import require
from jaxrnn.inputs import DEFAULTS, Function, Inputs, Options, zero_behind
from jaxrnn.jitting import jitted
from jaxrnn.params import Params
from jaxrnn.plan import Plan, plan_for
from jaxrnn.recurrence import RNNStates, Trajectory, cell, in_segments, loop, settle


@partial(jitted, has_loop=False)
def rnn_step(
    params: Params,
    h: ArrayLike,
    x_t: ArrayLike,
    *,
    activation: Function = jnp.tanh,
    rate: Function | None = None,
    leak: ArrayLike | None = None,
) -> jax.Array:
    """One step of the recurrence: `h + leak (activation(x_t wx + rate(h) wh + b) - h)`.

    Args:
      params: the network.
      h: the state before the step, `(*batch, n_nodes)`. It comes before the input, as the carry
        does in `jax.lax.scan`.
      x_t: the input of the step, `(*batch, n_features)`. The batch axes of `h` and `x_t` broadcast
        against each other: many states under one input, or one state under many inputs.
      activation: as in `rnn_forward`.
      rate: likewise.
      leak: likewise, but it broadcasts to `(*batch, n_nodes)`.

    Returns:
      The state after the step, `(*batch, n_nodes)`, in the dtype of `rnn_forward`.

    Raises:
      TypeError, ValueError: as `rnn_forward`.

    Example:
      Step by step, as a run does, and the derivative of a step by its state. Programs that use them
      find fixed points (`python -m jaxrnn.examples.flip_flop`) and Lyapunov exponents
      (`python -m jaxrnn.examples.chaos`), and learn online (`python -m jaxrnn.examples.online`).

      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import LEARNABLE, init_params, rnn_forward, rnn_step

      params = init_params(jax.random.key(0), 3, 16, **LEARNABLE)
      x = jax.random.normal(jax.random.key(1), (5, 3))
      h = jnp.zeros(16)
      for x_t in x:
          h = rnn_step(params, h, x_t)
      assert jnp.allclose(h, rnn_forward(params, x), atol=1e-6)
      jacobian = jax.jacfwd(rnn_step, argnums=1)(params, h, x[-1])  # (n_nodes, n_nodes)
      assert jnp.all(jnp.abs(jnp.linalg.eigvals(jacobian)) < 1)
      ```
    """
    options = {"activation": activation, "rate": rate, "leak": leak}
    params, inputs = prepare_step(params, h, x_t, options)
    _, f = cell(Plan(activation, rate), params, inputs.steps, inputs.h0)
    return settle(inputs.steps, inputs.leak, f, inputs.h0, inputs.h0)


@jitted
def rnn_forward(
    params: Params, x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> jax.Array:
    """The last hidden state of a vanilla (Elman) RNN run over a sequence.

        a_t = x_t wx + rate(h_{t-1}) wh + b
        h_t = h_{t-1} + leak_t (activation(a_t) - h_{t-1})      t = 1 .. n_steps

    Without a rate, rate(h) is h; without a leak, h_t is activation(a_t). Without both it is the
    network of Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211, without its
    output layer. `rnn_states` gives every step.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`, with any number of batch axes.
      h0: the state before the first step, of finite numbers. It broadcasts to `(*batch, n_nodes)`:
        `(n_nodes,)` is one initial state for the whole batch. None is zero.
      activation: any function of one step's `(*batch, n_nodes)` that treats each sequence alone and
        keeps shape and dtype. Most are elementwise. Layer normalisation over the nodes fits too,
        and so does a gain of each sequence. A function that mixes sequences is not noticed, and
        gives wrong results. It may read anything, such as a gain that is trained. A function of
        JAX itself is compiled once, and any other is traced in each call: put a `jax.jit` of your
        own around calls with a function of your own. The fast derivative is for `jnp.tanh`,
        `jax.nn.relu`, `jax.nn.sigmoid`, `jax.nn.softplus`, `jax.nn.identity`, `jax.lax.tanh` and
        `jax.lax.logistic` themselves. JAX differentiates others, a lambda around one of these
        included, step by step.
      rate: a function of the state before `wh`, of which all holds that is said of `activation`,
        but it may return as many entries as `wh` has rows, `(*batch, n_rates)`: as many as the rank
        of a network, say. None is the identity, and costs nothing. A network of currents has a
        leak, the activation `jax.nn.identity` and a rate such as `jnp.tanh`: `h` are the currents,
        `rate(h)` the rates.
      leak: how far each node moves from its state towards the activation, which broadcasts to
        `(*batch, n_steps, n_nodes)`: 0 holds the state, 1 is the network without a leak, and dt/tau
        is a rate network of time constant tau. Any number is taken, and it may be traced and
        differentiated. Where it is 0 the input must still be finite, as 0 times NaN is NaN. In the
        padding its value, NaN included, reaches nothing. None is 1.
      lengths: how many steps each sequence has, integers `(*batch,)` from 0 to n_steps. What comes
        after them in `x` is padding. There the state stays as it is, and nothing that the padding
        contains, NaN included, reaches a value or a gradient inside this call. Outside it NaN does,
        in what is computed from padded arrays: `mask_padding` puts zeros there. Length 0 gives
        `h0`. A length out of range is an error if it is a Python number, or in a NumPy array. The
        lengths in a JAX array, traced or not, are not checked: one out of range counts as the
        nearest in range.
      resets: bool `(*batch, n_steps)`. Where true, the state is set to `reset_to` before that step,
        as at the beginning of a sequence that is packed behind another. Resets in the padding do
        nothing.
      reset_to: the state after a reset, which broadcasts as `h0` does. None is zero. With `h0` it
        must be given, as resets must not return to a state that the call merely runs on from.
      reverse: run from the last step that is not padding to the first.
      checkpoint_every: store one state in this many for the backward pass, and compute the others
        again there. The memory is some n_steps / checkpoint_every + checkpoint_every states, which
        is least near the square root of n_steps, for up to a third more time. None stores all.
        Values and derivatives are the same, in every mode and order.
      unroll: steps in one iteration of the loop, an integer; 0 or n_steps unrolls all. None is what
        is best for the default backend of JAX: eight on GPUs and of single sequences on TPUs, else
        one. Say 8 when you export a program on a CPU for another device, or on a TPU, where
        `jax.export` refuses what is best there. A symbolic n_steps allows None alone.

    Returns:
      The state after the last step that is run, `(*batch, n_nodes)`; `h0` where no step is run.
      Everything is computed in the dtype of the result: what all its arrays but masks promote to by
      JAX's rules, made floating. bfloat16 with float32 gives float32, integers with float32 give
      float32, integers alone give JAX's default, and float64 needs x64. NumPy arrays and Python
      numbers are taken; lists are not, as in JAX. Masked arrays and those of another byte order are
      not looked for: JAX misreads them once it has compiled a call. On GPUs, JAX drops bits of
      float32 in products unless its option `jax_default_matmul_precision` is "highest".

    Raises:
      TypeError: `params` is not an `RNNParams`, an array does not hold real numbers, `activation`
        or `rate` is not callable or changes shape or dtype, `lengths` are not integers or `resets`
        not bool, `reverse` is not a bool, or `checkpoint_every` or `unroll` is not an integer.
      ValueError: shapes do not fit each other, a Python or NumPy length is out of range,
        `checkpoint_every` is less than 1 or given with a symbolic n_steps, `unroll` is less than 0
        or unrolls a symbolic n_steps, `reset_to` is given without `resets`, or `resets` and
        `h0` without `reset_to`.
      OverflowError: a Python number is too large for any dtype.

    Example:
      Sequences of 4 and 2 steps, where the padding of the second is NaN.

      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import LEARNABLE, init_params, rnn_forward

      params = init_params(jax.random.key(0), 3, 16, **LEARNABLE)
      x = jax.random.normal(jax.random.key(1), (2, 4, 3)).at[1, 2:].set(jnp.nan)
      h = rnn_forward(params, x, lengths=jnp.array([4, 2]))
      assert jnp.allclose(h[1], rnn_forward(params, x[1, :2]), atol=1e-6)
      ```

      A gradient through 20,000 steps, in less than a twentieth of the memory.

      ```python
      x = jax.random.normal(jax.random.key(1), (20_000, 3))

      def temporary_bytes(every):
          last = lambda params: jnp.sum(rnn_forward(params, x, checkpoint_every=every))
          compiled = jax.jit(jax.grad(last)).lower(params).compile()
          return compiled.memory_analysis().temp_size_in_bytes

      assert temporary_bytes(141) < temporary_bytes(None) / 20
      ```
    """
    return run(params, x, h0, **options).last


@jitted
def rnn_states(
    params: Params, x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> RNNStates[jax.Array]:
    """Every pre-activation and every hidden state of a vanilla RNN run over a sequence.

    Arguments, dtype and errors are those of `rnn_forward`.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`.
      h0: the state before the first step, which broadcasts to `(*batch, n_nodes)`; None is zero.
      **options: `activation`, `rate`, `leak`, `lengths`, `resets`, `reset_to`, `reverse`,
        `checkpoint_every` and `unroll`.

    Returns:
      `RNNStates(a, h)`, each `(*batch, n_steps, n_nodes)`. Each step stands beside its input in
      `x`, with `reverse` too: `rnn_forward` gives `h[..., -1, :]`, or then `h[..., 0, :]`. In the
      padding `a` is zero, and `h` is the state that the run holds there: the last real state, or
      with `reverse` `h0`. Inside `jax.jit`, a field that is not used is not stored.

    Example:
      Truncated backpropagation through time: each piece runs on from the last state of the piece
      before. (`python -m jaxrnn.examples.policy` acts by `rnn_step` and learns by `rnn_states`.)

      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import LEARNABLE, init_params, rnn_states

      params = init_params(jax.random.key(0), 3, 16, **LEARNABLE)
      x = jax.random.normal(jax.random.key(1), (32, 100, 3))

      def loss(params, piece, h0):
          h = rnn_states(params, piece, h0).h
          return jnp.mean(h**2), h[..., -1, :]

      h = jnp.zeros(16)
      for piece in jnp.split(x, 5, axis=-2):
          gradient, h = jax.grad(loss, has_aux=True)(params, piece, jax.lax.stop_gradient(h))
      assert jnp.allclose(h, rnn_states(params, x).h[:, -1], atol=1e-5)
      ```

      Sequences of 4 and 7 steps, packed one behind the other.

      ```python
      packed = x[0, :11]
      h = rnn_states(params, packed, resets=jnp.isin(jnp.arange(11), jnp.array([0, 4]))).h
      assert jnp.allclose(h[4:], rnn_states(params, packed[4:]).h, atol=1e-5)
      ```
    """
    return run(params, x, h0, **options).states()


def mask_padding(array: ArrayLike, lengths: ArrayLike) -> jax.Array:
    """Zeros behind the lengths: of each sequence the first `lengths` steps, and 0 in its padding.

    Inside a call with `lengths`, nothing in the padding reaches a value or a gradient. Outside, NaN
    there does: the gradient of `x @ wx` by `wx`, of a loss by what it compares, multiplies it by 0.
    So mask what you compute from padded arrays: inputs before, targets and losses after the call.

    Args:
      array: `(*batch, n_steps, ...)`, of real numbers: inputs, time steps, targets, losses.
      lengths: integers `(*batch,)`, as in `rnn_forward`.

    Returns:
      An array like `array`.

    Raises:
      TypeError, ValueError: `array` is not one of real numbers, `lengths` are not integers, they do
        not fit each other, or a Python or NumPy length is out of range.

    Example:
      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import LEARNABLE, init_params, mask_padding, rnn_states

      x = jnp.ones((2, 4, 3)).at[1, 2:].set(jnp.nan)  # and so the targets below
      lengths = jnp.array([4, 2])

      def loss(params, target):
          h = rnn_states(params, x, lengths=lengths).h
          errors = jnp.sum(h, axis=-1) - mask_padding(target, lengths)
          return jnp.sum(mask_padding(errors**2, lengths)) / jnp.sum(lengths)

      gradient = jax.grad(loss)(init_params(jax.random.key(0), 3, 8, **LEARNABLE), x[..., 0])
      assert jnp.all(jnp.isfinite(gradient.wx))
      ```
    """
    array, given = as_array("array", array), as_array("lengths", lengths, jnp.integer, "integers")
    n_axes = given.ndim
    expected = f"of shape (*batch, n_steps, ...) with {n_axes} axes of the batch, as lengths have"
    require(array.ndim > n_axes, "array", expected, array, ValueError)
    check_lengths(lengths, array.shape[n_axes])
    return zero_behind(as_lengths(lengths, array.shape[:n_axes], "array", array), array)


def run(params: Params, x: Any, h0: Any, **options: Unpack[Options]) -> Trajectory:
    """Run every step of a network.

    With `checkpoint_every` in segments: the backward pass keeps the states before them, and
    computes the others again (Griewank, "Achieving logarithmic growth of temporal and spatial
    complexity in reverse automatic differentiation", Optimization Methods and Software 1 (1992),
    35-54, with a single level).
    """
    given: dict[str, Any] = {**DEFAULTS, **options}
    params, inputs = prepare_run(params, x, h0, given)
    n_steps, every = inputs.n_steps, given["checkpoint_every"]
    if every is None or n_steps <= every:
        return _as_planned(params, inputs, given)

    def segment(size: int, h: jax.Array, now: Any) -> Any:
        # Cut out of the arrays of all steps: a scan would keep a copy of inputs in segments.
        part = inputs.cut(now[0], size)._replace(h0=h)
        last, *states = _as_planned(params, part, given)
        return last, states

    def run_segment(size: int, *now: Any) -> Any:
        # A partial, not `static_argnums`, with which jax 0.10 keeps what an activation has read.
        return jax.checkpoint(partial(segment, size), prevent_cse=False)(*now)

    last, states = in_segments(run_segment, inputs.h0, None, n_steps, every, given["reverse"])
    return Trajectory(last, *states)


def _as_planned(params: Params, inputs: Inputs, options: dict[str, Any]) -> Trajectory:
    """Run every step in one segment, as planned."""
    if inputs.n_steps == 0:  # with `jax.disable_jit` a scan needs one
        nothing = inputs.h0[None][:0]
        return Trajectory(inputs.h0, nothing, nothing, None)
    plan = plan_for(params, inputs, options)
    inputs = jax.tree.map(lambda array: jax.lax.squeeze(array, plan.squeezed), inputs)
    has_rule = plan.by_rule or plan.derivative is not None
    inputs = _in_tiles(plan.added_rows, inputs) if plan.for_tpu else inputs
    out = (loop_by_rule if has_rule else loop)(plan, params, inputs)
    if plan.added_rows:
        out = jax.tree.map(lambda array: array[..., : -plan.added_rows, :], out)
    last, *states = out
    expand = partial(jax.lax.expand_dims, dimensions=[axis + 1 for axis in plan.squeezed])
    return Trajectory(jax.lax.expand_dims(last, plan.squeezed), *jax.tree.map(expand, states))


def _in_tiles(n: int, inputs: Inputs) -> Inputs:
    """For TPUs: with `n` rows of zeros more along the last axis of the batch, and a leak of each.

    Of a leak that rows share, XLA would compute `1 - leak` anew in each step (jax 0.12).
    """
    if inputs.leak is not None:
        by, shape = jax.typeof(inputs.h0).sharding, inputs.h0.shape
        leak = jnp.broadcast_to(inputs.leak, shape, out_sharding=by)
        inputs = inputs._replace(leak=jax.lax.optimization_barrier(leak))
    if n == 0:
        return inputs
    axis, size = inputs.h0.ndim - 2, inputs.h0.shape[-2]

    def add(array: jax.Array) -> jax.Array:
        is_full = array.shape[axis] == size  # leaks of steps may have one entry for all
        shape = *array.shape[:axis], n * is_full, *array.shape[axis + 1 :]
        return jnp.concatenate([array, jnp.zeros(shape, array.dtype)], axis)

    more: Inputs = jax.tree.map(add, inputs)
    return more
