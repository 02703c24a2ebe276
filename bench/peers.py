"""The programs that are compared: each runs the same network on the same numbers.

Each peer is made by a function of the same name. The function imports the peer's library, so that a
peer whose library is not installed can be left out.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bench.cells import (
    CHECKPOINTS,
    COMPILE,
    CURRENTS,
    DEVICES,
    LEAK,
    LENGTHS,
    MODES,
    SETS,
    SIZES,
    Cell,
    initial_state,
    node_leaks,
    sequence_lengths,
    tangents,
)
from bench.kinds import (
    BY_H0,
    COMPILING,
    DIRECT,
    FORWARD,
    GRADIENT,
    JVP,
    OF_LAST,
    PRODUCT,
    STATES,
    STEPS,
    Run,
    gradient,
    kinds,
)
from jaxrnn import RNNParams, rnn_forward, rnn_states, rnn_step
from jaxrnn.testing import oracle


@dataclass(frozen=True)
class Program:
    """A function of JAX and what it is called on."""

    function: Any
    arguments: tuple[Any, ...]

    def __call__(self) -> Any:
        """Call it, and wait for the result."""
        result = self.function(*self.arguments)
        # All results of a program are ready at the same time. To wait for each of them would take a
        # microsecond of Python.
        (result[0] if isinstance(result, tuple) else result).block_until_ready()
        return result

    def compile(self) -> Any:
        """The compiled program."""
        return self.function.lower(*self.arguments).compile()


# A peer's calls, by kind. Those on JAX are programs, but for the steps in a Python loop.
Peer = dict[str, Callable[[], Any]]


def jaxrnn(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package itself."""
    options: Any = {"leak": node_leaks(cell)} if cell.part in (LEAK, CURRENTS) else {}
    if cell.part == CURRENTS:
        options |= {"activation": jax.nn.identity, "rate": jnp.tanh}
    last = partial(rnn_forward, **options)
    peer = _of_jax(cell, params, x, last, lambda params, x: rnn_states(params, x, **options).h)
    if cell.part == MODES:
        peer[DIRECT] = Program(rnn_forward, (params, x))
        peer[STEPS] = _in_a_python_loop(rnn_step, params, x)
    return peer


def jaxrnn_on_fixed_weights(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the weights as constants of the program, as in ONNX Runtime's model."""
    return {FORWARD: Program(jax.jit(partial(rnn_forward, params)), (x,))}


def jaxrnn_with_lengths(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the lengths as an argument of the program."""

    def run(params: RNNParams[Any], inputs: Any) -> jax.Array:
        return rnn_forward(params, inputs[0], lengths=inputs[1])

    return _of_jax(cell, params, (x, jnp.asarray(sequence_lengths(cell))), run)


def jaxrnn_with_checkpoints(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, which stores one state in about the square root of the number of steps."""
    run = partial(rnn_forward, checkpoint_every=math.isqrt(cell.n_steps))
    return _of_jax(cell, params, x, run)


def jaxrnn_in_chunks(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with as many parameter sets at a time as the cache holds."""
    return {GRADIENT: Program(jax.jit(_in_chunks(cell)), (params, x))}


def jaxrnn_on_devices(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package, with the sets shared among CPU devices, one for each core, in chunks on each."""
    n_devices = max(n for n in range(1, jax.device_count() + 1) if (cell.n_sets or 1) % n == 0)
    mesh = jax.make_mesh((n_devices,), ("sets",), axis_types=(AxisType.Auto,))
    by_set, shared = P("sets"), P()
    run = jax.shard_map(_in_chunks(cell), mesh=mesh, in_specs=(by_set, shared), out_specs=by_set)
    params = jax.device_put(params, NamedSharding(mesh, by_set))
    x = jax.device_put(x, NamedSharding(mesh, shared))
    return {GRADIENT: Program(jax.jit(run), (params, x))}


def _in_chunks(cell: Cell) -> Callable[..., Any]:
    of_one = gradient(rnn_forward)

    def of_sets(params: RNNParams[Any], x: jax.Array) -> Any:
        return jax.lax.map(lambda one: of_one(one, x), params, batch_size=sets_at_once(cell))

    return of_sets


def sets_at_once(cell: Cell) -> int:
    """How many parameter sets together have states of some four megabytes."""
    bytes_of_states = 4 * cell.batch * cell.n_steps * cell.n_nodes
    return max(1, (4 << 20) // bytes_of_states)


def scan_by_hand(
    cell: Cell,
    params: RNNParams[Any],
    x: jax.Array,
    *,
    inputs_first: bool = False,
    unroll: int = 1,
) -> Peer:
    """The loop that one writes by hand; with `inputs_first`, `x wx + b` is computed before it."""
    leak = node_leaks(cell)

    def run(
        params: RNNParams[Any], x: jax.Array, h0: jax.Array | float, keep: bool
    ) -> tuple[jax.Array, Any]:
        wx, wh, b = jax.tree.leaves(params)

        def step(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            of_h = (jnp.tanh(h) if cell.part == CURRENTS else h) @ wh
            a = x_t + of_h if inputs_first else x_t @ wx + of_h + b
            f = a if cell.part == CURRENTS else jnp.tanh(a)
            h = h + leak * (f - h) if cell.part in (LEAK, CURRENTS) else f
            return h, h if keep else None

        x = jnp.moveaxis(x, -2, 0)
        start = jnp.broadcast_to(jnp.asarray(h0, x.dtype), (*x.shape[1:-1], len(wh)))
        return jax.lax.scan(step, start, x @ wx + b if inputs_first else x, unroll=unroll)

    def last(params: RNNParams[Any], x: jax.Array, h0: Any = 0.0) -> jax.Array:
        return run(params, x, h0, False)[0]

    def states(params: RNNParams[Any], x: jax.Array) -> jax.Array:
        return jnp.moveaxis(run(params, x, 0.0, True)[1], 0, -2)

    peer = _of_jax(cell, params, x, last, states)
    if inputs_first or unroll > 1:
        peer.pop(COMPILING, None)  # only the plain scan's is shown
    elif cell.part == MODES:
        peer[STEPS] = _in_a_python_loop(jax.jit(_step_by_hand), params, x)
    return peer


def _step_by_hand(params: RNNParams[Any], h: jax.Array, x_t: jax.Array) -> jax.Array:
    wx, wh, b = jax.tree.leaves(params)
    return jnp.tanh(x_t @ wx + h @ wh + b)


def _in_a_python_loop(step: Any, params: RNNParams[Any], x: jax.Array) -> Callable[[], jax.Array]:
    x_of_steps = list(jnp.moveaxis(x, -2, 0))
    h0 = jnp.zeros((len(x), params.wh.shape[0]), x.dtype)

    def loop() -> jax.Array:
        h = h0
        for x_t in x_of_steps:
            h = step(params, h, x_t)
        return h.block_until_ready()

    return loop


def flax_linen(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell`."""
    from flax import linen

    run = _linen(linen.SimpleCell(cell.n_nodes))
    return _of_jax(cell, params, x, lambda *args: run(*args)[0], lambda *args: run(*args)[1])


def flax_linen_with_lengths(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell`, with `seq_lengths`."""
    from flax import linen

    run = _linen(linen.SimpleCell(cell.n_nodes))
    inputs = x, jnp.asarray(sequence_lengths(cell))
    return _of_jax(cell, params, inputs, lambda params, inputs: run(params, *inputs)[0])


def flax_linen_with_remat(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell` under `flax.linen.remat`, which stores only the states."""
    from flax import linen

    run = _linen(linen.remat(linen.SimpleCell)(cell.n_nodes))
    return _of_jax(cell, params, x, lambda *args: run(*args)[0])


def _linen(of_one_step: Any) -> Callable[..., Any]:
    from flax import linen

    model = linen.RNN(of_one_step, return_carry=True)

    def run(params: RNNParams[Any], x: jax.Array, lengths: Any = None) -> Any:
        weights = {"i": {"kernel": params.wx, "bias": params.b}, "h": {"kernel": params.wh}}
        return model.apply({"params": {"cell": weights}}, x, seq_lengths=lengths)

    return run


def keras(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """`keras.layers.SimpleRNN` on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    def run(params: RNNParams[Any], x: jax.Array, keep: bool) -> Any:
        layer = keras.layers.SimpleRNN(cell.n_nodes, return_sequences=keep)
        layer.build(x.shape)
        other_variables = [variable.value for variable in layer.non_trainable_variables]
        return layer.stateless_call([params.wx, params.wh, params.b], other_variables, x)[0]

    return _of_jax(cell, params, x, partial(run, keep=False), partial(run, keep=True))


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
        if cell.part != LENGTHS:
            return rnn(x_torch)
        pack = torch.nn.utils.rnn.pack_padded_sequence
        return rnn(pack(x_torch, lengths, batch_first=True, enforce_sorted=False))

    def forward() -> Any:
        with torch.no_grad():
            return run()[1][0]

    def gradient_of(pick: Callable[[Any, Any], Any]) -> Any:
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
        GRADIENT: lambda: gradient_of(lambda states, last: last),
        STATES: lambda: gradient_of(lambda states, last: states),
    }
    return {kind: partial(finished, call) for kind, call in calls.items()}


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
    return {FORWARD: lambda: session.run(None, {"X": x_time_first})[0][0]}


def numpy_loop(cell: Cell, params: RNNParams[Any], x: jax.Array) -> Peer:
    """A loop over the steps in float32, as in the teaching notebook that jaxrnn began with."""
    wx, wh, b = (np.asarray(array) for array in params)
    x_numpy = np.asarray(x)

    def forward() -> Any:
        h = np.zeros((len(x_numpy), len(wh)), np.float32)
        for t in range(x_numpy.shape[1]):
            h = np.tanh(x_numpy[:, t] @ wx + h @ wh + b)
        return h

    return {FORWARD: forward}


class Entry(NamedTuple):
    """A peer in the table below.

    Attributes:
      make: the function that makes the peer.
      parts: the parts of the benchmark that it runs in.
      requires: the modules that it imports.
      on_gpu_only: whether it is left out on CPUs.
    """

    make: Callable[[Cell, RNNParams[Any], jax.Array], Peer]
    parts: tuple[str, ...]
    requires: tuple[str, ...] = ()
    on_gpu_only: bool = False


BY_HAND = (SIZES, LEAK, CURRENTS, SETS, DEVICES, CHECKPOINTS, MODES)
PLAIN = "plain scan"
# The scans by hand. Unrolled steps of a loop pay on GPUs alone, where they are launched together.
SCANS = {
    PLAIN: Entry(scan_by_hand, (*BY_HAND, COMPILE)),
    "scan, inputs first": Entry(partial(scan_by_hand, inputs_first=True), BY_HAND),
    "plain scan, unroll=8": Entry(partial(scan_by_hand, unroll=8), BY_HAND, on_gpu_only=True),
    "scan, inputs first, unroll=8": Entry(
        partial(scan_by_hand, inputs_first=True, unroll=8), BY_HAND, on_gpu_only=True
    ),
}
# In each cell the first peer is what the others are compared with. In the cells of lengths and of
# checkpoints it is the same call without the option.
PEERS = {
    "jaxrnn": Entry(jaxrnn, (*BY_HAND, LENGTHS, COMPILE)),
    "jaxrnn on fixed weights": Entry(jaxrnn_on_fixed_weights, (SIZES,)),
    "jaxrnn in chunks": Entry(jaxrnn_in_chunks, (SETS,)),
    "jaxrnn on devices": Entry(jaxrnn_on_devices, (DEVICES,)),
    "jaxrnn, lengths": Entry(jaxrnn_with_lengths, (LENGTHS,)),
    "jaxrnn, checkpoints": Entry(jaxrnn_with_checkpoints, (CHECKPOINTS,)),
    **SCANS,
    "Flax linen": Entry(flax_linen, (SIZES,), ("flax",)),
    "Flax linen, lengths": Entry(flax_linen_with_lengths, (LENGTHS,), ("flax",)),
    "Flax linen, checkpoints": Entry(flax_linen_with_remat, (CHECKPOINTS,), ("flax",)),
    "Keras": Entry(keras, (SIZES,), ("keras",)),
    "torch": Entry(torch, (SIZES, LENGTHS), ("torch",)),
    "ONNX Runtime": Entry(onnx_runtime, (SIZES,), ("onnx", "onnxruntime")),
    "NumPy loop": Entry(numpy_loop, (SIZES,)),
}


def why_left_out(name: str) -> str | None:
    """Why a peer cannot run here, if it cannot."""
    entry = PEERS[name]
    if absent := [module for module in entry.requires if find_spec(module) is None]:
        return f"{' and '.join(absent)} is not installed"
    on_gpu = jax.default_backend() == "gpu"
    return "it is for GPUs" if entry.on_gpu_only and not on_gpu else None


def expected(cell: Cell, kind: str, params: RNNParams[Any], x: Any, *, with_lengths: bool) -> Any:
    """The oracle's result; with many parameter sets, that of the last set."""
    if cell.n_sets is not None:
        params = jax.tree.map(lambda array: array[-1], params)
    options: Any = {"lengths": sequence_lengths(cell)} if with_lengths else {}
    options |= {"leak": node_leaks(cell)} if cell.part in (LEAK, CURRENTS) else {}
    if cell.part == CURRENTS:
        options |= {"activation": oracle.IDENTITY, "rate": oracle.TANH}
    h = oracle.rnn_states(params, np.asarray(x), **options).h
    last = h[..., -1, :]
    if kind == FORWARD:
        return last
    cotangent: Any
    values, cotangent = (h, {"g_h": h}) if kind == STATES else (last, {"g_last": last})
    gradients = oracle.rnn_gradients(params, np.asarray(x), **options, **cotangent)
    return 0.5 * np.sum(values**2), gradients.params


def _of_jax(
    cell: Cell, params: RNNParams[Any], inputs: Any, last: Run, states: Run | None = None
) -> Peer:
    """Every kind of the cell, from the function that returns the last state, or all states."""
    runs = {kind: make(last) for kind, make in OF_LAST.items()}
    if states is not None:
        runs[STATES] = gradient(states)
    if cell.n_sets is not None:
        runs = {kind: jax.vmap(run, in_axes=(0, None)) for kind, run in runs.items()}
    others: dict[str, Any] = {}
    if cell.part == MODES:
        direction = tangents(params)
        others = {JVP: direction, PRODUCT: direction, BY_H0: initial_state(cell)}
    return {
        kind: Program(
            jax.jit(runs[kind]), (params, inputs, *([others[kind]] if kind in others else []))
        )
        for kind in kinds(cell)
        if kind in runs
    }
