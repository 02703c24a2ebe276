"""Values and derivatives, in every mode and order and with every option, are what they must be."""

from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrnn import RNNParams, init_params, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.activations import TANGENTS
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import Sizes
from tests.compiled import n_products, temporary_bytes
from tests.helpers import (
    ACTIVATIONS,
    H0,
    MASKS,
    PARAMS,
    RATES,
    REFERENCES,
    RESET_TO,
    WAYS,
    X,
    assert_close,
    curved,
    every_value,
    filled,
    loss,
    numbers,
    own_tanh,
)

# Against the oracle, which has a rule of its own for every option


class Row(NamedTuple):
    """Calls to draw.

    Attributes:
      sizes: of the batch, the steps, the features and the nodes.
      masks: whether there are lengths and resets.
      activation: its name in `ACTIVATIONS`.
      rate: its name in `RATES`, where there is one.
      n_rates: how many entries it returns; None as many as there are nodes.
      leak: its shape, if there is one.
      reset_to: its shape, where there are resets.
      directions: of each layer; None for one network, of which the pre-activations are known too.
      static: other options.
    """

    sizes: Sizes = Sizes((2, 3), 6, 3, 4)
    masks: tuple[str, ...] = ("lengths", "resets")
    activation: str = "tanh"
    rate: str | None = None
    n_rates: int | None = None
    leak: tuple[int, ...] | None = None
    reset_to: tuple[int, ...] = (4,)
    directions: tuple[int, ...] | None = None
    static: Any = MappingProxyType({})


FEW = Sizes((3,), 3, 3, 4)  # have no rule
THREE, WITHOUT_WEIGHTS = Sizes((3,), 7, 3, 4), Sizes((3,), 7, None, 4)
REVERSE, EACH = {"reverse": True}, (2, 3, 4)
TURNED_PIECES = REVERSE | {"checkpoint_every": 4}
ROWS = {
    "lengths, one piece": Row(masks=("lengths",), static={"checkpoint_every": 7}),
    "resets": Row(masks=("resets",), static=REVERSE),
    "both": Row(reset_to=EACH),
    "both, reverse, relu": Row(activation="relu", static=REVERSE),
    "both, reverse, silu": Row(activation="silu", reset_to=EACH, static=REVERSE),
    "both, pieces of one": Row(reset_to=EACH, static={"checkpoint_every": 1}),
    "both, few steps": Row(FEW, reset_to=(3, 4), static=REVERSE),
    "leak": Row(THREE, leak=(3, 7, 4)),
    "leak of nodes, no wx": Row(WITHOUT_WEIGHTS, leak=(4,), static=REVERSE),
    "leak of steps, no wx, relu": Row(WITHOUT_WEIGHTS, activation="relu", leak=(7, 1)),
    "leak of sequences": Row(THREE, activation="sigmoid", leak=(3, 1, 1), static=REVERSE),
    "leak, no wx, silu": Row(WITHOUT_WEIGHTS, activation="silu", leak=(3, 7, 4), static=REVERSE),
    "one leak, few steps": Row(FEW, leak=(), static=REVERSE),
    "rate": Row(rate="tanh", reset_to=EACH),
    "currents": Row(THREE, (), "identity", "tanh", leak=(4,)),
    "currents, masks": Row(
        THREE, activation="identity", rate="relu", leak=(3, 7, 4), static=REVERSE
    ),
    "currents, no wx": Row(WITHOUT_WEIGHTS, (), "identity", "relu", leak=()),
    "low rank": Row(rate="two of tanh", n_rates=2, leak=(4,), static=TURNED_PIECES),
    "currents, wide": Row(Sizes((3,), 9, 30, 40), (), "identity", "sigmoid", leak=(40,)),
    "wide": Row(Sizes((3,), 9, 30, 40), ()),
    "layers": Row(leak=(2, 3, 6, 1), directions=(1, 2, 1)),
    "layers, currents": Row(activation="identity", rate="tanh", leak=(4,), directions=(2, 1)),
    "layers, silu": Row(activation="silu", reset_to=EACH, directions=(2,), static=TURNED_PIECES),
}


@partial(jax.jit, static_argnames=("function", "activation", "rate", "reverse", "checkpoint_every"))
def values_and_gradients(function: Any, by: Any, others: Any, weights: Any, **static: Any) -> Any:
    """All values, and the gradients of their sum, weighted, by some of the arguments."""
    out, pull = jax.vjp(lambda by: function(**by, **others, **static), by)
    return out, pull(weights)[0]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@given(data=st.data())
def test_values_and_gradients_are_the_oracles(row: Row, data: st.DataObject) -> None:
    """With NaN, an infinity or the largest number in what no sequence with steps reads.

    That is the padding of `x` and of `leak`, and an initial state that a reset replaces at once,
    from either end. In the states of an empty sequence they stay.
    """
    sizes, draw = row.sizes, data.draw
    kind: Any = {"sizes": st.just(sizes), "dtype": np.float64}
    cases: Any = strategies.cases(**kind, n_rates=row.n_rates)
    function: Any = every_value if row.directions is None else rnn_stacked
    if row.directions is not None:
        cases = strategies.stacked_cases(**kind, directions=st.just(row.directions))
    arrays: Any = filled(draw(cases))._asdict()
    arrays |= {name: draw(getattr(strategies, name)(sizes)) for name in row.masks}
    shapes = {"leak": row.leak, "reset_to": row.reset_to if "resets" in row.masks else None}
    for name, shape in shapes.items():
        if shape is not None:
            arrays[name] = draw(strategies.arrays(shape, np.float64))

    poison = draw(st.sampled_from([np.nan, np.inf, np.finfo(np.float64).max]))
    lengths = arrays.get("lengths", np.full(sizes.batch, sizes.n_steps))
    padding, is_empty = np.arange(sizes.n_steps) >= lengths[..., None], lengths == 0
    resets = np.broadcast_to(arrays.get("resets", False), padding.shape)
    ends = np.stack([np.zeros_like(lengths), np.maximum(lengths - 1, 0)], axis=-1)
    is_replaced = np.all(np.take_along_axis(resets, ends, axis=-1), axis=-1)
    places = {"x": padding, "leak": padding, "h0": is_empty | is_replaced, "reset_to": is_empty}

    def poisoned(where: Any, array: Any) -> Any:
        fits = np.shape(array)[:-1] == np.shape(where)
        return np.where(where[..., None], poison, array) if fits else array

    for name in places.keys() & arrays.keys():
        arrays[name] = jax.tree.map(partial(poisoned, places[name]), arrays[name])

    in_jax, in_oracle = ACTIVATIONS[row.activation]
    rate, rate_in_oracle = RATES.get(row.rate or "", (None, None))
    of_oracle: Any = {"activation": in_oracle, "rate": rate_in_oracle}
    of_oracle["reverse"] = row.static.get("reverse", False)
    values, gradients_by = REFERENCES[function]
    expected = values(**arrays, **of_oracle)
    weights = jax.tree.map(lambda v: draw(strategies.arrays(v.shape, np.float64)), expected)
    gradients = gradients_by(weights, **arrays, **of_oracle)._asdict()
    gradients = {name: each for name, each in gradients.items() if each is not None}
    by = {name: arrays.pop(name) for name in gradients}
    with jax.enable_x64(True):
        actual = values_and_gradients(
            function, by, arrays, weights, activation=in_jax, rate=rate, **row.static
        )
    assert_close(actual, (expected, gradients), 1e-12)


# Against JAX's own derivatives of a step that the rule does not know


def of_preactivations(activation: Any, options: Any, params: Any, x: Any, h0: Any) -> Any:
    return curved(rnn_states(params, x, h0, activation=activation, **options).a)


def of_leak(activation: Any, options: Any, params: Any, x: Any, h0: Any) -> Any:
    """The leak is in place of the bias, so that it is differentiated too."""
    leak = {"leak": params.b}
    return loss(activation, options | leak, params._replace(b=None), x, h0)


def of_layers(activation: Any, options: Any, params: Any, x: Any, h0: Any) -> Any:
    """One layer of one direction and one of two."""
    upper = params._replace(wx=params.wh), params._replace(wx=-params.wh)
    out = rnn_stacked((params, upper), x, (h0, None), activation=activation, **options)
    return sum(map(curved, jax.tree.leaves(out)))


def with_leak(*shape: int) -> RNNParams[Any]:
    return PARAMS._replace(b=numbers(shape, seed=2)[0])


REVERSED, BACK_TO = MASKS | REVERSE, MASKS | {"reset_to": H0 / 2}
CURRENTS = {"rate": jnp.tanh, "leak": 0.3}
HARD: list[tuple[str, Any, Any, RNNParams[Any], Any]] = [
    ("forward over reverse", of_preactivations, jax.nn.relu, PARAMS, {}),
    ("forward mode", loss, jnp.tanh, PARAMS, REVERSED),
    ("reverse over reverse", loss, jnp.tanh, PARAMS, REVERSED),
    ("forward mode", of_leak, jnp.tanh, with_leak(2, 3, 6, 4), BACK_TO),
    ("forward over reverse", of_leak, jnp.tanh, with_leak(4), BACK_TO),
    ("reverse over reverse", of_leak, jnp.tanh, with_leak(2, 3, 6, 1), BACK_TO),
    ("forward over reverse", of_layers, jnp.tanh, PARAMS, MASKS | {"reset_to": 0.25}),
    ("forward mode", loss, jax.nn.identity, PARAMS, REVERSED | CURRENTS),
    ("reverse over reverse", loss, jax.nn.identity, PARAMS, REVERSED | CURRENTS),
    ("forward over reverse", of_leak, jax.nn.identity, with_leak(4), BACK_TO | CURRENTS),
    ("reverse over forward", of_layers, jax.nn.softplus, PARAMS, {"rate": jax.nn.sigmoid}),
    ("forward over reverse", loss, jnp.tanh, PARAMS, REVERSED | {"checkpoint_every": 5}),
    ("reverse over forward", loss, own_tanh, PARAMS, REVERSED | {"checkpoint_every": 5}),
]


@pytest.mark.parametrize(("way", "loss", "activation", "params", "options"), HARD)
def test_the_rule_is_jaxs_own_derivative(
    way: str, loss: Any, activation: Any, params: RNNParams[Any], options: Any
) -> None:
    """Also in pieces, whatever the activation."""

    def derivative(*how: Any) -> Any:
        return jax.jit(WAYS[way](partial(loss, *how)))(params, X, H0)

    whole = {name: each for name, each in options.items() if name != "checkpoint_every"}
    with jax.enable_x64(True):
        expected = derivative(lambda a: activation(a), whole)
        assert_close(derivative(activation, options), expected, 1e-11)


@pytest.mark.parametrize("size", [1.0, -2.0, 1e25])
def test_h0_need_not_be_a_value_of_the_activation(size: float) -> None:
    """Even where its square overflows, no tangent and no gradient becomes NaN."""
    args: Any = jax.tree.map(np.float32, (PARAMS, X, np.full((2, 3, 4), size)))

    def derivatives(activation: Any) -> Any:
        def total(*args: Any) -> Any:
            return curved(rnn_states(*args, activation=activation).h)

        return jax.jit(lambda *args: (jax.jvp(total, args, args), jax.grad(total)(*args)))(*args)

    assert_close(derivatives(jnp.tanh), derivatives(lambda a: jnp.tanh(a)), 1e-4)


def plain(params: Any, x: Any, h0: Any, activation: Any, rate: Any, **options: Any) -> Any:
    """The last state and all states, from the last step to the first, by a plain scan."""
    wx, wh, b = params

    def step(h: Any, inputs: Any) -> Any:
        t, x_t, is_reset = inputs
        start = jnp.where(is_reset[..., None], options["reset_to"], h)
        a = x_t @ wx + rate(start) @ wh + b
        new = start + options["leak"] * (activation(a) - start)
        return (jnp.where(t < options["lengths"][..., None], new, h),) * 2

    resets = jnp.moveaxis(options["resets"], -1, 0)
    of_steps = jnp.arange(len(resets)), jnp.moveaxis(x, -2, 0), resets
    last, h = jax.lax.scan(step, h0, of_steps, reverse=True)
    return last, jnp.moveaxis(h, 0, -2)


@pytest.mark.parametrize(
    ("way", "batch"), [*zip(WAYS, [(3,), (), (1,)] * 3, strict=False), ("value and gradient", (1,))]
)
def test_any_function_of_a_step_that_treats_each_sequence_alone(way: str, batch: Any) -> None:
    """Layer normalisation over the nodes, with a gain of each sequence, under every option.

    One sequence has two sets of gains at once.
    """
    x, h0, gain = numbers((*batch, 6, 3), (*batch, 4), (*(batch or (2,)), 4), seed=5)
    resets = numbers((*batch, 6), seed=6)[0] < -0.2
    lengths = 6 - np.arange(np.prod(batch, dtype=int)).reshape(batch)
    options = {"lengths": lengths, "resets": resets, "reset_to": RESET_TO, "leak": 0.3}
    how: Any = {"reverse": True}  # in pieces in some ways alone, as they compile slowly
    in_pieces = way in ("value and gradient", "forward over reverse")
    how |= {"checkpoint_every": 4, "unroll": 2} if in_pieces else {}

    def normalised(gain: Any, a: Any) -> Any:
        centred = a - jnp.mean(a, axis=-1, keepdims=True)
        return gain * centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 0.1)

    def total(run: Any, gain: Any, x: Any, h0: Any) -> Any:
        functions = {"activation": partial(normalised, gain), "rate": partial(normalised, 2 * gain)}
        last, h = run(PARAMS, x, h0, **functions, **options)
        return curved(last) + curved(2 * h)

    def ours(params: Any, x: Any, h0: Any, **options: Any) -> Any:
        last, _, h = every_value(params, x, h0, **options, **how)
        return last, h

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        got, expected = (
            jax.jit(derivative if batch else jax.vmap(derivative, (0, None, None)))(gain, x, h0)
            for derivative in (WAYS[way](partial(total, run)) for run in (ours, plain))
        )
        assert_close(got, expected, 1e-10)


# Of activations with a rule, leaks, and inputs without weights


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"silu"}))
def test_rules_of_activations_are_the_oracles(name: str) -> None:
    """Where they saturate they pass on no NaN, not even where an exponential would overflow."""
    in_jax, in_oracle = ACTIVATIONS[name]
    assert in_jax in TANGENTS

    @jax.jit
    def gradients(params: Any, x: Any, h0: Any, leak: Any) -> Any:
        def last(params: Any, x: Any) -> Any:
            return jnp.sum(rnn_forward(params, x, h0, leak=leak, activation=in_jax))

        return jax.value_and_grad(last, argnums=(0, 1))(params, x)

    expected = oracle.rnn_gradients(PARAMS, X, H0, g_last=1.0, activation=in_oracle)
    with jax.enable_x64(True):
        assert_close(gradients(PARAMS, X, H0, 1.0)[1], tuple(expected[:2]), 1e-12)
    for size in (1e3, -1e3):
        saturated = gradients(PARAMS, np.full((6, 3), size, np.float32), np.zeros(4), 0.5)
        assert all(np.all(np.isfinite(each)) for each in jax.tree.leaves(saturated))


@pytest.mark.parametrize("activation", [jnp.tanh, own_tanh])
def test_a_leak_of_zero_holds_the_state_and_of_one_is_none(activation: Any) -> None:
    h = rnn_states(PARAMS, X, H0, leak=0, activation=activation).h
    held = np.broadcast_to(H0.astype(np.float32)[..., None, :], h.shape)
    np.testing.assert_array_equal(h, held)
    with_one = rnn_states(PARAMS, X, H0, leak=np.ones(4), activation=activation)
    assert_close(with_one, rnn_states(PARAMS, X, H0, activation=activation), 2e-7)


def test_an_infinite_state_stays_infinite() -> None:
    h0 = np.array([np.inf, 0, 0, 1])
    h = rnn_states(PARAMS, X, h0, leak=0.5).h
    assert_close(h, oracle.rnn_states(PARAMS, X, h0, leak=0.5).h, 1e-6)
    assert np.all(h[..., 0] == np.inf)


def test_inputs_without_weights_cost_no_product() -> None:
    """A gradient through a batch of many nodes has two products fewer than with weights."""
    x, key = np.ones((8, 50, 64), np.float32), jax.random.key(0)

    def products(n_features: int | None) -> int:
        params = init_params(key, n_features, 64)
        return n_products(jax.grad(lambda params: jnp.sum(rnn_forward(params, x))), params)

    assert 0 < products(None) <= products(64)


# Of parts


def test_gradients_by_each_argument_alone() -> None:
    args, weights = (*PARAMS, X, H0), numbers((2, 3, 6, 4), seed=1)[0]

    def total(*args: Any) -> Any:
        return jnp.sum(weights * rnn_states(RNNParams(*args[:3]), *args[3:]).h)

    with jax.enable_x64(True):
        alone = jax.jit(lambda *args: [jax.grad(total, i)(*args) for i in range(5)])(*args)
    expected = oracle.rnn_gradients(PARAMS, X, H0, g_h=weights)
    assert_close(alone, [*expected.params, expected.x, expected.h0], 1e-11)


def test_an_inactive_node_of_relu_passes_on_no_nan() -> None:
    """Also without the compiler, which can turn a product with a mask into a choice."""
    params = PARAMS._replace(wh=np.where(np.eye(4, k=2) > 0, np.nan, PARAMS.wh))
    args = params, X[0], H0[0]

    def total(*args: Any) -> Any:
        return jnp.sum(rnn_states(*args, activation=jax.nn.relu).h)

    with jax.enable_x64(True), jax.disable_jit():
        got = jax.grad(total, argnums=(0, 1, 2))(*args)
    expected = oracle.rnn_gradients(*args, g_h=1.0, activation=oracle.RELU)
    assert not np.all(np.isnan(np.asarray(expected.params.b)))
    assert_close(got, tuple(expected[:3]), 1e-12)


def test_what_is_not_differentiated_costs_nothing() -> None:
    """Compiled, a gradient has three products in its loops, and one more for wx, wh and x each."""
    shapes = (7, 16), (16, 16), (16,), (64, 32, 7), (64, 16)
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def last(*arrays: Any) -> Any:
        return jnp.sum(rnn_forward(RNNParams(*arrays[:3]), *arrays[3:], unroll=1))

    every = tuple(range(5))
    of_each = [n_products(jax.grad(last, argnums=i), *structs) - 3 for i in every]
    assert of_each == [1, 1, 0, 1, 0]  # by wx, wh, b, x and h0
    assert n_products(jax.grad(last, argnums=every), *structs) == 3 + sum(of_each)


def test_checkpoints_keep_fewer_states() -> None:
    shapes = (4, 64), (64, 64), (64,), (8, 2500, 4)
    *params, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    def of_gradient(every: int | None) -> int:
        def total(params: Any, x: Any) -> Any:
            return jnp.sum(rnn_forward(params, x, checkpoint_every=every, unroll=1))

        return temporary_bytes(jax.grad(total), RNNParams(*params), x)

    of_a_step = 8 * 64 * np.dtype(np.float32).itemsize
    assert of_gradient(None) > 2500 * of_a_step
    assert of_gradient(50) < 4 * 50 * of_a_step


def test_gradients_by_parameters_where_inputs_are_integers() -> None:
    counts = np.array([[1, 2, 0], [0, 3, 1]], np.int32)

    def gradient(x: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return jax.grad(lambda params: jnp.sum(rnn_forward(params, x)))(PARAMS)

    assert_close(gradient(counts), gradient(counts.astype(np.float32)), 1e-6)
