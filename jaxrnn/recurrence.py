"""The cell of a vanilla (Elman) RNN, and the loop over its steps.

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

from jaxrnn.params import ArrayT, Params, RNNParams, named
from jaxrnn.plan import Plan, Product
from jaxrnn.run import Run, Steps, select, zero_where


@named
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


class Trajectory(NamedTuple):
    """The results of a loop. The compiler drops those that are not used.

    Attributes:
      last: the state after the last step that is run, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, `(n_steps, *batch, n_nodes)`.
      h: the states after the steps, `h_t`, the same shape.
      f: the activations `f(a_t)`, the same shape. None without a leak: then `h` is `f(a)`.
    """

    last: jax.Array
    a: jax.Array
    h: jax.Array
    f: jax.Array | None

    def states(self) -> RNNStates[jax.Array]:
        """`a` and `h` with the batch first, `(*batch, n_steps, n_nodes)`."""
        return RNNStates(jnp.moveaxis(self.a, 0, -2), jnp.moveaxis(self.h, 0, -2))


def cell(plan: Plan, params: Params, run: Run, start: jax.Array, step: Steps) -> Any:
    """One step from the state `start`: `a_t`, `f(a_t)` and `h_t`, each `(*batch, n_nodes)`."""
    leak_t, r = run.leak_of(step), rates(plan, start)
    # Zero in the padding: with an infinite rate or slope of an activation, 0 * inf would be NaN.
    r = r if plan.rate is None else zero_where(step.is_padding, r)
    a = times_wx(params, step.x, plan.product) + plan.product(r, params.wh)
    a = zero_where(step.is_padding, add_bias(a, params.b))
    f = plan.activation(a).astype(a.dtype)  # which only drops a weak type
    return a, f, f if leak_t is None else mix(leak_t, f, start)


def run_loop(plan: Plan, params: Params, run: Run) -> Trajectory:
    """The loop over the steps."""
    steps = run.steps
    if plan.inputs_first:
        steps = steps._replace(x=add_bias(times_wx(params, steps.x), params.b))
        params = RNNParams(None, params.wh, None)

    def advance(h_tm1: jax.Array, now: Any) -> tuple[jax.Array, Any]:
        step = steps.at(now) if plan.in_place else now
        a, f, h = cell(plan, params, run, run.start_of(step, h_tm1), step)
        h = select(step.is_padding, h_tm1, h)
        return h, (a, h, None if run.leak_of(step) is None else f)

    xs: Any = jnp.arange(run.n_steps, dtype=jnp.int32) if plan.in_place else steps.time_first()
    last, out = jax.lax.scan(advance, run.h0, xs, reverse=plan.reverse, unroll=plan.unroll)
    return Trajectory(last, *out)


def in_pieces(
    run_piece: Callable[..., Any], carry: Any, of_steps: Any, n_steps: int, size: int, reverse: bool
) -> tuple[Any, Any]:
    """As `jax.lax.scan` of steps, but over pieces of `size` steps; the last may have fewer.

    `run_piece(size, carry, (first, of_steps[first : first + size]))` returns the next carry, and
    arrays of its steps. In all arrays of steps, time is first.
    """
    if n_steps == size:  # to reshape a single piece would lose how it is shared among devices
        return run_piece(size, carry, (0, of_steps))  # type: ignore[no-any-return]

    def run_pieces(carry: Any, start: int, end: int, size: int) -> tuple[Any, Any]:
        n, firsts = (end - start) // size, jnp.arange(start, end, size, dtype=jnp.int32)
        pieces = jax.tree.map(lambda a: a[start:end].reshape(n, size, *a.shape[1:]), of_steps)
        piece = partial(run_piece, size)
        carry, out = jax.lax.scan(piece, carry, (firsts, pieces), reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(end - start, *a.shape[2:]), out)

    n_left, out = n_steps % size, []
    parts = [(0, n_steps - n_left, size)] + [(n_steps - n_left, n_steps, n_left)] * (n_left > 0)
    for part in parts[::-1] if reverse else parts:
        carry, of_part = run_pieces(carry, *part)
        out.append(of_part)
    out = out[::-1] if reverse else out
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *out)


def rates(plan: Plan, h: jax.Array) -> jax.Array:
    """What states add to the pre-activations by `wh`: `rate(h)`, or `h` itself without a rate."""
    return h if plan.rate is None else plan.rate(h).astype(h.dtype)


def times_wx(params: Params, x: jax.Array, product: Product = jnp.matmul) -> jax.Array:
    """What inputs add to the pre-activations: `x wx`, or `x` itself without `wx`."""
    return x if params.wx is None else product(x, params.wx)


def add_bias(a: jax.Array, b: jax.Array | None) -> jax.Array:
    """`a + b`, where `b` has the last axis alone."""
    return a if b is None else a + jax.lax.broadcast_to_rank(b, a.ndim)


def mix(leak: jax.Array, f: jax.Array, h: jax.Array) -> jax.Array:
    """`h + leak (f - h)`, in a form that is exact for a leak of 0 and of 1."""
    return (1 - leak) * h + leak * f
