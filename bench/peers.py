"""The programs that are compared: each runs the same network on the same numbers.

A peer is made by a function of its name, which imports what it needs, so that one whose library is
not installed can be left out.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, orthogonal

from jaxrnn import RNNParams, init_params, rnn_forward
from jaxrnn.testing import oracle


class Cell(NamedTuple):
    """The sizes of one comparison."""

    batch: int
    n_steps: int
    n_features: int
    n_nodes: int


class Peer(NamedTuple):
    """What a program offers on given parameters and inputs; None for what it does not offer.

    Attributes:
      forward: gives the last hidden state, `(batch, n_nodes)`.
      gradient: gives half the squared norm of that state, and its gradient as `RNNParams`.
      gradient_bytes: what XLA allocates for the gradient besides its arguments and results.
    """

    forward: Callable[[], Any]
    gradient: Callable[[], Any] | None
    gradient_bytes: int | None = None


def network(cell: Cell) -> tuple[RNNParams[Any], jax.Array]:
    """Parameters that neither explode nor die out, and inputs of unit variance."""
    params_key, x_key = jax.random.split(jax.random.key(0))
    params = init_params(
        params_key, cell.n_features, cell.n_nodes, wx_init=normal(0.1), wh_init=orthogonal(0.9)
    )
    return params, jax.random.normal(x_key, (cell.batch, cell.n_steps, cell.n_features))


def jaxrnn(params: RNNParams[Any], x: jax.Array) -> Peer:
    """The package itself."""
    return _of_jax(rnn_forward, params, x)


def plain_scan(params: RNNParams[Any], x: jax.Array) -> Peer:
    """What one writes by hand, which the JAX libraries amount to as well."""

    def run(params: RNNParams[Any], x: jax.Array) -> jax.Array:
        wx, wh, b = jax.tree.leaves(params)

        def step(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(x_t @ wx + h @ wh + b), None

        h0 = jnp.zeros((x.shape[0], wh.shape[0]), x.dtype)
        return jax.lax.scan(step, h0, jnp.swapaxes(x, 0, 1))[0]

    return _of_jax(run, params, x)


def flax_linen(params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.linen.RNN` of a `SimpleCell`."""
    from flax import linen

    model = linen.RNN(linen.SimpleCell(params.wh.shape[0]))

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        cell = {"i": {"kernel": params.wx, "bias": params.b}, "h": {"kernel": params.wh}}
        return model.apply({"params": {"cell": cell}}, x, return_carry=True)[0]

    return _of_jax(run, params, x)


def flax_nnx(params: RNNParams[Any], x: jax.Array) -> Peer:
    """`flax.nnx.RNN` of a `SimpleCell`."""
    from flax import nnx

    cell = nnx.SimpleCell(x.shape[-1], params.wh.shape[0], rngs=nnx.Rngs(0))
    graph, state = nnx.split(nnx.RNN(cell))

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        input_weights = {"kernel": params.wx, "bias": params.b}
        weights = {"cell": {"dense_i": input_weights, "dense_h": {"kernel": params.wh}}}
        own_state = jax.tree.map(lambda value: value, state)
        nnx.replace_by_pure_dict(own_state, weights)
        h0 = jnp.zeros((x.shape[0], params.wh.shape[0]), x.dtype)
        return nnx.merge(graph, own_state)(x, initial_carry=h0, return_carry=True)[0]

    return _of_jax(run, params, x)


def haiku(params: RNNParams[Any], x: jax.Array) -> Peer:
    """`haiku.dynamic_unroll` of a core like `haiku.VanillaRNN`, with tanh for its relu."""
    import haiku as hk

    n_nodes = params.wh.shape[0]

    def unroll(x: jax.Array) -> Any:
        into, within = hk.Linear(n_nodes), hk.Linear(n_nodes, with_bias=False)

        def core(x_t: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(into(x_t) + within(h))
            return h, h

        h0 = jnp.zeros((x.shape[0], n_nodes), x.dtype)
        return hk.dynamic_unroll(core, x, h0, time_major=False)[1]

    model = hk.without_apply_rng(hk.transform(unroll))

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        return model.apply(
            {"linear": {"w": params.wx, "b": params.b}, "linear_1": {"w": params.wh}}, x
        )

    return _of_jax(run, params, x)


def keras(params: RNNParams[Any], x: jax.Array) -> Peer:
    """`keras.layers.SimpleRNN` on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layer = keras.layers.SimpleRNN(params.wh.shape[0])
    layer.build(x.shape)
    other_variables = [variable.value for variable in layer.non_trainable_variables]

    def run(params: RNNParams[Any], x: jax.Array) -> Any:
        weights = [params.wx, params.wh, params.b]
        return layer.stateless_call(weights, other_variables, x)[0]

    return _of_jax(run, params, x)


def torch(params: RNNParams[Any], x: jax.Array) -> Peer:
    """`torch.nn.RNN`, on all cores, without denormal numbers."""
    import torch

    torch.set_flush_denormal(True)
    wx, wh, b = (torch.from_numpy(np.array(array)) for array in params)
    rnn = torch.nn.RNN(x.shape[-1], params.wh.shape[0], batch_first=True)
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(wx.T)
        rnn.weight_hh_l0.copy_(wh.T)
        rnn.bias_ih_l0.copy_(b)
        rnn.bias_hh_l0.zero_().requires_grad_(False)
    x_torch = torch.from_numpy(np.array(x))
    weights = [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0]

    def forward() -> Any:
        with torch.no_grad():
            return rnn(x_torch)[1][0]

    def gradient() -> Any:
        value = 0.5 * torch.sum(rnn(x_torch)[1] ** 2)
        dwx, dwh, db = torch.autograd.grad(value, weights)
        return value.detach(), RNNParams(dwx.T, dwh.T, db)

    return Peer(forward, gradient)


def onnx_runtime(params: RNNParams[Any], x: jax.Array) -> Peer:
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
    return Peer(lambda: session.run(None, {"X": x_time_first})[0][0], None)


def numpy_loop(params: RNNParams[Any], x: jax.Array) -> Peer:
    """The notebook's loop over the steps, in float32."""
    wx, wh, b = (np.asarray(array) for array in params)
    x_numpy = np.asarray(x)

    def forward() -> Any:
        h = np.zeros((len(x_numpy), len(wh)), np.float32)
        for t in range(x_numpy.shape[1]):
            h = np.tanh(x_numpy[:, t] @ wx + h @ wh + b)
        return h

    return Peer(forward, None)


# The first is what the others are compared with.
PEERS: dict[str, Callable[[RNNParams[Any], jax.Array], Peer]] = {
    "jaxrnn": jaxrnn,
    "plain scan": plain_scan,
    "Flax linen": flax_linen,
    "Flax nnx": flax_nnx,
    "Haiku": haiku,
    "Keras": keras,
    "torch": torch,
    "ONNX Runtime": onnx_runtime,
    "NumPy loop": numpy_loop,
}


def expected(params: RNNParams[Any], x: jax.Array) -> Peer:
    """What the oracle says."""
    h = oracle.rnn_forward(params, np.asarray(x))
    gradients = oracle.rnn_gradients(params, np.asarray(x), g_last=h)
    return Peer(lambda: h, lambda: (0.5 * np.sum(h**2), gradients.params))


def _of_jax(run: Callable[..., jax.Array], params: RNNParams[Any], x: jax.Array) -> Peer:
    forward = jax.jit(run)
    gradient = jax.jit(jax.value_and_grad(lambda params, x: 0.5 * jnp.sum(run(params, x) ** 2)))
    memory: Any = gradient.lower(params, x).compile().memory_analysis()
    return Peer(
        lambda: jax.block_until_ready(forward(params, x)),
        lambda: jax.block_until_ready(gradient(params, x)),
        memory.temp_size_in_bytes,
    )
