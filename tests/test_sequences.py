"""Lengths, resets and reverse: each sequence of a batch runs as it does by itself."""

from functools import partial
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import checkify

from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import Case, Sizes
from tests.helpers import (
    ACTIVATIONS,
    H0,
    LENGTHS,
    MASKS,
    PADDING,
    PARAMS,
    RESET_TO,
    RESETS,
    WAYS,
    X,
    assert_close,
    assert_equal,
    at,
    every_value,
    filled,
    loss,
    numbers,
    numbers_like,
    own_tanh,
)

SIZES = Sizes((2, 3), 6, 3, 4)
FEW = SIZES._replace(n_steps=3)  # which are written out without a loop
COMBINATIONS = [
    {name: MASKS[name] for name in names} | {"reverse": reverse}
    for names, reverse in product(
        [(), ("lengths",), ("resets", "reset_to"), tuple(MASKS)], [False, True]
    )
    if names or reverse
]
over_combinations = pytest.mark.parametrize(
    "options",
    COMBINATIONS,
    ids=lambda options: " ".join(k for k, v in options.items() if v is not False),
)


@partial(jax.jit, static_argnames=("activation", "reverse", "checkpoint_every"))
def all_of(case: Case, cotangents: Any, **options: Any) -> Any:
    """All values, and the gradients by params, x and h0 of their sum weighted by cotangents."""
    out, pull = jax.vjp(partial(every_value, **options), *case)
    return out, pull(cotangents)


def all_of_oracle(case: Case, cotangents: Any, **options: Any) -> Any:
    """What `all_of` must give."""
    values = oracle.rnn_forward(*case, **options), *oracle.rnn_states(*case, **options)
    g_last, g_a, g_h = cotangents
    gradients = oracle.rnn_gradients(*case, g_last=g_last, g_a=g_a, g_h=g_h, **options)
    return values, tuple(gradients[:3])


@pytest.mark.parametrize(
    ("options", "activation", "sizes"),
    [
        *((COMBINATIONS[i], "tanh", SIZES) for i in (1, 4, 5)),  # each option
        *((COMBINATIONS[-1], *rest) for rest in (("relu", SIZES), ("silu", SIZES), ("tanh", FEW))),
        (COMBINATIONS[0], "tanh", SIZES._replace(batch=(3,))),
    ],
)
@given(data=st.data())
def test_values_and_gradients_are_the_oracles(
    options: dict[str, Any], activation: str, sizes: Sizes, data: st.DataObject
) -> None:
    """With NaN, an infinity or the largest number in the padding, which the oracle never reads."""
    case = filled(data.draw(strategies.cases(sizes=st.just(sizes), dtype=np.float64)))
    drawn: Any = {"reverse": options["reverse"]}
    for name in ("lengths", "resets"):
        if name in options:
            drawn[name] = data.draw(getattr(strategies, name)(sizes))
    if "resets" in options:
        drawn["reset_to"] = data.draw(strategies.arrays((sizes.n_nodes,), np.float64))
    shape = *sizes.batch, sizes.n_steps, sizes.n_nodes
    of_last = data.draw(strategies.arrays((*sizes.batch, sizes.n_nodes), np.float64))
    cotangents = of_last, *data.draw(strategies.arrays((2, *shape), np.float64))
    in_jax, in_oracle = ACTIVATIONS[activation]
    expected = all_of_oracle(case, cotangents, activation=in_oracle, **drawn)
    poison = data.draw(st.sampled_from([np.nan, np.inf, np.finfo(np.float64).max]))
    padding = np.arange(sizes.n_steps) >= drawn.get("lengths", np.array(sizes.n_steps))[..., None]
    x = np.where(padding[..., None], poison, case.x)
    with jax.enable_x64(True):
        actual = all_of(case._replace(x=x), cotangents, activation=in_jax, **drawn)
    assert_close(actual, expected, 1e-12)


def root(a: jax.Array) -> jax.Array:
    """Infinitely steep at zero, which is the pre-activation in the padding."""
    return jnp.sqrt(jnp.abs(a))


@pytest.mark.parametrize("n_steps", [3, 6])
@pytest.mark.parametrize(("activation", "size"), [(root, 1.0), (jnp.exp, 5.0)])
def test_no_derivative_in_the_padding_reaches_a_gradient(
    activation: Any, size: float, n_steps: int
) -> None:
    """Neither an infinite derivative nor one that overflows."""
    params = RNNParams(np.full((1, 1), size, np.float32), np.ones((1, 1), np.float32), None)
    x = np.zeros((n_steps, 1), np.float32)
    x[0] = 1.0

    def last(params: Any, x: Any, **options: Any) -> jax.Array:
        return jnp.sum(rnn_forward(params, x, np.full(1, 0.5, np.float32), **options))

    @jax.jit
    def derivatives(params: Any, x: Any) -> Any:
        padded = partial(last, activation=activation, lengths=1)
        real = partial(last, activation=activation)
        return [
            (way(padded)(params, x), way(real)(params, x[:1])) for way in (jax.grad, jax.jacfwd)
        ]

    for actual, expected in derivatives(params, x):
        assert_close(actual, expected, 1e-6)


def test_checkify_finds_no_nan_of_the_padding() -> None:
    def last(x: Any) -> Any:
        return rnn_forward(jax.tree.map(np.float32, PARAMS), x, lengths=LENGTHS)

    x = np.where(PADDING[..., None], np.nan, X).astype(np.float32)
    error, _ = jax.jit(checkify.checkify(last, errors=checkify.float_checks))(x)
    error.throw()


@pytest.mark.parametrize("way", ["forward mode", "reverse over reverse"])
def test_the_rule_is_jaxs_own_derivative(way: str) -> None:
    """With lengths and resets together; JAX differentiates each step of `own_tanh`."""
    options = MASKS | {"reverse": True}
    with jax.enable_x64(True):
        ours, theirs = (
            jax.jit(WAYS[way](partial(loss, activation, options)))(PARAMS, X, H0)
            for activation in (jnp.tanh, own_tanh)
        )
    assert_close(ours, theirs, 1e-11)


@pytest.mark.parametrize(
    ("activation", "reverse", "n_steps"),
    [(jnp.tanh, True, 6), (own_tanh, False, 6), (jnp.tanh, False, 3)],
)
def test_the_padding_changes_no_bit(activation: Any, reverse: bool, n_steps: int) -> None:
    lengths = np.minimum(LENGTHS, n_steps)
    padding = np.broadcast_to(PADDING[..., :n_steps, None], (2, 3, n_steps, 3))
    real = X[..., :n_steps, :]
    arguments: Any = jax.tree.map(np.float32, (PARAMS, np.where(padding, 0, real), H0))
    tangents = jax.tree.map(np.float32, numbers_like(arguments, seed=1))

    @jax.jit
    def derivatives(*arguments: Any) -> Any:
        f = partial(loss, activation, {"lengths": lengths, "reverse": reverse})
        gradient = jax.grad(f, argnums=(0, 1, 2))
        value, jvp = jax.jvp(f, arguments, tangents)
        return value, jvp, gradient(*arguments), jax.jvp(gradient, arguments, tangents)[1]

    expected = derivatives(*arguments)
    assert_equal(expected[2][1][padding], np.zeros(padding.sum(), np.float32))
    for poison in (np.nan, np.inf, -np.inf, np.finfo(np.float32).max):
        params, x, h0 = arguments
        assert_equal(derivatives(params, np.where(padding, np.float32(poison), x), h0), expected)


@pytest.mark.parametrize(
    ("activation", "sizes", "reverse", "every"),
    [
        ("tanh", SIZES, False, None),
        ("tanh", SIZES, False, 2),
        ("tanh", FEW, False, None),
        ("silu", SIZES, True, None),
    ],
)
def test_nan_in_the_state_of_an_empty_sequence_stays_there(
    activation: str, sizes: Sizes, reverse: bool, every: int | None
) -> None:
    """In its initial state, where a reset in the padding would put NaN too."""
    in_jax, in_oracle = ACTIVATIONS[activation]
    n_steps = sizes.n_steps
    case = Case(PARAMS, X[..., :n_steps, :], np.where(LENGTHS[..., None] > 0, H0, np.nan))
    masks: Any = {
        "lengths": np.minimum(LENGTHS, n_steps),
        "resets": (RESETS | PADDING)[..., :n_steps],
        "reset_to": case.h0,
        "reverse": reverse,
    }
    of_all_states = (2, 3, n_steps, 4)
    cotangents = numbers((2, 3, 4), of_all_states, of_all_states, seed=1)
    with jax.enable_x64(True):
        actual = all_of(case, tuple(cotangents), activation=in_jax, checkpoint_every=every, **masks)
    expected = all_of_oracle(case, cotangents, activation=in_oracle, **masks)
    assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_a_padded_batch_is_its_sequences(reverse: bool) -> None:
    """As the oracle has each alone: its states, last state, and the state in its padding."""
    masks: Any = MASKS | {"reverse": reverse}
    with jax.enable_x64(True):
        a, h = jax.device_get(rnn_states(PARAMS, X, H0, **masks))
        last = jax.device_get(rnn_forward(PARAMS, X, H0, **masks))
    for i in np.ndindex(2, 3):
        n = int(LENGTHS[i])
        alone: Any = PARAMS, X[i][:n], H0[i]
        options: Any = {"resets": RESETS[i][:n], "reset_to": RESET_TO, "reverse": reverse}
        assert_close((a[i][:n], h[i][:n]), tuple(oracle.rnn_states(*alone, **options)), 1e-12)
        assert_close(last[i], oracle.rnn_forward(*alone, **options), 1e-12)
        assert_equal(h[i][n:], np.broadcast_to(H0[i] if reverse else last[i], (6 - n, 4)))
        assert_equal(a[i][n:], np.zeros((6 - n, 4)))
    assert_equal(h[..., 0 if reverse else -1, :], last)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_a_packed_row_is_its_sequences(reverse: bool) -> None:
    """A reset comes before its step in the order in which the steps are run."""
    first = [0, 2, 3] if not reverse else [1, 2, 5]
    row, h0 = X[0, 0], H0[0, 0]
    resets = np.isin(np.arange(6), first)
    packed = rnn_states(PARAMS, row, h0, resets=resets, reset_to=h0, reverse=reverse)
    cuts = [0, 2, 3, 6]
    pieces = [rnn_states(PARAMS, row[i:j], h0, reverse=reverse) for i, j in pairwise(cuts)]
    together = jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)
    assert_close(packed, together, 1e-6)


@pytest.mark.parametrize("n_steps", [3, 6])
def test_nan_does_not_pass_a_reset_in_the_values(n_steps: int) -> None:
    resets = np.arange(n_steps) == 2
    x = np.where(np.arange(n_steps)[:, None] < 2, np.nan, X[0, 0, :n_steps])
    for activation in (jnp.tanh, own_tanh):
        run = partial(rnn_states, PARAMS, activation=activation)
        a, h = run(x, H0[0, 0], resets=resets, reset_to=H0[0, 0])
        assert np.all(np.isnan(h[:2]))
        assert_close((a[2:], h[2:]), tuple(run(x[2:], H0[0, 0])), 1e-6)


@over_combinations
def test_reverse_is_flip_run_flip(options: dict[str, Any]) -> None:
    """With lengths, only the real steps are flipped."""
    lengths = options.get("lengths", np.full((2, 3), 6))
    t = np.arange(6)
    order = np.where(t < lengths[..., None], lengths[..., None] - 1 - t, t)
    flipped = np.take_along_axis(X, order[..., None], axis=-2)
    masks = {name: options[name] for name in MASKS if name in options}
    flipped_masks = dict(masks)
    if "resets" in masks:
        flipped_masks["resets"] = np.take_along_axis(RESETS, order, axis=-1)
    backward = rnn_states(PARAMS, X, H0, **masks, reverse=True)
    forward = rnn_states(PARAMS, flipped, H0, **flipped_masks)
    real = (t < lengths[..., None])[..., None]
    for got, turned in zip(backward, forward, strict=True):
        back = np.take_along_axis(np.asarray(turned), order[..., None], axis=-2)
        assert_close(np.where(real, got, 0), np.where(real, back, 0), 1e-6)


def test_under_vmap() -> None:
    """Over lengths and resets alone, with params and x, and nested."""

    def gradient(scale: Any, x: Any, lengths: Any, resets: Any) -> Any:
        params = jax.tree.map(lambda array: scale * array, PARAMS)
        options = {"lengths": lengths, "resets": resets, "reset_to": RESET_TO, "reverse": True}
        return jax.value_and_grad(partial(loss, jnp.tanh, options), argnums=(0, 1, 2))(
            params, x, H0[0, 0]
        )

    scales = np.array([0.5, 1.0])
    arguments: Any = scales, X[0, :2], LENGTHS[1, :2], RESETS[0, :2]
    with jax.enable_x64(True):
        single = jax.jit(gradient)
        for mapped in [(None, None, 0, None), (None, None, None, 0), (0, 0, 0, 0)]:
            args = [
                argument if axis == 0 else argument[1]
                for argument, axis in zip(arguments, mapped, strict=True)
            ]
            out = jax.device_get(jax.jit(jax.vmap(gradient, in_axes=mapped))(*args))
            for i in range(2):
                one = [arg[i] if axis == 0 else arg for arg, axis in zip(args, mapped, strict=True)]
                assert_close(at(out, i), single(*one), 1e-12)
        over_lengths = jax.vmap(gradient, in_axes=(None, None, 0, None))
        nested = jax.vmap(over_lengths, in_axes=(0, None, None, None))
        out = jax.device_get(jax.jit(nested)(scales, X[0, 0], LENGTHS[1], RESETS[0, 0]))
        for i, j in np.ndindex(2, 3):
            expected = single(scales[i], X[0, 0], LENGTHS[1, j], RESETS[0, 0])
            assert_close(at(out, (i, j)), expected, 1e-12)


@pytest.mark.parametrize(
    ("activation", "shape", "reverse", "every"),
    [
        ("tanh", (4,), True, None),
        ("relu", (3, 4), False, None),
        ("tanh", (2, 3, 4), False, 4),
        ("silu", (2, 3, 4), True, None),
    ],
)
def test_resets_put_back_to_another_state(
    activation: str, shape: Any, reverse: bool, every: int | None
) -> None:
    """Values and gradients, also by that state, and also with lengths and checkpoints."""
    in_jax, in_oracle = ACTIVATIONS[activation]
    masks: Any = {"lengths": LENGTHS, "resets": RESETS, "reverse": reverse}
    (reset_to,) = numbers(shape, seed=1)
    options: Any = masks | {"activation": in_jax, "checkpoint_every": every}

    def values(params: Any, x: Any, h0: Any, reset_to: Any) -> Any:
        return every_value(params, x, h0, reset_to=reset_to, **options)

    @jax.jit
    def values_and_gradients(*args: Any) -> Any:
        out, pull = jax.vjp(values, *args)
        return out, pull(out)

    with jax.enable_x64(True):
        out, gradients = values_and_gradients(PARAMS, X, H0, reset_to)
    in_numpy: Any = masks | {"activation": in_oracle, "reset_to": reset_to}
    last, (a, h) = (f(PARAMS, X, H0, **in_numpy) for f in (oracle.rnn_forward, oracle.rnn_states))
    assert_close(out, (last, a, h), 1e-12)
    expected = oracle.rnn_gradients(PARAMS, X, H0, g_last=last, g_a=a, g_h=h, **in_numpy)
    assert_close(tuple(gradients), tuple(expected[:4]), 1e-12)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_running_on_is_running_whole(cut: int, reverse: bool) -> None:
    """Of each length the later piece has the rest, which counts as 0 if negative and traced."""
    options: Any = {"reset_to": H0, "reverse": reverse}

    @jax.jit
    def in_two(lengths: Any) -> Any:
        pieces = [(np.s_[..., :cut], lengths), (np.s_[..., cut:], lengths - cut)]
        h = H0
        for piece, left in reversed(pieces) if reverse else pieces:
            masks: Any = {"lengths": left, "resets": RESETS[piece]}
            h = rnn_forward(PARAMS, X[(*piece, slice(None))], h, **masks, **options)
        return h

    masks: Any = MASKS | {"reset_to": H0}
    assert_close(in_two(LENGTHS), rnn_forward(PARAMS, X, H0, **masks, reverse=reverse), 1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64])
def test_traced_lengths_saturate(dtype: Any) -> None:
    traced = jax.jit(lambda lengths: rnn_forward(PARAMS, X[0], H0[0], lengths=lengths))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    with jax.enable_x64(dtype == np.int64):
        for out_of_range in ([low, 6, high], [low // 2 + 3, 6, high // 2 + 2]):
            expected = traced(np.clip(out_of_range, 0, 6).astype(dtype))
            assert_close(traced(np.array(out_of_range, dtype)), expected, 0.0)


@pytest.mark.parametrize(("value", "shown"), [(-1, "-1"), (7, "7")])
@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
def test_lengths_that_have_values_must_be_in_range(function: Any, value: int, shown: str) -> None:
    lengths = np.array([0, value, 6])
    expected = f"lengths must be from 0 to n_steps = 6, but is {shown}"
    with pytest.raises(ValueError, match=expected):
        function(PARAMS, X[0], lengths=lengths)
    with pytest.raises(ValueError, match=expected):
        jax.jit(lambda x: function(PARAMS, x, lengths=lengths))(X[0])
    on_device = jnp.asarray(lengths)  # is not checked, which would have to wait for the device
    nearest = function(PARAMS, X[0], lengths=np.clip(lengths, 0, 6))
    assert_equal(function(PARAMS, X[0], lengths=on_device), nearest)


@pytest.mark.parametrize("split", ["lengths", "resets"])
def test_inside_shard_map(split: str) -> None:
    """Although only lengths or resets vary over the devices."""
    mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec: Any = jax.sharding.PartitionSpec
    args: Any = jax.tree.map(np.float32, (PARAMS._replace(b=None), X[0], H0[0]))

    def run(mask: Any) -> Any:
        options: Any = {"reset_to": np.float32(0.5)} if split == "resets" else {}
        return rnn_states(*args, **(options | {split: mask}))

    sharded = jax.shard_map(run, mesh=mesh, in_specs=spec("device"), out_specs=spec("device"))
    assert_close(sharded(MASKS[split][0]), run(MASKS[split][0]), 1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_replaces_whatever_h0_holds(reverse: bool, activation: str) -> None:
    """A reset at the first step that is run, which in reverse is the last one."""
    in_jax, in_oracle = ACTIVATIONS[activation]
    x, lengths = X[0], np.array([6, 2, 1])
    first = lengths[:, None] - 1 if reverse else 0
    options: Any = {"lengths": lengths, "resets": np.arange(6) == first, "reverse": reverse}
    options["resets"] = np.broadcast_to(options["resets"], (3, 6))
    (options["reset_to"],) = numbers((4,), seed=1)
    h0 = np.full((3, 4), np.nan)
    h0[1] = np.inf

    def total(params: Any) -> Any:
        return jnp.sum(rnn_forward(params, x, h0, activation=in_jax, **options))

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(total))(PARAMS)
    in_numpy = options | {"activation": in_oracle, "g_last": np.ones((3, 4))}
    assert_close(gradient, oracle.rnn_gradients(PARAMS, x, h0, **in_numpy).params, 1e-12)
