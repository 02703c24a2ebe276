"""What several test modules share: numbers, comparisons, cases, and the README's text."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import RNNParams, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.forward import run
from jaxrnn.testing import oracle

# Whether all cases are run, also those that take minutes.
IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

# Numbers


def numbers(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """An array of each shape, uniform in [-1, 1).

    The generator is made anew at each call, so that no test changes the numbers of another.
    """
    random = np.random.default_rng(seed)
    return [random.uniform(-1.0, 1.0, shape) for shape in shapes]


def numbers_like(tree: Any, seed: int = 0) -> Any:
    """The same tree with other numbers, uniform in [-1, 1)."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, numbers(*map(np.shape, leaves), seed=seed))


# The notebook's worked example

WORKED_PARAMS = RNNParams(
    wx=np.array([[1, 3, 5, 7], [3, 5, 7, 8]]) / 100,
    wh=np.array([[1, 3, 5, 7], [2, 4, 6, 8], [3, 5, 7, 8], [4, 6, 8, 10]]) / 100,
    b=np.ones(4),
)
WORKED_X = np.array([[[1, 2], [2, 3], [3, 4]]]) / 100
WORKED_H_LAST = np.array([[0.79494228, 0.81839002, 0.83939649, 0.85584174]])

# Comparisons


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """The same tree, the same shapes, and values within an absolute and relative tolerance."""
    for got, wanted in _pairs(actual, expected):
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def assert_equal(actual: Any, expected: Any) -> None:
    """The same tree, the same dtypes and shapes, and the same values to the last bit."""
    for got, wanted in _pairs(actual, expected):
        np.testing.assert_array_equal(got, wanted, strict=True)


def _pairs(actual: Any, expected: Any) -> Iterator[tuple[Any, Any]]:
    leaves, structure = jax.tree.flatten(actual)
    leaves_expected, structure_expected = jax.tree.flatten(expected)
    assert str(structure) == str(structure_expected)
    return zip(leaves, leaves_expected, strict=True)


def at(tree: Any, index: Any) -> Any:
    """Every array of a tree at an index."""
    return jax.tree.map(lambda array: array[index], tree)


# A batch of 2 times 3 sequences of up to six steps.

_WX, _WH, _B, X, H0 = numbers((3, 4), (4, 4), (4,), (2, 3, 6, 3), (2, 3, 4))
PARAMS = RNNParams(_WX / 2, _WH / 2, _B / 2)
LENGTHS = np.array([[0, 1, 6], [3, 5, 2]], np.int32)
RESETS = numbers((2, 3, 6), seed=1)[0] < -0.2
RESET_TO = numbers((4,), seed=3)[0]
MASKS = {"lengths": LENGTHS, "resets": RESETS, "reset_to": RESET_TO}
PADDING = np.arange(6) >= LENGTHS[..., None]

# Activations and derivatives


def own_tanh(a: jax.Array) -> jax.Array:
    """A tanh that jaxrnn does not know, and therefore differentiates step by step."""
    return jnp.tanh(a)


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


_SIGMOID = oracle.Differentiable(_sigmoid, lambda a: _sigmoid(a) * _sigmoid(-a))
_SILU = oracle.Differentiable(
    lambda a: a * _sigmoid(a), lambda a: _sigmoid(a) * (1 + a * _sigmoid(-a))
)

_TO_RATES = numbers((4, 2))[0]  # of four nodes to two rates


def two_rates(v: jax.Array) -> Any:
    return jnp.tanh(v) @ _TO_RATES.astype(v.dtype)


# Activations, or rates, as the oracle takes them.
ORACLES: dict[Any, oracle.Differentiable] = {
    **dict.fromkeys((jnp.tanh, jax.lax.tanh), oracle.TANH),
    jax.nn.relu: oracle.RELU,
    **dict.fromkeys((jax.nn.sigmoid, jax.lax.logistic), _SIGMOID),
    jax.nn.softplus: oracle.Differentiable(lambda a: np.log1p(np.exp(a)), _sigmoid),
    jax.nn.identity: oracle.IDENTITY,
    jax.nn.silu: _SILU,
    own_tanh: oracle.TANH,
    two_rates: oracle.Differentiable(
        lambda v: np.tanh(v) @ _TO_RATES,
        lambda v: oracle.TANH.derivative(v)[..., None] * _TO_RATES,
    ),
}
KNOWN = list(ORACLES)[:-3]  # for which the recurrence has a rule of its own


def curved(array: Any) -> Any:
    """A sum whose second derivatives are not zero."""
    return jnp.sum(jnp.sin(array))


def loss(activation: Any, options: Any, params: Any, x: Any, h0: Any) -> Any:
    """A loss that depends on the last state and, in another way, on all states."""
    h, (last,) = rnn_stacked((params,), x, (h0,), activation=activation, **options)
    return curved(last) + curved(2 * h)


def _direction(args: Any) -> Any:
    """Constant numbers of the same types, which may have symbolic sizes."""
    return jax.tree.map(lambda array: jax.lax.stop_gradient(jnp.cos(3 * array)), args)


def _along(f: Callable[..., Any], params: Any, x: Any, h0: Any) -> Any:
    """The derivative of a loss along a direction in all arguments, by forward mode."""
    args = params, x, h0
    return jax.jvp(f, args, _direction(args))[1]


def _weighed_gradient(f: Callable[..., Any], *args: Any) -> Any:
    """The same by reverse mode."""
    gradients = jax.tree.leaves(jax.grad(f, argnums=(0, 1, 2))(*args))
    weights = jax.tree.leaves(_direction(args))
    return sum(jnp.sum(w * g) for w, g in zip(weights, gradients, strict=True))


# Derivatives by params, x and h0. Those of second and third order are along directions.
WAYS: dict[str, Callable[..., Any]] = {
    "value and gradient": lambda f: jax.value_and_grad(f, argnums=(0, 1, 2)),
    "forward mode": lambda f: jax.jacfwd(f, argnums=(0, 1, 2)),
    "forward over reverse": lambda f: partial(_along, jax.grad(f, argnums=(0, 1, 2))),
    "reverse over reverse": lambda f: jax.grad(partial(_weighed_gradient, f), argnums=(0, 1, 2)),
    "reverse over forward": lambda f: jax.grad(partial(_along, f), argnums=(0, 1, 2)),
    "forward over forward": lambda f: partial(_along, partial(_along, f)),
    "third order": lambda f: partial(_along, WAYS["reverse over reverse"](f)),
}

# Recurrences


def every_value(params: Any, x: Any, h0: Any, **options: Any) -> tuple[Any, Any, Any]:
    """What `rnn_forward` and `rnn_states` give, last, a and h, by one loop to compile."""
    out = run(params, x, h0, **options)
    return out.last, *out.states()


UNKNOWN_TO_ORACLE = ("checkpoint_every", "unroll")  # they say how a result is computed
# By what the oracle has gradients, of one network and of layers.
FLOATS = {"params": {"params", "x", "h0", "leak", "reset_to"}, "layers": {"layers", "x", "h0"}}


def of_oracle(function: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Values, and the gradients of the sum of their sines by each argument that is floating.

    Where a value is NaN or infinite, its weight is that of another number.
    """
    call = {name: each for name, each in arguments.items() if name not in UNKNOWN_TO_ORACLE}
    call |= {name: ORACLES[call[name]] for name in ("activation", "rate") if call.get(name)}
    if "layers" in call:
        out: Any = oracle.rnn_stacked(**call)
        w = jax.tree.map(lambda value: np.cos(np.nan_to_num(value)), out)
        found = oracle.stacked_gradients(**call, g_h=w.h, g_last=w.last)._asdict()
    else:
        last, states = oracle.rnn_forward(**call), oracle.rnn_states(**call)
        out = {rnn_forward: last, rnn_states: states}.get(function, (last, *states))
        w = jax.tree.map(lambda value: np.cos(np.nan_to_num(value)), (last, states))
        weights = {} if function is rnn_states else {"g_last": w[0]}
        weights |= {} if function is rnn_forward else {"g_a": w[1].a, "g_h": w[1].h}
        found = oracle.rnn_gradients(**call, **weights)._asdict()

    def of_given(argument: Any, gradient: Any) -> Any:
        return None if argument is None else gradient

    return out, {
        name: jax.tree.map(of_given, call[name], found[name], is_leaf=lambda each: each is None)
        for name in call.keys() & found.keys()
    }


def of_jax(function: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The same of a function in JAX."""
    names = FLOATS["params" if "params" in arguments else "layers"]
    floats = {name: arguments[name] for name in arguments.keys() & names}
    out, pull = jax.vjp(lambda floats: function(**(arguments | floats)), floats)
    return out, pull(jax.tree.map(lambda value: jnp.cos(jnp.nan_to_num(value)), out))[0]


def scanned(step: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The recurrence `run(params, x, h0)` of a cell `step(params, h, x_t)`."""

    def run(params: Any, x: Any, h0: Any) -> Any:
        def one(h: Any, x_t: Any) -> Any:
            h = step(params, h, x_t)
            return h, h

        return jnp.moveaxis(jax.lax.scan(one, h0, jnp.moveaxis(x, -2, 0))[1], 0, -2)

    return run


# The pages: each block of code must run, those of the equations behind their first


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GALLERY = (ROOT / "jaxrnn" / "examples" / "README.md").read_text()
EQUATIONS = GALLERY.partition("## Equations\n")[2].partition("\n## ")[0]
_FIRST, *_OTHERS = blocks_of(EQUATIONS)
BLOCKS = blocks_of(README + GALLERY.replace(EQUATIONS, "")) + [_FIRST + each for each in _OTHERS]
