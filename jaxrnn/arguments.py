"""Checks of arguments, made while a call is traced: a compiled call pays nothing for them."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn.errors import refuse, require
from jaxrnn.options import Activation, Options, Run
from jaxrnn.params import RNNParams, is_real
from jaxrnn.sequences import broadcast, zero_states


def prepare_run(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None, **options: Unpack[Options]
) -> tuple[RNNParams[Any], Run]:
    """Check the arguments of a run, promote them to one dtype, and fill in the states."""
    has_resets = options.get("reset_to") is None or options.get("resets") is not None
    require(has_resets, "resets", "given where reset_to is", None, ValueError)
    h0 = 0.0 if h0 is None else h0
    restart: Any = h0 if options.get("reset_to") is None else options["reset_to"]
    params, (x, h0, restart) = promote(params, x=x, h0=h0, reset_to=restart)
    _check_last_axis("x", x, "(*batch, n_steps, n_features)", params)
    lengths, resets = _as_lengths(options.get("lengths"), x), _as_resets(options.get("resets"), x)
    zeros = zero_states(params, x, lengths, resets)
    reset_to = None if resets is None else _fill("reset_to", restart, zeros)
    h0 = _fill("h0", h0, zeros if reset_to is None else jnp.zeros_like(reset_to))
    arrays: Any = {"lengths": lengths, "resets": resets, "reset_to": reset_to}
    run = Run(x, h0, **{**options, **arrays})
    require(isinstance(run.reverse, bool), "reverse", "a bool", run.reverse)
    for name in ("unroll", "checkpoint_every"):
        count = getattr(run, name)
        if count is not None or name == "unroll":
            require(type(count) is int, name, "an integer", count)
            require(count >= 1, name, "at least 1", count, ValueError)
    is_known = run.checkpoint_every is None or isinstance(x.shape[-2], int)
    expected = f"None with a symbolic n_steps, as of x with shape {x.shape}"
    require(is_known, "checkpoint_every", expected, run.checkpoint_every, ValueError)
    _check_activation(run.activation, h0)
    return params, run


def prepare_step(
    params: RNNParams[Any], h: ArrayLike, x_t: ArrayLike, activation: Activation
) -> tuple[RNNParams[Any], jax.Array, jax.Array]:
    """Check the arguments of a step, promote them to one dtype, and broadcast the batch axes."""
    params, (h, x_t) = promote(params, h=h, x_t=x_t)
    _check_last_axis("x_t", x_t, "(*batch, n_features)", params)
    _check_last_axis("h", h, "(*batch, n_nodes)", params)
    try:
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    except ValueError:
        expected = f"broadcastable against x_t of shape {x_t.shape} in its batch axes"
        refuse("h", expected, h, ValueError)
    if h.shape[:-1] != batch:
        like = jnp.sum(x_t, axis=-1, keepdims=True)
        h = broadcast(h, jnp.broadcast_to(like, (*batch, h.shape[-1])))
    x_t = jnp.broadcast_to(x_t, (*batch, x_t.shape[-1]))
    _check_activation(activation, h)
    return params, h, x_t


def promote(params: RNNParams[Any], **inputs: ArrayLike) -> tuple[RNNParams[Any], list[jax.Array]]:
    """Make arrays of parameters and inputs, of the one floating dtype that all promote to."""
    require(isinstance(params, RNNParams), "params", "an RNNParams", params)
    weights = {f"params.{name}": value for name, value in params._asdict().items()}
    given = inputs | weights
    if params.b is None:
        del given["params.b"]
    arrays = {name: _as_array(name, value) for name, value in given.items()}
    check_params(RNNParams(*(arrays.get(name) for name in weights)))
    # The Python type `float` makes integers floating and widens nothing.
    try:
        dtype = jnp.result_type(*arrays.values(), float)
    except ValueError as error:  # of types that JAX does not promote, such as int4
        error.add_note(", ".join(f"{name} is {each.dtype}" for name, each in arrays.items()))
        raise
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    return RNNParams(*(arrays.get(name) for name in weights)), [arrays[name] for name in inputs]


def _as_array(name: str, value: ArrayLike) -> jax.Array:
    expected = "an array of real numbers"
    require(not isinstance(value, list | tuple), name, expected, value)  # as JAX does
    try:
        array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError):
        refuse(name, expected, value)
    require(is_real(array.dtype), name, expected, array)
    return array


def _as_lengths(lengths: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """As int32, where a length out of range is the nearest in range."""
    if lengths is None:
        return None
    array = _as_array("lengths", lengths)
    require(jnp.issubdtype(array.dtype, jnp.integer), "lengths", "integers", array)
    _check_shape("lengths", array, "(*batch,)", x.shape[:-2], f"x of shape {x.shape}")
    if array.dtype.itemsize < 4:  # n_steps may not fit into it
        array = array.astype(jnp.int32)
    n_steps = jnp.asarray(x.shape[-2], array.dtype)
    return jnp.clip(array, jnp.zeros_like(n_steps), n_steps).astype(jnp.int32)


def _as_resets(resets: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    if resets is None:
        return None
    array = _as_array("resets", resets)
    require(array.dtype == jnp.bool_, "resets", "bools", array)
    _check_shape("resets", array, "(*batch, n_steps)", x.shape[:-1], f"x of shape {x.shape}")
    return array


def _fill(name: str, state: jax.Array, zeros: jax.Array) -> jax.Array:
    """Broadcast to the shape and type of all states."""
    try:
        return zeros + broadcast(state, zeros)
    except ValueError:
        refuse(name, f"broadcastable to (*batch, n_nodes) = {zeros.shape}", state, ValueError)


def check_params(params: RNNParams[Any], name: str = "params") -> None:
    """Require shapes that fit each other."""
    wx, wh, b = params
    expected = "of shape (n_features, n_nodes) (jax.vmap maps over a stack of parameter sets)"
    require(wx.ndim == 2, f"{name}.wx", expected, wx, ValueError)
    n_nodes, fit = wx.shape[1], f"{name}.wx of shape {wx.shape}"
    _check_shape(f"{name}.wh", wh, "(n_nodes, n_nodes)", (n_nodes, n_nodes), fit)
    if b is not None:
        _check_shape(f"{name}.b", b, "(n_nodes,)", (n_nodes,), fit)


def _check_shape(name: str, array: Any, axes: str, shape: tuple[int, ...], fit: str) -> None:
    expected = f"of shape {axes} = {shape} to fit {fit}"
    require(array.shape == shape, name, expected, array, ValueError)


def _check_last_axis(name: str, array: jax.Array, axes: str, params: RNNParams[Any]) -> None:
    """Require as many entries as `params.wx` has rows, or nodes, behind batch axes and steps."""
    size = params.wx.shape["n_nodes" in axes]
    fits = array.ndim >= axes.count(",") and array.shape[-1] == size
    expected = f"of shape {axes}, ending in {size} to fit params.wx of shape {params.wx.shape}"
    require(fits, name, expected, array, ValueError)


def _check_activation(activation: Activation, states: jax.Array) -> None:
    """Require a function that keeps shape and dtype."""
    require(callable(activation), "activation", "callable", activation)
    like = jax.ShapeDtypeStruct(states.shape, states.dtype)
    try:
        # In a lambda, as JAX keeps weak references to what it traces, and not all callables have
        # them.
        h = jax.eval_shape(lambda a: activation(a), like)
    except Exception as error:
        error.add_note("in activation, which is called on arrays that are traced")
        raise
    if (getattr(h, "shape", None), getattr(h, "dtype", None)) != (like.shape, like.dtype):
        came = f"{h.dtype}{h.shape}" if hasattr(h, "shape") else type(h).__name__
        raise TypeError(
            "activation must return the dtype and shape it is given, "
            f"{like.dtype}{like.shape}, but returned {came}"
        )
