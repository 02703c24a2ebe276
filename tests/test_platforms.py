"""Every platform gets the same results; on accelerators a step has at most one matrix product."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxrnn.options import Run

from jaxrnn import RNNParams, recurrence, rnn_forward, rnn_states
from tests.compiled import n_products, products_in_loops
from tests.helpers import assert_close, numbers


def arguments(*batch: int, n_features: int, n_nodes: int) -> tuple[RNNParams[Any], Any, Any]:
    of_params = (n_features, n_nodes), (n_nodes, n_nodes), (n_nodes,)
    wx, wh, b, x, h0 = numbers(*of_params, (*batch, 6, n_features), (*batch, n_nodes))
    return RNNParams(wx, wh / np.sqrt(n_nodes), b), x, h0


# Small products are written as sums. On CPUs, wide networks make the two products of a step as one.
ARGUMENTS = {
    "small": arguments(8, n_features=3, n_nodes=16),
    "narrow": arguments(8, n_features=17, n_nodes=17),
    "wide": arguments(2, n_features=3, n_nodes=64),
    "one sequence": arguments(n_features=2, n_nodes=22),
}
over_arguments = pytest.mark.parametrize("args", ARGUMENTS.values(), ids=ARGUMENTS)


def forward_pass(*args: Any) -> Any:
    return rnn_forward(*args, unroll=1)


def last(*args: Any) -> Any:
    return jnp.sum(forward_pass(*args) ** 2)


def states(*args: Any) -> Any:
    return jnp.sum(rnn_states(*args, unroll=1).h ** 2)


KINDS: dict[str, Callable[..., Any]] = {
    "forward": forward_pass,
    "gradient": jax.value_and_grad(last),
    "gradient, all states": jax.value_and_grad(states),
}
over_kinds = pytest.mark.parametrize("function", KINDS.values(), ids=KINDS)


@pytest.mark.parametrize(
    ("many", "biased", "name"),
    [
        (False, False, "small"),
        (True, True, "narrow"),
        (False, True, "wide"),
        (True, False, "one sequence"),
    ],
)
def test_accelerators_get_the_same(
    many: bool,
    biased: bool,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Their program, run here, agrees with the plain loop and JAX's own derivative of it."""
    params, x, h0 = ARGUMENTS[name]
    params = params if biased else params._replace(b=None)
    lengths = np.full(h0.shape[:-1], 4, np.int32)
    resets = np.broadcast_to(np.arange(6) == 2, x.shape[:-1])
    masks: Any = {"lengths": lengths, "resets": resets, "reset_to": 0.5 * h0}
    run: Any = Run(x, h0, **masks, reverse=True)

    def gradient(loop: Callable[..., Any]) -> Callable[..., Any]:
        def loss(params: Any, run: Any) -> Any:
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in loop(params, run))

        return jax.value_and_grad(loss, allow_int=True)

    def elsewhere(*args: Any, default: Callable[..., Any], **platforms: Any) -> Any:
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", elsewhere)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    request.addfinalizer(jax.clear_caches)  # which do not know of the patches
    jax.clear_caches()
    arrays: Any = (params, run)
    if many:
        arrays = jax.tree.map(lambda array: np.stack([array, np.roll(array, 1)]), arrays)
    with jax.enable_x64(True):
        got, expected = (
            jax.jit(jax.vmap(gradient(loop)) if many else gradient(loop))(*arrays)
            for loop in (recurrence._run_with_rule, recurrence._run_plainly)
        )
    assert_close(floats(got), floats(expected), 1e-12)


def floats(tree: Any) -> Any:
    """The leaves without the gradients by integers."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == np.float64]


@over_arguments
@over_kinds
def test_on_accelerators_a_step_has_one_product(function: Callable[..., Any], args: Any) -> None:
    """None in a small network. Also under `vmap`, which adds no loop and no product."""
    alone = products_in_loops(function, args, "cuda")
    assert products_in_loops(function, args, "tpu") == alone
    of_a_step = 0 if args is ARGUMENTS["small"] else 1
    if function is forward_pass:
        assert alone == [of_a_step]
    elif args is ARGUMENTS["one sequence"]:  # which is too short for segments
        assert alone == [1, 1]
    else:
        # The loops over the steps forward, over the segments, and over the steps of a segment.
        assert alone == [of_a_step, 2 * of_a_step, of_a_step]
    for _ in range(2 if args is ARGUMENTS["narrow"] else 1):
        function, args = jax.vmap(function), jax.tree.map(lambda a: np.stack([a] * 3), args)
        assert products_in_loops(function, args, "cuda") == alone


@pytest.mark.parametrize("kind", ["forward", "gradient, all states"])
def test_small_products_are_sums(kind: str) -> None:
    """Those of one small network and of many; larger ones have products."""
    function = KINDS[kind]
    small, narrow, wide = (ARGUMENTS[name] for name in ("small", "narrow", "wide"))
    assert n_products(function, *small) == 0
    assert n_products(jax.vmap(function), *jax.tree.map(lambda a: np.stack([a] * 3), small)) == 0
    assert n_products(function, *narrow) > n_products(function, *wide) > 0


@pytest.mark.parametrize("batch", [(), (8,)])
def test_on_gpus_eight_steps_are_in_one_iteration(
    batch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward, unless told otherwise, and unless their number is symbolic."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    params, _, _ = ARGUMENTS["narrow"]

    def loops(n_steps: Any, **options: Any) -> list[str]:
        x = jax.ShapeDtypeStruct((*batch, n_steps, 17), jnp.float32)
        gradient = jax.grad(lambda params, x: jnp.sum(rnn_forward(params, x, **options)))
        return re.findall(r"unroll=(\d+)", str(jax.make_jaxpr(gradient)(params, x)))

    over_segments = ["1"] if batch else []
    assert loops(21) == ["8", "8", *over_segments]
    assert loops(21, unroll=3) == ["3", "3", *over_segments]
    assert set(loops(*jax.export.symbolic_shape("n_steps"))) == {"1"}


def test_few_steps_are_written_out_without_a_loop() -> None:
    params, x, h0 = ARGUMENTS["wide"]
    gradient = KINDS["gradient"]
    assert products_in_loops(gradient, (params, x[:, :4], h0), "cpu") == []
    assert len(products_in_loops(gradient, (params, x[:, :5], h0), "cpu")) == 3
