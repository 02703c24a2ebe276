"""Each call in the README's table of equations gives what a plain loop over its equation gives."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import tanh

from jaxrnn import RNNParams, rnn_states, rnn_step
from tests.helpers import BLOCKS, README, assert_close, numbers

SECTION = README.split("\n## Your equation here\n")[1].split("\n## ")[0]
CALLS = dict(re.findall(r"^\| ([^:|]+): .* \| `([^`]+)`[^`]* \|$", SECTION, re.MULTILINE))

# What the calls read, under the names that they use.
batch, n_steps, n_nodes, n_outputs, dt, leak = (2,), 7, 5, 2, 0.5, 0.3
wx, wh, b, readout, c = numbers((3, 5), (5, 5), (5,), (5, 3), (3,))
x, noise, target = numbers((2, 7, 3), (2, 7, 5), (2, 7, 2), seed=1)
h0, v0, m, n, logits = numbers((2, 5), (2, 5), (5, 2), (5, 2), (5,), seed=2)
tau, dts = (array + 2 for array in numbers((5,), (2, 7), seed=3))
holds, mask, done, exists = (array > 0 for array in numbers((2, 7, 5), (2, 7), (7, 2), (5, 5)))
tokens = np.array([[0, 2, 1, 1, 0, 2, 2], [1, 0, 0, 2, 1, 2, 0]])
sign = np.array([1.0, 1, 1, -1, -1])
params, backward = RNNParams(wx, wh, b), RNNParams(wx[::-1], wh.T, -b)


def g(h: Any) -> Any:
    return (h @ readout) ** 2


def loop(step: Callable[[Any, Any, int], Any], start: Any = None, x: Any = x) -> Any:
    """The states of all steps; `step` has the state before it, its input, and its number."""
    h, states = np.zeros((2, 5)) if start is None else start, []
    for t in range(7):
        h = step(h, x[:, t], t)
        states.append(h)
    return np.stack(states, axis=1)


def elman(wx: Any = wx, wh: Any = wh, b: Any = b, f: Any = tanh, x: Any = x) -> Any:
    return loop(lambda h, x_t, t: f(x_t @ wx + h @ wh + b), x=x)


def moved(share: Callable[[int], Any]) -> Any:
    """By a share of the way to the activation."""
    return loop(lambda h, x_t, t: h + share(t) * (tanh(x_t @ wx + h @ wh + b) - h))


def currents() -> Any:
    drive = x @ wx + b
    v = loop(lambda v, _, t: (1 - leak) * v + leak * (drive[:, t] + tanh(v) @ wh), v0)
    return np.concatenate([v0[:, None], v], axis=1)


def rollout() -> Any:
    """Steps first, from a state of its own at the beginning of each episode."""

    def step(h: Any, x_t: Any, t: int) -> Any:
        return tanh(x_t @ wx + np.where(done[t][:, None], 0, h) @ wh + b)

    return loop(step, h0).swapaxes(0, 1)


def without_features(g: Callable[[Any], Any]) -> Any:
    return loop(lambda h, _, t: tanh(g(h) @ wx + h @ wh + b), h0)


def least_squares() -> Any:
    """By the normal equations."""
    h = elman().reshape(14, 5)
    return np.linalg.solve(h.T @ h, h.T @ target.reshape(14, 2))


EXPECTED: dict[str, Callable[[], Any]] = {
    "Elman": elman,
    "rates": lambda: moved(lambda t: dt / tau),
    "leak learnt": lambda: moved(lambda t: 1 / (1 + np.exp(-logits))),
    "irregular times": lambda: moved(lambda t: 1 - np.exp(-dts[:, t, None] / tau)),
    "leak inside": lambda: loop(
        lambda h, x_t, t: tanh((1 - leak) * h + leak * (x_t @ wx + h @ wh + b))
    ),
    "currents": currents,
    "noise": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + h @ wh + b + noise[:, t])),
    "Dale's law": lambda: elman(wh=np.concatenate([abs(wh[:3]), -abs(wh[3:])])),
    "mask": lambda: elman(wh=wh * exists),
    "low rank": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + (h @ n) @ m.T / 5 + b)),
    "echo state": lambda: elman(wh=wh * (0.9 / max(abs(np.linalg.eigvals(wh))))),
    "its readout": least_squares,
    "embeddings": lambda: elman(x=np.eye(3)[tokens]),
    "zoneout": lambda: loop(
        lambda h, x_t, t: np.where(holds[:, t], h, tanh(x_t @ wx + h @ wh + b))
    ),
    "mask of steps": lambda: loop(
        lambda h, x_t, t: np.where(mask[:, t, None], tanh(x_t @ wx + h @ wh + b), h)
    ),
    "closed loop": lambda: without_features(g).swapaxes(0, 1),
    "linear closed loop": lambda: without_features(lambda h: h @ readout + c),
    "acting": lambda: rollout()[4],
    "learning from a rollout": rollout,
    "directions with activations of their own": lambda: np.concatenate(
        [elman(), elman(*backward, f=lambda a: np.maximum(a, 0), x=x[:, ::-1])[:, ::-1]], axis=-1
    ),
}


def call(name: str) -> Any:
    """What a call of the table gives in float64, with the names of this module."""
    names = {**globals(), "jax": jax, "jnp": jnp, "rnn_states": rnn_states, "rnn_step": rnn_step}
    (defined,) = (block for block in BLOCKS if "def currents" in block)
    exec(compile(defined, "README.md", "exec"), names)
    names |= {"f": jnp.tanh, "h": elman()}
    if name == "acting":
        names |= {"h_t": rollout()[3], "x_t": x[:, 4], "done_t": done[4]}
    if name == "learning from a rollout":
        names["x"] = x.swapaxes(0, 1)
    return eval(compile(CALLS[name], "README.md", "eval"), names)


def test_every_row_of_the_table_has_an_equation_here() -> None:
    assert len(re.findall(r"^\| (?!---)", SECTION, re.MULTILINE)) - 1 == len(CALLS)
    assert CALLS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_call_gives_what_the_equation_gives(name: str) -> None:
    expected = EXPECTED[name]()
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        assert_close(call(name), expected, 1e-11 if name == "its readout" else 1e-12)


def test_the_rates_behind_the_currents_may_start_anywhere() -> None:
    """As the README says: if the filter of the drive starts where these rates need it."""
    with jax.enable_x64(True):
        start, drive = v0 - h0 @ wh, x @ wx + b
        u = loop(lambda u, _, t: (1 - leak) * u + leak * drive[:, t], start)
        u = np.concatenate([start[:, None], u], axis=1)
        assert_close(rnn_states(RNNParams(None, wh, None), u, h0, leak=leak).a, currents(), 1e-12)
