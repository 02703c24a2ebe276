"""The errors of float32 against the float64 oracle: `python -m bench.errors`, under two minutes."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cells import SIZES, Cell, network
from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle

SERIES = {
    "steps": tuple(Cell(SIZES, 2, 10**power, 4, 8) for power in (0, 2, 4, 5)),
    "nodes": tuple(Cell(SIZES, 2, 20, 4, 4**power) for power in (0, 2, 4, 5)),
}
EPSILON = float(np.finfo(np.float32).eps)


def main() -> int:
    """Print a table."""
    print("In units of float32's epsilon, of the largest entry of each array.\n")
    print("| batch, steps, features, nodes | last state | gradient | by wx | wh | b | x | h0 |")
    print("|" + " --- |" * 8, flush=True)
    for cell in (cell for cells in SERIES.values() for cell in cells):
        last, *gradients = errors(cell)
        units = " | ".join(f"{each:.1f}" for each in (last, max(gradients), *gradients))
        print(f"| {cell} | {units} |", flush=True)
    return 0


def errors(cell: Cell) -> list[float]:
    """The error of the last state, and of a gradient by each argument.

    The gradient is that of a weighted sum of all states.
    """
    (params, x), draw = network(cell), np.random.default_rng(0).standard_normal
    # Biases of one would saturate the states, which makes the network contract far more than its
    # weights do.
    params = params._replace(b=jnp.zeros(cell.n_nodes))
    h0 = draw((cell.batch, cell.n_nodes)).astype(np.float32)
    # All states have a weight, as the gradient of the last state alone soon vanishes.
    weights = draw((cell.batch, cell.n_steps, cell.n_nodes)).astype(np.float32)

    def weighted(params: RNNParams[Any], x: Any, h0: Any) -> jax.Array:
        return jnp.sum(weights * rnn_states(params, x, h0).h)

    gradients = jax.jit(jax.grad(weighted, argnums=(0, 1, 2)))(params, x, h0)
    wanted = oracle.rnn_gradients(params, x, h0, g_h=weights)
    got = rnn_forward(params, x, h0), gradients
    expected = oracle.rnn_forward(params, x, h0), (wanted.params, wanted.x, wanted.h0)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return [error(*pair) for pair in pairs]


def error(got: Any, expected: Any) -> float:
    """The largest difference, in units of float32's epsilon at the largest expected entry."""
    differences = np.abs(np.asarray(got, np.float64) - expected)
    return float(np.max(differences) / np.max(np.abs(expected)) / EPSILON)


if __name__ == "__main__":
    sys.exit(main())
