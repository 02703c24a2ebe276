"""Any call, mapped and differentiated in any way, gives what the oracle or JAX's own rules say."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrnn import rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.layers import LayerStates
from jaxrnn.testing import strategies
from jaxrnn.testing.strategies import DIRECTIONS, Sizes
from tests.helpers import (
    ACTIVATIONS,
    H0,
    LENGTHS,
    PARAMS,
    REFERENCES,
    RESET_TO,
    RESETS,
    WAYS,
    X,
    assert_close,
    curved,
)

COUNT = count(1)

# Few unless the profile is `long`, as each example compiles programs of its own.
few = settings() if settings().max_examples > 1000 else settings(max_examples=8)


class Call(NamedTuple):
    """A call of jaxrnn, and of what it must give.

    Attributes:
      function: what is called.
      arrays: its arguments by their places, such as "params.wx" and "lengths".
      structure: the tree of all arguments.
      static: its other options.
      in_oracle: what the oracle takes instead of these.
      reference: the function whose values and gradients are those of the oracle.
    """

    function: Any
    arrays: dict[str, Any]
    structure: Any
    static: dict[str, Any]
    in_oracle: dict[str, Any]
    reference: Any

    def whole(self, arrays: Any) -> Any:
        """The arguments by name, from their arrays by place."""
        return jax.tree.unflatten(self.structure, [arrays[place] for place in self.arrays])

    def run(self, arrays: Any) -> Any:
        return self.function(**self.whole(arrays), **self.static)

    def expected(self, arrays: Any, weights: Any) -> tuple[Any, Any]:
        """Values, and gradients of their weighted sum; the weights are a function of a value."""
        values, gradients = REFERENCES[self.reference]
        call = self.whole(arrays) | self.in_oracle
        out = values(**call)
        found = named(gradients(jax.tree.map(weights, out), **call)._asdict())
        return out, {place: found[place] for place in found.keys() & arrays.keys()}


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their places in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def of_step(params: Any, x: Any, h0: Any, **options: Any) -> Any:
    return rnn_step(params, h0, x[..., 0, :], **options)


def of_pair(layers: Any, x: Any, h0: Any, **options: Any) -> Any:
    out = rnn_bidirectional(layers[0], x, h0[0], **options)
    return LayerStates(out.h, (out.last,))


FUNCTIONS = {
    rnn_forward: rnn_forward,
    rnn_states: rnn_states,
    rnn_stacked: rnn_stacked,
    of_step: rnn_forward,
    of_pair: rnn_stacked,
}
# Besides the sizes of the strategies: one sequence, the same in a batch of one, and one with so
# many features that their product is not small.
SIZES = (*strategies.SIZES, Sizes((), 7, 2, 3), Sizes((1, 2), 5, 2, 2), Sizes((), 5, 40, 13))
# Dtypes to draw from, and their tolerance.
KINDS: tuple[tuple[tuple[Any, ...], float], ...] = (
    *[((np.float64,), 1e-12)] * 3,
    ((np.float32,), 1e-5),
    ((jnp.bfloat16,), 0.03),
    ((np.float16,), 0.004),
    ((np.float32, jnp.bfloat16, np.float16), 0.03),
)


@st.composite
def calls(draw: st.DrawFn, dtypes: tuple[Any, ...] = (np.float64,), of: Any = FUNCTIONS) -> Call:
    """Valid calls of any function, also with NaN in the padding."""
    function, sizes = draw(st.sampled_from(list(of))), draw(st.sampled_from(SIZES))
    sizes = sizes._replace(n_steps=1) if function is of_step else sizes
    kind: Any = {"sizes": st.just(sizes), "dtype": np.float64}
    if FUNCTIONS[function] is rnn_stacked:
        directions = st.just((2,)) if function is of_pair else st.sampled_from(DIRECTIONS)
        case: Any = draw(strategies.stacked_cases(**kind, directions=directions))
    else:
        h0s = ["each", "shared"] if function is of_step else [None]
        case = draw(strategies.cases(**kind, h0=draw(st.sampled_from(h0s))))
    # relu is tested in float64 only, for the reason that `over_numerics` in tests/helpers.py gives.
    names = list(ACTIVATIONS) if dtypes == (np.float64,) else ["tanh", "silu"]
    chosen = {
        "activation": ACTIVATIONS[draw(st.sampled_from(names))],
        "rate": draw(st.sampled_from([(None, None), *map(ACTIVATIONS.get, names)])),
    }
    static, in_oracle = ({name: each[i] for name, each in chosen.items()} for i in (0, 1))
    arrays = case._asdict()
    if function is not of_step:
        arrays |= draw(strategies.options(sizes, dtype=np.float64))
        static["reverse"] = in_oracle["reverse"] = arrays.pop("reverse")
        static["checkpoint_every"] = draw(st.sampled_from([None, 1, 2, 4, 9]))
        static["unroll"] = draw(st.sampled_from([1, 2, 9]))
    if arrays.get("lengths") is not None and draw(st.booleans()):
        padding = np.arange(sizes.n_steps) >= arrays["lengths"][..., None]
        arrays["x"] = np.where(padding[..., None], np.nan, arrays["x"])
    places = {
        place: array.astype(draw(st.sampled_from(dtypes))) if is_floating(array) else array
        for place, array in named(arrays).items()
    }
    structure = jax.tree.structure(arrays)
    return Call(function, places, structure, static, in_oracle, FUNCTIONS[function])


def is_floating(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def stacked(call: Call, axes: dict[str, int], size: int) -> dict[str, Any]:
    """The arrays, with those that have an axis varied along it."""
    n_steps = call.arrays["x"].shape[-2]

    def varied(array: Any) -> list[Any]:
        if array.dtype == np.bool_:
            return [array, ~array, np.flip(array)]
        if is_floating(array):
            return [array, -array, (array * np.asarray(0.5, array.dtype)).astype(array.dtype)]
        return [array, n_steps - array, array // 2]

    return call.arrays | {
        place: np.stack(varied(call.arrays[place])[:size], axis) for place, axis in axes.items()
    }


@st.composite
def maps(draw: st.DrawFn, call: Call) -> tuple[dict[str, int], int]:
    """Over which arrays to map, and along which axes; and how many entries they have."""
    is_poisoned = np.any(np.isnan(np.float64(call.arrays["x"])))
    places = [place for place in call.arrays if not (is_poisoned and place == "lengths")]
    axes = st.dictionaries(st.sampled_from(places), st.sampled_from([0, -1]), min_size=1)
    return draw(axes), draw(st.integers(1, 3))


def pulled(run: Any, arrays: Any) -> Any:
    """Values, and gradients of the sum of their sines by all arrays that are floating."""
    floating = {place: array for place, array in arrays.items() if is_floating(array)}
    out, pull = jax.vjp(lambda some: run(arrays | some), floating)
    return out, pull(jax.tree.map(jnp.cos, out))[0]


# How the gradients of a mapped function are computed.
HOW: dict[str, Callable[..., Any]] = {
    "vmap of gradients": lambda run, vmap: vmap(partial(pulled, run)),
    "gradients of vmap": lambda run, vmap: partial(pulled, vmap(run)),
    "gradients of a checkpoint": lambda run, vmap: partial(pulled, jax.checkpoint(vmap(run))),
}


def assert_mapped(call: Call, axes: dict[str, int], size: int, how: str, tolerance: float) -> None:
    arrays, in_axes = stacked(call, axes, size), {place: axes.get(place) for place in call.arrays}
    out, by = jax.jit(HOW[how](call.run, partial(jax.vmap, in_axes=(in_axes,))))(arrays)
    alone = []
    for i in range(size):
        some = {place: np.take(arrays[place], i, axis) for place, axis in axes.items()}
        alone.append(call.expected(arrays | some, np.cos))
    expected, gradients = jax.tree.map(lambda *each: np.stack(each), *alone)
    if how != "vmap of gradients":
        gradients = {
            place: np.moveaxis(each, 0, axes[place]) if place in axes else each.sum(axis=0)
            for place, each in gradients.items()
        }
    assert_close(out, expected, tolerance)
    if tolerance < 1e-4:
        assert_close({place: by[place] for place in gradients}, gradients, tolerance * 10)


@few
@given(st.data())
def test_mapped_calls_are_the_oracles(data: st.DataObject) -> None:
    if not next(COUNT) % 100:
        jax.clear_caches()  # each example compiles programs of its own
    dtypes, tolerance = data.draw(st.sampled_from(KINDS))
    call = data.draw(calls(dtypes))
    (axes, size), how = data.draw(maps(call)), data.draw(st.sampled_from(list(HOW)))
    without_jit = jax.disable_jit(data.draw(st.sampled_from([False, False, False, True])))
    x64, promotion = jax.enable_x64(dtypes == (np.float64,)), jax.numpy_dtype_promotion("standard")
    with x64, promotion, without_jit:
        assert_mapped(call, axes, size, how, tolerance)


@pytest.mark.parametrize("over", ["lengths", "resets", "params.wh h0", "params.wx x lengths"])
def test_vmap_is_a_loop(over: str) -> None:
    arrays = {"params": PARAMS, "x": X[0, 0], "h0": H0[0, 0], "reset_to": RESET_TO}
    arrays |= {"lengths": LENGTHS[1, 0], "resets": RESETS[0, 0]}
    static, structure = {"reverse": True}, jax.tree.structure(arrays)
    call = Call(rnn_states, named(arrays), structure, static, static, rnn_states)
    axes = {place: -1 if place == "params.wh" else 0 for place in over.split()}
    with jax.enable_x64(True):
        assert_mapped(call, axes, 3, "vmap of gradients", 1e-12)


@settings(few, max_examples=few.max_examples // 4)
@given(st.data())
def test_derivatives_of_any_order_are_jaxs_own(data: st.DataObject) -> None:
    """Those of a step that the rule does not know, in one piece, also where calls are mapped."""
    call = data.draw(calls(of=(rnn_states, of_step)))
    axes, size = data.draw(maps(call))
    way = data.draw(st.sampled_from(["forward over reverse", "reverse over reverse"]))
    arrays, in_axes = stacked(call, axes, size), {place: axes.get(place) for place in call.arrays}
    floating = {place: array for place, array in arrays.items() if is_floating(array)}
    own = {name: partial(f) if callable(f) else f for name, f in call.static.items()}
    own |= {name: None for name in ("checkpoint_every", "unroll") if name in own}

    def derivative(call: Call) -> Any:
        def loss(some: Any, *_: Any) -> Any:
            out = jax.vmap(call.run, in_axes=(in_axes,))(arrays | some)
            return sum(map(curved, jax.tree.leaves(out)))

        return jax.jit(WAYS[way](loss))(floating, 0.0, 0.0)

    with jax.enable_x64(True):
        assert_close(derivative(call), derivative(call._replace(static=own)), 1e-10)
