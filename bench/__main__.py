"""Compare jaxrnn with its peers: `python -m bench`."""

import argparse
import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from bench.cells import GRID, GROWTH, QUICK, Cell
from bench.compare import (
    Row,
    compare,
    compare_calls,
    compare_growth,
    compare_imports,
    compare_starts,
    grown,
)
from bench.peers import FORWARD, GRADIENT, PEERS, made, missing

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "dm-haiku", "keras", "torch", "onnxruntime")


def main(arguments: list[str] | None = None) -> int:
    """Run the comparisons, print their tables, and keep those of a whole run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check agreement, in a small cell of each kind, hardly time",
    )
    parser.add_argument("--peer", action="append", choices=PEERS, help="this one (may be repeated)")
    parser.add_argument(
        "--cell",
        action="append",
        type=int,
        choices=range(len(GRID)),
        help="the cell of this number, and no other comparison (may be repeated)",
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args(arguments)
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    # On GPUs the default drops bits of float32, and results would agree to 1e-2 only.
    jax.config.update("jax_default_matmul_precision", "highest")

    names = chosen_peers(options.peer)
    print("median time, times as long as jaxrnn [quartiles], XLA's temporary bytes")
    print("In cells of lengths and checkpoints, jaxrnn is the same without that option.")
    cells = [GRID[i] for i in options.cell or range(len(GRID))]
    if options.quick and options.cell is None:
        cells = list(QUICK)
    rows: list[Row] = []
    for cell in cells:
        rows += compare(cell, names, quick=options.quick)
    assert_complete(rows, cells, names)
    print_means(rows)
    if options.cell is None:
        rows += compare_the_rest(names, quick=options.quick)
    kept = json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n"
    if options.json is not None:
        options.json.write_text(kept)
    if options.cell is None and options.peer is None and not options.quick:
        from bench.plots import plot

        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "results.json").write_text(kept)
        plot(rows, machine(), RESULTS)
    return 0


def chosen_peers(chosen: list[str] | None) -> list[str]:
    """All programs of jaxrnn, and the other peers that were chosen and are installed."""
    names = []
    for name in PEERS:
        if chosen is None or name.startswith("jaxrnn") or name in chosen:
            if absent := missing(name):
                print(f"left out: {name}, as {' and '.join(absent)} is not installed")
            else:
                names.append(name)
    return names


def compare_the_rest(names: list[str], *, quick: bool) -> list[Row]:
    """Compilation, calls and imports, and how cost grows with each size."""
    rows: list[Row] = []
    plain = [cell for cell in GRID if cell.n_sets is None and cell.option is None]
    for cell in plain[: 1 if quick else None]:
        rows += compare_starts(cell, quick=quick)
    rows += compare_calls(GRID[0], quick=quick)
    rows += compare_imports(quick=quick)
    growth = compare_growth(names, quick=quick)
    assert_growth_is_complete(growth, names, quick=quick)
    return rows + growth


def assert_complete(rows: list[Row], cells: list[Cell], names: list[str]) -> None:
    """Check that every installed peer was timed in every cell, in every kind that it offers."""
    timed = {(Cell(**row["cell"]), row["peer"], row["kind"]) for row in rows if row["seconds"] > 0}
    due = {
        (cell, name, kind)
        for cell in cells
        for name, kinds in made(names, cell).items()
        for kind in kinds
    }
    assert timed == due, f"not timed: {due - timed}; not due: {timed - due}"


def assert_growth_is_complete(rows: list[Row], names: list[str], *, quick: bool) -> None:
    """Check that every series has every size, for every peer whose growth is shown."""
    timed = {(row["series"], Cell(**row["cell"]), row["kind"], row["peer"]) for row in rows}
    due = {
        (series, cell, kind, name)
        for series, cells in GROWTH.items()
        for cell in cells[: 1 if quick else None]
        for kind in (FORWARD, GRADIENT)
        for name in grown(names, cell, kind)
    }
    assert timed == due, f"not timed: {due - timed}; not due: {timed - due}"


def print_means(rows: list[Row]) -> None:
    """Print each peer's time divided by jaxrnn's: the geometric mean and least over the cells."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["kind"] + _comparison(row), row["peer"]), []).append(row["ratio"])
    heading = None
    for (kind, name), ratios in groups.items():
        if kind != heading:
            print(f"\n{kind}: times as long as jaxrnn, geometric mean and least over the cells")
            heading = kind
        mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
        print(f"  {name:23} {mean:7.2f} {min(ratios):7.2f}")


def _comparison(row: Row) -> str:
    if row["cell"]["n_sets"] is not None:
        return ", parameter sets"
    return f", {row['cell']['option']}" if row["cell"]["option"] else ""


def machine() -> dict[str, Any]:
    """The processor and the versions, on which the results depend too."""
    # Of a library that is on the path twice, the first is the one that is imported.
    installed = {each.name: each.version for each in reversed([*metadata.distributions()])}
    return {
        "processor": processor(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def processor() -> str:
    """The processor's name, if the system gives it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
