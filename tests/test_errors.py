"""Bad calls of rnn_step, rnn_forward and rnn_states are told which argument is wrong, and how.

A call for each message. That every wrong value is told by name is in `test_fuzz_errors.py`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from jaxrnn import RNNParams, mask_padding, rnn_forward, rnn_stacked, rnn_states, rnn_step

WX, WH, B = np.ones((2, 4), np.float32), np.ones((4, 4), np.float32), np.ones(4, np.float32)
PARAMS: Any = RNNParams(WX, WH, B)
X = np.ones((3, 5, 2), np.float32)

# What a message says, and what is wrong in the call.
WRONG: dict[str, dict[str, Any]] = {
    r"ValueError: x must be of shape \(\*batch, n_steps, n_features\) with n_features = 2 to fit "
    r"params.wx of shape \(2, 4\), but is of shape \(3, 5, 1\)": {"x": X[..., :1]},
    r"ValueError: x must be of shape \(\*batch, n_steps, n_features\) .* \(2,\)": {"x": X[0, 0]},
    "TypeError: x must be an array of real numbers, but is None": {"x": None},
    "TypeError: params.wh must be an array of real numbers, but is None": {
        "params": PARAMS._replace(wh=None)
    },
    r"TypeError: params.wh must be a dense array; .*h @ sparse.*, but is 'BCOO'": {
        "params": PARAMS._replace(wh=sparse.BCOO.fromdense(jnp.asarray(WH)))
    },
    "TypeError: x must be an array .* but is a list": {"x": [[[1.0, 2.0]], [[1.0]]]},
    r"TypeError: x must be an array .*jnp.asarray.* is a list": {"x": [X[0]]},
    "TypeError: x must be an array of real numbers, but is .* dtype complex64": {"x": X * 1j},
    r"ValueError: h0 must be broadcastable to \(\*batch, n_nodes\) with batch = \(3,\), "
    r"n_nodes = 4, but is of shape \(2, 4\)": {"h0": WH[:2]},
    r"TypeError: h0 must be an array .*jnp.asarray.* is a list": {"h0": [0.0] * 4},
    r"TypeError: params must be an RNNParams, but is a tuple .* \(RNNParams\(\*params\) makes": {
        "params": (WX, WH, B)
    },
    r"TypeError: params must be an RNNParams, but is a dict .* .RNNParams\(\*\*params\) makes": {
        "params": PARAMS._asdict()
    },
    r"TypeError: params must be an RNNParams, but is a tuple of 3 entries\n": {
        "params": (PARAMS,) * 3
    },
    r"ValueError: params.wx must be of shape \(n_features, n_nodes\) with n_nodes = 4 to fit "
    r"params.wh of shape \(4, 4\), but is of shape \(2,\)": {
        "params": PARAMS._replace(wx=WX[:, 0])
    },
    r"ValueError: params.wh must be .*jax.vmap maps .* but is of shape \(3, 4, 4\)": {
        "params": RNNParams(*(np.stack([array] * 3) for array in PARAMS))
    },
    r"ValueError: params.wx must be of shape \(n_features, n_nodes\) with n_nodes = 3 to fit "
    r"params.wh of shape \(3, 3\), but is of shape \(2, 4\)": {
        "params": PARAMS._replace(wh=WH[:3, :3])
    },
    r"ValueError: params.b must be of shape \(n_nodes,\) with n_nodes = 4 .* is of shape \(3,\)": {
        "params": PARAMS._replace(b=B[:3])
    },
    r"TypeError: params.b must be an array .*jnp.asarray.* is a list": {
        "params": PARAMS._replace(b=[0.0] * 4)
    },
    r"ValueError: x must be .* n_features = 4 to fit params.wh of shape \(4, 4\), but is of": {
        "params": PARAMS._replace(wx=None)
    },
    r"ValueError: params.wh must be of shape \(n_nodes, n_nodes\) with n_nodes = 4 unless a rate "
    r".* \(2, 4\)": {"params": PARAMS._replace(wh=WH[:2])},
    r"TypeError: what rate returns must be float32\(3, 2\), as it takes float32\(3, 4\), but is": {
        "params": PARAMS._replace(wh=WH[:2]),
        "rate": jnp.tanh,
    },
    r"ValueError: params.wh must be of shape ": {"params": RNNParams(None, 1.0, None)},
    r"TypeError: activation must be a function, .*, but is 'tanh'": {"activation": "tanh"},
    r"TypeError: (?s:.*)\nin activation, which takes float32\(3, 4\), \(\*batch, n_nodes\), as": {
        "activation": lambda a: a @ a
    },
    r"TypeError: what activation returns must be float32\(3, 4\), as it takes float32\(3, 4\), "
    r"but is ShapeDtypeStruct\(shape=\(3,\), dtype=float32": {
        "activation": lambda a: jnp.sum(a, axis=-1)
    },
    r"TypeError: what activation returns must be .* float32\(3, 4\), but is .*, dtype=bool": {
        "activation": lambda a: a > 0.0
    },
    r"TypeError: what activation returns must be .* but is \(ShapeDtypeStruct": {
        "activation": lambda a: (a, a)
    },
    r"ValueError: leak must be broadcastable to \(\*batch, n_steps, n_nodes\) with batch = \(3,\), "
    r"n_steps = 5, n_nodes = 4, but is of shape \(3,\)": {"leak": np.ones(3)},
    r"ValueError: lengths must be of shape \(\*batch,\) with batch = \(3,\) to fit x of shape "
    r"\(3, 5, 2\), but is of shape \(2,\)": {"lengths": np.array([1, 2])},
    "TypeError: lengths must be an array of integers, but is .* dtype float32": {"lengths": B[:3]},
    r"TypeError: lengths must be an array .*jnp.asarray.* is a list": {"lengths": [3, 1, 5]},
    r"ValueError: resets must be of shape \(\*batch, n_steps\) with batch = \(3,\), n_steps = 5 "
    r"to fit x of shape \(3, 5, 2\), but is of shape \(5,\)": {"resets": np.ones(5, bool)},
    r"TypeError: resets must be an array of bools .*astype\(bool\).*, but is .* dtype int32": {
        "resets": np.ones((3, 5), np.int32)
    },
    r"TypeError: resets must be an array .*jnp.asarray.* is a tuple": {
        "resets": ((True,) * 5,) * 3
    },
    "ValueError: reset_to is given without resets, which say where it is used": {"reset_to": 0.0},
    "ValueError: resets and h0 are given without reset_to: is it zero, or h0 itself": {
        "h0": np.zeros(4),
        "resets": np.ones((3, 5), bool),
    },
    "TypeError: reverse must be a bool, but is 2": {"reverse": 2},
    "ValueError: checkpoint_every must be at least 1, but is 0": {"checkpoint_every": 0},
    "TypeError: checkpoint_every must be an integer or None, but is 2.0": {"checkpoint_every": 2.0},
    r"TypeError: \w+\(\) got an unexpected keyword argument 'alpha' \(here: leak": {"alpha": 0.5},
    r"TypeError: \w+\(\) got an unexpected keyword argument 'lenghts'(?! )": {"lenghts": 3},
    "ValueError: unroll must be at least 0, but is -2": {"unroll": -2},
    "TypeError: unroll must be an integer or None, but is 1.5": {"unroll": 1.5},
    "TypeError: unroll must be an integer or None, but is True": {"unroll": True},
}


@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("message", WRONG)
def test_bad_calls(
    function: Callable[..., Any], transform: Callable[[Any], Any], message: str
) -> None:
    options = {"params": PARAMS, "x": X, "h0": None} | WRONG[message]
    arrays = [options.pop(name) for name in ("params", "x", "h0")]
    with pytest.raises((TypeError, ValueError)) as told:
        transform(lambda *arrays: function(*arrays, **options))(*arrays)
    assert re.match(message, told.exconly())


WRONG_STEPS: dict[str, dict[str, Any]] = {
    r"ValueError: x_t must be .* but is of shape \(3,\)": {"x_t": B[:3]},
    r"TypeError: x_t must be an array .*jnp.asarray.* is a list": {"x_t": [1.0, 2.0]},
    r"ValueError: h must be .* with n_nodes = 4 to fit params.wh .* but is of shape \(3,\)": {
        "h": B[:3]
    },
    r"ValueError: (?s:.*)in the batch axes of h, of shape \(2, 4\), and of x_t, of shape "
    r"\(3, 2\)": {"h": WH[:2], "x_t": X[:, 0]},
    "TypeError: params must be an RNNParams, but is a tuple": {"params": (WX, WH, B)},
    "TypeError: activation must be a function, .* but is 'tanh'": {"activation": "tanh"},
}


@pytest.mark.parametrize("message", WRONG_STEPS)
def test_bad_steps(message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as told:
        rnn_step(**{"params": PARAMS, "h": B, "x_t": X[0, 0], **WRONG_STEPS[message]})
    assert re.match(message, told.exconly())


forward: Any = rnn_forward
stacked: Any = rnn_stacked
mask: Any = mask_padding


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: forward(PARAMS, X, B, jnp.tanh),
            r"takes 3 arguments by position \(params, x, h0\) and options by name, but 4",
        ),
        (
            lambda: stacked((PARAMS,), X, activation=(jnp.tanh,)),
            "activation must be a function, .* .where layers differ, call rnn_states for one after",
        ),
        (lambda: stacked((PARAMS,), X, leak=(0.5,)), "leak must be one for all layers"),
        (
            lambda: stacked((PARAMS._asdict(),), X),
            r"layers\[0\] must be an RNNParams or a pair .* .RNNParams\(\*\*layers\[0\]\) makes",
        ),
        (lambda: forward(PARAMS, np.array([["text"]])), "^x must be an array of real numbers"),
        (lambda: forward(PARAMS, X, "text"), "^h0 must be an array of real numbers"),
        (lambda: mask(X[0, 0], np.array(True)), "lengths must be an array of integers"),
        (
            lambda: mask(X, np.array([1])),
            r"lengths must be of shape \(\*batch,\) with batch",
        ),
        (lambda: mask(X, np.array([1, 9, 2])), "lengths must be from 0 to n_steps = 5"),
        (lambda: mask(X[0, 0, 0], np.array(1)), r"array must be of shape \(\*batch, n_s"),
        (lambda: mask("text", 1), "array must be an array of real numbers"),
    ],
)
def test_other_bad_calls(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as told:
        call()
    notes = getattr(told.value, "__notes__", [])
    assert re.search(message, "\n".join([str(told.value), *notes]), re.MULTILINE)


def test_a_callable_may_have_no_name() -> None:
    unnamed = partial(jnp.tanh)
    unnamed.__name__ = None  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        rnn_forward(PARAMS, X, activation=unnamed), rnn_forward(PARAMS, X)
    )


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
    rnn_forward(PARAMS, X, **{option: good})
    with pytest.raises(TypeError, match=f"^{option} must be "):
        rnn_forward(PARAMS, X, **{option: bad})


@pytest.mark.parametrize(
    ("option", "came"),
    [
        ("lengths", [jnp.int32(1)] * 3000),
        ("lengths", list(range(3000))),
        ("lengths", np.ones(3, "timedelta64[s]")),
        ("reverse", "yes" * 3000),
    ],
)
def test_a_message_is_short_and_names_the_argument(option: str, came: Any) -> None:
    with pytest.raises(TypeError, match=option) as told:
        rnn_forward(PARAMS, X, **{option: came})
    assert len(str(told.value).splitlines()[0]) <= 300
