"""init_params draws what its initialisers give, for any sizes and types, and refuses others."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import glorot_uniform, orthogonal, truncated_normal, zeros

from jaxrnn import RNNParams, init_params
from tests.helpers import assert_equal_on_cpus

KEY = jax.random.key(0)


def test_default_is_the_notebooks() -> None:
    wx, wh, b = jax.tree.map(np.asarray, init_params(KEY, 300, 200))
    assert wx.shape == (300, 200)
    assert wh.shape == (200, 200)
    np.testing.assert_array_equal(b, np.ones(200, np.float32))
    for weights in (wx, wh):
        assert weights.dtype == jnp.float32
        assert abs(float(np.mean(weights))) < 5 * 0.01 / 200
        assert float(np.std(weights)) == pytest.approx(0.01, rel=0.02)
    assert not np.array_equal(wx[:200], wh), "the two weight matrices share their random numbers"


@pytest.mark.parametrize("n_features", [0, 1, 5])
@pytest.mark.parametrize("n_nodes", [1, 4])
def test_shapes(n_features: int, n_nodes: int) -> None:
    params = jax.eval_shape(partial(init_params, n_features=n_features, n_nodes=n_nodes), KEY)
    assert [array.shape for array in jax.tree.leaves(params)] == [
        (n_features, n_nodes),
        (n_nodes, n_nodes),
        (n_nodes,),
    ]


def test_each_initialiser_makes_its_own_array() -> None:
    params = init_params(
        KEY, 3, 4, wx_init=glorot_uniform(), wh_init=orthogonal(), b_init=truncated_normal(2.0)
    )
    wx_key, wh_key, b_key = jax.random.split(KEY, 3)
    expected = RNNParams(
        glorot_uniform()(wx_key, (3, 4), jnp.float32),
        orthogonal()(wh_key, (4, 4), jnp.float32),
        truncated_normal(2.0)(b_key, (4,), jnp.float32),
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_no_bias() -> None:
    assert init_params(KEY, 2, 3, b_init=None).b is None


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_types_are_rounded_from_float32(dtype: Any) -> None:
    narrow = init_params(KEY, 3, 5, wh_init=orthogonal(), dtype=dtype)
    wide = init_params(KEY, 3, 5, wh_init=orthogonal())
    for array, wide_array in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, wide_array.astype(dtype))


def test_float64_is_drawn_in_float64() -> None:
    with jax.enable_x64(True):
        assert init_params(KEY, 2, 3).wh.dtype == jnp.float64
        params = init_params(KEY, 2, 8, wh_init=orthogonal(), dtype=jnp.float64)
        np.testing.assert_allclose(params.wh @ params.wh.T, np.eye(8), rtol=0, atol=1e-14)
        assert init_params(KEY, 2, 3, dtype=jnp.float32).wh.dtype == jnp.float32


def test_float64_without_x64_warns_as_jax_does() -> None:
    with pytest.warns(UserWarning, match="float64 .* truncated to dtype float32"):
        init_params(KEY, 2, 3, dtype=np.float64)


@pytest.mark.parametrize("wh_init", [jax.nn.initializers.normal(0.01), orthogonal()])
def test_vmap_over_keys_is_a_stack_of_the_sets(wh_init: Any) -> None:
    keys = jax.random.split(KEY, 5)
    stack = jax.vmap(lambda key: init_params(key, 3, 4, wh_init=wh_init))(keys)
    singles = [init_params(key, 3, 4, wh_init=wh_init) for key in keys]
    assert isinstance(stack, RNNParams)
    assert_equal_on_cpus(stack, jax.tree.map(lambda *a: np.stack(a), *singles))


def test_works_under_jit_and_with_legacy_keys() -> None:
    jitted = jax.jit(lambda key: init_params(key, 3, 4))
    jax.tree.map(  # XLA reorders the factors when it sees them together
        lambda array, expected: np.testing.assert_array_max_ulp(array, expected, maxulp=1),
        jitted(KEY),
        init_params(KEY, 3, 4),
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        init_params(jax.random.PRNGKey(0), 3, 4),
        init_params(jax.random.key(0), 3, 4),
    )


BAD_CALLS: dict[str, tuple[tuple[Any, Any, Any], dict[str, Any], type[Exception], str]] = {
    "no key": ((None, 2, 3), {}, TypeError, "key must be one JAX PRNG key.* but is None"),
    "stack of keys": (
        (jax.random.split(KEY, 2), 2, 3),
        {},
        TypeError,
        r"key must be one JAX PRNG key, .*jax.vmap.* but is of shape \(2,\)",
    ),
    "float size": ((KEY, 2.0, 3), {}, TypeError, "n_features must be an integer, but is 2.0"),
    "negative size": ((KEY, -1, 3), {}, ValueError, "n_features must be at least 0, but is -1"),
    "no nodes": ((KEY, 2, 0), {}, ValueError, "n_nodes must be at least 1, but is 0"),
    "more nodes than there is memory": (
        (KEY, 2, 2**31),
        {},
        ValueError,
        r"n_features, n_nodes\) must .* less than 281474976710656 entries, but is \(2, 2147483648",
    ),
    "initialiser that divides by no rows": (
        (KEY, 0, 3),
        {"wx_init": lambda key, shape, dtype: jnp.ones(shape, dtype) * (1 / shape[0])},
        ValueError,
        r"wx_init cannot draw an array of shape \(0, 3\): division by zero",
    ),
    "number as initialiser": (
        (KEY, 2, 3),
        {"wx_init": 0.01},
        TypeError,
        r"wx_init must be a callable \(key, shape, dtype\) -> array, but is 0.01",
    ),
    "no initialiser": ((KEY, 2, 3), {"wh_init": None}, TypeError, "wh_init .* but is None"),
    "initialiser of another shape": (
        (KEY, 2, 3),
        {"b_init": lambda key, shape, dtype: zeros(key, (7,), dtype)},
        ValueError,
        r"the array that b_init returns must be of shape \(3,\), but is of shape \(7,\)",
    ),
    "complex initialiser": (
        (KEY, 2, 3),
        {"wx_init": lambda key, shape, dtype: zeros(key, shape, jnp.complex64)},
        TypeError,
        "the array that wx_init returns must be .* real numbers, but is .* complex64",
    ),
    "initialiser of keys": (
        (KEY, 2, 3),
        {"wh_init": lambda key, shape, dtype: jax.random.split(key, shape)},
        TypeError,
        "the array that wh_init returns must be .* real numbers, but is .* key",
    ),
    "initialiser of lists": (
        (KEY, 2, 3),
        {"b_init": lambda key, shape, dtype: [0.0] * 3},
        TypeError,
        r"the array that b_init returns must be .* real numbers, but is \[0.0",
    ),
    "integer type": (
        (KEY, 2, 3),
        {"dtype": int},
        TypeError,
        "dtype .* floating type, but is <class 'int'>",
    ),
    "complex type": ((KEY, 2, 3), {"dtype": "complex64"}, TypeError, "dtype .* but is 'complex64'"),
    "no type": ((KEY, 2, 3), {"dtype": None}, TypeError, "dtype must .* but is None"),
    "an array": ((KEY, 2, 3), {"dtype": jnp.ones(3)}, TypeError, "dtype must .* but is of shape"),
    "unknown type": ((KEY, 2, 3), {"dtype": "wide"}, TypeError, "dtype must .* but is 'wide'"),
}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS
)
def test_bad_calls(
    arguments: tuple[Any, Any, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        init_params(*arguments, **options)


def test_errors_of_initialisers_have_a_note() -> None:
    with pytest.raises(TypeError, match="takes 1 positional") as told:
        init_params(KEY, 2, 3, b_init=lambda key: key)  # type: ignore[arg-type, misc]
    assert told.value.__notes__ == ["in b_init, which is called with a key, shape (3,) and a dtype"]
