"""Bad calls of all public functions: the message says which argument is wrong, and how.

`MESSAGES` has a call for each message, but those of `jaxrnn.interop`, which `test_interop.py` has.
`faults` gives wrong values for each place in the arguments of a valid call: each is told by name.
"""

import math
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import sparse
from jax.nn.initializers import zeros

import jaxrnn
from jaxrnn import RNNParams, interop, rnn_forward, rnn_stacked

KEY = jax.random.key(0)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def network(n_features: int, n_nodes: int) -> Any:
    return RNNParams(ones(n_features, n_nodes), ones(n_nodes, n_nodes), ones(n_nodes))


X, H, MASK, PARAMS = ones(3, 5, 2), ones(3, 4), np.ones((3, 5), bool), network(2, 4)
(WX, WH, B), PAIR, UPPER = PARAMS, (PARAMS, PARAMS), network(8, 4)
LAYERS: Any = PAIR, (UPPER, UPPER)


# Of each message one call: what it says, by the function and by what is wrong in the call

forward: Any = partial(rnn_forward, params=PARAMS, x=X)
step: Any = partial(jaxrnn.rnn_step, params=PARAMS, h=B, x_t=X[:, 0])
stacked: Any = partial(rnn_stacked, layers=LAYERS, x=X)
both: Any = partial(jaxrnn.rnn_bidirectional, params=PAIR, x=X)
mask: Any = partial(jaxrnn.mask_padding, array=X, lengths=np.array([5, 5, 5]))
init: Any = partial(jaxrnn.init_params, key=KEY, n_features=2, n_nodes=3)
init_layers: Any = partial(jaxrnn.init_stacked, key=KEY, n_features=2, n_nodes=(4,))
SETS, OF_ONE = RNNParams(*(np.stack([a] * 3) for a in PARAMS)), partial(stacked, layers=(PAIR,))
SPARSE = PARAMS._replace(wh=sparse.BCOO.fromdense(jnp.asarray(WH)))
FEW, NO_WX = PARAMS._replace(wh=WH[:2]), PARAMS._replace(wx=None)
WITH = r"ValueError: \w+ must be broadcastable to \(\*batch, n_\w+.*\) with batch = \(3,\), "
TO_FIT = r"ValueError: params.w\w must be .* with n_nodes = 3 to fit params.wh of shape \(3, 3\), b"
OF_X, RETURNS = r"to fit x of shape \(3, 5, 2\), but is of shape", r"TypeError: what act.* returns "
ARRAY, LARGE = "TypeError: x must be an array of real numbers", "ValueError: n_nodes must be from 1"
RANGE = "ValueError: lengths must be from 0 to n_steps = 5, but is .9"
ZERO = {"n_features": 0, "wx_init": lambda key, shape, dtype: jnp.ones(shape) * (1 / shape[0])}
MESSAGES: dict[Any, dict[str, dict[str, Any]]] = {
    forward: {
        r"ValueError: x must be of shape \(\*batch, n_steps, n_features\) with n_features = 2 to "
        r"fit params.wx of shape \(2, 4\), but is of shape \(3, 5, 1\)": {"x": X[..., :1]},
        "ValueError: x .* n_features = 4 to fit params.wh .*": {"params": NO_WX},
        f"{ARRAY}, but is None": {"x": None},
        f"{ARRAY} .* but is a list": {"x": [[[1.0, 2.0]], [[1.0]]]},
        f"{ARRAY} .*jnp.asarray.* is a list": {"x": [X[0]]},
        f"{ARRAY}, .* dtype complex64": {"x": X * 1j},
        r"TypeError: (?s:.*)\nx must be an array of real numbers": {"x": np.array([["text"]])},
        r"TypeError: (?s:.*)\nh0 must be an array of real numbers": {"h0": "text"},
        "TypeError: params.wh must be a dense array; .*h @ sparse.*, but is 'B": {"params": SPARSE},
        rf"{WITH}n_nodes = 4, but is of shape \(2, 4\)": {"h0": WH[:2]},
        rf"{WITH}n_steps = 5, n_nodes = 4, but is of shape \(3,\)": {"leak": np.ones(3)},
        r"TypeError: params must .*RNNParams\(\*list\) .* is a tuple": {"params": tuple(PARAMS)},
        r"TypeError: params must .*RNNParams\(\*\*dict\) .* is a dict": {
            "params": PARAMS._asdict()
        },
        r"TypeError: params .*, but is a tuple of 3 entries\n": {"params": (PARAMS,) * 3},
        r"ValueError: params.wh must be .*jax.vmap maps .* of shape \(3, 4, 4\)": {"params": SETS},
        rf"{TO_FIT}ut is of shape \(2, 4\)": {"params": PARAMS._replace(wh=WH[:3, :3])},
        r"ValueError: params.b must .* = 4 .*\(3,\)": {"params": PARAMS._replace(b=B[:3])},
        "ValueError: params.wh .* n_nodes = 4 unless a rate .*": {"params": FEW},
        r"TypeError: what rate returns .* float32\(3, 2\), as it takes float32\(3, 4\), but is": {
            **{"params": FEW, "rate": jnp.tanh}
        },
        "ValueError: params.wh must be of shape ": {"params": RNNParams(None, 1.0, None)},
        "TypeError: activation must be a function, .*, but is 'tanh'": {"activation": "tanh"},
        r"TypeError: (?s:.*)\nin activation, which takes float32\(3, 4\), \(\*batch, n_nodes\)": {
            "activation": lambda a: a @ a
        },
        rf"{RETURNS}must be float32\(3, 4\), .*\(shape=\(3,\), dtype=float32": {
            "activation": lambda a: jnp.sum(a, axis=-1)
        },
        f"{RETURNS}.* but is .*, dtype=bool": {"activation": lambda a: a > 0.0},
        rf"{RETURNS}.* but is \(ShapeDtypeStruct": {"activation": lambda a: (a, a)},
        rf"ValueError: lengths .* \(\*batch,\) .* {OF_X} \(2,\)": {"lengths": np.array([1, 2])},
        "TypeError: lengths must be an array of integers, .* dtype float32": {"lengths": B[:3]},
        RANGE: {"lengths": np.array([0, 9, 5])},
        rf"ValueError: resets .* n_steps = 5 {OF_X} \(5,\)": {"resets": MASK[0]},
        r"TypeError: resets .* bools .*astype\(bool\).* dtype int32": {"resets": np.int32(MASK)},
        "ValueError: reset_to is given without resets, which say where": {"reset_to": 0.0},
        "ValueError: resets .* without reset_to: is it zero, or h0": {"h0": B, "resets": MASK},
        "TypeError: reverse must be a bool, but is 2": {"reverse": 2},
        "ValueError: checkpoint_every must be at least 1, but is 0": {"checkpoint_every": 0},
        "TypeError: checkpoint_every must be an integer or .* 2.0": {"checkpoint_every": 2.0},
        "ValueError: unroll must be at least 0, but is -2": {"unroll": -2},
        "TypeError: unroll must be an integer or None, but is True": {"unroll": True},
        r"TypeError: rnn_forward\(\) got an unexpected .* 'alpha' \(here: leak": {"alpha": 0.5},
        r"TypeError: rnn_forward\(\) got an .* keyword argument 'lenghts'(?! )": {"lenghts": 3},
    },
    partial(forward.func, PARAMS, X, B, jnp.tanh): {
        r"TypeError: rnn_forward\(\) takes 3 arguments by position \(params, x, h0\) and op.* 4": {}
    },
    step: {
        r"ValueError: x_t must be .* but is of shape \(3,\)": {"x_t": B[:3]},
        r"ValueError: h must be .* n_nodes = 4 to fit params.wh .* shape \(3,\)": {"h": B[:3]},
        r"ValueError: (?s:.*)batch axes of h, of shape \(2, 4\), .* x_t, .* \(3, 2\)": {"h": H[:2]},
    },
    mask: {
        RANGE: {"lengths": np.array([1, 9, 2])},
        r"ValueError: array must be of shape \(\*batch, n_s": {"array": B},
    },
    stacked: {
        "TypeError: layers must be a tuple": {"layers": PARAMS},
        "ValueError: layers must be not empty": {"layers": ()},
        r"TypeError: layers\[1\] must .* or a pair": {"layers": (PAIR, X)},
        r"TypeError: layers\[0\] must be an RNNParams .* or a pair ": {
            "layers": (PARAMS._asdict(),)
        },
        "TypeError: h0 must .* one for each layer, but is of": {"h0": np.zeros(4)},
        r"ValueError: h0 must be 2 states, .* is \(None,\)": {"h0": (None,)},
        "TypeError: h0 .* one for each direction": {"h0": (np.zeros(4), None)},
        "TypeError: reset_to .* is a tuple": {"resets": MASK, "reset_to": (B, np.ones(5))},
        "TypeError: activation must be a function, .* .where layers differ, call rnn_states for": {
            "activation": (jnp.tanh,)
        },
        "TypeError: leak must be one for all layers": {"leak": (0.5,)},
        "ValueError: x must be .* = 8 .* 5, 2": {"layers": LAYERS[::-1]},
        r"(?s:.*)in layers\[1\], whose x is h of lay.*0": {"layers": LAYERS[:1] * 2},
        "ValueError: dropout must be at least 0 and less than 1": {"dropout": 1.0},
        "TypeError: dropout must be a number": {"dropout": "half"},
        "TypeError: (?s:.*)key must be one JAX PRNG key": {"dropout": 0.5, "key": 7},
    },
    OF_ONE: {"TypeError: h0 .* of real numbers .* is a tuple of": {"h0": (((B, B), None),)}},
    both: {
        "ValueError: n_nodes must be the same in both": {"params": (PARAMS, network(2, 3))},
        "ValueError: params.b (?s:.*)backward direction": {
            "params": (PARAMS, UPPER._replace(b=X[0]))
        },
        "TypeError: .* unexpected .* 'dropout'": {"dropout": 0},
        "TypeError: params must be a pair of RNNParams": {"params": LAYERS},
    },
    init: {
        "TypeError: (?s:.*)key must be one JAX PRNG key": {"key": None},
        "ValueError: (?s:.*)key .*jax.vmap": {"key": jax.random.split(KEY, 2)},
        "TypeError: .*float.*(?s:.*)n_features must be an integer": {"n_features": 2.0},
        "ValueError: n_features must be from 0 to 16777216, but is -1": {"n_features": -1},
        f"{LARGE} to 16777216, but is 0": {"n_nodes": 0},
        f"{LARGE} to 16777216, but is 2147483648": {"n_nodes": 2**31},
        r"ZeroDivisionError: (?s:.*)in wx_init, .* with a key, shape \(0, 3\)": ZERO,
        r"TypeError: wx_init must be a callable \(.*\) -> array, but is 0.01": {"wx_init": 0.01},
        r"ValueError: .*b_init .* shape \(3,\), .* \(7,\)": {"b_init": lambda *_: jnp.zeros(7)},
        "TypeError: .*wx_init .* real numbers, .* complex64": {
            "wx_init": lambda key, shape, dtype: jnp.ones(shape, complex)
        },
        "TypeError: .*wh_init .* real numbers, but is .* key": {
            "wh_init": lambda key, shape, dtype: jax.random.split(key, shape)
        },
        r"TypeError: .*b_init .* real .*, but is \[0.0": {"b_init": lambda *_: [0.0] * 3},
        r"TypeError: .*takes 1(?s:.*)in b_init, .* shape \(3,\) and": {"b_init": lambda key: key},
        "TypeError: dtype .* floating type, but is <class 'int'>": {"dtype": int},
        "TypeError: dtype must .* but is of shape": {"dtype": jnp.ones(3)},
        "TypeError: .*>f4.*\ndtype must be": {"dtype": ">f4"},
    },
    init_layers: {
        "TypeError: n_nodes must be a tuple or list, one for each layer": {"n_nodes": 4},
        "ValueError: n_nodes must be not": {"n_nodes": ()},
        "TypeError: bidirectional must be a bool": {"bidirectional": "no"},
    },
}
ROWS = [(f, *row) for f, rows in MESSAGES.items() for row in rows.items()]
TRACED = ("params", "x", "h0", "layers")  # if they are arrays


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "jit"])
@pytest.mark.parametrize(("function", "message", "wrong"), ROWS)
def test_messages(function: Any, message: str, wrong: dict[str, Any], jit: bool) -> None:
    """In its notes it says in which layer and direction."""
    arrays = {}
    for name in wrong.keys() & TRACED if jit else ():
        if all(getattr(leaf, "dtype", "") == np.float32 for leaf in jax.tree.leaves(wrong[name])):
            arrays[name] = wrong[name]
    run = partial(function, **{name: wrong[name] for name in wrong.keys() - arrays.keys()})
    with pytest.raises((TypeError, ValueError, ZeroDivisionError)) as told:
        (jax.jit(run) if jit else run)(**arrays)
    assert re.match(message, told.exconly())


def test_a_callable_may_have_no_name() -> None:
    unnamed = partial(jnp.tanh)
    unnamed.__name__ = None  # type: ignore[attr-defined]
    np.testing.assert_array_equal(forward(activation=unnamed), forward())


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("unroll", 1, 1.0),
        ("unroll", 2, []),
        ("checkpoint_every", 1, True),
        ("checkpoint_every", 2, 2.0),
        ("reverse", True, 1),
        ("activation", jnp.tanh, [jnp.tanh]),
    ],
)
def test_what_equals_a_good_option_is_refused_after_it(option: str, good: Any, bad: Any) -> None:
    """`jax.jit` compares options by `==`, so that it would take 1.0 once it knows 1."""
    forward(**{option: good})
    with pytest.raises(TypeError, match=f"^{option} must be "):
        forward(**{option: bad})


LONG = [jnp.int32(1)] * 300, list(range(300)), np.ones(3, "timedelta64[s]")


@pytest.mark.parametrize(
    ("option", "came"), [*(("lengths", each) for each in LONG), ("reverse", "yes" * 3000)]
)
def test_a_message_is_short_and_names_the_argument(option: str, came: Any) -> None:
    with pytest.raises(TypeError, match=option) as told:
        forward(**{option: came})
    assert len(str(told.value).splitlines()[0]) <= 300


# Wrong values in every place of a call

Values = tuple[Any, ...]

# Neither numbers nor arrays of numbers. Masked arrays are not among them: as the documentation
# says, nothing looks for them.
NO_ARRAYS: Values = (
    *("text", b"text", 1j, object(), {1.0, 2.0}, {"wx": 1.0}, float, slice(3), KEY),
    *(2**70, [2**70], [[1.0], [1.0, 2.0]], [1.0, "text"], np.array([None]), np.array(["text"])),
    *(np.zeros(3, "datetime64[s]"), np.ones(3, np.complex64)),
)
# Dtypes that JAX does not promote.
NARROW = tuple(jnp.asarray(np.ones(4, jnp.dtype(name))) for name in ("int4", "float8_e4m3fn"))
# Without lists, as the states of layers or directions may be in one.
NO_STATES = tuple(each for each in NO_ARRAYS if not isinstance(each, list))
NO_NETWORKS: Values = (
    *(None, 1.0, "text", {}, {"wx": 1.0}, object(), np.ones((2, 2), np.float32)),
    *((None,), [[1.0]], (np.ones((2, 3)), np.ones((3, 3)), np.ones(3))),
)
NO_MAPPINGS: Values = (None, 1.0, "text", [1.0], {}, np.ones(3))
INTEGERS: Values = (-3, True, 2.0, math.nan, "2", np.int64(2), [2], (), np.array(2))
BOOLS: Values = (None, 0, 1, 2.0, "yes", np.bool_(True), [], np.array(True), jnp.tanh)
RATES: Values = (
    *(-0.1, 1, 1.5, math.nan, math.inf, "0.5", None, True, 1j),
    *([0.1], {0.1}, np.array(0.1), jnp.array(0.1)),
)
KEYS: Values = (
    *(3, "key", object(), np.ones(2, np.float32), np.ones(4, np.uint32)),
    jax.random.split(KEY, 3),
)
FUNCTIONS: Values = (
    *("tanh", 3, [jnp.tanh], np.array([1.0]), math.tanh, np.linalg.norm, lambda: 0),
    *(lambda a: None, lambda a: (a, a), lambda a: 1.0, lambda a: a > 0),
    *(lambda a: a.astype(jnp.int8), lambda a: a[..., None], lambda a: jnp.sum(a, axis=-1)),
    lambda a: jnp.concatenate([a, a], axis=-1),
)
FEATURES: Values = (-1, 2.5, math.nan, "3", 1j, 2**70, KEY)
INITIALISERS: Values = (
    *(3, "zeros", [], lambda key: 0, lambda *args: None, lambda *args: 1.0),
    lambda key, shape, dtype: jnp.zeros((*shape, 1), dtype),
    lambda key, shape, dtype: jnp.zeros(shape, jnp.complex64),
    lambda key, shape, dtype: list(shape),
)
BY_NAME: dict[str, Values] = {
    "activation": (None, *FUNCTIONS),
    "rate": FUNCTIONS,
    **dict.fromkeys(("reverse", "bidirectional", "residual"), BOOLS),
    "checkpoint_every": (0, *INTEGERS),
    "unroll": INTEGERS,
    # None is wrong for either of `resets` and `reset_to`, but not for both.
    "resets": (*NO_ARRAYS, ones(3, 5), np.ones((3, 5), int), np.ones((3, 5, 1), bool), MASK[:2]),
    "lengths": (
        *(*NO_ARRAYS, ones(3), np.ones(3, bool), np.zeros((3, 1), int)),
        *(np.full(3, n) for n in (-1, 6, 2**40)),
    ),
    "array": (None, *NO_ARRAYS, B, X[:2]),
    "dropout": RATES,
    "key": KEYS,
    **dict.fromkeys(("wx_init", "wh_init", "b_init"), INITIALISERS),
    "dtype": (None, int, "text", 3, complex, object, [], np.int32, bool, str, KEY, jnp.ones(3)),
    "n_features": FEATURES,
    "n_nodes": (None, *FEATURES, 0, 2**31, (), [], "34", np.array([3]), {3}),
}


class Missing:
    """Stands for an entry that is left out."""


def wrong_values(place: tuple[Any, ...], value: Any) -> Values:
    name = [part for part in place if isinstance(part, str)][-1]
    if name in BY_NAME:
        return BY_NAME[name]
    if isinstance(value, dict | RNNParams):
        return NO_MAPPINGS if isinstance(value, dict) else NO_NETWORKS
    if isinstance(value, tuple):  # of networks, layers or states
        others = NO_STATES if name == "h0" else NO_NETWORKS
        too_many = () if place == ("layers",) else (value[:1] * 3,)  # then the states are too few
        return (*others, (), (value[0], "text"), *too_many)
    promoted = NARROW if name in ("x", "x_t", "h", "h0", "leak", "reset_to") else ()
    required = (None,) if name in ("x", "x_t", "h", "wh") else ()
    wrong = ones(*value.shape, 1), ones(*value.shape[:-1], value.shape[-1] + 1)
    return (*NO_ARRAYS, *promoted, *required, *wrong)


def faults(value: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Values]:
    """Wrong values for each place in the arguments of a valid call, given by names and indices."""
    found = {place: wrong_values(place, value)} if place else {}
    if isinstance(value, dict | tuple):
        inner: Any = value._asdict() if isinstance(value, RNNParams) else value
        inner = inner if isinstance(inner, dict) else dict(enumerate(inner))
        for key, each in inner.items():
            found |= faults(each, (*place, key))
    if place and isinstance(value, dict):  # a mapping of weights, or of such mappings
        found[(*place, "more")] = None, 1.0
        for i, (key, entry) in enumerate(value.items()):
            if not isinstance(entry, dict):
                # Any sizes are right for the first entry, from which they are read. Biases of ONNX
                # and Keras may be missing; that Flax's may not is tested in test_interop.py.
                wrong = [ones(*entry.shape, 1), ones(*entry.shape[:-1], 99)][: 1 + (i > 0)]
                missing = () if key in ("B", "bias") else (None, Missing)
                found[(*place, key)] = (*NO_ARRAYS, *missing, *wrong)
    return found


RUN: dict[str, Any] = {
    **{"x": X, "activation": jnp.tanh, "rate": jnp.tanh, "leak": ones(3, 5, 4)},
    **{"lengths": np.array([0, 1, 2]), "resets": MASK, "reset_to": H, "reverse": False},
    **{"checkpoint_every": 2, "unroll": 1},
}
DRAWS = {"key": KEY, "n_features": 2, "dtype": float, "wx_init": zeros, "wh_init": zeros}
PLAIN, ONE_WAY = {"residual": False}, (PARAMS, network(4, 4))
VALID: dict[Callable[..., Any], dict[str, Any]] = {
    jaxrnn.rnn_step: {"params": PARAMS, "h": H, "x_t": X[:, 0], "leak": H, "rate": jnp.tanh},
    rnn_forward: RUN | {"params": PARAMS, "h0": H},
    jaxrnn.rnn_states: RUN | {"params": PARAMS, "h0": H},
    jaxrnn.rnn_bidirectional: RUN | {"params": PAIR, "h0": (H, H)},
    rnn_stacked: RUN | {"layers": ONE_WAY, "h0": (H, H), "dropout": 0.5, "key": KEY},
    jaxrnn.mask_padding: {"array": X, "lengths": np.array([5, 5, 5])},
    jaxrnn.init_params: DRAWS | {"n_nodes": 4},
    jaxrnn.init_stacked: DRAWS | {"n_nodes": (4, 3), "bidirectional": True, "b_init": zeros},
    interop.from_torch: {"state_dict": interop.to_torch(LAYERS)},
    interop.from_onnx: {"inputs": interop.to_onnx(PAIR)},
    interop.from_keras: {"weights": interop.to_keras(PARAMS)},
    interop.from_linen: {"params": interop.to_linen(PARAMS)} | PLAIN,
    interop.from_nnx: {"state": interop.to_nnx(PARAMS)} | PLAIN,
    interop.to_torch: {"layers": LAYERS},
    interop.to_onnx: {"layer": PAIR},
    interop.to_keras: {"params": PARAMS},
    interop.to_linen: {"params": PARAMS} | PLAIN,
    interop.to_nnx: {"params": PARAMS} | PLAIN,
}
FAULTS = {function: faults(arguments) for function, arguments in VALID.items()}


def replaced(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """`tree` with another value in that place, or without the entry if the value is `Missing`."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(tree, RNNParams):
        return tree._replace(**{first: value})
    if isinstance(tree, dict):
        others = {key: each for key, each in tree.items() if key != first}
        is_left_out = value is Missing and not rest
        return others | ({} if is_left_out else {first: replaced(tree.get(first), rest, value)})
    return (*tree[:first], replaced(tree[first], rest, value), *tree[first + 1 :])


def assert_told(function: Any, spoilt: Any, how: str = "plain") -> None:
    """The message or a note has the name of an argument that has a wrong value in its place."""
    arguments: Any = VALID[function]
    for place, value in spoilt.items():
        arguments = replaced(arguments, place, value)
    names = [[part for part in place if isinstance(part, str)][-1] for place in spoilt]
    run: Any = partial(function, **arguments)
    run = jax.jit(run) if how == "in jit" else run
    errors = (TypeError, ValueError, OverflowError)
    with jax.disable_jit(how == "without jit"), pytest.raises(errors) as told:
        run()
    message = " ".join([str(told.value), *getattr(told.value, "__notes__", [])])
    assert any(re.search(rf"(?<!\w){name}(?!\w)", message) for name in names), message


@pytest.mark.parametrize("function", VALID, ids=lambda function: function.__name__)
def test_every_wrong_value_is_told(function: Callable[..., Any]) -> None:
    for place, values in FAULTS[function].items():
        for value in values:
            assert_told(function, {place: value})


@settings(deadline=timedelta(seconds=30))
@given(data=st.data())
def test_two_wrong_values_are_told(data: st.DataObject) -> None:
    """In two arguments: a fault within a fault may be right again, or fail before it is seen."""
    function = data.draw(st.sampled_from(list(VALID)))
    places = st.lists(
        st.sampled_from(list(FAULTS[function])), min_size=1, max_size=2, unique_by=lambda p: p[0]
    )
    wrong = {
        place: data.draw(st.sampled_from(FAULTS[function][place])) for place in data.draw(places)
    }
    assert_told(function, wrong, data.draw(st.sampled_from(["plain", "in jit", "without jit"])))


def test_an_error_that_does_not_come_again_is_raised() -> None:
    """To find the name of an argument, the call is traced once more."""
    errors = [TypeError("not this time")]

    def activation(a: jax.Array) -> jax.Array:
        if errors:
            raise errors.pop()
        return jnp.tanh(a)

    with pytest.raises(TypeError, match="not this time"):
        rnn_forward(PARAMS, X, activation=activation)
    assert not errors
