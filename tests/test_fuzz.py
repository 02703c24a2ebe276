"""Any call, also under `jax.vmap` over any of its arguments, gives what the oracle says."""

from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrnn import LayerStates, rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.testing import strategies
from jaxrnn.testing.strategies import DIRECTIONS, Sizes, is_floating
from tests.helpers import (
    H0,
    KNOWN,
    LENGTHS,
    PARAMS,
    RESET_TO,
    RESETS,
    X,
    assert_close,
    at,
    of_jax,
    of_oracle,
)

COUNT = count(1)

# Few unless the profile is `long`, as each example compiles programs of its own.
few = settings() if settings().max_examples > 1000 else settings(max_examples=4)


def of_step(params: Any, x: Any, h0: Any, **options: Any) -> Any:
    return rnn_step(params, h0, x[..., 0, :], **options)


def of_pair(layers: Any, x: Any, h0: Any, **options: Any) -> Any:
    out = rnn_bidirectional(layers[0], x, h0[0], **options)
    return LayerStates(out.h, (out.last,))


# Functions, and those whose values and gradients the oracle has.
FUNCTIONS: dict[Any, Any] = {
    **{each: each for each in (rnn_forward, rnn_states, rnn_stacked)},
    **{of_step: rnn_forward, of_pair: rnn_stacked},
}
# Besides the sizes of the strategies: one sequence, the same in a batch of one, and one with so
# many features that their product is not small.
SIZES = (*strategies.SIZES, Sizes((), 7, 2, 3), Sizes((1, 2), 5, 2, 2), Sizes((), 5, 40, 13))
# Dtypes to draw from, and the tolerance that the strategies promise; relu is in float64 alone.
KINDS: tuple[tuple[tuple[Any, ...], float], ...] = (
    ((np.float64,), 1e-12),
    ((np.float32,), 1e-5),
    ((jnp.bfloat16,), 0.03),
    ((np.float16,), 0.004),
    ((np.float32, jnp.bfloat16, np.float16), 0.03),
)


@st.composite
def calls(draw: st.DrawFn, dtypes: tuple[Any, ...]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A function, its arrays by name, also with NaN in the padding, and its other options."""
    function, sizes = draw(st.sampled_from(list(FUNCTIONS))), draw(st.sampled_from(SIZES))
    sizes = sizes._replace(n_steps=1) if function is of_step else sizes
    kind: Any = {"sizes": st.just(sizes), "dtype": np.float64}
    if FUNCTIONS[function] is rnn_stacked:
        directions = st.just((2,)) if function is of_pair else st.sampled_from(DIRECTIONS)
        case: Any = draw(strategies.stacked_cases(**kind, directions=directions))
    else:
        h0s = ["each", "shared"] if function is of_step else [None]
        case = draw(strategies.cases(**kind, h0=draw(st.sampled_from(h0s))))
    # In narrow types, rounding can decide on which side of relu's kink a sum falls.
    names = [*KNOWN, jax.nn.silu] if dtypes == (np.float64,) else [jnp.tanh, jax.nn.silu]
    static = {
        "activation": draw(st.sampled_from(names)),
        "rate": draw(st.sampled_from([None, *names])),
    }
    arrays = case._asdict()
    if function is not of_step:
        arrays |= draw(strategies.options(sizes, dtype=np.float64))
        static |= {"reverse": arrays.pop("reverse"), "unroll": draw(st.sampled_from([1, 2, 9]))}
        static["checkpoint_every"] = draw(st.sampled_from([None, 1, 2, 4, 9]))
    if arrays.get("lengths") is not None and draw(st.booleans()):
        padding = np.arange(sizes.n_steps) >= arrays["lengths"][..., None]
        arrays["x"] = np.where(padding[..., None], np.nan, arrays["x"])

    def cast(array: Any) -> Any:
        return array.astype(draw(st.sampled_from(dtypes))) if is_floating(array) else array

    return function, jax.tree.map(cast, arrays), static


def assert_mapped(call: Any, over: Any, size: int, inside: bool, tolerance: float) -> None:
    """Of a call mapped over some of its arrays: gradients inside the map, or of the mapped call."""
    function, arrays, static = call
    n_steps = arrays["x"].shape[-2]

    def varied(array: Any) -> Any:
        if array.dtype == np.bool_:
            return np.stack([array, ~array, np.flip(array)][:size])
        if is_floating(array):
            return np.stack([array, -array, (array / 2).astype(array.dtype)][:size])
        return np.stack([array, n_steps - array, array // 2][:size])

    stacks = arrays | {name: jax.tree.map(varied, arrays[name]) for name in over}
    axes = {name: 0 if name in over else None for name in arrays}

    def run(**arrays: Any) -> Any:
        return function(**arrays, **static)

    def mapped(found: Any) -> Any:
        return jax.vmap(lambda arrays: found(**arrays), in_axes=(axes,))

    if inside:
        out, by = jax.jit(mapped(lambda **arrays: of_jax(run, arrays)))(stacks)
    else:
        out, by = jax.jit(lambda arrays: of_jax(lambda **a: mapped(run)(a), arrays))(stacks)
    alone = [
        of_oracle(
            FUNCTIONS[function], static | arrays | {name: at(stacks[name], i) for name in over}
        )
        for i in range(size)
    ]
    expected, gradients = jax.tree.map(lambda *parts: np.stack(parts), *alone)
    if not inside:
        gradients = {
            name: g if name in over else jax.tree.map(lambda stack: stack.sum(axis=0), g)
            for name, g in gradients.items()
        }
    assert_close(out, expected, tolerance)
    if tolerance < 1e-4:
        assert_close(by, gradients, tolerance * 10)


@pytest.mark.parametrize(("dtypes", "tolerance"), KINDS)
@few
@given(data=st.data())
def test_mapped_calls_are_the_oracles(dtypes: Any, tolerance: float, data: Any) -> None:
    if not next(COUNT) % 100:
        jax.clear_caches()  # each example compiles programs of its own
    call = data.draw(calls(dtypes))
    is_poisoned = np.any(np.isnan(np.float64(call[1]["x"])))
    names = [name for name, each in call[1].items() if jax.tree.leaves(each)]
    names = [name for name in names if not (is_poisoned and name == "lengths")]
    over = data.draw(st.sets(st.sampled_from(names), min_size=1))
    how = over, data.draw(st.integers(1, 3)), data.draw(st.booleans())
    without_jit = jax.disable_jit(data.draw(st.sampled_from([False, False, False, True])))
    x64, promotion = jax.enable_x64(dtypes == (np.float64,)), jax.numpy_dtype_promotion("standard")
    with x64, promotion, without_jit:
        assert_mapped(call, *how, tolerance)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("over", ["lengths", "resets", "params h0", "x lengths leak reset_to"])
def test_vmap_is_a_loop(over: str, inside: bool) -> None:
    arrays = {
        "params": PARAMS,
        "x": X[0, 0],
        "h0": H0[0, 0],
        "reset_to": RESET_TO,
        "leak": H0[0, 1],
    }
    arrays |= {"lengths": LENGTHS[1, 0], "resets": RESETS[0, 0]}
    with jax.enable_x64(True):
        assert_mapped((rnn_states, arrays, {"reverse": True}), over.split(), 3, inside, 1e-12)
