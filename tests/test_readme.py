"""README.md and the public docstrings: their examples run, and the README's tables hold."""

import inspect
import re
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import interop
from jaxrnn.run import DEFAULTS
from jaxrnn.testing import oracle, relations, strategies
from tests.helpers import BLOCKS, README


def public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a public module offers, and the module itself."""
    names = getattr(module, "__all__", None) or [
        name
        for name, each in vars(module).items()
        if not name.startswith("_") and getattr(each, "__module__", None) == module.__name__
    ]
    inside = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    callables = {name: each for name, each in inside.items() if callable(each)}
    return {module.__name__: module} | callables


def example(documented: Any) -> str:
    """The code of a docstring: what is indented further than the text below `Example:`."""
    section = re.search(r"^Example:\n((?: .*\n?|\n)+)", inspect.getdoc(documented) or "", re.M)
    if section is None:
        return ""
    lines = [line for line in section[1].splitlines() if not re.match(r" {2}\S", line)]
    return dedent("\n".join(lines))


DOCUMENTED: dict[str, Any] = {}
for module in (jaxrnn, interop, oracle, relations, strategies):
    DOCUMENTED |= public(module)
EXAMPLES = {name: code for name, each in DOCUMENTED.items() if (code := example(each))}


def test_every_block_is_found() -> None:
    """None is marked in a way that the tests do not look for."""
    assert README.count("```") == 2 * len(re.findall(r"^```(?:python|sh)$", README, re.MULTILINE))
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block: str) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_example_is_found() -> None:
    """Each has code, and no docstring of the package has one that the tests pass over."""
    folder = Path(jaxrnn.__file__).parent
    sources = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert len(re.findall(r"^ *Examples?\b.*$", sources, re.MULTILINE)) == len(EXAMPLES) >= 30
    documented = public(jaxrnn) | public(interop)
    assert documented.keys() - EXAMPLES.keys() == {"jaxrnn", "jaxrnn.interop"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    assert re.search(r"\bassert|relation\(run, case\)|relations\.check\(", EXAMPLES[name])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(EXAMPLES[name], name, "exec"), {"__name__": "example"})


def test_the_defaults_of_options_are_those_declared() -> None:
    """That functions have these is in `test_options.py`."""
    rows = re.findall(r"^\| `(\w+)=([\w.]+)` \|", README, flags=re.MULTILINE)
    defaults = {name: eval(value, {"jnp": jnp}) for name, value in rows}
    assert defaults == DEFAULTS
