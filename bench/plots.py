"""Plots of the results, in the folder where the results are kept."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "jaxrnn"  # so that the same results give the same file
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["font.size"] = 8

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

from bench.cells import GROWTH, Cell  # noqa: E402
from bench.peers import FORWARD, GRADIENT, PEERS, STATES  # noqa: E402

Row = dict[str, Any]
COLOURS = dict(zip(PEERS, matplotlib.colormaps["tab20"](range(20)), strict=False))
ONE_PROGRAM = ("plain scan", "Flax linen", "Flax nnx", "Haiku", "Keras")
OF_ONE_PROGRAM: dict[str, Any] = {
    "color": COLOURS["plain scan"],
    "label": "plain scan, Flax, Haiku, Keras: from least to most",
    "linewidth": 5,
    "solid_capstyle": "round",
}
SIZES = {"steps": "n_steps", "nodes": "n_nodes", "batch": "batch", "parameter sets": "n_sets"}


def plot(rows: list[Row], machine: dict[str, Any], folder: Path) -> None:
    """Write `speed.svg` and `growth.svg`."""
    for name, figure in (("speed", _speed(rows)), ("growth", _growth(rows))):
        of_jax, of_python = machine["libraries"]["jax"], machine["python"]
        figure.suptitle(f"jax {of_jax}, Python {of_python}, {machine['cores']} CPU cores, float32")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def _speed(rows: list[Row]) -> Any:
    """In each cell of the grid, the time of each peer divided by jaxrnn's.

    JAX compiles some peers to about the same program. They share one line, from the least of their
    times to the most.
    """
    panels = [(FORWARD, False), (GRADIENT, False), (STATES, False), (GRADIENT, True)]
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.6), layout="constrained")
    for axis, (kind, of_sets) in zip(axes, panels, strict=True):
        chosen = [
            row
            for row in rows
            if row["kind"] == kind
            and "series" not in row
            and row["cell"]["option"] is None
            and (row["cell"]["n_sets"] is not None) == of_sets
        ]
        cells = list(dict.fromkeys(str(Cell(**row["cell"])) for row in chosen))
        for name in dict.fromkeys(row["peer"] for row in chosen if row["peer"] not in ONE_PROGRAM):
            own = [row for row in chosen if row["peer"] == name]
            places = [cells.index(str(Cell(**row["cell"]))) for row in own]
            axis.plot([row["ratio"] for row in own], places, "o", color=COLOURS[name], label=name)
        alike = [row for row in chosen if row["peer"] in ONE_PROGRAM]
        for place, cell in enumerate(cells):
            ratios = [row["ratio"] for row in alike if str(Cell(**row["cell"])) == cell]
            axis.plot([min(ratios), max(ratios)], [place] * 2, **OF_ONE_PROGRAM)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", xlabel="times as long as jaxrnn", yticks=range(len(cells)))
        axis.set(yticklabels=cells, title=f"{kind}{', parameter sets' if of_sets else ''}")
        axis.set_ylabel(f"{'sets, ' if of_sets else ''}batch, steps, features, nodes")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.invert_yaxis()
        axis.grid(alpha=0.3)
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=11)
    return figure


def _growth(rows: list[Row]) -> Any:
    """Seconds and bytes against sizes, and the time of the matrix products alone."""
    quantities = [
        (FORWARD, "seconds"),
        (GRADIENT, "seconds"),
        (FORWARD, "bytes"),
        (GRADIENT, "bytes"),
    ]
    shape = (len(quantities), len(GROWTH))
    figure, axes = plt.subplots(*shape, figsize=(13, 10), sharex="col", layout="constrained")
    for column, (series, size) in enumerate(SIZES.items()):
        for axis, (kind, quantity) in zip(axes[:, column], quantities, strict=True):
            chosen = [row for row in rows if row.get("series") == series and row["kind"] == kind]
            for name in dict.fromkeys(row["peer"] for row in chosen):
                own = [row for row in chosen if row["peer"] == name and row[quantity]]
                sizes = [row["cell"][size] for row in own]
                if own:
                    values = [row[quantity] for row in own]
                    axis.plot(sizes, values, "o-", color=COLOURS[name], label=name)
            if quantity == "seconds":
                limits = sorted({(row["cell"][size], row["limit"]) for row in chosen})
                axis.plot(*zip(*limits, strict=True), "k--", label="matrix products alone")
            axis.set(xscale="log", yscale="log", ylabel=f"{kind}: {quantity}")
            axis.grid(alpha=0.3)
        axes[-1, column].set(xlabel=series)
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
    return figure
