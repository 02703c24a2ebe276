"""What the loop is on each platform, and that it gives the same everywhere."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, recurrence, rnn_forward
from jaxrnn.sequences import Sequences
from tests.comparing import assert_close


def arguments(*batch: int, n_features: int, n_nodes: int) -> tuple[RNNParams[Any], Any, Any]:
    draw = np.random.default_rng(0).standard_normal
    wh = draw((n_nodes, n_nodes)) / n_nodes
    params = RNNParams(draw((n_features, n_nodes)), wh, draw(n_nodes))
    return params, draw((*batch, 6, n_features)), draw((*batch, n_nodes))


# Few numbers and many, on both sides of where a product is written as a sum.
ARGUMENTS = {
    "small": arguments(8, n_features=3, n_nodes=16),
    "wide": arguments(8, n_features=17, n_nodes=17),
    "small vector": arguments(n_features=2, n_nodes=22),
    "wide vector": arguments(n_features=23, n_nodes=23),
}
over_arguments = pytest.mark.parametrize("args", ARGUMENTS.values(), ids=ARGUMENTS)


@over_arguments
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("run", [recurrence._run_on_cpu, recurrence._run_inputs_first])
def test_the_loops_agree(run: Callable[..., Any], biased: bool, args: Any) -> None:
    params, x, h0 = args
    params = params if biased else params._replace(b=None)
    loop = recurrence.Loop(jnp.tanh, reverse=False, unroll=1, checkpoint_every=None)
    with jax.enable_x64(True):
        given = Sequences(x, h0, lengths=None, resets=None, restart=None)
        arrays = jax.tree.map(jnp.asarray, (params, given))
        expected = recurrence._run_plainly(loop, *arrays)
        assert_close(run(loop, *arrays), expected, 1e-14)


def products_in_loops(function: Callable[..., Any], args: Any, platform: str) -> list[int]:
    """How many matrix products each loop of the StableHLO for a platform holds."""
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,))
    module: Any = lowered.compiler_ir("stablehlo")
    functions = {each.name.value: each for each in module.body.operations if hasattr(each, "name")}

    def operations(root: Any) -> Iterator[Any]:
        for region in root.regions:
            for each in (each for block in region for each in block):
                yield each
                yield from operations(each.operation)
                if each.operation.name == "func.call":
                    yield from operations(functions[each.attributes["callee"].value].operation)

    loops = [
        each
        for each in operations(functions["main"].operation)
        if each.operation.name == "stablehlo.while"
    ]
    return [
        sum(each.operation.name == "stablehlo.dot_general" for each in operations(loop.operation))
        for loop in loops
    ]


def loss(*args: Any) -> Any:
    return jnp.sum(rnn_forward(*args) ** 2)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@over_arguments
def test_on_accelerators_a_step_has_one_product(platform: str, args: Any) -> None:
    assert products_in_loops(rnn_forward, args, platform) == [1]
    assert products_in_loops(jax.value_and_grad(loss), args, platform) == [1, 1]


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_on_cpus_a_step_is_sums_or_one_product(kind: str) -> None:
    """But of many small networks it is two products."""
    args = ARGUMENTS[kind]
    small = kind.startswith("small")
    n_products = 0 if small else 1
    assert products_in_loops(rnn_forward, args, "cpu") == [n_products]
    assert products_in_loops(jax.value_and_grad(loss), args, "cpu") == [n_products, n_products]
    sets = jax.tree.map(lambda array: np.stack([array] * 3), args)
    n_products = 2 if small else 1
    assert products_in_loops(jax.vmap(rnn_forward), sets, "cpu") == [n_products]
    of_sets = products_in_loops(jax.vmap(jax.value_and_grad(loss)), sets, "cpu")
    assert of_sets[:2] == [n_products, 1]  # then the weights' gradients, set by set


def test_few_steps_are_written_out() -> None:
    params, x, h0 = ARGUMENTS["wide"]
    assert products_in_loops(jax.value_and_grad(loss), (params, x[:, :4], h0), "cpu") == []
    assert products_in_loops(jax.value_and_grad(loss), (params, x[:, :5], h0), "cpu") == [1, 1]
