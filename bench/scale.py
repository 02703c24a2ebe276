"""How a training step scales: `python -m bench.scale`, which needs Linux and two cores.

It runs the same step on one device of one core, one device of two cores, two devices, and two
processes of one core each. The processes stand for hosts: JAX connects them as it connects hosts,
here by loopback.
"""

import argparse
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bench.cells import DEVICES, SIZES, Cell, network
from bench.compare import assert_agreement
from bench.timing import Rounds, ratio, time_calls
from jaxrnn import rnn_forward


class Setting(NamedTuple):
    """Where a step runs.

    Attributes:
      cores: the cores of each process.
      n_devices: how many devices each process has.
    """

    cores: tuple[tuple[int, ...], ...]
    n_devices: int = 1


SETTINGS = {
    "one device, one core": Setting(((0,),)),
    "one device, two cores": Setting(((0, 1),)),
    "two devices": Setting(((0, 1),), n_devices=2),
    "two processes": Setting(((0,), (1,))),
}
BATCH, SETS = "a shared batch", "shared parameter sets"
CELLS = {BATCH: Cell(SIZES, 64, 200, 64, 256), SETS: Cell(DEVICES, 64, 100, 64, 256, n_sets=8)}
PRODUCT, MEAN = "one large product, its rows shared", "the mean of the gradient alone"


@jax.jit
def update(params: Any, x: Any) -> Any:
    """One step of training."""
    gradient = jax.grad(lambda params: jnp.mean(rnn_forward(params, x) ** 2))(params)
    return jax.tree.map(lambda param, g: param - 0.1 * g, params, gradient)


def programs(networks: Any) -> dict[str, Callable[[], Any]]:
    """The two steps, a product that bounds their speed, and all that the first step has to send."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    everywhere, shared = NamedSharding(mesh, P()), NamedSharding(mesh, P("devices"))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=P("devices"), out_specs=P())
    def mean(gradients: Any) -> Any:
        return jax.tree.map(lambda g: jax.lax.pmean(g[0], "devices"), gradients)

    def call(program: Any, own: Any, own_sharding: Any, other: Any, other_sharding: Any) -> Any:
        return partial(
            program, jax.device_put(own, own_sharding), jax.device_put(other, other_sharding)
        )

    (params, x), (sets, x_of_sets) = networks[BATCH], networks[SETS]
    gradients = jax.tree.map(lambda g: np.stack([g] * jax.device_count()), params)
    factor = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    update_sets = jax.jit(jax.vmap(update, in_axes=(0, None)))
    return {
        BATCH: call(update, params, everywhere, x, shared),
        SETS: call(update_sets, sets, shared, x_of_sets, everywhere),
        PRODUCT: call(jax.jit(jnp.matmul), factor, shared, factor, everywhere),
        MEAN: partial(mean, jax.device_put(gradients, shared)),
    }


def serve(
    orders: Connection, networks: Any, setting: Setting, process_id: int, coordinator: str
) -> None:
    """Send the results of all programs, then run each program that is ordered, until the end."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {available[core] for core in setting.cores[process_id]})
    jax.config.update("jax_num_cpu_devices", setting.n_devices)
    if len(setting.cores) > 1:
        jax.distributed.initialize(
            coordinator,
            len(setting.cores),
            process_id,
            coordinator_bind_address=coordinator,
        )
    runs = programs(networks)
    everywhere = NamedSharding(jax.make_mesh((jax.device_count(),), ("devices",)), P())
    gather = jax.jit(lambda leaves: leaves, out_shardings=everywhere)
    for run in runs.values():
        orders.send([np.asarray(leaf) for leaf in gather(jax.tree.leaves(run()))])
    while name := orders.recv():
        jax.block_until_ready(runs[name]())
        orders.send(None)


@contextmanager
def served(cells: dict[str, Cell]) -> Iterator[dict[str, list[Connection]]]:
    """Start the processes of every setting, and give a connection to each of them."""
    networks = {name: jax.tree.map(np.asarray, network(cell)) for name, cell in cells.items()}
    spawning = multiprocessing.get_context("spawn")
    connections: dict[str, list[Connection]] = {name: [] for name in SETTINGS}
    processes = []
    try:
        for name, setting in SETTINGS.items():
            coordinator = free_address()
            for process_id in range(len(setting.cores)):
                near, far = spawning.Pipe()
                given = far, networks, setting, process_id, coordinator
                process = spawning.Process(target=serve, args=given)
                process.start()
                far.close()  # so that the end of the process is the end of the connection
                processes.append(process)
                connections[name].append(near)
        yield connections
        for each in connections.values():
            send(each, None)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()


def free_address() -> str:
    """An address on loopback with a port that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def send(connections: list[Connection], order: str | None) -> None:
    """Send an order to all processes of a setting."""
    for connection in connections:
        connection.send(order)


def run(connections: list[Connection], name: str) -> None:
    """Run a program in all processes of a setting, and wait until the last is done."""
    send(connections, name)
    for connection in connections:
        connection.recv()


def row(name: str, rounds: Rounds) -> str:
    """One row of a table in Markdown."""
    first, *others = rounds
    times = [ratio(rounds, other, first) for other in others]
    ratios = [f"{each.median:.2f} [{each.lower:.2f}, {each.upper:.2f}]" for each in times]
    return f"| {' | '.join([name, f'{1e3 * median(rounds[first]):.2f}', *ratios])} |"


def main(arguments: list[str] | None = None) -> int:
    """Check that all settings give the same results, time them, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="check agreement, hardly time")
    options = parser.parse_args(arguments)
    seconds, min_rounds, cells = 6.0, 7, CELLS
    if options.quick:
        few_steps = {name: cell._replace(n_steps=10) for name, cell in CELLS.items()}
        seconds, min_rounds, cells = 0.0, 2, few_steps
    first, *others = SETTINGS
    with served(cells) as connections:
        for name in (BATCH, SETS, PRODUCT, MEAN):
            reference = connections[first][0].recv()
            for setting in others:
                for connection in connections[setting]:
                    assert_agreement(f"{name}, {setting}", connection.recv(), reference)
        print("times as long as the first [quartiles]\n")
        print(f"| | {first}, ms | {' | '.join(others)} |\n|{' --- |' * (len(SETTINGS) + 1)}")
        for name in (BATCH, SETS, PRODUCT, MEAN):
            calls = {setting: partial(run, each, name) for setting, each in connections.items()}
            rounds = time_calls(calls, seconds=seconds, min_rounds=min_rounds)
            title = f"{name}, {cells[name]}" if name in cells else name
            print(row(title, rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
