"""An option that is declared is known wherever it must be: signatures, README, oracle, rule, ..."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, settings

from jaxrnn import RNNParams, rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.inputs import DEFAULTS, Options
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES
from tests.helpers import README, assert_close, numbers
from tests.test_errors import FAULTS

NAMES = DEFAULTS.keys()

# How a result is computed, which an oracle need not know.
WITHOUT_EFFECT = {"checkpoint_every", "unroll"}

# Of each option a value that is not its default, with what it needs, and the same for the oracle. A
# new option needs a row: it is then compared with the oracle in every way below.
LENGTHS, RESETS = np.array([4, 0, 6]), np.arange(18).reshape(3, 6) % 4 == 1
LEAK, RESET_TO = numbers((3, 6, 1), (4,))


def same(**options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return options, options


EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "activation": ({"activation": jax.nn.relu}, {"activation": oracle.RELU}),
    "rate": ({"rate": jnp.tanh}, {"rate": oracle.TANH}),
    "leak": same(leak=LEAK),
    "lengths": same(lengths=LENGTHS),
    "resets": same(resets=RESETS, reset_to=np.zeros(())),
    "reset_to": same(resets=RESETS, reset_to=RESET_TO),
    "reverse": same(reverse=True),
    "checkpoint_every": ({"checkpoint_every": 5}, {}),
    "unroll": ({"unroll": 2}, {}),
}


def call() -> tuple[RNNParams[Any], Any, Any]:
    wx, wh, b, x, h0 = numbers((2, 4), (4, 4), (4,), (3, 6, 2), (3, 4))
    return RNNParams(wx, wh / 2, b), x, h0


def test_the_record_and_the_signatures_have_the_same_options() -> None:
    assert Options.__annotations__.keys() == NAMES == EXAMPLES.keys()
    for function in (rnn_forward, rnn_states, rnn_bidirectional, rnn_stacked):
        parameters = inspect.signature(function).parameters
        defaults = {name: parameters[name].default for name in NAMES}
        assert defaults == DEFAULTS


def test_the_table_of_the_readme_has_each_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)=([\w.]+)` \|", README, flags=re.MULTILINE)
    assert {name: eval(value, {"jnp": jnp}) for name, value in rows} == DEFAULTS


def test_the_docstring_describes_each() -> None:
    described = re.findall(r"^ {2,6}(\w+): ", inspect.getdoc(rnn_forward) or "", re.MULTILINE)
    assert {*described} >= NAMES


def test_the_table_of_the_oracle_has_each_that_changes_a_result() -> None:
    row = re.search(r"^\| (`activation`.*?) \| options", README, flags=re.MULTILINE)
    assert row is not None
    assert {*re.findall(r"\w+", row[1])} == NAMES - WITHOUT_EFFECT


def test_bad_values_of_each_are_tried() -> None:
    assert FAULTS[rnn_forward].keys() >= {(name,) for name in NAMES}


def test_the_oracle_has_each_that_changes_a_result() -> None:
    assert oracle.Options.__annotations__.keys() == NAMES - WITHOUT_EFFECT


@pytest.mark.parametrize("name", sorted(NAMES - WITHOUT_EFFECT - {"activation", "rate"}))
def test_the_strategies_draw_each(name: str) -> None:
    options = strategies.options(SIZES[-1])
    drawn = find(options, lambda drawn: bool(np.any(drawn.get(name))), settings=settings())
    assert name in drawn


@pytest.mark.parametrize("name", sorted(NAMES))
def test_values_and_gradients_are_the_oracles_however_the_recurrence_is_run(name: str) -> None:
    options, in_oracle = EXAMPLES[name]
    activation = options.get("activation", jnp.tanh)
    unknown = options | {"activation": lambda a: activation(a)}  # is differentiated step by step
    weights = np.cos(np.arange(72.0)).reshape(3, 6, 4)
    by = {name: each for name, each in options.items() if np.asarray(each).dtype == np.float64}

    @jax.jit
    def run(params: Any, x: Any, h0: Any) -> Any:
        def loss(every: dict[str, int], *args: Any) -> Any:
            h = rnn_states(*args[:3], **{**every, **options, **args[3]}).h
            return jnp.sum(weights * h), h

        gradient, args = jax.grad(loss, (1, 2, 3, 4), has_aux=True), (params, x, h0, by)
        # Pieces of so many steps that they have the rule.
        by_rule = {"whole": gradient({}, *args), "pieces": gradient({"checkpoint_every": 5}, *args)}
        return by_rule, {
            "layer": rnn_stacked((params,), x, (h0,), **options).h,
            "direction": rnn_bidirectional((params, params), x, (h0, h0), **options).h[..., :4],
            "plain loop": rnn_states(params, x, h0, **unknown).h,
        }

    args = call()
    with jax.enable_x64(True):
        by_rule, others = run(*args)
    h = oracle.rnn_states(*args, **in_oracle).h
    expected = oracle.rnn_gradients(*args, g_h=weights, **in_oracle)
    gradients = *expected[:3], {name: getattr(expected, name) for name in by}
    assert_close(by_rule, dict.fromkeys(by_rule, (gradients, h)), 1e-12)
    assert_close(others, dict.fromkeys(others, h), 1e-12)
