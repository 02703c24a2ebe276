"""A leak, inputs without weights, and the activations with a fast rule.

That values and gradients are the oracle's is in `test_derivatives.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import init_params, rnn_forward, rnn_states
from jaxrnn.activations import TANGENTS
from jaxrnn.testing import oracle
from tests.compiled import n_products
from tests.helpers import ACTIVATIONS, H0, PARAMS, X, assert_close, own_tanh


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"silu"}))
def test_rules_of_activations_are_the_oracles(name: str) -> None:
    """Where they saturate they pass on no NaN, not even where an exponential would overflow."""
    in_jax, in_oracle = ACTIVATIONS[name]
    assert in_jax in TANGENTS

    @jax.jit
    def gradients(params: Any, x: Any, h0: Any, leak: Any) -> Any:
        def last(params: Any, x: Any) -> Any:
            return jnp.sum(rnn_forward(params, x, h0, leak=leak, activation=in_jax))

        return jax.value_and_grad(last, argnums=(0, 1))(params, x)

    expected = oracle.rnn_gradients(PARAMS, X, H0, g_last=1.0, activation=in_oracle)
    with jax.enable_x64(True):
        assert_close(gradients(PARAMS, X, H0, 1.0)[1], tuple(expected[:2]), 1e-12)
    for size in (1e3, -1e3):
        saturated = gradients(PARAMS, np.full((6, 3), size, np.float32), np.zeros(4), 0.5)
        assert all(np.all(np.isfinite(each)) for each in jax.tree.leaves(saturated))


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


def test_inputs_without_weights_cost_no_product() -> None:
    """A gradient through a batch of many nodes has two products fewer than with weights."""
    x, key = np.ones((8, 50, 64), np.float32), jax.random.key(0)

    def products(n_features: int | None) -> int:
        params = init_params(key, n_features, 64)
        return n_products(jax.grad(lambda params: jnp.sum(rnn_forward(params, x))), params)

    assert 0 < products(None) <= products(64)
