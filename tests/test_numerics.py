"""Numbers at the edges, as the oracle has them; and the same numbers whatever else is computed."""

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle
from tests.comparing import assert_equal

ARCTAN = oracle.Differentiable(np.arctan, lambda a: 1 / (1 + a * a))
# relu is tried in float64 alone, for the reason in tests/comparing.py; arctan is differentiated
# step by step.
NUMERICS: dict[str, tuple[Any, float, Any, oracle.Differentiable]] = {
    "tanh-float32": (np.float32, 1e-5, jnp.tanh, oracle.TANH),
    "relu-float64": (np.float64, 1e-12, jax.nn.relu, oracle.RELU),
    "arctan-float64": (np.float64, 1e-12, jnp.arctan, ARCTAN),
}
# Products as sums, steps written out, and products of a library: batch, steps, features, nodes.
SIZES = {"small": (3, 7, 2, 4), "few": (3, 3, 2, 4), "wide": (3, 7, 17, 33)}
ARGUMENTS = ("wx", "wh", "b", "x", "h0")


def arguments(sizes: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """Of a network that does not amplify: wx, wh, b, x, h0, and cotangents of all states."""
    batch, n_steps, n_features, n_nodes = sizes
    uniform = np.random.default_rng(seed).uniform
    shapes = [(n_features, n_nodes), (n_nodes, n_nodes), (n_nodes,), (batch, n_steps, n_features)]
    drawn = [uniform(-1, 1, shape) for shape in [*shapes, (batch, n_nodes)]]
    drawn[0] /= n_features
    drawn[1] /= np.sqrt(n_nodes)
    g = uniform(-1, 1, (batch, n_steps, n_nodes)).astype(dtype)
    return tuple(each.astype(dtype) for each in drawn), g


@partial(jax.jit, static_argnames="activation")
def all_of(arrays: Any, g: Any, *, activation: Any = jnp.tanh) -> tuple[Any, Any]:
    """The last state, all states, and the gradients of `sum(g * h)` by every argument."""

    def states(wx: Any, wh: Any, b: Any, x: Any, h0: Any) -> Any:
        return rnn_states(RNNParams(wx, wh, b), x, h0, activation=activation)

    def hidden(*arrays: Any) -> Any:
        return states(*arrays).h

    (wx, wh, b, x, h0) = arrays
    last = rnn_forward(RNNParams(wx, wh, b), x, h0, activation=activation)
    return (last, *states(*arrays)), jax.vjp(hidden, *arrays)[1](g)


def in_oracle(arrays: Any, g: Any, activation: oracle.Differentiable) -> tuple[Any, Any]:
    wx, wh, b, x, h0 = arrays
    call: Any = RNNParams(wx, wh, b), x, h0
    with np.errstate(all="ignore"):
        last = oracle.rnn_forward(*call, activation=activation)
        values = last, *oracle.rnn_states(*call, activation=activation)
        gradients = oracle.rnn_gradients(*call, g_h=g, activation=activation)
    return values, (*gradients.params, gradients.x, gradients.h0)


def assert_oracles(got: Any, expected: Any, tolerance: float) -> None:
    """NaN and each infinity in the same places, and the rest within the tolerance."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    for actual, wanted in leaves:
        largest = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=1)
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize(
    ("numerics", "size"),
    [
        *(("tanh-float32", size) for size in SIZES),
        ("relu-float64", "small"),
        ("arctan-float64", "wide"),
    ],
)
def test_one_number_out_of_range(numerics: str, size: str) -> None:
    """NaN, infinite or huge, in each argument: what it reaches, it reaches in the oracle."""
    dtype, tolerance, activation, activation_in_oracle = NUMERICS[numerics]
    for i in range(len(ARGUMENTS)):
        for value in (np.nan, np.inf, -np.inf, 1e4):
            arrays, g = arguments(SIZES[size], dtype, seed=i)
            arrays[i].flat[1] = value
            with jax.enable_x64(dtype == np.float64):
                got = all_of(arrays, g, activation=activation)
            assert_oracles(got, in_oracle(arrays, g, activation_in_oracle), tolerance)


@pytest.mark.parametrize("numerics", NUMERICS)
def test_zeros_of_either_sign(numerics: str) -> None:
    """All of an argument, and all arguments: relu's derivative is taken at its kink."""
    dtype, tolerance, activation, activation_in_oracle = NUMERICS[numerics]
    for zeros in (*((i,) for i in range(len(ARGUMENTS))), range(len(ARGUMENTS))):
        for zero in (0.0, -0.0):
            arrays, g = arguments(SIZES["small"], dtype)
            for i in zeros:
                arrays[i][:] = zero
            with jax.enable_x64(dtype == np.float64):
                got = all_of(arrays, g, activation=activation)
            assert_oracles(got, in_oracle(arrays, g, activation_in_oracle), tolerance)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends may keep them")
@pytest.mark.parametrize("size", SIZES)
def test_denormals_are_zeros(size: str) -> None:
    """To XLA on CPUs; the oracle keeps them, as it shows where they meet weights of 1e30."""
    for i in range(len(ARGUMENTS)):
        arrays, g = arguments(SIZES[size], np.float32)
        if i > 0:
            arrays[0][:] = 1e30
        arrays[i][:] = np.finfo(np.float32).tiny / 4
        with_denormals = jax.device_get(all_of(arrays, g))
        if ARGUMENTS[i] == "x":
            assert np.all(in_oracle(arrays, g, oracle.TANH)[1][2] != with_denormals[1][2])
        arrays[i][:] = 0.0
        assert_equal(with_denormals, jax.device_get(all_of(arrays, g)))


@pytest.mark.parametrize("size", SIZES)
def test_saturated_tanh(size: str) -> None:
    """States of exactly one, and gradients of exactly zero, as the oracle has them."""
    (wx, wh, b, x, h0), g = arguments(SIZES[size], np.float32)
    arrays = wx * np.float32(1e5), wh, b + np.sign(b) * np.float32(1e9), x, h0
    (last, a, h), gradients = all_of(arrays, g)
    (last_expected, a_expected, h_expected), expected = in_oracle(arrays, g, oracle.TANH)
    np.testing.assert_array_equal(np.abs(h), np.ones_like(h))
    np.testing.assert_array_equal(last, last_expected)
    np.testing.assert_array_equal(h, h_expected)
    np.testing.assert_allclose(a, a_expected, rtol=1e-6)
    for got, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(wanted, np.zeros_like(wanted))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("size", ["small", "few"])
def test_relu_overflows_to_infinity(size: str) -> None:
    """Where float32 does and float64 does not: states and gradients both."""
    arrays, g = arguments(SIZES[size], np.float32)
    wx, wh, b, x, h0 = (np.abs(array) + np.float32(0.1) for array in arrays)
    arrays, g = (wx, wh * np.float32(1e25), b, x, h0), np.abs(g)
    expected = in_oracle(arrays, g, oracle.RELU)
    with np.errstate(over="ignore"):
        wanted = jax.tree.map(np.float32, expected)
    assert np.any(np.isinf(wanted[0][0]))
    assert all(np.any(np.isinf(each)) for each in wanted[1][:3])
    assert_oracles(all_of(arrays, g, activation=jax.nn.relu), wanted, 1e-5)


# In units of float32's epsilon at the largest entry of each array, from 1 to 128 nodes.
BOUND = 16.0


def assert_near(got: Any, expected: Any) -> None:
    for actual, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        largest = np.max(np.abs(wanted))
        difference = np.max(np.abs(np.asarray(actual, np.float64) - wanted))
        assert difference <= BOUND * np.finfo(np.float32).eps * largest


def of_sequences(result: Any) -> Any:
    """What each sequence has of its own: its states, and the gradients by x and h0."""
    values, gradients = result
    return *values, *gradients[3:]


@pytest.mark.parametrize("n_nodes", [22, 128])
def test_a_sequence_is_itself_in_any_company(n_nodes: int) -> None:
    """By itself, in batches, and under `jax.vmap` over sequences and over parameter sets."""
    (*weights, x, h0), g = arguments((33, 6, 3, n_nodes), np.float32)
    weights, whole = tuple(weights), of_sequences(all_of((*weights, x, h0), g))
    for n in (1, 8):
        part = of_sequences(all_of((*weights, x[:n], h0[:n]), g[:n]))
        assert_near(part, jax.tree.map(lambda array: array[:n], whole))  # noqa: B023

    over_sequences = jax.vmap(all_of, in_axes=((None, None, None, 0, 0), 0))
    assert_near(of_sequences(over_sequences((*weights, x, h0), g)), whole)

    others, _ = arguments((33, 6, 3, n_nodes), np.float32, seed=1)
    sets = tuple(np.stack(pair) for pair in zip(weights, others, strict=False))
    over_sets = jax.vmap(all_of, in_axes=((0, 0, 0, None, None), None))
    of_first = jax.tree.map(lambda array: array[0], over_sets((*sets, x, h0), g))
    assert_near(of_first, all_of((*weights, x, h0), g))


@pytest.mark.parametrize("n_nodes", [22, 128])
def test_other_sequences_change_no_bit(n_nodes: int) -> None:
    """What they hold; in which order they come changes no more than company does."""
    (*weights, x, h0), g = arguments((33, 6, 3, n_nodes), np.float32)
    whole = of_sequences(all_of((*weights, x, h0), g))
    own = np.arange(33) % 3 == 0
    for value in (np.nan, np.inf, np.finfo(np.float32).max, 0.0):
        among = np.where(own[:, None, None], x, np.float32(value))
        states = np.where(own[:, None], h0, np.float32(value))
        changed = of_sequences(all_of((*weights, among, states), g))
        assert_equal(*(jax.tree.map(lambda array: array[own], each) for each in (changed, whole)))

    order = np.random.default_rng(0).permutation(33)
    permuted = of_sequences(all_of((*weights, x[order], h0[order]), g[order]))
    assert_near(permuted, jax.tree.map(lambda array: array[order], whole))


def bits() -> str:
    """Of a call whose products several threads share."""
    arrays, g = arguments((33, 50, 17, 128), np.float32)
    results = jax.device_get(jax.tree.leaves(all_of(arrays, g)))
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def test_runs_repeat_to_the_last_bit() -> None:
    """Values and gradients: in one process, and in another, compiled again."""
    first = bits()
    assert [bits() for _ in range(10)] == [first] * 10
    script = "from tests.test_numerics import bits; print(bits())"
    command = [sys.executable, "-c", script]
    root = Path(__file__).parent.parent
    run = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.strip() == first
