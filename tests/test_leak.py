"""A leak, inputs without weights, and the activations with a fast rule are what the oracle says."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import RNNParams, init_params, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.activations import TANGENTS
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import Sizes
from tests.compiled import n_products
from tests.helpers import (
    ACTIVATIONS,
    H0,
    LENGTHS,
    PADDING,
    PARAMS,
    RESETS,
    WAYS,
    X,
    assert_close,
    loss,
    numbers,
    own_tanh,
)

# Of each node, of each step of each sequence, and of each node in each of these.
LEAKS = {
    "nodes": numbers((4,), seed=2)[0],
    "steps": numbers((2, 3, 6, 1), seed=2)[0],
    "all": numbers((2, 3, 6, 4), seed=2)[0],
}
MASKS: dict[str, Any] = {"lengths": LENGTHS, "resets": RESETS, "reset_to": H0 / 2}

# In JAX and in the oracle, with the names of the functions that have the same rule.
SIGMOID = oracle.Differentiable(
    lambda a: 1 / (1 + np.exp(-a)), lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2
)
SOFTPLUS = oracle.Differentiable(lambda a: np.log1p(np.exp(a)), lambda a: 1 / (1 + np.exp(-a)))
RULES: dict[str, tuple[Any, oracle.Differentiable]] = {
    "tanh": (jnp.tanh, oracle.TANH),
    "lax.tanh": (jax.lax.tanh, oracle.TANH),
    "relu": (jax.nn.relu, oracle.RELU),
    "sigmoid": (jax.nn.sigmoid, SIGMOID),
    "lax.logistic": (jax.lax.logistic, SIGMOID),
    "softplus": (jax.nn.softplus, SOFTPLUS),
}


@cache
def weighed_gradients(activation: str, reverse: bool) -> Any:
    """Compiled once for each shape: the gradients of a weighted sum, and the results."""
    in_jax, _ = (ACTIVATIONS | RULES)[activation]

    def weighed(params: Any, x: Any, h0: Any, reset_to: Any, leak: Any, g: Any, masks: Any) -> Any:
        options = masks | {"reset_to": reset_to, "leak": leak, "reverse": reverse}
        h, (last,) = rnn_stacked((params,), x, (h0,), activation=in_jax, **options)
        return jnp.sum(g[0] * last) + jnp.sum(g[1] * h), (h, last)

    return jax.jit(jax.grad(weighed, (0, 1, 2, 3, 4), has_aux=True))


@pytest.mark.parametrize(
    ("activation", "n_features", "n_steps", "reverse", "shape"),
    [
        ("tanh", 3, 7, False, (3, 7, 4)),
        ("tanh", None, 7, True, (4,)),
        ("relu", None, 6, False, (6, 1)),
        ("sigmoid", 3, 6, True, (3, 1, 1)),
        ("silu", None, 6, True, (3, 6, 4)),
        ("tanh", 3, 3, True, ()),
    ],
)
@given(data=st.data())
def test_values_and_gradients_are_the_oracles(
    activation: str,
    n_features: int | None,
    n_steps: int,
    reverse: bool,
    shape: tuple[int, ...],
    data: st.DataObject,
) -> None:
    """With NaN in the padding, in `x` and in a leak of each step, which the oracle does not see."""
    sizes = Sizes((3,), n_steps, n_features, 4)
    (wx, wh, _), x, _ = data.draw(strategies.cases(sizes=st.just(sizes), dtype=np.float64))
    b, h0, reset_to = (data.draw(strategies.arrays((4,), np.float64)) for _ in range(3))
    leak = data.draw(strategies.arrays(shape, np.float64))
    lengths, resets = data.draw(strategies.lengths(sizes)), data.draw(strategies.resets(sizes))
    masks: Any = {"lengths": lengths, "resets": resets}
    g = numbers((3, 4), (3, n_steps, 4))

    options = masks | {"reset_to": reset_to, "leak": leak, "reverse": reverse}
    options["activation"] = (ACTIVATIONS | RULES)[activation][1]
    args = RNNParams(wx, wh, b), x, h0
    expected = oracle.rnn_gradients(*args, g_last=g[0], g_h=g[1], **options)
    values = oracle.rnn_states(*args, **options).h, oracle.rnn_forward(*args, **options)
    padding = np.arange(n_steps)[:, None] >= lengths[:, None, None]
    x = np.where(padding, np.nan, x)
    leak = np.where(padding, np.nan, leak) if shape == (3, n_steps, 4) else leak
    with jax.enable_x64(True):
        gradients = weighed_gradients(activation, reverse)
        actual = gradients(args[0], x, h0, reset_to, leak, g, masks)
    assert_close(actual, (tuple(expected), values), 1e-12)


@pytest.mark.parametrize("name", RULES)
def test_rules_of_activations_are_the_oracles(name: str) -> None:
    in_jax, in_oracle = RULES[name]
    assert in_jax in TANGENTS

    def last(params: Any) -> Any:
        return jnp.sum(rnn_forward(params, X, H0, activation=in_jax))

    expected = oracle.rnn_gradients(PARAMS, X, H0, g_last=1.0, activation=in_oracle).params
    with jax.enable_x64(True):
        assert_close(jax.jit(jax.grad(last))(PARAMS), expected, 1e-12)


@pytest.mark.parametrize("name", RULES)
def test_saturated_activations_pass_on_no_nan(name: str) -> None:
    """Also where an exponential would overflow."""
    run = jax.value_and_grad(
        lambda x: jnp.sum(rnn_forward(PARAMS, x, leak=0.5, activation=RULES[name][0]))
    )
    run = jax.jit(run)
    for size in (1e3, -1e3):
        value, gradient = run(np.full((6, 3), size, np.float32))
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("way", "leak"),
    [
        ("forward mode", "all"),
        ("forward over reverse", "nodes"),
        ("reverse over reverse", "steps"),
    ],
)
def test_the_rule_is_jaxs_own_derivative(leak: str, way: str) -> None:
    """With lengths and resets together; JAX differentiates each step of `own_tanh`."""
    args = RNNParams(PARAMS.wx, PARAMS.wh, LEAKS[leak]), X, H0

    def of(activation: Any) -> Any:
        def with_leak(params: Any, x: Any, h0: Any) -> Any:
            options = MASKS | {"leak": params.b}
            return loss(activation, options, params._replace(b=None), x, h0)

        return jax.jit(WAYS[way](with_leak))(*args)

    with jax.enable_x64(True):
        assert_close(of(jnp.tanh), of(own_tanh), 1e-11)


@pytest.mark.parametrize("activation", [jnp.tanh, own_tanh])
def test_a_leak_of_zero_holds_the_state_and_of_one_is_none(activation: Any) -> None:
    h = rnn_states(PARAMS, X, H0, leak=0, activation=activation).h
    held = np.broadcast_to(H0.astype(np.float32)[..., None, :], h.shape)
    np.testing.assert_array_equal(h, held)
    with_one = rnn_states(PARAMS, X, H0, leak=np.ones(4), activation=activation)
    assert_close(with_one, rnn_states(PARAMS, X, H0, activation=activation), 2e-7)


def test_an_infinite_state_stays_infinite() -> None:
    h0 = np.array([np.inf, 0, 0, 1])
    h = rnn_states(PARAMS, X, h0, leak=0.5).h
    assert_close(h, oracle.rnn_states(PARAMS, X, h0, leak=0.5).h, 1e-6)
    assert np.all(h[..., 0] == np.inf)


def test_steps_one_by_one_are_the_run() -> None:
    leak, h = LEAKS["all"], H0
    for t in range(6):
        h = rnn_step(PARAMS, h, X[..., t, :], leak=leak[..., t, :])
    assert_close(h, rnn_forward(PARAMS, X, H0, leak=leak), 1e-6)


def test_layers_have_the_same_leak() -> None:
    layers = init_params(jax.random.key(0), 3, 4), init_params(jax.random.key(1), None, 4)
    h, last = rnn_stacked(layers, X, leak=LEAKS["steps"], lengths=LENGTHS)
    expected = oracle.rnn_stacked(layers, X, leak=LEAKS["steps"], lengths=LENGTHS)
    assert_close((h, last), tuple(expected), 1e-5)
    assert np.all(np.isfinite(np.where(PADDING[..., None], 0, h)))


def test_inputs_without_weights_are_the_pre_activations() -> None:
    """And their gradient is the adjoint of these."""
    params = init_params(jax.random.key(0), None, 4)
    assert params.wx is None
    x = np.asarray(X @ PARAMS.wx, np.float32)
    weighted = RNNParams(PARAMS.wx, params.wh, params.b)
    assert_close(rnn_states(params, x), rnn_states(weighted, X), 1e-6)
    adjoint = jax.grad(lambda x: jnp.sum(rnn_forward(params, x)))(x)
    expected = oracle.rnn_gradients(params, x, g_last=1.0).x
    assert_close(adjoint, expected, 1e-6)


def test_inputs_without_weights_cost_no_product() -> None:
    """A gradient through a batch of many nodes has two products fewer than with weights."""
    x, key = np.ones((8, 50, 64), np.float32), jax.random.key(0)

    def products(n_features: int | None) -> int:
        params = init_params(key, n_features, 64)
        return n_products(jax.grad(lambda params: jnp.sum(rnn_forward(params, x))), params)

    assert 0 < products(None) <= products(64)
