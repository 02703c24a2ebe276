"""`help(relations)` shows a bug that is caught, in the words that come."""

import inspect
import re
from typing import Any

import jax
import pytest

from jaxrnn.testing import relations
from jaxrnn.testing.relations import RELATIONS
from tests.test_readme import EXAMPLES

TEXT = inspect.getdoc(relations) or ""
# Of each relation that the text says does not hold, what it says of it.
SAID = {
    name: said
    for name, said in re.findall(r"^    (\w+): (.+)$", TEXT, flags=re.MULTILINE)
    if name in RELATIONS
}


def test_the_bug_of_the_help_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """By the relations that the text names, and by no other. Numbers vary with what is drawn."""
    assert f"    AssertionError: {len(SAID)} of {len(RELATIONS)} relations do not hold\n" in TEXT
    with_bug = EXAMPLES["jaxrnn.testing.relations"].replace("return new, new", "return new, h")
    names: dict[str, Any] = {}
    exec(with_bug, names)
    run, init = names["run"], names["init"]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        relations.check(run, init, without=SAID, max_examples=1)
        holding = capsys.readouterr().out
        assert holding == "".join(f"{name} holds\n" for name in RELATIONS if name not in SAID)
        failing = {name: RELATIONS[name] for name in SAID}
        with pytest.raises(AssertionError) as raised:
            relations.check(run, init, relations=failing, max_examples=30)

    message = without_numbers(str(raised.value))
    assert message.startswith("N of N relations do not hold\n\n")
    for name, said in SAID.items():
        assert f"\n{name}: {without_numbers(said)}\n" in message
    assert message.count("case=Case(params={'leak': array([") == len(SAID)


def without_numbers(text: str) -> str:
    return re.sub(r"-?\d[\d.e-]*", "N", text)
