"""`import jaxrnn` gives documented functions, and needs JAX and NumPy alone."""

import inspect
import subprocess
import sys
from importlib import metadata

import pytest

import jaxrnn


def test_public_names() -> None:
    assert sorted(jaxrnn.__all__) == jaxrnn.__all__
    for name in jaxrnn.__all__:
        assert getattr(jaxrnn, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", [name for name in jaxrnn.__all__ if name[0].islower()])
def test_options_are_keywords_and_arguments_may_be(name: str) -> None:
    kinds = inspect.Parameter
    for each in inspect.signature(getattr(jaxrnn, name)).parameters.values():
        optional = each.default is not kinds.empty and each.name != "h0"
        kind = kinds.KEYWORD_ONLY if optional else kinds.POSITIONAL_OR_KEYWORD
        assert each.kind in (kind, kinds.VAR_KEYWORD), each


def test_version_is_the_installed_one() -> None:
    assert metadata.version("jaxrnn") == jaxrnn.__version__


def test_import_needs_jax_and_numpy_alone() -> None:
    """Also that of the oracle. Without hypothesis the strategies' error names the extra."""
    script = """
import sys, jax
sys.modules["hypothesis"] = None
before = set(sys.modules)
import jaxrnn
print(*(set(sys.modules) - before))
import jaxrnn.testing.oracle
try:
    from jaxrnn.testing import strategies
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules, error = run.stdout.split("\n", 1)
    assert "jax.extend" not in modules.split()  # it takes three times as long as all of jaxrnn
    new = {name.split(".")[0] for name in modules.split()}
    assert new - {"jax", "numpy"} == {"jaxrnn"}
    assert "pip install 'jaxrnn[testing]'" in error
