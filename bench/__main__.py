"""Compare jaxrnn with its peers: `python -m bench`."""

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.peers import PEERS, Cell, expected, network
from bench.timing import Timing, time_calls

CELLS = (
    Cell(1, 3, 2, 4),
    Cell(1, 100, 8, 32),
    Cell(8, 50, 3, 16),
    Cell(32, 100, 8, 32),
    Cell(32, 100, 64, 128),
    Cell(1, 1000, 16, 64),
    Cell(64, 200, 64, 256),
    Cell(128, 50, 256, 512),
    Cell(16, 2000, 8, 64),
)
LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "dm-haiku", "keras", "torch", "onnxruntime")


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="check agreement, hardly time")
    parser.add_argument("--peer", action="append", choices=PEERS, help="this one (may be repeated)")
    parser.add_argument(
        "--cell",
        action="append",
        type=int,
        choices=range(len(CELLS)),
        help="the cell of this number (may be repeated)",
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args(arguments)
    names = [name for name in PEERS if options.peer is None or name in ("jaxrnn", *options.peer)]
    rows = []
    print("median time, and times as long as jaxrnn [quartiles]")
    for cell in [CELLS[i] for i in options.cell or range(len(CELLS))]:
        rows += compare(cell, names, quick=options.quick)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0


def compare(cell: Cell, names: list[str], *, quick: bool) -> list[dict[str, Any]]:
    """Check the peers against the oracle in one cell, time and print them."""
    params, x = network(cell)
    reference = expected(params, x)
    peers = {}
    for name in names:
        try:
            peers[name] = PEERS[name](params, x)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    rows = []
    for kind in ("forward", "gradient"):
        calls = {name: getattr(peer, kind) for name, peer in peers.items()}
        calls = {name: call for name, call in calls.items() if call is not None}
        for name, call in calls.items():
            _assert_agreement(name, call(), getattr(reference, kind)())
        seconds, min_rounds = (0.0, 2) if quick else (1.5 * len(calls), 9)
        print(f"\n{kind}, batch, steps, features, nodes = {tuple(cell)}")
        for name, timing in time_calls(calls, seconds=seconds, min_rounds=min_rounds).items():
            print_row(name, timing)
            rows.append({"cell": cell._asdict(), "kind": kind, "peer": name, **timing._asdict()})
    print("\nXLA's temporary bytes for that gradient, and times as many as jaxrnn")
    own = peers["jaxrnn"].gradient_bytes
    for name, peer in peers.items():
        if peer.gradient_bytes is not None and own is not None:
            print(f"  {name:12} {peer.gradient_bytes:10} {peer.gradient_bytes / own:10.2f}")
            rows.append(
                {
                    "cell": cell._asdict(),
                    "kind": "bytes",
                    "peer": name,
                    "bytes": peer.gradient_bytes,
                }
            )
    return rows


def print_row(name: str, timing: Timing) -> None:
    """One line of the table."""
    lower, upper = timing.ratio_quartiles
    times = f"{timing.seconds * 1e6:10.1f} us {timing.ratio:7.2f} [{lower:.2f}, {upper:.2f}]"
    print(f"  {name:12} {times}", flush=True)


def machine() -> dict[str, Any]:
    """What the results depend on besides the code."""
    installed = {each.name: each.version for each in metadata.distributions()}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def _assert_agreement(name: str, result: object, reference: object) -> None:
    """Up to float32's rounding, relative to each array's largest entry."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
    for got, wanted in pairs:
        bound = 1e-4 * np.max(np.abs(wanted))
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=bound, err_msg=name)


if __name__ == "__main__":
    sys.exit(main())
