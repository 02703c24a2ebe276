"""What derivatives must be besides right, of which `test_plan.py` has a table."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle
from tests.compiled import n_products
from tests.helpers import (
    H0,
    KNOWN,
    PARAMS,
    RESET_TO,
    WAYS,
    X,
    assert_close,
    at,
    curved,
    loss,
    numbers,
    of_jax,
    of_oracle,
    own_tanh,
)


@pytest.mark.parametrize("size", [1.0, -2.0, 1e25])
def test_h0_need_not_be_a_value_of_the_activation(size: float) -> None:
    """Even where its square overflows, no tangent and no gradient becomes NaN."""
    args: Any = jax.tree.map(np.float32, (PARAMS, X, np.full((2, 3, 4), size)))

    def derivatives(activation: Any) -> Any:
        def total(*args: Any) -> Any:
            return curved(rnn_states(*args, activation=activation).h)

        return jax.jit(lambda *args: (jax.jvp(total, args, args), jax.grad(total)(*args)))(*args)

    assert_close(derivatives(jnp.tanh), derivatives(lambda a: jnp.tanh(a)), 1e-4)


@pytest.mark.parametrize(
    ("n", "derive"),
    [(1, lambda f: jax.grad(f, argnums=(0, 1, 2))), (3, WAYS["forward over reverse"])],
)
def test_any_function_of_a_step_that_treats_each_sequence_alone(n: int, derive: Any) -> None:
    """Layer normalisation over the nodes, with a gain of each sequence, under every option."""
    args = numbers((n, 4), (n, 6, 3), (n, 4), seed=5)
    masks = {"lengths": 6 - np.arange(n), "resets": numbers((n, 6), seed=6)[0] < -0.2}
    options: Any = {"reset_to": RESET_TO, "leak": 0.3, "reverse": True, "checkpoint_every": 4}

    def normalised(gain: Any, a: Any) -> Any:
        centred = a - jnp.mean(a, axis=-1, keepdims=True)
        return gain * centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 0.1)

    @jax.jit
    def derivative(masks: Any, *args: Any) -> Any:
        def total(gain: Any, x: Any, h0: Any) -> Any:
            f, rate = partial(normalised, gain), partial(normalised, 2 * gain)
            return loss(f, {"rate": rate, **masks, **options}, PARAMS, x, h0)

        return derive(total)(*args)

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        alone = [derivative(*at((masks, *args), i)) for i in range(n)]
        expected = jax.tree.map(lambda *each: np.stack(each), *alone)
        assert_close(derivative(masks, *args), expected, 1e-10)
        assert_close(jax.vmap(derivative)(masks, *args), expected, 1e-10)


# Of activations with a rule, leaks, and inputs without weights


@pytest.mark.parametrize("activation", KNOWN)
def test_rules_of_activations_are_the_oracles(activation: Any) -> None:
    """Where they saturate they pass on no NaN, not even where an exponential would overflow."""

    @jax.jit
    def gradients(**arrays: Any) -> Any:
        return of_jax(rnn_forward, arrays | {"activation": activation})

    call = {"params": PARAMS, "x": X, "h0": H0, "leak": 0.5}
    with jax.enable_x64(True):
        expected = of_oracle(rnn_forward, call | {"activation": activation})
        assert_close(gradients(**call), expected, 1e-12)
    for size in (1e3, -1e3):
        saturated = gradients(**call | {"x": np.full((6, 3), size), "h0": np.zeros(4)})
        assert all(np.all(np.isfinite(each)) for each in jax.tree.leaves(saturated[1]))


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


# Of parts


def test_gradients_by_each_argument_alone() -> None:
    args, weights = (*PARAMS, X, H0), numbers((2, 3, 6, 4), seed=1)[0]

    def total(*args: Any) -> Any:
        return jnp.sum(weights * rnn_states(RNNParams(*args[:3]), *args[3:]).h)

    with jax.enable_x64(True):
        alone = jax.jit(lambda *args: [jax.grad(total, i)(*args) for i in range(5)])(*args)
    expected = oracle.rnn_gradients(PARAMS, X, H0, g_h=weights)
    assert_close(alone, [*expected.params, expected.x, expected.h0], 1e-11)


def test_an_inactive_node_of_relu_passes_on_no_nan() -> None:
    """Also without the compiler, which can turn a product with a mask into a choice."""
    params = PARAMS._replace(wh=np.where(np.eye(4, k=2) > 0, np.nan, PARAMS.wh))
    args = params, X[0], H0[0]

    def total(*args: Any) -> Any:
        return jnp.sum(rnn_states(*args, activation=jax.nn.relu).h)

    with jax.enable_x64(True), jax.disable_jit():
        got = jax.grad(total, argnums=(0, 1, 2))(*args)
    expected = oracle.rnn_gradients(*args, g_h=1.0, activation=oracle.RELU)
    assert not np.all(np.isnan(np.asarray(expected.params.b)))
    assert_close(got, tuple(expected[:3]), 1e-12)


def test_what_is_not_differentiated_costs_nothing() -> None:
    """Compiled, a gradient has three products in its loops, and one more for wx, wh and x each."""
    shapes = (7, 16), (16, 16), (16,), (64, 32, 7), (64, 16)
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def last(*arrays: Any) -> Any:
        return jnp.sum(rnn_forward(RNNParams(*arrays[:3]), *arrays[3:], unroll=1))

    every = tuple(range(5))
    of_each = [n_products(jax.grad(last, argnums=i), *structs) - 3 for i in every]
    assert of_each == [1, 1, 0, 1, 0]  # by wx, wh, b, x and h0
    assert n_products(jax.grad(last, argnums=every), *structs) == 3 + sum(of_each)


def test_gradients_by_parameters_where_inputs_are_integers() -> None:
    counts = np.array([[1, 2, 0], [0, 3, 1]], np.int32)

    def gradient(x: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return jax.grad(lambda params: jnp.sum(rnn_forward(params, x)))(PARAMS)

    assert_close(gradient(counts), gradient(counts.astype(np.float32)), 1e-6)
