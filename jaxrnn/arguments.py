"""Checks of arguments, made while a call is traced: a compiled call pays nothing for them."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn.errors import refuse, require
from jaxrnn.params import Params, RNNParams, is_real
from jaxrnn.run import Activation, Options, Run, Steps
from jaxrnn.sharding import shared, varied

# Of each option that is no array: its type, in words too, and the least that it may be.
STATIC: dict[str, tuple[Any, str, int | None]] = {
    "activation": (Callable, "callable", None),
    "reverse": (bool, "a bool", None),
    "checkpoint_every": (int | None, "a Python integer", 1),
    "unroll": (int | bool | None, "a Python integer or a bool", 0),
    "dropout": (Real, "a Python number", None),
}


def check_static(options: Mapping[str, Any]) -> None:
    """Check the options that are no arrays.

    Before `jax.jit` sees them, as it compares them by `==`: to it 1, 1.0 and True are the same.
    """
    for name in options.keys() & STATIC.keys():
        value, (kind, expected, least) = options[name], STATIC[name]
        is_bool_by_mistake = isinstance(value, bool) and "bool" not in expected
        require(isinstance(value, kind) and not is_bool_by_mistake, name, expected, value)
        if least is not None and value is not None:
            require(value >= least, name, f"at least {least}", value, ValueError)


def prepare_run(params: Params, x: Any, h0: Any, **options: Unpack[Options]) -> tuple[Params, Run]:
    """Check the arguments of a run, and give all arrays one dtype and one way to be shared."""
    resets, reset_to = options.get("resets"), options.get("reset_to")
    if reset_to is not None and resets is None:
        raise ValueError("reset_to is given without resets, which say where it is used")
    if resets is not None and h0 is not None and reset_to is None:
        raise ValueError("resets and h0 are given without reset_to: is it zero, or h0 itself?")
    states: dict[str, Any] = {"h0": h0, "reset_to": reset_to, "leak": options.get("leak")}
    params, (x, *floats) = promote(params, x=x, **states)
    _check_last_axis("x", x, "(*batch, n_steps, n_features)", params, n_axes=2)
    batch, n_steps, n_nodes = x.shape[:-2], x.shape[-2], len(params.wh)
    axes = ("(*batch, n_nodes)", "(*batch, n_nodes)", "(*batch, n_steps, n_nodes)")
    full = ((*batch, n_nodes), (*batch, n_nodes), (*batch, n_steps, n_nodes))
    for name, state, shape, of_axes in zip(states, floats, full, axes, strict=True):
        _check_broadcasts(name, state, shape, of_axes)
    zeros = jnp.zeros(n_nodes, x.dtype)
    h0, reset_to, leak = floats
    if leak is not None:
        leak = jnp.expand_dims(leak, range(x.ndim - leak.ndim))
    arrays = {
        "x": x,
        "h0": zeros if h0 is None else h0,
        "lengths": _as_lengths(options.get("lengths"), x),
        "resets": _as_resets(resets, x),
        "reset_to": zeros if reset_to is None and resets is not None else reset_to,
        "leak": leak,
    }
    shapes = {name: getattr(array, "shape", ()) for name, array in arrays.items()}
    shapes |= {"h0": full[0], "reset_to": full[1]}
    params, arrays = varied((params, shared(arrays, shapes, len(batch))))
    run = Run(**{**options, **arrays})
    _check_symbolic(run)
    _check_activation(run.activation, run.h0)
    return params, run.without_padding()


def prepare_step(
    params: Params, h: Any, x_t: Any, activation: Activation, leak: Any
) -> tuple[Params, Run, Steps]:
    """The same for a run of one step; the batch axes of state and input broadcast."""
    params, (h, x_t, leak) = promote(params, h=h, x_t=x_t, leak=leak)
    _check_last_axis("x_t", x_t, "(*batch, n_features)", params, n_axes=1)
    _check_last_axis("h", h, "(*batch, n_nodes)", params._replace(wx=None), n_axes=1)
    try:
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    except ValueError:
        expected = f"broadcastable against x_t of shape {x_t.shape} in its batch axes"
        refuse("h", expected, h, ValueError)
    states = (*batch, h.shape[-1])
    _check_broadcasts("leak", leak, states, "(*batch, n_nodes)")
    shapes = {"x_t": (*batch, x_t.shape[-1]), "h": states, "leak": states}
    arrays = shared({"x_t": x_t, "h": h, "leak": leak}, shapes, len(batch))
    _check_activation(activation, arrays["h"])
    step = Steps(arrays["x_t"], arrays["leak"], is_reset=None, is_padding=None)
    return params, Run(step.x[..., None, :], arrays["h"], activation, step.leak), step


def promote(params: Params, **inputs: Any) -> tuple[Params, list[Any]]:
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


def _as_array(name: str, value: Any, kind: Any = None, of: str = "real numbers") -> jax.Array:
    expected = f"an array of {of}"
    if isinstance(value, list | tuple):  # JAX refuses them too
        refuse(name, f"{expected} (jnp.asarray makes one)", value)
    try:
        array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError):
        refuse(name, expected, value)
    fits = is_real(array.dtype) if kind is None else jnp.issubdtype(array.dtype, kind)
    require(fits, name, expected, array)
    return array


def _as_lengths(lengths: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """As int32, where a length out of range is the nearest in range."""
    if lengths is None:
        return None
    array = _as_array("lengths", lengths, jnp.integer, "integers")
    _check_shape("lengths", array, "(*batch,)", x.shape[:-2], f"x of shape {x.shape}")
    if array.dtype.itemsize < 4:  # n_steps may not fit into it
        array = array.astype(jnp.int32)
    n_steps = jnp.asarray(x.shape[-2], array.dtype)
    return jnp.clip(array, jnp.zeros_like(n_steps), n_steps).astype(jnp.int32)


def _as_resets(resets: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    if resets is None:
        return None
    array = _as_array("resets", resets, jnp.bool_, "bools (0 and 1 become bools by astype(bool))")
    _check_shape("resets", array, "(*batch, n_steps)", x.shape[:-1], f"x of shape {x.shape}")
    return array


def _check_broadcasts(name: str, array: Any, shape: tuple[int, ...], axes: str) -> None:
    """Require a shape that broadcasts to another; None does."""
    own = getattr(array, "shape", ())
    pairs = zip(reversed(own), reversed(shape), strict=False)
    fits = len(own) <= len(shape) and all(size in (1, full) for size, full in pairs)
    require(fits, name, f"broadcastable to {axes} = {shape}", array, ValueError)


def _check_symbolic(run: Run) -> None:
    """Refuse what a symbolic number of steps does not allow."""
    if not isinstance(run.n_steps, int):
        of_x = f"with a symbolic n_steps, as of x with shape {run.x.shape}"
        is_rolled, every = run.unroll in (None, 1), run.checkpoint_every
        require(is_rolled, "unroll", f"None, 1 or False {of_x}", run.unroll, ValueError)
        require(every is None, "checkpoint_every", f"None {of_x}", every, ValueError)


def check_params(params: Params, name: str = "params") -> None:
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


def _check_last_axis(name: str, array: jax.Array, axes: str, params: Params, n_axes: int) -> None:
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
