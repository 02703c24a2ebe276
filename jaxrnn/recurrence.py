"""The recurrence of a vanilla (Elman) RNN, and its derivative.

    a_t = x_t wx + h_{t-1} wh + b
    h_t = f(a_t)                                   t = 1 .. n_steps, f the activation

Where f' can be had from f, as for tanh and relu, the derivative has a rule of its own. It is a
Jacobian-vector product, so that JAX makes every mode and order of differentiation from it:

    da_t = dx_t wx + x_t dwx + h_{t-1} dwh + db + (f'(h_{t-1}) * da_{t-1}) wh
    dh_t = f'(h_t) * da_t                          with dh_0 for f'(h_0) * da_0

All but the last term of da_t is computed for all steps at once; the loop has one product left. The
transpose of that, which is what `jax.grad` runs, is backpropagation through time with a single
product for the gradient of each weight matrix, where differentiating the loop step by step adds to
those gradients in every iteration. Between the passes only the states are kept.

Here time is the leading axis of `x`, the arguments are already checked, and all have one dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrnn.params import ArrayT, RNNParams

Activation = Callable[[jax.Array], jax.Array]

# f' as a function of h = f(a). It is also taken at h0, which need not be a value of f, and times
# zero there must be zero: hence the bound, without which a large h0 would overflow.
DERIVATIVES: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    jnp.tanh: lambda h: 1 - jnp.minimum(h * h, 1),
    jax.nn.relu: lambda h: (h > 0).astype(h.dtype),
}


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
    """All that a run gives; what is not used, the compiler drops.

    Attributes:
      last: the state after the last step, `(*batch, n_nodes)`.
      states: `a_t` and `h_t`, each `(n_steps, *batch, n_nodes)`.
      before: `h_{t-1}`, the same shape.
    """

    last: jax.Array
    states: RNNStates[jax.Array]
    before: jax.Array


def step(
    params: RNNParams[Any], h_tm1: jax.Array, x_t: jax.Array, activation: Activation
) -> RNNStates[jax.Array]:
    """One step: `a_t` and `h_t`, both `(*batch, n_nodes)`."""
    a_t = x_t @ params.wx + h_tm1 @ params.wh
    if params.b is not None:
        a_t += _broadcast(params.b, a_t)
    return RNNStates(a_t, activation(a_t).astype(a_t.dtype))  # which only drops a weak type


def run(
    params: RNNParams[Any], x: jax.Array, h0: jax.Array, activation: Activation, unroll: int
) -> Trajectory:
    """Every step, over `x (n_steps, *batch, n_features)` from `h0 (*batch, n_nodes)`."""
    # On CPUs the loop is 1.7 times as fast on a vector as on a matrix of one row.
    single = tuple(axis for axis, size in enumerate(h0.shape[:-1]) if size == 1)
    x, h0 = jnp.squeeze(x, tuple(axis + 1 for axis in single)), jnp.squeeze(h0, single)
    has_rule = activation in DERIVATIVES and x.shape[0] != 0
    last, *series = (_run_with_rule if has_rule else _run)(activation, unroll, params, x, h0)
    expand = partial(jnp.expand_dims, axis=tuple(axis + 1 for axis in single))
    return Trajectory(jnp.expand_dims(last, single), *jax.tree.map(expand, series))


def _run(
    activation: Activation, unroll: int, params: RNNParams[Any], x: jax.Array, h0: jax.Array
) -> Trajectory:
    def advance(h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, Any]:
        states = step(params, h_tm1, x_t, activation)
        return states.h, (states, h_tm1)

    last, (states, before) = jax.lax.scan(advance, h0, x, unroll=unroll)
    return Trajectory(last, states, before)


_run_with_rule = jax.custom_jvp(_run, nondiff_argnums=(0, 1))


@partial(_run_with_rule.defjvp, symbolic_zeros=True)
def _run_jvp(
    activation: Activation, unroll: int, primals: Any, tangents: Any
) -> tuple[Trajectory, Trajectory]:
    params, x, h0 = primals
    derivative = DERIVATIVES[activation]
    # What is not differentiated has no tangent, and costs nothing.
    (dwx, dwh, db), dx, dh0 = jax.tree.map(
        lambda tangent: None if isinstance(tangent, SymbolicZero) else tangent,
        tangents,
        is_leaf=lambda tangent: isinstance(tangent, SymbolicZero),
    )
    out = _run_with_rule(activation, unroll, params, x, h0)

    da_in = [
        _product(array, weights)
        for array, weights in ((dx, params.wx), (x, dwx), (out.before, dwh))
        if array is not None and weights is not None
    ]
    if db is not None:
        da_in.append(_broadcast(db, out.before))
    if dh0 is not None:
        da_in.append(jnp.zeros_like(out.before).at[0].set(dh0 @ params.wh))

    # Transposed here, once, so that the loop of the transpose has a plain product.
    wh_transposed = jax.lax.optimization_barrier(params.wh.T)

    # Checkpointed, so that what is kept for the transpose is h_{t-1}, which `dwh` needs anyway, and
    # not f'(h_{t-1}).
    @partial(jax.checkpoint, prevent_cse=False)
    def advance(da_tm1: jax.Array, series: Any) -> tuple[jax.Array, Any]:
        *da_in_t, h_tm1 = series
        dh_tm1 = derivative(h_tm1) * da_tm1
        da_t = jnp.einsum("...i,ji->...j", dh_tm1, wh_transposed)
        da_t = sum(da_in_t, start=da_t)
        return da_t, (dh_tm1, da_t)

    zeros = jnp.zeros_like(out.last)
    series = *([sum(da_in[1:], start=da_in[0])] if da_in else []), out.before
    da_last, (dbefore, da) = jax.lax.scan(advance, zeros, series, unroll=unroll)
    if dh0 is not None:
        dbefore = dbefore.at[0].add(dh0)
    dstates = RNNStates(da, derivative(out.states.h) * da)
    return out, Trajectory(derivative(out.last) * da_last, dstates, dbefore)


def _product(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights` over one flattened axis: the transpose is then one product of matrices."""
    flat = array.reshape(-1, array.shape[-1]) @ weights
    return flat.reshape(*array.shape[:-1], weights.shape[-1])


def _broadcast(b: jax.Array, a: jax.Array) -> jax.Array:
    return jnp.broadcast_to(b, a.shape)  # in words, for jax_numpy_rank_promotion
