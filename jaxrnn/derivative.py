"""The derivative of the recurrence, for activations whose derivative follows from their value.

It is a Jacobian-vector product, from which JAX makes every mode and order of differentiation:

    da_t = dx_t wx + x_t dwx + h_{t-1} dwh + db + dh_{t-1} wh
    dh_t = (1 - leak_t) dh_{t-1} + leak_t f'(a_t) da_t + dleak_t (f(a_t) - h_{t-1})

Its transpose, which is what `jax.grad` runs, is backpropagation through time. From the forward pass
only the states are kept, and f(a_t) beside them where there is a leak: f'(a_t) is computed from
f(a_t) again.

All but the last term of da_t is known before the loop over the steps. So in most networks it is one
product for each array of weights and each segment of the steps, and its transpose, which gives the
gradients of the weights, is one too. To add up these gradients by segments is also more exact than
one sum over all steps.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.activations import tangent_of
from jaxrnn.params import Params
from jaxrnn.pieces import in_pieces
from jaxrnn.plan import Plan, plan_derivative
from jaxrnn.recurrence import (
    Product,
    Trajectory,
    add_bias,
    mix,
    run_loop,
    sum_of_products,
    times_wx,
)
from jaxrnn.run import Run, Steps, index, select, time_first, zero_where


@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0, inline=True)  # so that a derivative traces it no second time
def run_by_rule(plan: Plan, params: Params, run: Run) -> Trajectory:
    """`run_loop`, whose derivative is the rule above."""
    return run_loop(plan, params, run)


@partial(run_by_rule.defjvp, symbolic_zeros=True)
def _jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    params, run = primals
    # None in place of the tangents of what is not differentiated, which then cost nothing.
    dparams, drun = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent, tangents
    )
    out = run_by_rule(plan, params, run)
    plan = plan_derivative(plan, run, dparams, drun)
    wh = jax.lax.optimization_barrier(params.wh.T) if plan.as_sums else params.wh
    return out, _tangents_of_run(_Rule(plan, params, run, out, dparams, drun, wh))


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


def _from_inputs(
    rule: _Rule, steps: Steps, h_tm1: jax.Array, dx: jax.Array | None, product: Product
) -> jax.Array:
    """`dx_t wx + x_t dwx + h_{t-1} dwh + db`, of one step or of several."""
    terms = [] if dx is None else [times_wx(rule.params, dx, product)]
    factors = (steps.x, rule.dparams.wx), (rule.run.start_of(steps, h_tm1), rule.dparams.wh)
    terms += [product(array, weights) for array, weights in factors if weights is not None]
    return add_bias(sum(terms, start=jnp.zeros_like(h_tm1)), rule.dparams.b)


def _times_wh(rule: _Rule, dstart: jax.Array) -> jax.Array:
    """`dh_{t-1} wh`."""
    if not rule.plan.as_sums:
        return dstart @ rule.wh
    # Over the last axis, so that the transpose sums over the axis before the last, which XLA on
    # CPUs compiles to vector instructions (jax 0.12).
    wh = jnp.expand_dims(rule.wh, range(dstart.ndim - 1))
    return jnp.sum(dstart[..., None, :] * wh, axis=-1)


def _tangents_of_step(
    rule: _Rule, dh_tm1: jax.Array, inputs: tuple[jax.Array, Any, Any, Any]
) -> tuple[jax.Array, Any]:
    """`dh_t`, and `da_t`, `dh_t` and the tangent of `f(a_t)`."""
    t, dx, dleak, da = inputs
    plan, _, run, out, _, drun, _ = rule
    step, h_tm1 = run.step_at(t), _state_before(run, out.h, t, t)
    mask, leak_t = step.is_padding, run.leak_of(step)
    dstart = dh_tm1
    if step.is_reset is not None:
        dreset_to = jnp.zeros_like(dh_tm1) if drun.reset_to is None else drun.reset_to
        dstart = select(step.is_reset, dreset_to, dh_tm1)
    if not plan.at_once:
        product = sum_of_products if plan.as_sums else jnp.matmul
        da = _from_inputs(rule, step, h_tm1, dx, product)
    da = zero_where(mask, da + _times_wh(rule, dstart))
    if plan.as_sums:
        # The transpose makes several sums of da. Without the barrier each would compute the slopes
        # in it again (jax 0.12).
        da = jax.lax.optimization_barrier(da)
    f = zero_where(mask, index(out.h if out.f is None else out.f, t))
    dh = df = cast(Any, tangent_of(run.activation))(f, da)
    if leak_t is not None:
        dh = mix(leak_t, df, dstart)
    if drun.leak is not None and not run.has_leak_of_steps():
        dleak = drun.leak[..., 0, :]
    if dleak is not None:
        dh = dh + dleak * (f - run.start_of(step, h_tm1))
    dh = select(mask, dh_tm1, dh)
    return dh, (da, dh, None if leak_t is None else df)


def _state_before(run: Run, h: jax.Array, first: Any, last: Any) -> jax.Array:
    """The state before the steps from `first` to `last`, in the order in which they run."""
    if run.reverse:
        end = run.n_steps - 1
        return select(last == end, run.h0, index(h, jnp.minimum(last + 1, end)))
    return select(first == 0, run.h0, index(h, jnp.maximum(first - 1, 0)))


def _tangents_of_segment(
    rule: _Rule, size: int, dh: jax.Array, inputs: tuple[Any, Any]
) -> tuple[jax.Array, Any]:
    """`dh` after a segment of `size` steps, and the tangents of its results."""
    _, (t, dx, dleak) = inputs
    da, run = None, rule.run
    if rule.plan.at_once:
        # The checkpoint cuts the segment out again in the backward pass, in place of keeping it.
        da = jax.checkpoint(partial(_from_inputs_of_segment, rule))(t, dx)
        dx = None
    step = jax.checkpoint(partial(_tangents_of_step, rule), prevent_cse=False)
    of_steps = t, dx, dleak, da
    return jax.lax.scan(step, dh, of_steps, reverse=run.reverse, unroll=rule.plan.unroll)


def _from_inputs_of_segment(rule: _Rule, t: jax.Array, dx: jax.Array | None) -> jax.Array:
    """`_from_inputs` of the steps `t`, in one product for each array of weights."""
    run, h, size = rule.run, rule.out.h, t.shape[0]
    before = _state_before(run, h, t[0], t[-1])[None]
    others = jax.lax.dynamic_slice_in_dim(h, t[0] + 1 if run.reverse else t[0], size - 1)
    h_tm1 = jnp.concatenate([others, before] if run.reverse else [before, others])
    steps = run.cut(t[0], size, run.h0).steps()
    return _from_inputs(
        rule, steps, h_tm1, dx, jnp.matmul if rule.plan.shared else _product_of_rows
    )


def _product_of_rows(arrays: jax.Array, weights: jax.Array) -> jax.Array:
    """`arrays @ weights`, of rows in one flat axis, which saves XLA on CPUs copies (jax 0.12)."""
    out = arrays.reshape(-1, arrays.shape[-1]) @ weights
    return out.reshape(*arrays.shape[:-1], weights.shape[-1])


def _tangents_of_run(rule: _Rule) -> Trajectory:
    """The tangents of all results."""
    run, drun = rule.run, rule.drun
    dh = jnp.zeros_like(run.h0) if drun.h0 is None else drun.h0
    dx = None if drun.x is None else time_first(drun.x)
    dleak = None
    if drun.leak is not None and run.has_leak_of_steps():
        dleak = time_first(drun.leak)
    t = jnp.arange(run.n_steps, dtype=jnp.int32)
    size = run.n_steps if rule.plan.segment is None else rule.plan.segment
    segment = partial(_tangents_of_segment, rule)
    last, (a, h, f) = in_pieces(segment, dh, (t, dx, dleak), run.n_steps, size, run.reverse)
    return Trajectory(last, a, h, f)
