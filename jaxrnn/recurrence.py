"""The parts of a step of a vanilla (Elman) RNN, and the loop over its steps.

    r_{t-1} = rate(h_{t-1})
    a_t = x_t wx + r_{t-1} wh + b
    h_t = (1 - leak_t) h_{t-1} + leak_t f(a_t)     t = 1 .. n_steps, f the activation

Without a rate, r_{t-1} is h_{t-1}. Without a leak, h_t is f(a_t). Without wx, x_t wx is x_t. A step
that is a reset starts from a given state in place of h_{t-1}. A step in the padding keeps the
state: h_t = h_{t-1}, and a_t = 0. In reverse, "before" and "after" change places.

The arguments of these functions are checked already, and all have one dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from jaxrnn.activations import tangent_of
from jaxrnn.inputs import Function, Inputs, Steps, select, zero_behind, zero_where
from jaxrnn.params import ArrayT, Params, RNNParams, named
from jaxrnn.plan import Plan

Product = Callable[[jax.Array, jax.Array], jax.Array]  # array @ weights


@named
class RNNStates(NamedTuple, Generic[ArrayT]):
    """The pre-activations and hidden states of every step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states, the same shape: `activation(a)` where there is no leak.

    Example:
      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import init_params, rnn_states

      a, h = rnn_states(init_params(jax.random.key(0), 3, 16), jnp.ones((2, 5, 3)))
      assert a.shape == (2, 5, 16) and jnp.allclose(h, jnp.tanh(a))
      ```
    """

    a: ArrayT
    h: ArrayT


class Trajectory(NamedTuple):
    """The results of a loop. The compiler drops those that are not used.

    Attributes:
      last: the state after the last step that is run, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, `(n_steps, *batch, n_nodes)`.
      h: the states after the steps, `h_t`, the same shape.
      f: the activations `f(a_t)`, the same shape. None without a leak: then
        `h` is `f(a)`, but in the padding.
    """

    last: jax.Array
    a: jax.Array
    h: jax.Array
    f: jax.Array | None

    def states(self) -> RNNStates[jax.Array]:
        """`a` and `h` with the batch first, `(*batch, n_steps, n_nodes)`."""
        return RNNStates(jnp.moveaxis(self.a, 0, -2), jnp.moveaxis(self.h, 0, -2))


# The parts of a step. The rule of `derivative.py` differentiates them.


def start_of(step: Steps, h_tm1: jax.Array, reset_to: jax.Array | None) -> jax.Array:
    """The state that a step starts from; also of several steps."""
    return select(step.is_reset, reset_to, h_tm1)


def rates(rate: Function | None, start: jax.Array) -> jax.Array:
    """`rate(h_{t-1})`, without a rate the state itself; of several steps if it is elementwise."""
    return start if rate is None else rate(start).astype(start.dtype)


def drive(
    params: Params, x: jax.Array, r: jax.Array | None, product: Product = jnp.matmul
) -> jax.Array:
    """The pre-activation `x wx + r wh + b`, without `r` its other terms; also of several steps."""
    a = x if params.wx is None else product(x, params.wx)
    a = a if r is None else a + product(r, params.wh)
    return a if params.b is None else a + jax.lax.broadcast_to_rank(params.b, a.ndim)


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, without a call of a library.

    Under `jax.vmap` it is three to seven times as fast as a reduction over an axis (jax 0.12).
    """
    pairs = zip(jnp.unstack(array, axis=-1), weights, strict=True)
    terms = (entry[..., None] * jax.lax.broadcast_to_rank(row, array.ndim) for entry, row in pairs)
    return sum(terms, start=jnp.zeros((1,) * array.ndim, array.dtype))


def of_rows(function: Callable[[jax.Array], jax.Array], arrays: jax.Array) -> jax.Array:
    """A function of rows, which come to it in one flat axis. That saves XLA copies (jax 0.12)."""
    out = function(jax.lax.collapse(arrays, 0, -1))
    return out.reshape(*arrays.shape[:-1], out.shape[-1])


def settle(step: Steps, leak: Any, f: jax.Array, start: jax.Array, h_tm1: jax.Array) -> jax.Array:
    """The state after a step, `(1 - leak) start + leak f`, exact for a leak of 0 and of 1.

    In the padding it is `h_tm1`, the state before the step.
    """
    if step.leak is not None:
        leak = zero_where(step.is_padding, leak)  # NaN there would reach gradients by 0 * NaN
    h = f if leak is None else (1 - leak) * start + leak * f
    return select(step.is_padding, h_tm1, h)


def cell(plan: Plan, params: Params, step: Steps, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a_t` and `f(a_t)` of a step from the state `start`, each `(*batch, n_nodes)`."""
    # Padding that a function must not see: 0 times an infinite rate or slope would be NaN. The
    # functions that are known have none.
    rate_padding = None if tangent_of(plan.rate) else step.is_padding
    f_padding = None if tangent_of(plan.activation) else step.is_padding
    r = zero_where(rate_padding, rates(plan.rate, zero_where(rate_padding, start)))
    product = _sum_of_products if plan.as_sums else jnp.matmul
    a = zero_where(f_padding, drive(params, step.x, r, product))
    if plan.as_sums:
        # Else the compiled loop would compute a sum again for each use of it (jax 0.12).
        a = jax.lax.optimization_barrier(a)
    f = plan.activation(a).astype(a.dtype)  # which only drops a weak type
    return zero_where(step.is_padding, a), f


def loop(plan: Plan, params: Params, inputs: Inputs) -> Trajectory:
    """The loop over the steps."""
    steps = inputs.steps if plan.in_place else inputs.time_first()
    if plan.inputs_first:
        x = zero_behind(inputs.lengths, steps.x) if plan.in_place else steps.x
        of_inputs = partial(drive, params, r=None)
        # Rows in one axis would make XLA gather a batch that devices share.
        is_flat = plan.for_tpu and not plan.shared
        x = of_rows(of_inputs, x) if is_flat else of_inputs(x)
        steps = steps._replace(x=in_order(x) if plan.for_tpu else x)
        params = RNNParams(None, params.wh, None)

    def advance(h_tm1: jax.Array, now: Any) -> tuple[jax.Array, Any]:
        t, step = now
        if plan.in_place:
            step = inputs._replace(steps=steps).at(t)
        elif not plan.for_tpu:
            step = inputs.padded(step, t)
        start, leak = start_of(step, h_tm1, inputs.reset_to), inputs.leak_of(step)
        a, f = cell(plan, params, step, start)
        h = settle(step, leak, f, start, h_tm1)
        h = in_order(h) if plan.for_tpu else h
        return h, (a, h, None if leak is None else f)

    t = jnp.arange(inputs.n_steps, dtype=jnp.int32)
    if not plan.for_tpu:  # else an array of masks takes fewer cycles
        steps = steps._replace(is_padding=None)
    xs = t, None if plan.in_place else steps
    last, (a, h, f) = jax.lax.scan(advance, inputs.h0, xs, reverse=plan.reverse, unroll=plan.unroll)
    if plan.for_tpu:
        h = put(h, 0 if plan.reverse else -1, last)  # so that the loop carries float32: see `put`
    return Trajectory(last, a, h, f)


# What XLA for TPUs has to be told.


def in_order(array: jax.Array) -> jax.Array:
    """The same array, whose axes lie in memory in their order: of steps, one behind the other.

    XLA would choose the order with the least padding for each array, and turn each step that a loop
    cuts out of it. That takes up to 13 times the cycles of all else (jax 0.12).
    """
    return with_layout_constraint(array, Layout(tuple(range(array.ndim))))  # type: ignore[no-any-return]


def put(array: jax.Array, step: int, values: jax.Array) -> jax.Array:
    """An array with time first, with other values at its first step, 0, or its last, -1.

    What a loop carries, XLA narrows to bfloat16 if nothing but products reads it. To copy that, in
    each step, would take 5 times the cycles of all else (jax 0.12). So the last carry is read here.
    """
    i = step % len(array)
    return jax.lax.dynamic_update_index_in_dim(array, values, i, 0)  # type: ignore[no-any-return]


def in_segments(
    run: Callable[..., Any], carry: Any, of_steps: Any, n_steps: int, size: int, reverse: bool
) -> tuple[Any, Any]:
    """As `jax.lax.scan` of steps, but over segments of `size` steps; the last may have fewer.

    `run(size, carry, (first, of_steps[first : first + size]))` returns the next carry, and
    arrays of its steps. In all arrays of steps, time is first.
    """
    if n_steps == size:  # to reshape a single segment would lose how it is shared among devices
        return run(size, carry, (0, of_steps))  # type: ignore[no-any-return]

    def run_part(carry: Any, start: int, end: int, size: int) -> tuple[Any, Any]:
        n, firsts = (end - start) // size, jnp.arange(start, end, size, dtype=jnp.int32)
        segments = jax.tree.map(lambda a: a[start:end].reshape(n, size, *a.shape[1:]), of_steps)
        carry, out = jax.lax.scan(partial(run, size), carry, (firsts, segments), reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(end - start, *a.shape[2:]), out)

    n_left, out = n_steps % size, list[Any]()
    parts = [(0, n_steps - n_left, size)] + [(n_steps - n_left, n_steps, n_left)] * (n_left > 0)
    for part in parts[::-1] if reverse else parts:
        carry, of_part = run_part(carry, *part)
        out = [of_part, *out] if reverse else [*out, of_part]
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *out)
