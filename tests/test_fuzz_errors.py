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

ENOUGH = max(100, settings().max_examples)
ALL = bad_calls.calls(SIZES[-1])


class BadCall(NamedTuple):
    """A call, the names of the arguments that are wrong, and how it is run."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    names: list[str] = []  # noqa: RUF012
    how: str = "plain"

    def spoilt(self, place: tuple[Any, ...], value: Any) -> "BadCall":
        """The call with a wrong value in a place."""
        arguments = bad_calls.replaced(self.arguments, place, value)
        name = [part for part in place if isinstance(part, str)][-1]
        return self._replace(arguments=arguments, names=[*self.names, name])


def assert_told(call: BadCall) -> None:
    """The message or a note has the name of an argument that is wrong."""

    def run() -> Any:
        return call.function(**call.arguments)

    errors = (TypeError, ValueError, OverflowError)
    with jax.disable_jit(call.how == "without jit"), pytest.raises(errors) as told:
        jax.jit(run)() if call.how == "in jit" else run()
    notes = getattr(told.value, "__notes__", [])
    message = " ".join([str(told.value), *notes])
    assert any(re.search(rf"(?<!\w){name}(?!\w)", message) for name in call.names), message


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_every_wrong_value_is_told(function: Callable[..., Any]) -> None:
    arguments, faults = ALL[function]
    for place, values in faults.items():
        for value in values:
            assert_told(BadCall(function, arguments).spoilt(place, value))


@st.composite
def bad(draw: st.DrawFn) -> BadCall:
    """Calls of any sizes in which one argument or two are wrong."""
    calls = bad_calls.calls(draw(st.sampled_from(SIZES)))
    function = draw(st.sampled_from(list(calls)))
    arguments, faults = calls[function]
    how = draw(st.sampled_from(["plain", "in jit", "without jit"]))
    call = BadCall(function, arguments, how=how)
    # Of two arguments: a fault within a fault may be right again, or fail before it is seen.
    places = st.lists(
        st.sampled_from(list(faults)), min_size=1, max_size=2, unique_by=lambda place: place[0]
    )
    for place in draw(places):
        call = call.spoilt(place, draw(st.sampled_from(faults[place])))
    return call


@settings(max_examples=ENOUGH, deadline=timedelta(seconds=30))
@given(bad())
def test_bad_calls_are_told_what_is_wrong(call: BadCall) -> None:
    assert_told(call)
