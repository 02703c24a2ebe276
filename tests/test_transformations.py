"""`jax.export`, explicit axes and no `jit` go through the functions unchanged.

That `vmap` does is in `test_fuzz.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from tests.helpers import assert_close, numbers

*WEIGHTS, X, H0 = jax.tree.map(np.float32, numbers((2, 4), (4, 4), (4,), (3, 6, 2), (3, 4)))
PARAMS: Any = RNNParams(*WEIGHTS)


def step(params: RNNParams[Any], x: Any, h0: Any) -> Any:
    return rnn_step(params, h0, x[..., 0, :])


def gradient(params: RNNParams[Any], x: Any, h0: Any) -> Any:
    def loss(*args: Any) -> Any:
        return jnp.sum(rnn_forward(*args) ** 2)

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, x, h0)


def stacked(params: RNNParams[Any], x: Any, h0: Any) -> Any:
    square = params._replace(wx=params.wh)
    return rnn_stacked((params, (square, square)), x, (h0, None))


@pytest.mark.parametrize(("n_steps", "every"), [(0, None), (6, None), (6, 3), (6, 2)])
def test_without_jit_is_with_it(n_steps: int, every: int | None) -> None:
    """JAX would refuse a scan of no steps: of a sequence, or of what is left after all pieces."""
    params, x, h0 = jax.tree.map(np.float64, (PARAMS, X[..., :n_steps, :], H0))

    def results() -> Any:
        functions: list[Any] = [rnn_forward, rnn_states]
        pieces = [f(params, x, h0, checkpoint_every=every) for f in functions]
        return pieces, gradient(params, x, h0) if every is None else None

    with jax.enable_x64(True):
        with jax.disable_jit():
            without = results()
        assert_close(without, jax.jit(results)(), 1e-12)


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


@pytest.mark.parametrize("function", [step, rnn_forward, rnn_states, gradient, stacked])
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
    x: Any = jax.ShapeDtypeStruct((3, *jax.export.symbolic_shape("n_steps"), 2), jnp.float32)
    lengths = np.array([0, 9, 3])
    exported = jax.export.export(jax.jit(partial(rnn_forward, PARAMS, lengths=lengths)))(x)
    expected = rnn_forward(PARAMS, X, lengths=np.minimum(lengths, 6))
    assert_close(exported.call(X), expected, 1e-6)
