"""Every plan, by a run that gets it; what each gives is right, in every mode and order.

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
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxrnn import RNNParams
from jaxrnn.arguments import prepare_run
from jaxrnn.inputs import DEFAULTS
from jaxrnn.plan import BATCH, PLAIN, SINGLE, SMALL, Plan, plan_derivative, plan_for
from jaxrnn.testing import oracle
from tests.compiled import n_products, products_in_loops
from tests.helpers import IS_LONG, WAYS, assert_close, curved, every_value, numbers, own_tanh


class Row(NamedTuple):
    """A run, and its plan.

    Attributes:
      plan: what is expected.
      batch: the sizes of the batch axes.
      n_steps: how many steps there are.
      n_nodes: how many nodes there are; there are three features.
      options: those of `rnn_forward` that are no masks.
      symbols: the shapes of x and h0, where some sizes are symbolic.
      backend: what JAX says it runs on.
      axis: the type of an axis of a mesh that shares the batch.
      dtype: of all arrays.
    """

    plan: Plan
    batch: tuple[int, ...] = (2, 3)
    n_steps: int = 6
    n_nodes: int = 4
    options: Any = MappingProxyType({})
    symbols: tuple[str, str] | None = None
    backend: str = "cpu"
    axis: AxisType | None = None
    dtype: Any = np.float64


SUMS, BATCHED = SMALL._replace(segment=2), BATCH._replace(segment=2)
FIRST: Any = {"inputs_first": True}
SHARED: Any = {"segment": None, "at_once": True, "shared": True}
FIRST_8 = PLAIN._replace(inputs_first=True, unroll=8)
EIGHT, THREE = Plan(unroll=8), Plan(unroll=3, reverse=True)
FIRST_3 = THREE._replace(**FIRST)
ON_TPU = FIRST_8._replace(unroll=1, derivative=EIGHT)
ON_GPU = BATCH._replace(inputs_first=True, unroll=8)
STEPS, OF_ONE = ("_, _, n_steps, _", "..."), ("n_steps, _", "...")
LEAK, OWN = {"leak": 0.3}, {"activation": own_tanh}
UNROLL = {"unroll": 3, "reverse": True}
BY_RATE: Any = {"activation": jax.nn.identity, "rate": jnp.tanh}
CURRENTS = BY_RATE | LEAK
ROWS = {
    "few steps": Row(PLAIN, n_steps=4),
    "few steps, a batch of one": Row(Plan(squeezed=(0,)), (1,), n_steps=4),
    "few steps on a GPU": Row(Plan(unroll=8), n_steps=4, backend="gpu"),
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
    "few steps on a TPU": Row(Plan(unroll=8), n_steps=4, backend="tpu"),
    "own activation on a TPU": Row(
        FIRST_8._replace(activation=own_tanh), options=OWN, backend="tpu"
    ),
    "one sequence on a TPU": Row(FIRST_8._replace(derivative=EIGHT), (), backend="tpu"),
    "few rows on a TPU, leak": Row(
        FIRST_8._replace(derivative=FIRST_8), n_nodes=25, options=LEAK, backend="tpu"
    ),
    "many rows on a TPU": Row(ON_TPU, (2, 5), backend="tpu"),
    "many rows on a TPU, unroll": Row(
        FIRST_3._replace(derivative=THREE), (2, 5), options=UNROLL, backend="tpu"
    ),
    "large, shared": Row(BATCHED._replace(**SHARED), n_nodes=25, axis=AxisType.Auto),
    "shared, on a TPU": Row(
        ON_GPU._replace(shared=True), (2, 5), axis=AxisType.Explicit, backend="tpu"
    ),
    "symbolic batch on a TPU": Row(FIRST_8, symbols=("n, ...", "n, ..."), backend="tpu"),
}


def arguments(row: Row) -> Any:
    """Parameters, x and h0."""
    n = row.n_nodes
    shapes = (3, n), (n, n), (n,), (*row.batch, row.n_steps, 3), (*row.batch, n)
    scales = 0.5, n**-0.5, 0.5, 1.0, 1.0
    wx, wh, b, x, h0 = (
        (scale * array).astype(row.dtype)
        for scale, array in zip(scales, numbers(*shapes), strict=True)
    )
    return RNNParams(wx, wh, b), x, h0


def masks(row: Row) -> dict[str, Any]:
    """In reverse, and with a sequence without steps where there are several."""
    of_steps, reset_to = numbers((*row.batch, row.n_steps), (row.n_nodes,), seed=1)
    lengths = row.n_steps - np.arange(np.prod(row.batch, dtype=int)) % row.n_steps
    lengths = np.where(lengths == 1, 0, lengths).reshape(row.batch)
    resets = of_steps < -0.2
    return {"lengths": lengths, "resets": resets, "reset_to": reset_to, "reverse": True}


@pytest.fixture
def place(row: Row, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the row is run: JAX says what backend it has, and there may be a mesh.

    The public functions do not run here: their `jax.jit` would keep what it decided.
    """
    if row.backend != "cpu":
        monkeypatch.setattr(jax, "default_backend", lambda: row.backend)
    mesh = row.axis and jax.make_mesh((1,), ("devices",), axis_types=(row.axis,))
    with jax.enable_x64(True), jax.set_mesh(mesh) if mesh else nullcontext():
        yield


def given(row: Row) -> Any:
    """The arguments as the row is traced with them: shared, or with a symbolic size."""
    params, *others = arguments(row)
    if row.axis:
        mesh = jax.sharding.get_mesh()
        by = P(), P(*[None] * (len(row.batch) - 1), "devices")
        params, others = jax.device_put(
            (params, others), tuple(jax.NamedSharding(mesh, each) for each in by)
        )
    if row.symbols:
        scope = jax.export.SymbolicScope()
        shapes = [
            jax.export.symbolic_shape(text, like=array.shape, scope=scope)
            for text, array in zip(row.symbols, others, strict=True)
        ]
        others = list(map(jax.ShapeDtypeStruct, shapes, (row.dtype, row.dtype)))
    return params, *others


def result(row: Row, function: Any) -> Any:
    program = jax.jit(function)
    if row.symbols:
        return jax.export.export(program)(*given(row)).call(*arguments(row))
    return program(*given(row))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.usefixtures("place")
def test_every_plan(row: Row) -> None:
    """Its printed form, where True is not 1."""
    plans, options = [], DEFAULTS | row.options

    def see(params: Any, x: Any, h0: Any) -> None:
        plans.append(plan_for(*prepare_run(params, x, h0, options), options))

    jax.eval_shape(see, *given(row))
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
    params, x, h0 = arguments(row)
    params, run = prepare_run(params, x, h0, DEFAULTS | row.options)
    dparams = RNNParams(
        *(each if field == by else None for field, each in params._asdict().items())
    )
    others: Any = {each: None for each in ("h0", "leak") if each != by}
    steps = run.steps._replace(x=run.steps.x if by == "x" else None)  # type: ignore[arg-type]
    plan = plan_derivative(row.plan, run, dparams, run._replace(steps=steps, **others))
    assert repr(plan) == repr(row.plan._replace(**changes))


EXACT = {name: row for name, row in ROWS.items() if row.dtype is np.float64}
MASKED = [
    pytest.param(row, masked, id=name + ", masks" * masked)
    for name, row in EXACT.items()
    for masked in ((False, True) if row.plan.by_rule and row.backend == "cpu" else (False,))
    if not (masked and (row.symbols or row.axis))
]


@pytest.mark.parametrize(("row", "masked"), MASKED)
@pytest.mark.usefixtures("place")
def test_values_and_gradients_are_the_oracles(row: Row, masked: bool) -> None:
    options = {**row.options, **(masks(row) if masked else {})}

    def run(*args: Any) -> Any:
        values, pull = jax.vjp(partial(every_value, **options), *args)
        return values, pull(jax.tree.map(jnp.cos, values))

    of_oracle = {name: each for name, each in options.items() if name != "unroll"}
    for name in ("activation", "rate"):
        is_linear = options.get(name, jnp.tanh) is jax.nn.identity
        if name in options:
            of_oracle[name] = oracle.IDENTITY if is_linear else oracle.TANH
    args = arguments(row)
    values = oracle.rnn_forward(*args, **of_oracle), *oracle.rnn_states(*args, **of_oracle)
    g_last, g_a, g_h = map(np.cos, values)
    gradients = oracle.rnn_gradients(*args, g_last=g_last, g_a=g_a, g_h=g_h, **of_oracle)
    assert_close(result(row, run), (values, tuple(gradients[:3])), 1e-12)


def total(options: Any, *args: Any) -> Any:
    """It depends on every result in a way of its own."""
    return sum(i * curved(each) for i, each in enumerate(every_value(*args, **options), start=1))


# Every mode and order, which takes minutes. By default they are those of one plan, and one of each
# other plan; with HYPOTHESIS_PROFILE=long all.
BY_RULE = [name for name, row in EXACT.items() if row.plan.by_rule and row.plan.unroll == 1]
FULL = BY_RULE if IS_LONG else ["small, prime steps, leak"]
HIGHER = [way for way in WAYS if way != "value and gradient"]
# Not by forward mode alone, which takes a direction for each step, of which the long have many.
QUICK = ("forward over reverse", "reverse over forward")
MODES = [
    *((name, way) for name in FULL for way in HIGHER if (name[:4], way[-4:]) != ("long", "mode")),
    *((name, QUICK[i % 2]) for i, name in enumerate(BY_RULE) if name not in FULL),
]


def in_a_plain_loop(options: Any) -> Any:
    """The options, with an activation that has no rule."""
    activation = options.get("activation", jnp.tanh)
    return {**options, "activation": lambda a: activation(a), "unroll": 1}


@pytest.mark.parametrize(
    ("row", "way"), [pytest.param(EXACT[name], way, id=f"{name}-{way}") for name, way in MODES]
)
@pytest.mark.usefixtures("place")
def test_every_mode_and_order_is_jaxs_own_of_a_plain_loop(row: Row, way: str) -> None:
    derivative, plain = (
        WAYS[way](partial(total, options))
        for options in (row.options, in_a_plain_loop(row.options))
    )
    assert_close(result(row, derivative), jax.jit(plain)(*arguments(row)), 1e-11)


ALONE = "small", "large, leak", "long", "small, currents"


@pytest.mark.parametrize("row", [EXACT[name] for name in ALONE], ids=ALONE)
@pytest.mark.parametrize("by", ["b", "h0"])
@pytest.mark.usefixtures("place")
def test_derivatives_by_the_bias_or_the_state_alone(row: Row, by: str) -> None:
    """Jacobians and Hessians."""

    def derivatives(options: Any, params: Any, x: Any, h0: Any) -> Any:
        def args(array: Any) -> Any:
            return (params._replace(b=array), x, h0) if by == "b" else (params, x, array)

        def last(array: Any) -> Any:
            return every_value(*args(array), **options)[0]

        array = params.b if by == "b" else h0
        hessian = jax.hessian(lambda array: total(options, *args(array)))
        return jax.jacrev(last)(array), jax.jacfwd(last)(array), hessian(array)

    plain = partial(derivatives, in_a_plain_loop(row.options))
    expected = jax.jit(plain)(*arguments(row))
    assert_close(result(row, partial(derivatives, row.options)), expected, 1e-11)


# The programs of accelerators, as traced here


def forward(*args: Any) -> Any:
    return every_value(*args, unroll=1)[0]


KINDS: dict[str, Any] = {
    "forward": forward,
    "gradient": jax.grad(lambda *args: curved(forward(*args))),
    "gradient, all states": jax.grad(partial(total, {"unroll": 1})),
}
over_kinds = pytest.mark.parametrize("kind", KINDS)
over_rows = pytest.mark.parametrize(
    "row", [ROWS["one sequence on a GPU"], ROWS["large on a GPU"]], ids=["one sequence", "large"]
)


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
    gradient = jax.grad(partial(total, {}))
    program = str(jax.make_jaxpr(gradient)(*arguments(row)))
    assert re.findall(r"unroll=(\d+)", program) == ["8", "8"]
