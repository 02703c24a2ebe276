"""The recurrence of a vanilla (Elman) RNN, and its derivative.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = f(a_t)                                   t = 1 .. n_steps, f the activation

Where f' can be had from f, as for tanh and relu, and the steps are more than a few, the derivative
has a rule of its own. It is a Jacobian-vector product, so that JAX makes every mode and order of
differentiation from it:

    da_t = dx_t wx + x_t dwx + h_{t-1} dwh + db + (f'(h_{t-1}) * da_{t-1}) wh
    dh_t = f'(h_t) * da_t                          with dh_0 for f'(h_0) * da_0

All but the last term of da_t is computed for all steps at once; the loop has one product left. The
transpose of that, which is what `jax.grad` runs, is backpropagation through time with a single
product for the gradient of each weight matrix, where differentiating the loop step by step adds to
those gradients in every iteration. Between the passes only the states are kept.

A step that is a reset starts from a given state in place of h_{t-1}. A step in the padding keeps
the state, h_t = h_{t-1}, and with it da_t = da_{t-1}, as f' of the same state is the same.

Here the arguments are already checked, and all have one dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.params import ArrayT, RNNParams
from jaxrnn.products import flat_matmul, is_small, small_matmul
from jaxrnn.sequences import (
    Sequences,
    reset_steps,
    select,
    steps,
    waiting_steps,
    without_padding,
    without_resets_in_padding,
)

Activation = Callable[[jax.Array], jax.Array]
Matmul = Callable[[jax.Array, jax.Array], jax.Array]

# f'(a) * da as a function of h = f(a) and da. It is also taken at h0, which need not be a value of
# f, and where da is zero it must be zero: hence the bound, without which a large h0 would overflow.
# That of relu selects, as jax.nn.relu's own does, so that an inactive node passes on no NaN.
TANGENTS: dict[Activation, Callable[[jax.Array, jax.Array], jax.Array]] = {
    jnp.tanh: lambda h, da: jnp.maximum((1 - h) * (1 + h), 0) * da,
    jax.nn.relu: lambda h, da: jnp.where(h > 0, da, jnp.zeros_like(da)),
}

# So many steps are written out, as neither a loop nor a rule repays what it costs.
FEW_STEPS = 4


class RNNStates(NamedTuple, Generic[ArrayT]):
    """What a vanilla RNN passes through, step by step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states `activation(a)`, the same shape.
    """

    a: ArrayT
    h: ArrayT


jax.export.register_namedtuple_serialization(RNNStates, serialized_name="jaxrnn.RNNStates")


class Loop(NamedTuple):
    """How the loop over the steps is run: options of `rnn_forward`, and what to make it fast for.

    Attributes:
      activation: as there.
      reverse: likewise.
      unroll: likewise.
      checkpoint_every: likewise.
      keeps_states: whether the states are kept, for a derivative.
    """

    activation: Activation
    reverse: bool
    unroll: int
    checkpoint_every: int | None
    keeps_states: bool = False


class Trajectory(NamedTuple):
    """What a loop gives; what is not used, the compiler drops.

    Attributes:
      last: the state after the last step that is run, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, zero in the padding, `(n_steps, *batch, n_nodes)`.
      before: the states before the steps and before their resets, `h_{t-1}`, the same shape.
    """

    last: jax.Array
    a: jax.Array
    before: jax.Array


def step(
    params: RNNParams[Any], h_tm1: jax.Array, x_t: jax.Array, activation: Activation
) -> RNNStates[jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    a_t = _project(params, x_t) + h_tm1 @ params.wh
    return RNNStates(a_t, _activated(activation, a_t))


def run(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    """Every step."""
    # On CPUs the loop is 1.7 times as fast on a vector as on a matrix of one row.
    single = tuple(axis for axis, size in enumerate(given.h0.shape[:-1]) if size == 1)
    given = jax.tree.map(lambda array: jax.lax.squeeze(array, single), given)
    # Sequences of no steps run from zero and get their state back after: what it holds would reach
    # gradients, as 0 * NaN.
    absent = None if given.lengths is None else given.lengths <= 0
    start = select(absent, jnp.zeros_like(given.h0), given.h0)
    out = _run_all(loop, params, without_resets_in_padding(given._replace(h0=start)))
    out = out._replace(
        last=select(absent, given.h0, out.last),
        before=select(absent, given.h0, out.before),
    )
    after_time = tuple(axis + 1 for axis in single)
    return Trajectory(
        jax.lax.expand_dims(out.last, single),
        jax.lax.expand_dims(out.a, after_time),
        jax.lax.expand_dims(out.before, after_time),
    )


def _run_all(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    n_steps = given.x.shape[-2]
    if isinstance(n_steps, int) and n_steps == 0:
        nothing = given.h0[None][:0]
        return Trajectory(given.h0, nothing, nothing)  # JAX has no loop of none where jit is off
    if _are_few(n_steps):
        return _run_inputs_first(loop._replace(unroll=n_steps), params, given)
    return (_run_with_rule if loop.activation in TANGENTS else _run_plainly)(loop, params, given)


def _are_few(n_steps: Any) -> bool:
    return isinstance(n_steps, int) and n_steps <= FEW_STEPS  # not so where it is symbolic


def states(loop: Loop, trajectory: Trajectory) -> RNNStates[jax.Array]:
    """`a_t` and `h_t`: the states after the steps are those before, shifted by one."""
    before, last = jnp.moveaxis(trajectory.before, 0, -2), trajectory.last[..., None, :]
    if _are_few(before.shape[-2]):
        pair, start = ((last, before), 0) if loop.reverse else ((before, last), 1)
        both = jnp.concatenate(pair, axis=-2)
        h = jax.lax.slice_in_dim(both, start, start + before.shape[-2], axis=-2)
    else:
        # Rolled, as its derivative takes the memory of one array less than that of a concatenation.
        shift, end = (1, slice(0, 1)) if loop.reverse else (-1, slice(-1, None))
        h = jnp.roll(before, shift, axis=-2).at[..., end, :].set(last)
    return RNNStates(jnp.moveaxis(trajectory.a, 0, -2), h)


def _run_plainly(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    given = without_padding(given)

    def preactivate(x_t: jax.Array, h_tm1: jax.Array) -> jax.Array:
        return _project(params, x_t) + jnp.matmul(h_tm1, params.wh)

    return _scan(loop, given, _time_first(given.x), preactivate)


def _run_on_cpu(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    x_1 = jax.eval_shape(lambda x: x[..., 0, :], given.x)
    in_one = None if is_small(x_1, params.wx) else _in_one(params)

    # Reads x where it is, as a copy of it with time first would have to be kept.
    def preactivate(t: jax.Array, h_tm1: jax.Array) -> jax.Array:
        x_t = jax.lax.dynamic_index_in_dim(given.x, t, axis=-2, keepdims=False)
        if given.lengths is not None:
            x_t = select(t < given.lengths, x_t, jnp.zeros_like(x_t))
        if in_one is None:
            return _project(params, x_t, small_matmul) + small_matmul(h_tm1, params.wh)
        ones = [] if params.b is None else [jnp.ones_like(h_tm1[..., :1])]
        return jnp.matmul(jnp.concatenate([x_t, h_tm1, *ones], axis=-1), in_one)

    return _scan(loop, given, steps(given), preactivate)


def _in_one(params: RNNParams[Any]) -> jax.Array:
    """`[wx; wh; b]`, whose product with `[x_t h_{t-1} 1]` is `a_t`: one call of a library."""
    b = [] if params.b is None else [params.b[None]]
    return jnp.concatenate([params.wx, params.wh, *b])


def _run_inputs_first(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    # For accelerators, where each product in the loop is a kernel to launch, and for few steps.
    a_in = _project(params, _time_first(without_padding(given).x), flat_matmul)
    return _scan(loop, given, a_in, lambda a_in_t, h_tm1: a_in_t + h_tm1 @ params.wh)


def _scan(
    loop: Loop,
    given: Sequences,
    inputs: jax.Array,
    preactivate: Callable[[jax.Array, jax.Array], jax.Array],
) -> Trajectory:
    """The loop over `inputs`, of each of which, and of the state, `preactivate` makes `a_t`."""
    full = None
    if given.lengths is not None and not loop.keeps_states:
        # One for each node: forward, narrow networks take 1.1 in place of 1.28 times as long as
        # without lengths, but where the states are kept 1.35 in place of 1.13.
        full = jnp.broadcast_to(given.lengths[..., None], given.h0.shape)
        full = jax.lax.optimization_barrier(full)

    def advance(h_tm1: jax.Array, inputs_t: Any) -> tuple[jax.Array, Any]:
        input_t, t, reset = inputs_t
        a_t = preactivate(input_t, select(reset, given.restart, h_tm1))
        if given.lengths is None:
            return _activated(loop.activation, a_t), (a_t, h_tm1)
        real = t < given.lengths if full is None else t < full
        # Before the activation too, whose slope in the padding may be infinite, and 0 * inf is NaN.
        a_t = select(real, a_t, jnp.zeros_like(a_t))
        return select(real, _activated(loop.activation, a_t), h_tm1), (a_t, h_tm1)

    last, (a, before) = jax.lax.scan(
        advance,
        given.h0,
        (inputs, steps(given), reset_steps(given)),
        reverse=loop.reverse,
        unroll=loop.unroll,
    )
    return Trajectory(last, a, before)


def _activated(activation: Activation, a: jax.Array) -> jax.Array:
    return activation(a).astype(a.dtype)  # which only drops a weak type


def _project(params: RNNParams[Any], x: jax.Array, matmul: Matmul = jnp.matmul) -> jax.Array:
    a_in = matmul(x, params.wx)
    return a_in if params.b is None else a_in + _broadcast(params.b, a_in)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_with_rule(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    on_cpu, elsewhere = partial(_run_on_cpu, loop), partial(_run_inputs_first, loop)
    out = jax.lax.platform_dependent(params, given, cpu=on_cpu, default=elsewhere)
    return cast(Trajectory, out)


@partial(_run_with_rule.defjvp, symbolic_zeros=True)
def _run_jvp(loop: Loop, primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    params, given = primals
    activated_tangent = TANGENTS[loop.activation]
    # What is not differentiated has no tangent, and costs nothing; something is.
    dparams, dgiven = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent,
        tangents,
        is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
    )
    out = _run_with_rule(loop._replace(keeps_states=True), params, given)
    waiting = waiting_steps(given, reverse=loop.reverse)
    da_in = _tangent_inputs(params, given, out.before, dparams, dgiven, waiting)

    # Transposed here, once, so that the loop of the transpose has a plain product.
    wh_transposed = jax.lax.optimization_barrier(params.wh.T)

    def times_wh(dh: jax.Array) -> jax.Array:
        if is_small(dh, params.wh):
            return small_matmul(dh, params.wh)
        return jnp.einsum("...i,ji->...j", dh, wh_transposed)

    # Checkpointed, so that what is kept for the transpose is h_{t-1}, which `dwh` needs anyway, and
    # not f'(h_{t-1}).
    @partial(jax.checkpoint, prevent_cse=False)
    def advance(da_tm1: jax.Array, inputs_t: Any) -> tuple[jax.Array, Any]:
        da_in_t, h_tm1, t, reset = inputs_t
        dh_tm1 = activated_tangent(h_tm1, da_tm1)
        start = select(reset, jnp.zeros_like(dh_tm1), dh_tm1)
        da_t = times_wh(start) + da_in_t
        if given.lengths is None:
            return da_t, (dh_tm1, da_t)
        real = t < given.lengths
        return select(real, da_t, da_tm1), (dh_tm1, select(real, da_t, jnp.zeros_like(da_t)))

    inputs = da_in, out.before, steps(given), reset_steps(given)
    da_last, (dbefore, da) = jax.lax.scan(
        advance, jnp.zeros_like(out.last), inputs, reverse=loop.reverse, unroll=loop.unroll
    )
    dlast = activated_tangent(out.last, da_last)
    if dgiven.h0 is not None:
        dbefore = select(waiting, dgiven.h0, dbefore)
    return out, Trajectory(dlast, da, dbefore)


def _tangent_inputs(
    params: RNNParams[Any],
    given: Sequences,
    before: jax.Array,
    dparams: RNNParams[Any],
    dgiven: Any,
    waiting: jax.Array,
) -> jax.Array:
    """What adds to `da_t` from outside the loop, for all steps at once."""
    resets = reset_steps(given)
    terms = []
    if dgiven.x is not None:
        dx = without_padding(given._replace(x=dgiven.x)).x
        terms.append(flat_matmul(_time_first(dx), params.wx))
    if dparams.wx is not None:
        terms.append(flat_matmul(_time_first(without_padding(given).x), dparams.wx))
    if dparams.wh is not None:
        terms.append(flat_matmul(select(resets, given.restart, before), dparams.wh))
    if dparams.b is not None:
        terms.append(_broadcast(dparams.b, before))
    if dgiven.h0 is not None:
        from_h0 = waiting if resets is None else waiting & ~resets
        terms.append(select(from_h0, dgiven.h0 @ params.wh, jnp.zeros_like(before)))
    if dgiven.restart is not None:
        terms.append(select(resets, dgiven.restart @ params.wh, jnp.zeros_like(before)))
    return sum(terms[1:], start=terms[0])


def _time_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -2, 0)


def _broadcast(b: jax.Array, a: jax.Array) -> jax.Array:
    return jnp.broadcast_to(b, a.shape)  # in words, for jax_numpy_rank_promotion
