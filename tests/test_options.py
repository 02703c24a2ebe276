"""An option that is declared is known wherever it must be: signatures, README, oracle, rule, ..."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, settings

from jaxrnn import rnn_bidirectional, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.inputs import DEFAULTS, Options
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES
from tests.helpers import README, own_tanh
from tests.test_errors import FAULTS
from tests.test_plan import EXACT, Row

NAMES = DEFAULTS.keys()

# How a result is computed, which an oracle need not know.
WITHOUT_EFFECT = {"checkpoint_every", "unroll"}


def test_the_record_and_the_signatures_have_the_same_options() -> None:
    assert Options.__annotations__.keys() == NAMES
    for function in (rnn_forward, rnn_states, rnn_bidirectional, rnn_stacked):
        parameters = inspect.signature(function).parameters
        given = {name: parameters[name].default for name in NAMES}
        defaults = {name: getattr(each, "func", each) for name, each in given.items()}
        assert defaults == DEFAULTS


def test_the_table_of_the_readme_has_each_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)=([\w.]+)` \|", README, flags=re.MULTILINE)
    assert {name: eval(value, {"jnp": jnp}) for name, value in rows} == DEFAULTS


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


KINDS: dict[str, Callable[[Row], Any]] = {
    "by the rule": lambda row: row.options.get("activation") not in (own_tanh, jax.nn.silu),
    "by JAX's own derivative": lambda row: row.options.get("activation") in (own_tanh, jax.nn.silu),
    "in pieces": lambda row: row.options.get("checkpoint_every", 9) < row.n_steps,
    "in layers": lambda row: row.directions,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_is_compared_with_the_oracle_however_the_recurrence_is_run(kind: Any) -> None:
    compared = {name for row in EXACT.values() if kind(row) for name in row.options}
    assert compared == NAMES
