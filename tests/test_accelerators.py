"""What jaxrnn costs on a TPU and on a GPU that are not here, beside the scan by hand.

Runs where the packages of one of them are installed, as `.ci/run` does. `bench.accelerators` says
what is counted.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from bench.accelerators import DEVICES, GPU, PACKAGES, TPU, compiled_for, cost, devices, on
from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states
from tests.compiled import communication

KINDS = [kind for kind in DEVICES if all(map(find_spec, PACKAGES[kind]))]
if not KINDS:
    pytest.skip(
        "needs an environment with .[tpu-estimates] or .[gpu-estimates]", allow_module_level=True
    )
KIND = KINDS[0]
DEVICE = SingleDeviceSharding(devices(DEVICES[KIND][0])[0])
LEVEL = 1 / 1.1
# Sequences, steps, features and nodes.
over_cells = pytest.mark.parametrize("cell", [(8, 40, 3, 16), (32, 40, 64, 128)], ids=str)


@pytest.fixture(autouse=True)
def as_users_compile(usual_promotion: None) -> Iterator[None]:
    """With products of the usual precision."""
    with jax.default_matmul_precision("default"):
        yield


def network(cell: Any) -> Any:
    """Parameters, inputs, and of each a leak, a mask and the number of steps."""
    batch, n_steps, n_features, n = cell
    params = RNNParams(np.zeros((n_features, n), "f"), np.zeros((n, n), "f"), np.zeros(n, "f"))
    masks = np.zeros((batch, n_steps), bool), np.full(batch, n_steps, np.int32)
    return params, np.zeros((batch, n_steps, n_features), "f"), np.zeros(n, "f"), *masks


def scan(
    params: Any,
    x: Any,
    leak: Any = None,
    resets: Any = None,
    lengths: Any = None,
    *,
    first: bool,
    keep: bool = False,
) -> Any:
    """The scan by hand, eight steps in an iteration."""
    wx, wh, b = params
    t = jnp.arange(x.shape[1])[:, None]
    padding = None if lengths is None else t >= lengths
    xs = x.swapaxes(0, 1), None if resets is None else resets.T, padding

    def step(h: Any, now: Any) -> Any:
        x_t, reset, pad = now
        start = h if reset is None else jnp.where(reset[:, None], 0, h)
        new = jnp.tanh((x_t if first else x_t @ wx + b) + start @ wh)
        new = new if leak is None else start + leak * (new - start)
        new = new if pad is None else jnp.where(pad[:, None], h, new)
        return new, new if keep else None

    xs = (xs[0] @ wx + b, *xs[1:]) if first else xs
    return jax.lax.scan(step, jnp.zeros((x.shape[0], len(wh))), xs, unroll=8)[keep]


def with_masks(params: Any, x: Any, leak: Any, resets: Any, lengths: Any) -> Any:
    return rnn_forward(params, x, leak=leak, resets=resets, lengths=lengths)


def gradient(run: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda *args: jnp.sum(run(*args) ** 2))


def compiled(function: Any, *arrays: Any) -> Any:
    return compiled_for(KIND, function, on(DEVICE, arrays))


def costs(
    run: Any, cell: Any, n: int, transformed: Any = lambda function: function, **how: bool
) -> Any:
    """The compiled gradient, and how many times its cost the best scan by hand has."""
    args = network(cell)[:n]
    args = args if transformed is not jax.vmap else jax.tree.map(lambda a: np.stack([a] * 3), args)
    mine, *scans = (
        compiled(transformed(gradient(each)), *args)
        for each in (run, partial(scan, first=True, **how), partial(scan, first=False, **how))
    )
    found, *of_scans = (cost(KIND, each.as_text()) for each in (mine, *scans))
    return mine, min(of_scans) / found


@over_cells
@pytest.mark.parametrize(
    ("run", "n", "least"),
    [
        (rnn_forward, 2, 2 if KIND == TPU else 1.2),
        (lambda params, x, leak: rnn_forward(params, x, leak=leak), 3, 2 if KIND == TPU else LEVEL),
        (with_masks, 5, 0.9),  # the scan by hand lets NaN out of the padding
    ],
    ids=["plain", "leak", "masks"],
)
def test_gradients(cell: Any, run: Any, n: int, least: float) -> None:
    """One loop forward and one backward, that cost no more than the scan by hand."""
    mine, ratio = costs(run, cell, n)
    assert mine.as_text().count(" while(") == 2
    assert ratio >= least, ratio


@over_cells
def test_gradients_through_all_states(cell: Any) -> None:
    mine, ratio = costs(lambda params, x: rnn_states(params, x).h, cell, 2, keep=True)
    assert mine.as_text().count(" while(") == 2
    assert ratio >= (2 if KIND == TPU else 1.2), ratio


@over_cells
def test_many_sets(cell: Any) -> None:
    mine, ratio = costs(rnn_forward, cell, 2, jax.vmap)
    assert mine.as_text().count(" while(") == 2
    assert ratio >= LEVEL, ratio


@pytest.mark.parametrize("cell", [(32, 40, 8, 32), (64, 40, 10, 50)], ids=str)
def test_forward(cell: Any) -> None:
    """On a TPU a step is one operation, and reads its inputs as they lie in memory."""
    args = network(cell)[:2]
    mine, *scans = (
        cost(KIND, compiled(run, *args).as_text())
        for run in (rnn_forward, partial(scan, first=True), partial(scan, first=False))
    )
    assert mine <= min(scans) / (1 if KIND == GPU else 2), (mine, scans)


def test_layers() -> None:
    """Each has a loop forward and one backward."""
    params, x, *_ = network((8, 40, 16, 16))

    def run(layers: Any, x: Any) -> Any:
        return rnn_stacked(layers, x).h

    text = compiled(gradient(run), [params, params], x).as_text()
    assert text.count(" while(") == 4


@pytest.mark.skipif(KIND != TPU, reason="four TPUs are described, and one GPU")
@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("unroll", [None, 8])
def test_a_shared_batch_is_added_up_once(axis: AxisType, unroll: int | None) -> None:
    mesh = Mesh(np.array(devices(DEVICES[TPU][0])), ("devices",), axis_types=(axis,))
    params, x, *_ = network((32, 40, 64, 128))
    args = on(NamedSharding(mesh, P()), params), on(NamedSharding(mesh, P("devices")), x)
    run = gradient(partial(rnn_forward, unroll=unroll))
    assert communication(compiled_for(TPU, run, args)) == {"all-reduce": 1}
