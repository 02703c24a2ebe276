"""Wrong values for every kind of argument, and how to put one of them into a call."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import RNNParams

KEY = jax.random.key(0)

# Neither numbers nor arrays of numbers.
NO_ARRAYS: tuple[Any, ...] = (
    "text",
    b"text",
    1j,
    object(),
    {1.0, 2.0},
    {"wx": 1.0},
    float,
    2**70,
    [2**70],
    [[1.0], [1.0, 2.0]],
    [1.0, "text"],
    slice(3),
    KEY,
    np.array([None]),
    np.array(["text"]),
    np.zeros(3, "datetime64[s]"),
    np.ma.masked_array(np.ones(99)),  # if its shape fits, a compiled function takes it
    np.ones(3, np.complex64),
)
# Without lists, as the states of layers or directions may be in one.
NO_STATES = tuple(each for each in NO_ARRAYS if not isinstance(each, list))
NO_INTEGERS: tuple[Any, ...] = (-3, 2.0, math.nan, "2", np.int64(2), [2], (), np.array(2))
COUNTS: tuple[Any, ...] = (0, True, *NO_INTEGERS)
BOOLS: tuple[Any, ...] = (None, 0, 1, 2.0, "yes", np.bool_(True), [], np.array(True), jnp.tanh)
RATES: tuple[Any, ...] = (
    *(-0.1, 1, 1.5, math.nan, math.inf, "0.5", None, True, 1j),
    *([0.1], {0.1}, np.array(0.1), jnp.array(0.1)),
)
KEYS: tuple[Any, ...] = (
    3,
    "key",
    object(),
    np.ones(2, np.float32),
    np.ones(4, np.uint32),
    jax.random.split(KEY, 3),
    np.ma.masked_array([1, 2]),
)
ACTIVATIONS: tuple[Any, ...] = (
    "tanh",
    None,
    3,
    [jnp.tanh],
    np.array([1.0]),
    math.tanh,
    np.linalg.norm,
    lambda: 0,
    lambda a: None,
    lambda a: (a, a),
    lambda a: 1.0,
    lambda a: a > 0,
    lambda a: a.astype(jnp.int8),
    lambda a: a[..., None],
    lambda a: jnp.sum(a, axis=-1),
    lambda a: jnp.concatenate([a, a], axis=-1),
)
FEATURES: tuple[Any, ...] = (-1, 2.5, math.nan, "3", 1j, 2**70, KEY)
NODES: tuple[Any, ...] = (None, *FEATURES, 0, 2**31)
INITIALISERS: tuple[Any, ...] = (
    3,
    "zeros",
    [],
    lambda key: 0,
    lambda *args: None,
    lambda *args: 1.0,
    lambda key, shape, dtype: jnp.zeros((*shape, 1), dtype),
    lambda key, shape, dtype: jnp.zeros(shape, jnp.complex64),
    lambda key, shape, dtype: list(shape),
)
DTYPES: tuple[Any, ...] = (
    None,
    int,
    "text",
    3,
    complex,
    object,
    [],
    np.int32,
    bool,
    str,
    KEY,
    jnp.ones(3),
)
NO_NETWORKS: tuple[Any, ...] = (
    *(None, 1.0, "text", {}, {"wx": 1.0}, object(), np.ones((2, 2), np.float32)),
    *((None,), [[1.0]], (np.ones((2, 3)), np.ones((3, 3)), np.ones(3))),
)
NO_MAPPINGS: tuple[Any, ...] = (None, 1.0, "text", [1.0], {}, np.ones(3))


class Missing:
    """Stands for an entry that is left out."""


# The arguments of a call; and for places in them, given by names and indices, the wrong values.
Arguments = dict[str, Any]
Faults = dict[tuple[Any, ...], tuple[Any, ...]]


def replaced(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """`tree` with another value in that place, or without the entry if the value is `Missing`."""
    if not place:
        return value
    first, *rest = place
    if isinstance(tree, RNNParams):
        return tree._replace(**{first: replaced(getattr(tree, first), tuple(rest), value)})
    if isinstance(tree, dict):
        inner = replaced(tree.get(first), tuple(rest), value)
        others = {key: each for key, each in tree.items() if key != first}
        return others if inner is Missing else others | {first: inner}
    inner = replaced(tree[first], tuple(rest), value)
    return (*tree[:first], inner, *tree[first + 1 :])


def ones(*shapes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(np.ones(shape, np.float32) for shape in shapes)


def not_promoted(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Arrays of dtypes that JAX does not promote."""
    dtypes = jnp.dtype("int4"), jnp.dtype("float8_e4m3fn")
    # NumPy makes them, as JAX would compile a program for each shape.
    return tuple(jnp.asarray(np.ones(shape, dtype)) for dtype in dtypes)


def network(n_features: int, n_nodes: int) -> RNNParams[Any]:
    return RNNParams(*ones((n_features, n_nodes), (n_nodes, n_nodes), (n_nodes,)))


def faults_of_params(place: tuple[Any, ...], params: RNNParams[Any]) -> Faults:
    """Wrong arrays in an `RNNParams` at that place."""
    n_features, n = np.asarray(params.wx).shape
    wrong = ones((n,), (), (2, n_features, n), (n_features, n + 1))
    return {
        (*place, "wx"): (*NO_ARRAYS, *wrong),
        (*place, "wh"): (None, *NO_ARRAYS, *ones((n,), (), (n, n + 1), (n + 1, n), (1, n, n))),
        (*place, "b"): (*NO_ARRAYS, *ones((), (n + 1,), (1, n))),
    }
