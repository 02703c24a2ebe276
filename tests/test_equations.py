"""Each call of the pages' equations gives what a plain loop gives, with NaN in padding too."""

import ast
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import tanh

import jaxrnn
from jaxrnn import RNNParams, RNNStates, rnn_forward
from tests.helpers import EQUATIONS, README, assert_close, numbers

pytestmark = pytest.mark.usefixtures("usual_promotion")

RECIPE = re.compile(r"^# (.+?): .*\n(?:# .*\n)*((?:(?!```|# ).*\n)+)", re.MULTILINE)
RECIPES = dict(RECIPE.findall(EQUATIONS))

# What the calls read, under the names that they use.
batch, n_steps, n_nodes, n_pieces, dt, s, keep, washout, ridge = 2, 6, 5, 3, 0.5, 0.2, 0.6, 2, 0.1
wx, wh, b, readout, c = numbers((3, 5), (5, 5), (5,), (5, 3), (3,))
x, z, target, rollout = numbers((2, 6, 3), (2, 6, 5), (2, 6, 2), (6, 2, 3), seed=1)
h0, v0, h_T, m, n = numbers((2, 5), (2, 5), (2, 5), (5, 2), (5, 2), seed=2)  # noqa: N816
tau, leak, dts = (array + 2 for array in numbers((5,), (5,), (2, 6), seed=3))
leak /= 4  # of each node
leaks, gains, gain, shift, logits = numbers((2,), (2, 5), (5,), (5,), (5,), seed=4)
holds, mask, done, exists = (array > 0 for array in numbers((2, 6, 5), (2, 6), (6, 2), (5, 5)))
keeps = np.array([[True, False, True, True, False], [False, True, True, False, True]])
periods = np.array([1, 1, 2, 3, 4])
tokens = np.array([[0, 2, 1, 1, 0, 2], [1, 0, 0, 2, 1, 2]])
sign = np.array([1.0, 1, 1, -1, -1])
lengths = np.array([6, 4])
backward, k, sparse = RNNParams(wx[::-1], wh.T, -b), 3, wh * exists
x_t, h_t, done_t = rollout[4], h_T, done[4]


def g(h: Any) -> Any:
    return (h @ readout) ** 2


def loop(step: Callable[[Any, Any, int], Any], start: Any = None, x: Any = x) -> Any:
    """The states of all steps; `step` has the state before it, its input, and its number."""
    h, states = np.zeros((2, 5)) if start is None else start, []
    for t in range(n_steps):
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


def act(h: Any, x_t: Any, t: int) -> Any:
    """A step of a rollout, from a state of its own at the beginning of each episode."""
    return tanh(x_t @ wx + np.where(done[t][:, None], 0, h) @ wh + b)


def long_noise() -> Any:
    """As each piece of two steps draws it."""
    keys = jax.random.split(jax.random.key(1), 3)
    return np.concatenate([jax.random.normal(each, (2, 2, 5)) for each in keys], axis=1)


def last(states: Any) -> Any:
    return np.stack([states[0, 5], states[1, 3]])


def loss() -> Any:
    errors = (elman()[..., :2] - target) ** 2
    return (np.sum(errors[0]) + np.sum(errors[1, :4])) / 10


def without_features(g: Callable[[Any], Any], start: Any = h0) -> Any:
    return loop(lambda h, _, t: tanh(g(h) @ wx + h @ wh + b), start)


def before(states: Any, start: Any) -> Any:
    return np.concatenate([start[:, None], states[:, :-1]], axis=1)


def ridge_regression() -> Any:
    """By the normal equations of the real steps; the intercept has no penalty."""
    h, y = (np.concatenate([a[0, washout:], a[1, washout:4]]) for a in (elman(), target))
    h = np.concatenate([h, np.ones((6, 1))], axis=1)
    return np.linalg.solve(h.T @ h + ridge * np.diag([1.0, 1, 1, 1, 1, 0]), h.T @ y)


def relu(a: Any) -> Any:
    return np.maximum(a, 0)


def padded(array: Any, lengths: Any = lengths) -> Any:
    """The same array with NaN in the padding."""
    is_real = np.arange(6) < lengths[:, None]
    return np.where(is_real.reshape(2, 6, *[1] * (array.ndim - 2)), array, np.nan)


EXPECTED: dict[str, Callable[[], Any]] = {
    "Padding": lambda: tuple(np.nan_to_num(padded(a)) for a in (x, dts, z)),
    "Elman": elman,
    "Rates": lambda: moved(lambda t: dt / tau),
    "Currents": lambda: currents(0 * z),
    "Leaks of sequences": lambda: moved(lambda t: leaks[:, None]),
    "A leak that is learnt": lambda: moved(lambda t: 1 / (1 + np.exp(-logits))),
    "Irregular times": lambda: moved(lambda t: 1 - np.exp(-dts[:, t, None] / tau)),
    "Leak inside": lambda: loop(
        lambda h, x_t, t: tanh((1 - leak) * h + leak * (x_t @ wx + h @ wh + b))
    ),
    "Clockwork": lambda: moved(lambda t: t % periods == 0),
    "Mask of steps": lambda: moved(lambda t: mask[:, t, None]),
    "Layer normalisation": lambda: elman(f=normalised),
    "Gains of sequences": lambda: elman(f=lambda a: tanh(gains * a)),
    "The state before each step": lambda: before(moved(lambda t: 1, start=h0), h0),
    "Noise inside": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + h @ wh + b + s * z[:, t])),
    "Noisy currents": lambda: currents(np.sqrt(2 * leak) * s * z),
    "Noisy rates": lambda: moved(lambda t: leak, added=np.sqrt(2 * leak) * s * z, start=h0),
    "Long noisy runs": lambda: last(currents(np.sqrt(2 * leak) * s * long_noise())),
    "Recurrent dropout": lambda: moved(lambda t: 1, keeps / keep),
    "All dropout": lambda: moved(lambda t: leak * mask[:, t, None], keeps / keep),
    "Zoneout": lambda: moved(lambda t: ~holds[:, t]),
    "Low rank": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + (h @ n) @ m.T / 5 + b)),
    "Some nodes project": lambda: loop(lambda h, x_t, t: tanh(x_t @ wx + h[:, :k] @ wh[:k] + b)),
    "Sparse": lambda: elman(wh=wh * exists),
    "Dale's law": lambda: elman(wh=np.concatenate([abs(wh[:3]), -abs(wh[3:])])),
    "Mask": lambda: elman(wh=wh * exists),
    "Echo state": lambda: elman(wh=wh * (0.9 / max(abs(np.linalg.eigvals(wh))))),
    "Its readout": ridge_regression,
    "Embeddings": lambda: elman(x=np.eye(3)[tokens]),
    "Closed loop": lambda: without_features(g).swapaxes(0, 1),
    "Free run": lambda: g(before(without_features(g, h_T), h_T)).swapaxes(0, 1),
    "Linear closed loop": lambda: without_features(lambda h: h @ readout + c),
    "Directions that differ": lambda: np.concatenate(
        [elman(), elman(*backward, f=relu, x=x[:, ::-1])[:, ::-1]], axis=-1
    ),
    "Acting": lambda: act(h_t, x_t, 4),
    "Learning from a rollout": lambda: loop(act, h0, rollout.swapaxes(0, 1)).swapaxes(0, 1),
    "Layers that differ": lambda: elman(wh, wh.T, -b, relu, moved(lambda t: leak)),
    "Loss": loss,
}

# What a gradient is by, what has steps and may be NaN in the padding, and what takes no padding.
WEIGHTS = ("wx", "wh", "b", "leak", "tau", "logits", "gain", "shift", "m", "n")
OF_STEPS = ("x", "z", "target", "dts")
WITHOUT_PADDING = {"Closed loop", "Free run", "Linear closed loop", "Acting"}
WITHOUT_PADDING |= {"Learning from a rollout", "Padding"}


def call(name: str, **others: Any) -> Any:
    """What a call of the page gives, with the names of this module but for others."""
    names = globals() | vars(jaxrnn) | {"f": jnp.tanh, "key": jax.random.key(1)} | others
    names["h"] = elman()[:, : names["n_steps"]]
    if "mask[" in RECIPES[name]:
        names["x"] = np.where(names["mask"][..., None], names["x"], np.nan)
    names["params"] = params = RNNParams(names["wx"], names["wh"], names["b"])
    names["layers"] = params, backward._replace(wx=names["wh"])
    names["of_layers"] = {"leak": names["leak"]}, {"activation": jax.nn.relu}
    names["currents"] = {"activation": jax.nn.identity, "rate": jnp.tanh, "leak": names["leak"]}
    exec(compile(RECIPES[name], "README.md", "exec"), names)
    (result,) = ast.parse(RECIPES[name]).body[-1].targets
    return eval(ast.unparse(result), names)


def test_every_call_has_an_equation_here_and_the_first_page_shows_the_same() -> None:
    """No block calls the package outside the code that is compared here."""
    assert RECIPES.keys() == EXPECTED.keys()
    calls = re.compile(r"\b(?:rnn_\w+|mask_padding|lax\.scan|lstsq)\(")
    assert len(calls.findall(EQUATIONS.partition("\nimport optax")[0])) == sum(
        len(calls.findall(code)) for code in RECIPES.values()
    )
    shown = [each[0].strip() for each in RECIPE.finditer(README)]
    assert len(shown) == 6
    assert [each for each in shown if each not in EQUATIONS] == []


def check(name: str) -> None:
    with jax.enable_x64(True):
        result = call(name, target=padded(target))
        assert_close(result, EXPECTED[name](), 1e-11 if name == "Its readout" else 1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_call_gives_what_the_equation_gives(name: str) -> None:
    check(name)


@pytest.mark.parametrize(
    "name",
    [name for name, code in RECIPES.items() if re.search(r"\bleak\b(?!=)|\*\*currents", code)],
)
def test_the_leak_may_be_one_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "leak", 0.3)
    check(name)


def test_all_sequences_may_start_from_one_state() -> None:
    """Where the page says so, the states before the steps follow `h0` in either shape."""
    expected = before(moved(lambda t: 1, start=h0[:1]), np.tile(h0[0], (2, 1)))
    with jax.enable_x64(True):
        assert_close(call("The state before each step", h0=h0[0]), expected, 1e-12)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in WITHOUT_PADDING])
def test_nothing_in_the_padding_reaches_a_value_or_a_gradient(name: str) -> None:
    """All is NaN behind the fourth step; expected is what sequences of four steps give."""
    lengths, of_steps = np.array([4, 4]), {each: globals()[each] for each in OF_STEPS}
    cut = {each: globals()[each][:, :4] for each in (*OF_STEPS, "mask", "holds", "tokens")}
    with_nan = {each: padded(array, lengths) for each, array in of_steps.items()}
    functions = {
        each: partial(getattr(jaxrnn, each), lengths=lengths)
        for each in ("rnn_states", "rnn_forward")
    }

    def value(others: Any, weights: Any) -> Any:
        out = call(name, lengths=lengths, **weights, **others)
        return jnp.sum(jnp.sin(out[:, :4] if out.ndim == 3 else out))

    weights = {each: globals()[each] for each in WEIGHTS}
    with jax.enable_x64(True):
        masked = zip(("x", "dts", "z"), call("Padding", lengths=lengths, **with_nan), strict=True)
        result, expected = (
            jax.jit(jax.value_and_grad(partial(value, others)))(weights)
            for others in (with_nan | dict(masked) | functions, cut | {"n_steps": 4, "n_pieces": 2})
        )
    assert jax.tree.all(jax.tree.map(lambda a: np.all(np.isfinite(a)), expected))
    assert_close(result, expected, 1e-12)


def test_long_noisy_runs_need_little_memory() -> None:
    """Beside the same with all noise at once, from little memory itself by `checkpoint_every`."""
    sizes = {"x": np.zeros((8, 200, 3)), "v0": np.zeros((8, 5)), "n_steps": 200, "n_pieces": 10}

    def whole(*args: Any, **options: Any) -> Any:
        return RNNStates(None, rnn_forward(*args, checkpoint_every=14, **options))

    def temporary_bytes(name: str, **others: Any) -> int:
        def value(wh: Any, key: Any) -> Any:
            z = jax.random.normal(key, (8, 200, 5))
            return jnp.sum(
                call(name, wh=wh, key=key, z=z, lengths=np.full(8, 200), **sizes, **others)
            )

        compiled: Any = jax.jit(jax.grad(value)).lower(wh, jax.random.key(1)).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    with jax.enable_x64(True):
        at_once = temporary_bytes("Noisy currents", rnn_states=whole)
        assert temporary_bytes("Long noisy runs") < at_once / 3
