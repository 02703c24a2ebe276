"""The sizes that the comparisons use, and parameters and inputs of these sizes."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.nn.initializers import normal, orthogonal
from numpy.typing import NDArray

from jaxrnn import RNNParams, init_params


class Cell(NamedTuple):
    """The sizes of one comparison.

    Attributes:
      batch: sequences.
      n_steps: steps of each.
      n_features: inputs of a step.
      n_nodes: hidden nodes.
      n_sets: how many parameter sets run on the same sequences; None for one set without an axis.
      option: LENGTHS or CHECKPOINTS, which is compared with the same call without it; LEAK, which
        all programs of the cell have; or None.
    """

    batch: int
    n_steps: int
    n_features: int
    n_nodes: int
    n_sets: int | None = None
    option: str | None = None

    def __str__(self) -> str:
        """The sizes, parameter sets first, and the option."""
        sets = [] if self.n_sets is None else [self.n_sets]
        sizes = ", ".join(str(size) for size in (*sets, *self[:4]))
        return sizes if self.option is None else f"{sizes}, {self.option}"


LENGTHS = "lengths"
CHECKPOINTS = "checkpoints"
LEAK = "leak"

ONE_SET = (
    Cell(1, 3, 2, 4),
    Cell(1, 100, 8, 32),
    Cell(8, 50, 3, 16),
    Cell(4, 300, 5, 24),
    Cell(32, 100, 8, 32),
    Cell(32, 100, 64, 128),
    Cell(1, 1000, 16, 64),
    Cell(64, 200, 64, 256),
    Cell(128, 50, 256, 512),
    Cell(16, 2000, 8, 64),
)
GRID = (
    *ONE_SET,
    Cell(1, 100, 8, 32, n_sets=16),
    Cell(32, 100, 8, 32, n_sets=64),
    Cell(8, 50, 4, 16, n_sets=256),
    Cell(32, 100, 64, 128, n_sets=32),
    Cell(64, 100, 64, 256, n_sets=8),
    Cell(32, 100, 8, 32, option=LENGTHS),
    Cell(32, 100, 64, 128, option=LENGTHS),
    Cell(64, 200, 64, 256, option=LENGTHS),
    Cell(8, 20_000, 8, 64, option=CHECKPOINTS),
    *(cell._replace(option=LEAK) for cell in ONE_SET[1:]),
)

# For a quick check: sizes at which jaxrnn runs differently, and one cell of each other kind.
QUICK = (
    Cell(1, 3, 2, 4),  # steps written out without a loop
    Cell(8, 50, 3, 16),  # products written as sums
    Cell(8, 20, 64, 128),  # products of a library
    Cell(8, 50, 4, 16, n_sets=4),
    Cell(8, 50, 3, 16, option=LENGTHS),
    Cell(8, 500, 3, 16, option=CHECKPOINTS),
    Cell(8, 50, 3, 16, option=LEAK),
)

# In each series one size grows, and the others stay.
GROWTH = {
    "steps": tuple(Cell(8, size, 8, 64) for size in (100, 1000, 10_000, 100_000)),
    "nodes": tuple(Cell(32, 100, 16, size) for size in (8, 32, 128, 512, 1024)),
    "batch": tuple(Cell(size, 100, 16, 64) for size in (1, 8, 64, 512)),
    "parameter sets": tuple(Cell(8, 50, 8, 32, n_sets=size) for size in (1, 4, 16, 64, 256)),
}


def network(cell: Cell) -> tuple[RNNParams[Any], jax.Array]:
    """Parameters whose gradients neither explode nor vanish, and inputs of unit variance."""
    params_key, x_key = jax.random.split(jax.random.key(0))

    def init(key: jax.Array) -> RNNParams[Any]:
        sizes = cell.n_features, cell.n_nodes
        return init_params(key, *sizes, wx_init=normal(0.1), wh_init=orthogonal(0.9))

    if cell.n_sets is None:
        params = init(params_key)
    else:
        params = jax.vmap(init)(jax.random.split(params_key, cell.n_sets))
    return params, jax.random.normal(x_key, (cell.batch, cell.n_steps, cell.n_features))


def sequence_lengths(cell: Cell) -> NDArray[np.int32]:
    """The number of steps of each sequence, from one to all; the first sequence has all."""
    lengths = np.random.default_rng(0).integers(1, cell.n_steps, cell.batch, endpoint=True)
    lengths[0] = cell.n_steps
    return lengths.astype(np.int32)


def node_leaks(cell: Cell) -> NDArray[np.float32]:
    """A leak of each node, from fast to slow."""
    return np.linspace(1.0, 0.1, cell.n_nodes, dtype=np.float32)


def n_operations(cell: Cell, kind: str) -> int:
    """Additions and multiplications in the matrix products of a forward pass or of a gradient."""
    batch, n_steps, n_features, n_nodes, n_sets, _ = cell
    rows = (n_sets or 1) * batch * n_steps
    forward = n_features + n_nodes
    return 2 * rows * n_nodes * (forward if kind == "forward" else 2 * forward + n_nodes)
