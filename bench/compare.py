"""The comparisons: in each cell of the grid, of compilation and calls, and of how cost grows."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cells import GROWTH, LENGTHS, Cell, n_operations, network
from bench.peers import FORWARD, GRADIENT, PEERS, Peer, expected, made
from bench.timing import Timing, time_calls
from jaxrnn import rnn_forward

Row = dict[str, Any]
GROWING = ("jaxrnn", "plain scan", "torch", "ONNX Runtime")


def compare(cell: Cell, names: list[str], *, quick: bool) -> list[Row]:
    """Time all that the peers offer in one cell; first check each result against the oracle."""
    params, x = network(cell)
    offers = made(names, cell)
    peers = {name: PEERS[name].make(cell, params, x) for name in offers}
    references = {
        with_lengths: expected(cell, params, x, with_lengths=with_lengths)
        for with_lengths in {False, cell.option == LENGTHS}
    }
    rows = []
    for kind in dict.fromkeys(kind for kinds in offers.values() for kind in kinds):
        calls = {name: peers[name].calls[kind] for name in offers if kind in offers[name]}
        for name, call in calls.items():
            result = call()
            if cell.n_sets is not None:
                result = jax.tree.map(lambda array: array[-1], result)
            with_lengths = cell.option == LENGTHS and name != "jaxrnn"
            assert_agreement(name, result, references[with_lengths][kind])
        seconds, min_rounds = (0.0, 2) if quick else (1.2 * len(calls), 9)
        print(f"\n{kind}, {cell}", flush=True)
        timings = time_calls(calls, seconds=seconds, min_rounds=min_rounds)
        rows += [_row(cell, kind, name, timing) for name, timing in timings.items()]
        for row in rows[-len(timings) :]:
            row["bytes"] = temporary_bytes(row["peer"], cell, peers[row["peer"]], kind)
            _print(row)
    return rows


def compare_starts(cell: Cell, *, quick: bool) -> list[Row]:
    """The time to compile a gradient, beside the plain scan's.

    In a new process, with JAX's default devices: for several CPU devices, as this process has, a
    gradient is a longer program.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        timings = process.submit(time_starts, cell, quick=quick).result()
    rows = [_row(cell, "compile the gradient", *item) for item in timings.items()]
    print(f"\ncompile the gradient, {cell}")
    for row in rows:
        _print(row)
    return rows


def time_starts(cell: Cell, *, quick: bool) -> dict[str, Timing]:
    """Compile a gradient from empty caches, jaxrnn's and the plain scan's in turns."""
    params, x = network(cell)
    programs = {
        name: PEERS[name].make(cell, params, x).programs[GRADIENT]
        for name in ("jaxrnn", "plain scan")
    }

    def compile_anew(program: Any) -> None:
        jax.clear_caches()
        program.lower(params, x).compile()

    calls = {name: partial(compile_anew, program) for name, program in programs.items()}
    return time_calls(calls, seconds=0.0, min_rounds=2 if quick else 21)


def compare_calls(cell: Cell, *, quick: bool) -> list[Row]:
    """The time of a call of `rnn_forward` outside `jax.jit`, beside a jitted plain scan's."""
    params, x = network(cell)
    plain = PEERS["plain scan"].make(cell, params, x).programs[FORWARD]
    calls: dict[str, Callable[[], object]] = {
        "jaxrnn": lambda: rnn_forward(params, x).block_until_ready(),
        "plain scan": lambda: plain(params, x).block_until_ready(),
    }
    timings = time_calls(calls, seconds=0.0 if quick else 5.0, min_rounds=2)
    rows = [_row(cell, "plain call", *item) for item in timings.items()]
    print(f"\nplain call, {cell}")
    for row in rows:
        _print(row)
    return rows


def compare_imports(*, quick: bool) -> list[Row]:
    """The time that `import jaxrnn` adds to `import jax`, measured in new processes."""
    code = "import time, jax; t = time.perf_counter(); import jaxrnn; print(time.perf_counter()-t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(1 if quick else 7)
    ]
    median = float(np.median(seconds))
    print(f"\nimport jaxrnn adds {1e3 * median:.1f} ms to import jax")
    return [{"kind": "import", "peer": "jaxrnn", "seconds": median}]


def compare_growth(names: list[str], *, quick: bool) -> list[Row]:
    """How cost grows, beside the time that the matrix products alone would take."""
    speed = products_per_second(quick=quick)
    print(f"\nmatrix products alone: {speed / 1e9:.0f} GFLOP/s", flush=True)
    rows: list[Row] = []
    for series, cells in GROWTH.items():
        for cell in cells[:1] if quick else cells:
            params, x = network(cell)
            peers = {
                name: PEERS[name].make(cell, params, x) for name in grown(names, cell, FORWARD)
            }
            for kind in (FORWARD, GRADIENT):
                calls = {name: peers[name].calls[kind] for name in grown(names, cell, kind)}
                reference = calls["jaxrnn"]()
                for name, call in calls.items():
                    assert_agreement(name, call(), reference)
                timings = time_calls(calls, seconds=0.0 if quick else 1.0, min_rounds=3)
                print(f"\n{kind}, growing {series}, {cell}", flush=True)
                for name, timing in timings.items():
                    row = _row(cell, kind, name, timing)
                    row["series"] = series
                    row["bytes"] = temporary_bytes(name, cell, peers[name], kind)
                    row["limit"] = n_operations(cell, kind) / speed
                    rows.append(row)
                    _print(row)
    return rows


def grown(names: list[str], cell: Cell, kind: str) -> list[str]:
    """The peers among these whose growth is shown; torch's long gradients take minutes each."""
    return [
        name
        for name, kinds in made(names, cell).items()
        if name in GROWING
        and (kind in kinds or cell.n_sets is not None)
        and not (name == "torch" and kind == GRADIENT and cell.n_steps > 10_000)
    ]


def products_per_second(*, quick: bool) -> float:
    """Operations a second in one large product, by JAX or torch, whichever is faster."""
    size = 256 if quick else 2048
    a = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(jnp.matmul)
    calls: dict[str, Callable[[], object]] = {"jax": lambda: multiply(a, a).block_until_ready()}
    try:
        import torch
    except ImportError:
        pass
    else:
        in_torch = torch.from_numpy(np.array(a))
        calls["torch"] = lambda: in_torch @ in_torch
    timings = time_calls(calls, seconds=0.0 if quick else 3.0, min_rounds=3)
    return float(2 * size**3 / min(timing.seconds for timing in timings.values()))


def temporary_bytes(name: str, cell: Cell, peer: Peer, kind: str) -> int | None:
    """The bytes that XLA allocates besides arguments and results; None where not reported.

    In cells without an option only jaxrnn's and the plain scan's are reported.
    """
    shown = cell.option is not None or name == "plain scan" or name.startswith("jaxrnn")
    if not shown or kind not in peer.programs:
        return None
    compiled = peer.programs[kind].lower(*peer.arguments).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def assert_agreement(name: str, result: object, reference: object) -> None:
    """Check that arrays agree to 1e-4 of the largest entry of each, as float32 should."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
    for got, wanted in pairs:
        got = got if isinstance(got, jax.Array | np.ndarray) else got.cpu()  # one of torch's
        bound = 1e-4 * np.max(np.abs(wanted))
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=bound, err_msg=name)


def _row(cell: Cell, kind: str, name: str, timing: Timing) -> Row:
    return {"cell": cell._asdict(), "kind": kind, "peer": name, **timing._asdict()}


def _print(row: Row) -> None:
    lower, upper = row["ratio_quartiles"]
    times = f"{row['seconds'] * 1e6:12.1f} us {row['ratio']:7.2f} [{lower:.2f}, {upper:.2f}]"
    n_bytes = "" if row.get("bytes") is None else f"{row['bytes']:14,} bytes"
    print(f"  {row['peer']:23} {times} {n_bytes}", flush=True)
