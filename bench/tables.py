"""The tables of bench/README.md: `python -m bench.tables bench/results/newest.jsonl`."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.cells import (
    CALLS,
    CHECKPOINTS,
    COMPILE,
    CURRENTS,
    DEVICES,
    IMPORT,
    LEAK,
    LENGTHS,
    MODES,
    SETS,
    SIZES,
)
from bench.kinds import COMPILING, FORWARD, GRADIENT, KINDS, STATES
from bench.peers import PEERS, PLAIN, SCANS

Row = dict[str, Any]
Results = Sequence[Row]
# The measurements of one comparison by peer, and the comparisons of one part by cell and kind.
Group = dict[str, Row]
Part = dict[tuple[str, str], Group]
# The columns of a table: of each its part, its kind of call, and what it shows.
Columns = dict[str, tuple[str, str, Callable[[Group], Any]]]

PAGE = Path(__file__).parent / "README.md"
MARKS = "<!-- bench.tables -->", "<!-- end of bench.tables -->"
LEVEL = 0.95  # what is less is listed as slower
SLOWEST = 5  # so many of the calls that are drawn are listed

CAPTIONS = {
    "peers": "The other programs in these cells: **times as long as jaxrnn**, mean and least.",
    SETS: "Many parameter sets, first in the cell's name, beside the best scan under `jax.vmap`.",
    "options": "Lengths, checkpoints: times as long as jaxrnn without, and temporary kilobytes.",
    MODES: "Every way to call and to differentiate.",
    CALLS: "Calls drawn at random, beside the plain scan: what each share reaches; the slowest.",
    "slower": f"All that is slower than the best scan, below {LEVEL}:",
}


def tables(results: Results, beside: str | None = None) -> str:
    """The tables in Markdown, of those parts that there are results of.

    Args:
      results: a record of the machine, and one of each measurement.
      beside: a peer that has a table of its own, by cell.
    """
    parts = parts_of(results)
    blocks = [described(row["machine"]) for row in results if "machine" in row]
    blocks += of_one_set(parts)
    if SIZES in parts:
        blocks += [CAPTIONS["peers"], of_peers(parts[SIZES])]
        if beside is not None:
            blocks += [f"{beside}: times as long as jaxrnn.", of_peer(parts[SIZES], beside)]
    if parts.keys() & {SETS, DEVICES}:
        blocks += [CAPTIONS[SETS], of_sets(parts)]
    if parts.keys() & {LENGTHS, CHECKPOINTS}:
        blocks += [CAPTIONS["options"], of_options(parts)]
    if MODES in parts:
        blocks += [CAPTIONS[MODES], of_modes(parts[MODES])]
    if slower := of_slower(parts):
        blocks += [CAPTIONS["slower"], slower]
    if CALLS in parts:
        blocks += [CAPTIONS[CALLS], of_calls(parts[CALLS])]
    if IMPORT in parts:
        seconds = parts[IMPORT]["", "import"]["jaxrnn"]["seconds"]
        blocks.append(f"`import jaxrnn` adds {1e3 * seconds:.0f} ms to `import jax`.")
    return "\n\n".join(blocks)


def parts_of(results: Results) -> dict[str, Part]:
    """The measurements by part; of one thing, the last counts."""
    parts: dict[str, Part] = {}
    for row in results:
        if "machine" not in row:
            group = parts.setdefault(row["part"], {}).setdefault((row["cell"], row["kind"]), {})
            group[row["peer"]] = row
    return parts


def described(machine: Row) -> str:
    """The machine and the versions, in a line."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
    place = f"{device}{machine['processor']}, {machine['cores']} cores"
    return f"{place}; Python {machine['python']}; {libraries}."


def of_one_set(parts: dict[str, Part]) -> list[str]:
    """One parameter set: tables of speeds, bytes and compilation, and of leaks and currents."""
    alone: Columns = {
        "gradient, us": (SIZES, GRADIENT, microseconds),
        "forward": (SIZES, FORWARD, speed),
        "gradient": (SIZES, GRADIENT, speed),
        "all states": (SIZES, STATES, speed),
        "bytes, gradient": (SIZES, GRADIENT, fewer_bytes),
        "compile": (COMPILE, COMPILING, beside_plain),
    }
    with_leak: Columns = {
        "leak, forward": (LEAK, FORWARD, speed),
        "leak, gradient": (LEAK, GRADIENT, speed),
        "bytes, leak": (LEAK, GRADIENT, fewer_bytes),
        "currents, forward": (CURRENTS, FORWARD, speed),
        "currents, gradient": (CURRENTS, GRADIENT, speed),
        "compile, currents": (CURRENTS, COMPILING, beside_plain),
    }
    captions = {
        "One parameter set. Bytes are divided by those of the scan by hand with the fewest; to "
        "compile is\nbeside the plain scan.": alone,
        "The same with a leak of each node; and currents with that leak.": with_leak,
    }
    of_cells = [parts.get(part, {}) for part in (SIZES, LEAK, CURRENTS, COMPILE)]
    blocks = []
    for caption, columns in captions.items():
        rows: list[tuple[str, Row]] = []
        for cell in dict.fromkeys(cell for part in of_cells for cell in cells(part)):
            row = {
                head: value(parts.get(part, {}).get((cell, kind), {}))
                for head, (part, kind, value) in columns.items()
            }
            if any(row.values()):
                rows.append((cell, row))
        if rows:
            blocks += [caption, table("cell", [*rows, *means(rows)])]
    return blocks


def of_peers(part: Part) -> str:
    """How many times as long as jaxrnn each peer takes: geometric mean and least over the cells."""
    rows = []
    for name in [name for name in PEERS if name != "jaxrnn"]:
        row: dict[str, Any] = {}
        for kind in KINDS[SIZES]:
            groups = [group for (_, of_group), group in part.items() if of_group == kind]
            ratios = [group[name]["ratio"][0] for group in groups if name in group]
            row[short(kind)] = f"{mean(ratios):.2f}, {min(ratios):.2f}" if ratios else None
        if any(row.values()):
            rows.append((name, row))
    return table("", rows)


def of_peer(part: Part, name: str) -> str:
    """How many times as long as jaxrnn one peer takes in each cell."""
    rows: dict[str, Row] = {cell: {} for cell in cells(part)}
    for (cell, kind), group in part.items():
        rows[cell][short(kind)] = group[name]["ratio"][0] if name in group else None
    return table("cell", [*rows.items()])


def of_sets(parts: dict[str, Part]) -> str:
    """How many times as fast as the best scan under `vmap` the three ways are, and their bytes."""
    sets, devices = parts.get(SETS, {}), parts.get(DEVICES, {})
    rows = []
    for cell in cells(sets | devices):
        of_set, on_devices = sets.get((cell, GRADIENT), {}), devices.get((cell, GRADIENT), {})
        row: dict[str, Any] = {
            "gradient, us": microseconds(of_set),
            "vmap": speed(of_set),
            "in chunks": speed(of_set, "jaxrnn in chunks"),
            "on devices": speed(on_devices, "jaxrnn on devices"),
            "bytes, vmap": fewer_bytes(of_set),
            "bytes, in chunks": fewer_bytes(of_set, "jaxrnn in chunks"),
        }
        rows.append((cell, row))
    return table("sets, cell", [*rows, *means(rows)])


def of_options(parts: dict[str, Part]) -> str:
    """With lengths or checkpoints: times as long as jaxrnn without, and kilobytes."""
    rows = []
    for part in (LENGTHS, CHECKPOINTS):
        for (cell, kind), group in parts.get(part, {}).items():
            row: Row = {}
            for name, each in group.items():
                # Without the option is jaxrnn; with it, a name has the option behind a comma.
                head, text = name.removesuffix(f", {part}"), f"{each['ratio'][0]:.2f}"
                if name == "jaxrnn":
                    head, text = "without", f"{microseconds(group)} us"
                row[head] = f"{text}, {each['bytes'] / 1000:,.0f} kB" if "bytes" in each else text
            rows.append((f"{part}, {kind}, {cell}", row))
    return table("", rows)


def of_modes(part: Part) -> str:
    """How many times as fast as the best scan each kind of call is in each cell."""
    rows = []
    for kind in KINDS[MODES]:
        row = {cell: speed(part.get((cell, kind), {}), "jaxrnn") for cell in cells(part)}
        if known := [each for each in row.values() if each is not None]:
            rows.append((kind, {**row, "mean": mean(known), "least": min(known)}))
    return table("", rows)


def of_slower(parts: dict[str, Part]) -> str:
    """By part, the cells in which a program of jaxrnn is slower than the best scan, with quartiles.

    Compilation is left out, as all of it is in another table.
    """
    rows: list[tuple[str, Row]] = []
    for name, part in parts.items():
        found = [
            f"{short(kind)}{peer.removeprefix('jaxrnn')} ({cell}) "
            "{:.2f} [{:.2f}, {:.2f}]".format(*row["speed"])
            for (cell, kind), group in part.items()
            for peer, row in group.items()
            if peer.startswith("jaxrnn") and kind != COMPILING
            if (speed(group, peer) or 1) < LEVEL
        ]
        if found and name != CALLS:
            rows.append((name, {"what, (cell), speed [quartiles]": "; ".join(found)}))
    return table("part", rows) if rows else ""


def of_calls(part: Part) -> str:
    """How the speeds beside the plain scan are spread, and the calls that are slowest beside it."""
    rows = sorted((group["jaxrnn"] for group in part.values()), key=lambda row: row["speed"][0])
    speeds = [row["speed"][0] for row in rows]
    shares = {"all": 0, "19 in 20": 0.05, "3 in 4": 0.25, "half": 0.5, "1 in 4": 0.75}
    spread: Row = {head: float(np.quantile(speeds, share)) for head, share in shares.items()}
    spread["geometric mean"] = mean(speeds)
    slowest: list[tuple[str, Row]] = [
        (f"{row['speed'][0]:.2f}", {"`--only calls`": f"`{row['cell']}`", "call": row["call"]})
        for row in rows[:SLOWEST]
    ]
    return table("calls", [(str(len(rows)), spread)]) + "\n\n" + table("speed", slowest)


def cells(part: Part) -> list[str]:
    """The cells of a part."""
    return list(dict.fromkeys(cell for cell, _ in part))


def speed(group: Group, name: str = "jaxrnn") -> float | None:
    """How many times as fast as the best scan a program is."""
    return group[name]["speed"][0] if "speed" in group.get(name, {}) else None


def beside_plain(group: Group) -> float | None:
    """How many times as fast as the plain scan jaxrnn is."""
    return group[PLAIN]["ratio"][0] if PLAIN in group else None


def fewer_bytes(group: Group, name: str = "jaxrnn") -> float | None:
    """A program's bytes divided by those of the scan by hand that has the fewest."""
    of_scans = [group[scan]["bytes"] for scan in SCANS if scan in group]
    return group[name]["bytes"] / min(of_scans) if of_scans and name in group else None


def microseconds(group: Group) -> str | None:
    """The time of jaxrnn in microseconds."""
    return f"{1e6 * group['jaxrnn']['seconds']:,.0f}" if "jaxrnn" in group else None


def mean(values: Iterable[float]) -> float:
    """The geometric mean."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def means(rows: list[tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Of each column of numbers the geometric mean, and the least, or of bytes the most."""
    columns = {
        head: [row[head] for _, row in rows if isinstance(row[head], float)] for head in rows[0][1]
    }
    row = {
        head: f"{mean(column):.2f}, {(max if head.startswith('bytes') else min)(column):.2f}"
        for head, column in columns.items()
        if column
    }
    return [("mean, least (of bytes the most)", row)]


def table(title: str, rows: list[tuple[str, Row]]) -> str:
    """A table in Markdown, without columns that are empty; numbers have two decimals."""
    full = {head for _, row in rows for head, value in row.items() if value is not None}
    heads = [
        head for head in dict.fromkeys(head for _, row in rows for head in row) if head in full
    ]

    def shown(value: Any) -> str:
        return f"{value:.2f}" if isinstance(value, float) else value or ""

    lines = [[title, *heads], ["---"] * (1 + len(heads))]
    lines += [[label, *(shown(row.get(head)) for head in heads)] for label, row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(kind: str) -> str:
    """A kind of call as it stands at the head of a column."""
    return "all states" if kind == STATES else kind


def read(path: Path) -> list[Row]:
    """The results in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def filled(page: str, text: str) -> str:
    """The page with this text between its marks."""
    before, _, rest = page.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one thing, the last counts")
    parser.add_argument("--beside", choices=PEERS, help="a table of this peer too, by cell")
    parser.add_argument("--write", action="store_true", help="put them into the page as well")
    options = parser.parse_args(arguments)
    text = tables([row for path in options.results for row in read(path)], options.beside)
    print(text)
    if options.write:
        PAGE.write_text(filled(PAGE.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
