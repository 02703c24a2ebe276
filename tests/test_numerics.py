"""Extreme numbers give what they give in the oracle; any batch and any run gives the same."""

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams
from jaxrnn.testing import oracle
from tests.helpers import assert_close, assert_equal, at, every_value, numbers

ARCTAN = oracle.Differentiable(np.arctan, lambda a: 1 / (1 + a * a))
# relu is tested in float64 only, for the reason that `over_numerics` in tests/helpers.py gives.
# arctan is differentiated step by step.
NUMERICS: dict[str, tuple[Any, float, Any, oracle.Differentiable]] = {
    "tanh-float32": (np.float32, 1e-5, jnp.tanh, oracle.TANH),
    "relu-float64": (np.float64, 1e-12, jax.nn.relu, oracle.RELU),
    "arctan-float64": (np.float64, 1e-12, jnp.arctan, ARCTAN),
}
# Batch, steps, features and nodes: where products are sums, where JAX's own derivative is
# used, and where products are left to a library.
SIZES = {"small": (3, 7, 2, 4), "few": (3, 3, 2, 4), "wide": (3, 7, 17, 33)}


def arguments(sizes: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """wx, wh, b, x and h0 of a network that contracts, and cotangents of all states."""
    batch, n_steps, n_features, n_nodes = sizes
    of_params = (n_features, n_nodes), (n_nodes, n_nodes), (n_nodes,)
    others = (batch, n_steps, n_features), (batch, n_nodes), (batch, n_steps, n_nodes)
    wx, wh, *rest = numbers(*of_params, *others, seed=seed)
    drawn = wx / n_features, wh / np.sqrt(n_nodes), *rest
    *arrays, g = (each.astype(dtype) for each in drawn)
    return tuple(arrays), g


@partial(jax.jit, static_argnames="activation")
def all_of(arrays: Any, g: Any, *, activation: Any = jnp.tanh) -> tuple[Any, Any]:
    """The last state, all states, and the gradients of `sum(g * h)` by every argument."""

    def hidden(wx: Any, wh: Any, b: Any, x: Any, h0: Any) -> Any:
        last, a, h = every_value(RNNParams(wx, wh, b), x, h0, activation=activation)
        return h, (last, a, h)

    _, pull, values = jax.vjp(hidden, *arrays, has_aux=True)
    return values, pull(g)


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
    for actual, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        largest = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=1)
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance * largest)


def assert_spoilt_is_the_oracles(
    numerics: str, size: str, spoilt: Iterable[int], where: Any, value: float, seed: int = 0
) -> None:
    """With a value in some of the arguments, at an index into each, flat."""
    dtype, tolerance, activation, activation_in_oracle = NUMERICS[numerics]
    arrays, g = arguments(SIZES[size], dtype, seed)
    for i in spoilt:
        arrays[i].flat[where] = value
    with jax.enable_x64(dtype == np.float64):
        got = all_of(arrays, g, activation=activation)
    assert_oracles(got, in_oracle(arrays, g, activation_in_oracle), tolerance)


@pytest.mark.parametrize(
    ("numerics", "size"),
    [
        *(("tanh-float32", size) for size in SIZES),
        ("relu-float64", "small"),
        ("arctan-float64", "wide"),
    ],
)
def test_one_number_out_of_range_and_zeros(numerics: str, size: str) -> None:
    """NaN, an infinity or 1e4 in each argument in turn.

    Zeros of either sign in each and in all of them: relu's derivative is then taken at its kink.
    """
    for i, value in product(range(5), (np.nan, np.inf, -np.inf, 1e4)):
        assert_spoilt_is_the_oracles(numerics, size, [i], 1, value, seed=i)
    for spoilt, zero in product([[0], [1], [2], [3], [4], range(5)], (0.0, -0.0)):
        assert_spoilt_is_the_oracles(numerics, size, spoilt, np.s_[:], zero)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends may keep them")
@pytest.mark.parametrize("size", SIZES)
def test_denormals_are_zeros(size: str) -> None:
    """For XLA on CPUs. The oracle keeps them, which weights of 1e30 make visible."""
    for i in range(5):
        arrays, g = arguments(SIZES[size], np.float32)
        if i > 0:
            arrays[0][:] = 1e30
        arrays[i][:] = np.finfo(np.float32).tiny / 4
        with_denormals = jax.device_get(all_of(arrays, g))
        if i == 3:  # x
            assert np.all(in_oracle(arrays, g, oracle.TANH)[1][2] != with_denormals[1][2])
        arrays[i][:] = 0.0
        assert_equal(with_denormals, jax.device_get(all_of(arrays, g)))


@pytest.mark.parametrize("size", SIZES)
def test_saturated_tanh(size: str) -> None:
    """States are exactly one and gradients exactly zero."""
    (wx, wh, b, x, h0), g = arguments(SIZES[size], np.float32)
    arrays = wx * np.float32(1e5), wh, b + np.sign(b) * np.float32(1e9), x, h0
    (last, a, h), gradients = all_of(arrays, g)
    (_, a_expected, signs), _ = in_oracle(arrays, g, oracle.TANH)
    assert np.all(np.abs(signs) == 1)
    assert_close((last, h), (signs[:, -1], signs), 0.0)
    assert_close(a / a_expected, np.ones_like(a), 1e-6)
    assert_close(gradients, jax.tree.map(np.zeros_like, arrays), 0.0)


@pytest.mark.parametrize("size", ["small", "few"])
def test_relu_overflows_to_infinity(size: str) -> None:
    """States and gradients are the oracle's in float64, rounded to float32."""
    arrays, g = arguments(SIZES[size], np.float32)
    wx, wh, b, x, h0 = (np.abs(array) + np.float32(0.1) for array in arrays)
    arrays, g = (wx, wh * np.float32(1e25), b, x, h0), np.abs(g)
    expected = in_oracle(arrays, g, oracle.RELU)
    with np.errstate(over="ignore"):
        wanted = jax.tree.map(np.float32, expected)
    assert np.any(np.isinf(wanted[0][0]))
    assert all(np.any(np.isinf(each)) for each in wanted[1][:3])
    assert_oracles(all_of(arrays, g, activation=jax.nn.relu), wanted, 1e-5)


# In units of float32's epsilon of the largest entry of each array. Measured up to 128 nodes.
BOUND = 16.0


def assert_near(got: Any, expected: Any, bound: float = BOUND) -> None:
    for actual, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        tolerance = bound * np.finfo(np.float32).eps * np.max(np.abs(wanted))
        assert np.max(np.abs(np.asarray(actual, np.float64) - wanted)) <= tolerance


@pytest.mark.parametrize("batch", [1, 2])
def test_many_steps_are_added_up_exactly(batch: int) -> None:
    """By segments. Added up step by step, the gradients by wx and wh would err by 20 units here."""
    arrays, g = arguments((batch, 10_007, 4, 8), np.float32)
    assert_near(all_of(arrays, np.abs(g)), in_oracle(arrays, np.abs(g), oracle.TANH), bound=8.0)


def of_each_sequence(result: Any) -> Any:
    """The states, and the gradients by x and h0, which have an entry for each sequence."""
    values, gradients = jax.device_get(result)
    return *values, *gradients[3:]


@pytest.mark.parametrize("n_nodes", [22, 128])
def test_a_sequence_has_the_same_results_in_any_batch(n_nodes: int) -> None:
    """Alone, in batches, and under `jax.vmap` over sequences and over parameter sets.

    What other sequences hold changes no bit. Their order changes no more than their number does.
    """
    (*weights, x, h0), g = arguments((33, 6, 3, n_nodes), np.float32)

    def of_sequences(x: Any, h0: Any, g: Any) -> Any:
        return of_each_sequence(all_of((*weights, x, h0), g))

    whole = of_sequences(x, h0, g)
    for part in (slice(1), slice(8), np.argsort(numbers((33,))[0])):
        assert_near(of_sequences(x[part], h0[part], g[part]), at(whole, part))

    own = np.arange(33) % 3 == 0
    for value in (np.nan, np.inf, np.finfo(np.float32).max, 0.0):
        among = np.where(own[:, None, None], x, np.float32(value))
        states = np.where(own[:, None], h0, np.float32(value))
        assert_equal(at(of_sequences(among, states, g), own), at(whole, own))

    over_sequences = jax.vmap(all_of, in_axes=((None, None, None, 0, 0), 0))
    assert_near(of_each_sequence(over_sequences((*weights, x, h0), g)), whole)

    others, _ = arguments((33, 6, 3, n_nodes), np.float32, seed=1)
    sets = tuple(np.stack(pair) for pair in zip(weights, others, strict=False))
    over_sets = jax.vmap(all_of, in_axes=((0, 0, 0, None, None), None))
    of_sets = jax.device_get(over_sets((*sets, x, h0), g))
    assert_near(at(of_sets, 0), all_of((*weights, x, h0), g))


def bits() -> str:
    """A digest of the results of a call whose products are shared among threads."""
    arrays, g = arguments((33, 50, 17, 128), np.float32)
    results = jax.device_get(jax.tree.leaves(all_of(arrays, g)))
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def test_runs_repeat_to_the_last_bit() -> None:
    """Values and gradients, also in another process, which runs this file.

    On GPUs another process may choose other algorithms for the products.
    """
    runs = {bits() for _ in range(10)}
    if jax.default_backend() != "gpu":
        command, root = [sys.executable, "-m", "tests.test_numerics"], Path(__file__).parent.parent
        run = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
        runs.add(run.stdout.strip())
    assert len(runs) == 1


if __name__ == "__main__":
    print(bits())
