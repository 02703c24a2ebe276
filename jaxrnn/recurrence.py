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

Here the arguments are already checked, and all have one dtype.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, cast

import jax
import jax.custom_batching
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.params import ArrayT, RNNParams

Activation = Callable[[jax.Array], jax.Array]
Matmul = Callable[[jax.Array, jax.Array], jax.Array]

# f' as a function of h = f(a). It is also taken at h0, which need not be a value of f, and times
# zero there must be zero: hence the bound, without which a large h0 would overflow.
DERIVATIVES: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    jnp.tanh: lambda h: 1 - jnp.minimum(h * h, 1),
    jax.nn.relu: lambda h: (h > 0).astype(h.dtype),
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


class Trajectory(NamedTuple):
    """What a loop gives; what is not used, the compiler drops.

    Attributes:
      last: the state after the last step, `(*batch, n_nodes)`.
      a: the pre-activations `a_t`, `(n_steps, *batch, n_nodes)`.
      before: the states before the steps, `h_{t-1}`, the same shape.
    """

    last: jax.Array
    a: jax.Array
    before: jax.Array


def step(
    params: RNNParams[Any], h_tm1: jax.Array, x_t: jax.Array, activation: Activation
) -> RNNStates[jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    return _advance(activation, _project(params, x_t), h_tm1 @ params.wh)


def run(
    params: RNNParams[Any], x: jax.Array, h0: jax.Array, activation: Activation, unroll: int
) -> Trajectory:
    """Every step, over `x (*batch, n_steps, n_features)` from `h0 (*batch, n_nodes)`."""
    n_steps = x.shape[-2]
    # On CPUs the loop is 1.7 times as fast on a vector as on a matrix of one row.
    single = tuple(axis for axis, size in enumerate(h0.shape[:-1]) if size == 1)
    x, h0 = jax.lax.squeeze(x, single), jax.lax.squeeze(h0, single)
    if isinstance(n_steps, int) and n_steps <= FEW_STEPS:  # not so where it is symbolic
        out = _run_inputs_first(activation, max(n_steps, 1), params, x, h0)
    elif activation in DERIVATIVES:
        out = _run_with_rule(activation, unroll, params, x, h0)
    else:
        out = _run_plainly(activation, unroll, params, x, h0)
    after_time = tuple(axis + 1 for axis in single)
    return Trajectory(
        jax.lax.expand_dims(out.last, single),
        jax.lax.expand_dims(out.a, after_time),
        jax.lax.expand_dims(out.before, after_time),
    )


def states(trajectory: Trajectory) -> RNNStates[jax.Array]:
    """`a_t` and `h_t`: the states after the steps are those before, shifted by one."""
    # Rolled, as its derivative takes the memory of one array less than that of a concatenation.
    before = jnp.moveaxis(trajectory.before, 0, -2)
    h = jnp.roll(before, -1, axis=-2).at[..., -1:, :].set(trajectory.last[..., None, :])
    return RNNStates(jnp.moveaxis(trajectory.a, 0, -2), h)


def _run_plainly(
    activation: Activation, unroll: int, params: RNNParams[Any], x: jax.Array, h0: jax.Array
) -> Trajectory:
    project = partial(_project, params)
    return _loop(activation, unroll, params, h0, _time_first(x), project, jnp.matmul)


def _run_on_cpu(
    activation: Activation, unroll: int, params: RNNParams[Any], x: jax.Array, h0: jax.Array
) -> Trajectory:
    # Reads x where it is, as a copy of it with time first would have to be kept.
    def project(t: jax.Array) -> jax.Array:
        x_t = jax.lax.dynamic_index_in_dim(x, t, axis=-2, keepdims=False)
        return _project(params, x_t, _small_matmul)

    n_steps = x.shape[-2]
    return _loop(activation, unroll, params, h0, jnp.arange(n_steps), project, _small_matmul)


def _run_inputs_first(
    activation: Activation, unroll: int, params: RNNParams[Any], x: jax.Array, h0: jax.Array
) -> Trajectory:
    # For accelerators, where each product in the loop is a kernel to launch, and for few steps.
    a_in = _project(params, _time_first(x), _flat_matmul)
    return _loop(activation, unroll, params, h0, a_in, lambda a_in_t: a_in_t, jnp.matmul)


def _loop(
    activation: Activation,
    unroll: int,
    params: RNNParams[Any],
    h0: jax.Array,
    inputs: jax.Array,
    project: Callable[[jax.Array], jax.Array],
    matmul: Matmul,
) -> Trajectory:
    """The loop over `inputs`, of each of which `project` makes `x_t wx + b`."""

    def advance(h_tm1: jax.Array, input_t: jax.Array) -> tuple[jax.Array, Any]:
        a_t, h_t = _advance(activation, project(input_t), matmul(h_tm1, params.wh))
        return h_t, (a_t, h_tm1)

    last, (a, before) = jax.lax.scan(advance, h0, inputs, unroll=unroll)
    return Trajectory(last, a, before)


def _advance(activation: Activation, *terms: jax.Array) -> RNNStates[jax.Array]:
    a_t = sum(terms[1:], start=terms[0])
    return RNNStates(a_t, activation(a_t).astype(a_t.dtype))  # which only drops a weak type


def _project(params: RNNParams[Any], x: jax.Array, matmul: Matmul = jnp.matmul) -> jax.Array:
    a_in = matmul(x, params.wx)
    return a_in if params.b is None else a_in + _broadcast(params.b, a_in)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _run_with_rule(
    activation: Activation, unroll: int, params: RNNParams[Any], x: jax.Array, h0: jax.Array
) -> Trajectory:
    on_cpu = partial(_run_on_cpu, activation, unroll)
    elsewhere = partial(_run_inputs_first, activation, unroll)
    out = jax.lax.platform_dependent(params, x, h0, cpu=on_cpu, default=elsewhere)
    return cast(Trajectory, out)


@partial(_run_with_rule.defjvp, symbolic_zeros=True)
def _run_jvp(
    activation: Activation, unroll: int, primals: Any, tangents: Any
) -> tuple[Trajectory, Trajectory]:
    params, x, h0 = primals
    derivative = DERIVATIVES[activation]
    # What is not differentiated has no tangent, and costs nothing; something is.
    (dwx, dwh, db), dx, dh0 = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent,
        tangents,
        is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
    )
    out = _run_with_rule(activation, unroll, params, x, h0)

    da_in = []
    if dx is not None:
        da_in.append(_flat_matmul(_time_first(dx), params.wx))
    if dwx is not None:
        da_in.append(_flat_matmul(_time_first(x), dwx))
    if dwh is not None:
        da_in.append(_flat_matmul(out.before, dwh))
    if db is not None:
        da_in.append(_broadcast(db, out.before))
    if dh0 is not None:
        da_in.append(jnp.zeros_like(out.before).at[0].set(dh0 @ params.wh))

    # Transposed here, once, so that the loop of the transpose has a plain product.
    wh_transposed = jax.lax.optimization_barrier(params.wh.T)

    # Checkpointed, so that what is kept for the transpose is h_{t-1}, which `dwh` needs anyway, and
    # not f'(h_{t-1}).
    @partial(jax.checkpoint, prevent_cse=False)
    def advance(da_tm1: jax.Array, inputs_t: Any) -> tuple[jax.Array, Any]:
        da_in_t, h_tm1 = inputs_t
        dh_tm1 = derivative(h_tm1) * da_tm1
        da_t = jnp.einsum("...i,ji->...j", dh_tm1, wh_transposed) + da_in_t
        return da_t, (dh_tm1, da_t)

    zeros = jnp.zeros_like(out.last)
    inputs = sum(da_in[1:], start=da_in[0]), out.before
    da_last, (dbefore, da) = jax.lax.scan(advance, zeros, inputs, unroll=unroll)
    if dh0 is not None:
        dbefore = dbefore.at[0].add(dh0)
    return out, Trajectory(derivative(out.last) * da_last, da, dbefore)


def _time_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -2, 0)


def _broadcast(b: jax.Array, a: jax.Array) -> jax.Array:
    return jnp.broadcast_to(b, a.shape)  # in words, for jax_numpy_rank_promotion


def _flat_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights` over one flattened axis: the transpose is then one product of matrices."""
    if any(axis is not None for axis in jax.typeof(array).sharding.spec):
        return array @ weights  # on a mesh with explicit axes, JAX flattens none that is sharded
    flat = array.reshape(math.prod(array.shape[:-1]), array.shape[-1]) @ weights
    return flat.reshape(*array.shape[:-1], weights.shape[-1])


def _small_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, but of few numbers as a sum, which costs no call of a library.

    The compiler fuses the sum with the rest of the step (measured in bench/README.md). Under
    `jax.vmap` the numbers are not few any more.
    """
    n_multiplications = array.size * weights.shape[-1]
    few = 512 if array.ndim == 1 else 2048  # less for a vector, whose product is no call either
    if isinstance(n_multiplications, int) and n_multiplications <= few:
        return cast(jax.Array, _summed_matmul(array, weights))
    return array @ weights


@jax.custom_batching.custom_vmap
def _summed_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    weights = jnp.broadcast_to(weights, (*array.shape, weights.shape[-1]))
    return jnp.sum(array[..., None] * weights, axis=-2)


@_summed_matmul.def_vmap
def _matmul_of_many(
    axis_size: int, batched: list[bool], array: jax.Array, weights: jax.Array
) -> tuple[jax.Array, bool]:
    in_axes = [0 if each else None for each in batched]
    return jax.vmap(jnp.matmul, in_axes)(array, weights), True
