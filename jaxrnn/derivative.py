"""The derivative of the recurrence, for activations whose derivative follows from their value.

It is a Jacobian-vector product, from which JAX makes every mode and order of differentiation:

    dr_{t-1} = rate'(h_{t-1}) dh_{t-1}
    da_t = dx_t wx + x_t dwx + r_{t-1} dwh + db + dr_{t-1} wh
    dh_t = (1 - leak_t) dh_{t-1} + leak_t f'(a_t) da_t + dleak_t (f(a_t) - h_{t-1})

Its transpose, which is what `jax.grad` runs, is backpropagation through time. From the forward pass
only the states are kept, and f(a_t) beside them where there is a leak: f'(a_t) is computed from
f(a_t) again.

All terms of da_t but the last are known before the loop over the steps. Most networks compute them
for a segment of the steps at once, in one product for each array of weights. Its transpose, which
gives the gradients of the weights, is then one product too. Sums by segments are also more exact
than one sum over all steps.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.activations import tangent_of
from jaxrnn.params import Params
from jaxrnn.plan import Plan, plan_derivative
from jaxrnn.recurrence import Trajectory, add_bias, in_pieces, mix, rates, run_loop, times_wx
from jaxrnn.run import Run, Steps, index, select, zero_where


@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0, inline=True)  # so that a derivative traces it no second time
def run_by_rule(plan: Plan, params: Params, run: Run) -> Trajectory:
    """`run_loop`, whose derivative is the rule above."""
    return run_loop(plan, params, run)


@partial(run_by_rule.defjvp, symbolic_zeros=True)
def _jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    (params, run), out = primals, run_by_rule(plan, *primals)
    # None in place of the tangents of what is not differentiated, which then cost nothing.
    dparams, drun = jax.tree.map(lambda d: None if isinstance(d, SymbolicZero) else d, tangents)
    plan = plan_derivative(plan, run, dparams, drun)
    wh = jax.lax.optimization_barrier(params.wh.T) if plan.as_sums else params.wh
    rule = _Rule(plan, params, run, out, dparams, drun, wh)
    dh = jnp.zeros_like(run.h0) if drun.h0 is None else drun.h0
    of_steps = jnp.arange(run.n_steps, dtype=jnp.int32), drun.steps.time_first()
    size, segment = plan.segment or run.n_steps, partial(_tangents_of_segment, rule)
    last, tangents = in_pieces(segment, dh, of_steps, run.n_steps, size, plan.reverse)
    return out, Trajectory(last, *tangents)


class _Rule(NamedTuple):
    """What the tangents of all steps are made of.

    Attributes:
      plan: how to compute them.
      params: the parameters.
      run: the run.
      out: its results.
      dparams: the tangents of the parameters; None for each that is not differentiated.
      drun: the tangents of the run's arrays, likewise.
      wh: `wh`, or its transpose where products are sums.
    """

    plan: Plan
    params: Params
    run: Run
    out: Trajectory
    dparams: Params
    drun: Run
    wh: jax.Array


def _known_da(rule: _Rule, steps: Steps, h_tm1: jax.Array, dx: Any, product: Any) -> jax.Array:
    """`dx_t wx + x_t dwx + r_{t-1} dwh + db`, of one step or of several."""
    terms = [] if dx is None else [times_wx(rule.params, dx, product)]
    r = rates(rule.plan, rule.run.start_of(steps, h_tm1))
    factors = (steps.x, rule.dparams.wx), (r, rule.dparams.wh)
    terms += [product(array, weights) for array, weights in factors if weights is not None]
    return add_bias(sum(terms, start=jnp.zeros_like(h_tm1)), rule.dparams.b)


def _times_wh(rule: _Rule, start: jax.Array, dstart: jax.Array) -> jax.Array:
    """`dr_{t-1} wh`."""
    dr = tangent_of(rule.plan.rate)(rates(rule.plan, start), dstart)
    if not rule.plan.as_sums:
        return dr @ rule.wh  # type: ignore[no-any-return]
    # Over the last axis, so that the transpose sums over the axis before the last, which XLA on
    # CPUs compiles to vector instructions (jax 0.12).
    return jnp.sum(dr[..., None, :] * jax.lax.broadcast_to_rank(rule.wh, dr.ndim + 1), axis=-1)


def _tangents_of_step(rule: _Rule, dh_tm1: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
    """The carry `dh_t`; and of the step `da_t`, `dh_t` and the tangent of `f(a_t)`."""
    t, dstep, da = inputs
    plan, run, out, drun = rule.plan, rule.run, rule.out, rule.drun
    step, h_tm1 = run.steps.at(t), _state_before(rule, t, t)
    is_padding, leak_t, dleak_t = step.is_padding, run.leak_of(step), drun.leak_of(dstep)
    dreset_to = jnp.zeros_like(dh_tm1) if drun.reset_to is None else drun.reset_to
    start, dstart = run.start_of(step, h_tm1), select(step.is_reset, dreset_to, dh_tm1)
    if da is None:
        da = _known_da(rule, step, h_tm1, dstep.x, plan.product)
    da = zero_where(is_padding, da + _times_wh(rule, start, dstart))
    if plan.as_sums:
        # The transpose makes several sums of da. Without the barrier each would compute the slopes
        # in it again (jax 0.12).
        da = jax.lax.optimization_barrier(da)
    f = zero_where(is_padding, index(out.h if out.f is None else out.f, t))
    dh = df = tangent_of(plan.activation)(f, da)
    if leak_t is not None:
        dh = mix(leak_t, df, dstart)
    if dleak_t is not None:
        dh = dh + dleak_t * (f - start)
    dh = select(is_padding, dh_tm1, dh)
    return dh, (da, dh, None if leak_t is None else df)


def _state_before(rule: _Rule, first: Any, last: Any) -> jax.Array:
    """The state before the steps from `first` to `last`, in the order in which they run."""
    run, h, end = rule.run, rule.out.h, rule.run.n_steps - 1
    if rule.plan.reverse:
        return select(last == end, run.h0, index(h, jnp.minimum(last + 1, end)))
    return select(first == 0, run.h0, index(h, jnp.maximum(first - 1, 0)))


def _tangents_of_segment(rule: _Rule, size: int, dh: jax.Array, inputs: Any) -> tuple[Any, Any]:
    """`dh` after a segment of `size` steps, and the tangents of its results."""
    first, (t, dsteps) = inputs
    da = None
    if rule.plan.at_once:
        # The checkpoint cuts the segment out again in the backward pass, in place of keeping it.
        da = jax.checkpoint(partial(_known_of_segment, rule, size))(first, dsteps.x)
        dsteps = dsteps._replace(x=None)
    step = jax.checkpoint(partial(_tangents_of_step, rule), prevent_cse=False)
    loop = partial(jax.lax.scan, reverse=rule.plan.reverse, unroll=rule.plan.unroll)
    return loop(step, dh, (t, dsteps, da))


def _known_of_segment(rule: _Rule, size: int, first: Any, dx: jax.Array | None) -> jax.Array:
    """`_known_da` of `size` steps from `first` on, in one product for each array of weights."""
    h, reverse = rule.out.h, rule.plan.reverse
    before = _state_before(rule, first, first + size - 1)[None]
    others = jax.lax.dynamic_slice_in_dim(h, first + 1 if reverse else first, size - 1)
    # The barrier keeps a rate from being compiled into the concatenation, which takes XLA twice the
    # time (jax 0.12).
    h_tm1 = jnp.concatenate([others, before] if reverse else [before, others])
    h_tm1 = jax.lax.optimization_barrier(h_tm1)
    steps = rule.run.steps.cut(first, size).time_first()
    product = jnp.matmul if rule.plan.shared else _product_of_rows
    return _known_da(rule, steps, h_tm1, dx, product)


def _product_of_rows(arrays: jax.Array, weights: jax.Array) -> jax.Array:
    """`arrays @ weights`, of rows in one flat axis, which saves XLA on CPUs copies (jax 0.12)."""
    out = jax.lax.collapse(arrays, 0, -1) @ weights
    return out.reshape(*arrays.shape[:-1], weights.shape[-1])
