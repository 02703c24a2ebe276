"""`import jaxrnn` gives documented functions, and needs JAX and NumPy alone."""

import ast
import copy
import inspect
import pickle
import pydoc
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxrnn


def test_public_names_and_version() -> None:
    assert metadata.version("jaxrnn") == jaxrnn.__version__
    assert sorted(jaxrnn.__all__) == jaxrnn.__all__
    for name in jaxrnn.__all__:
        documented = jaxrnn.init_params if name == "LEARNABLE" else getattr(jaxrnn, name)
        assert documented.__doc__, f"{name} has no docstring"
    assert "`LEARNABLE` is" in (jaxrnn.init_params.__doc__ or "")


@pytest.mark.parametrize("name", [name for name in jaxrnn.__all__ if name[0].islower()])
def test_options_are_keywords_and_arguments_may_be(name: str) -> None:
    kinds = inspect.Parameter
    for each in inspect.signature(getattr(jaxrnn, name)).parameters.values():
        optional = each.default is not kinds.empty and each.name != "h0"
        kind = kinds.KEYWORD_ONLY if optional else kinds.POSITIONAL_OR_KEYWORD
        assert each.kind in (kind, kinds.VAR_KEYWORD), each


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


def test_nothing_is_checked_by_an_assert_statement() -> None:
    """`python -O` leaves these out, and would find no bug with the relations or the oracle."""
    for path in Path(jaxrnn.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)], path


def test_functions_are_functions() -> None:
    """For `jax.jit`, pickle, help, and classes that have them as attributes."""
    params, x = jaxrnn.init_params(jax.random.key(0), 3, 4), jnp.ones((5, 3))
    run: Any = jaxrnn.rnn_forward
    mapped: Any = jax.jit(jax.vmap(run, in_axes=(None, 0)))
    assert mapped.trace(params, x[None]).out_info.shape == (1, 4)
    assert pickle.loads(pickle.dumps(run)) is copy.deepcopy(run) is run

    class Model:
        last = run

    assert Model.last is run
    assert Model().last.__func__ is run
    assert "checkpoint_every=None" in pydoc.render_doc(run)
