"""The derivative rule of tanh and relu against JAX's own derivative of the plain scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states
from tests.comparing import assert_close

RANDOM = np.random.default_rng(0)


def uniform(*shape: int) -> Any:
    return RANDOM.uniform(-1.0, 1.0, shape) / np.sqrt(shape[-1])


EVERY = (0, 1, 2, 3, 4)
ARGUMENTS = ("wx", "wh", "b", "x", "h0")
ARRAYS = (uniform(2, 3), uniform(3, 3), uniform(3), uniform(2, 6, 2), uniform(2, 3))
STACKS = (uniform(2, 2, 3), uniform(2, 3, 3), uniform(2, 3), uniform(2, 2, 6, 2), uniform(2, 2, 3))
WEIGHTS = uniform(2, 6, 3)


def plain(activation: Any, *arrays: Any) -> tuple[Any, Any, Any]:
    wx, wh, b, x, h0 = arrays

    def step(h: Any, x_t: Any) -> Any:
        a = x_t @ wx + h @ wh + b[None]
        return activation(a), (a, activation(a))

    last, (a, h) = jax.lax.scan(step, h0, jnp.swapaxes(x, 0, 1))
    return last, jnp.swapaxes(a, 0, 1), jnp.swapaxes(h, 0, 1)


def through_jaxrnn(activation: Any, *arrays: Any) -> tuple[Any, Any, Any]:
    wx, wh, b, x, h0 = arrays
    args = RNNParams(wx, wh, b), x, h0
    h, (last,) = rnn_stacked((args[0],), x, (h0,), activation=activation)
    return last, rnn_states(*args, activation=activation).a, h


OUTPUTS: dict[str, Callable[[tuple[Any, Any, Any]], Any]] = {
    "last": lambda out: jnp.sum(jnp.sin(out[0])),
    "a": lambda out: jnp.sum(WEIGHTS * jnp.sin(out[1])),
    "h": lambda out: jnp.sum(WEIGHTS * jnp.sin(out[2])),
    "last and h": lambda out: OUTPUTS["last"](out) + OUTPUTS["h"](out),
}
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "square": jnp.square}


def losses(output: str, activation: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same loss of the five arrays, through jaxrnn and through the plain scan."""
    pick, f = OUTPUTS[output], ACTIVATIONS[activation]
    return (
        lambda *arrays: pick(through_jaxrnn(f, *arrays)),
        lambda *arrays: pick(plain(f, *arrays)),
    )


def agree(transform: Callable[[Any], Any], output: str, activation: str, *args: Any) -> None:
    ours, theirs = losses(output, activation)
    with jax.enable_x64(True):
        assert_close(jax.jit(transform(ours))(*args), jax.jit(transform(theirs))(*args), 1e-11)


@pytest.mark.parametrize(
    ("output", "activation"),
    [
        ("last", "tanh"),
        ("a", "tanh"),
        ("h", "relu"),
        ("last and h", "gelu"),
    ],
)
def test_first_derivatives(output: str, activation: str) -> None:
    """Value and gradient, forward mode, both Jacobians, by all arguments together."""
    tangents = tuple(uniform(*array.shape) for array in ARRAYS)

    def all_ways(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays: (
            jax.value_and_grad(loss, argnums=EVERY)(*arrays),
            jax.jvp(loss, arrays, tangents),
            jax.linearize(loss, *arrays)[1](*tangents),
            jax.jacfwd(loss, argnums=EVERY)(*arrays),
        )

    agree(all_ways, output, activation, *ARRAYS)


@pytest.mark.parametrize("argnum", range(5), ids=ARGUMENTS)
def test_gradients_by_each_argument_alone(argnum: int) -> None:
    agree(lambda loss: jax.grad(loss, argnums=argnum), "last and h", "tanh", *ARRAYS)


HIGHER: dict[str, Callable[..., Any]] = {
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f, argnums=EVERY)),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f, argnums=EVERY), argnums=(4,)),
    "third order": lambda f: jax.jacfwd(jax.jacrev(jax.grad(f, argnums=2), argnums=2), argnums=1),
}


@pytest.mark.parametrize("order", HIGHER)
def test_higher_derivatives(order: str) -> None:
    agree(HIGHER[order], "last and h", "tanh", *ARRAYS)


def test_second_derivatives_of_relu() -> None:
    agree(HIGHER["reverse over reverse"], "a", "relu", *ARRAYS)


def test_an_inactive_node_of_relu_passes_on_no_nan() -> None:
    """As in JAX, also where no compiler makes a choice of a product."""
    wx, wh, *rest = ARRAYS
    wh = np.where(np.eye(3, k=2) > 0, np.nan, wh)
    ours, theirs = losses("h", "relu")
    with jax.enable_x64(True), jax.disable_jit():
        got, expected = (jax.grad(loss, argnums=EVERY)(wx, wh, *rest) for loss in (ours, theirs))
    assert not np.all(np.isnan(expected[0]))
    assert_close(got, expected, 1e-12)


def test_hessian_vector_products() -> None:
    tangents = tuple(uniform(*array.shape) for array in ARRAYS)

    def products(loss: Callable[..., Any]) -> Callable[..., Any]:
        gradient = jax.grad(loss, argnums=EVERY)
        return lambda *arrays: jax.jvp(gradient, arrays, tangents)

    agree(products, "last", "tanh", *ARRAYS)


@pytest.mark.parametrize(
    "mapped",
    [(0, 0, 0, None, None), (None, None, None, 0, 0), (0, 0, 0, 0, 0), (None, 0, None, None, 0)],
    ids=["params", "inputs", "all", "wh and h0"],
)
def test_gradients_under_vmap(mapped: tuple[int | None, ...]) -> None:
    args = [
        stack if axis == 0 else array
        for stack, array, axis in zip(STACKS, ARRAYS, mapped, strict=True)
    ]

    def mapped_gradient(loss: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(jax.grad(loss, argnums=EVERY), in_axes=mapped)

    agree(mapped_gradient, "last and h", "tanh", *args)


def test_gradients_under_nested_vmap() -> None:
    def every_pair(loss: Callable[..., Any]) -> Callable[..., Any]:
        gradient = jax.grad(loss, argnums=EVERY)
        over_inputs = jax.vmap(gradient, in_axes=(None, None, None, 0, 0))
        return jax.vmap(over_inputs, in_axes=(0, 0, 0, None, None))

    agree(every_pair, "a", "tanh", *STACKS)


def test_what_is_not_differentiated_costs_nothing() -> None:
    """The matrix products in the compiled gradient: three in the loops, the rest by argument."""
    shapes = ((7, 16), (16, 16), (16,), (64, 32, 7), (64, 16))
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def last(*arrays: Any) -> Any:
        return jnp.sum(rnn_forward(RNNParams(*arrays[:3]), *arrays[3:]))

    def n_products(argnums: int | tuple[int, ...]) -> int:
        gradient = jax.jit(jax.grad(last, argnums=argnums))
        return str(gradient.lower(*structs).compile().as_text()).count(" dot(")

    of_each = {name: n_products(argnum) - 3 for argnum, name in enumerate(ARGUMENTS)}
    assert of_each == {"wx": 1, "wh": 1, "b": 0, "x": 1, "h0": 0}
    assert n_products(EVERY) == 3 + sum(of_each.values())


@pytest.mark.parametrize("size", [1.0, -2.0, 1e25])
def test_h0_need_not_be_a_value_of_the_activation(size: float) -> None:
    """Nor small: where its square overflows, no tangent and no gradient becomes NaN."""
    wx, wh, b, x, _ = ARRAYS
    arrays = tuple(np.float32(v) for v in (wx, wh, b, x, np.full((2, 3), size)))
    tangents = tuple(np.float32(uniform(*array.shape)) for array in arrays)
    ours, theirs = losses("h", "tanh")
    got, expected = (
        jax.jit(lambda *args, loss=loss: (jax.jvp(loss, args, tangents), jax.grad(loss)(*args)))
        for loss in (ours, theirs)
    )
    assert_close(got(*arrays), expected(*arrays), 1e-4)


def test_bias_may_be_missing() -> None:
    wx, wh, _, x, h0 = ARRAYS

    def loss(params: RNNParams[Any]) -> Any:
        return jnp.sum(rnn_forward(params, x, h0) ** 2)

    with jax.enable_x64(True):
        without = jax.grad(loss)(RNNParams(wx, wh, None))
        zero = jax.grad(loss)(RNNParams(wx, wh, np.zeros(3)))
    assert without.b is None
    assert_close(without, zero._replace(b=None), 1e-12)
