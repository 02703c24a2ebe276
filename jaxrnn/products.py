"""Matrix products in the forms that the recurrence is fast with."""

import math
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

InAxes = tuple[int | None, ...]
# That of jax.extend.core, which takes 75 ms to import, as it brings Pallas along.
Primitive: Any = type(jax.lax.dot_general_p)


def flat_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, the gradient of whose weights is one product of matrices.

    That is over one flattened axis, without which XLA on CPUs copies what it multiplies. Shared
    among devices, a flattened axis of steps and sequences would be gathered on each: there it is
    not flattened, which the lowering knows.
    """
    if any(axis is not None for axis in jax.typeof(array).sharding.spec):
        return array @ weights  # on a mesh with explicit axes, JAX flattens none that is sharded
    if _varies(array, weights):
        return _flattened(array, weights)  # it is a single device's
    return cast(jax.Array, _flat_matmul_p.bind(array, weights))


def _flattened(array: jax.Array, weights: jax.Array) -> jax.Array:
    flat = _flat(array) @ weights
    return flat.reshape(*array.shape[:-1], weights.shape[-1])


def _flat(array: jax.Array) -> jax.Array:
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _varies(*arrays: jax.Array) -> bool:
    """Whether they vary over devices inside `jax.shard_map`, which new primitives would mind."""
    return any(jax.typeof(each).manual_axis_type.varying for each in arrays)


def is_small(array: Any, weights: Any) -> bool:
    """Whether the product takes so few multiplications that a call of a library is most of it."""
    n_multiplications = array.size * weights.shape[-1]
    few = 512 if array.ndim == 1 else 2048  # less for a vector, whose product is no call either
    return isinstance(n_multiplications, int) and n_multiplications <= few


def small_matmul(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, but where it is small on a CPU a sum, which costs no call of a library.

    The compiler fuses the sum with the rest of the step (measured in bench/README.md). Under
    `jax.vmap` the numbers are not few any more.
    """
    if is_small(array, weights) and not _varies(array, weights):
        return cast(jax.Array, _summed_matmul_p.bind(array, weights))
    return array @ weights


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    # Narrow types are widened, as they are in a library's product: float16 would overflow.
    wide = array.dtype if array.dtype.itemsize >= 4 else jnp.float32
    weights = jnp.broadcast_to(weights, (*array.shape, weights.shape[-1])).astype(wide)
    return jnp.sum(array[..., None].astype(wide) * weights, axis=-2).astype(array.dtype)


def _sum_of_outer(array: jax.Array, g: jax.Array) -> jax.Array:
    return jnp.tensordot(array, g, axes=(tuple(range(array.ndim - 1)),) * 2)


def _shape_of_product(array: Any, weights: Any) -> Any:
    return _shape_of_dot(array, weights, (((array.ndim - 1,), (0,)), ((), ())))


def _shape_of_dot(array: Any, other: Any, dimension_numbers: Any) -> Any:
    return jax.lax.dot_general_p.abstract_eval(
        array,
        other,
        dimension_numbers=dimension_numbers,
        precision=None,
        preferred_element_type=None,
        out_sharding=None,
    )[0]


def _outer(array: jax.Array, g: jax.Array) -> jax.Array:
    return cast(jax.Array, _outer_p.bind(array, g))


def _shape_of_outer(array: Any, g: Any) -> Any:
    leading = tuple(range(array.ndim - 1))
    return _shape_of_dot(array, g, ((leading, leading), ((), ())))


def _outers(array: jax.Array, g: jax.Array, *, in_axes: InAxes) -> jax.Array:
    return jax.vmap(_sum_of_outer, in_axes)(array, g)


def _one_by_one(array: jax.Array, g: jax.Array, *, in_axes: InAxes) -> jax.Array:
    # One product of all wants their axis first and steps and sequences as one, for which XLA copies
    # what it multiplies, 1.3 times the memory; of single sequences it does not.
    pairs = list(zip((array, g), in_axes, strict=True))
    n = next(each.shape[axis] for each, axis in pairs if axis is not None)
    if n == 0 or all(each.ndim - (axis is not None) == 2 for each, axis in pairs):
        return _outers(array, g, in_axes=in_axes)

    def of(i: jax.Array) -> jax.Array:
        operands = (
            each if axis is None else jax.lax.dynamic_index_in_dim(each, i, axis, keepdims=False)
            for each, axis in pairs
        )
        return _outer(*operands)

    return cast(jax.Array, jax.lax.map(of, jnp.arange(n)))


def _shape_of_outers(array: Any, g: Any, *, in_axes: InAxes) -> Any:
    return jax.make_jaxpr(partial(_outers, in_axes=in_axes))(array, g).out_avals[0]


def _transposed_outers(operand: int) -> Any:
    def transpose(ct: jax.Array, *operands: Any, in_axes: InAxes) -> Any:
        def linear(each: jax.Array) -> jax.Array:
            arrays = [*operands[:operand], each, *operands[operand + 1 :]]
            return _outers(*arrays, in_axes=in_axes)

        return jax.linear_transpose(linear, operands[operand].aval)(ct)[0]

    return transpose


def _lowered(function: Any) -> Any:
    return mlir.lower_fun(function, multiple_results=False)


def _lowered_by_devices(single: Any, shared: Any) -> Any:
    """One way in the program of a single device, another in that of several."""
    single, shared = _lowered(single), _lowered(shared)

    def lower(context: Any, *args: Any, **params: Any) -> Any:
        n_devices = getattr(context.module_context.axis_context, "num_devices", 1)
        return (single if n_devices == 1 else shared)(context, *args, **params)

    return lower


def _primitive(name: str, shape: Any, function: Any, lowering: Any, by: Any) -> Any:
    """A product, given its shape, as a function of arrays, its lowering, and its transposes."""
    primitive = Primitive(name)
    primitive.def_abstract_eval(shape)
    primitive.def_impl(function)
    mlir.register_lowering(primitive, lowering)
    batching.primitive_batchers[primitive] = lambda arrays, axes, **params: (
        jax.vmap(partial(function, **params), axes)(*arrays),
        0,
    )
    ad.defbilinear(primitive, *by)
    return primitive


# Primitives, as nothing else is one thing by itself, another under `jax.vmap`, and has both modes
# of differentiation: `jax.custom_batching.custom_vmap` has no reverse mode, and a rule around it is
# lost where JAX differentiates what it has linearized, as in a scan of checkpointed runs.
_summed_matmul_p = _primitive(
    "jaxrnn_summed_matmul",
    _shape_of_product,
    jnp.matmul,
    _lowered(jnp.matmul),
    (
        lambda g, array, weights: small_matmul(g, weights.T),
        lambda g, array, weights: _sum_of_outer(array, g),
    ),
)
mlir.register_lowering(_summed_matmul_p, _lowered(_sum_of_products), platform="cpu")
_flat_matmul_p = _primitive(
    "jaxrnn_flat_matmul",
    _shape_of_product,
    jnp.matmul,
    _lowered_by_devices(_flattened, jnp.matmul),
    (
        lambda g, array, weights: flat_matmul(g, weights.T),
        lambda g, array, weights: _outer(array, g),
    ),
)
_outer_p = _primitive(
    "jaxrnn_outer",
    _shape_of_outer,
    _sum_of_outer,
    _lowered_by_devices(lambda array, g: _flat(array).T @ _flat(g), _sum_of_outer),
    (
        lambda g, array, other: flat_matmul(other, g.T),
        lambda g, array, other: flat_matmul(array, g),
    ),
)
_outers_p = _primitive(
    "jaxrnn_outers",
    _shape_of_outers,
    _outers,
    _lowered_by_devices(_one_by_one, _outers),
    (_transposed_outers(0), _transposed_outers(1)),
)
batching.primitive_batchers[_outer_p] = lambda arrays, axes: (
    _outers_p.bind(*arrays, in_axes=tuple(axes)),
    0,
)
