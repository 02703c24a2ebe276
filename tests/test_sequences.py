"""Lengths, resets and reverse: each sequence of a batch runs as it does by itself.

That values and gradients are the oracle's is in `test_plan.py`, vmap over lengths and resets
in `test_fuzz.py`, and shard_map over them in `on_devices.py`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states
from tests.helpers import (
    H0,
    LENGTHS,
    MASKS,
    PADDING,
    PARAMS,
    RESETS,
    X,
    assert_close,
    assert_equal,
    loss,
    numbers_like,
    own_tanh,
)


def root(a: jax.Array) -> jax.Array:
    """Infinitely steep at zero, which is the pre-activation in the padding."""
    return jnp.sqrt(jnp.abs(a))


@pytest.mark.parametrize("n_steps", [3, 6])
@pytest.mark.parametrize(
    ("activation", "rate", "size"),
    [(root, None, 1.0), (jnp.exp, None, 5.0), (jnp.exp, jnp.log, 0.5)],
)
def test_no_slope_in_the_padding_has_an_effect(
    activation: Any, rate: Any, size: float, n_steps: int
) -> None:
    """Neither an infinite derivative nor one that overflows."""
    params = RNNParams(np.full((1, 1), size, np.float32), np.ones((1, 1), np.float32), None)
    x = np.eye(n_steps, 1, dtype=np.float32)

    @partial(jax.jit, static_argnames="lengths")
    def derivatives(params: Any, x: Any, lengths: Any) -> Any:
        def last(params: Any, x: Any) -> Any:
            h0, options = np.full(1, 0.5, np.float32), {"activation": activation, "rate": rate}
            return jnp.sum(rnn_forward(params, x, h0, lengths=lengths, **options))

        return jax.grad(last)(params, x), jax.jacfwd(last)(params, x)

    assert_close(derivatives(params, x, 1), derivatives(params, x[:1], None), 1e-6)


def test_no_slope_of_a_held_state_overflows() -> None:
    """That of a sequence without steps, which may be larger than any value of the activation."""

    def total(params: Any) -> Any:
        h0 = np.full((2, 4), 1e30, np.float32)
        h = rnn_states(params, np.ones((2, 8, 3), np.float32), h0, lengths=np.array([0, 8])).h
        return jnp.sum(h[1])

    gradient = jax.grad(total)(jax.tree.map(np.float32, PARAMS))
    assert all(np.all(np.isfinite(each)) for each in gradient)


@pytest.mark.parametrize("activation", [jnp.tanh, own_tanh])
def test_a_leak_that_sequences_share_may_be_nan_where_all_have_padding(activation: Any) -> None:
    leak = np.where(np.arange(8) < 5, 0.5, np.nan)[:, None]

    def total(params: Any) -> Any:
        options: Any = {"activation": activation, "lengths": np.array([5, 2]), "leak": leak}
        return jnp.sum(rnn_forward(params, np.ones((2, 8, 3)), **options))

    assert all(np.all(np.isfinite(each)) for each in jax.grad(total)(PARAMS))


@pytest.mark.parametrize(
    ("activation", "dtype"), [(jnp.tanh, jnp.bfloat16), (own_tanh, np.float32)]
)
def test_no_check_for_nan_finds_that_of_the_padding(activation: Any, dtype: Any) -> None:
    """Nor in what is kept for an eager gradient; and no index is out of range."""
    padding = PADDING[..., None]
    x, leak = (np.where(padding, np.nan, each).astype(dtype) for each in (X, X[..., :1]))

    def total(params: Any, first: Any, options: Any) -> Any:
        lengths: Any = {"lengths": LENGTHS[:first], "leak": leak[:first]}
        h = rnn_states(params, x[:first], activation=activation, **lengths, **options).h
        return jnp.sum(h)

    params = jax.tree.map(np.float32, PARAMS)
    checks = checkify.float_checks | checkify.index_checks
    with jax.debug_nans(True), jax.numpy_dtype_promotion("standard"):
        for first, options in ((2, {}), (1, {"reverse": True}), (2, {"checkpoint_every": 4})):
            jax.grad(total)(params, first, options)
        checked = checkify.checkify(jax.grad(partial(total, first=2, options={})), errors=checks)
        error, _ = jax.jit(checked)(params)
    error.throw()


@pytest.mark.parametrize(
    ("activation", "reverse", "n_steps"),
    [(jnp.tanh, True, 6), (own_tanh, False, 6), (jnp.tanh, False, 3)],
)
def test_the_padding_changes_no_bit(activation: Any, reverse: bool, n_steps: int) -> None:
    options = {"lengths": np.minimum(LENGTHS, n_steps), "reverse": reverse}
    padding = np.broadcast_to(PADDING[..., :n_steps, None], (2, 3, n_steps, 3))
    x = np.where(padding, 0, X[..., :n_steps, :])
    params, x, h0 = arguments = jax.tree.map(np.float32, (PARAMS, x, H0))
    tangents = jax.tree.map(np.float32, numbers_like(arguments, seed=1))

    @jax.jit
    def derivatives(*arguments: Any) -> Any:
        f = partial(loss, activation, options)
        gradient = jax.grad(f, argnums=(0, 1, 2))
        value, jvp = jax.jvp(f, arguments, tangents)
        return value, jvp, gradient(*arguments), jax.jvp(gradient, arguments, tangents)[1]

    expected = derivatives(*arguments)
    assert_equal(expected[2][1][padding], np.zeros(padding.sum(), np.float32))
    for poison in (np.nan, np.inf, -np.inf, np.finfo(np.float32).max):
        assert_equal(derivatives(params, np.where(padding, np.float32(poison), x), h0), expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_running_on_is_running_whole(cut: int, reverse: bool) -> None:
    """From each layer's last state, in either direction.

    Of each length the later piece has the rest, which counts as 0 if negative and traced.
    """
    layers, options = (PARAMS, PARAMS._replace(wx=PARAMS.wh)), MASKS | {"reverse": reverse}

    @jax.jit
    def in_two(lengths: Any) -> Any:
        pieces = [(np.s_[..., :cut], lengths), (np.s_[..., cut:], lengths - cut)]
        last: Any = (H0, None)
        for piece, left in reversed(pieces) if reverse else pieces:
            of_piece: Any = options | {"lengths": left, "resets": RESETS[piece]}
            last = rnn_stacked(layers, X[(*piece, slice(None))], last, **of_piece).last
        return last

    whole: Any = partial(rnn_stacked, **options)
    assert_close(in_two(LENGTHS), whole(layers, X, (H0, None)).last, 1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64])
def test_traced_lengths_saturate(dtype: Any) -> None:
    """And need not hold the number of steps."""
    traced = jax.jit(lambda lengths, x=X[0]: rnn_forward(PARAMS, x, H0[0], lengths=lengths))
    some, long = np.array([5, 100, 127]), np.resize(X[0], (3, 300, 3))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    with jax.enable_x64(dtype == np.int64):
        assert_close(traced(some.astype(dtype), long), traced(some, long), 0.0)
        for out_of_range in ([low, 6, high], [low // 2 + 3, 6, high // 2 + 2]):
            expected = traced(np.clip(out_of_range, 0, 6).astype(dtype))
            assert_close(traced(np.array(out_of_range, dtype)), expected, 0.0)
            # Nor are lengths on a device checked, which would have to wait for it.
            got = rnn_forward(PARAMS, X[0], H0[0], lengths=jnp.array(out_of_range, dtype))
            assert_close(got, expected, 1e-6)
