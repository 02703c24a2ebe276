"""Valid calls of all public functions, and wrong values for each place in their arguments.

For example, of `rnn_step` the arguments `{"params": ..., "h": ..., "x_t": ...}` and the faults
`{("h",): (None, "text", ...), ("params", "wx"): (...), ...}`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from jaxrnn import (
    init_params,
    init_stacked,
    interop,
    rnn_bidirectional,
    rnn_forward,
    rnn_stacked,
    rnn_states,
    rnn_step,
)
from jaxrnn.testing.strategies import Sizes
from tests.bad_values import (
    ACTIVATIONS,
    BOOLS,
    COUNTS,
    DTYPES,
    FEATURES,
    INITIALISERS,
    KEY,
    KEYS,
    NO_ARRAYS,
    NO_INTEGERS,
    NO_MAPPINGS,
    NO_NETWORKS,
    NO_STATES,
    NODES,
    RATES,
    Arguments,
    Faults,
    Missing,
    faults_of_params,
    network,
    not_promoted,
    ones,
)


def wrong_states(n_nodes: int, batch: tuple[int, ...]) -> tuple[Any, ...]:
    """Values that do not broadcast to `(*batch, n_nodes)`."""
    longer = tuple(size + 2 for size in batch)
    wrong = ones((n_nodes + 1,), (2, *batch, n_nodes), *([(*longer, n_nodes)] if batch else []))
    return (*NO_ARRAYS, *wrong, *not_promoted((n_nodes,)))


def options(sizes: Sizes) -> tuple[Arguments, Faults]:
    """The options of the functions that run over sequences."""
    batch, n_steps, _, n_nodes = sizes
    is_empty = 0 in batch
    out_of_range = [np.full(batch, n) for n in (-1, n_steps + 1, 2**40) if not is_empty]
    masks = (*batch, n_steps)
    given = {"lengths": np.full(batch, n_steps), "resets": np.zeros(masks, bool), "reset_to": 0.0}
    leaks = ones((n_nodes + 1,), (n_steps + 2, n_nodes), (2, *masks, n_nodes))
    return given, {
        ("leak",): (*NO_ARRAYS, *leaks, *not_promoted((n_nodes,))),
        ("activation",): ACTIVATIONS,
        ("lengths",): (
            *NO_ARRAYS,
            *ones(batch),
            np.ones(batch, bool),
            np.zeros((*batch, 1), int),
            *out_of_range,
        ),
        ("resets",): (
            None,  # is wrong as reset_to is given
            *NO_ARRAYS,
            *ones(masks),
            np.ones(masks, int),
            np.ones((*masks, 1), bool),
            np.ones(n_steps + 1, bool),
        ),
        ("reset_to",): (None, *wrong_states(n_nodes, batch)),  # it is needed with h0
        ("reverse",): BOOLS,
        ("checkpoint_every",): COUNTS,
        ("unroll",): NO_INTEGERS,
        ("lenghts",): (None, 1),  # not an option
    }


def inputs(name: str, *shape: int) -> tuple[Arguments, Faults]:
    """Inputs whose last axis has the features."""
    wrong = ones((), (*shape[:-1], shape[-1] + 1))
    given = np.ones(shape, np.float32)
    return {name: given}, {(name,): (None, *NO_ARRAYS, *wrong, *not_promoted(shape))}


def step_calls(sizes: Any) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    given, faults = inputs("x_t", *sizes.batch, sizes.n_features)
    n = sizes.n_nodes
    return given | {"params": params, "h": np.ones(n, np.float32)}, faults | {
        ("params",): NO_NETWORKS,
        **faults_of_params(("params",), params),
        ("h",): (None, *NO_ARRAYS, *ones((), (n + 1,), (2, n + 1)), *not_promoted((n,))),
        ("activation",): ACTIVATIONS,
        ("leak",): (*NO_ARRAYS, *ones((n + 1,), (2, *sizes.batch, n)), *not_promoted((n,))),
        ("x",): (1.0,),
    }


def sequence_calls(sizes: Any) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    return of_x | of_options | {"params": params, "h0": 0.5}, x_faults | faults | {
        ("params",): NO_NETWORKS,
        **faults_of_params(("params",), params),
        ("h0",): wrong_states(sizes.n_nodes, sizes.batch),
    }


def pair_calls(sizes: Any) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    given = of_x | of_options | {"params": (params, params), "h0": (0.5, None)}
    return given, x_faults | faults | {
        ("params",): (*NO_NETWORKS, params, [params], (params,) * 3, (params, None)),
        ("params", 1): (network(sizes.n_features, sizes.n_nodes + 1),),
        **faults_of_params(("params", 0), params),
        ("h0",): (*NO_STATES, (), 1.0, (None,), (None,) * 3),
        ("h0", 1): wrong_states(sizes.n_nodes, sizes.batch),
    }


def stacked_calls(sizes: Any) -> tuple[Arguments, Faults]:
    n = sizes.n_nodes
    lower, upper = network(sizes.n_features, n), network(n, n)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    given = of_x | of_options | {"layers": (lower, (upper, upper)), "h0": (0.5, (None, 0.5))}
    return given | {"dropout": 0.5, "key": KEY}, x_faults | faults | {
        ("layers",): (*NO_NETWORKS, lower, (), [], (lower, [upper])),
        ("layers", 1): (*NO_NETWORKS, (upper,), (upper, None), (upper,) * 3),
        ("layers", 1, 1): (network(n, n + 1),),
        **faults_of_params(("layers", 0), lower),
        **faults_of_params(("layers", 1, 1), upper),
        ("h0",): (*NO_STATES, (), 1.0, (None,), (None,) * 3),
        ("h0", 0): (*wrong_states(n, sizes.batch), (None, None), (None,)),
        ("h0", 1): (*NO_STATES, *ones((n,)), (), (None,), (None,) * 3),
        ("h0", 1, 0): wrong_states(n, sizes.batch),
        ("dropout",): RATES,
        ("key",): KEYS,
    }


def _inputs_and_options(sizes: Any) -> tuple[tuple[Arguments, Faults], tuple[Arguments, Faults]]:
    return inputs("x", *sizes.batch, sizes.n_steps, sizes.n_features), options(sizes)


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
        rnn_step: step_calls(sizes),
        rnn_forward: sequence_calls(sizes),
        rnn_states: sequence_calls(sizes),
        rnn_bidirectional: pair_calls(sizes),
        rnn_stacked: stacked_calls(sizes),
        init_params: init_calls(sizes),
        init_stacked: init_stacked_calls(sizes),
    }
