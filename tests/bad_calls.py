"""Valid calls of all public functions, and what is wrong in each place of their arguments."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from jaxrnn import (
    init_params,
    init_stacked,
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
    NO_NETWORKS,
    NO_STATES,
    NODES,
    RATES,
    Arguments,
    Faults,
    network,
    not_promoted,
    of_params,
    ones,
)
from tests.bad_weights import interop_calls


def of_state(n_nodes: int, batch: tuple[int, ...]) -> tuple[Any, ...]:
    """What does not broadcast to `(*batch, n_nodes)`."""
    longer = tuple(size + 2 for size in batch)
    wrong = ones((n_nodes + 1,), (2, *batch, n_nodes), *([(*longer, n_nodes)] if batch else []))
    return (*NO_ARRAYS, *wrong, *not_promoted((n_nodes,)))


def options(sizes: Sizes) -> tuple[Arguments, Faults]:
    """The options of the functions that run over sequences."""
    batch, n_steps, _, n_nodes = sizes
    some = np.prod(batch, dtype=int) > 0
    out_of_range = [np.full(batch, n) for n in (-1, n_steps + 1, 2**40)] if some else []
    masks = (*batch, n_steps)
    return {
        "lengths": np.full(batch, n_steps),
        "resets": np.zeros(masks, bool),
        "reset_to": 0.0,
    }, {
        ("activation",): ACTIVATIONS,
        ("lengths",): (
            *NO_ARRAYS,
            *ones(batch),
            np.ones(batch, bool),
            np.zeros((*batch, 1), int),
            *out_of_range,
        ),
        ("resets",): (
            None,  # while reset_to is given
            *NO_ARRAYS,
            *ones(masks),
            np.ones(masks, int),
            np.ones((*masks, 1), bool),
            np.ones(n_steps + 1, bool),
        ),
        ("reset_to",): of_state(n_nodes, batch),
        ("reverse",): BOOLS,
        ("checkpoint_every",): COUNTS,
        ("unroll",): (None, *COUNTS),
        ("lenghts",): (None, 1),
    }


def inputs(name: str, *shape: int) -> tuple[Arguments, Faults]:
    """An array whose last axis are features."""
    wrong = ones((), (*shape[:-1], shape[-1] + 1))
    given = np.ones(shape, np.float32)
    return {name: given}, {(name,): (None, *NO_ARRAYS, *wrong, *not_promoted(shape))}


def step_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    given, faults = inputs("x_t", *sizes.batch, sizes.n_features)
    n = sizes.n_nodes
    return given | {"params": params, "h": np.ones(n, np.float32)}, faults | {
        ("params",): NO_NETWORKS,
        **of_params(("params",), params),
        ("h",): (None, *NO_ARRAYS, *ones((), (n + 1,), (2, n + 1)), *not_promoted((n,))),
        ("activation",): ACTIVATIONS,
        ("x",): (1.0,),
    }


def sequence_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    return of_x | of_options | {"params": params, "h0": 0.5}, x_faults | faults | {
        ("params",): NO_NETWORKS,
        **of_params(("params",), params),
        ("h0",): of_state(sizes.n_nodes, sizes.batch),
    }


def pair_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    params = network(sizes.n_features, sizes.n_nodes)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    given = of_x | of_options | {"params": (params, params), "h0": (0.5, None)}
    return given, x_faults | faults | {
        ("params",): (*NO_NETWORKS, params, [params], (params,) * 3, (params, None)),
        ("params", 1): (network(sizes.n_features, sizes.n_nodes + 1),),
        **of_params(("params", 0), params),
        ("h0",): (*NO_STATES, (), 1.0, (None,), (None,) * 3),
        ("h0", 1): of_state(sizes.n_nodes, sizes.batch),
    }


def stacked_calls(sizes: Sizes) -> tuple[Arguments, Faults]:
    n = sizes.n_nodes
    lower, upper = network(sizes.n_features, n), network(n, n)
    (of_x, x_faults), (of_options, faults) = _inputs_and_options(sizes)
    given = of_x | of_options | {"layers": (lower, (upper, upper)), "h0": (0.5, (None, 0.5))}
    return given | {"dropout": 0.5, "key": KEY}, x_faults | faults | {
        ("layers",): (*NO_NETWORKS, lower, (), [], (lower, [upper])),
        ("layers", 1): (*NO_NETWORKS, (upper,), (upper, None), (upper,) * 3),
        ("layers", 1, 1): (network(n, n + 1),),
        **of_params(("layers", 0), lower),
        **of_params(("layers", 1, 1), upper),
        ("h0",): (*NO_STATES, (), 1.0, (None,), (None,) * 3),
        ("h0", 0): (*of_state(n, sizes.batch), (None, None), (None,)),
        ("h0", 1): (*NO_STATES, *ones((n,)), (), (None,), (None,) * 3),
        ("h0", 1, 0): of_state(n, sizes.batch),
        ("dropout",): RATES,
        ("key",): KEYS,
    }


def _inputs_and_options(sizes: Sizes) -> tuple[tuple[Arguments, Faults], tuple[Arguments, Faults]]:
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


@cache
def calls(sizes: Sizes) -> dict[Callable[..., Any], tuple[Arguments, Faults]]:
    """Of each public function a valid call, and what makes it a bad one."""
    return interop_calls(sizes) | {
        rnn_step: step_calls(sizes),
        rnn_forward: sequence_calls(sizes),
        rnn_states: sequence_calls(sizes),
        rnn_bidirectional: pair_calls(sizes),
        rnn_stacked: stacked_calls(sizes),
        init_params: init_calls(sizes),
        init_stacked: init_stacked_calls(sizes),
    }
