"""The programs that are compared: each runs the same network on the same numbers."""

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
      forward: gives the last hidden state.
      gradient: gives the gradient by the parameters of half the squared norm of that state.
    """

    forward: Callable[[], Any]
    gradient: Callable[[], Any] | None


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


PEERS = {"jaxrnn": jaxrnn, "plain scan": plain_scan, "NumPy loop": numpy_loop}


def expected(params: RNNParams[Any], x: jax.Array) -> tuple[Any, RNNParams[Any]]:
    """The oracle's forward and gradient."""
    h = oracle.rnn_forward(params, np.asarray(x))
    return h, oracle.rnn_gradients(params, np.asarray(x), g_last=h).params


def _of_jax(run: Callable[..., jax.Array], params: RNNParams[Any], x: jax.Array) -> Peer:
    forward = jax.jit(run)
    gradient = jax.jit(jax.grad(lambda params, x: 0.5 * jnp.sum(run(params, x) ** 2)))
    return Peer(
        lambda: jax.block_until_ready(forward(params, x)),
        lambda: jax.block_until_ready(gradient(params, x)),
    )
