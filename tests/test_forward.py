"""rnn_step, rnn_forward and rnn_states have the values and shapes of README.md, and agree."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import RNNParams, RNNStates, rnn_forward, rnn_states, rnn_step
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES, Case, Sizes
from tests.helpers import (
    WORKED_H_LAST,
    WORKED_PARAMS,
    WORKED_X,
    assert_close,
    assert_equal,
    cases_of_one_shape,
    filled,
    numbers,
    over_numerics,
)

PARAMS = RNNParams(*map(np.float32, numbers((2, 4), (4, 4), (4,))))


def test_worked_example() -> None:
    with jax.enable_x64(True):
        h = rnn_forward(WORKED_PARAMS, WORKED_X)
        assert h.dtype == jnp.float64
        np.testing.assert_array_equal(np.round(h, 8), WORKED_H_LAST)
    h = rnn_forward(WORKED_PARAMS, WORKED_X)
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(h, WORKED_H_LAST, rtol=2e-7, atol=0)


@partial(jax.jit, static_argnames="activation")
def both(case: Case, **options: Any) -> Any:
    """The last state and all states, in one program."""
    return rnn_forward(*case, **options), rnn_states(*case, **options)


@over_numerics
@given(data=st.data())
def test_values_are_the_oracles(
    dtype: Any, tolerance: float, options: Any, in_oracle: Any, data: st.DataObject
) -> None:
    case = data.draw(strategies.cases(dtype=dtype))
    with jax.enable_x64(dtype == np.float64):
        last, states = both(case, **options)
    assert {last.dtype, states.a.dtype, states.h.dtype} == {np.dtype(dtype)}
    assert_close(last, oracle.rnn_forward(*case, activation=in_oracle), tolerance)
    assert_close(states, oracle.rnn_states(*case, activation=in_oracle), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.bfloat16, 0.03), (jnp.float16, 0.004)])
@given(data=st.data())
def test_narrow_values_are_the_oracles(dtype: Any, tolerance: float, data: st.DataObject) -> None:
    """Within four units in the last place of 1."""
    case = filled(data.draw(strategies.cases(sizes=st.just(SIZES[-1]), dtype=dtype)))
    states = rnn_states(*case)
    assert states.h.dtype == dtype
    as_float64 = jax.tree.map(lambda array: np.asarray(array, np.float64), states)
    assert_close(as_float64, oracle.rnn_states(*case), tolerance)


@given(
    batch=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    n_steps=st.integers(0, 9),
    n_features=st.integers(0, 9),
    n_nodes=st.integers(1, 9),
    bias=st.booleans(),
)
def test_shapes(
    batch: tuple[int, ...], n_steps: int, n_features: int, n_nodes: int, bias: bool
) -> None:
    """For many sizes, with `jax.eval_shape`, which compiles nothing."""

    def struct(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    params = RNNParams(
        struct(n_features, n_nodes), struct(n_nodes, n_nodes), struct(n_nodes) if bias else None
    )
    x, h0 = struct(*batch, n_steps, n_features), struct(*batch, n_nodes)
    states = struct(*batch, n_steps, n_nodes)
    assert jax.eval_shape(rnn_forward, params, x) == h0
    assert jax.eval_shape(rnn_forward, params, x, struct(n_nodes)) == h0
    assert jax.eval_shape(rnn_states, params, x, h0) == RNNStates(states, states)
    assert jax.eval_shape(rnn_step, params, h0, struct(*batch, n_features)) == h0


@given(strategies.cases())
def test_forward_is_the_last_of_the_states(case: Case) -> None:
    last, (_, h) = jax.device_get(both(case))
    if h.shape[-2] > 0:
        assert_close(last, h[..., -1, :], 1e-6)


@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes.n_steps == 0])
@given(data=st.data())
def test_no_steps_give_h0(sizes: Sizes, data: st.DataObject) -> None:
    case = data.draw(strategies.cases(sizes=st.just(sizes)))
    h0 = np.zeros(sizes.n_nodes, np.float32) if case.h0 is None else case.h0
    assert_equal(rnn_forward(*case), np.broadcast_to(h0, (*sizes.batch, sizes.n_nodes)))


@given(cases_of_one_shape)
def test_steps_one_by_one_are_the_states(case: Case) -> None:
    params, x, h0 = case
    h = rnn_forward(params, x[..., :0, :], h0)
    states = jax.tree.map(np.asarray, rnn_states(*case))
    for t in range(x.shape[-2]):
        h = rnn_step(params, h, x[..., t, :])
        assert_close(h, states.h[..., t, :], 1e-6)
    assert_close(rnn_forward(*case), h, 1e-6)
    assert_close(states.h, np.tanh(states.a), 1e-6)


@given(case=cases_of_one_shape, data=st.data())
def test_permuting_nodes_permutes_states(case: Case, data: st.DataObject) -> None:
    wx, wh, b, x, h0 = jax.tree.leaves(case)
    order = np.array(data.draw(st.permutations(range(len(wh)))))
    permuted = RNNParams(wx[:, order], wh[order][:, order], b[order])
    expected = jax.tree.map(lambda v: np.asarray(v)[..., order], rnn_states(*case))
    assert_close(rnn_states(permuted, x, h0[..., order]), expected, 1e-6)


@given(data=st.data())
def test_a_step_broadcasts_states_against_inputs(data: st.DataObject) -> None:
    params = data.draw(strategies.params(2, 4))
    h, x_t = data.draw(strategies.arrays((5, 1, 4))), data.draw(strategies.arrays((3, 2)))
    every = np.asarray(rnn_step(params, h, x_t))
    assert every.shape == (5, 3, 4)
    for i, j in np.ndindex(5, 3):
        assert_close(every[i, j], rnn_step(params, h[i, 0], x_t[j]), 1e-6)


@given(case=cases_of_one_shape, unroll=st.sampled_from([2, 7]))
def test_unrolling_changes_nothing(case: Case, unroll: int) -> None:
    assert_close(rnn_forward(*case, unroll=unroll), rnn_forward(*case), 1e-6)
    assert_close(rnn_states(*case, unroll=unroll), rnn_states(*case), 1e-6)


@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
@pytest.mark.parametrize(("unroll", "scanned"), [(1, "unroll=1"), (3, "unroll=3")])
def test_unrolling_is_left_to_scan(function: Any, unroll: int, scanned: str) -> None:
    x = jnp.ones((5, 2))
    assert scanned in str(jax.make_jaxpr(lambda x: function(PARAMS, x, unroll=unroll))(x))


def test_a_symbolic_number_of_steps_is_not_unrolled() -> None:
    (n_steps,) = jax.export.symbolic_shape("n_steps")
    x: Any = jax.ShapeDtypeStruct((n_steps, 2), jnp.float32)
    for unroll in (None, 1, False):
        jax.eval_shape(partial(rnn_forward, PARAMS, unroll=unroll), x)
    for unroll in (8, 0, True):
        with pytest.raises(ValueError, match="unroll must be None, 1 or False with a symbolic n_"):
            jax.eval_shape(partial(rnn_forward, PARAMS, unroll=unroll), x)


@pytest.mark.parametrize("h0", [0.5, [0.5] * 4, [[0.5]], [[0.5] * 4] * 3])
def test_h0_broadcasts(h0: Any) -> None:
    x = np.ones((3, 5, 2), np.float32)
    expected = rnn_forward(PARAMS, x, np.full((3, 4), 0.5, np.float32))
    assert_equal(rnn_forward(PARAMS, x, np.array(h0, np.float32)), expected)


@pytest.mark.parametrize("batch", [1, 4])
def test_an_activation_may_hold_a_row(batch: int) -> None:
    """The row broadcasts against the state, also against that of a batch of one."""
    gains = np.array([[0.5, 1.0, 2.0]], np.float32)
    shapes = (2, 3), (3, 3), (3,), (batch, 6, 2)
    *weights, x = (array.astype(np.float32) for array in numbers(*shapes))
    params = RNNParams(*weights)
    last = rnn_forward(params, x, activation=lambda a: jnp.tanh(gains * a))
    h: Any = np.zeros((batch, 3))
    for t in range(6):
        h = np.tanh(gains * (x[:, t] @ params.wx + h @ params.wh + params.b))
    assert_close(last, h, 1e-5)


class Doubled:
    """A callable to which there can be no weak reference."""

    __slots__ = ()

    def __call__(self, a: jax.Array) -> jax.Array:
        return jnp.tanh(2 * a)


def test_any_callable_is_an_activation() -> None:
    x = jnp.ones((3, 2))
    expected = rnn_forward(PARAMS, x, activation=lambda a: jnp.tanh(2 * a))
    for _ in range(2):
        assert_equal(rnn_forward(PARAMS, x, activation=Doubled()), expected)
