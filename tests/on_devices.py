"""The tests of `test_devices.py`, which runs this file in a process with four devices."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import glorot_uniform
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn import (
    RNNParams,
    init_params,
    rnn_bidirectional,
    rnn_forward,
    rnn_stacked,
    rnn_states,
    rnn_step,
)
from tests.compiled import COLLECTIVES, communication, communication_in_loops
from tests.helpers import IS_LONG, assert_close

# By default there is one of each kind of case, and all of them if IS_LONG.

SETS, BATCH = P("sets"), P("batch")
X = jax.random.normal(jax.random.key(1), (8, 7, 3))
LENGTHS = jnp.array([7, 0, 1, 5, 7, 2, 3, 4])


def network(key: jax.Array, n_nodes: int = 16) -> Any:
    return init_params(key, 3, n_nodes, wx_init=glorot_uniform(), wh_init=glorot_uniform())


PARAMS = network(jax.random.key(0))
STACK = jax.vmap(network)(jax.random.split(jax.random.key(0), 4))


def mesh(kind: AxisType = AxisType.Auto, **sizes: int) -> Any:
    assert jax.device_count() == 4
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (kind,) * len(sizes))


def shared(array: Any, on: Any, spec: Any) -> Any:
    return jax.device_put(array, NamedSharding(on, spec))


def last(params: Any, x: Any, options: Any) -> Any:
    """With one state, which is differentiated, for all sequences to start from."""
    return jnp.mean(rnn_forward(params, x, params.b, **options) ** 2)


def states(params: Any, x: Any, options: Any) -> Any:
    return jnp.mean(rnn_states(params, x, **options).h ** 2)


WITHOUT: dict[str, Any] = {}
WITH = {"lengths": LENGTHS}


def assert_communicates(needed: set[str], expected: Any, program: Any, *args: Any) -> None:
    """The compiled program has only these collectives, none in a loop, and gives `expected`."""
    compiled = program.lower(*args).compile()
    assert communication(compiled).keys() == needed
    assert communication_in_loops(compiled) == {}
    assert_close(compiled(*args), expected, 1e-6)


COMMUNICATING: dict[str, Any] = {
    "all-reduce": lambda x: jax.lax.psum(x, "batch"),
    "all-gather": lambda x: jax.lax.all_gather(x, "batch"),
    "all-to-all": lambda x: jax.lax.all_to_all(x, "batch", 0, 0),
    "collective-permute": lambda x: jax.lax.ppermute(x, "batch", [(0, 1), (1, 0)]),
    "reduce-scatter": lambda x: jax.lax.psum_scatter(x, "batch", tiled=True),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_every_collective_is_found(name: str) -> None:
    """In programs that have it, so that the other tests can say that a program has none."""

    def in_loop(x: Any) -> Any:
        return jax.lax.map(COMMUNICATING[name], jnp.stack([x, 2 * x]))

    on = mesh(batch=4)
    for run, in_loops in ((COMMUNICATING[name], set()), (in_loop, {name})):
        program = jax.shard_map(run, mesh=on, in_specs=BATCH, out_specs=BATCH, check_vma=False)
        compiled = jax.jit(program).lower(jnp.ones((16, 2))).compile()
        assert communication(compiled).keys() == {name}
        assert communication_in_loops(compiled).keys() == in_loops


SHARES: dict[str, Any] = {
    "batch": ({"batch": 4}, (P(), BATCH)),
    "sets": ({"sets": 4}, (SETS, P())),
    "sets and batch": ({"sets": 2, "batch": 2}, (SETS, BATCH)),
}


@pytest.mark.parametrize(
    ("share", "loss", "options", "n_nodes"),
    [
        ("batch", last, WITHOUT, 4),
        ("batch", states, WITH, 16),
        ("batch", last, WITH, 64),
        ("sets", last, WITH, 16),
        ("sets and batch", last, WITH, 16),
    ],
)
def test_only_the_gradients_of_a_shared_batch_are_summed(
    share: str, loss: Any, options: Any, n_nodes: int
) -> None:
    """Neither its values nor parameter sets need communication.

    Nor if `in_shardings` alone say that the batch is shared, and its type does not.
    """
    sizes, specs = SHARES[share]
    params, gradient = network(jax.random.key(0), n_nodes), jax.value_and_grad(loss)
    if share != "batch":
        params, gradient = STACK, jax.vmap(gradient, in_axes=(0, None, None))
    gradient, on = jax.jit(gradient), mesh(**sizes)
    args = shared(params, on, specs[0]), *(shared(each, on, specs[1]) for each in (X, options))
    needed = set() if share == "sets" else {"all-reduce"}
    expected = gradient(params, X, options)
    assert_communicates(needed, expected, gradient, *args)
    if options is WITHOUT:
        by = tuple(NamedSharding(on, spec) for spec in (*specs, specs[1]))
        compiled = jax.jit(gradient, in_shardings=by).lower(params, X, options).compile()
        assert communication(compiled).keys() == {"all-reduce"}
        assert_close(compiled(*args), expected, 1e-6)
    if share == "batch":
        assert communication(jax.jit(rnn_forward).lower(*args[:2]).compile()) == {}


@pytest.mark.parametrize(
    "fields", [RNNParams._fields, *((each,) for each in (RNNParams._fields if IS_LONG else ["wh"]))]
)
def test_gradients_of_parameter_sets_have_their_explicit_axis(fields: tuple[str, ...]) -> None:
    """Their types have it, and from these JAX decides on which devices it goes on.

    Also if there is one parameter that is on the mesh, and neither the others nor x are.
    """
    on = mesh(AxisType.Explicit, sets=4)
    stacks = {field: getattr(STACK, field) for field in fields}
    axes: Any = RNNParams(*(0 if field in fields else None for field in RNNParams._fields))
    run = jax.vmap(jax.value_and_grad(partial(last, x=X, options=WITH)), in_axes=(axes,))
    with jax.set_mesh(on) if len(fields) > 1 else nullcontext():
        params = PARAMS._replace(**shared(stacks, on, SETS))
        _, types = jax.eval_shape(lambda: run(params))
        assert [each.sharding.spec[0] for each in types] == ["sets"] * 3
        actual = jax.jit(run)(params)
    assert_close(actual, run(PARAMS._replace(**stacks)), 1e-6)


def test_the_second_batch_axis_may_be_shared() -> None:
    on = mesh(AxisType.Explicit, batch=4)
    x = jnp.stack([X, -X])
    gradient = jax.jit(jax.value_and_grad(last))
    args = shared(PARAMS, on, P()), shared(x, on, P(None, "batch")), WITHOUT
    assert_communicates({"all-reduce"}, gradient(PARAMS, x, WITHOUT), gradient, *args)


N_NODES = 4
RESETS = jax.random.uniform(jax.random.key(2), (8, 7)) < 0.3
WHERE = {"lengths": LENGTHS, "resets": RESETS}
SMALL = network(jax.random.key(0), N_NODES)
SMALL_STACK = jax.vmap(partial(network, n_nodes=N_NODES))(jax.random.split(jax.random.key(0), 4))


def layers(params: Any, x: Any, **options: Any) -> Any:
    """Two layers with dropout between them."""
    network = (params, params._replace(wx=params.wh))
    return rnn_stacked(network, x, dropout=0.5, key=jax.random.key(3), **options)


# Each with options of its own, or options that change its loops.
FUNCTIONS: dict[str, Any] = {
    "rnn_step": lambda params, x, **_: rnn_step(params, params.b, x[:, 0]),
    "rnn_forward": lambda params, x, **where: rnn_forward(
        params, x, params.b, reset_to=2 * params.b, reverse=True, **where
    ),
    "rnn_forward, checkpoints": partial(rnn_forward, checkpoint_every=2),
    "rnn_states": partial(rnn_states, leak=jnp.linspace(0.1, 1, N_NODES)),
    "rnn_bidirectional": lambda params, x, **where: rnn_bidirectional((params,) * 2, x, **where),
    "rnn_stacked": layers,
}


def derivatives(name: str) -> Callable[..., Any]:
    """Value, gradient, and a Hessian-vector product of a function, in one program."""

    def loss(params: Any, x: Any, where: Any) -> Any:
        out = FUNCTIONS[name](params, x, **where)
        small = (0.01 * jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out))
        return sum(small), out  # gradients are about 1

    def run(params: Any, x: Any, where: Any) -> Any:
        def gradient(params: Any) -> Any:
            return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x, where)

        along = jax.tree.map(jnp.ones_like, params)
        gradients, tangents, out = jax.jvp(gradient, (params,), (along,), has_aux=True)
        return out, gradients, tangents

    return run


@cache
def of_one_device(name: str, share: str) -> Any:
    """What one device gives; `share` is "sets" for "sets and batch" too.

    For `shard_map` it is put together from the parts of the batch, as each part uses the same key
    for dropout.
    """
    run, params, args = derivatives(name), SMALL, (X, WHERE)
    if share == "sets":
        run, params = jax.vmap(run, in_axes=(0, None, None)), SMALL_STACK
    if share != "shard_map":
        return jax.device_get(jax.jit(run)(params, *args))
    parts = jax.tree.map(lambda array: array.reshape(4, 2, *array.shape[1:]), args)
    out, *gradients = jax.device_get(jax.jit(jax.vmap(run, (None, 0, 0)))(params, *parts))
    joined = partial(jax.tree.map, np.concatenate)
    added_up = partial(jax.tree.map, partial(np.sum, axis=0))
    return joined(out), *((added_up(by_params), joined(by_x)) for by_params, by_x in gradients)


SHARES["shard_map"] = SHARES["batch"]
MESHES = list(product(SHARES, (AxisType.Explicit, AxisType.Auto), (False, True)))
# Every function on every mesh takes minutes. By default two are tested, on one mesh each.


@pytest.mark.parametrize(
    ("name", "share", "kind", "is_set"),
    [
        pytest.param(
            *(name, *on),
            # With `--dist loadgroup` one process has all that use the same result of one device.
            marks=pytest.mark.xdist_group(f"{name}, {on[0].removesuffix(' and batch')}"),
        )
        for i, name in enumerate(FUNCTIONS)
        for j, on in enumerate(MESHES)
        if IS_LONG or (i in (3, 5) and j == 5 * i % 16)
    ],
)
def test_every_function_on_every_mesh(name: str, share: str, kind: AxisType, is_set: bool) -> None:
    sizes, specs = SHARES[share]
    on = mesh(kind, **sizes)
    run, params = derivatives(name), SMALL
    if share.startswith("sets"):
        run, params = jax.vmap(run, in_axes=(0, None, None)), SMALL_STACK
    if share == "shard_map":
        in_specs, out_specs = (P(), BATCH, BATCH), (BATCH, (P(), BATCH), (P(), BATCH))
        run = jax.shard_map(run, mesh=on, in_specs=in_specs, out_specs=out_specs)
    args = shared(params, on, specs[0]), *(shared(each, on, specs[1]) for each in (X, WHERE))
    with jax.set_mesh(on) if is_set else nullcontext():
        compiled = jax.jit(run).lower(*args).compile()
        actual = jax.device_get(compiled(*args))
    needed = set() if share == "sets" else {"all-reduce"}
    assert communication(compiled).keys() <= needed
    if "checkpoints" not in name:  # with them the gradient is added up once for each piece
        assert communication_in_loops(compiled) == {}
    assert_close(actual, of_one_device(name, share.removesuffix(" and batch")), 1e-5)


FEW_SIZES = (1, 1), (2, 1), (1, 3)  # of features and nodes


@pytest.mark.parametrize(
    ("sizes", "seed"),
    [*product(FEW_SIZES, range(6))] if IS_LONG else [*zip(FEW_SIZES, range(3), strict=True)],
    ids=str,
)
def test_each_argument_may_be_shared_or_not(sizes: tuple[int, int], seed: int) -> None:
    """By an explicit axis, replicated, or on no mesh: each beside every other."""
    random, on = np.random.default_rng(seed), mesh(AxisType.Explicit, batch=4)
    n_features, n_nodes = sizes
    params = network(jax.random.key(0), n_nodes)._replace(wx=jnp.ones((n_features, n_nodes)))
    leak_shape = ((8, 7, n_nodes), (8, 1, n_nodes), (8, 7, 1))[seed % 3]
    floats = {"x": (8, 7, n_features), "h0": (8, n_nodes), "leak": leak_shape, "reset_to": (8, 1)}
    arrays = {name: random.uniform(0, 1, shape).astype("f") for name, shape in floats.items()}
    arrays |= {"lengths": np.array(LENGTHS), "resets": np.array(RESETS)}
    if seed % 2:
        del arrays["resets"], arrays["reset_to"]

    def loss(params: Any, arrays: Any) -> Any:
        h = rnn_states(params, **arrays, activation=(jnp.tanh, jax.nn.silu)[seed % 2]).h
        return jnp.sum(jnp.sin(h)), h

    def place(array: Any) -> Any:
        return (array, shared(array, on, P()), shared(array, on, BATCH))[random.integers(3)]

    both = jax.jit(jax.grad(loss, has_aux=True))
    expected = both(params, arrays)
    params = shared(params, on, P())
    placed = {name: place(array) for name, array in arrays.items()}
    for name in ("lengths", "leak") if seed % 3 else ("x",):
        placed[name] = shared(arrays[name], on, BATCH)
    assert_close(loss(params, placed)[1], expected[1], 1e-5)
    assert_close(both(params, placed), expected, 1e-5)


def test_a_step_with_a_function_of_ones_own() -> None:
    """In a direct call, which is not compiled where there is no mesh."""
    x, on = X[:, 0], mesh(AxisType.Explicit, batch=4)
    step = partial(rnn_step, SMALL, SMALL.b, activation=lambda a: jnp.sin(a))
    actual = step(shared(x, on, BATCH))
    assert jax.typeof(actual).sharding.spec[0] == "batch"
    assert_close(actual, step(x), 1e-6)


@pytest.mark.parametrize("rate", [None, jnp.tanh])
def test_only_what_a_function_reads_is_shared(rate: Any) -> None:
    """By an explicit axis, or as it varies in `shard_map`: gains of sequences that share one x."""
    gains, x = jnp.linspace(0.5, 2, 8)[:, None], jnp.broadcast_to(X[:1], X.shape)

    def total(gains: Any, x: Any) -> Any:
        def own(a: Any) -> Any:
            return jnp.tanh(gains * a)

        options: Any = {"activation": own} if rate is None else {"rate": own}
        return jnp.sum(rnn_states(SMALL, x, **options).h, axis=(1, 2))

    def both(gains: Any, x: Any) -> Any:
        return jax.grad(lambda *args: jnp.sum(jnp.sin(total(*args))), (0, 1))(gains, x)

    on, expected = mesh(AxisType.Explicit, batch=4), jax.jit(both)(gains, x)
    run = jax.shard_map(total, mesh=mesh(batch=4), in_specs=(BATCH, P()), out_specs=BATCH)
    assert_close(jax.jit(run)(gains, x[:2]), total(gains, x), 1e-5)
    assert_close(jax.jit(both)(shared(gains, on, BATCH), shared(x, on, P())), expected, 1e-5)


def varied(params: Any, x: Any, each: Any, what: str) -> Any:
    """The last state, with one argument changed by a number that each device has of its own."""
    options: dict[str, Any] = {
        "leak": {"leak": 0.5 * each},
        "h0": {"h0": params.b * each},
        "reset_to": {"resets": RESETS, "reset_to": params.b * each},
        "lengths": {"lengths": jnp.minimum(LENGTHS, each.astype(jnp.int32))},
        "resets": {"resets": RESETS & (each > 2)},
    }
    if what not in options:
        params = params._replace(**{what: getattr(params, what) * each})
    return rnn_forward(params, x, **options.get(what, {}))


OTHERS = ["wx", "b", "h0", "reset_to"] if IS_LONG else []


@pytest.mark.parametrize("what", ["wh", "leak", "lengths", "resets", *OTHERS])
def test_one_argument_varies_in_shard_map(what: str) -> None:
    """The state varies over the devices if anything does, be it a mask alone."""
    each = jnp.arange(1.0, 5.0)

    def both(params: Any, x: Any, each: Any) -> Any:
        def total(each: Any) -> Any:
            return jnp.sum(varied(params, x, each, what))

        return jax.vmap(jax.value_and_grad(total))(each)

    specs: Any = {"in_specs": (P(), P(), BATCH), "out_specs": BATCH}
    run = jax.shard_map(both, mesh=mesh(batch=4), **specs)
    assert_close(jax.jit(run)(SMALL, X, each), jax.jit(both)(SMALL, X, each), 1e-5)


def test_shard_map_is_linearized_by_numpy_parameters() -> None:
    params, x = jax.tree.map(np.asarray, (SMALL, X))
    run = jax.shard_map(rnn_forward, mesh=mesh(batch=4), in_specs=(P(), BATCH), out_specs=BATCH)
    out, tangents = jax.linearize(lambda params: run(params, x), params)
    expected = jax.jvp(lambda params: rnn_forward(params, x), (params,), (params,))
    assert_close((out, tangents(params)), expected, 1e-6)


def test_init_params_on_every_device() -> None:
    keys = shared(jax.random.split(jax.random.key(0), 4), mesh(sets=4), SETS)
    program = jax.jit(jax.vmap(network)).lower(keys).compile()
    assert communication(program) == {}
    np.testing.assert_array_equal(program(keys).wh, STACK.wh)
