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
    varies = [jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(tree)]
    over: Any = frozenset().union(*varies)

    def vary(array: jax.Array) -> Any:
        new = over - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(new), to="varying")

    return jax.tree.map(vary, tree)


def shared(arrays: dict[str, Any], shapes: dict[str, tuple[Any, ...]], n_batch: int) -> Any:
    """The arrays broadcast to these shapes, whose first `n_batch` axes are those of the batch.

    Each axis of the batch is shared by the mesh axis by which the first array shares it. The first
    shape has all of the batch; in others an axis may have one entry. What is None stays None.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    names: list[Any] = [None] * n_batch
    for key, array in given.items():
        spec = (None,) * (len(shapes[key]) - array.ndim) + tuple(jax.typeof(array).sharding.spec)
        for axis, name in enumerate(spec[:n_batch]):
            if names[axis] is None and name not in names:
                names[axis] = name
    mesh, full = jax.sharding.get_abstract_mesh(), next(iter(shapes.values()))
    for key, array in given.items():
        shape, sharding = shapes[key], None
        if any(names):
            pairs = zip(names, zip(shape, full, strict=False), strict=False)
            batch = [name if size == of_batch else None for name, (size, of_batch) in pairs]
            spec = PartitionSpec(*batch, *[None] * (len(shape) - n_batch))
            sharding = NamedSharding(mesh, spec)
        given[key] = jnp.broadcast_to(array, shape, out_sharding=sharding)
    return arrays | given
