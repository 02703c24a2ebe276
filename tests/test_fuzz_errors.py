"""Any bad call of any public function is told which argument is wrong."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrnn.testing.strategies import SIZES
from tests import bad_calls

ENOUGH = max(100, settings().max_examples)
ALL = bad_calls.calls(SIZES[-1])


def assert_told(function: Any, arguments: Any, spoilt: Any, how: str = "plain") -> None:
    """The message or a note has the name of an argument that has a wrong value in its place."""
    for place, value in spoilt.items():
        arguments = bad_calls.replaced(arguments, place, value)
    names = [[part for part in place if isinstance(part, str)][-1] for place in spoilt]
    errors = (TypeError, ValueError, OverflowError)
    run: Any = partial(function, **arguments)
    run = jax.jit(run) if how == "in jit" else run
    with jax.disable_jit(how == "without jit"), pytest.raises(errors) as told:
        run()
    message = " ".join([str(told.value), *getattr(told.value, "__notes__", [])])
    assert any(re.search(rf"(?<!\w){name}(?!\w)", message) for name in names), message


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_every_wrong_value_is_told(function: Callable[..., Any]) -> None:
    arguments, faults = ALL[function]
    for place, values in faults.items():
        for value in values:
            assert_told(function, arguments, {place: value})


@settings(max_examples=ENOUGH, deadline=timedelta(seconds=30))
@given(data=st.data())
def test_bad_calls_are_told_what_is_wrong(data: st.DataObject) -> None:
    """Of any sizes, in which one argument or two are wrong."""
    calls = bad_calls.calls(data.draw(st.sampled_from(SIZES)))
    function = data.draw(st.sampled_from(list(calls)))
    arguments, faults = calls[function]
    # Of two arguments: a fault within a fault may be right again, or fail before it is seen.
    places = st.lists(
        st.sampled_from(list(faults)), min_size=1, max_size=2, unique_by=lambda p: p[0]
    )
    spoilt = {place: data.draw(st.sampled_from(faults[place])) for place in data.draw(places)}
    how = data.draw(st.sampled_from(["plain", "in jit", "without jit"]))
    assert_told(function, arguments, spoilt, how)
