"""The derivative of the recurrence, for activations whose derivative follows from their value.

It is a Jacobian-vector product, from which JAX makes every mode and order of differentiation:

    dr_{t-1} = rate'(h_{t-1}) dh_{t-1}
    da_t = dx_t wx + x_t dwx + r_{t-1} dwh + db + dr_{t-1} wh
    dh_t = (1 - leak_t) dh_{t-1} + leak_t f'(a_t) da_t + dleak_t (f(a_t) - h_{t-1})

Its transpose, which is what `jax.grad` runs, is backpropagation through time. From the forward pass
only the states are kept, and f(a_t) beside them where there is a leak: f'(a_t) is computed from
f(a_t) again.

The parts of a step are those of `recurrence.py`, differentiated by `jax.jvp`. Only the derivatives
of the activation and of the rate are not: they follow from a value.

All terms of da_t but the last are known before the loop over the steps. Most networks compute them
for a segment of the steps at once, in one product for each array of weights. Its transpose, which
gives the gradients of the weights, is then one product too. Sums by segments are also more exact
than one sum over all steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.activations import tangent_of
from jaxrnn.inputs import Inputs, Steps, cut, index, select, zero_where
from jaxrnn.params import Params, RNNParams
from jaxrnn.plan import Plan, plan_derivative
from jaxrnn.recurrence import (
    Product,
    Trajectory,
    drive,
    in_order,
    in_segments,
    loop,
    of_rows,
    put,
    rates,
    settle,
    start_of,
)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0, inline=True)  # so that a derivative traces it no second time
def loop_by_rule(plan: Plan, params: Params, inputs: Inputs) -> Trajectory:
    """`loop`, whose derivative is the rule above."""
    return loop(plan, params, inputs)


@partial(loop_by_rule.defjvp, symbolic_zeros=True)
def _jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    # None in place of the tangents of what is not differentiated, which then cost nothing.
    tangents = jax.tree.map(lambda d: None if isinstance(d, SymbolicZero) else d, tangents)
    if plan.derivative is not None:
        both: tuple[Any, Any] = along(partial(loop, plan.derivative), primals, tangents)
        return both
    (params, inputs), (dparams, dinputs), out = primals, tangents, loop_by_rule(plan, *primals)
    plan = plan_derivative(plan, inputs, dparams, dinputs)
    rule = _Rule(plan, params, inputs, out, dparams, dinputs)
    dh0 = jnp.zeros_like(inputs.h0) if dinputs.h0 is None else dinputs.h0
    dsteps = dinputs.steps.time_first()
    if plan.for_tpu:
        return out, _tangents_ahead(rule, dh0, dsteps)
    of_steps = jnp.arange(inputs.n_steps, dtype=jnp.int32), dsteps
    size, segment = plan.segment or inputs.n_steps, partial(_tangents_of_segment, rule)
    dlast, dout = in_segments(segment, dh0, of_steps, inputs.n_steps, size, plan.reverse)
    return out, Trajectory(dlast, *dout)


def along(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The value and the tangent of a function; None in the tangents is zero, and all None both."""
    each: Any = partial(jax.tree.map, is_leaf=lambda leaf: leaf is None)
    moving = each(lambda primal, d: None if d is None else primal, primals, tangents)

    def of_moving(*moved: Any) -> Any:
        return function(*each(lambda mine, p: p if mine is None else mine, moved, primals))

    return jax.jvp(of_moving, moving, tangents) if jax.tree.leaves(tangents) else (None, None)


class _Rule(NamedTuple):
    """What the tangents of all steps are made of.

    Attributes:
      plan: how to compute them.
      params: the parameters.
      inputs: the other arrays of the call.
      out: its results.
      dparams: the tangents of the parameters; None for each that is not differentiated.
      dinputs: the tangents of the other arrays, likewise.
    """

    plan: Plan
    params: Params
    inputs: Inputs
    out: Trajectory
    dparams: Params
    dinputs: Inputs


def _tangents_of_segment(rule: _Rule, size: int, dh: jax.Array, now: Any) -> tuple[Any, Any]:
    """`dh` after a segment of `size` steps, and the tangents of its results."""
    first, (t, dsteps) = now
    known = None
    if rule.plan.at_once:
        # The checkpoint cuts the segment out again in the backward pass, in place of keeping it.
        known = jax.checkpoint(partial(_known_of_segment, rule, size))(first, dsteps.x)
        dsteps = dsteps._replace(x=None)
    step = jax.checkpoint(partial(_tangents_of_step, rule), prevent_cse=False)
    scan = partial(jax.lax.scan, reverse=rule.plan.reverse, unroll=rule.plan.unroll)
    return scan(step, dh, (t, dsteps, known))


def _tangents_of_step(rule: _Rule, dh_tm1: jax.Array, now: Any) -> tuple[jax.Array, Any]:
    """The carry `dh_t`; and of the step `da_t`, `dh_t` and the tangent of `f(a_t)`."""
    t, dstep, known = now
    step, h_tm1 = rule.inputs.at(t), _state_before(rule, t, t)
    dstart, r = _start(rule, step, h_tm1, dh_tm1)
    by_state = tangent_of(rule.plan.rate)(r, dstart) @ rule.params.wh
    if not rule.plan.at_once:
        if step.is_padding is not None:
            # Else, under `jax.vmap`, the outer product of a step would select the states anew for
            # each of its entries, which takes five times as long (jax 0.12).
            r = jax.lax.optimization_barrier(r)
        known = _known(rule, step, r, dstep.x, jnp.matmul)
    da = by_state if known is None else known + by_state
    f = index(rule.out.h if rule.out.f is None else rule.out.f, t)
    dh, da, df = _end(rule, step, dstep, f, da, h_tm1, (dstart, dh_tm1))
    return dh, (da, dh, df)


def _start(rule: _Rule, step: Steps, h_tm1: jax.Array, dh_tm1: Any) -> tuple[Any, jax.Array]:
    """The tangent of the state that a step starts from, and the rates of that state."""
    before, dbefore = (h_tm1, rule.inputs.reset_to), (dh_tm1, rule.dinputs.reset_to)
    dstart = along(partial(start_of, step), before, dbefore)[1]
    return dstart, rates(rule.plan.rate, start_of(step, *before))


def _end(
    rule: _Rule,
    step: Steps,
    dstep: Steps,
    f: jax.Array,
    da: jax.Array,
    h_tm1: jax.Array,
    before: Any,
) -> tuple[Any, jax.Array, Any]:
    """`dh_t` from `da_t` and the tangents of the states `before`, `da_t`, and that of `f(a_t)`."""
    # In the padding `h` is a state that is held, where a slope may be infinite: 0 * inf is NaN.
    f = zero_where(step.is_padding, f)
    df = tangent_of(rule.plan.activation)(f, da)
    dh = _settled(rule, step, f, h_tm1, (rule.dinputs.leak_of(dstep), df, *before))
    return dh, zero_where(step.is_padding, da), None if rule.out.f is None else df


def _settled(rule: _Rule, step: Steps, f: jax.Array, h_tm1: jax.Array, tangents: Any) -> Any:
    """The tangent of `settle`, from those of its leak, of f(a_t) and of the states before."""
    start = start_of(step, h_tm1, rule.inputs.reset_to)
    primals = rule.inputs.leak_of(step), f, start, h_tm1
    return along(partial(settle, step), primals, tangents)[1]


def _tangents_ahead(rule: _Rule, dh0: jax.Array, dsteps: Any) -> Trajectory:
    """The tangents of all steps, on a TPU: a step ends with what its state adds to the next.

    So XLA compiles a step of the transpose as one operation, a product and all that follows it.
    """
    plan, inputs, out, size = rule.plan, rule.inputs, rule.out, rule.inputs.n_steps
    first, known = -1 if plan.reverse else 0, None
    if plan.at_once:
        known = jax.checkpoint(partial(_known_of_segment, rule, size))(0, dsteps.x)
    steps: Any = inputs.time_first()
    steps, dsteps = (each._replace(x=None) for each in (steps, dsteps))
    is_kept = inputs.leak_of(steps) is not None or inputs.lengths is not None

    def ahead(step: Steps, h_tm1: jax.Array, dh_tm1: jax.Array) -> tuple[Any, jax.Array]:
        """What a state adds to the next `dh_t` and to the next `da_t`."""
        dstart, r = _start(rule, step, h_tm1, dh_tm1)
        dkept = None, None, dstart, dh_tm1
        kept = _settled(rule, step, h_tm1, h_tm1, dkept) if is_kept else None
        by_state = tangent_of(plan.rate)(r, dstart) @ rule.params.wh
        if not plan.at_once and rule.dparams.b is not None:  # all that is known
            by_state += jax.lax.broadcast_to_rank(rule.dparams.b, by_state.ndim)
        return kept, by_state

    @partial(jax.checkpoint, prevent_cse=False)
    def advance(carry: Any, now: Any) -> Any:
        (_, (kept, by_state)), (step, after, h_tm1, h, f, known, dstep) = carry, now
        da = by_state if known is None else known + by_state
        f, nothing = h if f is None else f, (None, None)  # of the states before: that is `kept`
        dh, da, df = _end(rule, step, dstep, f, da, h_tm1, nothing)
        dh = dh if kept is None else kept + dh
        return (dh, ahead(after, h, dh)), (da, dh, df)

    after = jax.tree.map(lambda each: jnp.roll(each, 1 if plan.reverse else -1, axis=0), steps)
    kept, by_state = ahead(jax.tree.map(lambda each: each[first], steps), inputs.h0, dh0)
    if known is not None:
        by_state += known[first]
        known = in_order(put(known, first, jnp.zeros_like(by_state)))
    xs = steps, after, _states_before(rule, 0, size), out.h, out.f, known, dsteps
    scan = partial(jax.lax.scan, reverse=plan.reverse, unroll=plan.unroll)
    (dlast, _), dout = scan(advance, (dh0, (kept, by_state)), xs)
    return Trajectory(dlast, *jax.tree.map(in_order, dout))


def _known(rule: _Rule, step: Steps, r: jax.Array, dx: Any, product: Product) -> Any:
    """`dx_t wx + x_t dwx + r_{t-1} dwh + db`, of one step or of several; None if all are zero."""
    primals, tangents = (rule.params, step.x, r), (rule.dparams, dx, None)
    dwx, _, db = rule.dparams
    is_row = rule.plan.for_tpu and dwx is not None and db is not None
    terms = partial(_with_bias_as_row if is_row else drive, product=product)
    return along(terms, primals, tangents)[1]


def _with_bias_as_row(params: Any, x: jax.Array, r: jax.Array, product: Product) -> jax.Array:
    """As `drive`, with the bias as one more row of `wx`, whose input is 1.

    So its gradient is a part of that product. A sum over all rows would take a TPU up to four times
    the cycles of the product (jax 0.12).
    """
    wx = jnp.concatenate([params.wx, params.b[None]])
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
    return drive(RNNParams(wx, params.wh, None), x, r, product)


def _known_of_segment(rule: _Rule, size: int, first: Any, dx: jax.Array | None) -> Any:
    """The same of `size` steps from `first` on, in one product for each array of weights."""
    h_tm1 = _states_before(rule, first, size)
    if not rule.plan.for_tpu:
        # Else a rate would be compiled into the concatenation, which takes XLA twice the time
        # (jax 0.12).
        h_tm1 = jax.lax.optimization_barrier(h_tm1)
    steps = rule.inputs.cut(first, size).time_first()
    r = rates(rule.plan.rate, start_of(steps, h_tm1, rule.inputs.reset_to))
    # Rows in one axis would make XLA gather a batch that devices share. `in_shardings` alone may
    # share a small one too, for which both take as long (jax 0.12).
    matmul = rule.plan.shared or rule.plan.as_sums
    return _known(rule, steps, r, dx, jnp.matmul if matmul else _product_of_rows)


def _states_before(rule: _Rule, first: Any, size: int) -> jax.Array:
    """The states before each of `size` steps from `first` on."""
    h, reverse = rule.out.h, rule.plan.reverse
    before = _state_before(rule, first, first + size - 1)[None]
    others = cut(h, first + 1 if reverse else first, size - 1)
    return jnp.concatenate([others, before] if reverse else [before, others])


def _state_before(rule: _Rule, first: Any, last: Any) -> jax.Array:
    """The state before the steps from `first` to `last`, in the order in which they run."""
    h0, h, end = rule.inputs.h0, rule.out.h, rule.inputs.n_steps - 1
    if rule.plan.reverse:
        return select(last == end, h0, index(h, jnp.minimum(last + 1, end)))
    return select(first == 0, h0, index(h, jnp.maximum(first - 1, 0)))


def _product_of_rows(arrays: jax.Array, weights: jax.Array) -> jax.Array:
    return of_rows(lambda rows: rows @ weights, arrays)
