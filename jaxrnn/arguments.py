"""Checks of arguments, made while a call is traced: a compiled call pays nothing for them."""

import numbers
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn.errors import refuse, require
from jaxrnn.params import RNNParams, is_real
from jaxrnn.run import Activation, Options, Run
from jaxrnn.sharding import batch_names, shared, varied


def prepare_run(
    params: RNNParams[Any], x: Any, h0: Any, **options: Unpack[Options]
) -> tuple[RNNParams[Any], Run]:
    """Check the arguments of a run, and give all arrays one dtype and one way to be shared."""
    resets, reset_to = options.get("resets"), options.get("reset_to")
    if reset_to is not None and resets is None:
        raise ValueError("reset_to is given without resets, which say where it is used")
    if resets is not None and h0 is not None and reset_to is None:
        raise ValueError("resets and h0 are given without reset_to: is it zero, or h0 itself?")
    named = {"h0": h0, "reset_to": reset_to, "leak": options.get("leak")}
    params, (x, h0, reset_to, leak) = promote(params, x=x, **named)
    _check_last_axis("x", x, "(*batch, n_steps, n_features)", params, n_axes=2)
    lengths, resets = _as_lengths(options.get("lengths"), x), _as_resets(resets, x)
    *batch, n_steps, _ = x.shape
    states = (*batch, len(params.wh))
    leak = _as_leak(leak, (*batch, n_steps, len(params.wh)), "(*batch, n_steps, n_nodes)")
    zeros = jnp.zeros_like(x, shape=states[-1:])
    h0 = zeros if h0 is None else h0
    if resets is not None:
        reset_to = zeros if reset_to is None else reset_to
    for name, state in (("h0", h0), ("reset_to", reset_to)):
        if state is not None:
            _check_broadcasts(name, state, states, "(*batch, n_nodes)")
    if not isinstance(n_steps, int):
        of_x = f"with a symbolic n_steps, as of x with shape {x.shape}"
        unroll, every = options.get("unroll"), options.get("checkpoint_every")
        require(unroll in (None, 1), "unroll", f"None, 1 or False {of_x}", unroll, ValueError)
        require(every is None, "checkpoint_every", f"None {of_x}", every, ValueError)
    after_batch = (x, 2), (h0, 1), (lengths, 0), (resets, 1), (reset_to, 1), (leak, 2)
    names = batch_names(tuple(batch), after_batch)
    arrays: dict[str, Any] = {
        "x": shared(x, x.shape, names),
        "h0": shared(h0, states, names),
        "lengths": None if lengths is None else shared(lengths, lengths.shape, names),
        "resets": None if resets is None else shared(resets, resets.shape, names),
        "reset_to": None if reset_to is None else shared(reset_to, states, names),
        "leak": None if leak is None else shared(leak, leak.shape, names),
    }
    params, arrays = varied((params, arrays))
    if lengths is not None:
        # NaN in the padding would reach gradients by 0 * NaN, and `jax.debug_nans` in an array that
        # is kept for them.
        arrays["x"] = _without_padding(arrays["x"], arrays["lengths"])
        if leak is not None and any(size != 1 for size in leak.shape[:-1]):
            arrays["leak"] = _without_padding(arrays["leak"], arrays["lengths"])
    run = Run(**{**options, **arrays})
    _check_activation(run.activation, run.h0)
    return params, run


def check_static(options: Mapping[str, Any]) -> None:
    """Check the options that are no arrays.

    Before `jax.jit` sees them, as it compares them by `==`: to it 1, 1.0 and True are the same.
    """
    if "activation" in options:
        activation = options["activation"]
        require(callable(activation), "activation", "callable", activation)
    reverse, dropout = options.get("reverse", False), options.get("dropout", 0.0)
    require(isinstance(reverse, bool), "reverse", "a bool", reverse)
    is_number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    require(is_number, "dropout", "a Python number", dropout)
    require(0 <= dropout < 1, "dropout", "at least 0 and less than 1", dropout, ValueError)
    unroll, every = options.get("unroll"), options.get("checkpoint_every")
    if unroll is not None:
        require(isinstance(unroll, int), "unroll", "a Python integer or a bool", unroll)
        require(unroll >= 0, "unroll", "at least 0", unroll, ValueError)
    if every is not None:
        require(type(every) is int, "checkpoint_every", "a Python integer", every)
        require(every >= 1, "checkpoint_every", "at least 1", every, ValueError)


def prepare_step(
    params: RNNParams[Any], h: Any, x_t: Any, activation: Activation, leak: Any
) -> tuple[RNNParams[Any], jax.Array, jax.Array, jax.Array | None]:
    """The same for a step, whose batch axes are broadcast."""
    params, (h, x_t, leak) = promote(params, h=h, x_t=x_t, leak=leak)
    _check_last_axis("x_t", x_t, "(*batch, n_features)", params, n_axes=1)
    _check_last_axis("h", h, "(*batch, n_nodes)", params._replace(wx=None), n_axes=1)
    try:
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    except ValueError:
        expected = f"broadcastable against x_t of shape {x_t.shape} in its batch axes"
        refuse("h", expected, h, ValueError)
    states = (*batch, h.shape[-1])
    leak = _as_leak(leak, states, "(*batch, n_nodes)")
    names = batch_names(batch, ((x_t, 1), (h, 1), (leak, 1)))
    h, x_t = shared(h, states, names), shared(x_t, (*batch, x_t.shape[-1]), names)
    _check_activation(activation, h)
    return params, h, x_t, leak if leak is None else shared(leak, leak.shape, names)


def promote(params: RNNParams[Any], **inputs: Any) -> tuple[RNNParams[Any], list[Any]]:
    """Convert everything to arrays of one common floating dtype; what is optional may be None."""
    require(isinstance(params, RNNParams), "params", "an RNNParams", params)
    given = inputs | {f"params.{name}": value for name, value in params._asdict().items()}
    optional = ("h0", "reset_to", "leak", "params.wx", "params.b")
    arrays = {
        name: _as_array(name, value)
        for name, value in given.items()
        if value is not None or name not in optional
    }
    weights = [f"params.{name}" for name in RNNParams._fields]
    check_params(RNNParams(*map(arrays.get, weights)))
    # `float` is weakly typed: it makes integers floating, and float16 stays float16.
    try:
        dtype = jnp.result_type(*arrays.values(), float)
    except ValueError as error:  # of types that JAX does not promote, such as int4
        error.add_note(", ".join(f"{name} is {each.dtype}" for name, each in arrays.items()))
        raise
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    return RNNParams(*map(arrays.get, weights)), [*map(arrays.get, inputs)]


def _as_array(name: str, value: Any, kind: str = "real numbers") -> jax.Array:
    expected = f"an array of {kind}"
    if isinstance(value, list | tuple):  # JAX refuses them too
        refuse(name, f"{expected} (jnp.asarray makes one)", value)
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
    array = _as_array("lengths", lengths, "integers")
    is_integer = jnp.issubdtype(array.dtype, jnp.integer)
    require(is_integer, "lengths", "an array of integers", array)
    _check_shape("lengths", array, "(*batch,)", x.shape[:-2], f"x of shape {x.shape}")
    if array.dtype.itemsize < 4:  # n_steps may not fit into it
        array = array.astype(jnp.int32)
    n_steps = jnp.asarray(x.shape[-2], array.dtype)
    return jnp.clip(array, jnp.zeros_like(n_steps), n_steps).astype(jnp.int32)


def _as_leak(leak: jax.Array | None, shape: tuple[int, ...], axes: str) -> jax.Array | None:
    """With as many axes as `shape`, of which those with one entry broadcast."""
    if leak is None:
        return None
    _check_broadcasts("leak", leak, shape, axes)
    return jnp.expand_dims(leak, range(len(shape) - leak.ndim))


def _as_resets(resets: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    if resets is None:
        return None
    array = _as_array("resets", resets, "bools")
    require(array.dtype == jnp.bool_, "resets", "an array of bools", array)
    _check_shape("resets", array, "(*batch, n_steps)", x.shape[:-1], f"x of shape {x.shape}")
    return array


def _check_broadcasts(name: str, array: Any, shape: tuple[int, ...], axes: str) -> None:
    """Require a shape that broadcasts to another."""
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    fits = array.ndim <= len(shape) and all(size in (1, full) for size, full in pairs)
    require(fits, name, f"broadcastable to {axes} = {shape}", array, ValueError)


def _without_padding(array: jax.Array, lengths: jax.Array) -> jax.Array:
    """Zero in the padding; with one entry for all steps, where a sequence has no steps."""
    steps = jnp.arange(array.shape[-2], dtype=lengths.dtype)
    is_real = jnp.expand_dims(steps, range(lengths.ndim)) < lengths[..., None]
    return jnp.where(is_real[..., None], array, jnp.zeros((), array.dtype))


def check_params(params: RNNParams[Any], name: str = "params") -> None:
    """Require shapes that fit each other."""
    wx, wh, b = params
    of_sets = "(jax.vmap maps over a stack of parameter sets)"
    if wx is None:
        is_square = wh.ndim == 2 and wh.shape[0] == wh.shape[1]
        expected = f"of shape (n_nodes, n_nodes) {of_sets}"
        require(is_square, f"{name}.wh", expected, wh, ValueError)
        n_nodes, fit = len(wh), f"{name}.wh of shape {wh.shape}"
    else:
        expected = f"of shape (n_features, n_nodes) {of_sets}"
        require(wx.ndim == 2, f"{name}.wx", expected, wx, ValueError)
        n_nodes, fit = wx.shape[1], f"{name}.wx of shape {wx.shape}"
        _check_shape(f"{name}.wh", wh, "(n_nodes, n_nodes)", (n_nodes, n_nodes), fit)
    if b is not None:
        _check_shape(f"{name}.b", b, "(n_nodes,)", (n_nodes,), fit)


def _check_shape(name: str, array: Any, axes: str, shape: tuple[int, ...], fit: str) -> None:
    expected = f"of shape {axes} = {shape} to fit {fit}"
    require(array.shape == shape, name, expected, array, ValueError)


def _check_last_axis(
    name: str, array: jax.Array, axes: str, params: RNNParams[Any], n_axes: int
) -> None:
    """Require n_features entries in the last of at least `n_axes` axes; n_nodes without `wx`."""
    weights = "wh" if params.wx is None else "wx"
    shape = getattr(params, weights).shape
    fits = array.ndim >= n_axes and array.shape[-1] == shape[0]
    expected = f"of shape {axes}, ending in {shape[0]} to fit params.{weights} of shape {shape}"
    require(fits, name, expected, array, ValueError)


def _check_activation(activation: Activation, states: jax.Array) -> None:
    """Require a function that keeps shape and dtype."""
    like = jax.ShapeDtypeStruct(states.shape, states.dtype)
    try:
        # In a lambda, as JAX needs weak references to what it traces. Not all callables have them.
        h = jax.eval_shape(lambda a: activation(a), like)
    except Exception as error:
        error.add_note("in activation, which JAX traces: write it with jax.numpy, not with NumPy")
        raise
    if (getattr(h, "shape", None), getattr(h, "dtype", None)) != (like.shape, like.dtype):
        came = f"{h.dtype}{h.shape}" if hasattr(h, "shape") else type(h).__name__
        raise TypeError(
            "activation must return the dtype and shape it is given, "
            f"{like.dtype}{like.shape}, but returned {came}"
        )
