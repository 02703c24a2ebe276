"""The tables of bench/README.md: `python -m bench.tables bench/results/newest.jsonl`."""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
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
from bench.kinds import COMPILING, DIRECT, FORWARD, GRADIENT, KINDS, STATES
from bench.peers import PEERS, PLAIN, SCANS

Row = dict[str, Any]
Results = Sequence[Row]
# The measurements of one comparison by peer, and the comparisons of one part by cell and kind.
Group = dict[str, Row]
Part = dict[tuple[str, str], Group]


CAPTIONS = {
    SIZES: "One parameter set. Bytes are divided by those of the scan by hand with the fewest.",
    "peers": "The other programs in these cells: **times as long as jaxrnn**, mean and least.",
    SETS: "Many parameter sets, first in the cell's name, beside the best scan under `jax.vmap`.",
    LENGTHS: "Lengths: times as long as jaxrnn without them, and temporary kilobytes.",
    CHECKPOINTS: "Checkpoints: times as long as jaxrnn without them, and temporary kilobytes.",
    MODES: "Every way to call and to differentiate.",
    CALLS: "Calls drawn at random: how many times as fast as the plain scan, and the ten slowest.",
}


def tables(results: Results, beside: str | None = None) -> str:
    """The tables in Markdown, of those parts that there are results of.

    Args:
      results: a record of the machine, and one of each measurement.
      beside: a peer that is to stand beside the best scan in the table of sizes; then there is no
        other table.
    """
    parts = parts_of(results)
    blocks = [described(row["machine"]) for row in results if "machine" in row]
    if parts.keys() & {SIZES, LEAK, CURRENTS, COMPILE}:
        blocks += [CAPTIONS[SIZES], of_sizes(parts, beside)]
    if beside is not None:
        return "\n\n".join(blocks)
    if SIZES in parts:
        blocks += [CAPTIONS["peers"], of_peers(parts[SIZES])]
    if parts.keys() & {SETS, DEVICES}:
        blocks += [CAPTIONS[SETS], of_sets(parts)]
    for part in (LENGTHS, CHECKPOINTS):
        if part in parts:
            blocks += [CAPTIONS[part], of_option(part, parts[part])]
    if MODES in parts:
        blocks += [CAPTIONS[MODES], of_modes(parts[MODES])]
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


def of_sizes(parts: dict[str, Part], beside: str | None) -> str:
    """One parameter set: jaxrnn's time, how many times as fast as the best scan, and bytes.

    Then the same with a leak, and of currents with a leak, whose gradient also stands beside the
    plain scan's; and how many times as fast as the plain scan's a gradient compiles.
    """
    kinds, with_bytes = (FORWARD, GRADIENT, STATES), (GRADIENT, STATES)
    sizes, leak, currents, compiled = (
        parts.get(part, {}) for part in (SIZES, LEAK, CURRENTS, COMPILE)
    )
    rows = []
    for cell in cells(sizes | leak | currents | compiled):
        row: dict[str, Any] = {}
        for kind in kinds:
            group = sizes.get((cell, kind), {})
            row[f"{short(kind)}, us"] = microseconds(group.get("jaxrnn"))
            row[f"{short(kind)}: best scan"] = speed(group, "jaxrnn")
            if beside is not None:
                row[f"{short(kind)}: {beside}"] = (
                    group[beside]["ratio"][0] if beside in group else None
                )
        for kind in with_bytes:
            row[f"bytes, {short(kind)}"] = fewer_bytes(sizes.get((cell, kind), {}), "jaxrnn")
        for kind in kinds:
            row[f"leak, {short(kind)}"] = speed(leak.get((cell, kind), {}), "jaxrnn")
        for kind in with_bytes:
            row[f"bytes, leak, {short(kind)}"] = fewer_bytes(leak.get((cell, kind), {}), "jaxrnn")
        for kind in (FORWARD, GRADIENT):
            row[f"currents, {kind}"] = speed(currents.get((cell, kind), {}), "jaxrnn")
        of_currents = currents.get((cell, GRADIENT), {})
        row["currents, gradient: plain scan"] = beside_plain(of_currents)
        row["bytes, currents, gradient"] = fewer_bytes(of_currents, "jaxrnn")
        row["compile: plain scan"] = beside_plain(compiled.get((cell, COMPILING), {}))
        row["compile, currents: plain scan"] = beside_plain(currents.get((cell, COMPILING), {}))
        rows.append((cell, row))
    return table("cell", [*rows, *means(rows)])


def of_peers(part: Part) -> str:
    """How many times as long as jaxrnn each peer takes: geometric mean and least over the cells."""
    rows = []
    for kind in (FORWARD, GRADIENT, STATES):
        groups = [group for (_, of_group), group in part.items() if of_group == kind]
        row: dict[str, Any] = {}
        for name in [name for name in PEERS if name != "jaxrnn"]:
            ratios = [group[name]["ratio"][0] for group in groups if name in group]
            row[name] = f"{mean(ratios):.2f}, {min(ratios):.2f}" if ratios else None
        rows.append((short(kind), row))
    return table("", rows)


def of_sets(parts: dict[str, Part]) -> str:
    """How many times as fast as the best scan under `vmap` the three ways are, and their bytes."""
    sets, devices = parts.get(SETS, {}), parts.get(DEVICES, {})
    rows = []
    for cell in cells(sets | devices):
        of_set, on_devices = sets.get((cell, GRADIENT), {}), devices.get((cell, GRADIENT), {})
        ways = {
            "vmap": (of_set, "jaxrnn"),
            "in chunks": (of_set, "jaxrnn in chunks"),
            "on devices": (on_devices, "jaxrnn on devices"),
        }
        row: dict[str, Any] = {"gradient, us": microseconds(of_set.get("jaxrnn"))}
        row |= {way: speed(*each) for way, each in ways.items()}
        row |= {f"bytes, {way}": fewer_bytes(*each) for way, each in ways.items()}
        rows.append((cell, row))
    return table("sets, cell", [*rows, *means(rows)])


def of_option(title: str, part: Part) -> str:
    """With lengths or checkpoints: times as long as jaxrnn without, and kilobytes."""
    rows = []
    for (cell, kind), group in part.items():
        row: dict[str, Any] = {"jaxrnn, us": microseconds(group.get("jaxrnn"))}
        row |= {name: group[name]["ratio"][0] for name in group if name != "jaxrnn"}
        row |= {f"kB: {name}": kilobytes(group[name]) for name in group}
        rows.append((f"{kind}, {cell}", row))
    return table(title, rows)


def of_modes(part: Part) -> str:
    """How many times as fast as the best scan each kind of call is in each cell."""
    rows = []
    for kind in KINDS[MODES]:
        row = {cell: speed(part.get((cell, kind), {}), "jaxrnn") for cell in cells(part)}
        if known := [each for each in row.values() if each is not None]:
            rows.append((kind, {**row, "mean": mean(known), "least": min(known)}))
    blocks = [table("", rows)]
    for (cell, kind), group in part.items():
        if kind == DIRECT and "jaxrnn" in group and PLAIN in group:
            ours, scan = (1e6 * group[name]["seconds"] for name in ("jaxrnn", PLAIN))
            blocks.append(
                f"A direct call in ({cell}) took {ours:.1f} us, the plain scan's {scan:.1f} us."
            )
            break
    return "\n\n".join(blocks)


def of_calls(part: Part) -> str:
    """How the speeds beside the plain scan are spread, and the calls that are slowest beside it."""
    rows = sorted((group["jaxrnn"] for group in part.values()), key=lambda row: row["speed"][0])
    speeds = [row["speed"][0] for row in rows]
    shares = {"least": 0, "1 in 20": 0.05, "a quarter": 0.25, "half": 0.5, "three quarters": 0.75}
    spread: Row = {head: float(np.quantile(speeds, share)) for head, share in shares.items()}
    spread["geometric mean"] = mean(speeds)
    for bound in (0.8, 0.9):
        share = sum(speed < bound for speed in speeds) / len(speeds)
        spread[f"share below {bound}"] = f"{100 * share:.0f}%"
    slowest: list[tuple[str, Row]] = [
        (f"{row['speed'][0]:.2f}", {"`--only calls`": f"`{row['cell']}`", "call": row["call"]})
        for row in rows[:10]
    ]
    return table("calls", [(str(len(rows)), spread)]) + "\n\n" + table("speed", slowest)


def cells(part: Part) -> list[str]:
    """The cells of a part."""
    return list(dict.fromkeys(cell for cell, _ in part))


def speed(group: Group, name: str) -> float | None:
    """How many times as fast as the best scan a program is."""
    return group[name]["speed"][0] if "speed" in group.get(name, {}) else None


def beside_plain(group: Group) -> float | None:
    """How many times as fast as the plain scan jaxrnn is."""
    return group[PLAIN]["ratio"][0] if PLAIN in group else None


def fewer_bytes(group: Group, name: str) -> float | None:
    """A program's bytes divided by those of the scan by hand that has the fewest."""
    of_scans = [group[scan]["bytes"] for scan in SCANS if scan in group]
    return group[name]["bytes"] / min(of_scans) if of_scans and name in group else None


def microseconds(row: Row | None) -> str | None:
    """The time in microseconds."""
    return None if row is None else f"{1e6 * row['seconds']:,.0f}"


def kilobytes(row: Row | None) -> str | None:
    """The bytes in thousands."""
    return None if row is None or "bytes" not in row else f"{row['bytes'] / 1000:,.0f}"


def mean(values: Iterable[float]) -> float:
    """The geometric mean."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def means(rows: list[tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Of each column of numbers the geometric mean, and the least, or of bytes the most."""
    heads = rows[0][1]
    columns = {
        head: [row[head] for _, row in rows if isinstance(row[head], float)] for head in heads
    }
    columns = {head: column for head, column in columns.items() if column}
    worst = {
        head: (max if head.startswith("bytes") else min)(column) for head, column in columns.items()
    }
    means = {head: mean(column) for head, column in columns.items()}
    return [("geometric mean", means), ("least; of bytes the most", worst)]


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


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one thing, the last counts")
    parser.add_argument(
        "--beside", choices=PEERS, help="this peer too in the table of sizes, and no other"
    )
    options = parser.parse_args(arguments)
    print(tables([row for path in options.results for row in read(path)], options.beside))
    return 0


if __name__ == "__main__":
    sys.exit(main())
