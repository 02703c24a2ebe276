"""The programs that are compared: each runs the same network on the same numbers.

Each peer is made by a function of the same name. The function imports the peer's library, so that a
peer whose library is not installed can be left out.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bench.cells import CHECKPOINTS, LEAK, LENGTHS, Cell, node_leaks, sequence_lengths
from jaxrnn import RNNParams, rnn_forward, rnn_states
from jaxrnn.testing import oracle

# What is timed. A gradient is that of half the sum of the squares, and comes with this value.
FORWARD = "forward"
GRADIENT = "gradient"
STATES = "gradient through all states"

# A run on one parameter set returns the last hidden state, `(batch, n_nodes)`, or all hidden
# states, `(batch, n_steps, n_nodes)`.
Run = Callable[[Any, Any], Any]


class Peer(NamedTuple):
    """The calls that a peer offers on given parameters and inputs, by kind.

    Attributes:
      calls: functions of no arguments that return the result.
      programs: for peers on JAX, the jitted functions behind these calls.
      arguments: what these functions take, parameters and inputs.
    """

    calls: dict[str, Callable[[], Any]]
    programs: dict[str, Any]
    arguments: tuple[Any, ...] = ()


def jaxrnn(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package itself."""
    options: Any = {"leak": node_leaks(cell)} if cell.option == LEAK else {}
    last = partial(rnn_forward, **options)
    return _of_jax(last, lambda params, x: rnn_states(params, x, **options).h, cell, params, x)


def jaxrnn_on_fixed_weights(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the weights as constants of the program, as in ONNX Runtime's model."""
    run = jax.jit(partial(rnn_forward, params))
    return Peer({FORWARD: lambda: run(x).block_until_ready()}, {})


def jaxrnn_with_lengths(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the lengths as an argument of the program."""

    def run(params: RNNParams[Any], inputs: Any) -> Any:
        return rnn_forward(params, inputs[0], lengths=inputs[1])

    return _of_last(run, params, (x, jnp.asarray(sequence_lengths(cell))))


def jaxrnn_with_checkpoints(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, which stores one state in about the square root of the number of steps."""
    run = partial(rnn_forward, checkpoint_every=math.isqrt(cell.n_steps))
    return _of_last(run, params, x)


def jaxrnn_in_chunks(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with as many parameter sets at a time as the cache holds."""
    return _peer({GRADIENT: jax.jit(_in_chunks(cell))}, params, x)


def jaxrnn_on_devices(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the sets shared among CPU devices, one for each core, in chunks on each."""
    n_devices = max(n for n in range(1, jax.device_count() + 1) if (cell.n_sets or 1) % n == 0)
    mesh = jax.make_mesh((n_devices,), ("sets",), axis_types=(AxisType.Auto,))
    by_set, shared = P("sets"), P()
    run = jax.shard_map(_in_chunks(cell), mesh=mesh, in_specs=(by_set, shared), out_specs=by_set)
    params = jax.device_put(params, NamedSharding(mesh, by_set))
    x = jax.device_put(x, NamedSharding(mesh, shared))
    return _peer({GRADIENT: jax.jit(run)}, params, x)


def _in_chunks(cell: Cell) -> Run:
    gradient = jax.value_and_grad(partial(_half_square, rnn_forward))

    def of_sets(params: RNNParams[Any], x: jax.Array) -> Any:
        return jax.lax.map(lambda one: gradient(one, x), params, batch_size=sets_at_once(cell))

    return of_sets


def sets_at_once(cell: Cell) -> int:
    """How many parameter sets together have states of some four megabytes."""
    bytes_of_states = 4 * cell.batch * cell.n_steps * cell.n_nodes
    return max(1, (4 << 20) // bytes_of_states)


def plain_scan(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The loop that one writes by hand; the JAX libraries amount to the same."""

    def run(params: RNNParams[Any], x: jax.Array, keep: bool) -> Any:
        wx, wh, b = jax.tree.leaves(params)
        leak = node_leaks(cell)

        def step(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            f = jnp.tanh(x_t @ wx + h @ wh + b)
            h = h + leak * (f - h) if cell.option == LEAK else f
            return h, h if keep else None

        h0 = jnp.zeros((x.shape[0], wh.shape[0]), x.dtype)
        return jax.lax.scan(step, h0, jnp.swapaxes(x, 0, 1))

    return _of_jax(
        lambda params, x: run(params, x, False)[0],
        lambda params, x: jnp.swapaxes(run(params, x, True)[1], 0, 1),
        cell,
        params,
        x,
    )


def flax_linen(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell`."""
    from flax import linen

    run = _linen(linen.SimpleCell(cell.n_nodes))
    return _of_jax(lambda *args: run(*args)[0], lambda *args: run(*args)[1], cell, params, x)


def flax_linen_with_lengths(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell`, with `seq_lengths`."""
    from flax import linen

    run = _linen(linen.SimpleCell(cell.n_nodes))
    inputs = x, jnp.asarray(sequence_lengths(cell))
    return _of_last(lambda params, inputs: run(params, *inputs)[0], params, inputs)


def flax_linen_with_remat(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell` under `flax.linen.remat`, which stores only the states."""
    from flax import linen

    run = _linen(linen.remat(linen.SimpleCell)(cell.n_nodes))
    return _of_last(lambda *args: run(*args)[0], params, x)


def _linen(of_one_step: Any) -> Callable[..., Any]:
    from flax import linen

    model = linen.RNN(of_one_step, return_carry=True)

    def run(params: RNNParams[Any], x: jax.Array, lengths: Any = None) -> Any:
        weights = {"i": {"kernel": params.wx, "bias": params.b}, "h": {"kernel": params.wh}}
        return model.apply({"params": {"cell": weights}}, x, seq_lengths=lengths)

    return run


def flax_nnx(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.nnx.RNN` of a `SimpleCell`."""
    from flax import nnx

    of_one_step = nnx.SimpleCell(cell.n_features, cell.n_nodes, rngs=nnx.Rngs(0))
    graph, state = nnx.split(nnx.RNN(of_one_step))

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        input_weights = {"kernel": params.wx, "bias": params.b}
        weights = {"cell": {"dense_i": input_weights, "dense_h": {"kernel": params.wh}}}
        own_state = jax.tree.map(lambda value: value, state)
        nnx.replace_by_pure_dict(own_state, weights)
        h0 = jnp.zeros((x.shape[0], params.wh.shape[0]), x.dtype)
        return nnx.merge(graph, own_state)(x, initial_carry=h0, return_carry=True)

    return _of_jax(lambda *args: run(*args)[0], lambda *args: run(*args)[1], cell, params, x)


def haiku(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`haiku.dynamic_unroll` of a core like `haiku.VanillaRNN`, but with tanh in place of relu."""
    import haiku as hk

    def unroll(x: jax.Array) -> Any:
        into, within = hk.Linear(cell.n_nodes), hk.Linear(cell.n_nodes, with_bias=False)

        def core(x_t: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(into(x_t) + within(h))
            return h, h

        h0 = jnp.zeros((x.shape[0], cell.n_nodes), x.dtype)
        return hk.dynamic_unroll(core, x, h0, time_major=False)

    model = hk.without_apply_rng(hk.transform(unroll))

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        weights = {"linear": {"w": params.wx, "b": params.b}, "linear_1": {"w": params.wh}}
        return model.apply(weights, x)

    return _of_jax(lambda *args: run(*args)[1], lambda *args: run(*args)[0], cell, params, x)


def keras(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`keras.layers.SimpleRNN` on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    def run(params: RNNParams[Any], x: jax.Array, keep: bool) -> Any:
        layer = keras.layers.SimpleRNN(cell.n_nodes, return_sequences=keep)
        layer.build(x.shape)
        other_variables = [variable.value for variable in layer.non_trainable_variables]
        return layer.stateless_call([params.wx, params.wh, params.b], other_variables, x)[0]

    return _of_jax(partial(run, keep=False), partial(run, keep=True), cell, params, x)


def torch(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`torch.nn.RNN` on all cores, without denormal numbers; with lengths, on packed sequences.

    Where JAX has a GPU, torch runs there too, which is cuDNN.
    """
    import torch

    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    on_gpu = jax.default_backend() == "gpu"
    torch.set_default_device("cuda" if on_gpu else "cpu")
    wx, wh, b = (torch.asarray(np.array(array)) for array in params)
    rnn = torch.nn.RNN(cell.n_features, cell.n_nodes, batch_first=True)
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(wx.T)
        rnn.weight_hh_l0.copy_(wh.T)
        rnn.bias_ih_l0.copy_(b)
        rnn.bias_hh_l0.zero_().requires_grad_(False)
    x_torch = torch.asarray(np.array(x))
    lengths = torch.from_numpy(sequence_lengths(cell))  # on the CPU, as packing wants it
    weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0]

    def run() -> Any:
        if cell.option != LENGTHS:
            return rnn(x_torch)
        pack = torch.nn.utils.rnn.pack_padded_sequence
        return rnn(pack(x_torch, lengths, batch_first=True, enforce_sorted=False))

    def forward() -> Any:
        with torch.no_grad():
            return run()[1][0]

    def gradient(pick: Callable[[Any, Any], Any]) -> Any:
        value = 0.5 * torch.sum(pick(*run()) ** 2)
        dwx, dwh, db = torch.autograd.grad(value, weights)
        return value.detach(), RNNParams(dwx.T, dwh.T, db)

    def finished(call: Callable[[], Any]) -> Any:
        result = call()
        if on_gpu:
            torch.cuda.synchronize()
        return result

    calls = {
        FORWARD: forward,
        GRADIENT: lambda: gradient(lambda states, last: last),
        STATES: lambda: gradient(lambda states, last: states),
    }
    return Peer({kind: partial(finished, call) for kind, call in calls.items()}, {})


def onnx_runtime(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """ONNX Runtime's `RNN`, which has no gradient."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    wx, wh, b = (np.asarray(array) for array in params)
    weights = {"W": wx.T[None], "R": wh.T[None], "B": np.concatenate([b, 0 * b])[None]}
    x_time_first = np.ascontiguousarray(np.swapaxes(x, 0, 1))
    node = helper.make_node("RNN", ["X", "W", "R", "B"], ["", "Y_h"], hidden_size=len(wh))
    graph = helper.make_graph(
        [node],
        "rnn",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, x_time_first.shape)],
        [helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, (1, len(x), len(wh)))],
        [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return Peer({FORWARD: lambda: session.run(None, {"X": x_time_first})[0][0]}, {})


def numpy_loop(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """A loop over the steps in float32, as in the teaching notebook that jaxrnn began with."""
    wx, wh, b = (np.asarray(array) for array in params)
    x_numpy = np.asarray(x)

    def forward() -> Any:
        h = np.zeros((len(x_numpy), len(wh)), np.float32)
        for t in range(x_numpy.shape[1]):
            h = np.tanh(x_numpy[:, t] @ wx + h @ wh + b)
        return h

    return Peer({FORWARD: forward}, {})


ONE, MANY = "one", "many"


class Entry(NamedTuple):
    """A peer in the table below.

    Attributes:
      make: the function that makes the peer.
      requires: the modules that it imports.
      runs: the cells that it runs in: those of ONE parameter set, of MANY (by `jax.vmap` or in its
        own way), or of an option.
      forward_only: whether it has no gradient.
    """

    make: Callable[[Cell, RNNParams[Any], jax.Array], Peer]
    requires: tuple[str, ...] = ()
    runs: tuple[str, ...] = (ONE, MANY)
    forward_only: bool = False


# In each cell the first peer is what the others are compared with. In the cells of lengths and of
# checkpoints it is the same call without the option.
PEERS = {
    "jaxrnn": Entry(jaxrnn, runs=(ONE, MANY, LENGTHS, CHECKPOINTS, LEAK)),
    "jaxrnn on fixed weights": Entry(jaxrnn_on_fixed_weights, runs=(ONE,), forward_only=True),
    "jaxrnn in chunks": Entry(jaxrnn_in_chunks, runs=(MANY,)),
    "jaxrnn on devices": Entry(jaxrnn_on_devices, runs=(MANY,)),
    "jaxrnn, lengths": Entry(jaxrnn_with_lengths, runs=(LENGTHS,)),
    "jaxrnn, checkpoints": Entry(jaxrnn_with_checkpoints, runs=(CHECKPOINTS,)),
    "plain scan": Entry(plain_scan, runs=(ONE, MANY, CHECKPOINTS, LEAK)),
    "Flax linen": Entry(flax_linen, ("flax",)),
    "Flax linen, lengths": Entry(flax_linen_with_lengths, ("flax",), runs=(LENGTHS,)),
    "Flax linen, remat": Entry(flax_linen_with_remat, ("flax",), runs=(CHECKPOINTS,)),
    "Flax nnx": Entry(flax_nnx, ("flax",)),
    "Haiku": Entry(haiku, ("haiku",)),
    "Keras": Entry(keras, ("keras",)),
    "torch": Entry(torch, ("torch",), runs=(ONE, LENGTHS)),
    "ONNX Runtime": Entry(onnx_runtime, ("onnx", "onnxruntime"), (ONE,), forward_only=True),
    "NumPy loop": Entry(numpy_loop, runs=(ONE,), forward_only=True),
}

# What the peers offer in each kind of cell.
KINDS = {
    ONE: (FORWARD, GRADIENT, STATES),
    MANY: (GRADIENT,),
    LENGTHS: (FORWARD, GRADIENT),
    CHECKPOINTS: (GRADIENT,),
    LEAK: (FORWARD, GRADIENT, STATES),
}


def missing(name: str) -> list[str]:
    """The modules that a peer needs and that are not installed."""
    return [module for module in PEERS[name].requires if find_spec(module) is None]


def made(names: list[str], cell: Cell) -> dict[str, tuple[str, ...]]:
    """Those of the named peers that run in a cell, and what each must offer there."""
    wanted = cell.option or (ONE if cell.n_sets is None else MANY)
    return {
        name: (FORWARD,) if PEERS[name].forward_only else KINDS[wanted]
        for name in names
        if wanted in PEERS[name].runs
    }


def expected(
    cell: Cell, params: RNNParams[Any], x: jax.Array, *, with_lengths: bool
) -> dict[str, Any]:
    """The oracle's results, by kind; with many parameter sets, those of the last set."""
    if cell.n_sets is not None:
        params = jax.tree.map(lambda array: array[-1], params)
    options: Any = {"lengths": sequence_lengths(cell)} if with_lengths else {}
    options |= {"leak": node_leaks(cell)} if cell.option == LEAK else {}
    h = oracle.rnn_states(params, np.asarray(x), **options).h
    last = h[..., -1, :]

    def gradient(values: Any, **cotangents: Any) -> Any:
        gradients = oracle.rnn_gradients(params, np.asarray(x), **options, **cotangents)
        return 0.5 * np.sum(values**2), gradients.params

    references = {FORWARD: last, GRADIENT: gradient(last, g_last=last)}
    if cell.option in (None, LEAK) and cell.n_sets is None:
        references[STATES] = gradient(h, g_h=h)
    return references


def _of_last(last: Run, params: RNNParams[Any], inputs: Any) -> Peer:
    programs = {FORWARD: last, GRADIENT: jax.value_and_grad(partial(_half_square, last))}
    return _peer({kind: jax.jit(run) for kind, run in programs.items()}, params, inputs)


def _of_jax(last: Run, states: Run, cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    gradient = jax.value_and_grad(partial(_half_square, last))
    if cell.n_sets is not None:
        of_sets = {FORWARD: last, GRADIENT: gradient}
        programs = {
            kind: jax.jit(jax.vmap(run, in_axes=(0, None))) for kind, run in of_sets.items()
        }
        return _peer(programs, params, x)
    through_states = jax.value_and_grad(partial(_half_square, states))
    of_one = {FORWARD: last, GRADIENT: gradient, STATES: through_states}
    return _peer({kind: jax.jit(run) for kind, run in of_one.items()}, params, x)


def _peer(programs: dict[str, Any], *arguments: Any) -> Peer:
    def call(kind: str) -> Any:
        result = programs[kind](*arguments)
        # All results of a program are ready at the same time. To wait for each of them would take a
        # microsecond of Python.
        (result if kind == FORWARD else result[0]).block_until_ready()
        return result

    return Peer({kind: partial(call, kind) for kind in programs}, programs, arguments)


def _half_square(run: Run, params: RNNParams[Any], inputs: Any) -> jax.Array:
    return 0.5 * jnp.sum(run(params, inputs) ** 2)
