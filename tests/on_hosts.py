"""One of the processes that stand for hosts: `test_hosts.py` starts each with this file."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn import RNNParams, rnn_forward, rnn_stacked
from tests.helpers import BLOCKS, numbers

LENGTHS = np.arange(12, dtype=np.int32) % 7


def arguments() -> tuple[Any, Any]:
    """Parameters and a batch, the same in every process."""
    wx, wh, b, x = map(np.float32, numbers((3, 16), (16, 16), (16,), (12, 6, 3)))
    return RNNParams(wx, wh / 2, b), x


@jax.jit
def update(params: Any, x: Any) -> Any:
    """One step of training, and the loss before it."""
    value, gradient = jax.value_and_grad(lambda p: jnp.mean(rnn_forward(p, x) ** 2))(params)
    return jax.tree.map(lambda param, g: param - g, params, gradient), value


@jax.grad
def gradient_of_layers(params: Any, x: Any, lengths: Any) -> jax.Array:
    """Not under `jax.jit`, so that the lengths have values, of which no process has all."""
    layers = params, params._replace(wx=params.wh)
    return jnp.mean(rnn_stacked(layers, x, lengths=lengths).h ** 2)


def shardings() -> tuple[Any, Any]:
    """For all devices of all processes: one puts a copy on each, the other a part on each."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), (AxisType.Auto,))
    return NamedSharding(mesh, P()), NamedSharding(mesh, P("devices"))


def own_part(array: Any, sharding: Any) -> Any:
    """An array of which each process gives only its own part."""
    part = np.split(array, jax.process_count())[jax.process_index()]
    return jax.make_array_from_process_local_data(sharding, part)


def results_of_steps() -> Any:
    """One step with a shared batch, and the gradient of one with all lengths."""
    params, x = arguments()
    everywhere, shared = shardings()
    args = jax.device_put(params, everywhere), own_part(x, shared)
    return update(*args), gradient_of_layers(*args, own_part(LENGTHS, shared))


def results_of_readme() -> Any:
    """What the README's own code for one device, many devices and many hosts gives."""
    (block,) = [block for block in BLOCKS if "jax.distributed.initialize()" in block]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    return [names[name] for name in ("params", "value", "ensemble", "values")]


def main(folder: str, coordinator: str, n_processes: str, process_id: str) -> None:
    """Connect to the other processes, and write what all have; given the command line's words."""
    jax.distributed.initialize(coordinator, int(n_processes), int(process_id))
    assert jax.process_count() == int(n_processes)
    assert jax.device_count() == int(n_processes) * jax.local_device_count()
    leaves = jax.tree.leaves((results_of_steps(), results_of_readme()))
    gathered = jax.jit(lambda leaves: leaves, out_shardings=shardings()[0])(leaves)
    np.savez(Path(folder) / f"{process_id}.npz", *map(np.asarray, gathered))


if __name__ == "__main__":
    main(*sys.argv[1:])
