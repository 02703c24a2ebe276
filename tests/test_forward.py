"""rnn_step, rnn_forward and rnn_states have the shapes and dtypes of README.md."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states, rnn_step
from tests.helpers import H0, PARAMS, X, assert_close, assert_equal, numbers


def test_neither_features_nor_nodes() -> None:
    nothing = RNNParams(*(np.zeros(shape, np.float32) for shape in ((0, 0), (0, 0), (0,))))
    assert rnn_states(nothing, np.zeros((2, 6, 0), np.float32)).h.shape == (2, 6, 0)


@pytest.mark.parametrize("leak", [None, numbers((2, 3, 6, 4), seed=2)[0]], ids=["", "leak"])
def test_steps_one_by_one_are_the_states(leak: Any) -> None:
    h: Any = H0
    states = rnn_states(PARAMS, X, H0, leak=leak).h
    for t in range(6):
        h = rnn_step(PARAMS, h, X[..., t, :], leak=None if leak is None else leak[..., t, :])
        assert_close(h, states[..., t, :], 1e-6)
    assert_close(rnn_forward(PARAMS, X, H0, leak=leak), h, 1e-6)


def test_a_step_broadcasts_states_against_inputs() -> None:
    """Its functions may have a value of each sequence."""
    h, x_t, gains = (a.astype(np.float32) for a in numbers((5, 1, 4), (3, 3), (5, 3, 4), seed=1))

    def step(h: Any, x_t: Any, gains: Any) -> Any:
        return rnn_step(
            PARAMS, h, x_t, activation=partial(jnp.multiply, gains), rate=partial(jnp.add, gains)
        )

    every = np.asarray(step(h, x_t, gains))
    assert every.shape == (5, 3, 4)
    for i, j in np.ndindex(5, 3):
        assert_close(every[i, j], step(h[i, 0], x_t[j], gains[i, j]), 1e-6)


def test_a_symbolic_number_of_steps_is_neither_unrolled_nor_cut() -> None:
    (n_steps,) = jax.export.symbolic_shape("n_steps")
    x: Any = jax.ShapeDtypeStruct((n_steps, 3), jnp.float32)
    jax.eval_shape(partial(rnn_forward, PARAMS), x)
    bad: list[tuple[str, Any]] = [("checkpoint_every", 2), *(("unroll", n) for n in (8, 0))]
    for option, value in bad:
        with pytest.raises(ValueError, match=f"{option} must be None.* with a symbolic n_steps"):
            jax.eval_shape(partial(rnn_forward, PARAMS, **{option: value}), x)


@pytest.mark.parametrize("h0", [0.5, [0.5] * 4, [[0.5]], [[0.5] * 4] * 3])
def test_h0_broadcasts(h0: Any) -> None:
    x = np.ones((3, 5, 3), np.float32)
    expected = rnn_forward(PARAMS, x, np.full((3, 4), 0.5, np.float32))
    assert_equal(rnn_forward(PARAMS, x, np.array(h0, np.float32)), expected)


# The dtypes of params, x and h0, and that of the results.
DTYPES = [
    "float32 bfloat16 bfloat16 float32",
    "bfloat16 float32 bfloat16 float32",
    "float16 bfloat16 float16 float32",
    "float32 int32 float32 float32",
    "bfloat16 int8 bfloat16 bfloat16",
    "int32 int32 int32 float32",
    "float64 float64 float64 float32",
    "x64: float64 float32 float32 float64",
    "x64: float32 float32 float64 float64",
    "x64: int64 int32 int32 float64",
    "x64: float32 float32 float32 float32",
    "x64: bfloat16 float16 bfloat16 float32",
]


@jax.jit  # here, so that rows with the same dtypes share a program
def every_function(params: Any, x: Any, h0: Any) -> Any:
    call = params, x, h0
    return rnn_forward(*call), *rnn_states(*call), rnn_step(params, h0, x[:, 0])


@pytest.mark.parametrize("dtypes", DTYPES)
def test_dtypes_promote_as_in_jax(dtypes: str) -> None:
    """The results are those of arrays that are cast to the dtype of the result before the call."""
    of_params, of_x, of_h0, expected = dtypes.removeprefix("x64: ").split()

    def array(shape: tuple[int, ...], dtype: str) -> Any:
        thirds = np.resize([1 / 3, 1.0, -2 / 3, -1.0, 0.0], shape)  # no float type holds a third
        return thirds.astype(jnp.dtype(dtype))

    params = RNNParams(*(array(shape, of_params) for shape in ((2, 3), (3, 3), (3,))))
    x, h0 = array((2, 6, 2), of_x), array((3,), of_h0)

    with jax.enable_x64("x64" in dtypes), jax.numpy_dtype_promotion("standard"):
        out = every_function(params, x, h0)
        assert {each.dtype for each in out} == {jnp.dtype(expected)}
        promoted = jax.tree.map(lambda v: np.asarray(v).astype(expected), (params, x, h0))
        assert_equal(out, every_function(*promoted))


@pytest.mark.parametrize("function", [rnn_forward, lambda *args, **kw: rnn_states(*args, **kw).h])
def test_a_weak_type_of_the_activation_does_not_spread(function: Any) -> None:
    h = function(PARAMS, jnp.ones((3, 3)), activation=lambda a: jnp.where(a > 0, 1.0, 0.0))
    assert not h.weak_type


def test_each_layer_has_a_dtype_of_its_own() -> None:
    """And Python scalars, here a state, do not widen."""
    narrow = jax.tree.map(lambda array: array.astype(jnp.bfloat16), PARAMS)
    wide = jax.tree.map(np.float32, PARAMS._replace(wx=PARAMS.wh))
    with jax.numpy_dtype_promotion("standard"):
        out = rnn_stacked((narrow, wide), jnp.ones((3, 3), jnp.bfloat16), (0.5, None))
    assert [out.h.dtype, out.last[0].dtype] == [jnp.float32, jnp.bfloat16]
