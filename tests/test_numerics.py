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
# relu is tested in float64 only, for the reason that `calls` in test_fuzz.py gives.
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
    """Parameters, x and h0 of a network that contracts, and cotangents of all states."""
    batch, n_steps, n_features, n_nodes = sizes
    of_params = (n_features, n_nodes), (n_nodes, n_nodes), (n_nodes,)
    others = (batch, n_steps, n_features), (batch, n_nodes), (batch, n_steps, n_nodes)
    wx, wh, b, *rest = numbers(*of_params, *others, seed=seed)
    params = RNNParams(wx / n_features, wh / np.sqrt(n_nodes), b)
    *args, g = jax.tree.map(lambda array: array.astype(dtype), (params, *rest))
    return tuple(args), g


@partial(jax.jit, static_argnames="activation")
def all_of(args: Any, g: Any, *, activation: Any = jnp.tanh) -> tuple[Any, Any]:
    """The last state, all states, and the gradients of `sum(g * h)` by every argument."""

    def hidden(*args: Any) -> Any:
        values = every_value(*args, activation=activation)
        return values[-1], values

    _, pull, values = jax.vjp(hidden, *args, has_aux=True)
    return values, pull(g)


def in_oracle(args: Any, g: Any, activation: oracle.Differentiable) -> tuple[Any, Any]:
    with np.errstate(all="ignore"):
        last = oracle.rnn_forward(*args, activation=activation)
        values = last, *oracle.rnn_states(*args, activation=activation)
        return values, oracle.rnn_gradients(*args, g_h=g, activation=activation)[:3]


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
    args, g = arguments(SIZES[size], dtype, seed)
    for i in spoilt:
        jax.tree.leaves(args)[i].flat[where] = value
    with jax.enable_x64(dtype == np.float64):
        got = all_of(args, g, activation=activation)
    assert_oracles(got, in_oracle(args, g, activation_in_oracle), tolerance)


EXACT = [("relu-float64", "small"), ("arctan-float64", "wide")]


@pytest.mark.parametrize(
    ("numerics", "size"), [*(("tanh-float32", size) for size in SIZES), *EXACT]
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
        args, g = arguments(SIZES[size], np.float32)
        leaves = jax.tree.leaves(args)
        if i > 0:
            leaves[0][:] = 1e30
        leaves[i][:] = np.finfo(np.float32).tiny / 4
        with_denormals = jax.device_get(all_of(args, g))
        if i == 3:  # x
            assert np.all(in_oracle(args, g, oracle.TANH)[1][0].b != with_denormals[1][0].b)
        leaves[i][:] = 0.0
        assert_equal(with_denormals, jax.device_get(all_of(args, g)))


@pytest.mark.parametrize("size", SIZES)
def test_saturated_tanh(size: str) -> None:
    """States are exactly one and gradients exactly zero."""
    ((wx, wh, b), *others), g = arguments(SIZES[size], np.float32)
    args = RNNParams(wx * np.float32(1e5), wh, b + np.sign(b) * np.float32(1e9)), *others
    (last, a, h), gradients = all_of(args, g)
    (_, a_expected, signs), _ = in_oracle(args, g, oracle.TANH)
    assert np.all(np.abs(signs) == 1)
    assert_close((last, h), (signs[:, -1], signs), 0.0)
    assert_close(a / a_expected, np.ones_like(a), 1e-6)
    assert_close(gradients, jax.tree.map(np.zeros_like, args), 0.0)


@pytest.mark.parametrize("size", ["small", "few"])
def test_relu_overflows_to_infinity(size: str) -> None:
    """States and gradients are the oracle's in float64, rounded to float32."""
    args, g = jax.tree.map(np.abs, arguments(SIZES[size], np.float32))
    (wx, wh, b), *others = jax.tree.map(lambda array: array + np.float32(0.1), args)
    args = RNNParams(wx, wh * np.float32(1e25), b), *others
    with np.errstate(over="ignore"):
        wanted = jax.tree.map(np.float32, in_oracle(args, g, oracle.RELU))
    assert np.any(np.isinf(wanted[0][0]))
    assert all(np.any(np.isinf(each)) for each in wanted[1][0])
    assert_oracles(all_of(args, g, activation=jax.nn.relu), wanted, 1e-5)


# In units of float32's epsilon of the largest entry of each array. Measured up to 128 nodes.
BOUND = 16.0


def assert_near(got: Any, expected: Any, bound: float = BOUND) -> None:
    for actual, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        tolerance = bound * np.finfo(np.float32).eps * np.max(np.abs(wanted))
        assert np.max(np.abs(np.asarray(actual, np.float64) - wanted)) <= tolerance


@pytest.mark.parametrize("batch", [1, 2])
def test_many_steps_are_added_up_exactly(batch: int) -> None:
    """By segments. Added up step by step, the gradients by wx and wh would err by 20 units here."""
    args, g = arguments((batch, 10_007, 4, 8), np.float32)
    assert_near(all_of(args, np.abs(g)), in_oracle(args, np.abs(g), oracle.TANH), bound=8.0)


def of_sequences(*call: Any) -> Any:
    """The states, and the gradients by x and h0, which have an entry for each sequence."""
    values, gradients = jax.device_get(all_of(*call))
    return *values, *gradients[1:]


@pytest.mark.parametrize("n_nodes", [22, 128])
def test_a_sequence_has_the_same_results_in_any_batch(n_nodes: int) -> None:
    """Alone, in batches, and under `jax.vmap` over sequences and over parameter sets.

    What other sequences hold changes no bit. Their order changes no more than their number does.
    """
    (params, x, h0), g = arguments((33, 6, 3, n_nodes), np.float32)
    whole = of_sequences((params, x, h0), g)
    for part in (slice(1), slice(8), np.argsort(numbers((33,))[0])):
        assert_near(of_sequences((params, x[part], h0[part]), g[part]), at(whole, part))

    own = np.arange(33) % 3 == 0
    for value in (np.nan, np.inf, np.finfo(np.float32).max, 0.0):
        among = np.where(own[:, None, None], x, np.float32(value))
        states = np.where(own[:, None], h0, np.float32(value))
        assert_equal(at(of_sequences((params, among, states), g), own), at(whole, own))

    values, gradients = jax.vmap(all_of, in_axes=((None, 0, 0), 0))((params, x, h0), g)
    assert_near((*values, *gradients[1:]), whole)

    others = arguments((33, 6, 3, n_nodes), np.float32, seed=1)[0][0]
    sets = jax.tree.map(lambda *pair: np.stack(pair), params, others)
    of_sets = jax.vmap(all_of, in_axes=((0, None, None), None))((sets, x, h0), g)
    assert_near(at(of_sets, 0), all_of((params, x, h0), g))


def bits() -> str:
    """A digest of the results of a call whose products are shared among threads."""
    results = jax.device_get(jax.tree.leaves(all_of(*arguments((33, 50, 17, 128), np.float32))))
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
