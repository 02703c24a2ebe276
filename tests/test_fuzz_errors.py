"""Any bad call of any public function is told which argument is wrong."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrnn.testing.strategies import SIZES
from tests import bad_calls
from tests.bad_values import replaced

ENOUGH = max(200, settings().max_examples)


class BadCall(NamedTuple):
    """A call, the names of the arguments that are wrong, and how it is run."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    names: list[str]
    how: str


@st.composite
def bad(draw: st.DrawFn) -> BadCall:
    """Calls in which one argument or two are wrong."""
    calls = bad_calls.calls(draw(st.sampled_from(SIZES)))
    function = draw(st.sampled_from(list(calls)))
    arguments, faults = calls[function]
    names = []
    for place in draw(st.lists(st.sampled_from(list(faults)), min_size=1, max_size=2)):
        try:
            arguments = replaced(arguments, place, draw(st.sampled_from(faults[place])))
        except (AttributeError, IndexError, TypeError):
            continue  # the first fault has removed this place
        names.append([part for part in place if isinstance(part, str)][-1])
    how = draw(st.sampled_from(["plain", "in jit", "without jit"]))
    return BadCall(function, arguments, names, how)


@settings(max_examples=ENOUGH, deadline=timedelta(seconds=30))
@given(bad())
def test_bad_calls_are_told_what_is_wrong(call: BadCall) -> None:
    def run() -> Any:
        return call.function(**call.arguments)

    errors = (TypeError, ValueError, OverflowError)
    with jax.disable_jit(call.how == "without jit"), pytest.raises(errors) as told:
        jax.jit(run)() if call.how == "in jit" else run()
    notes = getattr(told.value, "__notes__", [])
    message = " ".join([str(told.value), *notes])
    assert any(re.search(rf"(?<!\w){name}(?!\w)", message) for name in call.names), message
