"""A process among several, as hosts are: `test_hosts.py` runs this file in each.

The arguments of `main` are those of its command line.
"""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn import RNNParams, rnn_forward, rnn_stacked
from tests.communicating import communication
from tests.test_readme import BLOCKS

# JAX's own timeouts, which are minutes unless told; `test_hosts.py` waits longer.
HEARTBEAT_SECONDS = SHUTDOWN_SECONDS = 5


LENGTHS = np.arange(12, dtype=np.int32) % 7


def arguments() -> tuple[Any, Any, Any]:
    """Parameters, a stack of them, and a batch, the same in every process."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    def params(*sets: int) -> Any:
        return RNNParams(normal(*sets, 3, 16) / 2, normal(*sets, 16, 16) / 4, normal(*sets, 16))

    return params(), params(12), normal(12, 6, 3)


def loss(params: Any, x: Any) -> jax.Array:
    return jnp.mean(rnn_forward(params, x) ** 2)


@jax.jit
def update(params: Any, x: Any) -> Any:
    """One step of training, and the loss before it."""
    value, gradient = jax.value_and_grad(loss)(params, x)
    return jax.tree.map(lambda param, g: param - g, params, gradient), value


update_sets = jax.jit(jax.vmap(update, in_axes=(0, None)))


@jax.grad
def gradient_of_layers(params: Any, x: Any, lengths: Any) -> jax.Array:
    """Not under `jax.jit`: the lengths are numbers, though no process has all of them."""
    layers = params, params._replace(wx=params.wh)
    return jnp.mean(rnn_stacked(layers, x, lengths=lengths).h ** 2)


def shardings() -> tuple[Any, Any]:
    """Over all devices of all processes: the whole on each, and a part on each."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), (AxisType.Auto,))
    return NamedSharding(mesh, P()), NamedSharding(mesh, P("devices"))


def own_parts(tree: Any, sharding: Any) -> Any:
    """Arrays of which each process brings its own part alone."""
    n_processes, i = jax.process_count(), jax.process_index()
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(
            sharding, np.split(array, n_processes)[i]
        ),
        tree,
    )


def step(folder: Path) -> None:
    """One step with a shared batch, one with shared parameter sets, and a batch of all lengths."""
    params, stack, x = arguments()
    everywhere, shared = shardings()
    of_batch = jax.device_put(params, everywhere), own_parts(x, shared)
    of_sets = own_parts(stack, shared), jax.device_put(x, everywhere)
    assert communication(update.lower(*of_batch).compile()).keys() == {"all-reduce"}
    assert communication(update_sets.lower(*of_sets).compile()) == {}
    of_lengths = gradient_of_layers(*of_batch, own_parts(LENGTHS, shared))
    keep(folder, (update(*of_batch), update_sets(*of_sets), of_lengths), everywhere)


def readme(folder: Path) -> None:
    """The README's own code for one device, many devices and many hosts."""
    names = run_readme()
    keep(folder, kept_of_readme(names), names["everywhere"])


def run_readme() -> dict[str, Any]:
    """The names that the README's block on hosts leaves."""
    (block,) = [block for block in BLOCKS if "jax.distributed.initialize()" in block]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    return names


def kept_of_readme(names: dict[str, Any]) -> Any:
    return [names[name] for name in ("params", "value", "ensemble", "values")]


def train(folder: Path) -> None:
    """Steps with a shared batch, for longer than a process that lost another may."""
    params, _, x = arguments()
    everywhere, shared = shardings()
    params, x = jax.device_put(params, everywhere), own_parts(x, shared)
    end = time.monotonic() + 100
    while time.monotonic() < end:
        params, _ = jax.block_until_ready(update(params, x))
        (folder / f"{jax.process_index()}.trains").touch()


def keep(folder: Path, tree: Any, everywhere: Any) -> None:
    """Every number, gathered from all processes, in a file of this one's."""
    gathered = jax.jit(lambda leaves: leaves, out_shardings=everywhere)(jax.tree.leaves(tree))
    np.savez(folder / f"{jax.process_index()}.npz", *map(np.asarray, gathered))


def main(program: str, folder: str, coordinator: str, n_processes: str, process_id: str) -> None:
    jax.distributed.initialize(
        coordinator,
        int(n_processes),
        int(process_id),
        coordinator_bind_address=coordinator,
        initialization_timeout=60,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    assert jax.process_count() == int(n_processes)
    assert jax.device_count() == int(n_processes) * jax.local_device_count()
    {"step": step, "readme": readme, "train": train}[program](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
