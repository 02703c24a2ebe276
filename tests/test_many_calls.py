"""Later calls neither trace again nor take more memory, and any number of threads may call."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.testing import oracle
from tests.helpers import assert_close

N_THREADS = 8
MEASURABLE = Path("/proc/self/statm").exists()


def call(i: int) -> tuple[Any, Any, dict[str, Any]]:
    """A call whose sizes no other has: parameters, inputs and options."""
    n_features, n_nodes, n_steps = 2 + i % 3, 3 + i, 7 + i
    random = np.random.default_rng(i)
    draw = random.uniform
    wx, wh = (draw(-0.3, 0.3, (n, n_nodes)) for n in (n_features, n_nodes))
    options: dict[str, Any] = {"reverse": i % 2 == 0}
    if i % 3 == 0:
        options["lengths"] = random.integers(0, n_steps, 5, endpoint=True)
    if i % 3 == 1:
        options["resets"] = random.random((5, n_steps)) < 0.3
    return RNNParams(wx, wh, None), draw(-1, 1, (5, n_steps, n_features)), options


def test_from_many_threads_at_once() -> None:
    """First calls, which compile, and later ones."""
    calls = [call(i) for i in range(N_THREADS)]
    together = threading.Barrier(N_THREADS)

    def result(params: Any, x: Any, options: Any) -> Any:
        def total(params: Any) -> Any:
            states = rnn_states(params, x, **options)
            return jnp.sum(states.h), states

        return jax.grad(total, has_aux=True)(params)

    def run(i: int) -> list[Any]:
        together.wait()
        return [result(*calls[(i + j) % N_THREADS]) for j in range(3 * N_THREADS)]

    expected: Any = [
        (oracle.rnn_gradients(*args, g_h=1.0, **by).params, oracle.rnn_states(*args, **by))
        for *args, by in calls
    ]
    with ThreadPoolExecutor(N_THREADS) as pool:
        for i, results in enumerate(pool.map(run, range(N_THREADS))):
            assert_close(results, (expected[i:] + expected[:i]) * 3, 1e-5)


class Cell:
    """A module whose activation reads a gain, as users of Flax nnx and of Equinox write it."""

    __hash__ = None  # type: ignore[assignment]  # as of a dataclass with arrays

    def __init__(self) -> None:
        self.gain: Any = 1.0
        self.n_traces = 0

    def __call__(self, a: jax.Array) -> jax.Array:
        self.n_traces += 1
        return jnp.asarray(self.gain * jnp.tanh(a))


class Fixed:
    """Reads a cell through its class, without a closure."""

    cell: Any

    @staticmethod
    def activation(a: jax.Array) -> jax.Array:
        return Fixed.cell(a)  # type: ignore[no-any-return]


class Slotted(NamedTuple):
    """Reads a cell as a callable to which there can be no weak reference."""

    cell: Any

    def __call__(self, a: jax.Array) -> jax.Array:
        return self.cell(a)  # type: ignore[no-any-return]


READS: dict[str, Callable[[Cell], Any]] = {
    "an object": lambda cell: cell,
    "a bound method": lambda cell: cell.__call__,
    "a closure": lambda cell: lambda a: cell(a),
    "a partial": lambda cell: jax.tree_util.Partial(Cell.__call__, cell),
    "a global": lambda cell: Fixed.activation,
    "without weak references": lambda cell: Slotted(cell),
}
PARAMS = RNNParams(None, np.eye(2) / 2, None)
CALLS: dict[str, Callable[..., Any]] = {
    "step": lambda x, f: rnn_step(PARAMS, np.zeros(2), x[:, 0], activation=f),
    "forward": lambda x, f: rnn_forward(PARAMS, x, activation=f),
    "states": lambda x, f: rnn_states(PARAMS, x, activation=f).h[:, -1],
    "pieces": lambda x, f: rnn_forward(PARAMS, x, activation=f, checkpoint_every=2),
    "layers": lambda x, f: rnn_stacked((PARAMS,), x, activation=f, dropout=0.5).last[0],
    "rate": lambda x, f: f(rnn_forward(PARAMS, x, activation=jax.nn.identity, rate=f)),
}


@pytest.mark.parametrize(
    ("call", "read"),
    [*((call, "a closure") for call in CALLS if call != "forward"), *product(["forward"], READS)],
)
def test_a_call_reads_what_its_activation_reads_now(call: str, read: str) -> None:
    """As a plain loop: a new value, one that is differentiated, and one that jit has traced."""
    cell = Fixed.cell = Cell()
    x = np.ones((3, 1 if call == "step" else 6, 2))

    def total(gain: Any, call: Any = CALLS[call]) -> Any:
        cell.gain = gain
        result = jnp.sum(call(x, READS[read](cell)))
        cell.gain = None  # or the test itself would leak it
        return result

    def plain(x: Any, activation: Any) -> Any:
        h: Any = jnp.zeros((3, 2))
        for t in range(x.shape[1]):
            h = activation(x[:, t] + h @ PARAMS.wh)
        return h

    with jax.enable_x64(True), jax.checking_leaks():
        for function in (lambda f: f, jax.grad, jax.jit):
            for gain in (1.0, 3.0):
                got, expected = function(total)(gain), function(partial(total, call=plain))(gain)
                assert_close(got, expected, 1e-12)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.grad, jax.vmap])
def test_the_callers_jit_traces_once(call: Callable[..., Any], transform: Any) -> None:
    cell = Cell()
    x = np.ones((5, 3, 6, 2))
    function = jax.jit(transform(lambda x: jnp.sum(call(x, cell))))
    args = x if transform is jax.vmap else x[0]
    function(args)
    n_traces = cell.n_traces
    assert n_traces > 0
    function(args / 2)
    assert cell.n_traces == n_traces, "the same shapes were traced again"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 if MEASURABLE else 0


def test_calls_neither_trace_again_nor_grow() -> None:
    """With the same shapes, outside any `jax.jit` and inside the caller's."""
    params, x, options = call(0)
    gradient = jax.jit(jax.grad(lambda *args: jnp.sum(rnn_forward(*args, **options))))

    def run(n: int) -> None:
        for _ in range(n):
            rnn_states(params, x, **options)
            jax.block_until_ready(gradient(params, x))

    run(1000)
    before = resident_bytes()
    with jax.no_tracing(True):
        run(10_000)
    assert resident_bytes() - before < 4 << 20  # a kilobyte a call would be ten megabytes


@pytest.mark.skipif(not MEASURABLE, reason="/proc tells how much memory is taken")
def test_new_activations_are_not_kept() -> None:
    """Nor are their compilations, of half a megabyte each, in this library or in JAX."""
    params, x, _ = call(0)

    def run(n: int) -> list[weakref.ref[Any]]:
        activations = [lambda a: jnp.sin(a) for _ in range(n)]
        for activation in activations:
            rnn_forward(params, x[:, :1], activation=activation)
        return list(map(weakref.ref, activations))

    run(5)
    before = resident_bytes()
    references = run(20)
    gc.collect()
    assert all(reference() is None for reference in references)
    assert resident_bytes() - before < 5 << 20
