"""The cell of a vanilla (Elman) RNN, and the loop over its steps.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = (1 - leak_t) h_{t-1} + leak_t f(a_t)     t = 1 .. n_steps, f the activation

Without a leak, h_t is f(a_t). Without wx, x_t wx is x_t. A step that is a reset starts from a given
state in place of h_{t-1}. A step in the padding keeps the state: h_t = h_{t-1}, and a_t = 0. In
reverse, "before" and "after" change places.

The arguments of these functions are checked already, and all have one dtype.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.params import ArrayT, Params, RNNParams
from jaxrnn.plan import Plan
from jaxrnn.run import Run, Steps, select, zero_where

Product = Callable[[jax.Array, jax.Array], jax.Array]


class RNNStates(NamedTuple, Generic[ArrayT]):
    """The pre-activations and hidden states of every step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states, the same shape: `activation(a)` where there is no leak.

    Example:
        import jax
        import jax.numpy as jnp
        from jaxrnn import init_params, rnn_states

        a, h = rnn_states(init_params(jax.random.key(0), 3, 16), jnp.ones((2, 5, 3)))
        assert a.shape == (2, 5, 16) and jnp.allclose(h, jnp.tanh(a))
    """

    a: ArrayT
    h: ArrayT


jax.export.register_namedtuple_serialization(RNNStates, serialized_name="jaxrnn.RNNStates")


class Trajectory(NamedTuple):
    """The results of a loop. The compiler drops those that are not used.

    Attributes:
      last: the state after the last step that is run, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, `(n_steps, *batch, n_nodes)`.
      h: the states after the steps, `h_t`, the same shape.
      f: the activations `f(a_t)`, the same shape; None where there is no leak, as then `h` is.
    """

    last: jax.Array
    a: jax.Array
    h: jax.Array
    f: jax.Array | None

    def states(self) -> RNNStates[jax.Array]:
        """`a` and `h` with the batch first, `(*batch, n_steps, n_nodes)`."""
        return RNNStates(jnp.moveaxis(self.a, 0, -2), jnp.moveaxis(self.h, 0, -2))


class Step(NamedTuple):
    """The results of one step: `a_t`, `f(a_t)` and `h_t`, each `(*batch, n_nodes)`."""

    a: jax.Array
    f: jax.Array
    h: jax.Array


def cell(
    params: Params, start: jax.Array, step: Steps, run: Run, product: Product = jnp.matmul
) -> Step:
    """One step from the state `start`."""
    leak_t = run.leak_of(step)
    a = times_wx(params, step.x, product) + product(start, params.wh)
    # Zero in the padding. The slope of an activation may be infinite elsewhere: 0 * inf is NaN.
    a = zero_where(step.is_padding, add_bias(a, params.b))
    f = run.activation(a).astype(a.dtype)  # which only drops a weak type
    return Step(a, f, f if leak_t is None else mix(leak_t, f, start))


def run_loop(plan: Plan, params: Params, run: Run) -> Trajectory:
    """The loop over the steps."""
    product = sum_of_products if plan.as_sums else jnp.matmul
    if plan.inputs_first:
        run = replace(run, x=add_bias(times_wx(params, run.x), params.b))
        params = RNNParams(None, params.wh, None)

    def advance(h_tm1: jax.Array, step: Steps) -> tuple[jax.Array, Any]:
        a, f, h = cell(params, run.start_of(step, h_tm1), step, run, product)
        h = select(step.is_padding, h_tm1, h)
        return h, (a, h, None if run.leak is None else f)

    loop = partial(jax.lax.scan, reverse=run.reverse, unroll=plan.unroll)
    if plan.in_place:
        t = jnp.arange(run.n_steps, dtype=jnp.int32)
        last, out = loop(lambda h_tm1, t: advance(h_tm1, run.step_at(t)), run.h0, t)
    else:
        last, out = loop(advance, run.h0, run.steps())
    return Trajectory(last, *out)


def times_wx(params: Params, x: jax.Array, product: Product = jnp.matmul) -> jax.Array:
    """What inputs add to the pre-activations: `x wx`, or `x` itself without `wx`."""
    return x if params.wx is None else product(x, params.wx)


def add_bias(a: jax.Array, b: jax.Array | None) -> jax.Array:
    """`a + b`, where `b` has the last axis alone."""
    return a if b is None else a + jnp.expand_dims(b, range(a.ndim - 1))


def mix(leak: jax.Array, f: jax.Array, h: jax.Array) -> jax.Array:
    """`h + leak (f - h)`, in a form that is exact for a leak of 0 and of 1."""
    return (1 - leak) * h + leak * f


def sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, without a call of a library."""
    weights = jnp.expand_dims(weights, range(array.ndim - 1))
    return jnp.sum(array[..., None] * weights, axis=-2)
