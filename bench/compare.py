"""One comparison: in a cell, the time of each kind of call, jaxrnn's and its peers'."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
import numpy as np

from bench.cells import IMPORT, LENGTHS, MODES, Cell, network
from bench.kinds import COMPILING, kinds
from bench.peers import PEERS, PLAIN, SCANS, Program, expected, scan_by_hand
from bench.timing import Rounds, ratio, time_calls

# One measurement: what was timed, its seconds, how many times as long as jaxrnn's it took, how many
# times as fast as the best scan by hand it was, and the bytes that XLA allocates beside arguments
# and results.
Row = dict[str, Any]


def configure(n_devices: int | None = None) -> None:
    """Let JAX compute with all bits of float32, and on that many CPU devices in place of one."""
    # On GPUs the default drops bits of float32, and results would agree to 1e-2 only.
    jax.config.update("jax_default_matmul_precision", "highest")
    if n_devices is not None:
        jax.config.update("jax_num_cpu_devices", n_devices)


def compare_on_devices(
    cell: Cell, names: list[str], chosen: Collection[str], *, quick: bool
) -> list[Row]:
    """`compare` in a new process, which has one CPU device for each core.

    More than one device can change every program of a process, so no other part has them.
    """
    processes = ProcessPoolExecutor(
        1, get_context("spawn"), initializer=configure, initargs=(os.cpu_count(),)
    )
    with processes:
        return processes.submit(compare, cell, names, chosen, quick=quick).result()


def compare(cell: Cell, names: list[str], chosen: Collection[str], *, quick: bool) -> list[Row]:
    """Time the chosen kinds of call in one cell; first check each result.

    Args:
      cell: the sizes.
      names: the peers.
      chosen: the kinds of call; those that the cell does not have are left out.
      quick: whether hardly to time.
    """
    params, x = network(cell)
    peers = {
        name: PEERS[name].make(cell, params, x) for name in names if cell.part in PEERS[name].parts
    }
    rows = []
    for kind in (kind for kind in kinds(cell) if kind in chosen):
        calls = {name: peer[kind] for name, peer in peers.items() if kind in peer}
        print(f"\n{kind}, {cell.part}: {cell}", flush=True)
        if kind == COMPILING:
            calls = {name: partial(compile_anew, call) for name, call in calls.items()}
            seconds, min_rounds = 0.0, 5
        else:
            check(cell, kind, calls, params, x)
            seconds, min_rounds = 0.4 * len(calls), 7
        if quick:
            seconds, min_rounds = 0.0, 2
        rounds = time_calls(calls, seconds=seconds, min_rounds=min_rounds)
        for row in rows_of(rounds):
            row = {"part": cell.part, "cell": str(cell), "kind": kind, **row}
            row["bytes"] = temporary_bytes(cell, kind, peers[row["peer"]][kind])
            print_row(row)
            rows.append(row)
    return rows


def check(
    cell: Cell, kind: str, calls: dict[str, Callable[[], Any]], params: Any, x: jax.Array
) -> None:
    """Check that all calls return what the oracle does; in modes, what the plain scan does.

    With many parameter sets, the last set is compared.
    """
    of_oracle = partial(expected, cell, kind, params, x)
    if cell.part == MODES:
        wanted = calls[PLAIN]() if PLAIN in calls else scan_by_hand(cell, params, x)[kind]()
    else:
        wanted = of_oracle(with_lengths=False)
    wanted_with_lengths = of_oracle(with_lengths=True) if cell.part == LENGTHS else wanted
    for name, call in calls.items():
        result = call()
        if cell.n_sets is not None:
            result = jax.tree.map(lambda array: array[-1], result)
        assert_agreement(name, result, wanted if name == "jaxrnn" else wanted_with_lengths)


def assert_agreement(
    name: str, result: object, reference: object, *, tolerance: float = 1e-4
) -> None:
    """Check that arrays agree to 1e-4 of the largest entry of each, as float32 should."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
    for got, wanted in pairs:
        got = got if isinstance(got, jax.Array | np.ndarray) else got.cpu()  # one of torch's
        bound = tolerance * np.max(np.abs(wanted))
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=bound, err_msg=name)


def compile_anew(call: Any) -> None:
    """Compile a program from empty caches."""
    jax.clear_caches()
    call.compile()


def rows_of(rounds: Rounds) -> list[Row]:
    """The measurements of each peer.

    The best scan by hand is that of the least median time. What is given is the median of the
    ratios to this one scan, as the least of several noisy times would flatter the scans.
    """
    medians = {name: statistics.median(seconds) for name, seconds in rounds.items()}
    scans = [name for name in rounds if name in SCANS]
    best = min(scans, key=lambda name: medians[name]) if scans else None
    return [
        {
            "peer": name,
            "seconds": seconds,
            "ratio": ratio(rounds, name, "jaxrnn"),
            "best": best,
            "speed": None if best is None else ratio(rounds, best, name),
        }
        for name, seconds in medians.items()
    ]


def temporary_bytes(cell: Cell, kind: str, call: Callable[[], Any]) -> int | None:
    """The bytes that XLA allocates besides arguments and results; None where not reported."""
    if cell.part == MODES or kind == COMPILING or not isinstance(call, Program):
        return None
    return int(call.compile().memory_analysis().temp_size_in_bytes)


def compare_imports(*, quick: bool) -> list[Row]:
    """The time that `import jaxrnn` adds to `import jax`, measured in new processes."""
    code = "import time, jax; t = time.perf_counter(); import jaxrnn; print(time.perf_counter()-t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(1 if quick else 7)
    ]
    median = statistics.median(seconds)
    print(f"\nimport jaxrnn adds {1e3 * median:.1f} ms to import jax")
    return [{"part": IMPORT, "cell": "", "kind": "import", "peer": "jaxrnn", "seconds": median}]


def print_row(row: Row) -> None:
    """Print a measurement."""
    line = f"  {row['peer']:28} {row['seconds'] * 1e6:12.1f} us"
    for key in ("ratio", "speed"):
        if row[key] is not None:
            median, lower, upper = row[key]
            line += f"  {median:6.2f} [{lower:.2f}, {upper:.2f}]"
    if row.get("bytes") is not None:
        line += f" {row['bytes']:14,} bytes"
    print(line, flush=True)
