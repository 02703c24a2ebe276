"""Compare jaxrnn with its peers: `python -m bench`."""

import argparse
import inspect
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from bench import calls
from bench.cells import CALLS, DEVICES, IMPORT, PARTS, cells
from bench.compare import Row, compare, compare_imports, compare_on_devices, configure
from bench.kinds import KINDS
from bench.peers import PEERS, why_left_out
from bench.tables import tables

ALL_KINDS = dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds)
LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "keras", "torch", "onnxruntime")


def main(arguments: list[str] | None = None) -> int:
    """Run the comparisons, print each, and then their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog="Each choice may be repeated."
    )
    parser.add_argument(
        "--quick", action="store_true", help="check results in small cells, hardly time"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="this part")
    parser.add_argument(
        "--cell",
        action="append",
        type=without_spaces,
        help="this cell: '32, 100, 8, 32', or its number in each part, from 0",
    )
    parser.add_argument(
        "--kind", action="append", choices=ALL_KINDS, metavar="KIND", help="such as 'forward'"
    )
    parser.add_argument(
        "--peer", action="append", choices=PEERS, metavar="PEER", help="beside jaxrnn"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the calls that are drawn at random")
    parser.add_argument("--calls", type=int, default=200, help="how many are drawn, 6 if quick")
    parser.add_argument("--out", type=Path, help="a file for the results, one JSON object a line")
    options = parser.parse_args(arguments)
    configure()

    names = chosen_peers(options.peer)
    record: dict[str, Any] = {"machine": machine()}
    print(json.dumps(record["machine"]))
    print("median time; times as long as jaxrnn; times as fast as the best scan by hand")
    print("[quartiles]; XLA's temporary bytes. In lengths and checkpoints, jaxrnn is without them.")
    results, path = [record], options.out or Path(os.devnull)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        print(one_line(record), file=file)
        for part in options.only or PARTS:
            for row in compare_part(part, names, options):
                results.append(rounded(row))
                print(one_line(results[-1]), file=file, flush=True)
    if len(results) == 1:
        parser.error("no part that was chosen has such a cell and kind")
    print("\n" + tables(results))
    return 0


def one_line(record: Row) -> str:
    """A record as it stands in the file of results."""
    return json.dumps(record, separators=(",", ":"))


def compare_part(part: str, names: list[str], options: argparse.Namespace) -> Iterator[Row]:
    """All chosen comparisons of one part."""
    if part == IMPORT and not (options.cell or options.kind):
        yield from compare_imports(quick=options.quick)
    if part == DEVICES and jax.default_backend() != "cpu":
        print("left out: devices, as it is for CPUs")
        return
    if part == CALLS:
        yield from compare_calls(options)
    compare_cell = compare_on_devices if part == DEVICES else compare
    small = options.quick and options.cell is None
    for number, cell in enumerate(cells(part, quick=small)):
        if options.cell is None or {str(number), without_spaces(str(cell))} & {*options.cell}:
            kinds = options.kind or ALL_KINDS
            yield from compare_cell(cell, names, kinds, quick=options.quick)


def compare_calls(options: argparse.Namespace) -> Iterator[Row]:
    """The calls that are drawn at random, or those of the chosen numbers."""
    of_all = map(str, range(6 if options.quick else options.calls))
    numbers = [int(cell) for cell in options.cell or of_all if cell.isdecimal()]
    if numbers:
        print(f"\n{inspect.getdoc(calls)}")
    for call in (calls.draw(options.seed, number) for number in numbers):
        if call.kind in (options.kind or ALL_KINDS):
            yield from calls.compare_call(call, quick=options.quick)


def without_spaces(sizes: str) -> str:
    """Sizes as they are compared with each other."""
    return sizes.replace(" ", "")


def chosen_peers(chosen: list[str] | None) -> list[str]:
    """All programs of jaxrnn, and the other peers that were chosen and can run."""
    names = []
    for name in PEERS:
        if chosen is None or name.startswith("jaxrnn") or name in chosen:
            if why := why_left_out(name):
                print(f"left out: {name}, as {why}")
            else:
                names.append(name)
    return names


def rounded(row: Row) -> Row:
    """The row without what it does not have, and floats with four digits."""

    def digits(value: Any) -> Any:
        if isinstance(value, tuple):
            return [digits(each) for each in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {key: digits(value) for key, value in row.items() if value is not None}


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
