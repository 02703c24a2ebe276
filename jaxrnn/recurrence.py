"""The recurrence of a vanilla (Elman) RNN, the loops that run it, and its derivative.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = (1 - leak_t) h_{t-1} + leak_t f(a_t)     t = 1 .. n_steps, f the activation

Without a leak, h_t is f(a_t). Without wx, x_t wx is x_t. A step that is a reset starts from a given
state in place of h_{t-1}. A step in the padding keeps the state: h_t = h_{t-1}, and a_t = 0. In
reverse, "before" and "after" change places.

Where f'(a) can be computed from f(a), as for tanh and relu, the derivative has a rule of its own.
It is a Jacobian-vector product, from which JAX makes every mode and order of differentiation:

    da_t = dx_t wx + x_t dwx + h_{t-1} dwh + db + dh_{t-1} wh
    dh_t = (1 - leak_t) dh_{t-1} + leak_t f'(a_t) da_t + dleak_t (f(a_t) - h_{t-1})

Its transpose, which is what `jax.grad` runs, is backpropagation through time. Only the states are
kept from the forward pass, and f(a_t) beside them where there is a leak: f'(a_t) is computed from
f(a_t) again.

The arguments of these functions are checked already, and all have one dtype.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import AxisType

from jaxrnn.options import Activation, Run
from jaxrnn.params import ArrayT, RNNParams
from jaxrnn.sequences import (
    Matmul,
    batch_first,
    broadcast,
    index,
    leak_at,
    padding,
    select,
    step_numbers,
    time_first,
    times_wx,
    x_without_padding,
    zero_where,
)

# f'(a) * da as a function of f(a) and da. For tanh, 1 - h * h would cancel near h = 1. For relu, a
# selection, as in jax.nn.relu's own derivative, so that an inactive node passes on no NaN.
TANGENTS: dict[Activation, Callable[[jax.Array, jax.Array], jax.Array]] = {
    **dict.fromkeys((jnp.tanh, jax.lax.tanh), lambda h, da: (1 - h) * (1 + h) * da),
    **dict.fromkeys((jax.nn.sigmoid, jax.lax.logistic), lambda h, da: h * (1 - h) * da),
    jax.nn.softplus: lambda h, da: -jnp.expm1(-h) * da,
    jax.nn.relu: lambda h, da: jnp.where(h > 0, da, jnp.zeros_like(da)),
}

# The options that the rule below takes into account. With any other option JAX differentiates the
# loop step by step.
RULED = {
    "activation",
    "leak",
    "lengths",
    "resets",
    "reset_to",
    "reverse",
    "checkpoint_every",
    "unroll",
}

# A step with up to this many multiplications, not counting those that `jax.vmap` adds, is written
# as sums in place of products. XLA on CPUs then compiles the whole loop as one function; otherwise
# each step calls a library, which costs more than the arithmetic. On jax 0.12 that is 1.1 to 2.2
# times as fast forward and 1.7 to 7 times in a gradient, and from 5000 multiplications on a
# gradient is slower. On an H100 with jax 0.12 these gradients are 2.9 to 5.0 times as fast as the
# plain scan's.
FEW_MULTIPLICATIONS = 4096

# On CPUs, in a batch with this many nodes or more, x_t and h_{t-1} are multiplied by their weights
# in one product.
WIDE = 64

# Up to this many steps are unrolled fully and differentiated one by one: a loop and a rule would
# cost more than they save. On jax 0.12 a gradient so is up to 1.25 times as fast.
FEW_STEPS = 4

# A single sequence of fewer steps has no segments. On jax 0.12 they cost up to 13 % of the time in
# 100 steps and up to 7 % in 1000, but nothing in 10,000. There the gradients by the weights err by
# 3 of float32's epsilons, and without segments by 42, as in a plain scan.
MANY_STEPS = 4096

# How many steps are in one iteration of a loop on GPUs: XLA then launches their kernels together.
# On an H100 with jax 0.11.2 a pass forward is 1.7 to 5 times as fast, and a gradient 1.8 to 3
# times. Sixteen are no faster in batches, and take up to 1.5 times the memory.
STEPS_ON_GPU = 8


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
      f: the activations `f(a_t)`, the same shape; `h` where there is no leak.
    """

    last: jax.Array
    a: jax.Array
    h: jax.Array
    f: jax.Array

    def states(self) -> RNNStates[jax.Array]:
        """`a` and `h` with the batch first, `(*batch, n_steps, n_nodes)`."""
        return RNNStates(batch_first(self.a), batch_first(self.h))


def step(
    params: RNNParams[Any],
    h_tm1: jax.Array,
    x_t: jax.Array,
    leak_t: jax.Array | None,
    activation: Activation,
) -> jax.Array:
    """The state after one step, `(*batch, n_nodes)`."""
    f_t = _activate(activation, _preactivate(params, x_t, h_tm1))
    return f_t if leak_t is None else _mix(broadcast(leak_t, f_t), f_t, h_tm1)


def run_steps(params: RNNParams[Any], run: Run) -> Trajectory:
    """Run every step, by whichever loop and derivative is fastest."""
    n_steps = run.x.shape[-2]
    if isinstance(n_steps, int) and n_steps == 0:  # under `jax.disable_jit` a scan needs a step
        nothing = run.h0[None][:0]
        return Trajectory(run.h0, nothing, nothing, nothing)
    if isinstance(n_steps, int) and n_steps <= FEW_STEPS:
        return _run_plainly(params, replace(run, unroll=n_steps))
    # By identity, as an activation need not be hashable.
    if not any(run.activation is known for known in TANGENTS) or not run.used() <= RULED:
        return _run_plainly(params, run)
    # XLA on CPUs is faster on a vector than on a matrix of one row: the gradient 1.05 times on jax
    # 0.12, 1.7 times on 0.10.
    axes = enumerate(zip(run.h0.shape[:-1], jax.typeof(run.h0).sharding.spec, strict=False))
    single = tuple(axis for axis, (size, name) in axes if size == 1 and name is None)
    run = jax.tree.map(lambda array: jax.lax.squeeze(array, single), run)
    # With a leak and a short single sequence, the gradient by the rule would be 0.97 times as fast
    # on jax 0.12, and keep 1.02 times the bytes.
    is_plain = run.leak is not None and _is_short(run)
    last, *steps = (_run_plainly if is_plain else _run_with_rule)(params, run)
    after_time = tuple(axis + 1 for axis in single)
    a, h, f = (jax.lax.expand_dims(array, after_time) for array in steps)
    return Trajectory(jax.lax.expand_dims(last, single), a, h, f)


# The loops.


def _run_plainly(params: RNNParams[Any], run: Run) -> Trajectory:
    """The loop that JAX differentiates step by step."""
    x = x_without_padding(run)
    return _scan(run, x, lambda x_t, t, start: _preactivate(params, x_t, start))


@jax.custom_jvp
@partial(jax.jit, inline=True)  # so that a derivative need not trace it a second time
def _run_with_rule(params: RNNParams[Any], run: Run) -> Trajectory:
    def x_at(t: jax.Array) -> jax.Array:
        # Read where it is: a copy with time first would have to be kept for the gradient.
        return zero_where(padding(run, t), index(run.x, t, axis=-2))

    if _is_small(params, run):
        return _scan(
            run, None, lambda _, t, start: _preactivate(params, x_at(t), start, _sum_of_products)
        )
    # On accelerators each product is a kernel to launch, so one product before the loop takes the
    # inputs of all steps. On CPUs its result is not used, and so the compiler drops it.
    x = x_without_padding(run)
    a_in = _add_bias(times_wx(params, x), params.b)

    def after_inputs(x_t: jax.Array, a_in_t: jax.Array, start: jax.Array) -> jax.Array:
        return a_in_t + jnp.matmul(start, params.wh)

    def two_products(x_t: jax.Array, a_in_t: jax.Array, start: jax.Array) -> jax.Array:
        return _preactivate(params, x_t, start)

    on_cpu: Any = _one_product(params) if _is_wide(params, run) else two_products

    def preactivate(inputs_t: Any, t: jax.Array, start: jax.Array) -> Any:
        a_in_t, x_t = inputs_t
        x_t = x_at(t) if x_t is None else x_t
        return jax.lax.platform_dependent(x_t, a_in_t, start, cpu=on_cpu, default=after_inputs)

    return _scan(run, (a_in, x if _is_single(run) else None), preactivate)


def _one_product(params: RNNParams[Any]) -> Callable[..., jax.Array]:
    """The pre-activation as `[x_t h_{t-1}] @ [wx; wh] + b`."""
    wx_wh = jnp.concatenate(cast(Any, [params.wx, params.wh]))

    def preactivate(x_t: jax.Array, a_in_t: jax.Array, start: jax.Array) -> jax.Array:
        return _add_bias(jnp.concatenate([x_t, start], axis=-1) @ wx_wh, params.b)

    return preactivate


def _scan(run: Run, inputs: Any, preactivate: Callable[..., jax.Array]) -> Trajectory:
    """The loop over the steps, in which `preactivate(inputs[t], t, h_{t-1})` is `a_t`."""

    def advance(h_tm1: jax.Array, at_t: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        input_t, t = at_t
        is_padding = padding(run, t)
        is_reset = None if run.resets is None else index(run.resets, t, axis=-1)
        start = zero_where(is_padding, select(is_reset, run.reset_to, h_tm1))
        # a_t is zero in the padding, as the slope of an activation may be infinite elsewhere, and
        # 0 * inf is NaN.
        a_t = zero_where(is_padding, preactivate(input_t, t, start))
        f_t = _activate(run.activation, a_t)
        h_t = f_t
        if run.leak is not None:
            h_t = _mix(leak_at(run, t, is_padding, f_t), f_t, start)
        h_t = select(is_padding, h_tm1, h_t)
        return h_t, (a_t, h_t, None if run.leak is None else f_t)

    steps = (inputs, step_numbers(run.x.shape[-2]))
    last, (a, h, f) = jax.lax.scan(advance, run.h0, steps, reverse=run.reverse, unroll=_unroll(run))
    return Trajectory(last, a, h, h if f is None else f)


def _preactivate(
    params: RNNParams[Any], x_t: jax.Array, h_tm1: jax.Array, matmul: Matmul = jnp.matmul
) -> jax.Array:
    return _add_bias(times_wx(params, x_t, matmul) + matmul(h_tm1, params.wh), params.b)


def _mix(leak: jax.Array, f: jax.Array, h: jax.Array) -> jax.Array:
    """`h + leak (f - h)`, in a form that is exact for a leak of 0 and of 1."""
    return (1 - leak) * h + leak * f


def _add_bias(a: jax.Array, b: jax.Array | None) -> jax.Array:
    return a if b is None else a + broadcast(b, a)


def _activate(activation: Activation, a: jax.Array) -> jax.Array:
    return activation(a).astype(a.dtype)  # this only drops a weak type


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, without a call of a library."""
    factors = jnp.broadcast_to(array[..., None], (*array.shape, weights.shape[-1]))
    return jnp.sum(factors * broadcast(weights, factors), axis=-2)


def _is_small(params: RNNParams[Any], run: Run) -> bool:
    """Whether the sequences are so few and narrow that products are best written as sums."""
    n_weights = sum(each.size for each in (params.wx, params.wh) if each is not None)
    n_multiplications = math.prod(run.h0.shape[:-1]) * n_weights
    return (
        isinstance(n_multiplications, int)  # it may be symbolic
        and n_multiplications <= FEW_MULTIPLICATIONS
        and run.x.dtype.itemsize >= 4  # sums in narrower types could overflow
        and not _is_single(run)
    )


def _is_wide(params: RNNParams[Any], run: Run) -> bool:
    """Whether one product of `[x_t h]` is better than one each of `x_t` and `h`.

    On jax 0.12 it is 1.0 to 1.14 times as fast in a batch of 64 nodes or more. With fewer nodes it
    is as fast, but XLA takes 0.1 s to compile the concatenation of so few numbers. For a single
    sequence it is 0.8 times as fast, as XLA calls no library for a product with a vector. On a mesh
    with an explicit axis JAX cannot concatenate what is mapped over that axis with what is not.
    """
    is_explicit = AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    is_two = params.wx is not None and not _is_single(run)
    return is_two and run.h0.shape[-1] >= WIDE and not is_explicit


def _is_single(run: Run) -> bool:
    return run.h0.ndim == 1


def _is_short(run: Run) -> bool:
    """Whether it is a single sequence of few steps, or of a symbolic number of them."""
    n_steps = run.x.shape[-2]
    return _is_single(run) and not (isinstance(n_steps, int) and n_steps >= MANY_STEPS)


def _unroll(run: Run, otherwise: int = 1) -> int:
    """How many steps are in one iteration of a loop: as `unroll` says, else what was fastest."""
    if run.unroll is not None:
        return run.unroll
    if not isinstance(run.x.shape[-2], int):  # a loop over a symbolic number cannot be unrolled
        return 1
    # By the default backend, as a loop for each platform would be traced twice.
    return STEPS_ON_GPU if jax.default_backend() == "gpu" else otherwise


def _may_be_shared(array: jax.Array) -> bool:
    """Whether its type says that devices may each hold a part, and XLA communicates between them.

    Inside `jax.shard_map` each device has an array of its own.
    """
    sharding = jax.typeof(array).sharding
    is_explicit = any(axis is not None for axis in sharding.spec)
    return is_explicit or AxisType.Auto in sharding.mesh.axis_types


# The derivative.

AddProduct = Callable[[jax.Array, jax.Array], jax.Array]


@partial(_run_with_rule.defjvp, symbolic_zeros=True)
def _run_jvp(primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    params, run = primals
    # None in place of the tangents of what is not differentiated, which then cost nothing.
    dparams, drun = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent, tangents
    )
    out = _run_with_rule(params, run)
    # `jax.checkpoint` in JAX up to 0.12 cannot linearize a NumPy array that `jax.shard_map` takes;
    # past the barrier it is one of JAX.
    params, run = jax.lax.optimization_barrier((params, run))
    return out, _tangents(params, run, out.h, out.f, dparams, drun)


def _tangents(
    params: RNNParams[Any], run: Run, h: jax.Array, f: jax.Array, dparams: RNNParams[Any], drun: Run
) -> Trajectory:
    """The tangents of all steps.

    A short single sequence goes step by step, as does a symbolic number of steps. All else goes by
    segments of several steps. In a batch that is not small, what does not depend on the loop over a
    segment's steps is one product for each array of weights, and so are the gradients of the
    weights, as their transposes. In small networks and long single sequences every step adds to
    these gradients, but to a sum of its own segment: one sum over all steps would be less exact.
    The transpose computes each step and segment again, so that only `h` and `f` are kept.
    """
    dleak: Any = drun.leak
    if AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        # Inside `jax.shard_map` the transpose adds up gradients over the devices where a tangent
        # meets what varies over them. Multiplied by a one that varies as the states do, the
        # tangents meet it here, and so the gradients are added up once and not in each segment.
        one = 1 + jnp.sum(jax.lax.stop_gradient(run.h0)[..., :0])
        dparams, dleak = jax.tree.map(lambda tangent: one * tangent, (dparams, dleak))
    n_steps = run.x.shape[-2]
    # Made once here, so that the backward loop has a plain product. On jax 0.12 that is 1.05 times
    # as fast in most batches, but not for a single sequence. It passes the barrier as a vector, as
    # XLA would copy a matrix twice.
    wh_transposed = jax.lax.optimization_barrier(params.wh.T.reshape(-1)).reshape(params.wh.shape)
    dh0, dreset_to = (
        jnp.zeros_like(run.h0) if tangent is None else tangent
        for tangent in (drun.h0, drun.reset_to)
    )

    dleak_of_all = None  # of a leak that is the same in every step
    if dleak is not None and not run.has_leak_of_steps():
        dleak, dleak_of_all = None, dleak[..., 0, :]

    def from_outside(segment: _Segment, matmul: Matmul) -> jax.Array:
        factors = [(segment.x, dparams.wx), (segment.start, dparams.wh)]
        terms = [matmul(array, weights) for array, weights in factors if weights is not None]
        if segment.dx is not None:
            terms.append(times_wx(params, segment.dx, matmul))
        return _add_bias(sum(terms, start=jnp.zeros_like(segment.start)), dparams.b)

    # The tangent of the pre-activation, by each way to multiply with `wh`.

    def by_vector(da_in_t: jax.Array, dstart: jax.Array) -> jax.Array:
        return da_in_t + jnp.matmul(dstart, params.wh)

    def by_product(da_in_t: jax.Array, dstart: jax.Array) -> jax.Array:
        axes = ((dstart.ndim - 1,), (1,)), ((), ())
        return da_in_t + jax.lax.dot_general(dstart, wh_transposed, axes)

    def by_sum(da_in_t: jax.Array, dstart: jax.Array) -> jax.Array:
        # A sum over the last axis, so that its transpose sums over the axis before the last, which
        # XLA compiles to vector instructions. The transpose makes several sums of da_t. Without the
        # barrier each would compute the slopes in it again. On jax 0.12 a gradient is 1.1 to 1.4
        # times as fast by both.
        factors = jnp.broadcast_to(dstart[..., None, :], (*dstart.shape, dstart.shape[-1]))
        sums = jnp.sum(factors * broadcast(wh_transposed, factors), axis=-1)
        return cast(jax.Array, jax.lax.optimization_barrier(da_in_t + sums))

    def advance(
        add_product: AddProduct, dh_tm1: jax.Array, at_t: _Segment, da_in_t: jax.Array
    ) -> tuple[jax.Array, Any]:
        dstart = select(at_t.resets, dreset_to, dh_tm1)
        da_t = zero_where(at_t.skipped, add_product(da_in_t, dstart))
        f_t = zero_where(at_t.skipped, index(f, at_t.t))
        dh_t = df_t = TANGENTS[run.activation](f_t, da_t)
        if run.leak is not None:
            dh_t = _mix(leak_at(run, at_t.t, at_t.skipped, f_t), df_t, dstart)
        dleak_t = at_t.dleak if dleak_of_all is None else dleak_of_all
        if dleak_t is not None:
            dh_t += broadcast(dleak_t, f_t) * (f_t - at_t.start)
        dh_t = select(at_t.skipped, dh_tm1, dh_t)
        return dh_t, (da_t, dh_t, None if run.leak is None else df_t)

    def scan(function: Any, dh: jax.Array, inputs: Any, unroll: int = 1) -> Any:
        function = jax.checkpoint(function, prevent_cse=False)
        return jax.lax.scan(function, dh, inputs, reverse=run.reverse, unroll=unroll)

    # Without the barrier XLA would compile one more function, to make the step numbers again.
    t = jax.lax.optimization_barrier(step_numbers(n_steps))
    of_steps = t, *(None if array is None else time_first(array) for array in (drun.x, dleak))

    def step_by_step(matmul: Matmul, add_product: AddProduct, dh: jax.Array, inputs: Any) -> Any:
        def run_step(dh: jax.Array, inputs: Any) -> Any:
            at_t = jax.tree.map(lambda array: array[0], _segment(run, h, *inputs))
            return advance(add_product, dh, at_t, from_outside(at_t, matmul))

        # For a single sequence, two steps in an iteration are 1.05 to 1.2 times as fast on jax
        # 0.12, and 0.2 to 0.8 times on 0.10.
        n_at_once = 2 if _is_single(run) and jax.__version_info__ >= (0, 12) else 1
        inputs = jax.tree.map(lambda array: _split(array, 1), inputs)
        return scan(run_step, dh, inputs, _unroll(run, otherwise=n_at_once))

    def at_once(dh: jax.Array, inputs: Any) -> Any:
        def cut_out(inputs: Any) -> tuple[_Segment, jax.Array]:
            segment = _segment(run, h, *inputs)
            return segment, from_outside(segment, _product_of_rows)

        # A checkpoint of its own cuts the segment out again after the loop, in place of keeping it
        # during the loop. On jax 0.12 that saves up to 7 % of a gradient's temporary bytes.
        at_steps = jax.checkpoint(cut_out)(inputs)
        return scan(lambda dh, at_t: advance(by_product, dh, *at_t), dh, at_steps, _unroll(run))

    def by_segments(run_segment: Callable[..., Any]) -> Any:
        size = _segment_size(run)
        inputs = jax.tree.map(lambda array: _split(array, size), of_steps)
        # Where `size` does not divide, the last segment begins with steps of the second last.
        repeated = None
        if n_steps % size:
            repeated = inputs[0] < size * step_numbers(len(inputs[0]))[:, None]
        dlast, tangents = scan(run_segment, dh0, (*inputs, repeated))
        return dlast, jax.tree.map(lambda array: _join(array, n_steps), tangents)

    matmul, add = (_vector_product, by_vector) if _is_single(run) else (jnp.matmul, by_product)
    if _is_short(run) or not isinstance(n_steps, int):
        out = step_by_step(matmul, add, dh0, (*of_steps, None))
    elif _is_single(run):
        out = by_segments(partial(step_by_step, matmul, add))
    elif _is_small(params, run) and not _may_be_shared(run.x):
        # Devices that share a batch would add up the gradients of the weights in every step.
        out = by_segments(partial(step_by_step, _sum_of_products, by_sum))
    else:
        out = by_segments(at_once)
    dlast, (da, dh, df) = out
    return Trajectory(dlast, da, dh, dh if df is None else df)


class _Segment(NamedTuple):
    """What the tangents of some steps are made of, time first, or those of one step.

    `x`, `start`, `dx` and `dleak` are zero where `skipped`.

    Attributes:
      t: the indices of the steps.
      x: inputs.
      start: the states that the steps start from.
      dx: the tangents of `x`; None where it is not differentiated.
      dleak: the tangents of a leak of each step; None where there are none.
      skipped: the steps that are not run, as they are padding or another segment's; None is none.
      resets: the steps that are resets; None is none.
    """

    t: jax.Array
    x: jax.Array
    start: jax.Array
    dx: jax.Array | None
    dleak: jax.Array | None
    skipped: jax.Array | None
    resets: jax.Array | None


def _segment(run: Run, h: jax.Array, t: jax.Array, dx: Any, dleak: Any, repeated: Any) -> _Segment:
    """Cut out the steps `t`, of which the padding and those that are `repeated` are skipped."""
    n_steps, size, begin = run.x.shape[-2], t.shape[0], t[0]
    skipped = padding(run, t)
    if repeated is not None:
        repeated = jnp.expand_dims(repeated, range(1, run.h0.ndim))
        skipped = repeated if skipped is None else skipped | repeated
    # The state before the first of them, in the order in which they run. An index out of range,
    # whose state is not selected, counts as the nearest in range.
    edge, inner = (begin + size, begin + 1) if run.reverse else (begin - 1, begin)
    before = select(edge == (n_steps if run.reverse else -1), run.h0, index(h, edge))[None]
    others = jax.lax.dynamic_slice_in_dim(h, inner, size - 1, allow_negative_indices=False)
    start = jnp.concatenate([others, before] if run.reverse else [before, others])
    steps = run.cut(begin, size, run.h0)
    resets = None if steps.resets is None else time_first(steps.resets, axis=-1)
    start = zero_where(skipped, select(resets, run.reset_to, start))
    dx = None if dx is None else zero_where(skipped, dx)
    x = zero_where(skipped, time_first(steps.x))
    if dleak is not None:
        dleak = zero_where(skipped, broadcast(dleak, start))
    return _Segment(t, x, start, dx, dleak, skipped, resets)


def _segment_size(run: Run) -> int:
    """About the square root of the number of steps, which keeps least, and best a divisor of it.

    A batch that devices may share has one segment: they would add up the gradients in each.
    """
    n_steps = run.x.shape[-2]
    if _may_be_shared(run.x):
        return n_steps
    root = math.isqrt(n_steps)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    divisors = [size for size in near if n_steps % size == 0]
    return min(divisors, key=lambda size: abs(size - root), default=root)


def _split(array: jax.Array, size: int) -> jax.Array:
    """Split the steps into segments, of which the last two overlap where `size` does not divide."""
    n_steps = array.shape[0]
    if n_steps == size:  # to reshape an axis of one entry would lose that it is shared
        return array[None]
    if n_left := n_steps % size:
        array = jnp.concatenate([array[: n_steps - n_left], array[n_steps - size :]])
    return array.reshape(array.shape[0] // size, size, *array.shape[1:])


def _join(segments: jax.Array, n_steps: int) -> jax.Array:
    """The reverse of `_split`."""
    n_segments, size, *shape = segments.shape
    if n_segments == 1:
        return segments[0]
    array = segments.reshape(n_segments * size, *shape)
    if n_left := n_steps % size:
        array = jnp.concatenate([array[: n_steps - n_left], array[-n_left:]])
    return array


def _product_of_rows(arrays: jax.Array, weights: jax.Array) -> jax.Array:
    """The product of arrays `(size, *batch, n)` and weights."""
    # As one flat axis of rows, since otherwise XLA on CPUs copies the operands in the transpose.
    # Steps come first in it: to put the batch first costs a copy, 1.05 times the time of a gradient
    # on jax 0.12. But a batch that devices share would be gathered to put steps first. Where it is
    # shared by the `in_shardings` of `jax.jit`, its type does not tell.
    is_untold = jax.typeof(arrays).sharding.mesh.empty and jax.device_count() > 1
    is_shared = is_untold or _may_be_shared(arrays)
    rows = batch_first(arrays) if is_shared else arrays
    # To reshape an axis of one entry would lose that it is shared.
    if rows.shape[0] == 1 or any(axis is not None for axis in jax.typeof(rows).sharding.spec[1:]):
        out = rows @ weights
    else:
        out = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1]) @ weights
        out = out.reshape(*rows.shape[:-1], weights.shape[-1])
    return time_first(out) if is_shared else out


def _vector_product(vector: jax.Array, weights: jax.Array) -> Any:
    """One vector times weights: on accelerators a sum, which XLA fuses with its neighbours."""
    return jax.lax.platform_dependent(vector, weights, cpu=jnp.matmul, default=_sum_of_products)
