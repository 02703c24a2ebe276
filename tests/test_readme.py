"""The pages and the public docstrings: every block and every example runs."""

import inspect
import re
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

import jaxrnn
from bench.tables import PAGE, filled, read, tables
from jaxrnn import interop
from jaxrnn.inputs import DEFAULTS
from jaxrnn.testing import oracle, relations, strategies
from tests.helpers import BLOCKS, GALLERY, README


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


def fences(documented: Any) -> list[str]:
    """The code of a docstring below `Example:`, in fences that share names."""
    _, _, section = (inspect.getdoc(documented) or "").partition("\nExample:\n")
    found = re.findall(r"^  ```python\n(.*?)^  ```$", section, re.DOTALL | re.MULTILINE)
    return [dedent(code) for code in found]


DOCUMENTED: dict[str, Any] = {}
for module in (jaxrnn, interop, oracle, relations, strategies):
    DOCUMENTED |= public(module)
FENCES = {name: found for name, each in DOCUMENTED.items() if (found := fences(each))}
EXAMPLES = {name: "\n".join(found) for name, found in FENCES.items()}


def test_every_block_is_found() -> None:
    """None is marked in a way that the tests do not look for."""
    pages = README + GALLERY
    assert pages.count("```") == 2 * len(re.findall(r"^```(?:python|sh)$", pages, re.MULTILINE))
    assert len(BLOCKS) >= 4


def test_page_of_the_benchmark_has_its_tables() -> None:
    page = PAGE.read_text()
    assert page == filled(page, tables(read(PAGE.parent / "results" / "newest.jsonl")))


@pytest.mark.usefixtures("usual_promotion")
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_example_is_found() -> None:
    """Each has code, and no docstring of the package has one that the tests pass over."""
    folder = Path(jaxrnn.__file__).parent
    sources = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert len(re.findall(r"^ *Examples?\b.*$", sources, re.MULTILINE)) == len(EXAMPLES) >= 30
    assert sources.count("```") == 2 * sum(map(len, FENCES.values()))
    documented = public(jaxrnn) | public(interop)
    assert documented.keys() - EXAMPLES.keys() == {"jaxrnn", "jaxrnn.interop"}


def test_help_says_every_argument() -> None:
    """Or whose they are; and defaults print as one would write them."""
    for name, each in (public(jaxrnn) | public(interop) | public(oracle)).items():
        if inspect.isfunction(each):
            text, signature = inspect.getdoc(each) or "", inspect.signature(each)
            told = {*re.findall(r"^  \*{0,2}(\w+): ", text, re.MULTILINE)}
            told |= DEFAULTS.keys() if "**options: " in text else set()
            assert told >= signature.parameters.keys() or "\nArguments are those of `" in text, name
            assert " at 0x" not in str(signature), name


@pytest.mark.usefixtures("usual_promotion")
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    assert re.search(r"\bassert|relation\(run, case\)|relations\.check\(", EXAMPLES[name])
    exec(compile(EXAMPLES[name], name, "exec"), {"__name__": "example"})
