"""Networks of layers, in one direction or both, are the oracle's, with every option."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.nn.initializers import constant, glorot_uniform

from jaxrnn import RNNParams, init_stacked, rnn_bidirectional, rnn_stacked, rnn_states
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import Sizes, StackedCase
from tests.helpers import (
    ACTIVATIONS,
    LENGTHS,
    MASKS,
    RESETS,
    X,
    assert_close,
    assert_equal,
    assert_equal_on_cpus,
    at,
    curved,
    numbers_like,
    own_tanh,
)

SIZES = Sizes((2, 3), 6, 3, 4)


def draw(bidirectional: bool, key: Any) -> Any:
    return init_stacked(key, 3, (4, 5), bidirectional=bidirectional, wx_init=glorot_uniform())


def network(bidirectional: bool) -> Any:
    shapes = jax.eval_shape(partial(draw, bidirectional), jax.random.key(0))
    return jax.tree.map(lambda array: array / 2, numbers_like(shapes))


NETWORK, FORWARD_ONLY = network(True), network(False)


@partial(jax.jit, static_argnames=("activation", "reverse", "checkpoint_every"))
def all_of(case: StackedCase, cotangents: Any, **options: Any) -> Any:
    """All values, and the gradients by layers, x and h0 of their sum weighted by cotangents."""
    out, pull = jax.vjp(partial(rnn_stacked, **options), *case)
    return out, pull(cotangents)


@pytest.mark.parametrize(
    ("directions", "activation", "reverse", "every"),
    [((1, 2, 1), "tanh", False, None), ((2,), "silu", True, 4)],
)
@given(data=st.data())
def test_values_and_gradients_are_the_oracles(
    directions: Any, activation: str, reverse: bool, every: int | None, data: st.DataObject
) -> None:
    """With NaN in the padding, which the oracle never reads, and once with checkpoints."""
    cases = strategies.stacked_cases(
        sizes=st.just(SIZES), directions=st.just(directions), dtype=np.float64
    )
    case = with_zeros_written_out(data.draw(cases))
    drawn: Any = {"lengths": data.draw(strategies.lengths(SIZES)), "reverse": reverse}
    drawn |= {"resets": data.draw(strategies.resets(SIZES)), "reset_to": np.full(4, 0.5)}
    in_jax, in_oracle = ACTIVATIONS[activation]
    expected = oracle.rnn_stacked(*case, activation=in_oracle, **drawn)
    g_h, *g_last = (
        data.draw(strategies.arrays(np.shape(array), np.float64))
        for array in jax.tree.leaves(expected)
    )
    cotangents = jax.tree.unflatten(jax.tree.structure(expected), [g_h, *g_last])
    expected_gradients = oracle.stacked_gradients(
        *case, g_h=g_h, g_last=cotangents.last, activation=in_oracle, **drawn
    )
    padding = np.arange(SIZES.n_steps) >= drawn["lengths"][..., None]
    x = np.where(padding[..., None], np.nan, case.x)
    with jax.enable_x64(True):
        values, gradients = all_of(
            case._replace(x=x), cotangents, activation=in_jax, checkpoint_every=every, **drawn
        )
    assert_close(values, expected, 1e-12)
    assert_close(tuple(gradients), tuple(expected_gradients), 1e-12)


def with_zeros_written_out(case: StackedCase) -> StackedCase:
    """The same call with zeros in place of missing biases and initial states."""

    def filled(params: RNNParams[Any]) -> RNNParams[Any]:
        return params._replace(b=np.zeros(SIZES.n_nodes) if params.b is None else params.b)

    layers = jax.tree.map(filled, case.layers, is_leaf=lambda each: isinstance(each, RNNParams))
    zeros = np.zeros((*SIZES.batch, SIZES.n_nodes))
    h0 = jax.tree.map(
        lambda state: zeros if state is None else state, case.h0, is_leaf=lambda each: each is None
    )
    return StackedCase(layers, case.x, h0)


@given(strategies.stacked_cases())
def test_any_call_is_the_oracles(case: StackedCase) -> None:
    """Any sizes, with and without biases and initial states."""
    assert_close(rnn_stacked(*case), oracle.rnn_stacked(*case), 1e-5)


def test_the_rule_is_jaxs_own_derivative() -> None:
    """To second order, through layers of one and of two directions."""
    network = FORWARD_ONLY[0], (FORWARD_ONLY[1],) * 2
    args = network, X, np.full(4, 0.1)

    def differentiated(activation: Any, *args: Any) -> Any:
        def loss(layers: Any, x: Any, h0: Any) -> Any:
            masks: Any = MASKS | {"reset_to": 0.25}
            out = rnn_stacked(layers, x, (h0, None), activation=activation, **masks)
            return sum(map(curved, jax.tree.leaves(out)))

        return jax.jvp(jax.grad(loss, argnums=(0, 1, 2)), args, numbers_like(args))

    with jax.enable_x64(True):
        ours, theirs = (jax.jit(partial(differentiated, f))(*args) for f in (jnp.tanh, own_tanh))
    assert_close(ours, theirs, 1e-11)


def test_a_bidirectional_layer_runs_once_in_each_direction() -> None:
    forward, backward = NETWORK[0]
    masks: Any = MASKS
    out = rnn_bidirectional((forward, backward), X, (0.5, None), **masks)
    assert_equal_on_cpus(out.h[..., :4], rnn_states(forward, X, 0.5, **masks).h)
    assert_equal_on_cpus(out.h[..., 4:], rnn_states(backward, X, **masks, reverse=True).h)
    assert_equal(out.last, (out.h[..., -1, :4], out.h[..., 0, 4:]))
    stacked = rnn_stacked((NETWORK[0],), X, ((0.5, None),), **masks)
    assert_equal((stacked.h, *stacked.last), (out.h, out.last))


@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_running_on_is_running_whole(cut: int) -> None:
    """From each layer's last state."""
    lengths = MASKS["lengths"]

    @jax.jit
    def in_two(lengths: Any) -> Any:
        first = rnn_stacked(FORWARD_ONLY, X[..., :cut, :], lengths=lengths)
        return rnn_stacked(FORWARD_ONLY, X[..., cut:, :], first.last, lengths=lengths - cut).last

    assert_close(in_two(lengths), rnn_stacked(FORWARD_ONLY, X, lengths=lengths).last, 1e-6)


def test_under_vmap() -> None:
    """Over networks, x, lengths and keys at once; a second network has weights of another seed."""
    networks = jax.tree.map(lambda *pair: np.stack(pair), NETWORK, numbers_like(NETWORK, seed=1))

    def run(network: Any, x: Any, lengths: Any, seed: Any) -> Any:
        options: Any = {"lengths": lengths, "dropout": 0.5, "key": jax.random.key(seed)}
        return rnn_stacked(network, x, **options)

    args: Any = networks, X[:, 0], MASKS["lengths"][:, 0], np.arange(2)
    out, single = jax.device_get(jax.jit(jax.vmap(run))(*args)), jax.jit(run)
    for i in range(2):
        assert_close(at(out, i), single(*at(args, i)), 1e-6)


def test_dropout_is_between_layers() -> None:
    """Seen through layers that return their input: relu with wx the identity."""
    of_positive = RNNParams(np.ones((3, 500)), np.zeros((500, 500)), np.ones(500))
    identity = RNNParams(np.eye(500), np.zeros((500, 500)), np.zeros(500))
    x = np.abs(X[0])

    layers, key = (of_positive, identity, identity), jax.random.key(0)

    def run(key: Any, *layers: Any, dropout: float = 0.25) -> Any:
        return rnn_stacked(layers, x, dropout=dropout, key=key, activation=jax.nn.relu)

    whole, dropped = jax.device_get((run(None, *layers), run(key, *layers)))
    scales = dropped.h / whole.h
    stays = scales > 0
    np.testing.assert_allclose(scales, np.where(stays, 1 / 0.75**2, 0), rtol=1e-6)
    assert abs(stays.mean() - 0.75**2) < 0.02  # the mean of 9000, drawn anew between two layers
    assert 0 < stays[:, 0].mean() < 1  # drawn anew for each step, sequence and node
    assert 0 < stays[:, :, 0].mean() < 1
    assert_equal(dropped.last[0], whole.last[0])
    assert_equal(jax.device_get(run(key, *layers)), dropped)
    assert np.any(run(jax.random.key(1), *layers).h != dropped.h)
    assert_equal(jax.device_get(run(key, *layers, dropout=0.0)), whole)
    assert_equal(run(key, of_positive), run(None, of_positive))

    @jax.jit
    def gradients(first: Any) -> Any:
        of_all = jax.grad(lambda first: jnp.sum(run(key, first, identity, identity).h))(first)
        return of_all, jax.vjp(lambda first: run(None, first).h, first)[1](jnp.asarray(scales))[0]

    actual, expected = gradients(of_positive)
    assert_close(actual, expected, 1e-4)


def test_initialisation() -> None:
    network = jax.jit(partial(draw, True))(jax.random.key(0))
    assert jax.tree.map(jnp.shape, network) == (
        (RNNParams((3, 4), (4, 4), (4,)),) * 2,
        (RNNParams((8, 5), (5, 5), (5,)),) * 2,
    )
    options: Any = {"wh_init": constant(2.0), "b_init": None, "dtype": jnp.float16}
    init: Any = jax.jit(
        init_stacked, static_argnums=(1, 2), static_argnames=[*options, "bidirectional"]
    )
    ((_, backward),) = init(jax.random.key(0), 3, (4,), bidirectional=True, **options)
    assert jax.tree.map(jnp.shape, backward) == RNNParams((3, 4), (4, 4), None)
    assert_equal(backward.wh, jnp.full((4, 4), 2, jnp.float16))
    first, second = init(jax.random.key(0), 3, (4, 4), **options)
    assert jax.tree.map(jnp.shape, second) == RNNParams((4, 4), (4, 4), None)
    assert_equal(second.wh, jnp.full((4, 4), 2, jnp.float16))
    assert first.wx.dtype == jnp.float16
    sizes: Any = [np.uint8(200), np.uint8(4)]
    of_both = partial(init_stacked, n_features=3, n_nodes=sizes, bidirectional=True)
    narrow = jax.eval_shape(of_both, jax.random.key(0))
    assert jax.tree.leaves(narrow[1])[0].shape == (400, 4)
    squares = [params.wh for params in jax.tree.leaves(network, is_leaf=is_params)]
    drawn = np.concatenate([np.ravel(wh) for wh in squares])
    assert len(np.unique(drawn)) == len(drawn)  # each array has a key of its own


def is_params(each: Any) -> bool:
    return isinstance(each, RNNParams)


def note(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", []))


STACKED: Any = partial(rnn_stacked, NETWORK, X)
BIDIRECTIONAL: Any = partial(rnn_bidirectional, NETWORK[0], X)
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "layers is params": (
        lambda: rnn_stacked(NETWORK[0][0], X),
        TypeError,
        "layers must be a tuple",
    ),
    "no layers": (lambda: rnn_stacked((), X), ValueError, "layers must be not empty"),
    "not a layer": (
        lambda: rnn_stacked((NETWORK[0], NETWORK[1] * 2), X),
        TypeError,
        r"layers\[1\] must be an RNNParams or a pair .* a tuple of RNNParams, RNNParams, ",
    ),
    "h0 is an array": (
        lambda: STACKED(np.zeros(4)),
        TypeError,
        r"h0 must be a tuple or list, one for each layer, but is of shape \(4,",
    ),
    "one h0": (
        lambda: STACKED((None,)),
        ValueError,
        r"h0 must be 2 states, .* is \(None,\)",
    ),
    "h0 of one direction": (
        lambda: STACKED((np.zeros(4), None)),
        TypeError,
        r"h0 must be a tuple or list, one for each direction, but is of shape \(4,\)",
    ),
    "h0 of two directions": (
        lambda: rnn_stacked(FORWARD_ONLY, X, ((np.zeros(4), np.ones(4)), None)),
        TypeError,
        "h0 must be an array of real numbers .*, but is a tuple of",
    ),
    "reset_to of each layer": (
        lambda: STACKED(resets=MASKS["resets"], reset_to=(np.zeros(4), np.ones(5))),
        TypeError,
        "reset_to must be an array of real numbers .*, but is a tuple of",
    ),
    "reset_to of each direction": (
        lambda: BIDIRECTIONAL(resets=MASKS["resets"], reset_to=[(np.zeros(4), np.zeros(4)), None]),
        TypeError,
        "reset_to must be an array of real numbers .*, but is a list of",
    ),
    "directions of unlike sizes": (
        lambda: rnn_bidirectional((NETWORK[0][0], NETWORK[1][1]._replace(wx=np.ones((3, 5)))), X),
        ValueError,
        r"n_nodes must be the same in both directions of params, but is \(4, 5\)",
    ),
    "no such option": (
        lambda: STACKED(lenghts=[1]),
        TypeError,
        r"rnn_stacked\(\) got an unexpected keyword argument 'lenghts'",
    ),
    "no option of one layer": (
        lambda: cast(Any, rnn_bidirectional)(NETWORK[0], X, dropout="much"),
        TypeError,
        r"rnn_bidirectional\(\) got an unexpected keyword argument 'dropout'",
    ),
    "a pair of layers": (
        lambda: rnn_bidirectional(NETWORK, X),
        TypeError,
        r"params must be a pair of RNNParams, but is a tuple of tuple, tuple",
    ),
    "features": (
        lambda: rnn_stacked(NETWORK[::-1], X),
        ValueError,
        "x must be .* ending in 8 .* 6, 3",
    ),
    "dropout of all": (
        lambda: STACKED(dropout=1.0),
        ValueError,
        "dropout must be at least 0 and less than 1, but is 1.0",
    ),
    "negative": (lambda: STACKED(dropout=-0.5), ValueError, "dropout must be at least 0"),
    "not a number": (lambda: STACKED(dropout="half"), TypeError, "dropout must be a Python number"),
    "a bool": (lambda: STACKED(dropout=True), TypeError, "dropout must be a Python number"),
    "key": (lambda: STACKED(dropout=0.5, key=7), TypeError, "key must be one JAX PRNG key"),
    "lengths": (
        lambda: STACKED(lengths=np.array([[7, 1, 1]] * 2)),
        ValueError,
        "lengths must be from 0 to",
    ),
    "reverse": (lambda: STACKED(reverse=2), TypeError, "reverse must be a bool"),
    "n_nodes": (
        lambda: cast(Any, init_stacked)(jax.random.key(0), 3, 4),
        TypeError,
        "n_nodes must be a tuple or list, one for each layer, but is 4",
    ),
    "bidirectional": (
        lambda: cast(Any, init_stacked)(jax.random.key(0), 3, (4,), bidirectional="no"),
        TypeError,
        "bidirectional must be a bool, but is 'no'",
    ),
    "no n_nodes": (
        lambda: init_stacked(jax.random.key(0), 3, ()),
        ValueError,
        "n_nodes must be not",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_says_what_is_wrong(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


def test_the_error_notes_which_layer_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"x must be .* ending in 4 .* 6, 8") as raised:
        rnn_stacked((NETWORK[0], FORWARD_ONLY[1]), X)
    assert "in layers[1], whose x is h of layers[0]" in note(raised.value)
    forward, backward = NETWORK[0]
    with pytest.raises(ValueError, match=r"params\.b must be of shape") as raised:
        rnn_bidirectional((forward, backward._replace(b=np.ones(3))), X)
    assert "in the backward direction" in note(raised.value)


@pytest.mark.parametrize("mask", [{}, {"lengths": LENGTHS, "resets": RESETS}])
def test_inside_shard_map(mask: Any) -> None:
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec: Any = jax.sharding.PartitionSpec

    def run(network: Any, x: Any, mask: Any) -> Any:
        return rnn_stacked(network, x, **mask, dropout=0.5, key=jax.random.key(0))

    whole: Any = {name: spec("batch") for name in mask}
    run_sharded = jax.shard_map(
        run, mesh=mesh, in_specs=(spec(), spec("batch"), whole), out_specs=spec("batch")
    )
    network, x = jax.tree.map(np.float32, (NETWORK, X))
    assert_close(jax.jit(run_sharded)(network, x, mask), run(network, x, mask), 1e-6)
