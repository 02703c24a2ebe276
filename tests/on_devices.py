"""Several devices, in a process that has four: `test_devices.py` runs this file in one.

Values and gradients are those of a single device, and the compiled programs hold no communication
but what they must.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import glorot_uniform
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn import (
    init_params,
    init_stacked,
    rnn_bidirectional,
    rnn_forward,
    rnn_stacked,
    rnn_states,
    rnn_step,
)
from tests.communicating import communication
from tests.comparing import assert_close

SETS, BATCH = P("sets"), P("batch")
X = jax.random.normal(jax.random.key(1), (8, 6, 3))
LENGTHS = jnp.array([6, 0, 1, 5, 6, 2, 3, 4])


def network(key: jax.Array, n_nodes: int = 16) -> Any:
    return init_params(key, 3, n_nodes, wx_init=glorot_uniform(), wh_init=glorot_uniform())


PARAMS = network(jax.random.key(0))
STACK = jax.vmap(network)(jax.random.split(jax.random.key(0), 4))
LAYERS = init_stacked(jax.random.key(0), 3, (4, 5), bidirectional=True, wx_init=glorot_uniform())


def mesh(**sizes: int) -> Any:
    assert jax.device_count() == 4
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def shared(array: Any, on: Any, spec: Any) -> Any:
    return jax.device_put(array, NamedSharding(on, spec))


def last(params: Any, x: Any, options: Any) -> Any:
    return jnp.mean(rnn_forward(params, x, **options) ** 2)


def states(params: Any, x: Any, options: Any) -> Any:
    return jnp.mean(rnn_states(params, x, **options).h ** 2)


over_losses = pytest.mark.parametrize("loss", [last, states])
over_options = pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS}])


@over_losses
@over_options
@pytest.mark.parametrize("n_nodes", [4, 16, 64])
def test_a_shared_batch_needs_the_gradients_sum(loss: Any, options: Any, n_nodes: int) -> None:
    params = network(jax.random.key(0), n_nodes)
    gradient = jax.jit(jax.value_and_grad(loss))
    on = mesh(batch=4)
    args = shared(params, on, P()), *(shared(each, on, BATCH) for each in (X, options))
    assert communication(gradient, *args).keys() == {"all-reduce"}
    assert_close(gradient(*args), gradient(params, X, options), 1e-6)
    assert communication(jax.jit(rnn_forward), *args[:2]) == {}


@over_losses
@over_options
def test_shared_parameter_sets_need_nothing(loss: Any, options: Any) -> None:
    gradient = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))
    on = mesh(sets=4)
    args = shared(STACK, on, SETS), *(shared(each, on, P()) for each in (X, options))
    assert communication(gradient, *args) == {}
    assert_close(gradient(*args), gradient(STACK, X, options), 1e-6)


def test_parameter_sets_on_an_explicit_axis_keep_it() -> None:
    """In the types of their gradients, by which JAX places what is computed from these."""
    gradient = jax.vmap(jax.grad(last), in_axes=(0, None, None))

    def axes_of_gradient(stack: Any) -> Any:
        leaves = jax.eval_shape(lambda stack: gradient(stack, X, {}), stack)
        return [leaf.sharding.spec[0] for leaf in leaves]

    on = jax.make_mesh((4,), ("sets",), (AxisType.Explicit,))
    with jax.set_mesh(on):
        stack = shared(STACK, on, SETS)
        assert axes_of_gradient(stack) == ["sets"] * 3
        actual = jax.jit(gradient)(stack, X, {})
    assert_close(actual, gradient(STACK, X, {}), 1e-6)


@over_losses
@over_options
def test_both_shared(loss: Any, options: Any) -> None:
    gradient = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))
    on = mesh(sets=2, batch=2)
    args = shared(STACK, on, SETS), *(shared(each, on, BATCH) for each in (X, options))
    assert communication(gradient, *args).keys() == {"all-reduce"}
    assert_close(gradient(*args), gradient(STACK, X, options), 1e-6)


FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "rnn_forward": (rnn_forward, PARAMS),
    "rnn_states": (rnn_states, PARAMS),
    "rnn_stacked": (rnn_stacked, LAYERS),
    "rnn_bidirectional": (rnn_bidirectional, LAYERS[0]),
    "rnn_step": (lambda params, x, **_: rnn_step(params, jnp.zeros(16), x[:, 0]), PARAMS),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@over_options
def test_shard_map_of_every_function(name: str, options: Any) -> None:
    """With the gradient of replicated parameters, for which JAX adds up over the devices."""
    function, params = FUNCTIONS[name]

    def loss(params: Any, x: Any, options: Any) -> Any:
        leaves = jax.tree.leaves(function(params, x, **options))
        return sum(0.01 * jnp.sum(leaf**2) for leaf in leaves)  # gradients of some one, as above

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh(batch=4),
        in_specs=(P(), BATCH, BATCH),
        out_specs=(BATCH, P()),
    )
    def run(params: Any, x: Any, options: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, x, options)
        return value[None], gradient

    value, gradient = run(params, X, options)
    expected = jax.value_and_grad(loss)(params, X, options)
    assert_close((jnp.sum(value), gradient), expected, 1e-5)


def test_init_params_on_every_device() -> None:
    keys = shared(jax.random.split(jax.random.key(0), 4), mesh(sets=4), SETS)
    program = jax.jit(jax.vmap(network))
    assert communication(program, keys) == {}
    np.testing.assert_array_equal(program(keys).wh, STACK.wh)
