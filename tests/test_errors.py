"""Bad calls of rnn_step, rnn_forward and rnn_states are told which argument is wrong, and how.

A call for each message. That every wrong value is told by name is in `test_fuzz_errors.py`.
"""

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, rnn_forward, rnn_states, rnn_step

WX, WH, B = np.ones((2, 4), np.float32), np.ones((4, 4), np.float32), np.ones(4, np.float32)
PARAMS: Any = RNNParams(WX, WH, B)
X = np.ones((3, 5, 2), np.float32)


class Bad(NamedTuple):
    """An error, and the arguments for which `rnn_forward` and `rnn_states` raise it."""

    error: type[Exception]
    message: str
    params: Any = PARAMS
    x: Any = X
    h0: Any = None
    options: Any = MappingProxyType({})


BAD_CALLS = {
    "too few features": Bad(
        ValueError,
        r"x must be of shape \(\*batch, n_steps, n_features\), ending in 2 to fit params.wx of "
        r"shape \(2, 4\), but is of shape \(3, 5, 1\)",
        x=X[..., :1],
    ),
    "x a vector": Bad(
        ValueError,
        r"x must be of shape \(\*batch, n_steps, n_features\), .* shape \(2,\)",
        x=X[0, 0],
    ),
    "x missing": Bad(ValueError, "(?s)None.*x must be an array of real numbers", x=None),
    "x ragged": Bad(TypeError, "x must be an array .* but is a list", x=[[[1.0, 2.0]], [[1.0]]]),
    "x complex": Bad(
        TypeError, "x must be an array of real numbers, but is .* dtype complex64", x=X * 1j
    ),
    "h0 of another batch": Bad(
        ValueError,
        r"h0 must be broadcastable to \(\*batch, n_nodes\) = \(3, 4\), but is of shape \(2, 4\)",
        h0=np.ones((2, 4), np.float32),
    ),
    "params a tuple": Bad(
        TypeError, "params must be an RNNParams, but is a tuple", params=(WX, WH, B)
    ),
    "wx a vector": Bad(
        ValueError,
        r"params.wx must be of shape \(n_features, n_nodes\) to fit .* but is of shape \(2,\)",
        params=PARAMS._replace(wx=WX[:, 0]),
    ),
    "stack of parameter sets": Bad(
        ValueError,
        r"params.wh must be .*jax.vmap maps .* but is of shape \(3, 4, 4\)",
        params=RNNParams(*(np.stack([array] * 3) for array in PARAMS)),
    ),
    "wh of other nodes": Bad(
        ValueError,
        r"params.wx must be of shape \(n_features, n_nodes\) to fit params.wh of shape \(3, 3\), "
        r"but is of shape \(2, 4\)",
        params=PARAMS._replace(wh=WH[:3, :3]),
    ),
    "b of other nodes": Bad(
        ValueError,
        r"params.b must be of shape \(n_nodes,\) = \(4,\) .*, but is of shape \(3,\)",
        params=PARAMS._replace(b=B[:3]),
    ),
    "wx missing, and x of other nodes": Bad(
        ValueError,
        r"x must be of shape .*, ending in 4 to fit params.wh of shape \(4, 4\), but is of shape",
        params=PARAMS._replace(wx=None),
    ),
    "wx missing, and wh not square": Bad(
        ValueError, "params.wh must be of shape", params=RNNParams(None, WH[:2], None)
    ),
    "wx missing, and wh a scalar": Bad(
        ValueError, "params.wh must be of shape", params=RNNParams(None, 1.0, None)
    ),
    "activation a name": Bad(
        TypeError,
        "activation must be of type Callable, but is 'tanh'",
        options={"activation": "tanh"},
    ),
    "activation that reduces": Bad(
        TypeError,
        r"what activation returns must be of the shape and dtype it is given, float32\(3, 4\), but "
        r"is ShapeDtypeStruct\(shape=\(3,\), dtype=float32",
        options={"activation": lambda a: jnp.sum(a, axis=-1)},
    ),
    "activation that changes the dtype": Bad(
        TypeError,
        r"what activation returns must be .* float32\(3, 4\), but is .*, dtype=bool",
        options={"activation": lambda a: a > 0.0},
    ),
    "activation that returns a pair": Bad(
        TypeError,
        r"what activation returns must be .* but is \(ShapeDtypeStruct",
        options={"activation": lambda a: (a, a)},
    ),
    "leak of other nodes": Bad(
        ValueError,
        r"leak must be broadcastable to \(\*batch, n_steps, n_nodes\) = \(3, 5, 4\), but is of "
        r"shape \(3,\)",
        options={"leak": np.ones(3)},
    ),
    "lengths of another batch": Bad(
        ValueError,
        r"lengths must be of shape \(\*batch,\) = \(3,\) to fit x of shape \(3, 5, 2\), but is of "
        r"shape \(2,\)",
        options={"lengths": np.array([1, 2])},
    ),
    "lengths of floats": Bad(
        TypeError,
        "lengths must be an array of integers, but is .* dtype float32",
        options={"lengths": np.ones(3, np.float32)},
    ),
    "resets of another batch": Bad(
        ValueError,
        r"resets must be of shape \(\*batch, n_steps\) = \(3, 5\) to fit x of shape \(3, 5, 2\), "
        r"but is of shape \(5,\)",
        options={"resets": np.ones(5, bool)},
    ),
    "resets of integers": Bad(
        TypeError,
        r"resets must be an array of bools .*astype\(bool\).*, but is .* dtype int32",
        options={"resets": np.ones((3, 5), np.int32)},
    ),
    "reset_to without resets": Bad(
        ValueError,
        "reset_to is given without resets, which say where it is used",
        options={"reset_to": 0.0},
    ),
    "resets and h0 without reset_to": Bad(
        ValueError,
        "resets and h0 are given without reset_to: is it zero, or h0 itself",
        h0=np.zeros(4),
        options={"resets": np.ones((3, 5), bool)},
    ),
    "reverse an integer": Bad(
        TypeError, "reverse must be of type bool, but is 2", options={"reverse": 2}
    ),
    "checkpoint_every zero": Bad(
        ValueError, "checkpoint_every must be at least 1, but is 0", options={"checkpoint_every": 0}
    ),
    "checkpoint_every a float": Bad(
        TypeError,
        r"checkpoint_every must be of type int \| None, but is 2.0",
        options={"checkpoint_every": 2.0},
    ),
    "unroll negative": Bad(ValueError, "unroll must be at least 0", options={"unroll": -2}),
    "unroll a float": Bad(
        TypeError,
        r"unroll must be of type int \| bool \| None, but is 1.5",
        options={"unroll": 1.5},
    ),
}


@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("bad", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(function: Callable[..., Any], transform: Callable[[Any], Any], bad: Bad) -> None:
    run = transform(lambda params, x, h0: function(params, x, h0, **bad.options))
    with pytest.raises(bad.error, match=bad.message):
        run(bad.params, bad.x, bad.h0)


BAD_STEPS: dict[str, tuple[type[Exception], str, Any, Any]] = {
    "features": (ValueError, r"x_t must be .* but is of shape \(3,\)", B, np.ones(3, np.float32)),
    "nodes": (ValueError, r"h must be .* ending in 4 .* but is of shape \(3,\)", B[:3], X[0, 0]),
    "batches": (
        ValueError,
        r"(?s)in the batch axes of h, of shape \(2, 4\), and of x_t, of shape \(3, 2\)",
        WH[:2],
        X[:, 0],
    ),
}


@pytest.mark.parametrize(("error", "message", "h", "x_t"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_bad_steps(error: type[Exception], message: str, h: Any, x_t: Any) -> None:
    with pytest.raises(error, match=message):
        rnn_step(PARAMS, h, x_t)


@pytest.mark.parametrize("bad", ["params a tuple", "b of other nodes", "activation a name"])
def test_a_step_checks_as_the_others_do(bad: str) -> None:
    error, message, params, _, _, options = BAD_CALLS[bad]
    with pytest.raises(error, match=message):
        rnn_step(params, B, X[0, 0], **options)


LISTS: dict[str, tuple[Any, Any, Any]] = {
    "x": (rnn_forward, (PARAMS, [X[0]]), {}),
    "h0": (rnn_forward, (PARAMS, X[0], [0.0] * 4), {}),
    "params.b": (rnn_forward, (PARAMS._replace(b=[0.0] * 4), X[0]), {}),
    "lengths": (rnn_states, (PARAMS, X), {"lengths": [3, 1, 5]}),
    "resets": (rnn_states, (PARAMS, X[0]), {"resets": (True, False) * 2}),
    "x_t": (rnn_step, (PARAMS, B, [1.0, 2.0]), {}),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_refused_by_name(name: str) -> None:
    function, args, options = LISTS[name]
    expected = rf"^{re.escape(name)} must be an array of .*jnp.asarray.* is (a list|a tuple|\[|\()"
    with pytest.raises(TypeError, match=expected):
        function(*args, **options)


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
    ("error", "option", "came"),
    [
        (TypeError, "lengths", [jnp.int32(1)] * 3000),
        (TypeError, "lengths", list(range(3000))),
        (TypeError, "lengths", np.ones(3, "timedelta64[s]")),
        (TypeError, "reverse", "yes" * 3000),
    ],
)
def test_a_message_is_short_and_names_the_argument(error: Any, option: str, came: Any) -> None:
    with pytest.raises(error, match=option) as told:
        rnn_forward(PARAMS, X, **{option: came})
    assert len(str(told.value).splitlines()[0]) <= 300


def test_a_number_too_large_for_any_dtype_is_refused_by_name() -> None:
    with pytest.raises(OverflowError, match="x_t"):
        rnn_step(PARAMS, B, 2**70)


@pytest.mark.parametrize(
    ("bad", "note"),
    [({"activation": np.tanh}, "in activation"), ({"h0": jnp.ones(4, jnp.int4)}, "h0 is int4")],
    ids=["activation", "dtypes"],
)
def test_errors_from_jax_and_numpy_have_a_note(bad: dict[str, Any], note: str) -> None:
    with pytest.raises((TypeError, ValueError)) as told:
        rnn_forward(PARAMS, X, **bad)
    assert any(note in each for each in told.value.__notes__)
