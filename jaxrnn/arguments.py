"""The arguments of the public functions: checked while they are traced, and of one dtype.

A call that is already compiled pays nothing for it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxrnn.params import RNNParams, is_real
from jaxrnn.recurrence import Activation, Loop
from jaxrnn.sequences import Sequences, broadcast


def prepared(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None,
    activation: Activation = jnp.tanh,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reset_to: ArrayLike | None = None,
    reverse: bool = False,
    checkpoint_every: int | None = None,
    unroll: int = 1,
) -> tuple[Loop, RNNParams[Any], Sequences]:
    """The arguments of the recurrence: checked, of one dtype, `h0` in full shape."""
    check_bool("reverse", reverse)
    _check_count("unroll", unroll)
    if checkpoint_every is not None:
        _check_count("checkpoint_every", checkpoint_every)
    h0 = 0.0 if h0 is None else h0
    if reset_to is None:
        reset_to = h0
    elif resets is None:
        raise ValueError("reset_to needs resets, but these are None")
    params, (x, h0, reset_to) = promoted(params, {"x": x, "h0": h0, "reset_to": reset_to})
    if x.ndim < 2:
        raise ValueError(
            f"x must have shape (*batch, n_steps, n_features), but has shape {x.shape}"
        )
    check_features("x", x, params)
    lengths, resets = _lengths(lengths, x), _resets(resets, x)
    zeros = _zeros(params, x, lengths, resets)
    restart = None if resets is None else _in_full("reset_to", reset_to, zeros)
    h0 = _in_full("h0", h0, zeros if restart is None else jnp.zeros_like(restart))
    check_activation(activation, h0.shape, h0.dtype)
    given = Sequences(x, h0, lengths, resets, restart)
    return Loop(activation, reverse, unroll, checkpoint_every), params, given


def _lengths(lengths: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """As int32, in range."""
    if lengths is None:
        return None
    array = _real_array("lengths", lengths)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"lengths must be integers, but have dtype {array.dtype}")
    if array.shape != x.shape[:-2]:
        raise ValueError(
            f"lengths must have shape (*batch,) = {x.shape[:-2]} to fit x of shape {x.shape}, "
            f"but have shape {array.shape}"
        )
    if array.dtype.itemsize < 4:  # n_steps may not fit into it
        array = array.astype(jnp.int32)
    n_steps = jnp.asarray(x.shape[-2], array.dtype)
    return jnp.clip(array, jnp.zeros_like(n_steps), n_steps).astype(jnp.int32)


def _resets(resets: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    if resets is None:
        return None
    array = _real_array("resets", resets)
    if array.dtype != jnp.bool_:
        raise TypeError(f"resets must be bool, but have dtype {array.dtype}")
    if array.shape != x.shape[:-1]:
        raise ValueError(
            f"resets must have shape (*batch, n_steps) = {x.shape[:-1]} to fit x of shape "
            f"{x.shape}, but have shape {array.shape}"
        )
    return array


def _in_full(name: str, state: jax.Array, zeros: jax.Array) -> jax.Array:
    try:
        return zeros + broadcast(state, zeros)
    except ValueError:
        raise ValueError(
            f"{name} must broadcast to (*batch, n_nodes) = {zeros.shape}, but has shape "
            f"{state.shape}"
        ) from None


def _zeros(
    params: RNNParams[Any], x: jax.Array, lengths: jax.Array | None, resets: jax.Array | None
) -> jax.Array:
    """Zeros `(*batch, n_nodes)` of the type that the states will have.

    The carry of a scan must have that type from the start. On a mesh it says how the states are
    shared among devices, and inside `jax.shard_map` over which axes they vary. It follows from
    everything that the states depend on. Of `x` no step is read, as its padding may hold NaN.
    """
    like = jnp.sum(x[..., :0, :] @ params.wx @ params.wh, axis=-2)
    if params.b is not None:
        like = like + broadcast(params.b, like)
    for mask in (lengths, None if resets is None else jnp.sum(resets, axis=-1)):
        if mask is not None:
            like = like + broadcast(mask[..., None].astype(like.dtype), like)
    return jnp.zeros_like(like)


def promoted(
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
    check_params(weights)
    # The Python type `float` makes integers floating and widens nothing.
    try:
        dtype = jnp.result_type(*jax.tree.leaves(weights), *arrays, float)
    except ValueError as error:  # of types that JAX does not promote, such as int4
        named = dict(zip(inputs, arrays, strict=True)) | {
            f"params.{name}": array for name, array in weights._asdict().items()
        }
        came = [f"{name} is {each.dtype}" for name, each in named.items() if each is not None]
        error.add_note(", ".join(came))
        raise
    weights = jax.tree.map(lambda array: array.astype(dtype), weights)
    return weights, [array.astype(dtype) for array in arrays]


def _real_array(name: str, value: ArrayLike) -> jax.Array:
    if isinstance(value, list | tuple):  # a tree of arguments to `jax.jit`, as JAX has it
        raise TypeError(f"{name} must be an array of real numbers, but is a {type(value).__name__}")
    try:
        array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError) as error:
        came = type(value).__name__
        raise TypeError(f"{name} must be an array of real numbers, but is a {came}") from error
    if not is_real(array.dtype):
        raise TypeError(f"{name} must be an array of real numbers, but has dtype {array.dtype}")
    return array


def check_params(params: RNNParams[Any], name: str = "params") -> None:
    """That the shapes of its arrays fit each other."""
    wx, wh, b = params
    if wx.ndim != 2:
        raise ValueError(
            f"{name}.wx must have shape (n_features, n_nodes), but has shape {wx.shape}; "
            "map over a stack of parameter sets with jax.vmap"
        )
    n_nodes = wx.shape[1]
    if wh.shape != (n_nodes, n_nodes):
        raise ValueError(
            f"{name}.wh must have shape (n_nodes, n_nodes) = {(n_nodes, n_nodes)} to fit {name}.wx "
            f"of shape {wx.shape}, but has shape {wh.shape}"
        )
    if b is not None and b.shape != (n_nodes,):
        raise ValueError(
            f"{name}.b must have shape (n_nodes,) = {(n_nodes,)} to fit {name}.wx of shape "
            f"{wx.shape}, or be None, but has shape {b.shape}"
        )


def check_features(name: str, array: jax.Array, params: RNNParams[Any]) -> None:
    """That the last axis of `array` is what `params.wx` takes."""
    if array.shape[-1] != params.wx.shape[0]:
        raise ValueError(
            f"{name} has {array.shape[-1]} features ({name}: {array.shape}), but params.wx expects "
            f"{params.wx.shape[0]} (wx: {params.wx.shape})"
        )


def check_activation(activation: Activation, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """That it is a function that keeps them."""
    if not callable(activation):
        raise TypeError(f"activation must be callable, but is {activation!r}")
    try:
        # The lambda, as JAX keeps weak references to what it traces and not all callables allow it.
        h = jax.eval_shape(lambda a: activation(a), jax.ShapeDtypeStruct(shape, dtype))
    except Exception as error:
        error.add_note("in activation, which is called on arrays that are traced")
        raise
    if getattr(h, "shape", None) != shape or h.dtype != dtype:
        came = f"{h.dtype}{h.shape}" if hasattr(h, "shape") else type(h).__name__
        raise TypeError(
            "activation must return the dtype and shape it is given, "
            f"{dtype}{shape}, but returned {came}"
        )


def check_bool(name: str, value: bool) -> None:
    """That it is one, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, but is {value!r}")


def _check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an integer, but is {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, but is {count}")
