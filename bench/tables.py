"""The tables of bench/README.md: `python -m bench.tables bench/results/newest.jsonl`."""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.cells import CHECKPOINTS, COMPILE, DEVICES, IMPORT, LEAK, LENGTHS, MODES, SETS, SIZES
from bench.kinds import COMPILING, DIRECT, FORWARD, GRADIENT, KINDS, STATES
from bench.peers import PEERS, PLAIN, SCANS

Row = dict[str, Any]
Results = Sequence[Row]
# The measurements of one comparison by peer, and the comparisons of one part by cell and kind.
Group = dict[str, Row]
Part = dict[tuple[str, str], Group]


CAPTIONS = {
    SIZES: "One parameter set. Bytes are divided by those of the scan by hand that has the fewest; "
    "`compile` is the gradient's compilation beside the plain scan's.",
    "peers": "The other programs in the same cells: **times as long as jaxrnn**.",
    LEAK: "The same with a leak of each node.",
    SETS: "Many parameter sets, first in the cell's name, beside the best scan under `jax.vmap`.",
    LENGTHS: "Lengths: times as long as jaxrnn without them, and temporary kilobytes.",
    CHECKPOINTS: "Checkpoints: times as long as jaxrnn without them, and temporary kilobytes.",
    MODES: "Every way to call and to differentiate.",
}


def tables(results: Results, beside: str | None = None) -> str:
    """The tables in Markdown, of those parts that there are results of.

    Args:
      results: a record of the machine, and one of each measurement.
      beside: a peer that is to stand in the table of sizes in place of the best scan; then there is
        no other table.
    """
    parts = parts_of(results)
    blocks = [described(row["machine"]) for row in results if "machine" in row]
    compiled = parts.get(COMPILE, {})
    if beside is not None:
        return "\n\n".join([*blocks, of_sizes(SIZES, parts[SIZES], {}, beside)])
    if SIZES in parts:
        blocks += [CAPTIONS[SIZES], of_sizes(SIZES, parts[SIZES], compiled)]
        blocks += [CAPTIONS["peers"], of_peers(parts[SIZES])]
    if LEAK in parts:
        blocks += [CAPTIONS[LEAK], of_sizes(LEAK, parts[LEAK], {})]
    if SETS in parts or DEVICES in parts:
        blocks += [CAPTIONS[SETS], of_sets(parts.get(SETS, {}), parts.get(DEVICES, {}))]
    for part in (LENGTHS, CHECKPOINTS):
        if part in parts:
            blocks += [CAPTIONS[part], of_option(part, parts[part])]
    if MODES in parts:
        blocks += [CAPTIONS[MODES], of_modes(parts[MODES])]
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


def of_sizes(title: str, part: Part, compiled: Part, beside: str | None = None) -> str:
    """In each cell, jaxrnn's time and how many times as fast as the scan (or peer) it is."""
    kinds, with_bytes = (FORWARD, GRADIENT, STATES), (GRADIENT, STATES)
    heads = [each for kind in kinds for each in (f"{short(kind)}, us", beside or "best scan")]
    heads += [f"bytes, {short(kind)}" for kind in with_bytes] if beside is None else []
    heads += ["compile"] if compiled else []
    rows = []
    for cell in cells(part):
        groups = {kind: part.get((cell, kind), {}) for kind in kinds}
        row: list[Any] = []
        for group in groups.values():
            row += [microseconds(group.get("jaxrnn")), speed(group, "jaxrnn", beside)]
        if beside is None:
            row += [fewer_bytes(groups[kind], "jaxrnn") for kind in with_bytes]
        if compiled:
            row.append(speed(compiled.get((cell, COMPILING), {}), "jaxrnn"))
        rows.append((cell, row))
    return table([title, *heads], [*rows, *means(heads, rows)])


def of_peers(part: Part) -> str:
    """How many times as long as jaxrnn each peer takes: geometric mean and least over the cells."""
    kinds, rows = (FORWARD, GRADIENT, STATES), []
    for name in PEERS:
        own: list[Any] = []
        for kind in kinds:
            ratios = [
                group[name]["ratio"][0]
                for (_, of_kind), group in part.items()
                if of_kind == kind and name in group
            ]
            own.append(f"{mean(ratios):.2f}, {min(ratios):.2f}" if ratios else None)
        if name != "jaxrnn" and any(own):
            rows.append((name, own))
    return table(["times as long as jaxrnn: mean, least", *map(short, kinds)], rows)


def of_sets(sets: Part, devices: Part) -> str:
    """How many times as fast as the best scan under `vmap` the three ways are, and their bytes."""
    ways = [(sets, "jaxrnn"), (sets, "jaxrnn in chunks"), (devices, "jaxrnn on devices")]
    heads = ["vmap", "in chunks", "on devices"]
    rows = []
    for cell in cells(sets | devices):
        groups = [(part.get((cell, GRADIENT), {}), name) for part, name in ways]
        row: list[Any] = [microseconds(groups[0][0].get("jaxrnn"))]
        row += [speed(*each) for each in groups] + [fewer_bytes(*each) for each in groups]
        rows.append((cell, row))
    heads = ["gradient, us", *heads, *(f"bytes, {head}" for head in heads)]
    return table(["sets, then sizes", *heads], [*rows, *means(heads, rows)])


def of_option(part_name: str, part: Part) -> str:
    """With lengths or checkpoints: times as long as jaxrnn without, and kilobytes."""
    names = [name for name in PEERS if any(name in group for group in part.values())]
    others, with_bytes = names[1:], [name for name in names if name != "torch"]
    rows = []
    for (cell, kind), group in part.items():
        row: list[Any] = [microseconds(group.get("jaxrnn"))]
        row += [group[name]["ratio"][0] if name in group else None for name in others]
        row += [kilobytes(group.get(name)) for name in with_bytes]
        rows.append((f"{kind}, {cell}", row))
    heads = ["jaxrnn, us", *others, *(f"kB: {name}" for name in with_bytes)]
    return table([part_name, *heads], rows)


def of_modes(part: Part) -> str:
    """How many times as fast as the best scan each kind of call is in each cell."""
    rows = []
    for kind in KINDS[MODES]:
        speeds = [speed(part.get((cell, kind), {}), "jaxrnn") for cell in cells(part)]
        known = [each for each in speeds if each is not None]
        if known:
            rows.append((kind, [*speeds, mean(known), min(known)]))
    lines = [table(["modes", *cells(part), "mean", "least"], rows)]
    for (cell, kind), group in part.items():
        if kind == DIRECT and "jaxrnn" in group and PLAIN in group:
            ours, scan = (1e6 * group[name]["seconds"] for name in ("jaxrnn", PLAIN))
            lines.append(f"A direct call in ({cell}) took {ours:.1f} us, the scan's {scan:.1f} us.")
            break
    return "\n\n".join(lines)


def cells(part: Part) -> list[str]:
    """The cells of a part."""
    return list(dict.fromkeys(cell for cell, _ in part))


def speed(group: Group, name: str, beside: str | None = None) -> float | None:
    """How many times as fast as the best scan, or jaxrnn as another peer, a program is."""
    if beside is not None:
        return group[beside]["ratio"][0] if beside in group else None
    return group[name]["speed"][0] if "speed" in group.get(name, {}) else None


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


def means(heads: list[str], rows: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """Of each column of numbers the geometric mean, and the least, or of bytes the most."""
    columns = [
        [each for each in column if isinstance(each, float)]
        for column in zip(*(row for _, row in rows), strict=True)
    ]
    worst = [max if head.startswith("bytes") else min for head in heads]
    return [
        ("geometric mean", [mean(column) if column else None for column in columns]),
        (
            "least; of bytes the most",
            [f(column) if column else None for f, column in zip(worst, columns, strict=True)],
        ),
    ]


def table(heads: list[str], rows: list[tuple[str, list[Any]]]) -> str:
    """A table in Markdown; numbers have two decimals."""

    def shown(value: Any) -> str:
        return f"{value:.2f}" if isinstance(value, float) else value or ""

    lines = [heads, ["---"] * len(heads)]
    lines += [[label, *map(shown, row)] for label, row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(kind: str) -> str:
    """A kind of call as it stands at the head of a column."""
    return "through all states" if kind == STATES else kind


def read(path: Path) -> list[Row]:
    """The results in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one thing, the last counts")
    parser.add_argument("--beside", choices=PEERS, help="this peer in place of the best scan")
    options = parser.parse_args(arguments)
    print(tables([row for path in options.results for row in read(path)], options.beside))
    return 0


if __name__ == "__main__":
    sys.exit(main())
