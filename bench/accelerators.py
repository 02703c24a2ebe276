"""What jaxrnn costs on TPUs and GPUs that are not here: `python -m bench.accelerators tpu`.

    pip install -e '.[tpu-estimates]'    # or .[gpu-estimates], each in an environment of its own

XLA compiles for a device from its description alone, and the compiled text says what it does: each
operation for a TPU carries XLA's estimate of its cycles, and for a GPU each is a kernel that is
launched. Loops count by their trips. The figures are the same in every run, on any machine.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from bench.cells import (
    CURRENTS,
    LEAK,
    MANY_SETS,
    ONE_SET,
    QUICK_SIZES,
    SETS,
    SIZES,
    Cell,
    network,
)
from bench.kinds import FORWARD, GRADIENT, KINDS, STATES
from bench.peers import Peer, jaxrnn, scan_by_hand
from bench.tables import Row, means, short, table

TPU, GPU = "tpu", "gpu"
DEVICES = {TPU: ("v5e", "v6e"), GPU: ("H100",)}
PACKAGES = {TPU: ("libtpu",), GPU: ("jax_cuda12_plugin", "jax_plugins", "nvidia")}
PARTS = {SIZES: "no leak", LEAK: "leak", CURRENTS: "currents", SETS: "sets, vmap"}
KINDS_OF_PARTS = {**dict.fromkeys(PARTS, (FORWARD, GRADIENT, STATES)), SETS: (GRADIENT,)}
MINE = "jaxrnn"
SCANS: dict[str, Callable[..., Peer]] = {
    f"{'inputs first' if first else 'plain'}, unroll={unroll}": partial(
        scan_by_hand, inputs_first=first, unroll=unroll
    )
    for first in (False, True)
    for unroll in (1, 4, 8)
}
PEERS = {MINE: jaxrnn, **SCANS}
# What a GPU launches, of all that stands in a compiled program.
LAUNCHED = (
    "fusion|custom-call|copy|dynamic-slice|dynamic-update-slice|dot|reduce|transpose|concatenate|"
    "convert|broadcast"
)
H100 = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024 thread_dim_limit_z: 64 device_address_bits: 64
  name: "NVIDIA H100 80GB HBM3"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0" }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def devices(name: str) -> list[Any]:
    """The devices of a description: a GPU, or the four TPUs of a host."""
    jax.config.update("jax_platforms", "cpu")  # libtpu makes JAX look for a TPU
    if name in DEVICES[GPU]:
        shape = {"topology_name": "1x1x1", "topology": "1x1x1"}
        return topologies.get_topology_desc(platform="cuda", **shape, target_config=H100).devices
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
    return topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:2x2").devices


def compiled_for(kind: str, function: Any, arguments: Any) -> Any:
    """A function compiled for the TPU or GPU that its arguments, all abstract, are said to be on.

    While it is traced, jaxrnn is told that this is JAX's backend.
    """
    jax.clear_caches()  # another backend may have been planned for
    with patch("jax.default_backend", return_value=kind):
        lowered = jax.jit(function).lower(*arguments)
    # There is no GPU to time kernels on.
    return lowered.compile({"xla_gpu_autotune_level": "0"} if kind == GPU else None)


def on(sharding: Any, arrays: Any) -> Any:
    """Arrays without their values, on a device."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), arrays
    )


def cost(kind: str, text: str) -> int:
    """A compiled program's cycles by XLA's estimate, or the kernels that it launches."""
    split = re.findall(r"^(ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    bodies = {name: body for _, name, body in split}

    def of_line(line: str) -> int:
        if loop := re.search(r" while\(.*condition=%?([\w.-]+).*body=%?([\w.-]+)", line):
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            trips = [known[1]] if known else re.findall(r"constant\((\d+)\)", bodies[loop[1]])
            return int(trips[-1]) * of(loop[2])
        if called := re.search(r" call\(.*to_apply=%?([\w.-]+)", line):
            return of(called[1])
        if kind == GPU:
            return int(bool(re.search(rf"= .*? ({LAUNCHED})\(", line)))
        return sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', line)))

    def of(name: str) -> int:
        return sum(map(of_line, bodies[name].splitlines()))

    return of(next(name for entry, name, _ in split if entry))


def compare(device: str, cell: Cell) -> Iterator[Row]:
    """What jaxrnn and each scan by hand cost in a cell, for every kind of call."""
    kind = GPU if device in DEVICES[GPU] else TPU
    sharding = SingleDeviceSharding(devices(device)[0])
    with patch.dict(KINDS, KINDS_OF_PARTS):
        peers = {name: make(cell, *network(cell)) for name, make in PEERS.items()}
    for of, (name, peer) in product(KINDS_OF_PARTS[cell.part], peers.items()):
        program: Any = peer[of]
        compiled = compiled_for(kind, program.function, on(sharding, program.arguments))
        text = compiled.as_text()
        yield {
            "device": device,
            "part": cell.part,
            "cell": str(cell),
            "steps": cell.n_steps,
            "kind": of,
            "peer": name,
            "cost": cost(kind, text),
            "loops": text.count(" while("),
            "bytes": compiled.memory_analysis().temp_size_in_bytes,
        }


def tables(rows: list[Row]) -> str:
    """For each device and part a table of its cells, and one of the means of all."""
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        cells = groups.setdefault(f"{row['device']}, {PARTS[row['part']]}", {})
        kinds = cells.setdefault(row["cell"], {})
        kinds.setdefault(row["kind"], {})[row["peer"]] = row
    filled = {
        title: [(cell, columns(kinds)) for cell, kinds in cells.items()]
        for title, cells in groups.items()
    }
    of_all = [(title, means(of_cells)[0]) for title, of_cells in filled.items()]
    blocks = [table(title, [*of_cells, *means(of_cells)]) for title, of_cells in filled.items()]
    last = table("mean, least (of bytes the most)", [(title, row) for title, (_, row) in of_all])
    return "\n\n".join([*blocks, last])


def columns(kinds: dict[str, dict[str, Row]]) -> Row:
    """How many times the cost of jaxrnn the best scan by hand has; and more of the gradient."""
    found: Row = {}
    for kind, peers in kinds.items():
        mine, best = peers[MINE], min((peers[name] for name in SCANS), key=itemgetter("cost"))
        found[short(kind)] = best["cost"] / mine["cost"]
        if kind == GRADIENT:
            found["a step, gradient"] = f"{mine['cost'] / mine['steps']:,.1f}"
            found["loops"] = str(mine["loops"])
            both = mine["bytes"], best["bytes"]  # either may need none
            found["bytes, gradient"] = both[0] / both[1] if all(both) else None
    return found


def main(arguments: list[str] | None = None) -> int:
    """Compile for the chosen kind of device, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.accelerators", description=__doc__)
    parser.add_argument("kind", choices=DEVICES, help="what to compile for")
    parser.add_argument("--quick", action="store_true", help="two small cells")
    parser.add_argument("--out", type=Path, help="a file to add each cost to, a JSON in a line")
    options = parser.parse_args(arguments)
    if absent := [name for name in PACKAGES[options.kind] if find_spec(name) is None]:
        print(f"no {', '.join(absent)}: pip install -e '.[{options.kind}-estimates]'")
        return 1
    rows = []
    for device, part in product(DEVICES[options.kind], PARTS):
        sizes = MANY_SETS if part == SETS else ONE_SET
        for each in QUICK_SIZES[part] if options.quick else sizes:
            print(f"{device}, {PARTS[part]}: {each}", file=sys.stderr, flush=True)
            for row in compare(device, Cell(part, *each)):
                rows.append(row)
                if options.out is not None:
                    with options.out.open("a") as file:
                        print(json.dumps(row), file=file)
    print(tables(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
