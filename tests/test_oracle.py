"""The oracle gives what hand calculation and finite differences give, without using jaxrnn."""

import math
import re
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import RNNParams, RNNStates
from jaxrnn.testing import oracle, strategies
from tests.helpers import WORKED_H_LAST, WORKED_PARAMS, WORKED_X, assert_close, assert_equal

SINE = oracle.Differentiable(np.sin, np.cos)
CUBE = oracle.Differentiable(lambda a: a**3, lambda a: 3 * a**2)


def test_the_notebooks_worked_example() -> None:
    h = oracle.rnn_forward(WORKED_PARAMS, WORKED_X)
    np.testing.assert_array_equal(np.round(h, 8), WORKED_H_LAST)


# One node, one feature, two steps, and a^3 as activation, computed by hand:
#   a_1 = 2*3 + (-1)*1 + 1 = 6        h_1 = 216
#   a_2 = 1*3 + 216*1 + 1 = 220       h_2 = 220^3
# and with the loss 5 h_2 + 7 a_1 + 11 h_1:
#   ga_2 = 5 * 3 * 220^2 = 726000
#   gh_1 = 11 + ga_2 * 1 = 726011     ga_1 = 7 + 3 * 6^2 * gh_1 = 78409195
SCALAR = RNNParams(np.array([[3.0]]), np.array([[1.0]]), np.array([1.0]))


CALL: Any = SCALAR, [[2.0], [1.0]], [-1.0]


def test_states_and_gradients_by_hand() -> None:
    states = oracle.rnn_states(*CALL, activation=CUBE)
    assert_equal(states, RNNStates(np.array([[6.0], [220.0]]), np.array([[216.0], [220.0**3]])))
    assert_equal(oracle.rnn_forward(*CALL, activation=CUBE), np.array([220.0**3]))
    weights: Any = {"g_last": [5.0], "g_a": [[7.0], [0.0]], "g_h": [[11.0], [0.0]]}
    params, x, h0, *_ = oracle.rnn_gradients(*CALL, **weights, activation=CUBE)
    ga_1, ga_2 = 78409195.0, 726000.0
    wx, wh = np.array([[2 * ga_1 + 1 * ga_2]]), np.array([[-1 * ga_1 + 216 * ga_2]])
    assert_equal(params, RNNParams(wx, wh, np.array([ga_1 + ga_2])))
    assert_equal((x, h0), (np.array([[3 * ga_1], [3 * ga_2]]), np.array([ga_1])))


@pytest.mark.parametrize("name", [name for name in dir(oracle) if re.match("rnn_|stacked_", name)])
def test_unknown_options_are_refused(name: str) -> None:
    network = (SCALAR,) if "stacked" in name else SCALAR
    with pytest.raises(TypeError, match="the oracle has no option lenghts"):
        getattr(oracle, name)(network, [[2.0], [1.0]], lenghts=None)


def test_which_axis_is_which() -> None:
    """One step with distinct numbers: weights have a row for each input, a column for each node."""
    params = RNNParams(
        np.array([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]]),
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]) * 1000,
        np.array([0.25, 0.5, 0.75]),
    )
    h = oracle.rnn_forward(params, [[1.0, 2.0]], [1.0, 0.0, 2.0], activation=oracle.IDENTITY)
    assert_equal(h, np.array([5 + 15000.25, 50 + 18000.5, 500 + 21000.75]))


BAD: list[tuple[str, RNNParams[Any], dict[str, Any]]] = [
    ("params.wx must be of shape", SCALAR._replace(wx=np.ones((1, 2))), {}),
    ("params.wh must be of shape", SCALAR._replace(wh=np.ones((1, 2))), {}),
    ("params.b must be of shape", SCALAR._replace(b=np.ones(2)), {}),
    ("activation must be an oracle.Differentiable, ", SCALAR, {"activation": np.tanh}),
    ("lengths must be of shape", SCALAR, {"lengths": [1, 1]}),
    ("lengths must be from 0 to n_steps = 1, but is 2", SCALAR, {"lengths": 2}),
    ("resets must be of shape", SCALAR, {"resets": [True, False]}),
    ("reset_to must be given", SCALAR, {"resets": [True], "h0": [1.0]}),
]


@pytest.mark.parametrize(("message", "params", "options"), BAD)
def test_what_does_not_fit_is_named(message: str, params: Any, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        oracle.rnn_gradients(params, [[2.0]], **options)


def test_its_activations() -> None:
    """At zero and below relu is flat."""
    a = np.array([-1.0, 0.0, 2.0])
    assert_equal(oracle.RELU.function(a), np.array([0.0, 0.0, 2.0]))
    assert_equal(oracle.RELU.derivative(a), np.array([False, False, True]))
    a = np.array([math.log(2.0)])
    assert_close(oracle.TANH.function(a), np.array([0.6]), 1e-15)
    assert_close(oracle.TANH.derivative(a), np.array([0.64]), 1e-15)


def test_no_steps() -> None:
    """The last state is h0, and the gradient by h0 is that by the last state."""
    x = np.zeros((2, 0, 1))
    assert_equal(oracle.rnn_forward(SCALAR, x, [3.0]), np.array([[3.0], [3.0]]))
    got = oracle.rnn_gradients(SCALAR, x, [3.0], g_last=[[1.0], [10.0]])
    assert_equal(got.h0, np.array([11.0]))
    assert_equal(got.params, RNNParams(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)))


@pytest.mark.parametrize("activation", [oracle.TANH, SINE], ids=["tanh", "sine"])
@given(data=st.data())
def test_gradients_are_finite_differences(activation: oracle.Differentiable, data: Any) -> None:
    """Along a random direction in all arguments at once."""

    def draw_like(tree: Any) -> Any:
        return jax.tree.map(lambda a: data.draw(strategies.arrays(a.shape, np.float64)), tree)

    def values(case: Any) -> Any:
        last = oracle.rnn_forward(*case, activation=activation)
        return last, *oracle.rnn_states(*case, activation=activation)

    def product(left: Any, right: Any) -> float:
        return sum(map(np.vdot, jax.tree.leaves(left), jax.tree.leaves(right)))

    case = data.draw(strategies.cases(dtype=np.float64))
    direction, weights = draw_like(case), draw_like(values(case))

    def loss(step: float) -> float:
        return product(weights, values(jax.tree.map(lambda a, d: a + step * d, case, direction)))

    g_last, g_a, g_h = weights
    got = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h, activation=activation)
    by_h0 = None if case.h0 is None else got.h0
    slope, step = product((got.params, got.x, by_h0), direction), 1e-5
    difference = (loss(step) - loss(-step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_gradient_by_h0_has_the_shape_of_h0() -> None:
    x, g = np.ones((2, 3, 4, 1)), np.arange(6.0).reshape(2, 3, 1)
    full = oracle.rnn_gradients(SCALAR, x, np.zeros((2, 3, 1)), g_last=g).h0
    assert_equal(oracle.rnn_gradients(SCALAR, x, g_last=g).h0, full)
    of_shapes: list[tuple[tuple[int, ...], Any]] = [((), (0, 1, 2)), ((1,), (0, 1)), ((3, 1), 0)]
    for shape, axes in (*of_shapes, ((1, 3, 1), 0), ((2, 1, 1), 1)):
        got = oracle.rnn_gradients(SCALAR, x, np.zeros(shape), g_last=g).h0
        assert_close(got, np.sum(full, axes).reshape(shape), 1e-15)
