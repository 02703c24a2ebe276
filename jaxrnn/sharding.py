"""How the arrays of a run are shared among devices: all of them in one way.

A mesh may share the batch by an explicit axis, which is part of an array's type. Then JAX refuses
to select from arrays that are shared in different ways. Inside `jax.shard_map` an array varies over
axes of the mesh or is the same along them, and the carry of a loop must vary as its results do.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def varied(tree: Any) -> Any:
    """The tree with every array varying over all axes over which one of them varies.

    The transpose adds up gradients over these axes here, once, and not in every step.
    """
    leaves = jax.tree.leaves(tree)
    over: Any = frozenset().union(*(jax.typeof(leaf).manual_axis_type.varying for leaf in leaves))

    def vary(array: jax.Array) -> Any:
        new = over - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(new), to="varying")

    return jax.tree.map(vary, tree)


def batch_names(batch: tuple[Any, ...], arrays: Any) -> tuple[Any, ...]:
    """The mesh axis that shares each axis of the batch, by the first array that says one.

    Args:
      batch: the sizes of the batch axes.
      arrays: pairs of an array, or None, and the number of its axes behind those of the batch.
    """
    names: list[Any] = [None] * len(batch)
    for array, n_others in arrays:
        if array is not None:
            spec = jax.typeof(array).sharding.spec
            own = spec[: len(spec) - n_others]
            for i, name in enumerate(own, start=len(batch) - len(own)):
                if names[i] is None and name not in names:
                    names[i] = name
    return tuple(names)


def shared(array: jax.Array, shape: tuple[Any, ...], names: tuple[Any, ...]) -> jax.Array:
    """Broadcast to a shape, whose batch axes are first, and share these by the axes of a mesh."""
    if not any(names):
        return jnp.broadcast_to(array, shape)
    own = jax.typeof(array).sharding
    mesh = jax.sharding.get_abstract_mesh()
    batch = [None if size == 1 else name for size, name in zip(shape, names, strict=False)]
    others = own.spec[len(own.spec) - (len(shape) - len(names)) :] if own.spec else ()
    spec = PartitionSpec(*batch, *others)
    return jnp.broadcast_to(array, shape, out_sharding=NamedSharding(mesh, spec))
