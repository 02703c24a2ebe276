"""Compare jaxrnn with its peers: `python -m bench`."""

import argparse
import sys

import jax
import numpy as np

from bench.peers import PEERS, Cell, expected, network
from bench.timing import time_calls

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


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="check agreement, hardly time")
    options = parser.parse_args(arguments)
    seconds, min_rounds = (0.1, 2) if options.quick else (5.0, 9)

    print("median time, and times as long as jaxrnn [quartiles]")
    for cell in CELLS:
        params, x = network(cell)
        peers = {name: make(params, x) for name, make in PEERS.items()}
        for kind, reference in zip(("forward", "gradient"), expected(params, x), strict=True):
            calls = {name: getattr(peer, kind) for name, peer in peers.items()}
            calls = {name: call for name, call in calls.items() if call is not None}
            for call in calls.values():
                _assert_agreement(call(), reference)
            timings = time_calls(calls, seconds=seconds, min_rounds=min_rounds)
            print(f"\n{kind}, batch, steps, features, nodes = {tuple(cell)}")
            for name, (median, ratio, (lower, upper)) in timings.items():
                print(
                    f"  {name:12} {median * 1e6:10.1f} us {ratio:7.2f} [{lower:.2f}, {upper:.2f}]",
                    flush=True,
                )
    return 0


def _assert_agreement(result: object, reference: object) -> None:
    """Up to float32's rounding, relative to each array's largest entry."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.max(np.abs(wanted)))


if __name__ == "__main__":
    sys.exit(main())
