"""Derivatives in every mode and order are those of the oracle and of a plain scan."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES, Case, Sizes
from tests.compiled import n_products
from tests.helpers import WAYS, assert_close, every_value, filled, loss, numbers, over_numerics

ONE_SIZE = st.just(Sizes((2,), 6, 2, 3))  # more steps than are written out without a loop
ARGUMENTS = ("wx", "wh", "b", "x", "h0")
EVERY = (0, 1, 2, 3, 4)


def arrays(*stacked: int, seed: int) -> tuple[Any, ...]:
    """An array for each of `ARGUMENTS`, or a stack of arrays."""
    shapes = (2, 3), (3, 3), (3,), (2, 6, 2), (2, 3)
    wx, wh, b, x, h0 = numbers(*((*stacked, *shape) for shape in shapes), seed=seed)
    return wx / 2, wh / 2, b / 2, x, h0


ARRAYS, STACKS = arrays(seed=0), arrays(2, seed=1)
TANGENTS = arrays(seed=2)
PARAMS, X, H0 = RNNParams(*ARRAYS[:3]), *ARRAYS[3:]

# Against the oracle


@partial(jax.jit, static_argnames="activation")
def gradients(case: Case, g_last: Any, g_a: Any, g_h: Any, activation: Any = jnp.tanh) -> Any:
    """The gradients by params, x and h0 of the weighted sum of all values, and these values."""

    def loss(params: RNNParams[Any], x: Any, h0: Any) -> Any:
        last, a, h = every_value(params, x, h0, activation=activation)
        return jnp.sum(g_last * last) + jnp.sum(g_a * a) + jnp.sum(g_h * h), (last, a, h)

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*case)


@over_numerics
@given(data=st.data())
def test_gradients_are_the_oracles(
    dtype: Any, tolerance: float, options: Any, in_oracle: Any, data: st.DataObject
) -> None:
    sizes = st.sampled_from([SIZES[1], SIZES[-1]])
    case = filled(data.draw(strategies.cases(sizes=sizes, dtype=dtype)))
    *batch, n_steps, _ = case.x.shape
    n_nodes = len(case.params.wh)
    g_last = data.draw(strategies.arrays((*batch, n_nodes), dtype))
    g_a, g_h = data.draw(strategies.arrays((2, *batch, n_steps, n_nodes), dtype))
    with jax.enable_x64(dtype == np.float64):
        actual, _ = gradients(case, g_last, g_a, g_h, **options)
    expected = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h, activation=in_oracle)
    assert_close(actual, tuple(expected[:3]), tolerance)


@pytest.mark.parametrize("batch", [(3,), (), (1,)])
def test_wide_networks_are_the_oracles(batch: tuple[int, ...]) -> None:
    wx, wh, b, x, h0 = numbers((30, 40), (40, 40), (40,), (*batch, 9, 30), (*batch, 40))
    case = Case(RNNParams(wx, wh / 20, b), x, h0)
    g_last, g_a, g_h = numbers((*batch, 40), (*batch, 9, 40), (*batch, 9, 40), seed=1)
    with jax.enable_x64(True):
        actual, values = gradients(case, g_last, g_a, g_h)
    assert_close(values, (oracle.rnn_forward(*case), *oracle.rnn_states(*case)), 1e-12)
    expected = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h)
    assert_close(actual, tuple(expected[:3]), 1e-12)


# Against a plain scan


def plain(activation: Any, *arrays: Any) -> tuple[Any, Any, Any]:
    """The last state, pre-activations and states by a plain scan, whose derivative is JAX's own."""
    wx, wh, b, x, h0 = arrays

    def step(h: Any, x_t: Any) -> Any:
        a = x_t @ wx + h @ wh + b[None]
        return activation(a), (a, activation(a))

    last, (a, h) = jax.lax.scan(step, h0, jnp.swapaxes(x, 0, 1))
    return last, jnp.swapaxes(a, 0, 1), jnp.swapaxes(h, 0, 1)


def through_jaxrnn(output: str, activation: Any, *arrays: Any) -> tuple[Any, Any, Any]:
    """The same by jaxrnn: the pre-activations, or else the last state and the states."""
    wx, wh, b, x, h0 = arrays
    params = RNNParams(wx, wh, b)
    if output == "a":
        return None, rnn_states(params, x, h0, activation=activation).a, None
    h, (last,) = rnn_stacked((params,), x, (h0,), activation=activation)
    return last, None, h


(WEIGHTS,) = numbers((2, 6, 3), seed=3)
OUTPUTS: dict[str, Callable[[tuple[Any, Any, Any]], Any]] = {
    "last": lambda out: jnp.sum(jnp.sin(out[0])),
    "a": lambda out: jnp.sum(WEIGHTS * jnp.sin(out[1])),
    "h": lambda out: jnp.sum(WEIGHTS * jnp.sin(out[2])),
    "last and h": lambda out: OUTPUTS["last"](out) + OUTPUTS["h"](out),
}


def losses(output: str, activation: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same loss of the five arrays, through jaxrnn and through the plain scan."""
    pick = OUTPUTS[output]
    return (
        lambda *arrays: pick(through_jaxrnn(output, activation, *arrays)),
        lambda *arrays: pick(plain(activation, *arrays)),
    )


def assert_agree(transform: Callable[[Any], Any], output: str, activation: Any, *args: Any) -> None:
    """The two losses give the same under a transformation of JAX."""
    ours, theirs = losses(output, activation)
    with jax.enable_x64(True):
        assert_close(jax.jit(transform(ours))(*args), jax.jit(transform(theirs))(*args), 1e-11)


@pytest.mark.parametrize(
    ("output", "activation"),
    [("last", jnp.tanh), ("a", jnp.tanh), ("h", jax.nn.relu), ("last and h", jax.nn.gelu)],
)
def test_first_derivatives(output: str, activation: Any) -> None:
    """By all arguments together."""

    def all_ways(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays: (
            jax.value_and_grad(loss, argnums=EVERY)(*arrays),
            jax.jvp(loss, arrays, TANGENTS),
        )

    assert_agree(all_ways, output, activation, *ARRAYS)


def test_gradients_by_each_argument_alone() -> None:
    def loss(*arrays: Any) -> Any:
        return jnp.sum(WEIGHTS * rnn_states(RNNParams(*arrays[:3]), *arrays[3:]).h)

    with jax.enable_x64(True):
        alone = jax.jit(lambda *args: [jax.grad(loss, argnums=i)(*args) for i in EVERY])(*ARRAYS)
    expected = oracle.rnn_gradients(PARAMS, X, H0, g_h=WEIGHTS)
    assert_close(alone, [*expected.params, expected.x, expected.h0], 1e-11)


def hessian_vector_product(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arrays: jax.jvp(jax.grad(loss, argnums=EVERY), arrays, TANGENTS)


def third_order(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Reverse over reverse along a direction, and its derivative along others."""

    def along(*arrays: Any) -> Any:
        return jnp.sum(TANGENTS[2] * jax.grad(loss, argnums=2)(*arrays))

    return lambda *arrays: jax.jvp(jax.grad(along, argnums=EVERY), arrays, TANGENTS)


HIGHER: dict[str, Callable[..., Any]] = {
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f, argnums=EVERY)),
    "third order": third_order,
    "Hessian-vector product": hessian_vector_product,
}


@pytest.mark.parametrize(
    ("order", "output", "activation"),
    [
        ("forward over reverse", "last and h", jnp.tanh),
        ("third order", "last and h", jnp.tanh),
        ("Hessian-vector product", "a", jax.nn.relu),
    ],
)
def test_higher_derivatives(order: str, output: str, activation: Any) -> None:
    assert_agree(HIGHER[order], output, activation, *ARRAYS)


def test_an_inactive_node_of_relu_passes_on_no_nan() -> None:
    """Also without the compiler, which can turn a product with a mask into a choice."""
    wx, wh, *rest = ARRAYS
    wh = np.where(np.eye(3, k=2) > 0, np.nan, wh)

    def loss(*arrays: Any) -> Any:
        h = rnn_states(RNNParams(*arrays[:3]), *arrays[3:], activation=jax.nn.relu).h
        return jnp.sum(WEIGHTS * h)

    with jax.enable_x64(True), jax.disable_jit():
        got = jax.grad(loss, argnums=EVERY)(wx, wh, *rest)
    args: Any = RNNParams(wx, wh, rest[0]), *rest[1:]
    expected = oracle.rnn_gradients(*args, g_h=WEIGHTS, activation=oracle.RELU)
    assert not np.all(np.isnan(np.asarray(expected.params.b)))
    assert_close(got, (*expected.params, expected.x, expected.h0), 1e-12)


@pytest.mark.parametrize(
    "mapped",
    [(0, 0, 0, 0, 0), (None, 0, None, None, 0)],
    ids=["all", "wh and h0"],
)
def test_gradients_under_vmap(mapped: tuple[int | None, ...]) -> None:
    args = [
        stack if axis == 0 else array
        for stack, array, axis in zip(STACKS, ARRAYS, mapped, strict=True)
    ]

    def mapped_gradient(loss: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(jax.grad(loss, argnums=EVERY), in_axes=mapped)

    assert_agree(mapped_gradient, "last and h", jnp.tanh, *args)


def test_gradients_under_nested_vmap() -> None:
    def every_pair(loss: Callable[..., Any]) -> Callable[..., Any]:
        gradient = jax.grad(loss, argnums=EVERY)
        over_inputs = jax.vmap(gradient, in_axes=(None, None, None, 0, 0))
        return jax.vmap(over_inputs, in_axes=(0, 0, 0, None, None))

    assert_agree(every_pair, "a", jnp.tanh, *STACKS)


def test_what_is_not_differentiated_costs_nothing() -> None:
    """Compiled, a gradient has three products in its loops, and one more for wx, wh and x each."""
    shapes = (7, 16), (16, 16), (16,), (64, 32, 7), (64, 16)
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def last(*arrays: Any) -> Any:
        return jnp.sum(rnn_forward(RNNParams(*arrays[:3]), *arrays[3:], unroll=1))

    of_each = [n_products(jax.grad(last, argnums=i), *structs) - 3 for i in EVERY]
    assert dict(zip(ARGUMENTS, of_each, strict=True)) == {"wx": 1, "wh": 1, "b": 0, "x": 1, "h0": 0}
    assert n_products(jax.grad(last, argnums=EVERY), *structs) == 3 + sum(of_each)


@pytest.mark.parametrize("size", [1.0, -2.0, 1e25])
def test_h0_need_not_be_a_value_of_the_activation(size: float) -> None:
    """Even where its square overflows, no tangent and no gradient becomes NaN."""
    arrays = tuple(map(np.float32, (*ARRAYS[:4], np.full((2, 3), size))))
    tangents = tuple(map(np.float32, TANGENTS))
    ours, theirs = losses("h", jnp.tanh)
    got, expected = (
        jax.jit(lambda *args, loss=loss: (jax.jvp(loss, args, tangents), jax.grad(loss)(*args)))
        for loss in (ours, theirs)
    )
    assert_close(got(*arrays), expected(*arrays), 1e-4)


def test_gradients_without_a_bias() -> None:
    def loss(params: RNNParams[Any]) -> Any:
        return jnp.sum(rnn_forward(params, X, H0) ** 2)

    gradient = jax.jit(jax.grad(loss))
    with jax.enable_x64(True):
        without = gradient(PARAMS._replace(b=None))
        zero = gradient(PARAMS._replace(b=np.zeros(3)))
    assert without.b is None
    assert_close(without, zero._replace(b=None), 1e-12)


# Against finite differences and each other


def test_hessians_agree_in_other_mixtures_of_modes() -> None:
    """Forward or reverse over forward; `test_higher_derivatives` has the others."""

    def loss(wh: Any) -> jax.Array:
        return jnp.sum(jnp.sin(rnn_forward(PARAMS._replace(wh=wh), X)))

    ways = jax.hessian(loss), jax.jacfwd(jax.jacfwd(loss)), jax.jacrev(jax.jacfwd(loss))
    with jax.enable_x64(True):
        hessian, *others = jax.jit(lambda wh: [way(wh) for way in ways])(PARAMS.wh)
    assert np.ptp(hessian) > 0.01
    assert_close(others, [hessian] * 2, 1e-12)


def test_the_jacobian_of_a_step() -> None:
    """It is diag(1 - h^2) wh^T."""
    h0, x_t = np.array([0.25, -0.5, 1.0], np.float32), np.array([0.5, -1.0], np.float32)
    h = rnn_step(PARAMS, h0, x_t)
    expected = np.diag(1 - np.asarray(h) ** 2) @ np.asarray(PARAMS.wh).T
    for jacobian in (jax.jacfwd, jax.jacrev):
        assert_close(jacobian(rnn_step, argnums=1)(PARAMS, h0, x_t), expected, 1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_derivatives_by_what_the_activation_closes_over(transform: Any) -> None:
    with jax.enable_x64(True):

        def loss(slope: Any) -> jax.Array:
            run = transform(
                lambda x: rnn_forward(PARAMS, x, activation=lambda a: jnp.tanh(slope * a))
            )
            return jnp.sum(run(X))

        step = 1e-6
        expected = (loss(0.7 + step) - loss(0.7 - step)) / (2 * step)
        assert abs(expected) > 0.1
        assert_close(jax.grad(loss)(0.7), expected, 1e-8)
        assert_close(jax.jvp(loss, (0.7,), (1.0,))[1], expected, 1e-8)
        slopes = np.array([0.5, 0.7])
        assert_close(jax.vmap(loss)(slopes), np.array([loss(slope) for slope in slopes]), 1e-12)


@pytest.mark.parametrize(
    ("way", "options"),
    [
        *((way, {}) for way in WAYS),
        *((way, {"checkpoint_every": 3}) for way in ("value and gradient", "reverse over forward")),
    ],
)
def test_every_mode_by_gains_that_the_activation_closes_over(way: str, options: Any) -> None:
    """tanh(gains a) is the network whose weights and bias are multiplied by the gains."""

    def closed_over(gains: Any, x: Any, h0: Any) -> Any:
        return loss(lambda a: jnp.tanh(gains * a), options, PARAMS, x, h0)

    def multiplied(gains: Any, x: Any, h0: Any) -> Any:
        wx, wh, b = PARAMS
        return loss(jnp.tanh, {}, RNNParams(gains * wx, gains * wh, gains[0] * b), x, h0)

    with jax.enable_x64(True):
        args = np.array([[0.5, 1.0, 2.0]]), X, H0
        ours, theirs = (jax.jit(WAYS[way](f))(*args) for f in (closed_over, multiplied))
        assert_close(ours, theirs, 1e-10)


def test_gradients_by_parameters_where_inputs_are_integers() -> None:
    counts = np.array([[1, 2], [0, 3]], np.int32)

    def loss(params: RNNParams[Any], x: Any) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.sum(rnn_forward(params, x))

    assert_close(
        jax.grad(loss)(PARAMS, counts), jax.grad(loss)(PARAMS, counts.astype(np.float32)), 1e-6
    )
