"""Checks of arguments while a call is traced, and of static options and lengths before it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import AN_RNN_PARAMS, check_shape, noting, require
from jaxrnn.inputs import STATIC, WHERE_LAYERS_DIFFER, Function, Inputs, Steps, zero_behind
from jaxrnn.params import Params, RNNParams, is_real
from jaxrnn.sharing import alike


def check_static(options: Mapping[str, Any]) -> None:
    """Check the options that are no arrays.

    Before `jax.jit` sees them, as it compares them by `==`: to it 1, 1.0 and True are the same.
    """
    for name in options.keys() & STATIC.keys():
        value, (kind, expected, default, least) = options[name], STATIC[name]
        expected += WHERE_LAYERS_DIFFER if isinstance(value, list | tuple) else ""
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        require(fits or (value is None and default is None), name, expected, value)
        if least is not None and value is not None:
            require(value >= least, name, f"at least {least}", value, ValueError)


def check_lengths(lengths: Any, n_steps: Any) -> None:
    """Require Python and NumPy lengths in range, where the number of steps is known.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    if isinstance(lengths, np.ndarray | np.integer | int) and isinstance(n_steps, int):
        values = np.asarray(lengths)
        if values.dtype.kind in "iu":  # tracing finds other mistakes
            wrong = values[(values < 0) | (values > n_steps)].tolist()
            require(not wrong, "lengths", f"from 0 to n_steps = {n_steps}", wrong, ValueError)


def prepare_run(params: Params, x: Any, h0: Any, options: dict[str, Any]) -> tuple[Params, Inputs]:
    """Check the arguments of a run, and give all arrays one dtype and one way to be shared."""
    lengths, resets, reset_to = options["lengths"], options["resets"], options["reset_to"]
    if reset_to is not None and resets is None:
        raise ValueError("reset_to is given without resets, which say where it is used")
    if resets is not None and h0 is not None and reset_to is None:
        raise ValueError("resets and h0 are given without reset_to: is it zero, or h0 itself?")
    h0, reset_to = (0.0 if state is None else state for state in (h0, reset_to))
    given = {"x": x, "h0": h0, "reset_to": reset_to, "leak": options["leak"]}
    params, (x, h0, reset_to, leak) = promote(params, given)
    _check_features("x", x, "*batch n_steps n_features", params)
    n_steps, n_nodes = x.shape[-2], params.wh.shape[1]
    for name in ("unroll", "checkpoint_every"):
        fits = isinstance(n_steps, int) or options[name] is None
        expected = f"None with a symbolic n_steps, as of x with shape {x.shape}"
        require(fits, name, expected, options[name], ValueError)
    sizes: dict[str, Any] = {"batch": x.shape[:-2], "n_steps": n_steps, "n_nodes": n_nodes}
    lengths = None if lengths is None else as_lengths(lengths, x.shape[:-2], "x", x)
    if resets is not None:
        resets = as_array("resets", resets, jnp.bool_, "bools (astype(bool) makes some of 0 and 1)")
        check_shape("resets", resets, "*batch n_steps", f"to fit x of shape {x.shape}", **sizes)
        resets = resets[..., None]
    h0 = _broadcasting("h0", h0, "*batch n_nodes", sizes)
    reset_to = _broadcasting("reset_to", reset_to, "*batch n_nodes", sizes)
    leak, leak_of_steps = _broadcasting("leak", leak, "*batch n_steps n_nodes", sizes), None
    if leak is not None:
        leak, leak_of_steps = (None, leak) if leak.shape[-2] == n_steps else (leak[..., 0, :], None)
    if any(getattr(each, "dtype", x.dtype) != x.dtype for each in (given["x"], given["leak"])):
        # A conversion is a copy, in which `jax.debug_nans` would find the NaN of the padding.
        x, leak_of_steps = jax.tree.map(partial(zero_behind, lengths), (x, leak_of_steps))
    steps = Steps(x, leak_of_steps, resets)
    inputs = Inputs(steps, h0, None if resets is None else reset_to, leak, lengths)
    return _checked(params, inputs, x.shape[:-2], options)


def prepare_step(
    params: Params, h: Any, x_t: Any, options: dict[str, Any]
) -> tuple[Params, Inputs]:
    """The same for a run of one step; the batch axes of state and input broadcast."""
    params, (h, x_t, leak) = promote(params, {"h": h, "x_t": x_t, "leak": options["leak"]})
    n_nodes = params.wh.shape[1]
    _check_features("x_t", x_t, "*batch n_features", params)
    fit = f"to fit params.wh of shape {params.wh.shape}"
    check_shape("h", h, "*batch n_nodes", fit, n_nodes=n_nodes)
    with noting(f"in the batch axes of h, of shape {h.shape}, and of x_t, of shape {x_t.shape}"):
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    h, x_t = (jax.lax.broadcast_to_rank(array, len(batch) + 1) for array in (h, x_t))
    leak = _broadcasting("leak", leak, "*batch n_nodes", {"batch": batch, "n_nodes": n_nodes})
    return _checked(params, Inputs(Steps(x_t), h, None, leak), batch, options)


def _checked(
    params: Params, inputs: Inputs, batch: tuple[int, ...], options: dict[str, Any]
) -> tuple[Params, Inputs]:
    """With functions that keep shape and dtype, and all arrays shared in one way.

    A rate may return fewer entries than there are nodes, or more: as many as `wh` has rows.
    """
    like = jax.ShapeDtypeStruct((*batch, params.wh.shape[1]), inputs.h0.dtype)
    returned = [_returned("activation", options["activation"], like, like.shape[-1])]
    if options["rate"] is None:
        check_square(params)
    else:
        returned.append(_returned("rate", options["rate"], like, len(params.wh)))
    return alike(params, inputs, like.shape, returned)


def _returned(name: str, function: Function, like: jax.ShapeDtypeStruct, n: int) -> Any:
    """The type of what a function returns, which must have `n` entries of each sequence."""
    takes = f"takes {like.dtype}{like.shape}, (*batch, n_nodes), as a traced array"
    with noting(f"in {name}, which {takes} (use jax.numpy, not NumPy)"):
        # In a partial, as JAX needs weak references to what it traces. Not all callables have.
        out = jax.eval_shape(partial(function), like)
    shape, came = (*like.shape[:-1], n), (getattr(out, "shape", None), getattr(out, "dtype", None))
    expected = f"{like.dtype}{shape}, as it takes {like.dtype}{like.shape}"
    require(came == (shape, like.dtype), f"what {name} returns", expected, out)
    return out


def promote(params: Params, given: dict[str, Any]) -> tuple[Params, list[Any]]:
    """Convert everything to arrays of one common floating dtype; what may be None stays None."""
    require(isinstance(params, RNNParams), "params", AN_RNN_PARAMS, params)
    every = given | {f"params.{field}": each for field, each in params._asdict().items()}
    optional = "leak", "params.wx", "params.b"
    every = {name: each for name, each in every.items() if each is not None or name not in optional}
    arrays = {name: as_array(name, each) for name, each in every.items()}
    with noting(", ".join(f"{name} is {each.dtype}" for name, each in arrays.items())):
        # `float` is weakly typed: it makes integers floating, and float16 stays float16.
        dtype = jnp.result_type(*arrays.values(), float)
    arrays = {name: each.astype(dtype) for name, each in arrays.items()}
    params = RNNParams(*(arrays.get(f"params.{field}") for field in RNNParams._fields))
    check_params(params)
    return params, [arrays.get(name) for name in given]


def as_array(name: str, value: Any, kind: Any = None, of: str = "real numbers") -> jax.Array:
    """One array of a kind of numbers; by default of any that are real."""
    expected = f"an array of {of}"
    # Lists `jnp.sum` refuses too.
    require(not isinstance(value, list | tuple), name, f"{expected} (jnp.asarray makes one)", value)
    require(value is not None, name, expected, value)
    dense = "a dense array; wh=jnp.eye(n_nodes), rate=lambda h: h @ sparse takes a sparse one"
    require(not hasattr(value, "todense"), name, dense, type(value).__name__)
    with noting(f"{name} must be {expected}"):
        array = jnp.asarray(value)
    fits = is_real(array.dtype) if kind is None else jnp.issubdtype(array.dtype, kind)
    require(fits, name, expected, array)
    return array


def as_lengths(lengths: Any, batch: tuple[int, ...], name: str, array: jax.Array) -> jax.Array:
    """The lengths of an array of that name, `(*batch, 1)`, which may be out of range."""
    as_given = as_array("lengths", lengths, jnp.integer, "integers")
    check_shape("lengths", as_given, "*batch", f"to fit {name} of shape {array.shape}", batch=batch)
    narrow = as_given.dtype.itemsize < 4  # n_steps may not fit into it
    return (as_given.astype(jnp.int32) if narrow else as_given)[..., None]


def _broadcasting(name: str, array: Any, axes: str, sizes: dict[str, Any]) -> Any:
    """With the rank of the axes to which it must broadcast; None stays None."""
    if array is None:
        return None
    check_shape(name, array, axes, broadcasts=True, **sizes)
    return jax.lax.broadcast_to_rank(array, len(sizes["batch"]) + len(axes.split()) - 1)


def check_params(params: Params, name: str = "params") -> None:
    """Require shapes that fit each other."""
    wx, wh, b = params
    check_shape(f"{name}.wh", wh, "n_rates n_nodes", "(jax.vmap maps over a stack of sets)")
    fit, n_nodes = f"to fit {name}.wh of shape {wh.shape}", wh.shape[1]
    for field, array, axes in (("wx", wx, "n_features n_nodes"), ("b", b, "n_nodes")):
        if array is not None:
            check_shape(f"{name}.{field}", array, axes, fit, n_nodes=n_nodes)


def check_square(params: Params, name: str = "params") -> None:
    """Require as many rates as nodes, as there are without a rate."""
    fit = "unless a rate returns as many entries as it has rows"
    check_shape(f"{name}.wh", params.wh, "n_nodes n_nodes", fit, n_nodes=params.wh.shape[1])


def _check_features(name: str, array: jax.Array, axes: str, params: Params) -> None:
    """Require n_features entries in the last axis; n_nodes without `wx`."""
    weights, axis = ("wh", 1) if params.wx is None else ("wx", 0)
    shape = getattr(params, weights).shape
    fit = f"to fit params.{weights} of shape {shape}"
    check_shape(name, array, axes, fit, n_features=shape[axis])
