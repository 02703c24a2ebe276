"""The relations of `jaxrnn.testing` hold of right cells, and each finds the bugs that it is for."""

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxrnn import RNNParams, rnn_states
from jaxrnn.testing import relations, strategies
from jaxrnn.testing.relations import RELATIONS, RELATIONS_WITH_LENGTHS, Run
from jaxrnn.testing.strategies import Case
from tests.helpers import numbers, scanned
from tests.test_readme import EXAMPLES

pytestmark = pytest.mark.usefixtures("usual_promotion")

Step = Callable[[Any, Any, Any], Any]

_ARRAYS = numbers((3, 12), (4, 12), (12,), (4,), (3, 5, 3), (3, 4), seed=5)
_W, _U, _B, _LEAK, X, H0 = (array.astype(np.float32) for array in _ARRAYS)
CASE = Case({"w": _W, "u": _U / 2, "b": _B / 2, "leak": 0.5 + _LEAK / 4}, X, H0)


# Four cells. Only the GRU uses all columns of the parameters.


LEAKY = CASE._replace(params={name: array[..., :4] for name, array in CASE.params.items()})
VANILLA = LEAKY._replace(params={name: LEAKY.params[name] for name in ("w", "u", "b")})
GRU = CASE._replace(params={name: CASE.params[name] for name in ("w", "u", "b")})


def affine(p: Any, h: Any, x_t: Any) -> Any:
    return x_t @ p["w"] + h @ p["u"] + p["b"]


def vanilla(p: Any, h: Any, x_t: Any) -> Any:
    return jnp.tanh(affine(p, h, x_t))


def leaky(p: Any, h: Any, x_t: Any) -> Any:
    return h + p["leak"] * (jnp.tanh(affine(p, h, x_t)) - h)


def normalised(a: Any, axis: int) -> Any:
    return (a - a.mean(axis, keepdims=True)) / jnp.sqrt(a.var(axis, keepdims=True) + 1e-3)


def normed(p: Any, h: Any, x_t: Any, axis: int = -1) -> Any:
    return jnp.tanh(normalised(x_t @ p["w"] + h @ p["u"], axis) + p["b"])


def gru(p: Any, h: Any, x_t: Any) -> Any:
    of_x, of_h = (jnp.split(part, 3, axis=-1) for part in (x_t @ p["w"] + p["b"], h @ p["u"]))
    reset, update = jax.nn.sigmoid(of_x[0] + of_h[0]), jax.nn.sigmoid(of_x[1] + of_h[1])
    return (1 - update) * h + update * jnp.tanh(of_x[2] + reset * of_h[2])


run_vanilla, run_leaky, run_gru = map(scanned, (vanilla, leaky, gru))


def by_jaxrnn(params: Any, x: Any, h0: Any, lengths: Any = None, **options: Any) -> Any:
    """With a leak among the parameters, if there is one."""
    weights = RNNParams(params["w"], params["u"], params.get("b"))
    return rnn_states(weights, x, h0, leak=params.get("leak"), lengths=lengths, **options).h


ALONE = VANILLA._replace(x=X[0], h0=H0[0])
UNBIASED = VANILLA._replace(params={name: VANILLA.params[name] for name in ("w", "u")})
WIDE = ("effective", "differentiable", "float64")
# Right cells and sizes of which a relation once said that it does not hold


def rates(p: Any, h: Any, x_t: Any) -> Any:
    """In steps of 0.1 ms, with time constants in seconds."""
    return h + 1e-4 / p["tau"] * (jnp.tanh(affine(p, h, x_t)) - h)


def softmax_of_some(p: Any, h: Any, x_t: Any) -> Any:
    """With constants that are infinite, or beyond float32."""
    a = jnp.concatenate([jnp.minimum(affine(p, h, x_t), 1e300), h[..., :1]], axis=-1)
    some = np.arange(5) != 4
    return jax.nn.softmax(jnp.where(some, a, -jnp.inf), axis=-1)[..., :4] + h / 2


def lstm(p: Any, h: Any, x_t: Any) -> Any:
    """Of two nodes: the first half of the state is the cell, the second the output."""
    cell, out = jnp.split(h, 2, axis=-1)
    keep, write, show, new = jnp.split(affine(p, out, x_t), 4, axis=-1)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
    return jnp.concatenate([cell, jax.nn.sigmoid(show) * jnp.tanh(cell)], axis=-1)


def in_1e4ths(p: Any, h: Any, x_t: Any) -> Any:
    return 1e4 * vanilla(p, h / 1e4, x_t)


def nan_in_float32(p: Any, x: Any, *args: Any) -> Any:
    return by_jaxrnn(p, x, *args) * (1.0 if x.dtype == np.float64 else np.nan)


def turning(p: Any, h: Any, x_t: Any) -> Any:
    return jnp.tanh((affine(p, h, x_t) * jnp.exp(1j * p["b"])).real)


def logistic(p: Any, h: Any, x_t: Any) -> Any:
    """NaN where the exponential overflows."""
    e = jnp.exp(affine(p, h, x_t))
    return e / (1 + e)


def straight_through(p: Any, h: Any, x_t: Any) -> Any:
    """Rounded, with the derivative of what is not."""
    h = vanilla(p, h, x_t)
    return h + stopped(to_1024ths(h) - h)


def to_1024ths(a: Any) -> Any:
    return jnp.round(1024 * a) / 1024


stopped = jax.lax.stop_gradient


def with_params(**params: Any) -> Case:
    return VANILLA._replace(params=VANILLA.params | params)


SATURATED = with_params(b=np.array([-9.0, -1.0, 0.0, 9.0]))
LARGE = with_params(w=8 * _W[:, :4])
ONE_STEP = ALONE._replace(x=X[0, :1])
NO_STEP = VANILLA._replace(x=X[:, :0])
NO_SEQUENCE = VANILLA._replace(x=X[:0], h0=H0[:0])
NO_FEATURES = with_params(w=_W[:0, :4])._replace(x=X[..., :0])
EFFECTS = ("effective", "differentiable")
PADDED = ("padding_holds", "padding_is_unseen", "empty_is_absent")  # all in float64
HARD: list[tuple[Step, Case, Sequence[str]]] = [
    (rates, with_params(tau=np.full(4, 5e-4, np.float32)), ("forward_mode", "second_order")),
    (softmax_of_some, VANILLA, ("float64",)),
    (turning, VANILLA, ("float64",)),
    (lambda *args: jax.nn.relu(affine(*args)), ONE_STEP, EFFECTS),
    (lambda *args: jax.nn.relu(affine(*args)), SATURATED, EFFECTS),
    (lambda *args: jnp.clip(affine(*args), -1, 1), SATURATED, EFFECTS),
    (logistic, LARGE, EFFECTS),
    (in_1e4ths, VANILLA, ("forward_mode", "reverse_mode", "second_order")),
    (vanilla, with_params(b=1e-5 * _B[:4]), ("forward_mode", "second_order")),
    (lstm, with_params(w=_W[:, :8], u=_U[:2, :8], b=_B[:8]), EFFECTS),
    # Weights that are zero, which could be others, and a leak of one number.
    (vanilla, with_params(u=np.triu(_U[:, :4], 1)), EFFECTS),
    (leaky, with_params(leak=np.float32(0.2)), EFFECTS),
    (straight_through, VANILLA, (*EFFECTS, "reverse_mode")),
    (vanilla, with_params(w=200 * _W[:, :4]), EFFECTS),
    (vanilla, with_params(n_calls=np.int32(7), key=np.zeros(2, np.uint32)), EFFECTS),
    (vanilla, NO_STEP, ("runs_on", "repeatable", *EFFECTS)),
    (vanilla, NO_SEQUENCE, EFFECTS),
    (vanilla, NO_FEATURES, EFFECTS),
]


# All relations are checked on a gated cell in README.md, and on a module in test_interop.py.
RIGHT: list[tuple[Run, Case, Sequence[str]]] = [
    (scanned(normed), VANILLA, ("independent", "batch_axes", *WIDE)),
    (by_jaxrnn, VANILLA, tuple(RELATIONS)),
    (by_jaxrnn, LEAKY, ("runs_on", "causal", "float64")),
    (by_jaxrnn, ALONE, ("unordered", "batch_axes")),
    *((scanned(step), case, names) for step, case, names in HARD),
    (by_jaxrnn, LEAKY, tuple(RELATIONS_WITH_LENGTHS)),
    (by_jaxrnn, NO_STEP, ("full_is_effective",)),
    # Its padding is before its first step, and holds h0.
    (
        partial(by_jaxrnn, reverse=True),
        LEAKY,
        ("full_is_effective", "padded_is_alone", *PADDED[1:]),
    ),
    (nan_in_float32, VANILLA, ("batch_axes", "vmap", *PADDED)),
]
ALL = {**RELATIONS, **RELATIONS_WITH_LENGTHS}


@pytest.mark.parametrize(
    ("relation", "run", "case"), [(name, run, case) for run, case, names in RIGHT for name in names]
)
def test_no_false_alarm(relation: str, run: Run, case: Case) -> None:
    ALL[relation](run, case)


def test_no_length_is_above_the_number_of_steps() -> None:
    lengths, _ = relations._lengths(VANILLA._replace(x=np.zeros((4, 0, 3), np.float32)))
    assert lengths.tolist() == [0, 0, 0, 0]


# Bugs


def by_time(p: Any, x: Any, h0: Any) -> Any:
    """A leak that falls with the number of steps since the call began."""

    def step(p: Any, h: Any, x_t: Any) -> Any:
        return h + p["leak"] / (1 + x_t[..., -1:]) * (vanilla(p, h, x_t[..., :-1]) - h)

    return scanned(step)(p, with_clock(x), h0)


def with_clock(x: Any) -> Any:
    """Inputs beside the number of their step."""
    clock = jnp.broadcast_to(jnp.arange(x.shape[-2])[:, None], (*x.shape[:-1], 1))
    return jnp.concatenate([x, clock.astype(x.dtype)], axis=-1)


def states_before(p: Any, x: Any, h0: Any) -> Any:
    """Each state one step too late."""
    return jnp.concatenate([h0[..., None, :], run_vanilla(p, x, h0)[..., :-1, :]], axis=-2)


def no_last_step(p: Any, x: Any, h0: Any) -> Any:
    h = run_vanilla(p, x[..., :-1, :], h0)
    return jnp.concatenate([h, h[..., -1:, :]], axis=-2)


def dropout_by_one_key(p: Any, h: Any, x_t: Any) -> Any:
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, h.shape)
    return gru(p, jnp.where(keep, h, 0), x_t)


def rounded_state(p: Any, h: Any, x_t: Any) -> Any:
    """The derivative is 0 times another: NaN where that is."""
    h = logistic(p, h, x_t)
    return stopped(to_1024ths(h)) + 0 * h


def mutable_default(p: Any, x: Any, h0: Any, seen: list[Any] = []) -> Any:  # noqa: B006
    """The first state of this call is the last of the call before."""
    h = run_gru(p, x, seen[-1] if seen and not isinstance(x, jax.core.Tracer) else h0)
    if not isinstance(x, jax.core.Tracer):
        seen.append(h[..., -1, :])
    return h


def via(dtype: Any, a: Any) -> Any:
    """Cast to a narrower type and back."""
    return a.astype(dtype).real.astype(a.dtype)


RANDOM = np.random.default_rng(0)


def weakly_typed(p: Any, x: Any, h0: Any) -> Any:
    """Spikes by Python numbers: their type gives way to others, so the state is of another type."""
    h, states = h0, []
    for t in range(x.shape[-2]):
        h = jnp.where(affine(p, h, x[..., t, :]) > 0, 1.0, 0.0)
        states.append(h)
    return jnp.stack(states, -2)


def another_under_jit(p: Any, x: Any, h0: Any) -> Any:
    """What cannot be looked at is taken for zero."""
    is_zero = isinstance(h0, jax.core.Tracer) or not np.any(h0)
    return run_vanilla(p, x, jnp.zeros_like(h0) if is_zero else h0)


# Rules by hand


def by_slope(slope: Any) -> Step:
    """A vanilla step in which the derivative of tanh(a) is `slope(tanh(a))`."""
    tanh = jax.custom_jvp(lambda a: jnp.tanh(a))
    tanh.defjvps(lambda tangent, h, a: slope(h) * tangent)
    return lambda p, h, x_t: tanh(affine(p, h, x_t))


def by_rule(backward: Callable[..., Any]) -> Step:
    """A vanilla step whose gradients by p, h and x_t are put through `backward`."""

    @jax.custom_vjp
    def step(p: Any, h: Any, x_t: Any) -> Any:
        return vanilla(p, h, x_t)

    def forward(*args: Any) -> Any:
        return vanilla(*args), args

    def reverse(args: Any, g: Any) -> Any:
        return backward(*jax.vjp(vanilla, *args)[1](g))

    step.defvjp(forward, reverse)
    return step


def one_row(b: Any) -> Any:
    return {"b": jnp.full_like(b, b.mean())}


@jax.custom_batching.custom_vmap
def product_of_one_set(h: Any, u: Any) -> Any:
    return h @ u


@product_of_one_set.def_vmap
def _(size: int, batched: Any, h: Any, u: Any) -> Any:
    """Of all sets of weights, the first."""
    h, u = h if batched[0] else h[None], u[0] if batched[1] else u
    return jnp.broadcast_to(h @ u, (size, *h.shape[1:-1], u.shape[-1])), True


@jax.custom_vjp
def product(h: Any, u: Any) -> Any:
    return product_of_one_set(h, u)


product.defvjp(
    lambda *args: (product(*args), args), lambda args, g: jax.vjp(jnp.matmul, *args)[1](g)
)


def wrong_under_vmap(p: Any, h: Any, x_t: Any) -> Any:
    return jnp.tanh(x_t @ p["w"] + product(h, p["u"]) + p["b"])


def masked_late(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """The state holds in the padding, but gradients pass through the step not taken."""

    def step(p: Any, h: Any, x_t: Any) -> Any:
        return jnp.where(x_t[..., -1:] < lengths[..., None], gru(p, h, x_t[..., :-1]), h)

    return scanned(step)(p, with_clock(x), h0)


def from_the_padding(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """From the last step of the batch to the first, in place of the last of each sequence."""
    return run_gru(p, x[..., ::-1, :], h0)[..., ::-1, :]


def no_last_real_step(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    return by_jaxrnn(p, x, h0, jnp.maximum(lengths - 1, 0))


def cleared(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """Without inputs in the padding, but with the bias, which moves the state on."""
    return run_vanilla(p, jnp.where(real(x, lengths), x, 0), h0)


def real(x: Any, lengths: Any) -> Any:
    return (jnp.arange(x.shape[-2]) < lengths[..., None])[..., None]


def zero_in_the_padding(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    return jnp.where(real(x, lengths), by_jaxrnn(p, x, h0, lengths), 0)


def stopped_in_the_padding(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    h = by_jaxrnn(p, x, h0, lengths)
    return jnp.where(real(x, lengths), h, stopped(h))


def first_of_none(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """A sequence of no step has the state after the first."""
    return by_jaxrnn(p, x, h0, jnp.maximum(lengths, 1))


def by_length(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """Inputs divided by the length, which may be 0."""
    return by_jaxrnn(p, x / lengths[..., None, None].astype(x.dtype), h0, lengths)


def not_sorted_back(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """The longest sequences first, as to pack them, and left so."""
    order = jnp.argsort(-lengths, axis=0)
    return by_jaxrnn(p, x[order], h0[order], lengths[order])


def as_long_as_the_longest(p: Any, x: Any, h0: Any, lengths: Any) -> Any:
    """A mean over the steps that are real in some sequence, from all of which it takes."""
    real = jnp.arange(x.shape[-2]) < jnp.max(lengths)
    mean = jnp.sum(jnp.where(real[:, None], x, 0), axis=-2, keepdims=True) / x.shape[-2]
    return by_jaxrnn(p, x - mean, h0, lengths)


# Cells with a bug, by the relation that must find it.
STEPS: dict[str, dict[str, tuple[Step, Case]]] = {
    "independent": {
        "shared state": (lambda p, h, x: vanilla(p, h[:1], x), VANILLA),
        "normed over the batch": (partial(normed, axis=0), VANILLA),
    },
    "unordered": {"dropout by one key": (dropout_by_one_key, GRU)},
    # Axis 1 is that of the nodes, if there is one batch axis.
    "batch_axes": {
        "normed along axis 1": (partial(normed, axis=1), VANILLA),
        "mean over a second axis": (
            by_rule(lambda p, h, x: (p, h, x / len(x) if x.ndim > 2 else x)),
            VANILLA,
        ),
    },
    "vmap": {"wrong under vmap": (wrong_under_vmap, VANILLA)},
    "effective": {
        "no bias": (lambda p, h, x: gru({**p, "b": 0.0}, h, x), GRU),
        "no bias but NaN": (lambda p, h, x: logistic({**p, "b": 0.0}, h, x), LARGE),
        "no last feature": (lambda p, h, x: leaky(p, h, x.at[..., -1].set(0)), LEAKY),
        "node without effect": (
            lambda p, h, x: jnp.tanh(x @ p["w"] + h[..., :3] @ p["u"]),
            UNBIASED._replace(params=UNBIASED.params | {"u": _U[:3, :4]}),
        ),
        "no last row of the second": (
            lambda p, h, x: leaky(p | {"u": p["u"][0] + p["u"][1].at[3].set(0)}, h, x),
            LEAKY._replace(params=LEAKY.params | {"u": _U[:, :8].reshape(2, 4, 4)}),
        ),
        # The update gate in place of the reset gate, whose weights have no effect then.
        "one gate twice": (
            lambda p, h, x: gru({k: v[..., np.r_[4:8, 4:8, 8:12]] for k, v in p.items()}, h, x),
            GRU,
        ),
    },
    "differentiable": {
        "rounded state": (rounded_state, LARGE),
        "rounded node": (
            lambda p, h, x: vanilla(p, h.at[..., 3].set(to_1024ths(h[..., 3])), x),
            VANILLA,
        ),
        "rounded bias": (lambda p, h, x: vanilla(p | {"b": to_1024ths(p["b"])}, h, x), VANILLA),
    },
    "forward_mode": {
        "truncated": (lambda p, h, x: gru(p, stopped(h), x), GRU),
        "frozen leak": (lambda p, h, x: leaky(p | {"leak": stopped(p["leak"])}, h, x), LEAKY),
        "slope of other sign": (by_slope(lambda h: h**2 - 1), VANILLA),
        "linear slope": (by_slope(lambda h: 1 - h), VANILLA),
    },
    "reverse_mode": {
        "no term of h": (by_rule(lambda p, h, x: (p, jnp.zeros_like(h), x)), VANILLA),
        "half of x": (by_rule(lambda p, h, x: (p, h, x / 2)), VANILLA),
        "one row of bias": (by_rule(lambda p, h, x: (p | one_row(p["b"]), h, x)), VANILLA),
    },
    "second_order": {"once": (by_slope(lambda h: stopped(1 - h**2)), VANILLA)},
    "float64": {
        "rounded gradient": (by_rule(lambda p, h, x: (p, via(jnp.float32, h), x)), VANILLA),
        "float32 constant": (lambda p, h, x: h + np.float32(0.1) * (vanilla(p, h, x) - h), VANILLA),
        "float32 array": (lambda p, h, x: gru(p, h * jnp.full(4, 0.9, jnp.float32), x), GRU),
        "float32 inside": (lambda p, h, x: jnp.tanh(via(jnp.float32, affine(p, h, x))), VANILLA),
        "complex64 inside": (lambda p, h, x: turning(p, h, via(jnp.complex64, x)), VANILLA),
    },
}
RUNS: dict[str, dict[str, tuple[Run, Case]]] = {
    "runs_on": {"states before": (states_before, VANILLA), "by time": (by_time, LEAKY)},
    "causal": {
        "next input": (lambda p, x, h0: run_leaky(p, jnp.roll(x, -1, axis=-2), h0), LEAKY),
        # Inputs standardised over all steps, the future ones too.
        "over time": (lambda p, x, h0: run_vanilla(p, normalised(x, -2), h0), VANILLA),
    },
    "jit": {"another under jit": (another_under_jit, VANILLA)},
    "repeatable": {
        "mutable default": (mutable_default, GRU),
        "NumPy's noise": (lambda p, x, h0: run_leaky(p, x + RANDOM.normal(), h0), LEAKY),
        "weakly typed": (weakly_typed, VANILLA),
    },
    "effective": {
        "no h0": (lambda p, x, h0: run_gru(p, x, jnp.zeros_like(h0)), GRU),
        "no last step": (no_last_step, VANILLA),
    },
    "float64": {"float32 result": (lambda *args: run_vanilla(*args).astype("f"), VANILLA)},
    "padding_holds": {
        "cleared": (cleared, VANILLA),
        "zero in the padding": (zero_in_the_padding, VANILLA),
        "stopped in the padding": (stopped_in_the_padding, VANILLA),
        "first of none": (first_of_none, VANILLA),
    },
    "padding_is_unseen": {
        "masked late": (masked_late, GRU),
        "from the padding": (from_the_padding, GRU),
        "as long as the longest": (as_long_as_the_longest, VANILLA),
    },
    "full_is_effective": {"no last real step": (no_last_real_step, VANILLA)},
    "padded_is_alone": {"not sorted back": (not_sorted_back, LEAKY)},
    "empty_is_absent": {"by length": (by_length, LEAKY)},
}
BUGS = {
    bug: (run if of_runs is RUNS else scanned(run), case, relation)
    for of_runs in (STEPS, RUNS)
    for relation, bugs in of_runs.items()
    for bug, (run, case) in bugs.items()
}


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_found(bug: str) -> None:
    run, case, found_by = BUGS[bug]
    with pytest.raises(AssertionError, match=f"^{found_by}: "):
        ALL[found_by](run, case)


# The line for the impatient, and bad cases


def init(key: Any, n_features: int, n_nodes: int) -> Any:
    w = jax.random.normal(key, (n_features + n_nodes, n_nodes))
    return {"w": w[:n_features], "u": w[n_features:] / 2, "b": w[0], "n_calls": jnp.int32(7)}


def only(*names: str) -> Any:
    return {name: RELATIONS[name] for name in names}


SOME = only("causal", "forward_mode")


def test_check_says_which_relations_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters that one cannot differentiate by, here integers, are left as they are."""
    relations.check(run_vanilla, init, without=RELATIONS.keys() - SOME.keys(), max_examples=2)
    assert capsys.readouterr().out == "causal holds\nforward_mode holds\n"


@pytest.mark.parametrize("without", ["causal", ["casual"]])
def test_check_says_which_relations_there_are(without: Any) -> None:
    message = "without must be names of relations, which are causal, forward_mode, but is "
    with pytest.raises(ValueError, match=f"^{message}{re.escape(repr(without))}$"):
        relations.check(run_vanilla, init, relations=SOME, without=without)


@pytest.mark.parametrize("batch", [(), (1,)])
def test_check_draws_every_kind_of_batch(batch: tuple[int, ...]) -> None:
    """With three examples or more, whatever hypothesis draws."""
    options: Any = {"relations": only("batch_axes"), "max_examples": 3}
    with pytest.raises(AssertionError, match=r"batch_axes: h\["):
        relations.check(lambda *of: run_vanilla(*of) + (of[1].shape[:-2] == batch), init, **options)


def test_check_draws_more_steps_than_a_loop_may_be_unrolled_by() -> None:
    def step(p: Any, h: Any, x_t: Any) -> Any:
        return vanilla(p, jnp.where(x_t[..., -1:] % 8 == 7, stopped(h), h), x_t[..., :-1])

    run = lambda p, x, h0: scanned(step)(p, with_clock(x), h0)  # noqa: E731
    with pytest.raises(AssertionError, match=r"forward_mode: .* of h\[7, "):
        relations.check(run, init, relations=only("forward_mode"), max_examples=3)


@pytest.mark.parametrize("relation", ["jit", "vmap", "batch_axes"])
def test_nan_everywhere_is_told_as_such(relation: str) -> None:
    with pytest.raises(AssertionError, match=r"h\[.*\] must be finite, but is nan both .* and "):
        RELATIONS[relation](lambda *of: run_vanilla(*of) * np.nan, VANILLA)


def test_check_refuses_a_typed_key_by_name() -> None:
    expected = r"an array of numbers, such as jax.random.key_data\(key\)"
    with pytest.raises(TypeError, match=f"^params.key must be {expected}, but is .* key<fry>"):
        relations.check(run_vanilla, lambda key, *sizes: init(key, *sizes) | {"key": key})


def test_check_fails_with_all_that_do_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """A rule by `jax.custom_vjp` has no forward mode, which the message says beside JAX's error."""
    step = by_rule(lambda *gradients: gradients)
    sizes = st.just(strategies.Sizes((2,), 2, 1, 2))

    def run(params: Any, x: Any, h0: Any) -> Any:
        p = {"w": params.wx, "u": params.wh, "b": params.b}
        return scanned(step)(p, jnp.roll(x, -1, -2), h0)

    cases = strategies.cases_of(strategies.params(1, 2, bias=True), sizes=sizes)
    with pytest.raises(AssertionError) as raised:
        relations.check(run, cases, relations=SOME, max_examples=30)
    message = str(raised.value)
    for words in (
        "2 of 2 relations do not hold\n\ncausal: h[0, 0, 0] is ",
        "forward_mode: TypeError(",
        "\nrun has no forward mode, which forward_mode takes, as jax.custom_vjp makes",
        "check(run, cases, without=['forward_mode']) leaves forward_mode out.\n",
    ):
        assert words in message
    assert "float64" not in message
    assert message.count("case=Case(params=RNNParams(wx=") == 2  # the smallest that fails
    assert capsys.readouterr().out == "causal does not hold\nforward_mode does not hold\n"


def test_check_looks_anew_at_what_run_calls() -> None:
    """As in a notebook, where the step is put right, but `run` is not defined again."""
    runs = [lambda p, x, h0: run_vanilla(p, x, h0 + jnp.sum(h0))]

    def run(params: Any, x: Any, h0: Any) -> Any:
        return runs[0](params, x, h0)

    with pytest.raises(AssertionError, match="independent: h"):
        relations.check(run, init, relations=only("independent"), max_examples=1)
    runs[0] = run_vanilla
    relations.check(run, init, relations=only("independent"), max_examples=1)


def test_check_takes_a_large_network() -> None:
    sizes = st.just(strategies.Sizes((8,), 100, 16, 64))
    small = strategies.cases_of(lambda *of: jax.tree.map(lambda w: w / 8, init(*of)), sizes=sizes)
    relations.check(run_vanilla, small, relations=only("batch_axes"), max_examples=2)


def without_reverse_mode(p: Any, x: Any, h0: Any) -> Any:
    return run_vanilla(p, x, jax.lax.while_loop(lambda h: h[0, 0] > 9, jnp.tanh, h0))


@pytest.mark.parametrize("run", [lambda p, x, h0: x + h0, without_reverse_mode])
def test_check_adds_nothing_to_other_errors(run: Run) -> None:
    """Neither what JAX says of tracebacks nor that of float64: the error is that of every type."""
    with pytest.raises(AssertionError) as raised:
        relations.check(run, init, relations=only("reverse_mode"), max_examples=1)
    _, error, case = str(raised.value).split("\n\n", 2)
    assert re.fullmatch(r"reverse_mode: (Type|Value)Error\(.*\)", error)
    assert re.match(r"The smallest case of each:\n.*: holds\(\n.*case=Case\(", case)


def test_check_says_that_a_relation_is_in_float64() -> None:
    """A cell with a type of its own, as Flax's can have, fails inside the scan of `run`."""
    run = scanned(lambda p, h, x_t: vanilla(p, h, x_t).astype(jnp.float32))
    with pytest.raises(AssertionError, match="effective has the case in float64, so run must"):
        relations.check(run, init, relations=only("effective"), max_examples=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X[0, 0]}, "case.x must be (*batch, n_steps, n_features), but is of"),
        ({"x": X > 0}, "case.x must be an array of float32 or float64, but is of"),
        ({"h0": None}, "case.h0 must be (*batch, n_nodes), here (3,) and n_nodes"),
        ({"h0": H0[0]}, "case.h0 must be (*batch, n_nodes), here (3,) and n_nodes"),
    ],
)
def test_a_case_that_does_not_fit_is_refused(change: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        RELATIONS["causal"](run_gru, CASE._replace(**change))


@pytest.mark.parametrize("relation", RELATIONS)
def test_states_of_another_shape_are_refused(relation: str) -> None:
    with pytest.raises(AssertionError, match=f"^{relation}: h must be .*, here "):
        RELATIONS[relation](lambda p, x, h0: (x @ p["w"])[..., 0, :], VANILLA)


# `help(relations)` shows a bug that is caught, in the words that come

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

    relations.check(run, init, without=SAID, max_examples=1)
    holding = capsys.readouterr().out
    assert holding == "".join(f"{name} holds\n" for name in RELATIONS if name not in SAID)
    with pytest.raises(AssertionError) as raised:
        relations.check(run, init, relations=only(*SAID), max_examples=30)

    message = without_numbers(str(raised.value))
    assert message.startswith("N of N relations do not hold\n\n")
    for name, said in SAID.items():
        assert f"\n{name}: {without_numbers(said)}\n" in message
    assert message.count("case=Case(params={'leak': array([") == len(SAID)


def without_numbers(text: str) -> str:
    return re.sub(r"-?\d[\d.e-]*", "N", text)
