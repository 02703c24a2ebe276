"""Valid calls of all public functions, and wrong values for each place in their arguments.

For example, of `rnn_step` the arguments `{"params": ..., "h": ..., "x_t": ...}` and the faults
`{("h",): (None, "text", ...), ("params", "wx"): (...), ...}`.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import RNNParams, interop
from jaxrnn.testing.strategies import Sizes

# The arguments of a call; and for places in them, given by names and indices, the wrong values.
Values = tuple[Any, ...]
Arguments = dict[str, Any]
Faults = dict[tuple[Any, ...], Values]

KEY = jax.random.key(0)

# Neither numbers nor arrays of numbers. Masked arrays are not among them: as the documentation
# says, nothing looks for them.
NO_ARRAYS: Values = (
    *("text", b"text", 1j, object(), {1.0, 2.0}, {"wx": 1.0}, float, slice(3), KEY),
    *(2**70, [2**70], [[1.0], [1.0, 2.0]], [1.0, "text"], np.array([None]), np.array(["text"])),
    *(np.zeros(3, "datetime64[s]"), np.ones(3, np.complex64)),
)
# Without lists, as the states of layers or directions may be in one.
NO_STATES = tuple(each for each in NO_ARRAYS if not isinstance(each, list))
NO_INTEGERS: Values = (-3, True, 2.0, math.nan, "2", np.int64(2), [2], (), np.array(2))
COUNTS: Values = (0, *NO_INTEGERS)
BOOLS: Values = (None, 0, 1, 2.0, "yes", np.bool_(True), [], np.array(True), jnp.tanh)
RATES: Values = (
    *(-0.1, 1, 1.5, math.nan, math.inf, "0.5", None, True, 1j),
    *([0.1], {0.1}, np.array(0.1), jnp.array(0.1)),
)
KEYS: Values = (
    *(3, "key", object(), np.ones(2, np.float32), np.ones(4, np.uint32)),
    jax.random.split(KEY, 3),
)
ACTIVATIONS: Values = (
    *("tanh", None, 3, [jnp.tanh], np.array([1.0]), math.tanh, np.linalg.norm, lambda: 0),
    *(lambda a: None, lambda a: (a, a), lambda a: 1.0, lambda a: a > 0),
    *(lambda a: a.astype(jnp.int8), lambda a: a[..., None], lambda a: jnp.sum(a, axis=-1)),
    lambda a: jnp.concatenate([a, a], axis=-1),
)
RATE_FUNCTIONS = tuple(each for each in ACTIVATIONS if each is not None)
FEATURES: Values = (-1, 2.5, math.nan, "3", 1j, 2**70, KEY)
NODES: Values = (None, *FEATURES, 0, 2**31)
INITIALISERS: Values = (
    *(3, "zeros", [], lambda key: 0, lambda *args: None, lambda *args: 1.0),
    lambda key, shape, dtype: jnp.zeros((*shape, 1), dtype),
    lambda key, shape, dtype: jnp.zeros(shape, jnp.complex64),
    lambda key, shape, dtype: list(shape),
)
DTYPES: Values = (None, int, "text", 3, complex, object, [], np.int32, bool, str, KEY, jnp.ones(3))
NO_NETWORKS: Values = (
    *(None, 1.0, "text", {}, {"wx": 1.0}, object(), np.ones((2, 2), np.float32)),
    *((None,), [[1.0]], (np.ones((2, 3)), np.ones((3, 3)), np.ones(3))),
)
NO_MAPPINGS: Values = (None, 1.0, "text", [1.0], {}, np.ones(3))


class Missing:
    """Stands for an entry that is left out."""


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


def ones(*shapes: tuple[int, ...]) -> Values:
    return tuple(np.ones(shape, np.float32) for shape in shapes)


def not_promoted(shape: tuple[int, ...]) -> Values:
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


def wrong_states(n_nodes: int, batch: tuple[int, ...]) -> Values:
    """Values that do not broadcast to `(*batch, n_nodes)`."""
    longer = tuple(size + 2 for size in batch)
    wrong = ones((n_nodes + 1,), (2, *batch, n_nodes), *([(*longer, n_nodes)] if batch else []))
    return (*NO_ARRAYS, *wrong, *not_promoted((n_nodes,)))


def options(sizes: Sizes) -> tuple[Arguments, Faults]:
    """The options of the functions that run over sequences."""
    batch, n_steps, _, n_nodes = sizes
    out_of_range = [np.full(batch, n) for n in (-1, n_steps + 1, 2**40) if 0 not in batch]
    masks = (*batch, n_steps)
    given = {"lengths": np.full(batch, n_steps), "resets": np.zeros(masks, bool), "reset_to": 0.0}
    leaks = ones((n_nodes + 1,), (n_steps + 2, n_nodes), (2, *masks, n_nodes))
    lengths = (*ones(batch), np.ones(batch, bool), np.zeros((*batch, 1), int), *out_of_range)
    bools = np.ones((*masks, 1), bool), np.ones(n_steps + 1, bool)
    return given, {
        ("leak",): (*NO_ARRAYS, *leaks, *not_promoted((n_nodes,))),
        ("activation",): ACTIVATIONS,
        ("rate",): RATE_FUNCTIONS,
        ("lengths",): (*NO_ARRAYS, *lengths),
        # None is wrong for either, but not for both: test_errors.py has None for `resets`.
        ("resets",): (*NO_ARRAYS, *ones(masks), np.ones(masks, int), *bools),
        ("reset_to",): (None, *wrong_states(n_nodes, batch)),
        ("reverse",): BOOLS,
        ("checkpoint_every",): COUNTS,
        ("unroll",): NO_INTEGERS,
        ("lenghts",): (None, 1),  # not an option
    }


def inputs(*shape: int) -> Values:
    """Wrong inputs where those of a shape are right, whose last axis has the features."""
    wrong = ones((), (*shape[:-1], shape[-1] + 1))
    return (None, *NO_ARRAYS, *wrong, *not_promoted(shape))


def step_calls(sizes: Any) -> tuple[Arguments, Faults]:
    batch, _, n_features, n = sizes
    params = network(n_features, n)
    (x_t,) = ones((*batch, n_features))
    return {"params": params, "h": np.ones(n, np.float32), "x_t": x_t}, {
        ("params",): NO_NETWORKS,
        **faults_of_params(("params",), params),
        ("h",): (None, *NO_ARRAYS, *ones((), (n + 1,), (2, n + 1)), *not_promoted((n,))),
        ("x_t",): inputs(*x_t.shape),
        ("activation",): ACTIVATIONS,
        ("rate",): RATE_FUNCTIONS,
        ("leak",): (*NO_ARRAYS, *ones((n + 1,), (2, *batch, n)), *not_promoted((n,))),
        ("x",): (1.0,),
    }


def run_calls(sizes: Any, given: Arguments, faults: Faults) -> tuple[Arguments, Faults]:
    """Calls that run over sequences, from their networks and initial states."""
    (x,) = ones((*sizes.batch, sizes.n_steps, sizes.n_features))
    of_options, wrong_options = options(sizes)
    return given | {"x": x} | of_options, faults | {("x",): inputs(*x.shape)} | wrong_options


def sequence_calls(sizes: Any) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    faults: Faults = {
        ("params",): NO_NETWORKS,
        **faults_of_params(("params",), params),
        ("h0",): wrong_states(sizes.n_nodes, sizes.batch),
    }
    return run_calls(sizes, {"params": params, "h0": 0.5}, faults)


NO_PAIRS: Values = (*NO_STATES, (), 1.0, (None,), (None,) * 3)


def pair_calls(sizes: Any) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    faults: Faults = {
        ("params",): (*NO_NETWORKS, params, [params], (params,) * 3, (params, None)),
        ("params", 1): (network(sizes.n_features, sizes.n_nodes + 1),),
        **faults_of_params(("params", 0), params),
        ("h0",): NO_PAIRS,
        ("h0", 1): wrong_states(sizes.n_nodes, sizes.batch),
    }
    return run_calls(sizes, {"params": (params, params), "h0": (0.5, None)}, faults)


def stacked_calls(sizes: Any) -> tuple[Arguments, Faults]:
    n = sizes.n_nodes
    lower, upper = network(sizes.n_features, n), network(n, n)
    given = {"layers": (lower, (upper, upper)), "h0": (0.5, (None, 0.5))}
    faults: Faults = {
        ("layers",): (*NO_NETWORKS, lower, (), [], (lower, [upper])),
        ("layers", 1): (*NO_NETWORKS, (upper,), (upper, None), (upper,) * 3),
        ("layers", 1, 1): (network(n, n + 1),),
        **faults_of_params(("layers", 0), lower),
        **faults_of_params(("layers", 1, 1), upper),
        ("h0",): NO_PAIRS,
        ("h0", 0): (*wrong_states(n, sizes.batch), (None, None), (None,)),
        ("h0", 1): (*NO_STATES, *ones((n,)), (), (None,), (None,) * 3),
        ("h0", 1, 0): wrong_states(n, sizes.batch),
        ("dropout",): RATES,
        ("key",): KEYS,
    }
    return run_calls(sizes, given | {"dropout": 0.5, "key": KEY}, faults)


DRAWS: Faults = {
    ("wx_init",): (None, *INITIALISERS),
    ("wh_init",): (None, *INITIALISERS),
    ("b_init",): INITIALISERS,
    ("dtype",): DTYPES,
    ("key",): (None, *KEYS),
    ("init",): (1,),
}


def init_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    given = {"key": KEY, "n_features": sizes.n_features, "n_nodes": sizes.n_nodes}
    return given, DRAWS | {("n_features",): FEATURES, ("n_nodes",): (*NODES, [3])}


def init_stacked_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    given = {"key": KEY, "n_features": sizes.n_features, "n_nodes": (sizes.n_nodes, 3)}
    return given, DRAWS | {
        ("n_features",): FEATURES,
        ("n_nodes",): (*NODES, (), [], "34", np.array([3]), {3}),
        ("n_nodes", 1): NODES,
        ("bidirectional",): BOOLS,
    }


def of_mapping(name: str, entries: dict[str, Any]) -> tuple[Arguments, Faults]:
    """A mapping of arrays, or of such mappings."""
    faults: Faults = {(name,): NO_MAPPINGS, (name, "more"): (None, 1.0)}
    for i, (key, entry) in enumerate(entries.items()):
        if isinstance(entry, dict):
            _, inner = of_mapping(key, entry)
            faults |= {(name, *place): wrong for place, wrong in inner.items()}
        else:
            shape = np.shape(entry)
            # Any sizes are right for the first entry, from which they are read. Biases of ONNX and
            # Keras may be missing; that Flax's may not is tested in test_interop.py.
            wrong = [*ones((*shape, 1), ()), *(ones((*shape[:-1], 99)) if i else ())]
            faults[name, key] = (None, *NO_ARRAYS, *wrong)
            if key not in ("B", "bias"):
                faults[name, key] += (Missing,)
    return {name: entries}, faults


def interop_calls(sizes: Any) -> dict[Callable[..., Any], tuple[Arguments, Faults]]:
    """Calls of all functions that read or write weights."""
    params = network(sizes.n_features, sizes.n_nodes)
    pair, upper = (params, params), network(2 * sizes.n_nodes, sizes.n_nodes)
    other = network(sizes.n_features + sizes.n_nodes + 1, sizes.n_nodes)
    faults = {("params",): NO_NETWORKS, **faults_of_params(("params",), params)}
    layer_faults = {
        ("layer",): (*NO_NETWORKS, (params,), (params, other)),
        **faults_of_params(("layer", 0), params),
    }
    layers_faults = {
        ("layers",): (*NO_NETWORKS, (), params, (params, pair), (params, other)),
        ("layers", 1): (*NO_NETWORKS, (upper,), params),
        **faults_of_params(("layers", 0, 1), params),
    }
    layers = (pair, (upper, upper))
    of_linen, faults_of_linen = of_mapping("params", interop.to_linen(params))
    of_nnx, faults_of_nnx = of_mapping("state", interop.to_nnx(params))
    residual: Faults = {("residual",): BOOLS}
    return {
        interop.from_torch: of_mapping("state_dict", interop.to_torch(layers)),
        interop.from_onnx: of_mapping("inputs", interop.to_onnx(pair)),
        interop.from_keras: of_mapping("weights", interop.to_keras(params)),
        interop.from_linen: (of_linen, faults_of_linen | residual),
        interop.from_nnx: (of_nnx, faults_of_nnx | residual),
        interop.to_torch: ({"layers": layers}, layers_faults),
        interop.to_onnx: ({"layer": pair}, layer_faults),
        interop.to_keras: ({"params": params}, faults),
        interop.to_linen: ({"params": params}, faults | residual),
        interop.to_nnx: ({"params": params}, faults | residual),
    }


@cache
def calls(sizes: Sizes) -> dict[Callable[..., Any], tuple[Arguments, Faults]]:
    """For each public function, valid arguments and the faults that can be put into them."""
    return interop_calls(sizes) | {
        jaxrnn.rnn_step: step_calls(sizes),
        jaxrnn.rnn_forward: sequence_calls(sizes),
        jaxrnn.rnn_states: sequence_calls(sizes),
        jaxrnn.rnn_bidirectional: pair_calls(sizes),
        jaxrnn.rnn_stacked: stacked_calls(sizes),
        jaxrnn.init_params: init_calls(sizes),
        jaxrnn.init_stacked: init_stacked_calls(sizes),
    }
