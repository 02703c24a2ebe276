"""The public functions of the vanilla RNN: one step, the last state, all states.

Each checks its arguments while it is traced, so a call that is already compiled pays nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxrnn import recurrence
from jaxrnn.params import RNNParams, is_real
from jaxrnn.recurrence import Activation, RNNStates

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def _jit(*static: str) -> Callable[[FunctionT], FunctionT]:
    """`jax.jit`, but type checkers still see the function's own signature."""

    def decorate(function: FunctionT) -> FunctionT:
        return cast(FunctionT, jax.jit(function, static_argnames=static))

    return decorate


@_jit("activation")
def rnn_step(
    params: RNNParams[Any], h: ArrayLike, x_t: ArrayLike, *, activation: Activation = jnp.tanh
) -> jax.Array:
    """One step of the recurrence: `activation(x_t wx + h wh + b)`.

    Args:
      params: the network.
      h: the state before the step, `(*batch, n_nodes)`. It comes before the input, as the carry
        does in `jax.lax.scan`.
      x_t: the input of the step, `(*batch, n_features)`. The batch axes of `h` and `x_t` broadcast
        against each other: many states under one input, or one state under many inputs.
      activation: as in `rnn_forward`.

    Returns:
      The state after the step, `(*batch, n_nodes)`, in the dtype of `rnn_forward`.

    Raises:
      TypeError, ValueError: as `rnn_forward`.
    """
    params, (x_t, h) = _promoted(params, {"x_t": x_t, "h": h})
    if x_t.ndim == 0:
        raise ValueError("x_t must have shape (*batch, n_features), but has shape ()")
    _check_features("x_t", x_t, params)
    n_nodes = params.wh.shape[0]
    if h.ndim == 0 or h.shape[-1] != n_nodes:
        raise ValueError(
            f"h must have shape (*batch, n_nodes) with n_nodes = {n_nodes}, but has shape {h.shape}"
        )
    try:
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    except ValueError:
        raise ValueError(
            "h and x_t must have batch axes that broadcast against each other, "
            f"but have shapes {h.shape} and {x_t.shape}"
        ) from None
    h = jnp.broadcast_to(h, (*batch, h.shape[-1]))
    x_t = jnp.broadcast_to(x_t, (*batch, x_t.shape[-1]))
    _check_activation(activation, h.shape, h.dtype)
    return recurrence.step(params, h, x_t, activation).h


@_jit("activation", "unroll")
def rnn_forward(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Activation = jnp.tanh,
    unroll: int = 1,
) -> jax.Array:
    """The last hidden state of a vanilla (Elman) RNN run over a sequence.

        a_t = x_t wx + h_{t-1} wh + b      h_t = activation(a_t)      t = 1 .. n_steps

    The network of Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211,
    without its output layer; `SimpleRNN.forward` of the notebook. `rnn_states` gives every step.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`, with any number of batch axes.
      h0: the state before the first step, which broadcasts to `(*batch, n_nodes)`: `(n_nodes,)` is
        one initial state for the whole batch. None is zero.
      activation: an elementwise function that keeps shape and dtype. A new function object is a
        new compilation: define it once, outside any loop.
      unroll: steps in one iteration of the loop, passed on to `jax.lax.scan`.

    Returns:
      `h_{n_steps}`, `(*batch, n_nodes)`; `h0` where there are no steps. Everything is computed in
      the dtype of the result: what `params`, `x` and `h0` promote to by JAX's rules, made floating.

    Raises:
      TypeError: `params` is not an `RNNParams`, an array does not hold real numbers, `activation`
        is not callable or changes shape or dtype, `unroll` is not an integer.
      ValueError: shapes do not fit each other, or `unroll` is less than 1.
    """
    return recurrence.run(*_prepared(params, x, h0, activation, unroll)).last


@_jit("activation", "unroll")
def rnn_states(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: Activation = jnp.tanh,
    unroll: int = 1,
) -> RNNStates[jax.Array]:
    """Every pre-activation and every hidden state of a vanilla RNN run over a sequence.

    Arguments, dtype and errors are those of `rnn_forward`, whose result is `h[..., -1, :]` where
    there is at least one step.

    Returns:
      `RNNStates(a, h)`, each `(*batch, n_steps, n_nodes)`. Inside `jax.jit`, a field that is not
      used is not stored; to store neither, for the last state alone, call `rnn_forward`.
    """
    trajectory = recurrence.run(*_prepared(params, x, h0, activation, unroll))
    return recurrence.states(trajectory)


def _prepared(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None,
    activation: Activation,
    unroll: int,
) -> tuple[RNNParams[Any], jax.Array, jax.Array, Activation, int]:
    """The arguments of the recurrence: checked, of one dtype, `h0` in full shape."""
    _check_unroll(unroll)
    params, (x, h0) = _promoted(params, {"x": x, "h0": 0.0 if h0 is None else h0})
    if x.ndim < 2:
        raise ValueError(
            f"x must have shape (*batch, n_steps, n_features), but has shape {x.shape}"
        )
    _check_features("x", x, params)
    # A sum over no steps. Inside jax.shard_map these zeros vary over the devices that the states
    # will vary over, as the carry of a scan must from the start.
    zeros = jax.lax.stop_gradient(jnp.sum(x[..., :0, :] @ params.wx @ params.wh, axis=-2))
    try:
        h0 = zeros + jnp.broadcast_to(h0, zeros.shape)
    except ValueError:
        raise ValueError(
            f"h0 must broadcast to (*batch, n_nodes) = {zeros.shape}, but has shape {h0.shape}"
        ) from None
    _check_activation(activation, h0.shape, h0.dtype)
    return params, x, h0, activation, unroll


def _promoted(
    params: RNNParams[Any], inputs: dict[str, ArrayLike]
) -> tuple[RNNParams[Any], list[jax.Array]]:
    """`params` and the named inputs as arrays of the one floating dtype that all promote to."""
    if not isinstance(params, RNNParams):
        raise TypeError(f"params must be an RNNParams, but is a {type(params).__name__}")
    arrays = [_real_array(name, value) for name, value in inputs.items()]
    weights = RNNParams(
        _real_array("params.wx", params.wx),
        _real_array("params.wh", params.wh),
        None if params.b is None else _real_array("params.b", params.b),
    )
    _check_params(weights)
    # The Python type `float` makes integers floating and widens nothing.
    dtype = jnp.result_type(*jax.tree.leaves(weights), *arrays, float)
    weights = jax.tree.map(lambda array: array.astype(dtype), weights)
    return weights, [array.astype(dtype) for array in arrays]


def _real_array(name: str, value: ArrayLike) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        came = type(value).__name__
        raise TypeError(f"{name} must be an array of real numbers, but is a {came}") from error
    if not is_real(array.dtype):
        raise TypeError(f"{name} must be an array of real numbers, but has dtype {array.dtype}")
    return array


def _check_params(params: RNNParams[Any]) -> None:
    wx, wh, b = params
    if wx.ndim != 2:
        raise ValueError(
            f"params.wx must have shape (n_features, n_nodes), but has shape {wx.shape}; "
            "map over a stack of parameter sets with jax.vmap"
        )
    n_nodes = wx.shape[1]
    if wh.shape != (n_nodes, n_nodes):
        raise ValueError(
            f"params.wh must have shape (n_nodes, n_nodes) = {(n_nodes, n_nodes)} to fit params.wx "
            f"of shape {wx.shape}, but has shape {wh.shape}"
        )
    if b is not None and b.shape != (n_nodes,):
        raise ValueError(
            f"params.b must have shape (n_nodes,) = {(n_nodes,)} to fit params.wx of shape "
            f"{wx.shape}, or be None, but has shape {b.shape}"
        )


def _check_features(name: str, array: jax.Array, params: RNNParams[Any]) -> None:
    if array.shape[-1] != params.wx.shape[0]:
        raise ValueError(
            f"{name} has {array.shape[-1]} features ({name}: {array.shape}), but params.wx expects "
            f"{params.wx.shape[0]} (wx: {params.wx.shape})"
        )


def _check_activation(activation: Activation, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not callable(activation):
        raise TypeError(f"activation must be callable, but is {activation!r}")
    # The lambda, as JAX keeps weak references to what it traces and not every callable allows one.
    h = jax.eval_shape(lambda a: activation(a), jax.ShapeDtypeStruct(shape, dtype))
    if getattr(h, "shape", None) != shape or h.dtype != dtype:
        came = f"{h.dtype}{h.shape}" if hasattr(h, "shape") else type(h).__name__
        raise TypeError(
            "activation must return the dtype and shape it is given, "
            f"{dtype}{shape}, but returned {came}"
        )


def _check_unroll(unroll: int) -> None:
    if isinstance(unroll, bool) or not isinstance(unroll, int):
        raise TypeError(f"unroll must be an integer, but is {unroll!r}")
    if unroll < 1:
        raise ValueError(f"unroll must be at least 1, but is {unroll}")
