"""`jit`, `vmap`, `lax.scan`, `shard_map` and `jax.export` go through the functions unchanged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, init_params, rnn_forward, rnn_stacked, rnn_states, rnn_step
from tests.helpers import assert_close, at, numbers

N_SETS = 3
*WEIGHTS, X, H0 = (
    array.astype(np.float32)
    for array in numbers((N_SETS, 2, 4), (N_SETS, 4, 4), (N_SETS, 4), (5, 6, 2), (5, 4))
)
PARAM_SETS: Any = RNNParams(*WEIGHTS)
PARAMS: Any = at(PARAM_SETS, 0)


def step(params: RNNParams[Any], x: jax.Array, h0: jax.Array) -> jax.Array:
    return rnn_step(params, h0, x[..., 0, :])


@jax.jit
def gradient(params: RNNParams[Any], x: jax.Array, h0: jax.Array) -> Any:
    return jax.grad(lambda *args: jnp.sum(rnn_forward(*args) ** 2), argnums=(0, 1, 2))(
        params, x, h0
    )


def stacked(params: RNNParams[Any], x: jax.Array, h0: jax.Array) -> Any:
    square = params._replace(wx=params.wh)
    return rnn_stacked((params, (square, square)), x, (h0, None))


FUNCTIONS = [step, rnn_forward, rnn_states, gradient]
over_functions = pytest.mark.parametrize("function", FUNCTIONS)
over_functions_and_layers = pytest.mark.parametrize("function", [*FUNCTIONS, stacked])


@over_functions
def test_nested_vmap_is_every_pair(function: Callable[..., Any]) -> None:
    over_x = jax.vmap(function, in_axes=(None, 0, 0))
    out = jax.device_get(jax.vmap(over_x, in_axes=(0, None, None))(PARAM_SETS, X, H0))
    for i, j in np.ndindex(N_SETS, 5):
        assert_close(at(out, (i, j)), function(at(PARAM_SETS, i), X[j], H0[j]), 1e-6)


def test_vmap_over_the_weights_alone() -> None:
    """Along their last axis."""
    wh = jnp.stack([gain * PARAMS.wh for gain in (0.5, 1.0, 1.5)], axis=-1)
    sweep = jax.vmap(rnn_forward, in_axes=(PARAMS._replace(wx=None, wh=2, b=None), None))
    out = sweep(PARAMS._replace(wh=wh), X)
    for i in range(3):
        assert_close(out[i], rnn_forward(PARAMS._replace(wh=wh[..., i]), X), 1e-6)


def in_scan(function: Callable[..., Any]) -> Callable[..., Any]:
    def body(count: int, args: Any) -> tuple[int, Any]:
        return count + 1, function(*args)

    return jax.jit(lambda *args: at(jax.lax.scan(body, 0, stack_of_two(args))[1], 1))


def in_map(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(
        lambda *args: at(jax.lax.map(lambda each: function(*each), stack_of_two(args)), 1)
    )


def stack_of_two(tree: Any) -> Any:
    return jax.tree.map(lambda array: jnp.stack([jnp.zeros_like(array), array]), tree)


@over_functions
@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(jax.jit(f))), in_scan, in_map],
    ids=["jit", "checkpoint", "jit of checkpoint of jit", "scan", "map"],
)
def test_transformed_is_plain(
    function: Callable[..., Any], transform: Callable[..., Callable[..., Any]]
) -> None:
    assert_close(transform(function)(PARAMS, X, H0), function(PARAMS, X, H0), 1e-6)


@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
@pytest.mark.parametrize("h0", [None, np.ones(4, np.float32)], ids=["no h0", "shared h0"])
@pytest.mark.parametrize("split", ["params", "x", "params x"])
def test_inside_shard_map(function: Callable[..., Any], h0: Any, split: str) -> None:
    """The state varies over the devices if anything does, even where h0 does not."""
    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec: Any = jax.sharding.PartitionSpec
    specs = tuple(spec("device") if name in split.split() else spec() for name in ("params", "x"))

    def run(params: Any, x: jax.Array) -> Any:
        return function(at(params, 0), x, h0)

    sharded = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=spec("device"))
    assert_close(jax.jit(sharded)(at(PARAMS, None), X), function(PARAMS, X, h0), 1e-6)


@pytest.mark.parametrize(("n_steps", "n_nodes"), [(3, 64), (6, 4)])
def test_on_a_mesh_with_explicit_axes(n_steps: int, n_nodes: int) -> None:
    """Types that say how a batch is shared among devices go through values and gradients."""
    params = init_params(jax.random.key(0), 2, n_nodes)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))

    def loss(params: Any, x: Any) -> jax.Array:
        last, (a, h) = rnn_forward(params, x), rnn_states(params, x)
        return jnp.sum(last) + jnp.sum(jnp.sin(a)) + jnp.sum(jnp.cos(h))

    x = X[:, :n_steps]
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    expected = gradient(params, x)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("batch")))
        actual = gradient(params, sharded)
    assert_close(actual, expected, 1e-5)


def test_inside_the_loop_of_a_caller() -> None:
    """A scan that hands the last state of each segment to the next runs the whole sequence."""

    def segment(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return rnn_forward(PARAMS, x, h), None

    segments = X.reshape(5, 3, 2, 2).swapaxes(0, 1)
    assert_close(jax.lax.scan(segment, H0, segments)[0], rnn_forward(PARAMS, X, H0), 1e-6)


def test_jit_is_eager() -> None:
    def half_square(*args: Any) -> Any:
        return 0.5 * jnp.sum(rnn_forward(*args) ** 2)

    functions: list[Any] = [rnn_forward, rnn_states, jax.grad(half_square)]
    args = PARAMS, X, H0
    with jax.disable_jit():
        results = [function(*args) for function in functions]
    assert_close(results, [jax.jit(function)(*args) for function in functions], 1e-6)


@pytest.mark.parametrize(("n_steps", "every"), [(0, None), (6, 3), (6, 2)])
def test_without_jit_no_loop_is_empty(n_steps: int, every: int | None) -> None:
    """JAX would refuse a scan of no steps: of a sequence, or of what is left after all pieces."""
    x = X[:, :n_steps]
    with jax.disable_jit():
        states = rnn_states(PARAMS, x, H0, checkpoint_every=every)
    assert_close(states, rnn_states(PARAMS, x, H0), 1e-6)


@over_functions_and_layers
def test_exported_and_loaded(function: Callable[..., Any]) -> None:
    exported = jax.export.export(jax.jit(function))(PARAMS, X, H0)
    loaded = jax.export.deserialize(exported.serialize())
    assert_close(loaded.call(PARAMS, X, H0), function(PARAMS, X, H0), 1e-6)


@over_functions_and_layers
def test_exported_with_symbolic_batch_and_steps(function: Callable[..., Any]) -> None:
    batch, n_steps = jax.export.symbolic_shape("batch, n_steps")
    struct: Any = jax.ShapeDtypeStruct
    with jax.enable_x64(True):
        params, x, h0 = jax.tree.map(np.float64, (PARAMS, X, H0))
        exported = jax.export.export(jax.jit(function))(
            params, struct((batch, n_steps, 2), x.dtype), struct((batch, 4), x.dtype)
        )
        loaded = jax.export.deserialize(exported.serialize())
        for size, steps in [(5, 6), (1, 2)]:
            args = params, x[:size, :steps], h0[:size]
            assert_close(loaded.call(*args), function(*args), 1e-12)


def test_exported_with_lengths_that_are_constants() -> None:
    """They cannot be checked against a symbolic number of steps, and saturate instead."""
    (n_steps,) = jax.export.symbolic_shape("n_steps")
    lengths = np.array([0, 1, 3, 9, 6])
    exported = jax.export.export(jax.jit(lambda x: rnn_forward(PARAMS, x, lengths=lengths)))(
        jax.ShapeDtypeStruct((5, n_steps, 2), jnp.float32)
    )
    expected = rnn_forward(PARAMS, X, lengths=np.minimum(lengths, 6))
    assert_close(exported.call(X), expected, 1e-6)
