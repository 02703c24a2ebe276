"""Matrix products in the forms that the recurrence is fast with."""

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def flat_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights` over one flattened axis: the transpose is then one product of matrices."""
    if any(axis is not None for axis in jax.typeof(array).sharding.spec):
        return array @ weights  # on a mesh with explicit axes, JAX flattens none that is sharded
    flat = array.reshape(math.prod(array.shape[:-1]), array.shape[-1]) @ weights
    return flat.reshape(*array.shape[:-1], weights.shape[-1])


def is_small(array: Any, weights: Any) -> bool:
    """Whether the product takes so few multiplications that a call of a library is most of it."""
    n_multiplications = array.size * weights.shape[-1]
    few = 512 if array.ndim == 1 else 2048  # less for a vector, whose product is no call either
    return isinstance(n_multiplications, int) and n_multiplications <= few


def small_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, but where it is small as a sum, which costs no call of a library.

    The compiler fuses the sum with the rest of the step (measured in bench/README.md). Under
    `jax.vmap` the numbers are not few any more.
    """
    varying = [jax.typeof(each).manual_axis_type.varying for each in (array, weights)]
    # Inside jax.shard_map a primitive would mind what varies over the devices.
    if is_small(array, weights) and not any(varying):
        return cast(jax.Array, _summed_matmul_p.bind(array, weights))
    return array @ weights


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    weights = jnp.broadcast_to(weights, (*array.shape, weights.shape[-1]))
    return jnp.sum(array[..., None] * weights, axis=-2)


def _shape_of_product(array: Any, weights: Any) -> Any:
    contracted = ((array.ndim - 1,), (0,)), ((), ())
    return jax.lax.dot_general_p.abstract_eval(
        array,
        weights,
        dimension_numbers=contracted,
        precision=None,
        preferred_element_type=None,
        out_sharding=None,
    )[0]


def _by_weights(g: jax.Array, array: jax.Array, weights: Any) -> jax.Array:
    return jnp.tensordot(array, g, axes=(range(array.ndim - 1),) * 2)


# A primitive, as nothing else is one thing by itself, another under `jax.vmap`, and has both modes
# of differentiation: `jax.custom_batching.custom_vmap` has no reverse mode, and a rule around it is
# lost where JAX differentiates what it has linearized, as in a scan of checkpointed runs.
_summed_matmul_p = Primitive("jaxrnn_summed_matmul")
_summed_matmul_p.def_abstract_eval(_shape_of_product)
_summed_matmul_p.def_impl(jax.jit(_sum_of_products))
mlir.register_lowering(_summed_matmul_p, mlir.lower_fun(_sum_of_products, multiple_results=False))
batching.primitive_batchers[_summed_matmul_p] = lambda arrays, axes: (
    jax.vmap(jnp.matmul, axes)(*arrays),
    0,
)
ad.defbilinear(_summed_matmul_p, lambda g, array, weights: g @ weights.T, _by_weights)
