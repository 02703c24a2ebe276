"""The sizes that the comparisons use, and parameters and inputs of these sizes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, orthogonal
from numpy.typing import NDArray

from jaxrnn import RNNParams, init_params

# The parts of the benchmark. All but the last two have cells.
SIZES = "sizes"
LEAK = "leak"  # as SIZES, with a leak of each node in all programs
CURRENTS = "currents"  # as LEAK, with tanh as the rate, and no activation
SETS = "sets"  # many parameter sets on the same sequences
DEVICES = "devices"  # the same on one CPU device for each core, in a process of its own
LENGTHS = "lengths"  # each sequence has its own number of steps
CHECKPOINTS = "checkpoints"
MODES = "modes"  # every way to call and to differentiate
COMPILE = "compile"
CALLS = "calls"  # drawn at random, of all sizes, options and transformations
IMPORT = "import"


class Cell(NamedTuple):
    """The sizes of one comparison.

    Attributes:
      part: the part of the benchmark that it belongs to.
      batch: sequences.
      n_steps: steps of each.
      n_features: inputs of a step.
      n_nodes: hidden nodes.
      n_sets: how many parameter sets run on the same sequences; None for one set without an axis.
    """

    part: str
    batch: int
    n_steps: int
    n_features: int
    n_nodes: int
    n_sets: int | None = None

    def __str__(self) -> str:
        """The sizes, parameter sets first."""
        sets = [] if self.n_sets is None else [self.n_sets]
        return ", ".join(str(size) for size in (*sets, *self[1:5]))


ONE_SET = (
    (1, 3, 2, 4),
    (1, 100, 8, 32),
    (8, 50, 3, 16),
    (4, 300, 5, 24),
    (32, 100, 8, 32),
    (32, 100, 64, 128),
    (1, 1000, 16, 64),
    (64, 200, 64, 256),
    (128, 50, 256, 512),
    (16, 2000, 8, 64),
)
MANY_SETS = (
    (1, 100, 8, 32, 16),
    (32, 100, 8, 32, 64),
    (8, 50, 4, 16, 256),
    (32, 100, 64, 128, 32),
    (64, 100, 64, 256, 8),
)
SIZES_OF_PARTS: dict[str, tuple[tuple[int, ...], ...]] = {
    SIZES: ONE_SET,
    LEAK: ONE_SET[1:],
    CURRENTS: ONE_SET,
    SETS: MANY_SETS,
    DEVICES: MANY_SETS,
    LENGTHS: ((32, 100, 8, 32), (32, 100, 64, 128), (64, 200, 64, 256)),
    CHECKPOINTS: ((8, 20_000, 8, 64),),
    MODES: (
        (1, 3, 2, 4),
        (1, 100, 8, 32),
        (4, 100, 4, 8),
        (8, 50, 3, 16),
        (32, 100, 8, 32),
        (32, 100, 64, 128),
    ),
    COMPILE: ONE_SET,
}
# For a quick check: one small cell of each part.
QUICK_SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    SIZES: ((8, 50, 3, 16),),
    LEAK: ((8, 50, 3, 16),),
    CURRENTS: ((8, 50, 3, 16),),
    SETS: ((8, 50, 4, 16, 4),),
    DEVICES: ((8, 50, 4, 16, 4),),
    LENGTHS: ((8, 50, 3, 16),),
    CHECKPOINTS: ((8, 500, 3, 16),),
    MODES: ((1, 3, 2, 4),),
    COMPILE: ((8, 50, 3, 16),),
}
PARTS = (*SIZES_OF_PARTS, CALLS, IMPORT)


def cells(part: str, *, quick: bool = False) -> list[Cell]:
    """The cells of a part, in order."""
    sizes = QUICK_SIZES if quick else SIZES_OF_PARTS
    return [Cell(part, *each) for each in sizes.get(part, ())]


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


def tangents(params: RNNParams[Any]) -> RNNParams[Any]:
    """A direction in the space of the parameters."""
    key = jax.random.key(1)
    return RNNParams(*(jax.random.normal(key, param.shape) for param in jax.tree.leaves(params)))


def initial_state(cell: Cell) -> jax.Array:
    """A state of each node, shared by all sequences."""
    return jnp.linspace(-0.5, 0.5, cell.n_nodes)


def sequence_lengths(cell: Cell) -> NDArray[np.int32]:
    """The number of steps of each sequence, from one to all; the first sequence has all."""
    lengths = np.random.default_rng(0).integers(1, cell.n_steps, cell.batch, endpoint=True)
    lengths[0] = cell.n_steps
    return lengths.astype(np.int32)


def node_leaks(cell: Cell) -> NDArray[np.float32]:
    """A leak of each node, from fast to slow."""
    return np.linspace(1.0, 0.1, cell.n_nodes, dtype=np.float32)
