"""An option that is declared is known wherever it must be: signatures, README, oracle, rule, ..."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, settings

import jaxrnn
from jaxrnn import RNNParams, recurrence, rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.options import OPTIONS, Options, Run
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES
from tests.helpers import README, numbers

NAMES = {each.name for each in OPTIONS}

# How a result is computed, which an oracle need not know.
WITHOUT_EFFECT = {"checkpoint_every", "unroll"}

# Of each option a value that is not its default, with what it needs, and the same for the oracle. A
# new option needs a row: it is then compared with the oracle in every way below.
LENGTHS, RESETS = np.array([4, 0, 6]), np.arange(18).reshape(3, 6) % 4 == 1
RESET_TO = np.array([0.5, -0.25, 1.0, 0.0])
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "activation": ({"activation": jax.nn.relu}, {"activation": oracle.RELU}),
    "lengths": ({"lengths": LENGTHS}, {"lengths": LENGTHS}),
    "resets": ({"resets": RESETS}, {"resets": RESETS}),
    "reset_to": (options := {"resets": RESETS, "reset_to": RESET_TO}, options),
    "reverse": ({"reverse": True}, {"reverse": True}),
    "checkpoint_every": ({"checkpoint_every": 4}, {}),
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
        assert defaults == {each.name: each.default for each in OPTIONS}


def test_the_table_of_the_readme_has_each() -> None:
    assert {*re.findall(r"^\| `(\w+)=[\w.]+` \|", README, flags=re.MULTILINE)} == NAMES


def test_the_docstring_describes_each() -> None:
    described = re.findall(r"^ {2,6}(\w+): ", inspect.getdoc(rnn_forward) or "", re.MULTILINE)
    assert {*described} >= NAMES


def test_the_oracle_has_each_that_changes_a_result() -> None:
    assert oracle.Options.__annotations__.keys() == NAMES - WITHOUT_EFFECT


@pytest.mark.parametrize("name", sorted(NAMES - WITHOUT_EFFECT - {"activation"}))
def test_the_strategies_draw_each(name: str) -> None:
    options = strategies.options(SIZES[-1])
    drawn = find(options, lambda drawn: bool(np.any(drawn.get(name))), settings=settings())
    assert name in drawn


@pytest.mark.parametrize("name", sorted(NAMES))
def test_values_are_the_oracles_however_the_recurrence_is_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, in_oracle = EXAMPLES[name]
    params, x, h0 = call()
    expected = oracle.rnn_states(params, x, h0, **in_oracle).h
    with jax.enable_x64(True):
        ways = {
            "rule": rnn_states(params, x, h0, **options).h,
            "pieces": rnn_states(params, x, h0, **{"checkpoint_every": 2, **options}).h,
            "layer": rnn_stacked((params,), x, (h0,), **options).h,
            "direction": rnn_bidirectional((params, params), x, (h0, h0), **options).h[..., :4],
        }
        monkeypatch.setattr(recurrence, "RULED", set())
        jax.clear_caches()  # what is patched is no argument of a compiled function
        ways["plain loop"] = rnn_states(params, x, h0, **options).h
        jax.clear_caches()
    for way, h in ways.items():
        np.testing.assert_allclose(h, expected, atol=1e-12, err_msg=way)


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("every", [{}, {"checkpoint_every": 2}], ids=["whole", "in pieces"])
def test_gradients_by_the_rule_are_the_oracles(name: str, every: dict[str, int]) -> None:
    options, in_oracle = EXAMPLES[name]
    args = call()
    weights = np.cos(np.arange(72.0)).reshape(3, 6, 4)

    def loss(*args: Any) -> jax.Array:
        return jnp.sum(weights * rnn_states(*args, **{**every, **options}).h)

    with jax.enable_x64(True):
        gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*args)
    expected = oracle.rnn_gradients(*args, g_h=weights, **in_oracle)
    for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected[:3]), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_rule_is_not_reached_with_an_option_that_it_does_not_know(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, x, h0 = jax.tree.map(jnp.asarray, call())
    options = EXAMPLES[name][0]
    run = Run(x, h0, **{"reset_to": h0 if "resets" in options else None, **options})
    assert name in run.used()
    monkeypatch.setattr(recurrence, "_run_with_rule", lambda params, run: "the rule")
    monkeypatch.setattr(recurrence, "RULED", recurrence.RULED - {name})
    assert "the rule" not in recurrence.run_steps(params, run)


def test_every_public_function_refuses_what_is_no_option() -> None:
    params, x, h0 = call()
    calls: dict[str, tuple[Any, ...]] = {
        "rnn_step": (params, h0, x[:, 0]),
        "rnn_forward": (params, x),
        "rnn_states": (params, x),
        "rnn_bidirectional": ((params, params), x),
        "rnn_stacked": ((params,), x),
    }
    for name, args in calls.items():
        with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected .* 'lenghts'"):
            getattr(jaxrnn, name)(*args, lenghts=None)
