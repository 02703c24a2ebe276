"""Many calls: from many threads at once, and one after another."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle
from tests.comparing import assert_close

RANDOM = np.random.default_rng(0)
N_THREADS = 8


def call(i: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A function, parameters, inputs and options of sizes that nothing else has."""
    n_features, n_nodes, n_steps = 2 + i % 3, 3 + i, 7 + i
    draw = RANDOM.uniform
    params = RNNParams(
        draw(-0.3, 0.3, (n_features, n_nodes)), draw(-0.3, 0.3, (n_nodes, n_nodes)), None
    )
    options: dict[str, Any] = {"reverse": i % 2 == 0}
    if i % 3 == 0:
        options["lengths"] = RANDOM.integers(0, n_steps, 5, endpoint=True)
    if i % 3 == 1:
        options["resets"] = RANDOM.random((5, n_steps)) < 0.3
    return i % 2, params, draw(-1, 1, (5, n_steps, n_features)), options


def test_from_many_threads_at_once() -> None:
    """First calls, which compile, and later ones; values and gradients."""
    calls = [call(i) for i in range(N_THREADS)]
    together = threading.Barrier(N_THREADS)

    def run(i: int) -> list[Any]:
        together.wait()
        results = []
        for j in range(3 * N_THREADS):
            all_states, params, x, options = calls[(i + j) % N_THREADS]
            if all_states:
                result: Any = tuple(rnn_states(params, x, **options))
            else:
                result = jax.grad(lambda *args: jnp.sum(rnn_forward(*args, **options)))(params, x)  # noqa: B023
            results.append(((i + j) % N_THREADS, result))
        return results

    with ThreadPoolExecutor(N_THREADS) as pool:
        results = [each for of_thread in pool.map(run, range(N_THREADS)) for each in of_thread]
    for i, result in results:
        all_states, params, x, options = calls[i]
        expected: Any = (
            tuple(oracle.rnn_states(params, x, **options))
            if all_states
            else oracle.rnn_gradients(params, x, g_last=1.0, **options).params
        )
        assert_close(result, expected, 1e-5)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_memory_does_not_grow() -> None:
    _, params, x, options = call(0)
    gradient = jax.jit(jax.grad(lambda *args: jnp.sum(rnn_forward(*args, **options))))

    def run(n: int) -> None:
        for _ in range(n):
            rnn_states(params, x, **options)
            jax.block_until_ready(gradient(params, x))

    run(1000)
    before = resident_bytes()
    run(10_000)
    assert resident_bytes() - before < 4 << 20  # one kilobyte a call would be ten megabytes
