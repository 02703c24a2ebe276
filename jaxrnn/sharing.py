"""How the arrays of a call are shared among devices.

A mesh may share the batch by an explicit axis, which is part of an array's type. JAX refuses to
select from arrays that are shared in different ways. Inside `jax.shard_map` an array varies over
axes of the mesh or is the same along them, and the carry of a loop must vary as its results do.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from jaxrnn.inputs import Inputs
from jaxrnn.params import Params


def alike(
    params: Params, inputs: Inputs, shape: tuple[int, ...], returned: list[Any]
) -> tuple[Params, Inputs]:
    """With all arrays shared in one way, and a state of each sequence, of that shape.

    What the activation and the rate have returned decides too: they may read an array that is
    shared, or varies.
    """
    specs = [spec_of(array)[: len(shape) - 1] for array in (*jax.tree.leaves(inputs), *returned)]
    # Each axis of the batch is shared by the axis of the mesh that shares it in any array.
    spec = tuple(next(filter(None, names), None) for names in zip(*specs, strict=True))
    inputs = _shared(inputs, spec, shape[:-1])
    params, inputs = _varying((params, inputs), returned)
    # Only now: broadcast before it is shared, the gradient of one state would be gathered. If it
    # were not broadcast, the devices would add it up in every step.
    by = jax.typeof(inputs.steps.x).sharding.update(spec=PartitionSpec(*spec, None))
    fill = partial(jnp.broadcast_to, shape=shape, out_sharding=by)
    h0, reset_to = jax.tree.map(fill, (inputs.h0, inputs.reset_to))
    return params, inputs._replace(h0=h0, reset_to=reset_to)


def _shared(inputs: Inputs, spec: tuple[Any, ...], batch: tuple[int, ...]) -> Inputs:
    """With the axes of the batch shared by these axes of the mesh."""

    def share(array: jax.Array) -> jax.Array:
        axes = zip(array.shape, batch, spec, strict=False)  # an axis may have one entry
        names = [name if size == full else None for size, full, name in axes]
        return jax.sharding.reshard(array, PartitionSpec(*names))  # type: ignore[no-any-return]

    return jax.tree.map(share, inputs) if any(spec) else inputs


def _varying(arrays: Any, returned: list[Any]) -> Any:
    """With all arrays varying over all axes over which one does."""

    def varies(array: Any) -> frozenset[Any]:
        return jax.typeof(array).manual_axis_type.varying  # type: ignore[no-any-return]

    over = frozenset[Any]().union(*map(varies, [*jax.tree.leaves(arrays), *returned]))

    def vary(array: jax.Array) -> Any:
        # The transpose adds up gradients over these axes here, once, and not in every step.
        return jax.lax.pcast(array, tuple(over - varies(array)), to="varying")

    return jax.tree.map(vary, arrays)


def spec_of(array: jax.Array) -> Any:
    """Of each axis of an array the explicit axis of a mesh that shares it, or None."""
    return jax.typeof(array).sharding.spec


def bernoulli_like(array: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Bools that are true with a probability, of the shape of an array and shared as it is."""
    by = jax.typeof(array).sharding
    return jax.random.bernoulli(key, probability, array.shape, out_sharding=by)


def may_be_shared(array: jax.Array) -> bool:
    """Whether devices may each hold a part of an array, and XLA communicate between them."""
    sharding = jax.typeof(array).sharding
    return any(sharding.spec) or AxisType.Auto in sharding.mesh.axis_types


def on_mesh_of(arguments: Any) -> AbstractContextManager[Any]:
    """Where the explicit mesh of arguments is set, if there is one and none is set.

    Without it, the constants of the loops, their tangents and their batched forms would get
    shardings that do not fit those of the arguments.
    """
    mesh = mesh_of(arguments)
    return nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh)


def mesh_of(arguments: Any) -> Any:
    """The explicit mesh of arguments; None if there is none, or if one is set."""
    leaves = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    return explicit[0] if explicit and jax.sharding.get_abstract_mesh().empty else None
