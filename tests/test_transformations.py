"""`jit`, `vmap`, `lax.scan`, `shard_map` and `jax.export` go through the functions unchanged."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from tests.helpers import LENGTHS, RESET_TO, RESETS, assert_close, at, numbers

*WEIGHTS, X, H0 = (
    array.astype(np.float32)
    for array in numbers((3, 2, 4), (3, 4, 4), (3, 4), (3, 6, 2), (3, 4), seed=1)
)
PARAM_SETS: Any = RNNParams(*WEIGHTS)
PARAMS: Any = at(PARAM_SETS, 0)


def step(params: RNNParams[Any], x: Any, h0: Any, **options: Any) -> Any:
    return rnn_step(params, h0, x[..., 0, :])


def gradient(params: RNNParams[Any], x: Any, h0: Any, seed: Any = None, **options: Any) -> Any:
    def loss(*args: Any) -> Any:
        return jnp.sum(rnn_forward(*args, **options) ** 2)

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, x, h0)


def stacked(params: RNNParams[Any], x: Any, h0: Any = None, **options: Any) -> Any:
    square = params._replace(wx=params.wh)
    return rnn_stacked((params, (square, square)), x, (h0, None), **options)


def dropped(params: RNNParams[Any], x: Any, h0: Any = None, seed: Any = 0, **options: Any) -> Any:
    return stacked(params, x, h0, **options, dropout=0.5, key=jax.random.key(seed))


FUNCTIONS = [step, rnn_forward, rnn_states, gradient]

# Stacks of three of each argument: wx, wh, b, x, h0, lengths, resets and a seed for dropout.
STACKS = (*map(np.float64, (*PARAM_SETS, X, H0)), LENGTHS[1], RESETS[0], np.arange(3))
# Maps, one inside the other, each by the axes along which it goes over these.
SETS, SEQUENCES = (0, 0, 0, None, None, None, None, None), (None, None, None, 0, 0, 0, 0, None)
MAPS: dict[str, list[tuple[int | None, ...]]] = {
    "every pair": [SETS, SEQUENCES],
    "wh along its last axis, and h0": [(None, -1, None, None, 0, None, None, None)],
    "lengths of each set": [SETS, (None, None, None, None, None, 0, None, None)],
    "resets": [(None, None, None, None, None, None, 0, None)],
    "all": [(0,) * 8],
}


def looped(function: Callable[..., Any], axes: Sequence[int | None]) -> Callable[..., Any]:
    """What `jax.vmap` gives, by a loop."""

    def run(*args: Any) -> Any:
        rows = zip(args, axes, strict=True)
        all_of = [[arg] * 3 if axis is None else np.moveaxis(arg, axis, 0) for arg, axis in rows]
        results = [function(*each) for each in zip(*all_of, strict=True)]
        return jax.tree.map(lambda *each: np.stack(each), *results)

    return run


@pytest.mark.parametrize(
    ("function", "maps"),
    [*((gradient, maps) for maps in MAPS), (step, "every pair"), (dropped, "all")],
)
def test_vmap_is_a_loop(function: Callable[..., Any], maps: str) -> None:
    @jax.jit
    def run(wx: Any, wh: Any, b: Any, x: Any, h0: Any, *others: Any) -> Any:
        options: Any = dict(zip(("lengths", "resets", "seed"), others, strict=True))
        return function(RNNParams(wx, wh, b), x, h0, **options, reset_to=RESET_TO, reverse=True)

    mapped: Any = run
    expected: Any = run
    args = [stack[1] for stack in STACKS]
    for axes in reversed(MAPS[maps]):
        mapped, expected = jax.vmap(mapped, axes), looped(expected, axes)
        for i, axis in enumerate(axes):
            args[i] = args[i] if axis is None else np.moveaxis(STACKS[i], 0, axis)
    with jax.enable_x64(True):
        assert_close(jax.jit(mapped)(*args), expected(*args), 1e-12)


@pytest.mark.parametrize("every", [None, 3, 2])
def test_without_jit_is_with_it(every: int | None) -> None:
    """JAX would refuse a scan of no steps, such as of what is left after all pieces."""

    def results() -> Any:
        functions: list[Any] = [rnn_forward, rnn_states, *([gradient] if every is None else [])]
        return [f(PARAMS, X, H0, checkpoint_every=every) for f in functions]

    with jax.disable_jit():
        without = results()
    assert_close(without, jax.jit(results)(), 1e-6)


AT_H0 = {"h0": np.ones(4, np.float32)}
WITHOUT_BIAS = {"params": PARAMS._replace(b=None)}
MASKED = {"lengths": LENGTHS[1], "resets": RESETS[0], "reset_to": np.float32(0.5), **WITHOUT_BIAS}


@pytest.mark.parametrize("function", [rnn_forward, rnn_states, dropped])
@pytest.mark.parametrize(
    ("split", "options"),
    [
        *((split, h0) for split in ("params", "x", "params x") for h0 in ({}, AT_H0)),
        *((split, MASKED | AT_H0) for split in ("lengths", "resets", "x lengths resets")),
    ],
)
def test_inside_shard_map(function: Callable[..., Any], split: str, options: Any) -> None:
    """The state varies over the devices if anything does, be it a mask alone."""
    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec: Any = jax.sharding.PartitionSpec
    same = {"params": PARAMS, "x": X, **options}
    varying = {name: same.pop(name) for name in split.split()}

    def run(varying: Any, same: Any) -> Any:
        return function(**varying, **same)

    specs: Any = {"in_specs": (spec("device"), spec()), "out_specs": spec("device")}
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, **specs))
    assert_close(sharded(varying, same), run(varying, same), 1e-6)


@pytest.mark.parametrize(("batch", "n_steps"), [(1, 6), (3, 6), (3, 3)])
def test_gradients_on_an_explicit_axis_have_it(batch: int, n_steps: int) -> None:
    """Types that say how a batch is shared among devices go through values and gradients."""
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
    args: Any = PARAMS, X[:batch, :n_steps], H0[:batch]
    spec: Any = jax.sharding.PartitionSpec
    specs = [jax.NamedSharding(mesh, each) for each in (spec(), spec("batch"), spec("batch"))]
    placed = jax.tree.map(jax.device_put, args, tuple(specs), is_leaf=lambda a: a is PARAMS)
    value, gradients = gradient(*placed)
    assert_close((value, gradients), gradient(*args), 1e-5)
    assert jax.tree.map(jax.typeof, gradients) == jax.tree.map(jax.typeof, placed)


@pytest.mark.parametrize("function", [*FUNCTIONS, stacked])
def test_exported_with_symbolic_batch_and_steps(function: Callable[..., Any]) -> None:
    batch, n_steps = jax.export.symbolic_shape("batch, n_steps")
    struct: Any = jax.ShapeDtypeStruct
    with jax.enable_x64(True):
        params, x, h0 = jax.tree.map(np.float64, (PARAMS, X, H0))
        exported = jax.export.export(jax.jit(function))(
            params, struct((batch, n_steps, 2), x.dtype), struct((batch, 4), x.dtype)
        )
        loaded = jax.export.deserialize(exported.serialize())
        for size, steps in [(3, 6), (1, 2)]:
            args = params, x[:size, :steps], h0[:size]
            assert_close(loaded.call(*args), function(*args), 1e-12)


def test_exported_with_lengths_that_are_constants() -> None:
    """They cannot be checked against a symbolic number of steps, and saturate instead."""
    (n_steps,) = jax.export.symbolic_shape("n_steps")
    lengths = np.array([0, 9, 3])
    exported = jax.export.export(jax.jit(partial(rnn_forward, PARAMS, lengths=lengths)))(
        jax.ShapeDtypeStruct((3, n_steps, 2), jnp.float32)
    )
    expected = rnn_forward(PARAMS, X, lengths=np.minimum(lengths, 6))
    assert_close(exported.call(X), expected, 1e-6)
