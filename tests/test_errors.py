"""Bad calls of rnn_step, rnn_forward and rnn_states are told which argument is wrong, and how.

A call for each message.
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

# What a message says, and what is wrong in the call. Of each rule one: that every wrong value is
# told by name is in `test_fuzz_errors.py`.
OF_X, TOO_FEW = r"to fit x of shape \(3, 5, 2\), but is of shape", PARAMS._replace(wh=WH[:2])
SETS = RNNParams(*(np.stack([array] * 3) for array in PARAMS))
SPARSE = PARAMS._replace(wh=sparse.BCOO.fromdense(jnp.asarray(WH)))
MASK, RETURNS = (
    np.ones((3, 5), bool),
    r"TypeError: what activation returns must be float32\(3, 4\), ",
)
WRONG: list[tuple[str, dict[str, Any]]] = [
    (
        r"ValueError: x must be of shape \(\*batch, n_steps, n_features\) with n_features = 2 to "
        r"fit params.wx of shape \(2, 4\), but is of shape \(3, 5, 1\)",
        {"x": X[..., :1]},
    ),
    (r"ValueError: x .* n_features = 4 to fit params.wh .*", {"params": PARAMS._replace(wx=None)}),
    ("TypeError: x must be an array of real numbers, but is None", {"x": None}),
    ("TypeError: x must be an array .* but is a list", {"x": [[[1.0, 2.0]], [[1.0]]]}),
    (r"TypeError: x must be an array .*jnp.asarray.* is a list", {"x": [X[0]]}),
    ("TypeError: x must be an array .* dtype complex64", {"x": X * 1j}),
    (r"TypeError: params.wh must be a dense array; .*h @ sparse.*, but is 'B", {"params": SPARSE}),
    (
        r"ValueError: h0 must be broadcastable to \(\*batch, n_nodes\) with batch = \(3,\), "
        r"n_nodes = 4, but is of shape \(2, 4\)",
        {"h0": WH[:2]},
    ),
    (r"TypeError: params must .* \(RNNParams\(\*list\) .* is a tuple", {"params": (WX, WH, B)}),
    (r"TypeError: params .* RNNParams\(\*\*dict\) .* is a dict", {"params": PARAMS._asdict()}),
    (r"TypeError: params .*, but is a tuple of 3 entries\n", {"params": (PARAMS,) * 3}),
    (r"ValueError: params.wh must be .*jax.vmap maps .* of shape \(3, 4, 4\)", {"params": SETS}),
    (
        r"ValueError: params.wx must be of shape \(n_features, n_nodes\) with n_nodes = 3 to fit "
        r"params.wh of shape \(3, 3\), but is of shape \(2, 4\)",
        {"params": PARAMS._replace(wh=WH[:3, :3])},
    ),
    (r"ValueError: params.b must .* n_nodes = 4 .*\(3,\)", {"params": PARAMS._replace(b=B[:3])}),
    (r"ValueError: params.wh .* n_nodes = 4 unless a rate .*", {"params": TOO_FEW}),
    (
        r"TypeError: what rate returns .* float32\(3, 2\), as it takes float32\(3, 4\), but is",
        {"params": TOO_FEW, "rate": jnp.tanh},
    ),
    (r"ValueError: params.wh must be of shape ", {"params": RNNParams(None, 1.0, None)}),
    (r"TypeError: activation must be a function, .*, but is 'tanh'", {"activation": "tanh"}),
    (
        r"TypeError: (?s:.*)\nin activation, which takes float32\(3, 4\), \(\*batch, n_nodes\), as",
        {"activation": lambda a: a @ a},
    ),
    (RETURNS + r".*\(shape=\(3,\), dtype=float32", {"activation": lambda a: jnp.sum(a, axis=-1)}),
    (RETURNS + r".* but is .*, dtype=bool", {"activation": lambda a: a > 0.0}),
    (RETURNS + r".* but is \(ShapeDtypeStruct", {"activation": lambda a: (a, a)}),
    (
        r"ValueError: leak must be broadcastable to \(\*batch, n_steps, n_nodes\) with batch = "
        r"\(3,\), n_steps = 5, n_nodes = 4, but is of shape \(3,\)",
        {"leak": np.ones(3)},
    ),
    (rf"ValueError: lengths .* \(\*batch,\) .* {OF_X} \(2,\)", {"lengths": np.array([1, 2])}),
    ("TypeError: lengths must be an array of integers, but .* dtype float32", {"lengths": B[:3]}),
    (rf"ValueError: resets .* n_steps = 5 {OF_X} \(5,\)", {"resets": MASK[0]}),
    (r"TypeError: resets .* bools .*astype\(bool\).* dtype int32", {"resets": np.int32(MASK)}),
    ("ValueError: reset_to is given without resets, which say where", {"reset_to": 0.0}),
    ("ValueError: resets .* without reset_to: is it zero, or h0", {"h0": B, "resets": MASK}),
    ("TypeError: reverse must be a bool, but is 2", {"reverse": 2}),
    ("ValueError: checkpoint_every must be at least 1, but is 0", {"checkpoint_every": 0}),
    ("TypeError: checkpoint_every must be an integer or .* 2.0", {"checkpoint_every": 2.0}),
    (r"TypeError: \w+\(\) got an unexpected .* 'alpha' \(here: leak", {"alpha": 0.5}),
    (r"TypeError: \w+\(\) got an unexpected keyword argument 'lenghts'(?! )", {"lenghts": 3}),
    ("ValueError: unroll must be at least 0, but is -2", {"unroll": -2}),
    ("TypeError: unroll must be an integer or None, but is True", {"unroll": True}),
]


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize(("message", "wrong"), WRONG)
def test_bad_calls(transform: Any, message: str, wrong: dict[str, Any]) -> None:
    options = {"params": PARAMS, "x": X, "h0": None} | wrong
    arrays = [options.pop(name) for name in ("params", "x", "h0")]
    for function in (rnn_forward, rnn_states):
        with pytest.raises((TypeError, ValueError)) as told:
            transform(partial(function, **options))(*arrays)
        assert re.match(message, told.exconly())


forward: Any = rnn_forward
stacked: Any = rnn_stacked
mask: Any = mask_padding
step: Any = partial(rnn_step, PARAMS)
DIFFER = "activation must be a function, .* .where layers differ, call rnn_states for one after"
PAIR_OR_ONE = r"layers\[0\] must be an RNNParams .* or a pair \(forward, backward\)"
BY_POSITION = r"takes 3 arguments by position \(params, x, h0\) and options by name, but 4"
OTHERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: forward(PARAMS, X, B, jnp.tanh), BY_POSITION),
    (lambda: stacked((PARAMS,), X, activation=(jnp.tanh,)), DIFFER),
    (lambda: stacked((PARAMS,), X, leak=(0.5,)), "leak must be one for all layers"),
    (lambda: stacked((PARAMS._asdict(),), X), PAIR_OR_ONE),
    (lambda: forward(PARAMS, np.array([["text"]])), "^x must be an array of real numbers"),
    (lambda: forward(PARAMS, X, "text"), "^h0 must be an array of real numbers"),
    (lambda: mask(X[0, 0], np.array(True)), "lengths must be an array of integers"),
    (lambda: mask(X, np.array([1])), r"lengths must be of shape \(\*batch,\) with batch"),
    (lambda: mask(X, np.array([1, 9, 2])), "lengths must be from 0 to n_steps = 5"),
    (lambda: mask(X[0, 0, 0], np.array(1)), r"array must be of shape \(\*batch, n_s"),
    (lambda: mask(X, [[1], [2, 3]]), "lengths must be an array of integers .* but is a list"),
    (lambda: mask("text", 1), "array must be an array of real numbers"),
    (lambda: step(B, B[:3]), r"^x_t must be .* but is of shape \(3,\)"),
    (lambda: step(B[:3], X[0, 0]), r"^h must be .* n_nodes = 4 to fit params.wh .* shape \(3,\)"),
    (lambda: step(WH[:2], X[:, 0]), r"batch axes of h, of shape \(2, 4\), and of x_t, .* \(3, 2\)"),
]


@pytest.mark.parametrize(("call", "message"), OTHERS)
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
        ("lengths", [jnp.int32(1)] * 300),
        ("lengths", list(range(300))),
        ("lengths", np.ones(3, "timedelta64[s]")),
        ("reverse", "yes" * 3000),
    ],
)
def test_a_message_is_short_and_names_the_argument(option: str, came: Any) -> None:
    with pytest.raises(TypeError, match=option) as told:
        rnn_forward(PARAMS, X, **{option: came})
    assert len(str(told.value).splitlines()[0]) <= 300
