"""Derivatives: against the oracle's backpropagation through time, and against each other."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrnn import RNNParams, rnn_forward, rnn_states, rnn_step
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES, Case, Sizes
from tests.comparing import assert_close, filled, over_numerics

ONE_SIZE = st.just(Sizes((2,), 6, 2, 3))  # more steps than are written out
RANDOM = np.random.default_rng(0)
# float64 under x64, float32 without.
PARAMS = RNNParams(*(RANDOM.uniform(-1.0, 1.0, shape) / 2.0 for shape in ((2, 3), (3, 3), (3,))))
X, H0 = RANDOM.uniform(-1.0, 1.0, (2, 6, 2)), RANDOM.uniform(-1.0, 1.0, (2, 3))


@partial(jax.jit, static_argnames="activation")
def gradients(case: Case, g_last: Any, g_a: Any, g_h: Any, activation: Any = jnp.tanh) -> Any:
    """The gradients by params, x and h0 of a loss that weighs all that the network returns."""

    def loss(params: RNNParams[Any], x: Any, h0: Any) -> jax.Array:
        last = rnn_forward(params, x, h0, activation=activation)
        a, h = rnn_states(params, x, h0, activation=activation)
        return jnp.sum(g_last * last) + jnp.sum(g_a * a) + jnp.sum(g_h * h)

    return jax.grad(loss, argnums=(0, 1, 2))(*case)


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
        actual = gradients(case, g_last, g_a, g_h, **options)
    expected = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h, activation=in_oracle)
    assert_close(actual, tuple(expected[:3]), tolerance)


@pytest.mark.parametrize("batch", [(3,), (), (1,)])
def test_wide_networks_are_the_oracles(batch: tuple[int, ...]) -> None:
    draw, n_nodes = np.random.default_rng(0).standard_normal, 40
    params = RNNParams(draw((30, n_nodes)), draw((n_nodes, n_nodes)) / n_nodes, draw(n_nodes))
    case = Case(params, draw((*batch, 9, 30)), draw((*batch, n_nodes)))
    g_last, g_a, g_h = draw((*batch, n_nodes)), *draw((2, *batch, 9, n_nodes))
    with jax.enable_x64(True):
        values = rnn_forward(*case), *rnn_states(*case)
        actual = gradients(case, g_last, g_a, g_h)
    assert_close(values, (oracle.rnn_forward(*case), *oracle.rnn_states(*case)), 1e-12)
    expected = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h)
    assert_close(actual, tuple(expected[:3]), 1e-12)


@pytest.mark.parametrize("run", [rnn_forward, rnn_states], ids=["forward", "states"])
@given(data=st.data())
def test_forward_and_reverse_mode_are_adjoint(run: Any, data: st.DataObject) -> None:
    """<v, J u> = <J^T v, u>, and `jax.linearize` is `jax.jvp`."""
    h0 = strategies.arrays((2, 3), np.float64)
    case = data.draw(strategies.cases(sizes=ONE_SIZE, dtype=np.float64))
    case = case._replace(h0=data.draw(h0))
    u = jax.tree.map(lambda v: data.draw(strategies.arrays(v.shape, np.float64)), case)
    with jax.enable_x64(True):
        out = jax.eval_shape(run, *case)
        v = jax.tree.map(lambda o: data.draw(strategies.arrays(o.shape, np.float64)), out)
        jvp, linear, vjp = derivatives(run, tuple(case), tuple(u), v)
    assert_close(linear, jvp, 1e-12)
    assert_close(_inner(v, jvp), _inner(vjp, tuple(u)), 1e-12)


@partial(jax.jit, static_argnames="run")
def derivatives(run: Any, primals: Any, u: Any, v: Any) -> Any:
    """J u in two ways, and J^T v."""
    jvp = jax.jvp(run, primals, u)[1]
    return jvp, jax.linearize(run, *primals)[1](*u), jax.vjp(run, *primals)[1](v)


def _inner(left: Any, right: Any) -> float:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return sum(float(np.vdot(a, b)) for a, b in pairs)


@pytest.mark.parametrize(
    ("activation", "params"), [(jax.nn.gelu, PARAMS._replace(b=None))], ids=["gelu, no bias"]
)
def test_finite_differences_to_second_order(activation: Any, params: RNNParams[Any]) -> None:
    """Both modes and their mixtures, for an activation that the oracle does not know too."""

    @jax.jit
    def returned(*args: Any) -> Any:
        return rnn_states(*args, activation=activation)

    with jax.enable_x64(True):
        check_grads(returned, (params, X, H0), order=2, rtol=1e-5, atol=1e-5)


def test_hessians_agree_in_every_mixture_of_modes() -> None:
    def loss(wh: Any) -> jax.Array:
        return jnp.sum(jnp.sin(rnn_forward(PARAMS._replace(wh=wh), X)))

    with jax.enable_x64(True):
        wh = PARAMS.wh
        hessian = jax.jit(jax.hessian(loss))(wh)
        assert np.ptp(hessian) > 0.01
        for outer, inner in ((jax.jacfwd, jax.jacfwd), (jax.jacrev,) * 2, (jax.jacrev, jax.jacfwd)):
            assert_close(jax.jit(outer(inner(loss)))(wh), hessian, 1e-12)
        direction = np.arange(9.0).reshape(3, 3)
        product = jax.jit(lambda v: jax.jvp(jax.grad(loss), (wh,), (v,))[1])(direction)
        assert_close(product, np.einsum("ijkl,kl->ij", hessian, direction), 1e-11)


def test_the_jacobian_of_a_step() -> None:
    """diag(1 - h^2) wh^T, which the search for fixed points linearises with."""
    h0, x_t = np.array([0.25, -0.5, 1.0], np.float32), np.array([0.5, -1.0], np.float32)
    h = rnn_step(PARAMS, h0, x_t)
    expected = np.diag(1 - np.asarray(h) ** 2) @ np.asarray(PARAMS.wh).T
    for jacobian in (jax.jacfwd, jax.jacrev):
        assert_close(jacobian(rnn_step, argnums=1)(PARAMS, h0, x_t), expected, 1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_closed_over_activation_parameter_has_its_gradient(transform: Any) -> None:
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


def test_integer_inputs_are_differentiated_around() -> None:
    """Counts as inputs, floating parameters: the gradient by the parameters is the same."""
    counts = np.array([[1, 2], [0, 3]], np.int32)

    def loss(params: RNNParams[Any], x: Any) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.sum(rnn_forward(params, x))

    assert_close(
        jax.grad(loss)(PARAMS, counts), jax.grad(loss)(PARAMS, counts.astype(np.float32)), 1e-6
    )
