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

pytestmark = pytest.mark.usefixtures("usual_promotion")

SECTION = README.split("\n## Your equation here\n")[1].split("\n## ")[0]
CALLS = dict(re.findall(r"^\| ([^:|]+): .* \| `([^`]+)`[^`]* \|$", SECTION, re.MULTILINE))
CURRENTS = re.findall(r"`currents` is `([^`]+)`", SECTION.replace("\n", " "))

# What the calls read, under the names that they use.
batch, n_steps, n_nodes, dt, s, keep, washout, ridge = (2,), 7, 5, 0.5, 0.2, 0.6, 3, 0.1
wx, wh, b, readout, c = numbers((3, 5), (5, 5), (5,), (5, 3), (3,))
x, noise, z, target = numbers((2, 7, 3), (2, 7, 5), (2, 7, 5), (2, 7, 2), seed=1)
h0, v0, h_T, m, n = numbers((2, 5), (2, 5), (2, 5), (5, 2), (5, 2), seed=2)  # noqa: N816
tau, leak, dts = (array + 2 for array in numbers((5,), (5,), (2, 7), seed=3))
leak /= 4  # of each node
gains, gain, shift, logits = numbers((2, 5), (5,), (5,), (5,), seed=4)
holds, mask, done, exists = (array > 0 for array in numbers((2, 7, 5), (2, 7), (7, 2), (5, 5)))
keeps = np.array([[True, False, True, True, False], [False, True, True, False, True]])
periods = np.array([1, 1, 2, 3, 4])
tokens = np.array([[0, 2, 1, 1, 0, 2, 2], [1, 0, 0, 2, 1, 2, 0]])
sign = np.array([1.0, 1, 1, -1, -1])
params, backward = RNNParams(wx, wh, b), RNNParams(wx[::-1], wh.T, -b)
empty, xs = np.zeros((2, 7, 0)), (x.swapaxes(0, 1), noise.swapaxes(0, 1))


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


def moved(share: Callable[[int], Any], kept: Any = 1, added: Any = None, start: Any = None) -> Any:
    """By a share of the way to the activation, of inputs and a part of the states."""

    def step(h: Any, x_t: Any, t: int) -> Any:
        after = h + share(t) * (tanh(x_t @ wx + (h * kept) @ wh + b) - h)
        return after if added is None else after + added[:, t]

    return loop(step, start)


def currents(noise: Any) -> Any:
    def step(v: Any, x_t: Any, t: int) -> Any:
        return (1 - leak) * v + leak * (x_t @ wx + tanh(v) @ wh + b) + noise[:, t]

    return loop(step, v0)


def normalised(a: Any) -> Any:
    """Layer normalisation, with JAX's constant below the root."""
    centred = a - np.mean(a, axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    return tanh(gain * centred / deviation + shift)


def rollout() -> Any:
    """Steps first, from a state of its own at the beginning of each episode."""

    def step(h: Any, x_t: Any, t: int) -> Any:
        return tanh(x_t @ wx + np.where(done[t][:, None], 0, h) @ wh + b)

    return loop(step, h0).swapaxes(0, 1)


def without_features(g: Callable[[Any], Any], start: Any = h0) -> Any:
    return loop(lambda h, _, t: tanh(g(h) @ wx + h @ wh + b), start)


def before(states: Any, start: Any) -> Any:
    return np.concatenate([start[:, None], states[:, :-1]], axis=1)


def ridge_regression() -> Any:
    """By the normal equations; the intercept has no penalty."""
    h, y = elman()[:, washout:].reshape(8, 5), target[:, washout:].reshape(8, 2)
    h = np.concatenate([h, np.ones((8, 1))], axis=1)
    return np.linalg.solve(h.T @ h + ridge * np.diag([1.0, 1, 1, 1, 1, 0]), h.T @ y)


EXPECTED: dict[str, Callable[[], Any]] = {
    "Elman": elman,
    "rates": lambda: moved(lambda t: dt / tau),
    "currents": lambda: currents(0 * z),
    "rates of currents": lambda: tanh(currents(0 * z)),
    "noisy currents": lambda: currents(np.sqrt(2 * leak) * s * z),
    "noisy rates": lambda: moved(lambda t: leak, added=noise, start=h0).swapaxes(0, 1),
    "noise inside": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + h @ wh + b + noise[:, t])),
    "leak learnt": lambda: moved(lambda t: 1 / (1 + np.exp(-logits))),
    "irregular times": lambda: moved(lambda t: 1 - np.exp(-dts[:, t, None] / tau)),
    "leak inside": lambda: loop(
        lambda h, x_t, t: tanh((1 - leak) * h + leak * (x_t @ wx + h @ wh + b))
    ),
    "clockwork": lambda: loop(
        lambda h, x_t, t: np.where(t % periods == 0, tanh(x_t @ wx + h @ wh + b), h)
    ),
    "zoneout": lambda: loop(
        lambda h, x_t, t: np.where(holds[:, t], h, tanh(x_t @ wx + h @ wh + b))
    ),
    "mask of steps": lambda: loop(
        lambda h, x_t, t: np.where(mask[:, t, None], tanh(x_t @ wx + h @ wh + b), h)
    ),
    "recurrent dropout": lambda: loop(
        lambda h, x_t, t: tanh(x_t @ wx + np.where(keeps, h / keep, 0) @ wh + b)
    ),
    "dropout in all": lambda: moved(lambda t: leak * mask[:, t, None], keeps / keep),
    "layer normalisation": lambda: elman(f=normalised),
    "gain of each sequence": lambda: elman(f=lambda a: tanh(gains * a)),
    "Dale's law": lambda: elman(wh=np.concatenate([abs(wh[:3]), -abs(wh[3:])])),
    "mask": lambda: elman(wh=wh * exists),
    "low rank": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + (h @ n) @ m.T / 5 + b)),
    "embeddings": lambda: elman(x=np.eye(3)[tokens]),
    "echo state": lambda: elman(wh=wh * (0.9 / max(abs(np.linalg.eigvals(wh))))),
    "its readout": ridge_regression,
    "closed loop": lambda: without_features(g).swapaxes(0, 1),
    "free run": lambda: g(before(without_features(g, h_T), h_T)).swapaxes(0, 1),
    "linear closed loop": lambda: without_features(lambda h: h @ readout + c),
    "state before each step": lambda: before(elman(), h0),
    "acting": lambda: rollout()[4],
    "learning from a rollout": rollout,
    "direction with an activation of its own": lambda: elman(
        *backward, f=lambda a: np.maximum(a, 0), x=x[:, ::-1]
    )[:, ::-1],
}


def call(name: str) -> Any:
    """What a call of the table gives in float64, with the names of this module."""
    names = {**globals(), "jax": jax, "jnp": jnp, "rnn_states": rnn_states, "rnn_step": rnn_step}
    (defined,) = (block for block in BLOCKS if "def readout_of" in block)
    exec(compile(defined, "README.md", "exec"), names)
    names |= {"f": jnp.tanh, "h": elman(), "currents": eval(CURRENTS[0], names)}
    if name == "acting":
        names |= {"h_t": rollout()[3], "x_t": x[:, 4], "done_t": done[4]}
    if name == "learning from a rollout":
        names["x"] = x.swapaxes(0, 1)
    return eval(compile(CALLS[name], "README.md", "eval"), names)


def test_every_row_of_the_table_has_an_equation_here() -> None:
    assert len(re.findall(r"^\| (?!---)", SECTION, re.MULTILINE)) - 1 == len(CALLS)
    assert CALLS.keys() == EXPECTED.keys()


def check(name: str) -> None:
    expected = EXPECTED[name]()
    with jax.enable_x64(True):
        assert_close(call(name), expected, 1e-11 if name == "its readout" else 1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_call_gives_what_the_equation_gives(name: str) -> None:
    check(name)


@pytest.mark.parametrize(
    "name", [name for name in CALLS if re.search(r"\bleak\b(?!=)|\*\*currents", CALLS[name])]
)
def test_the_leak_may_be_one_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "leak", 0.3)
    check(name)


def test_all_sequences_may_start_from_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table says so, the states before the steps follow `h0` in either shape."""
    expected = before(elman(), np.tile(h0[0], (2, 1)))
    monkeypatch.setitem(globals(), "h0", h0[0])
    with jax.enable_x64(True):
        assert_close(call("state before each step"), expected, 0.0)
