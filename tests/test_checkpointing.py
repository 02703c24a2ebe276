"""checkpoint_every: the same values and derivatives, with fewer states kept."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward
from tests.compiled import temporary_bytes
from tests.helpers import H0, MASKS, PARAMS, WAYS, X, assert_close, loss, own_tanh


def differentiated(way: str, activation: Any = jnp.tanh, **options: Any) -> Any:
    with jax.enable_x64(True):
        return jax.jit(WAYS[way](partial(loss, activation, options)))(PARAMS, X, H0)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, (4,)), (MASKS | {"reverse": True}, (1, 7))],
    ids=["", "lengths resets reverse"],
)
def test_values_and_gradients_are_the_same(options: Any, sizes: tuple[int, ...]) -> None:
    """Of six steps, in pieces of one, in pieces of four and two, and in one piece."""
    expected = differentiated("value and gradient", **options)
    for every in sizes:
        actual = differentiated("value and gradient", checkpoint_every=every, **options)
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("way", ["forward over reverse", "reverse over forward"])
def test_every_mode_and_order_is_the_same(way: str) -> None:
    options = MASKS | {"reverse": True}
    expected = differentiated(way, own_tanh, **options)
    assert_close(differentiated(way, checkpoint_every=5, **options), expected, 1e-11)


def test_fewer_states_are_kept() -> None:
    shapes = (4, 64), (64, 64), (64,), (8, 2500, 4)
    *params, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    def of_gradient(every: int | None) -> int:
        def total(params: Any, x: Any) -> Any:
            return jnp.sum(rnn_forward(params, x, checkpoint_every=every, unroll=1))

        return temporary_bytes(jax.grad(total), RNNParams(*params), x)

    of_a_step = 8 * 64 * np.dtype(np.float32).itemsize
    assert of_gradient(None) > 2500 * of_a_step
    assert of_gradient(50) < 4 * 50 * of_a_step


def test_a_symbolic_number_of_steps_is_refused() -> None:
    (n_steps,) = jax.export.symbolic_shape("n_steps")
    x: Any = jax.ShapeDtypeStruct((n_steps, 3), jnp.float32)
    with pytest.raises(ValueError, match="checkpoint_every must be None with a symbolic n_steps"):
        jax.export.export(jax.jit(partial(rnn_forward, PARAMS, checkpoint_every=2)))(x)
