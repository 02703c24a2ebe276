"""README.md: its code blocks run, and what it says of them is so."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrnn import rnn_forward, rnn_states

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_every_block_is_found() -> None:
    """None is hidden from the tests by another way to mark it, and a reader can copy each."""
    assert README.count("```") == 2 * len(re.findall(r"^```(?:python|sh)$", README, re.MULTILINE))
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block: str) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("function", [rnn_forward, rnn_states])
def test_options_and_their_defaults_are_the_functions(function: object) -> None:
    rows = re.findall(r"^\| `(\w+)=([\w.]+)` \|", README, flags=re.MULTILINE)
    defaults = {name: eval(value, {"jnp": jnp}) for name, value in rows}
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert defaults == {
        name: each.default for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY
    }
