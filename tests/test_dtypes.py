"""Everything is computed in the dtype to which parameters, x and h0 promote by JAX's rules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from tests.helpers import assert_equal, numbers

PARAMS = RNNParams(*map(np.float32, numbers((2, 4), (4, 4), (4,))))

# The dtypes of params, x and h0, and that of the results.
DTYPES = [
    ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
    ("float16", "float16", "float16", "float16"),
    ("float32", "bfloat16", "bfloat16", "float32"),
    ("bfloat16", "float32", "bfloat16", "float32"),
    ("float16", "bfloat16", "float16", "float32"),
    ("float32", "int32", "float32", "float32"),
    ("bfloat16", "int8", "bfloat16", "bfloat16"),
    ("int32", "int32", "int32", "float32"),
    ("float64", "float64", "float64", "float32"),
]
DTYPES_UNDER_X64 = [
    ("float64", "float64", "float64", "float64"),
    ("float64", "float32", "float32", "float64"),
    ("float32", "float32", "float64", "float64"),
    ("int64", "int32", "int32", "float64"),
    ("float32", "float32", "float32", "float32"),
    ("bfloat16", "float16", "bfloat16", "float32"),
]


@jax.jit  # here, so that rows with the same dtypes share a program
def run(params: Any, x: Any, h0: Any) -> Any:
    call = params, x, h0
    return rnn_forward(*call), *rnn_states(*call), rnn_step(params, h0, x[:, 0])


@pytest.mark.parametrize(
    ("of_params", "of_x", "of_h0", "expected", "x64"),
    [(*row, False) for row in DTYPES] + [(*row, True) for row in DTYPES_UNDER_X64],
)
def test_dtypes_promote_as_in_jax(
    of_params: str, of_x: str, of_h0: str, expected: str, x64: bool
) -> None:
    """The results are those of arrays that are cast to the dtype of the result before the call."""

    def array(shape: tuple[int, ...], dtype: str) -> Any:
        thirds = np.resize([1 / 3, 1.0, -2 / 3, -1.0, 0.0], shape)  # no float type holds a third
        return thirds.astype(jnp.dtype(dtype))

    params = RNNParams(*(array(shape, of_params) for shape in ((2, 3), (3, 3), (3,))))
    x, h0 = array((2, 6, 2), of_x), array((3,), of_h0)

    with jax.enable_x64(x64), jax.numpy_dtype_promotion("standard"):
        out = run(params, x, h0)
        assert {each.dtype for each in out} == {jnp.dtype(expected)}
        promoted = jax.tree.map(lambda v: np.asarray(v).astype(expected), (params, x, h0))
        assert_equal(out, run(*promoted))


@pytest.mark.parametrize("function", [rnn_forward, lambda *args, **kw: rnn_states(*args, **kw).h])
def test_a_weak_type_of_the_activation_does_not_spread(function: Any) -> None:
    h = function(PARAMS, jnp.ones((3, 2)), activation=lambda a: jnp.where(a > 0, 1.0, 0.0))
    assert not h.weak_type


def test_each_layer_has_a_dtype_of_its_own() -> None:
    """And Python scalars, here a state, do not widen."""
    narrow = jax.tree.map(lambda array: array.astype(jnp.bfloat16), PARAMS)
    wide = RNNParams(*map(np.float32, numbers((4, 5), (5, 5), (5,))))
    with jax.numpy_dtype_promotion("standard"):
        out = rnn_stacked((narrow, wide), jnp.ones((3, 2), jnp.bfloat16), (0.5, None))
    assert [out.h.dtype, out.last[0].dtype] == [jnp.float32, jnp.bfloat16]
