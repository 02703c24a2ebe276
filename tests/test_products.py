"""The matrix products in forms of their own: values, both modes, second order, and under vmap."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.products import flat_matmul, is_small, small_matmul
from tests.comparing import assert_close

RANDOM = np.random.default_rng(0)
over_products = pytest.mark.parametrize("product", [flat_matmul, small_matmul])
over_shapes = pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 5, 3)])


def draw(*shape: int) -> Any:
    return RANDOM.uniform(-1, 1, shape)


def curvature(product: Any, array: Any, weights: Any) -> Any:
    return jnp.sum(jnp.sin(product(array, weights)))


@over_products
@over_shapes
def test_derivatives_are_those_of_a_product(product: Any, shape: Any) -> None:
    args = draw(*shape), draw(3, 2)
    assert is_small(*args)
    with jax.enable_x64(True):
        for way in (
            lambda f: f,
            lambda f: jax.grad(f, argnums=(0, 1)),
            lambda f: jax.jacfwd(f, argnums=(0, 1)),
            lambda f: jax.jacrev(jax.jacrev(f, argnums=(0, 1)), argnums=(0, 1)),
            lambda f: jax.jacfwd(jax.jacrev(f, argnums=(0, 1)), argnums=(0, 1)),
        ):
            ours, theirs = (way(partial(curvature, each))(*args) for each in (product, jnp.matmul))
            assert_close(ours, theirs, 1e-12)


@over_products
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_under_vmap(product: Any, axes: Any) -> None:
    """Of the values, and of the gradients, whose products are others, by arguments of both."""
    args = tuple(draw(*((4, 5, 3), (3, 2))[i]) for i in range(2))
    mapped: Any = tuple(
        array if axis is None else np.stack([array, 2 * array], axis)
        for array, axis in zip(args, axes, strict=True)
    )

    def first(each: Any) -> Any:
        f = jax.value_and_grad(partial(curvature, each), argnums=(0, 1))
        return jax.vmap(f, in_axes=axes)

    def second(each: Any) -> Any:
        def total(*args: Any) -> Any:
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(first(each)(*args)))

        return jax.grad(total, argnums=(0, 1))

    with jax.enable_x64(True):
        for way in (first, second):
            ours, theirs = (jax.jit(way(each))(*mapped) for each in (product, jnp.matmul))
            assert_close(ours, theirs, 1e-12)


@over_products
def test_float16_overflows_in_the_result_alone(product: Any) -> None:
    array, weights = np.full((2, 2), 300, np.float16), np.array([[300], [-300]], np.float16)
    assert_close(jax.jit(product)(array, weights), np.zeros((2, 1), np.float16), 0.0)


def test_under_vmap_of_no_sets() -> None:
    def gradient(weights: Any) -> Any:
        return jax.grad(partial(curvature, flat_matmul), argnums=1)(np.ones((4, 5, 3)), weights)

    with jax.enable_x64(True):
        assert jax.jit(jax.vmap(gradient))(np.ones((0, 3, 2))).shape == (0, 3, 2)
