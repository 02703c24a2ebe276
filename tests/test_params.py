"""init_params draws what its initialisers give, for any sizes and types."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import glorot_uniform, normal, orthogonal, truncated_normal, zeros

from jaxrnn import LEARNABLE, RNNParams, init_params, init_stacked
from tests.helpers import assert_close, assert_equal

KEY = jax.random.key(0)


def test_default_is_the_notebooks() -> None:
    wx, wh, b = jax.tree.map(np.asarray, init_params(KEY, 300, 200))
    assert (wx.shape, wh.shape) == ((300, 200), (200, 200))
    np.testing.assert_array_equal(b, np.ones(200, np.float32))
    for weights in (wx, wh):
        assert weights.dtype == jnp.float32
        assert abs(float(np.mean(weights))) < 5 * 0.01 / 200
        assert float(np.std(weights)) == pytest.approx(0.01, rel=0.02)
    assert not np.array_equal(wx[:200], wh), "the two weight matrices share their random numbers"


@pytest.mark.parametrize("n_features", [None, 0, 1, 5])
@pytest.mark.parametrize("n_nodes", [1, 4])
@pytest.mark.parametrize("b_init", [zeros, None])
def test_shapes(n_features: int | None, n_nodes: int, b_init: Any) -> None:
    params = jax.eval_shape(lambda: init_params(KEY, n_features, n_nodes, b_init=b_init))
    wx = None if n_features is None else (n_features, n_nodes)
    b = None if b_init is None else (n_nodes,)
    assert jax.tree.map(jnp.shape, params) == RNNParams(wx, (n_nodes, n_nodes), b)


def test_each_initialiser_makes_its_own_array() -> None:
    draws = {**LEARNABLE, "b_init": truncated_normal(2.0)}
    params = init_params(KEY, 3, 4, **draws)
    rows = zip(draws.values(), [(3, 4), (4, 4), (4,)], strict=True)
    keys = jax.random.split(KEY, 3)
    expected = [
        init(key, shape, jnp.float32) for key, (init, shape) in zip(keys, rows, strict=True)
    ]
    assert_equal(params, RNNParams(*expected))


def test_learnable_is_what_the_docstring_says() -> None:
    """For layers too, and no caller can change it for others."""
    expected = init_params(KEY, 3, 4, wx_init=glorot_uniform(), wh_init=orthogonal(), b_init=zeros)
    assert_equal(init_params(KEY, 3, 4, **LEARNABLE), expected)
    (layer,) = init_stacked(KEY, 3, (4,), **LEARNABLE)
    assert_equal(layer, init_params(jax.random.split(KEY, 1)[0], 3, 4, **LEARNABLE))
    assert init_params(KEY, 3, 4, **{**LEARNABLE, "b_init": None}).b is None
    with pytest.raises(TypeError, match="does not support item assignment"):
        LEARNABLE["b_init"] = None  # type: ignore[index]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_types_are_rounded_from_float32(dtype: Any) -> None:
    narrow = init_params(KEY, 3, 5, wh_init=orthogonal(), dtype=dtype)
    wide = init_params(KEY, 3, 5, wh_init=orthogonal())
    assert_equal(narrow, jax.tree.map(lambda array: array.astype(dtype), wide))


def test_float64_is_drawn_in_float64() -> None:
    with jax.enable_x64(True):
        assert init_params(KEY, 2, 3).wh.dtype == jnp.float64
        params = init_params(KEY, 2, 8, wh_init=orthogonal(), dtype=jnp.float64)
        np.testing.assert_allclose(params.wh @ params.wh.T, np.eye(8), rtol=0, atol=1e-14)
        assert init_params(KEY, 2, 3, dtype=jnp.float32).wh.dtype == jnp.float32
    with pytest.warns(UserWarning, match="float64 .* truncated to dtype float32"):
        init_params(KEY, 2, 3, dtype=np.float64)  # as JAX does


@pytest.mark.parametrize("wh_init", [normal(0.01), orthogonal()])
def test_under_vmap_and_jit_and_with_legacy_keys(wh_init: Any) -> None:
    draw = partial(init_params, n_features=3, n_nodes=4, wh_init=wh_init)
    keys = jax.random.split(KEY, 5)
    singles = jax.tree.map(lambda *a: np.stack(a), *map(draw, keys))
    # GPUs may add up in another order.
    assert_close(jax.vmap(draw)(keys), singles, 0.0 if jax.default_backend() == "cpu" else 1e-6)
    assert_close(jax.jit(draw)(KEY), draw(KEY), 2e-7)  # XLA reorders factors that it sees together
    assert_equal(draw(jax.random.PRNGKey(0)), draw(KEY))
