"""The plot of the README: `python -m bench.plots bench/results/newest.jsonl`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "jaxrnn"  # so that the same results give the same file
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["font.family"] = "sans-serif"
matplotlib.rcParams["font.size"] = 9

import matplotlib.pyplot as plt  # noqa: E402

from bench.cells import LEAK, SIZES, Cell, cells  # noqa: E402
from bench.kinds import GRADIENT  # noqa: E402
from bench.tables import Results, fewer_bytes, parts_of, read, speed  # noqa: E402

SPEED = Path(__file__).parent / "results" / "speed.svg"
# Of each part its name in the plot, its colour, and where its bar stands beside the cell's place.
BARS = {SIZES: ("gradient", "#1f6feb", -0.2), LEAK: ("gradient with a leak", "#d9822b", 0.2)}
# Both panels have a scale of ratios, on which bars start at one: level with the scan. The limits of
# the scale are these or what the bars need.
PANELS = {
    "Times as fast as the best lax.scan by hand": (speed, (0.7, 4), (0.25, 0.5, 1, 2, 4, 8, 16)),
    "Memory, times the scan's": (fewer_bytes, (0.4, 1.1), (0.25, 0.5, 1, 2)),
}


def plot(results: Results) -> Any:
    """The speed and the memory of a gradient in each cell, beside the best scan by hand."""
    parts, places = parts_of(results), [(str(cell), i) for i, cell in enumerate(cells(SIZES))]
    figure, axes = plt.subplots(
        1, 2, figsize=(8.6, 4.3), width_ratios=(1.7, 1), sharey=True, layout="constrained"
    )
    for axis, (title, (value, (least, most), ticks)) in zip(axes, PANELS.items(), strict=True):
        for part, (name, colour, shift) in BARS.items():
            groups = {
                place: parts.get(part, {}).get((cell, GRADIENT), {}) for cell, place in places
            }
            values = {place + shift: value(group, "jaxrnn") for place, group in groups.items()}
            bars = {place: each for place, each in values.items() if each is not None}
            widths = [each - 1 for each in bars.values()]
            axis.barh([*bars], widths, 0.36, left=1, color=colour, label=name)
            for place, each in bars.items():
                least, most = min(least, each / 1.3), max(most, each * 1.3)
                side, gap = ("left", 3) if each >= 1 else ("right", -3)
                at = {"xytext": (gap, 0), "textcoords": "offset points", "ha": side, "va": "center"}
                axis.annotate(f"{each:.2f}", (each, place), **at, fontsize=7)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", xlim=(least, most))
        axis.set_title(title, loc="left", fontsize=10)
        shown = [tick for tick in ticks if least <= tick <= most]
        axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axis.set_xticks([], minor=True)
        axis.tick_params(length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(places)), [label(cell) for cell in cells(SIZES)])
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower right", frameon=False)
    machine = next(row["machine"] for row in results if "machine" in row)
    machine_text = f"{machine['cores']} CPU cores, float32, jax {machine['libraries']['jax']}"
    figure.supxlabel(
        f"Right of 1, jaxrnn is faster or takes more memory. {machine_text}.", fontsize=7
    )
    return figure


def label(cell: Cell) -> str:
    """The sizes of a cell, in words."""
    return f"batch {cell.batch}, {cell.n_steps} steps, {cell.n_nodes} nodes"


def main(arguments: list[str] | None = None) -> int:
    """Write the plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of one thing, the last counts")
    parser.add_argument("--out", type=Path, default=SPEED)
    options = parser.parse_args(arguments)
    figure = plot([row for path in options.results for row in read(path)])
    figure.savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
