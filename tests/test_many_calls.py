"""Later calls neither trace again nor take more memory, and any number of threads may call."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, init_params, rnn_forward, rnn_states, rnn_step
from jaxrnn.testing import oracle
from tests.helpers import assert_close

N_THREADS = 8
MEASURABLE = Path("/proc/self/statm").exists()


def call(i: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A call whose sizes no other has: whether of `rnn_states`, parameters, inputs and options."""
    n_features, n_nodes, n_steps = 2 + i % 3, 3 + i, 7 + i
    random = np.random.default_rng(i)
    draw = random.uniform
    params = RNNParams(
        draw(-0.3, 0.3, (n_features, n_nodes)), draw(-0.3, 0.3, (n_nodes, n_nodes)), None
    )
    options: dict[str, Any] = {"reverse": i % 2 == 0}
    if i % 3 == 0:
        options["lengths"] = random.integers(0, n_steps, 5, endpoint=True)
    if i % 3 == 1:
        options["resets"] = random.random((5, n_steps)) < 0.3
    return i % 2, params, draw(-1, 1, (5, n_steps, n_features)), options


def test_from_many_threads_at_once() -> None:
    """First calls, which compile, and later ones."""
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


class CountingTanh:
    """A tanh that counts how often it is traced."""

    def __init__(self) -> None:
        self.n_traces = 0

    def __call__(self, a: jax.Array) -> jax.Array:
        self.n_traces += 1
        return jnp.tanh(a)


CALLS: dict[str, Callable[..., Callable[..., Any]]] = {
    "step": lambda f: lambda params, x, h0: rnn_step(params, h0, x[:, 0], activation=f),
    "forward": lambda f: lambda *args: rnn_forward(*args, activation=f),
    "states": lambda f: lambda *args: rnn_states(*args, activation=f),
    "jit": lambda f: jax.jit(lambda *args: rnn_forward(*args, activation=f)),
    "jit of grad": lambda f: jax.jit(
        jax.grad(lambda *args: jnp.sum(rnn_forward(*args, activation=f)))
    ),
    "jit of vmap": lambda f: jax.jit(
        jax.vmap(lambda *args: rnn_forward(*args, activation=f), in_axes=(None, 0, 0))
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_second_call_traces_nothing(call: Callable[..., Callable[..., Any]]) -> None:
    activation = CountingTanh()
    function = call(activation)
    args: Any = init_params(jax.random.key(0), 2, 4), np.ones((5, 6, 2)), np.ones((5, 4))
    function(*args)
    n_traces = activation.n_traces
    assert n_traces > 0
    function(*jax.tree.map(lambda array: array / 2, args))
    assert activation.n_traces == n_traces, "the same shapes were traced again"
    function(init_params(jax.random.key(0), 2, 7), np.ones((5, 6, 2)), np.zeros((5, 7)))
    assert activation.n_traces > n_traces, "other shapes must be traced"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_calls_neither_trace_again_nor_grow() -> None:
    """With the same shapes, outside any `jax.jit` and inside the caller's."""
    _, params, x, options = call(0)
    gradient = jax.jit(jax.grad(lambda *args: jnp.sum(rnn_forward(*args, **options))))

    def run(n: int) -> None:
        for _ in range(n):
            rnn_states(params, x, **options)
            jax.block_until_ready(gradient(params, x))

    run(1000)
    before = resident_bytes() if MEASURABLE else 0
    with jax.no_tracing(True):
        run(10_000)
    if MEASURABLE:
        assert resident_bytes() - before < 4 << 20  # a kilobyte a call would be ten megabytes


def call_with_new_activations(n: int) -> list[weakref.ref[Any]]:
    """Weak references to the activations, each of which is given to one call."""
    _, params, x, _ = call(0)
    references = []
    for _ in range(n):

        def activation(a: jax.Array) -> jax.Array:
            return jnp.sin(a)

        rnn_forward(params, x[:, :1], activation=activation)
        references.append(weakref.ref(activation))
    return references


def test_clearing_caches_frees_new_activations() -> None:
    """JAX keeps each, with its compilation, until its caches are cleared."""
    references = call_with_new_activations(5)
    gc.collect()
    assert all(reference() is not None for reference in references)
    jax.clear_caches()
    gc.collect()
    assert all(reference() is None for reference in references)
    before = resident_bytes() if MEASURABLE else 0
    for _ in range(3):
        call_with_new_activations(5)
        jax.clear_caches()
    if MEASURABLE:  # if they were kept, 10 more would take some 16 megabytes
        assert resident_bytes() - before < 4 << 20
