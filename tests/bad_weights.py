"""Valid calls of what reads and writes weights, and what is wrong in each place of theirs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrnn import interop
from jaxrnn.testing.strategies import Sizes
from tests.bad_values import (
    NO_ARRAYS,
    NO_MAPPINGS,
    NO_NETWORKS,
    Arguments,
    Faults,
    Missing,
    network,
    of_params,
    ones,
)


def of_mapping(name: str, entries: dict[str, Any]) -> tuple[Arguments, Faults]:
    """What is wrong with a mapping of arrays, which may be nested."""
    faults: Faults = {(name,): NO_MAPPINGS, (name, "more"): (None, 1.0)}
    for i, (key, entry) in enumerate(entries.items()):
        if isinstance(entry, dict):
            _, inner = of_mapping(key, entry)
            faults |= {(name, *place): wrong for place, wrong in inner.items()}
        else:
            shape = np.shape(entry)
            # The first is where sizes are read from, and biases, though not Flax's, can be missing.
            wrong = [*ones((*shape, 1), ()), *(ones((*shape[:-1], 99)) if i else ())]
            faults[name, key] = (None, *NO_ARRAYS, *wrong)
            if key not in ("B", "bias"):
                faults[name, key] += (Missing,)
    return {name: entries}, faults


def interop_calls(sizes: Sizes) -> dict[Callable[..., Any], tuple[Arguments, Faults]]:
    """Of all that reads and writes weights."""
    params = network(sizes.n_features, sizes.n_nodes)
    pair, upper = (params, params), network(2 * sizes.n_nodes, sizes.n_nodes)
    other = network(sizes.n_features + sizes.n_nodes + 1, sizes.n_nodes)
    faults = {("params",): NO_NETWORKS, **of_params(("params",), params)}
    layer_faults = {
        ("layer",): (*NO_NETWORKS, (params,), (params, other)),
        **of_params(("layer", 0), params),
    }
    layers_faults = {
        ("layers",): (*NO_NETWORKS, (), params, (params, pair), (params, other)),
        ("layers", 1): (*NO_NETWORKS, (upper,), params),
        **of_params(("layers", 0, 1), params),
    }
    layers = (pair, (upper, upper))
    return {
        interop.from_torch: of_mapping("state_dict", interop.to_torch(layers)),
        interop.from_onnx: of_mapping("inputs", interop.to_onnx(pair)),
        interop.from_keras: of_mapping("weights", interop.to_keras(params)),
        interop.from_linen: of_mapping("params", interop.to_linen(params)),
        interop.from_nnx: of_mapping("state", interop.to_nnx(params)),
        interop.to_torch: ({"layers": layers}, layers_faults),
        interop.to_onnx: ({"layer": pair}, layer_faults),
        interop.to_keras: ({"params": params}, faults),
        interop.to_linen: ({"params": params}, faults),
        interop.to_nnx: ({"params": params}, faults),
    }
