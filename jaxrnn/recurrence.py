"""The recurrence of a vanilla (Elman) RNN, the loops that run it, and its derivative.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = f(a_t)                                   t = 1 .. n_steps, f the activation

A step that is a reset starts from a given state in place of h_{t-1}. A step in the padding keeps
the state: h_t = h_{t-1}, and a_t = 0. In reverse, "before" and "after" change places.

For activations whose slope can be had from their value, as for tanh and relu, the derivative has a
rule of its own. It is a Jacobian-vector product, so that JAX makes every mode and order of
differentiation from it:

    da_t = dx_t wx + x_t dwx + h_{t-1} dwh + db + dh_{t-1} wh
    dh_t = f'(a_t) da_t

Its transpose, which is what `jax.grad` runs, is backpropagation through time. Between the two
passes only the states are kept, as f'(a_t) is computed from h_t again.

Here the arguments are already checked, and all have one dtype.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import AxisType

from jaxrnn.params import ArrayT, RNNParams
from jaxrnn.sequences import (
    Sequences,
    broadcast,
    index,
    masked,
    padding,
    select,
    step_numbers,
    without_padding,
)

Activation = Callable[[jax.Array], jax.Array]
Matmul = Callable[[jax.Array, jax.Array], jax.Array]

# f'(a) * da as a function of h = f(a) and da. That of tanh loses no digits near h = 1. That of relu
# selects, as jax.nn.relu's own does, so that an inactive node passes on no NaN.
TANGENTS: dict[Activation, Callable[[jax.Array, jax.Array], jax.Array]] = {
    jnp.tanh: lambda h, da: (1 - h) * (1 + h) * da,
    jax.nn.relu: lambda h, da: jnp.where(h > 0, da, jnp.zeros_like(da)),
}

# A step of up to this many multiplications is written as sums on CPUs: XLA then compiles the whole
# loop as one function, where each call of a library costs more than it computes. On jax 0.12 that
# is 1.1 to 2.2 times as fast forward and 1.7 to 5 times in a gradient; from 5000 on it is slower.
FEW_MULTIPLICATIONS = 4096

# In a batch of this many nodes or more, products with x_t and h_{t-1} are made as one.
WIDE = 64

# Up to this many steps are written out and differentiated one by one: a loop and a rule would cost
# more than they save. On jax 0.12 a gradient so takes 0.8 to 1.0 times as long as one by the rule.
FEW_STEPS = 4


class RNNStates(NamedTuple, Generic[ArrayT]):
    """The pre-activations and hidden states of every step.

    Attributes:
      a: pre-activations, `(*batch, n_steps, n_nodes)`.
      h: hidden states `activation(a)`, the same shape.

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


class Loop(NamedTuple):
    """How the loop over the steps is run: options of `rnn_forward`.

    Attributes:
      activation: as there.
      reverse: likewise.
      unroll: likewise.
      checkpoint_every: likewise.
    """

    activation: Activation
    reverse: bool
    unroll: int
    checkpoint_every: int | None


class Trajectory(NamedTuple):
    """What a loop gives; what is not used, the compiler drops.

    Attributes:
      last: the state after the last step that is run, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, `(n_steps, *batch, n_nodes)`.
      h: the states after the steps, `h_t`, the same shape.
    """

    last: jax.Array
    a: jax.Array
    h: jax.Array


def step(
    params: RNNParams[Any], h_tm1: jax.Array, x_t: jax.Array, activation: Activation
) -> RNNStates[jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    a_t = _preactivate(params, x_t, h_tm1)
    return RNNStates(a_t, _activated(activation, a_t))


def run(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    """Every step."""
    n_steps = given.x.shape[-2]
    if isinstance(n_steps, int) and n_steps == 0:
        nothing = given.h0[None][:0]
        return Trajectory(given.h0, nothing, nothing)  # JAX has no loop of none where jit is off
    if isinstance(n_steps, int) and n_steps <= FEW_STEPS:
        return _run_plainly(loop._replace(unroll=n_steps), params, given)
    if loop.activation not in TANGENTS:
        return _run_plainly(loop, params, given)
    # XLA on CPUs is faster on a vector than on a matrix of one row: the gradient 1.05 times on jax
    # 0.12, 1.7 times on 0.10.
    single = tuple(axis for axis, size in enumerate(given.h0.shape[:-1]) if size == 1)
    given = jax.tree.map(lambda array: jax.lax.squeeze(array, single), given)
    last, a, h = _run_with_rule(loop, params, given)
    after_time = tuple(axis + 1 for axis in single)
    return Trajectory(
        jax.lax.expand_dims(last, single),
        jax.lax.expand_dims(a, after_time),
        jax.lax.expand_dims(h, after_time),
    )


def states(trajectory: Trajectory) -> RNNStates[jax.Array]:
    """`a_t` and `h_t` with the batch first, `(*batch, n_steps, n_nodes)`."""
    return RNNStates(jnp.moveaxis(trajectory.a, 0, -2), jnp.moveaxis(trajectory.h, 0, -2))


# The loops.


def _run_plainly(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    return _scan(loop, given, without_padding(given), partial(_preactivate, params))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_with_rule(loop: Loop, params: RNNParams[Any], given: Sequences) -> Trajectory:
    # On accelerators a product is a kernel to launch, so those of the inputs are one, before the
    # loop. On CPUs this is not used, and so not computed.
    a_in = _biased(without_padding(given) @ params.wx, params.b)

    def after_inputs(x_t: jax.Array, a_in_t: jax.Array, start: jax.Array) -> jax.Array:
        return a_in_t + jnp.matmul(start, params.wh)

    def two_products(
        x_t: jax.Array, a_in_t: jax.Array, start: jax.Array, matmul: Matmul = jnp.matmul
    ) -> jax.Array:
        return _preactivate(params, x_t, start, matmul)

    products = _one_product(params, given) if _is_wide(given) else two_products

    def on_cpu(*operands: Any) -> jax.Array:
        if not _is_small(params, given):
            return products(*operands)
        sums = partial(two_products, matmul=_sum_of_products)
        return cast(jax.Array, jax.lax.cond(_is_mapped(params, given), products, sums, *operands))

    def preactivate(inputs: tuple[jax.Array, jax.Array], start: jax.Array) -> jax.Array:
        a_in_t, x_t = inputs
        if not _is_single(given):
            # Read where it is: a copy with time first would have to be kept for the gradient.
            t = x_t
            x_t = masked(padding(given, t), index(given.x, t, axis=-2))
        out = jax.lax.platform_dependent(x_t, a_in_t, start, cpu=on_cpu, default=after_inputs)
        return cast(jax.Array, out)

    x = without_padding(given) if _is_single(given) else step_numbers(given)
    return _scan(loop, given, (a_in, x), preactivate)


def _one_product(params: RNNParams[Any], given: Sequences) -> Callable[..., jax.Array]:
    """`[x_t h_{t-1}] @ [wx; wh] + b`."""
    wx_wh = jnp.concatenate([params.wx, params.wh])
    # As large as a state: XLA on CPUs takes longer to compile a loop that adds a row to each
    # sequence, a twentieth of the time that a gradient takes to compile on jax 0.12.
    b = None if params.b is None else broadcast(params.b, given.h0)
    b = jax.lax.optimization_barrier(b)

    def preactivate(x_t: jax.Array, a_in_t: jax.Array, start: jax.Array) -> jax.Array:
        return _biased(jnp.concatenate([x_t, start], axis=-1) @ wx_wh, b)

    return preactivate


def _scan(
    loop: Loop, given: Sequences, inputs: Any, preactivate: Callable[[Any, jax.Array], jax.Array]
) -> Trajectory:
    """The loop over `inputs`, of each of which, and of the state, `preactivate` makes `a_t`."""

    def advance(h_tm1: jax.Array, inputs_t: Any) -> tuple[jax.Array, Any]:
        input_t, t = inputs_t
        is_padding = padding(given, t)
        start = h_tm1
        if given.resets is not None and given.restart is not None:
            start = select(index(given.resets, t, axis=-1), given.restart, start)
        # Masked before the activation too, whose slope in the padding may be infinite: 0 * inf is
        # NaN.
        a_t = masked(is_padding, preactivate(input_t, masked(is_padding, start)))
        h_t = select(is_padding, h_tm1, _activated(loop.activation, a_t))
        return h_t, (a_t, h_t)

    last, (a, h) = jax.lax.scan(
        advance,
        given.h0,
        (inputs, step_numbers(given)),
        reverse=loop.reverse,
        unroll=loop.unroll,
    )
    return Trajectory(last, a, h)


def _preactivate(
    params: RNNParams[Any], x_t: jax.Array, h_tm1: jax.Array, matmul: Matmul = jnp.matmul
) -> jax.Array:
    return _biased(matmul(x_t, params.wx) + matmul(h_tm1, params.wh), params.b)


def _biased(a: jax.Array, b: jax.Array | None) -> jax.Array:
    return a if b is None else a + broadcast(b, a)


def _activated(activation: Activation, a: jax.Array) -> jax.Array:
    return activation(a).astype(a.dtype)  # which only drops a weak type


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, without a call of a library."""
    factors = jnp.broadcast_to(array[..., None], (*array.shape, weights.shape[-1]))
    return jnp.sum(factors * broadcast(weights, factors), axis=-2)


def _is_small(params: RNNParams[Any], given: Sequences) -> bool:
    """Whether a batch of so few and narrow sequences that its products are best written as sums."""
    n_multiplications = math.prod(given.h0.shape[:-1]) * (params.wx.size + params.wh.size)
    return (
        isinstance(n_multiplications, int)  # it may be symbolic
        and n_multiplications <= FEW_MULTIPLICATIONS
        and given.x.dtype.itemsize >= 4  # sums in narrower types could overflow
        and not _is_single(given)
    )


def _is_wide(given: Sequences) -> bool:
    """Whether one product of `[x_t h]` is better than one each of `x_t` and `h`.

    On jax 0.12 it is 1.05 to 1.2 times as fast in a batch of 64 nodes or more. In one of fewer it
    is as fast, but XLA takes 0.1 s to compile what joins so few numbers; of one sequence it is 0.8
    times as fast, as XLA makes no call of a library for a product with a vector. On a mesh with an
    explicit axis JAX cannot join what is mapped over that axis and what is on no mesh.
    """
    is_explicit = AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    return not _is_single(given) and given.h0.shape[-1] >= WIDE and not is_explicit


def _is_single(given: Sequences) -> bool:
    return given.h0.ndim == 1


def _may_be_shared(array: jax.Array) -> bool:
    """Whether its type says that devices may each have a part, and XLA sends what they need.

    Inside `jax.shard_map` it does not.
    """
    sharding = jax.typeof(array).sharding
    is_explicit = any(axis is not None for axis in sharding.spec)
    return is_explicit or AxisType.Auto in sharding.mesh.axis_types


def _is_mapped(params: RNNParams[Any], given: Sequences) -> jax.Array:
    """Whether `jax.vmap` is applied to us: constant in the compiled program."""
    return cast(jax.Array, _is_batched(jax.lax.stop_gradient((params, given.x, given.h0))))


@jax.custom_batching.custom_vmap
def _is_batched(arrays: Any) -> jax.Array:
    return jnp.zeros((), jnp.bool_)


@_is_batched.def_vmap
def _(axis_size: int, in_batched: Any, arrays: Any) -> tuple[jax.Array, bool]:
    return jnp.ones((), jnp.bool_), False


# The derivative.


@partial(_run_with_rule.defjvp, symbolic_zeros=True)
def _run_jvp(loop: Loop, primals: Any, tangents: Any) -> tuple[Trajectory, Trajectory]:
    params, given = primals
    # What is not differentiated has no tangent, and costs nothing; something is.
    dparams, dgiven = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent,
        tangents,
        is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
    )
    out = _run_with_rule(loop, params, given)
    # Else a NumPy array that `jax.shard_map` takes would be an argument of `jax.checkpoint`, which
    # JAX up to 0.12 cannot linearize.
    params, given = jax.lax.optimization_barrier((params, given))
    return out, _tangents(loop, params, given, out.h, dparams, dgiven)


def _tangents(
    loop: Loop,
    params: RNNParams[Any],
    given: Sequences,
    h: jax.Array,
    dparams: RNNParams[Any],
    dgiven: Any,
) -> Trajectory:
    """The tangents of all steps, one segment of them after another.

    In a segment of several steps, what adds to their da_t from outside the loop is one product, and
    so are the gradients of the weights in the transpose, which computes each segment again: nothing
    but `h` is kept.
    """
    if AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types:
        # Times a one that varies over the devices of `jax.shard_map` as the states do, so that the
        # transpose adds up the gradients over them here, once, and not in each segment.
        one = 1 + jnp.sum(jax.lax.stop_gradient(given.h0)[..., :0])
        dparams = jax.tree.map(lambda tangent: one * tangent, dparams)
    size = _segment_size(given)
    drestart = jnp.zeros_like(given.h0) if dgiven.restart is None else dgiven.restart
    # Transposed here, once, so that the loop of the transpose has a plain product, which is 1.05 to
    # 1.2 times as fast on jax 0.12.
    wh_transposed = jax.lax.optimization_barrier(params.wh.T)

    def from_outside(segment: _Segment, matmul: Matmul) -> jax.Array:
        factors = [(segment.x, dparams.wx), (segment.start, dparams.wh)]
        factors = [(array, weights) for array, weights in factors if weights is not None]
        if _is_wide(given) and len(factors) == 2:
            arrays, weights = zip(*factors, strict=True)
            factors = [(jnp.concatenate(arrays, axis=-1), jnp.concatenate(weights))]
        if segment.dx is not None:
            factors.append((segment.dx, params.wx))
        terms = [matmul(array, weights) for array, weights in factors]
        return _biased(sum(terms, start=jnp.zeros_like(segment.start)), dparams.b)

    def times_wh(dstart: jax.Array) -> jax.Array:
        return jnp.einsum("...i,ji->...j", dstart, wh_transposed)

    def run_steps(
        matmul: Matmul, times_wh: Any, at_once: bool, dh: jax.Array, segment: _Segment
    ) -> Any:
        def advance(dh_tm1: jax.Array, inputs: Any) -> Any:
            at_t, da_in_t = inputs
            da_in_t = da_in_t if at_once else from_outside(at_t, matmul)
            dstart = select(at_t.resets, drestart, dh_tm1)
            da_t = masked(at_t.skipped, da_in_t + times_wh(dstart))
            h_t = masked(at_t.skipped, index(h, at_t.t)) if at_t.h is None else at_t.h
            dh_t = select(at_t.skipped, dh_tm1, TANGENTS[loop.activation](h_t, da_t))
            return dh_t, (da_t, dh_t)

        return scan(advance, dh, (segment, from_outside(segment, matmul) if at_once else None))

    products = partial(run_steps, _product_of_rows, times_wh, True)
    of_vectors = partial(run_steps, _matmul_of_vectors, lambda dstart: dstart @ params.wh, False)
    sums = partial(
        run_steps, _sum_of_products, lambda dstart: _sum_of_products(dstart, params.wh), False
    )

    def run_segment(dh: jax.Array, inputs: Any) -> Any:
        segment = _segment(loop, given, h, size, *inputs)
        if not _is_small(params, given) or _may_be_shared(given.x):
            return (of_vectors if _is_single(given) else products)(dh, segment)
        # Else read where they are, the states would be copied whole for the choices below.
        within = jax.lax.dynamic_slice_in_dim(h, segment.t[0], size)
        segment = segment._replace(h=masked(segment.skipped, within))

        def on_cpu(*operands: Any) -> Any:
            return jax.lax.cond(_is_mapped(params, given), products, sums, *operands)

        return jax.lax.platform_dependent(dh, segment, cpu=on_cpu, default=products)

    def scan(function: Any, dh: jax.Array, inputs: Any, unroll: int = loop.unroll) -> Any:
        function = jax.checkpoint(function, prevent_cse=False)
        return jax.lax.scan(function, dh, inputs, reverse=loop.reverse, unroll=unroll)

    dh0 = jnp.zeros_like(given.h0) if dgiven.h0 is None else dgiven.h0
    dx = None if dgiven.x is None else _segmented(_time_first(dgiven.x), size)
    firsts = jnp.arange(0, given.x.shape[-2], size, dtype=jnp.int32)
    dlast, out = scan(run_segment, dh0, (firsts, dx), unroll=1)
    da, dh = (_joined(array, given.x.shape[-2]) for array in out)
    return Trajectory(dlast, da, dh)


class _Segment(NamedTuple):
    """What the tangents of some steps are made of, time first, or those of one step.

    Attributes:
      t: the numbers of the steps.
      x: inputs, zero where `skipped`, as the arrays below.
      start: the states that the steps start from.
      h: the states after the steps; None where these are read where they are.
      dx: the tangents of `x`; None where it is not differentiated.
      skipped: the steps that are not run, as they are padding or were run already; None is none.
      resets: the steps that are resets; None is none.
    """

    t: jax.Array
    x: jax.Array
    start: jax.Array
    h: jax.Array | None
    dx: jax.Array | None
    skipped: jax.Array | None
    resets: jax.Array | None


def _segment(
    loop: Loop, given: Sequences, h: jax.Array, size: int, first: jax.Array, dx: jax.Array | None
) -> _Segment:
    """`size` steps from `first`, or the last ones, where so many are not left."""
    n_steps = given.x.shape[-2]
    divides = size == 1 or n_steps % size == 0
    begin = first if divides else jnp.minimum(first, n_steps - size)
    cut = partial(jax.lax.dynamic_slice_in_dim, allow_negative_indices=False)
    t = begin + jnp.arange(size, dtype=jnp.int32)
    skipped = padding(given, t)
    if not divides:
        again = t < first
        if skipped is not None:
            again = jnp.expand_dims(again, range(1, skipped.ndim))
            again = skipped | jnp.broadcast_to(again, skipped.shape)
        skipped = again
    # The state before the first of them, in the order in which they run. An index out of range,
    # whose state is not selected, is the nearest in range.
    edge = begin + size if loop.reverse else begin - 1
    before = select(edge == (n_steps if loop.reverse else -1), given.h0, index(h, edge))[None]
    others = cut(h, begin + 1 if loop.reverse else begin, size - 1)
    start = jnp.concatenate([others, before] if loop.reverse else [before, others])
    resets = None
    if given.resets is not None:
        resets = jnp.moveaxis(cut(given.resets, begin, size, axis=-1), -1, 0)
        start = select(resets, cast(jax.Array, given.restart), start)
    return _Segment(
        t,
        masked(skipped, _time_first(cut(given.x, begin, size, axis=-2))),
        masked(skipped, start),
        None,
        None if dx is None else masked(skipped, dx),
        skipped,
        resets,
    )


def _segment_size(given: Sequences) -> int:
    """About the square root of the number of steps, which keeps least, and best a divisor of it.

    Of a batch that may be shared among devices, all steps.
    """
    n_steps = given.x.shape[-2]
    if _is_single(given) or not isinstance(n_steps, int):
        return 1
    if _may_be_shared(given.x):
        return n_steps  # else the gradients would be added up over the devices in each segment
    root = math.isqrt(n_steps)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    divisors = [size for size in near if n_steps % size == 0]
    return min(divisors, key=lambda size: abs(size - root), default=root)


def _segmented(array: jax.Array, size: int) -> jax.Array:
    """An array of all steps as one of segments, which overlap where `size` does not divide them."""
    n_steps = array.shape[0]
    if size > 1 and n_steps % size:
        whole = n_steps - n_steps % size
        array = jnp.concatenate([array[:whole], array[n_steps - size :]])
    n_segments = -(-n_steps // size)
    return array.reshape(n_segments, size, *array.shape[1:])


def _joined(segments: jax.Array, n_steps: int) -> jax.Array:
    """The reverse of `_segmented`."""
    n_segments, size, *shape = segments.shape
    array = segments.reshape(n_segments * size, *shape)
    if size == 1 or n_steps % size == 0:
        return array
    whole = n_steps - n_steps % size
    return jnp.concatenate([array[:whole], array[n_segments * size - n_steps % size :]])


def _product_of_rows(arrays: jax.Array, weights: jax.Array) -> jax.Array:
    """The product of arrays `(size, *batch, n)` and weights."""
    # In one flat axis of rows, as otherwise XLA on CPUs copies what it multiplies in the transpose.
    # Steps come first in it: to put the batch first costs a copy, 1.05 times the time of a gradient
    # on jax 0.12, but a batch that is shared among devices would be gathered to put steps first.
    # Where `jax.jit` has it shared by `in_shardings`, its type does not tell.
    is_untold = jax.typeof(arrays).sharding.mesh.empty and jax.device_count() > 1
    is_shared = is_untold or _may_be_shared(arrays)
    rows = jnp.moveaxis(arrays, 0, -2) if is_shared else arrays
    if any(axis is not None for axis in jax.typeof(rows).sharding.spec[1:]):
        out = rows @ weights
    else:
        out = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1]) @ weights
        out = out.reshape(*rows.shape[:-1], weights.shape[-1])
    return jnp.moveaxis(out, -2, 0) if is_shared else out


def _matmul_of_vectors(vector: jax.Array, weights: jax.Array) -> jax.Array:
    """On accelerators sums, whose transposes are no product to launch."""
    out = jax.lax.platform_dependent(vector, weights, cpu=jnp.matmul, default=_sum_of_products)
    return cast(jax.Array, out)


def _time_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -2, 0)
