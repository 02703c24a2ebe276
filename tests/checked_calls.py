"""Calls of jaxrnn that hypothesis draws, and each as a `Checked` beside the oracle."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from hypothesis import strategies as st

from jaxrnn import rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.layers import LayerStates
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import DIRECTIONS, Sizes
from tests.checked import Arrays, Checked, is_floating
from tests.helpers import ACTIVATIONS

# Besides the sizes of the strategies: one sequence, the same in a batch of one, and one with so
# many features that their product is not small.
SIZES = (*strategies.SIZES, Sizes((), 7, 2, 3), Sizes((1, 2), 5, 2, 2), Sizes((), 5, 40, 13))


class Reference(NamedTuple):
    """What a function of jaxrnn must give, by the oracle.

    Attributes:
      values: takes the arguments of the function.
      gradients: takes weights, in the form of the result, and the arguments; gives the gradients of
        the weighted sum by the names of the arguments.
    """

    values: Callable[..., Any]
    gradients: Callable[..., Any]


def _step(params: Any, h: Any, x_t: Any, **options: Any) -> Any:
    return oracle.rnn_forward(params, x_t[..., None, :], h, **options)


def _step_gradients(weights: Any, params: Any, h: Any, x_t: Any, **options: Any) -> Any:
    found = oracle.rnn_gradients(params, x_t[..., None, :], h, g_last=weights, **options)
    return {"params": found.params, "h": found.h0, "x_t": found.x[..., 0, :]}


def _forward_gradients(weights: Any, **call: Any) -> Any:
    return oracle.rnn_gradients(**call, g_last=weights)._asdict()


def _states_gradients(weights: Any, **call: Any) -> Any:
    return oracle.rnn_gradients(**call, g_a=weights.a, g_h=weights.h)._asdict()


def _stacked_gradients(weights: Any, **call: Any) -> Any:
    return oracle.stacked_gradients(**call, g_h=weights.h, g_last=weights.last)._asdict()


def _bidirectional(params: Any, h0: Any = None, **call: Any) -> Any:
    h, (last,) = oracle.rnn_stacked(layers=(params,), h0=(h0,), **call)
    return LayerStates(h, last)


def _bidirectional_gradients(weights: Any, params: Any, h0: Any = None, **call: Any) -> Any:
    weights = weights._replace(last=(weights.last,))
    found = _stacked_gradients(weights, layers=(params,), h0=(h0,), **call)
    return {"params": found["layers"][0], "x": found["x"], "h0": found["h0"][0]}


REFERENCES = {
    rnn_step: Reference(_step, _step_gradients),
    rnn_forward: Reference(oracle.rnn_forward, _forward_gradients),
    rnn_states: Reference(oracle.rnn_states, _states_gradients),
    rnn_bidirectional: Reference(_bidirectional, _bidirectional_gradients),
    rnn_stacked: Reference(oracle.rnn_stacked, _stacked_gradients),
}


class Call(NamedTuple):
    """A call of jaxrnn.

    Attributes:
      function: what is called.
      arrays: its arguments that are arrays or trees of them.
      static: its other arguments.
      in_oracle: what the oracle takes instead of `static`.
      n_steps: the largest valid length.
      poisoned: whether there is NaN in the padding.
    """

    function: Any
    arrays: dict[str, Any]
    static: dict[str, Any]
    in_oracle: dict[str, Any]
    n_steps: int
    poisoned: bool


@st.composite
def calls(draw: st.DrawFn, activations: Sequence[str]) -> Call:
    """Valid calls of any function, with arrays in float64."""
    sizes = draw(st.sampled_from(SIZES))
    function = draw(st.sampled_from(list(REFERENCES)))
    in_jax, in_oracle = ACTIVATIONS[draw(st.sampled_from(activations))]
    rate, rate_in_oracle = draw(st.sampled_from([(None, None), *map(ACTIVATIONS.get, activations)]))
    static: dict[str, Any] = {"activation": in_jax, "rate": rate}
    of_oracle: dict[str, Any] = {"activation": in_oracle, "rate": rate_in_oracle}
    arrays = draw(networks(function, sizes))
    if function is rnn_step:
        return Call(function, arrays, static, of_oracle, 1, False)
    options = draw(strategies.options(sizes, dtype=np.float64))
    static["reverse"] = of_oracle["reverse"] = options.pop("reverse")
    static["checkpoint_every"] = draw(st.sampled_from([None, 1, 2, 4, 9]))
    static["unroll"] = draw(st.sampled_from([1, 2, 9]))
    if function is rnn_stacked:
        static["dropout"] = draw(st.sampled_from([0.0, 0.5]))  # without a key there is none
    arrays |= {name: array for name, array in options.items() if array is not None}
    poisoned = "lengths" in arrays and draw(st.booleans())
    if poisoned:
        padding = np.arange(sizes.n_steps) >= arrays["lengths"][..., None]
        arrays["x"] = np.where(padding[..., None], np.nan, arrays["x"])
    return Call(function, arrays, static, of_oracle, sizes.n_steps, poisoned)


@st.composite
def networks(draw: st.DrawFn, function: Any, sizes: Sizes) -> dict[str, Any]:
    """The parameters, inputs and initial state for a function, by their names there."""
    if function in (rnn_stacked, rnn_bidirectional):
        two = function is rnn_bidirectional
        directions = st.just((2,)) if two else st.sampled_from(DIRECTIONS)
        stacked: Any = draw(
            strategies.stacked_cases(sizes=st.just(sizes), directions=directions, dtype=np.float64)
        )
        if two:
            return {"params": stacked.layers[0], "x": stacked.x, "h0": stacked.h0[0]}
        return {"layers": stacked.layers, "x": stacked.x, "h0": stacked.h0}
    params, x, h0 = draw(strategies.cases(sizes=st.just(sizes), dtype=np.float64))
    if function is not rnn_step:
        return {"params": params, "x": x, "h0": h0}
    shape = *sizes.batch, sizes.n_nodes
    h = draw(strategies.arrays(shape, np.float64)) if h0 is None else h0
    x_t = draw(strategies.arrays((*sizes.batch, sizes.n_features or 0), np.float64))
    return {"params": params, "h": h, "x_t": x_t}


def as_checked(call: Call) -> Checked:
    """The call as a function of its single arrays, such as "params.wx" and "lengths"."""
    structure = jax.tree.structure(call.arrays)
    args = _named(call.arrays)
    reference = REFERENCES[call.function]
    # By these two the oracle has no gradients through layers.
    is_layered = call.function in (rnn_stacked, rnn_bidirectional)
    by = tuple(
        name
        for name, array in args.items()
        if is_floating(array) and not (is_layered and name in ("reset_to", "leak"))
    )

    def whole(given: Arrays) -> Any:
        return jax.tree.unflatten(structure, [given[name] for name in args])

    def run(given: Arrays) -> Any:
        return call.function(**whole(given), **call.static)

    def expected(given: Arrays) -> Any:
        return reference.values(**whole(given), **call.in_oracle)

    def gradients(given: Arrays, weights: Sequence[Any]) -> Arrays:
        weights = jax.tree.unflatten(jax.tree.structure(expected(given)), weights)
        found = _named(reference.gradients(weights, **whole(given), **call.in_oracle))
        return {name: found[name] for name in by}

    name = f"{call.function.__name__} of {call.static}"
    return Checked(name, args, run, expected, by, gradients)


def _named(tree: Any) -> Arrays:
    """The leaves of a tree by their places in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
