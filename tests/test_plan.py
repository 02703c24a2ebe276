"""The table of calls: each has the plan that it should, and gives what the oracle and JAX say.

That is its values, its gradients, and its derivatives in every mode and order, under every option.
On GPUs a step has at most one matrix product.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import identity, relu, sigmoid, silu, softplus
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxrnn import RNNParams, plan, rnn_stacked
from jaxrnn.arguments import prepare_run
from jaxrnn.inputs import DEFAULTS
from jaxrnn.plan import PLAIN, Plan, plan_derivative, plan_for
from tests.compiled import n_products, products_in_loops
from tests.helpers import (
    IS_LONG,
    KNOWN,
    WAYS,
    assert_close,
    curved,
    every_value,
    numbers,
    of_jax,
    of_oracle,
    own_tanh,
    two_rates,
)


class Row(NamedTuple):
    """A call, and its plan.

    Attributes:
      plan: what is expected; None where only the results are looked at.
      batch: the sizes of the batch axes.
      n_steps: how many steps there are.
      n_nodes: how many nodes there are.
      options: those of `rnn_forward`. Of `leak` and `reset_to` it has the shape, and True of
        `lengths` and `resets`.
      symbols: the shapes of x and h0, where some sizes are symbolic.
      backend: what JAX says it runs on.
      axis: the type of an axis of a mesh that shares the batch.
      dtype: of all arrays.
      n_features: how many features there are; None for no `wx`.
      n_rates: how many entries the rate returns; None as many as there are nodes.
      directions: of each layer; None for one network, of which the pre-activations are known too.
    """

    plan: Any
    batch: tuple[int, ...] = (2, 3)
    n_steps: int = 6
    n_nodes: int = 4
    options: Any = MappingProxyType({})
    symbols: tuple[str, str] | None = None
    backend: str = "cpu"
    axis: AxisType | None = None
    dtype: Any = np.float64
    n_features: int | None = 3
    n_rates: int | None = None
    directions: tuple[int, ...] | None = None


# In place of those of jaxrnn, so that the calls can be small.
LIMITS: dict[str, Any] = {"FEW_STEPS": 3, "SOME_STEPS": 4, "SOME_NODES": 2}
ON_CPU = {"cpu": plan.BACKENDS["cpu"]._replace(steps_of_one_segment=4)}
LIMITS |= {"STEPS_OF_ONE_SEGMENT": 5, "BACKENDS": plan.BACKENDS | ON_CPU}
# By the rule: one sequence, a batch, and one so small that its products are sums.
SINGLE, BATCH = Plan(by_rule=True), Plan(by_rule=True, at_once=True)
SMALL = BATCH._replace(as_sums=True)
SUMS, BATCHED = SMALL._replace(segment=2), BATCH._replace(segment=2)
FIRST: Any = {"inputs_first": True}
SHARED: Any = {"segment": None, "at_once": True, "shared": True}
FIRST_8 = PLAIN._replace(inputs_first=True, unroll=8)
EIGHT = Plan(unroll=8)
FEW_ON_TPU = FIRST_8._replace(for_tpu=True, derivative=EIGHT)
ON_TPU = BATCH._replace(for_tpu=True, inputs_first=True)
ON_GPU = BATCH._replace(inputs_first=True, unroll=8)
STEPS, OF_ONE = ("_, _, n_steps, _", "..."), ("n_steps, _", "...")
LEAK, OWN = {"leak": (1,)}, {"activation": own_tanh}
UNROLL = {"unroll": 3, "reverse": True}
BY_RATE: Any = {"activation": identity, "rate": jnp.tanh}
CURRENTS = BY_RATE | LEAK
ROWS = {
    "few steps": Row(PLAIN, n_steps=3),
    "few steps, a batch of one": Row(Plan(squeezed=(0,)), (1,), n_steps=3),
    "few steps on a GPU": Row(Plan(unroll=8), n_steps=3, backend="gpu"),
    "some steps": Row(SMALL._replace(at_once=False), n_steps=4),
    "some steps, shared": Row(SMALL._replace(**SHARED), n_steps=4, axis=AxisType.Explicit),
    "some steps of many nodes": Row(BATCH, n_steps=4, n_nodes=25),
    "few nodes": Row(SMALL._replace(at_once=False), n_nodes=1),
    "steps of one segment": Row(SMALL, n_steps=5),
    "own activation": Row(Plan(own_tanh), (1,), options=OWN),
    "own activation, unroll": Row(Plan(own_tanh, reverse=True, unroll=3), options=OWN | UNROLL),
    "one sequence": Row(SINGLE, ()),
    "a batch of one": Row(Plan(squeezed=(0, 1), by_rule=True), (1, 1)),
    "one sequence, leak": Row(PLAIN, (), options=LEAK),
    "a batch of one, leak": Row(Plan(squeezed=(0,)), (1,), options=LEAK),
    "one sequence, symbolic steps": Row(SINGLE, (), symbols=OF_ONE),
    "one sequence, symbolic steps, leak": Row(PLAIN, (), options=LEAK, symbols=OF_ONE),
    "one sequence on a GPU": Row(
        SINGLE._replace(**FIRST, at_once=True, unroll=8), (), backend="gpu"
    ),
    "long": Row(SINGLE._replace(segment=64), (), 4096, 2),
    "long, a batch of one, leak": Row(
        Plan(squeezed=(0,), by_rule=True, segment=64), (1,), 4096, 2, options=LEAK
    ),
    "small": Row(SUMS),
    "small, prime steps, leak": Row(SUMS, (2,), 7, options=LEAK),
    "small, an axis of one": Row(SUMS._replace(squeezed=(0,)), (1, 2)),
    "small, symbolic steps": Row(SUMS._replace(segment=None, at_once=False), symbols=STEPS),
    "small on a GPU, unroll": Row(ON_GPU._replace(unroll=1), options={"unroll": 1}, backend="gpu"),
    "long on a GPU": Row(ON_GPU._replace(segment=64), (2,), 4096, 2, backend="gpu"),
    "one sequence on a GPU, leak": Row(
        FIRST_8._replace(squeezed=(0,)), (1,), options=LEAK, backend="gpu"
    ),
    "small, bfloat16": Row(BATCHED, dtype=jnp.bfloat16),
    "small, shared": Row(SUMS._replace(**SHARED), axis=AxisType.Explicit),
    "a batch of one, shared": Row(SUMS._replace(**SHARED), (1,), axis=AxisType.Explicit),
    "small, symbolic batch": Row(BATCHED, symbols=("n, ...", "n, ...")),
    "large": Row(BATCHED, n_nodes=25),
    "large, leak": Row(BATCHED, n_nodes=25, options=LEAK),
    "large, prime steps": Row(BATCHED, (2,), 7, 50),
    "large, symbolic steps": Row(BATCH._replace(at_once=False), n_nodes=25, symbols=STEPS),
    "large, symbolic steps on a GPU": Row(
        BATCH._replace(**FIRST, at_once=False), n_nodes=25, symbols=STEPS, backend="gpu"
    ),
    "own rate": Row(Plan(rate=own_tanh), options={"rate": own_tanh}),
    "small, currents": Row(SUMS._replace(**BY_RATE), options=CURRENTS),
    "large, currents": Row(BATCHED._replace(**BY_RATE), n_nodes=25, options=CURRENTS),
    "one sequence, rate": Row(SINGLE._replace(rate=jnp.tanh), (), options={"rate": jnp.tanh}),
    "large on a GPU": Row(ON_GPU, n_nodes=25, backend="gpu"),
    "few steps on a TPU": Row(FEW_ON_TPU, n_steps=3, backend="tpu"),
    "own activation on a TPU": Row(
        FIRST_8._replace(activation=own_tanh), options=OWN, backend="tpu"
    ),
    "one sequence on a TPU": Row(FEW_ON_TPU, (), backend="tpu"),
    "a batch of one on a TPU": Row(
        FEW_ON_TPU._replace(squeezed=(0,), derivative=EIGHT._replace(squeezed=(0,))),
        (1,),
        backend="tpu",
    ),
    "few rows on a TPU, leak": Row(
        ON_TPU._replace(added_rows=5), n_nodes=25, options=LEAK, backend="tpu"
    ),
    "many rows on a TPU, reverse": Row(
        ON_TPU._replace(reverse=True), (8,), options={"reverse": True}, backend="tpu"
    ),
    "many rows on a TPU, unroll": Row(
        PLAIN._replace(**FIRST, unroll=3, reverse=True), (8,), options=UNROLL, backend="tpu"
    ),
    "large, shared": Row(BATCHED._replace(**SHARED), n_nodes=25, axis=AxisType.Auto),
    "shared, on a TPU": Row(
        ON_TPU._replace(shared=True), (2, 5), axis=AxisType.Explicit, backend="tpu"
    ),
    "a batch of one that may be shared, on a TPU": Row(
        ON_TPU._replace(squeezed=(0,), shared=True), (1,), axis=AxisType.Auto, backend="tpu"
    ),
    "shared, on a TPU, unroll": Row(
        ON_GPU._replace(shared=True, unroll=3, reverse=True),
        (2, 5),
        options=UNROLL,
        axis=AxisType.Explicit,
        backend="tpu",
    ),
    "shared, on a TPU, leak": Row(
        ON_TPU._replace(shared=True), options=LEAK, axis=AxisType.Explicit, backend="tpu"
    ),
    "symbolic batch on a TPU": Row(FIRST_8, symbols=("n, ...", "n, ..."), backend="tpu"),
}


# Calls with options, whatever their plan.


def call(masks: Any, sizes: Any = MappingProxyType({}), **options: Any) -> Row:
    return Row(None, options={**masks, **options}, **sizes)


MASKS = {"lengths": True, "resets": True, "reset_to": (2, 3, 4)}
TURNED = MASKS | {"reset_to": (4,), "reverse": True}
THREE, FEW = {"batch": (3,), "n_steps": 7}, {"batch": (3,), "n_steps": 3}
ON_TPU_3, ON_TPU_8 = THREE | {"backend": "tpu"}, {"batch": (8,), "n_steps": 5, "backend": "tpu"}
NO_WX, FULL_LEAK = THREE | {"n_features": None}, (3, 7, 4)
CALLS = {
    "lengths, one piece": call({}, lengths=True, checkpoint_every=7),
    "resets": call({}, resets=True, reset_to=(4,), reverse=True),
    "masks": call(MASKS),
    "masks, relu": call(TURNED, activation=relu),
    "masks, silu": call(TURNED, activation=silu, reset_to=(2, 3, 4)),
    "masks, silu, pieces": call(TURNED, activation=silu, checkpoint_every=5),
    "masks, pieces": call(TURNED, checkpoint_every=5, unroll=2),
    "masks, pieces of one": call(MASKS, checkpoint_every=1),
    "masks, few steps": call(TURNED, FEW, reset_to=(3, 4)),
    "leak": call(MASKS, THREE, leak=FULL_LEAK, reset_to=(4,)),
    "leak, no wx": call(TURNED, NO_WX, leak=(4,)),
    "leak of steps, no wx, relu": call(MASKS, NO_WX, activation=relu, leak=(7, 1), reset_to=(4,)),
    "leak of sequences, sigmoid": call(TURNED, THREE, activation=sigmoid, leak=(3, 1, 1)),
    "leak, no wx, silu": call(TURNED, NO_WX, activation=silu, rate=silu, leak=FULL_LEAK),
    "one leak, few steps": call(TURNED, FEW, leak=()),
    "rate": call(MASKS, rate=jnp.tanh),
    "currents, relu": call(TURNED, THREE, activation=identity, rate=relu, leak=FULL_LEAK),
    "currents, no wx": call({}, NO_WX, activation=identity, rate=relu, leak=()),
    "low rank": call(TURNED, {"n_rates": 2}, rate=two_rates, leak=(4,), checkpoint_every=4),
    "masks on a TPU": call(MASKS, ON_TPU_3 | {"batch": (2, 3)}, reset_to=(2, 3, 4)),
    "leak of steps on a TPU": call(TURNED, ON_TPU_3, leak=FULL_LEAK),
    "leak, no wx on a TPU": call(MASKS, ON_TPU_3 | {"n_features": None}, leak=(), reset_to=()),
    "currents on a TPU": call(TURNED, ON_TPU_8, activation=identity, rate=relu, leak=(8, 5, 1)),
    "one sequence, masks on a TPU": call(TURNED, ON_TPU_3 | {"batch": ()}, leak=(4,)),
    "layers on a TPU": call(MASKS, ON_TPU_3 | {"directions": (2, 1)}, leak=(1,), reset_to=()),
    "no features": Row(None, (4,), 9, 64, n_features=0),
    "no sequences": Row(None, (0,), 9, 64),
    "softplus": call({}, activation=softplus, rate=sigmoid),
    "layers": call(MASKS, {"directions": (1, 2, 1)}, leak=(2, 3, 6, 1)),
    "layers, currents": call(MASKS, {"directions": (2, 1)}, **CURRENTS),
    "layers, silu": call(
        TURNED, {"directions": (2,)}, activation=silu, checkpoint_every=4, unroll=2
    ),
}


def network(row: Row, n_features: int | None, seed: int = 0) -> RNNParams[Any]:
    n, n_rates = row.n_nodes, row.n_rates or row.n_nodes
    wx, wh, b = numbers((n_features or 0, n), (n_rates, n), (n,), seed=seed)
    return RNNParams(None if n_features is None else wx / 2, wh / n**0.5, b / 2)


def arguments(row: Row) -> Any:
    """The arrays to differentiate by: all parameters by name, x, and h0."""
    n, steps, first = row.n_nodes, (*row.batch, row.n_steps), dict[str, Any]()
    x, h0 = numbers((*steps, n if row.n_features is None else row.n_features), (*row.batch, n))
    if row.directions is None:
        first["params"] = network(row, row.n_features)
    else:
        sizes = [3, *(n * n_directions for n_directions in row.directions)]
        pairs = [
            tuple(network(row, size, seed) for seed in (i, i + 9)) for i, size in enumerate(sizes)
        ]
        ways = zip(pairs, row.directions, strict=False)
        first["layers"] = tuple(pair if n_ways == 2 else pair[0] for pair, n_ways in ways)
        h0 = tuple((h0, -h0) if n_ways == 2 else h0 for n_ways in row.directions)
    for i, name in enumerate(("leak", "reset_to")):
        if name in row.options:
            first[name] = np.abs(numbers(row.options[name], seed=i + 2)[0])
    return jax.tree.map(lambda array: array.astype(row.dtype), (first, x, h0))


def others(row: Row) -> dict[str, Any]:
    """The other arguments by name, with a sequence without steps where there are several."""
    lengths = row.n_steps - np.arange(np.prod(row.batch, dtype=int)) % row.n_steps
    lengths = np.where(lengths == 1, 0, lengths).reshape(row.batch)
    resets = numbers((*row.batch, row.n_steps), seed=1)[0] < -0.2
    resets.reshape(-1, row.n_steps)[:1, [0, -1]] = True  # so that it never reads `h0`
    arrays = {"lengths": lengths, "resets": resets}
    rest = {name: arrays.get(name, each) for name, each in row.options.items()}
    return {name: each for name, each in rest.items() if name not in ("leak", "reset_to")}


def poisoned(row: Row) -> Any:
    """The arguments with NaN or an infinity in what no sequence with steps reads.

    That is the padding of `x` and of `leak`, and an initial state that a reset replaces at once,
    from either end, unless padding comes before.
    """
    first, x, h0 = arguments(row)
    lengths = others(row).get("lengths", np.full(row.batch, row.n_steps))
    padding = np.arange(row.n_steps) >= lengths[..., None]
    resets = others(row).get("resets", np.zeros_like(padding))
    ends = np.stack([np.zeros_like(lengths), np.maximum(lengths - 1, 0)], axis=-1)
    is_replaced = np.all(np.take_along_axis(resets, ends, axis=-1), axis=-1)

    def spoilt(where: Any, poison: float, tree: Any) -> Any:
        def one(array: Any) -> Any:
            fits = np.shape(array)[:-1] == where.shape
            return np.where(where[..., None], poison, array) if fits else array

        return jax.tree.map(one, tree)

    first |= {name: spoilt(padding, np.inf, first[name]) for name in first.keys() & {"leak"}}
    return (
        first,
        spoilt(padding, np.nan, x),
        spoilt(is_replaced & (lengths == row.n_steps), np.nan, h0),
    )


@pytest.fixture
def place(row: Row, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the row is run: JAX says what backend it has, and there may be a mesh.

    The public functions do not run here: their `jax.jit` would keep what it decided.
    """
    for name, limit in LIMITS.items():
        monkeypatch.setattr(plan, name, limit)
    if row.backend != "cpu":
        monkeypatch.setattr(jax, "default_backend", lambda: row.backend)
    mesh = row.axis and jax.make_mesh((1,), ("devices",), axis_types=(row.axis,))
    with jax.enable_x64(True), jax.set_mesh(mesh) if mesh else nullcontext():
        yield


def given(row: Row, args: Any) -> Any:
    """The arguments as the row is traced with them: shared, or with a symbolic size."""
    first, *of_batch = args
    if row.axis:
        mesh = jax.sharding.get_mesh()
        by = P(), P(*[None] * (len(row.batch) - 1), "devices")
        first, of_batch = jax.device_put(
            (first, of_batch), tuple(jax.NamedSharding(mesh, each) for each in by)
        )
    if row.symbols:
        scope = jax.export.SymbolicScope()
        shapes = [
            jax.export.symbolic_shape(text, like=array.shape, scope=scope)
            for text, array in zip(row.symbols, of_batch, strict=True)
        ]
        of_batch = list(map(jax.ShapeDtypeStruct, shapes, (row.dtype, row.dtype)))
    return first, *of_batch


def result(row: Row, function: Any, args: Any) -> Any:
    program = jax.jit(function)
    if row.symbols:
        return jax.export.export(program)(*given(row, args)).call(*args)
    return program(*given(row, args))


KNOWN_ONES = [Row(SUMS._replace(activation=f), options={"activation": f}) for f in KNOWN]


@pytest.mark.parametrize("row", [*ROWS.values(), *KNOWN_ONES])
@pytest.mark.usefixtures("place")
def test_every_plan(row: Row) -> None:
    """Its printed form, where True is not 1."""
    plans = []

    def see(first: Any, x: Any, h0: Any) -> None:
        options = DEFAULTS | others(row) | first
        plans.append(plan_for(*prepare_run(options.pop("params"), x, h0, options), options))

    jax.eval_shape(see, *given(row, arguments(row)))
    assert repr(plans) == repr([row.plan])


def test_every_field_has_every_value() -> None:
    of_fields = zip(*(row.plan for row in ROWS.values()), strict=True)
    assert all(len(set(values)) > 1 for values in of_fields)


@pytest.mark.parametrize(
    ("name", "by", "changes"),
    [
        *(("small", each, {}) for each in ("wx", "wh", "x")),
        *(("small", each, {"at_once": False, "segment": None}) for each in ("b", "h0")),
        *(("large, leak", each, {"at_once": False, "segment": None}) for each in ("b", "leak")),
        ("large, symbolic steps", "b", {}),
        ("long", "h0", {}),
        ("small, shared", "b", {}),
    ],
)
def test_every_plan_of_a_derivative(name: str, by: str, changes: Any) -> None:
    """By one argument alone."""
    row = ROWS[name]
    first, x, h0 = arguments(row)
    params, run = prepare_run(first["params"], x, h0, DEFAULTS | others(row) | first)
    dparams = RNNParams(
        *(each if field == by else None for field, each in params._asdict().items())
    )
    nothing: Any = {each: None for each in ("h0", "leak") if each != by}
    steps = run.steps._replace(x=run.steps.x if by == "x" else None)  # type: ignore[arg-type]
    plan = plan_derivative(row.plan, run, dparams, run._replace(steps=steps, **nothing))
    assert repr(plan) == repr(row.plan._replace(**changes))


MASKED = {
    f"{name}, masks": row._replace(options=TURNED | {"reset_to": (), **row.options})
    for name, row in ROWS.items()
    if IS_LONG and row.plan.by_rule and row.backend != "gpu" and not (row.symbols or row.axis)
}
EXACT = {name: row for name, row in (ROWS | MASKED | CALLS).items() if row.dtype is np.float64}


def function_of(row: Row) -> Any:
    return every_value if row.directions is None else rnn_stacked


@pytest.mark.parametrize("row", EXACT.values(), ids=EXACT)
@pytest.mark.usefixtures("place")
def test_values_and_gradients_are_the_oracles(row: Row) -> None:
    function, args, rest = function_of(row), poisoned(row), others(row)

    def run(first: Any, x: Any, h0: Any) -> Any:
        return of_jax(function, {**first, "x": x, "h0": h0, **rest})

    expected = of_oracle(function, {**args[0], "x": args[1], "h0": args[2], **rest})
    assert_close(result(row, run, args), expected, 1e-12)


def total(row: Row, changes: Any, first: Any, x: Any, h0: Any) -> Any:
    """It depends on every result in a way of its own."""
    results = function_of(row)(x=x, h0=h0, **{**first, **others(row), **changes})
    return sum(i * curved(each) for i, each in enumerate(jax.tree.leaves(results), start=1))


# Every mode and order of every plan takes minutes. By default they are those of one plan, and one
# of some others and of some calls; with HYPOTHESIS_PROFILE=long all.
BY_RULE = [name for name, row in EXACT.items() if row.plan and row.plan.by_rule]
BY_RULE = [name for name in BY_RULE if name not in MASKED and EXACT[name].plan.unroll == 1]
OF_EACH = {EXACT[name].plan: name for name in BY_RULE}.values()
HIGHER = [way for way in WAYS if way != "value and gradient"]
# Not by forward mode alone, which takes a direction for each step, of which the long have many.
QUICK = ("forward over reverse", "reverse over forward")
FULL = BY_RULE if IS_LONG else ["small, prime steps, leak"]
MODES = [
    *((name, way) for name in FULL for way in HIGHER if (name[:4], way[-4:]) != ("long", "mode")),
    *((name, QUICK[i % 2]) for i, name in enumerate(OF_EACH) if name not in FULL and i % 3 == 0),
    *(("masks", "forward mode"), ("resets", "reverse over reverse"), ("masks, pieces", QUICK[0])),
    *(("leak of steps on a TPU", way) for way in QUICK),
    *(("currents on a TPU", "forward mode"), ("masks on a TPU", "reverse over reverse")),
    *(("masks, silu, pieces", QUICK[1]), ("leak", "reverse over reverse"), ("low rank", QUICK[0])),
    *(("currents, relu", "forward mode"), ("layers, currents", QUICK[0]), ("softplus", QUICK[1])),
]


def in_a_plain_loop(row: Row) -> Any:
    """What makes it one: an activation that has no rule."""
    activation = row.options.get("activation", jnp.tanh)
    return {"activation": lambda a: activation(a), "unroll": 1, "checkpoint_every": None}


@pytest.mark.parametrize(
    ("row", "way"), [pytest.param(EXACT[name], way, id=f"{name}-{way}") for name, way in MODES]
)
@pytest.mark.usefixtures("place")
def test_every_mode_and_order_is_jaxs_own_of_a_plain_loop(row: Row, way: str) -> None:
    args = arguments(row)
    changes: list[Any] = [{}, in_a_plain_loop(row)]
    derivative, plain = (WAYS[way](partial(total, row, each)) for each in changes)
    assert_close(result(row, derivative, args), jax.jit(plain)(*args), 1e-11)


ALONE = "small", "large, leak", "long", "small, currents", "many rows on a TPU, reverse"


@pytest.mark.parametrize("row", [EXACT[name] for name in ALONE], ids=ALONE)
@pytest.mark.parametrize("by", ["b", "h0"])
@pytest.mark.usefixtures("place")
def test_derivatives_by_the_bias_or_the_state_alone(row: Row, by: str) -> None:
    """Jacobians and Hessians."""

    def derivatives(changes: Any, first: Any, x: Any, h0: Any) -> Any:
        def args(array: Any) -> Any:
            params = first["params"]._replace(b=array) if by == "b" else first["params"]
            return first | {"params": params}, x, h0 if by == "b" else array

        def last(array: Any) -> Any:
            first, x, h0 = args(array)
            return every_value(x=x, h0=h0, **{**first, **others(row), **changes})[0]

        array = first["params"].b if by == "b" else h0
        hessian = jax.hessian(lambda array: total(row, changes, *args(array)))
        return jax.jacrev(last)(array), jax.jacfwd(last)(array), hessian(array)

    expected = jax.jit(partial(derivatives, in_a_plain_loop(row)))(*arguments(row))
    assert_close(result(row, partial(derivatives, {}), arguments(row)), expected, 1e-11)


# The programs of accelerators, as traced here


def forward(first: Any, x: Any, h0: Any) -> Any:
    return every_value(first["params"], x, h0, unroll=1)[0]


KINDS: dict[str, Any] = {
    "forward": forward,
    "gradient": jax.grad(lambda *args: curved(forward(*args))),
    "gradient, all states": jax.grad(partial(total, ROWS["small"], {"unroll": 1})),
}
over_kinds = pytest.mark.parametrize("kind", KINDS)
over_rows = pytest.mark.parametrize(
    "row", [ROWS["one sequence on a GPU"], ROWS["large on a GPU"]], ids=["one sequence", "large"]
)


@pytest.mark.parametrize("row", [ROWS["many rows on a TPU, reverse"]])
@pytest.mark.usefixtures("place")
def test_forward_on_a_tpu_is_as_elsewhere(row: Row) -> None:
    """Undifferentiated, as the derivative is that of another loop."""
    args = arguments(row)
    plain = every_value(args[0]["params"], *args[1:], **in_a_plain_loop(row))[0]
    assert_close(result(row, forward, args), plain, 1e-12)


@pytest.mark.parametrize("row", [ROWS["many rows on a TPU, unroll"]])
@pytest.mark.usefixtures("place")
def test_a_program_of_a_tpu_can_be_exported_with_unroll(row: Row) -> None:
    """Without, JAX would not say that what it says of the order in memory is stable."""
    args, program = arguments(row), jax.jit(jax.grad(partial(total, row, {})))
    assert_close(jax.export.export(program)(*args).call(*args), program(*args), 1e-12)


@over_kinds
@over_rows
@pytest.mark.usefixtures("place")
def test_on_gpus_a_step_has_one_product(row: Row, kind: str) -> None:
    """In the one loop forward, and in the one backward. Also under `vmap`, which adds neither."""
    function, args = KINDS[kind], arguments(row)
    for _ in range(3):
        in_loops = products_in_loops(function, args, "cuda")
        assert in_loops == ([1] if kind == "forward" else [1, 1])
        function, args = jax.vmap(function), jax.tree.map(lambda array: np.stack([array] * 3), args)


def test_small_products_are_sums() -> None:
    """In the forward loop, of one small network and of many; larger ones have products."""
    small = arguments(ROWS["small"])
    assert n_products(forward, *small) == 0
    assert n_products(jax.vmap(forward), *jax.tree.map(lambda a: np.stack([a] * 3), small)) == 0
    assert n_products(forward, *arguments(ROWS["large"])) > 0


@over_rows
@pytest.mark.usefixtures("place")
def test_on_gpus_eight_steps_are_in_one_iteration(row: Row) -> None:
    """Forward and backward."""
    gradient = jax.grad(partial(total, row, {}))
    program = str(jax.make_jaxpr(gradient)(*arguments(row)))
    assert re.findall(r"unroll=(\d+)", program) == ["8", "8"]
