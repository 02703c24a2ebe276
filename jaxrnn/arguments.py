"""Checks of arguments. They run while a call is traced; those of static options, in each call."""

from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import broadcast_to_rank
from jax.sharding import PartitionSpec

from jaxrnn.errors import noting, require
from jaxrnn.params import Params, RNNParams, an_rnn_params, is_real
from jaxrnn.run import Function, Run, Steps, zero_where

# Of each option that is no array its type, and the least that a number may be.
STATIC: dict[str, Any] = {"activation": Callable, "rate": Callable | None, "reverse": bool}
STATIC |= {"checkpoint_every": int | None, "unroll": int | bool | None, "dropout": Real}
LEAST = {"checkpoint_every": 1, "unroll": 0}

# Arrays that may be None.
OPTIONAL = ("h0", "reset_to", "leak", "params.wx", "params.b")


def check_static(options: Mapping[str, Any]) -> None:
    """Check the options that are no arrays.

    Before `jax.jit` sees them, as it compares them by `==`: to it 1, 1.0 and True are the same.
    """
    for name in options.keys() & STATIC.keys():
        value, kind = options[name], STATIC[name]
        fits = isinstance(value, kind) and (not isinstance(value, bool) or "bool" in str(kind))
        expected = f"of type {kind.__name__ if isinstance(kind, type) else kind}"
        is_function = name in ("activation", "rate")
        expected = "a function, such as jax.numpy.tanh" if is_function else expected
        require(fits, name, expected, value)
        if value is not None and name in LEAST:
            require(value >= LEAST[name], name, f"at least {LEAST[name]}", value, ValueError)


def prepare_run(params: Params, x: Any, h0: Any, options: Any) -> tuple[Params, Run]:
    """Check the arguments of a run, and give all arrays one dtype and one way to be shared."""
    resets, reset_to, leak = options["resets"], options["reset_to"], options["leak"]
    if reset_to is not None and resets is None:
        raise ValueError("reset_to is given without resets, which say where it is used")
    if resets is not None and h0 is not None and reset_to is None:
        raise ValueError("resets and h0 are given without reset_to: is it zero, or h0 itself?")
    params, (x, h0, reset_to, leak) = promote(params, x=x, h0=h0, reset_to=reset_to, leak=leak)
    _check_last_axis("x", x, "(*batch, n_steps, n_features)", params, n_axes=2)
    if not isinstance(x.shape[-2], int):
        unroll, every = options["unroll"], options["checkpoint_every"]
        where = f"with a symbolic n_steps, as of x with shape {x.shape}"
        require(unroll in (None, 1), "unroll", f"None, 1 or False {where}", unroll, ValueError)
        require(every is None, "checkpoint_every", f"None {where}", every, ValueError)
    lengths = options["lengths"]
    is_padding = None if lengths is None else as_padding(lengths, x, x.shape[:-2])[..., None]
    is_reset = None if resets is None else _as_resets(resets, x)
    h0, reset_to = _as_state("h0", h0, params, x), _as_state("reset_to", reset_to, params, x)
    leak_of_steps, leak = _as_leaks(leak, params, x)
    steps = Steps(x, leak_of_steps, is_reset, is_padding)
    run = Run(steps, h0, None if resets is None else reset_to, leak)
    like = jax.ShapeDtypeStruct((*x.shape[:-2], h0.shape[-1]), x.dtype)
    returned = check_functions(options["activation"], options["rate"], like)
    params, run = _alike(params, run, x.shape[:-2], returned)
    return params, run if is_padding is None else _zero_padding(run)


def prepare_step(params: Params, h: Any, x_t: Any, leak: Any) -> tuple[Params, Run]:
    """The same for a run of one step; the batch axes of state and input broadcast."""
    params, (h, x_t, leak) = promote(params, h=h, x_t=x_t, leak=leak)
    _check_last_axis("x_t", x_t, "(*batch, n_features)", params, n_axes=1)
    _check_last_axis("h", h, "(*batch, n_nodes)", params._replace(wx=None), n_axes=1)
    with noting(f"in the batch axes of h, of shape {h.shape}, and of x_t, of shape {x_t.shape}"):
        batch = jnp.broadcast_shapes(h.shape[:-1], x_t.shape[:-1])
    h, x_t = (broadcast_to_rank(array, len(batch) + 1) for array in (h, x_t))
    leak = _broadcasting("leak", leak, (*batch, h.shape[-1]), "(*batch, n_nodes)")
    return _alike(params, Run(Steps(x_t, None, None, None), h, None, leak), batch, [])


def promote(params: Params, **inputs: Any) -> tuple[Params, list[Any]]:
    """Convert everything to arrays of one common floating dtype; what is optional may be None."""
    require(isinstance(params, RNNParams), "params", an_rnn_params("params", params), params)
    given = inputs | {f"params.{name}": value for name, value in params._asdict().items()}
    names = [name for name in given if given[name] is not None or name not in OPTIONAL]
    arrays = {name: as_array(name, given[name]) for name in names}
    params = RNNParams(*(arrays.get(f"params.{name}") for name in RNNParams._fields))
    check_params(params)
    with noting(", ".join(f"{name} is {each.dtype}" for name, each in arrays.items())):
        # `float` is weakly typed: it makes integers floating, and float16 stays float16.
        dtype = jnp.result_type(*arrays.values(), float)
    values = params, [*map(arrays.get, inputs)]
    return jax.tree.map(lambda array: array.astype(dtype), values)  # type: ignore[no-any-return]


def as_array(name: str, value: Any, kind: Any = None, of: str = "real numbers") -> jax.Array:
    """One array of a kind of numbers; by default of any that are real."""
    expected = f"an array of {of}"
    is_list = isinstance(value, list | tuple)  # which `jnp.sum` refuses too
    require(not is_list, name, f"{expected} (jnp.asarray makes one)", value)
    require(value is not None, name, expected, value)
    dense = "a dense array; wh=jnp.eye(n_nodes), rate=lambda h: h @ sparse takes a sparse one"
    require(not hasattr(value, "todense"), name, dense, type(value).__name__)
    with noting(f"{name} must be {expected}"):
        array = jnp.asarray(value)
    fits = is_real(array.dtype) if kind is None else jnp.issubdtype(array.dtype, kind)
    require(fits, name, expected, array)
    return array


def _as_state(name: str, state: Any, params: Params, x: jax.Array) -> jax.Array:
    """A state of each sequence, or one of all with an entry in the axes of the batch."""
    shape = (*x.shape[:-2], params.wh.shape[0])
    state = jnp.zeros((), x.dtype) if state is None else state
    state = _broadcasting(name, state, shape, "(*batch, n_nodes)")
    return jnp.broadcast_to(state, (*state.shape[:-1], shape[-1]))


def _as_leaks(leak: Any, params: Params, x: jax.Array) -> tuple[Any, Any]:
    """A leak of each step or one of all steps, the other None."""
    shape = (*x.shape[:-1], params.wh.shape[0])
    leak = _broadcasting("leak", leak, shape, "(*batch, n_steps, n_nodes)")
    if leak is None or leak.shape[-2] == x.shape[-2]:
        return leak, None
    return None, leak[..., 0, :]


def as_padding(lengths: Any, x: Any, batch: tuple[int, ...], name: str = "x") -> jax.Array:
    """Whether a step is behind the length; a length out of range is the nearest in range."""
    array = as_array("lengths", lengths, jnp.integer, "integers")
    _check_shape("lengths", array, "(*batch,)", batch, f"{name} of shape {x.shape}")
    if array.dtype.itemsize < 4:  # n_steps may not fit into it
        array = array.astype(jnp.int32)
    t = jnp.arange(x.shape[len(batch)], dtype=array.dtype)
    return broadcast_to_rank(t, len(batch) + 1) >= array[..., None]


def check_lengths(lengths: Any, n_steps: Any) -> None:
    """Require Python and NumPy lengths in range, where the number of steps is known.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    if isinstance(lengths, np.ndarray | np.integer | int) and isinstance(n_steps, int):
        values = np.asarray(lengths)
        if values.dtype.kind in "iu":  # tracing finds other mistakes
            wrong = values[(values < 0) | (values > n_steps)].tolist()
            require(not wrong, "lengths", f"from 0 to n_steps = {n_steps}", wrong, ValueError)


def _as_resets(resets: Any, x: jax.Array) -> jax.Array:
    array = as_array("resets", resets, jnp.bool_, "bools (0 and 1 become bools by astype(bool))")
    _check_shape("resets", array, "(*batch, n_steps)", x.shape[:-1], f"x of shape {x.shape}")
    return array[..., None]


def _zero_padding(run: Run) -> Run:
    """Put zeros in the padding of inputs, and of leaks that sequences or steps have of their own.

    NaN there would reach gradients by 0 * NaN, and `jax.debug_nans` in what is kept for them.
    """
    steps, is_padding = run.steps, cast(Any, run.steps.is_padding)
    clear = partial(zero_where, is_padding)
    steps = steps._replace(x=clear(steps.x), leak=jax.tree.map(clear, steps.leak))
    if run.leak is not None and any(size != 1 for size in run.leak.shape[:-1]):
        run = run._replace(leak=zero_where(jnp.all(is_padding, axis=-2), run.leak))
    return run._replace(steps=steps)


def _alike(
    params: Params, run: Run, batch: tuple[int, ...], returned: list[Any]
) -> tuple[Params, Run]:
    """With all arrays of the run shared among devices in one way, and a state of each sequence.

    A mesh may share the batch by an explicit axis, which is part of an array's type. JAX refuses to
    select from arrays that are shared in different ways. Inside `jax.shard_map` an array varies
    over axes of the mesh or is the same along them, and the carry of a loop must vary as its
    results do. So what the activation and the rate have returned decides too: they may read an
    array that is shared, or varies.
    """
    shardings = [jax.typeof(leaf).sharding for leaf in [*jax.tree.leaves(run), *returned]]
    of_axes = zip(*(each.spec[: len(batch)] for each in shardings), strict=True)
    spec: Any = [next(filter(None, names), None) for names in of_axes]

    def share(array: jax.Array) -> Any:
        axes = zip(array.shape, batch, spec, strict=False)  # an axis may have one entry
        names = [name if size == full else None for size, full, name in axes]
        return jax.sharding.reshard(array, PartitionSpec(*names)) if any(spec) else array

    arrays: Any = params, jax.tree.map(share, run)
    leaves = [*jax.tree.leaves(arrays), *returned]
    varies = [jax.typeof(leaf).manual_axis_type.varying for leaf in leaves]
    over: Any = frozenset().union(*varies)

    def vary(array: jax.Array) -> Any:
        # The transpose adds up gradients over these axes here, once, and not in every step.
        new = over - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(new), to="varying")

    params, run = jax.tree.map(vary, arrays)
    # Only now: broadcast before it is shared, the gradient of one state would be gathered. If it
    # were not broadcast, the devices would add it up in every step.
    shape, by = (*batch, run.h0.shape[-1]), jax.typeof(run.steps.x).sharding
    by = by.update(spec=PartitionSpec(*spec, None))
    fill = partial(jnp.broadcast_to, shape=shape, out_sharding=by)
    h0, reset_to = jax.tree.map(fill, (run.h0, run.reset_to))
    return params, run._replace(h0=h0, reset_to=reset_to)


def _broadcasting(name: str, array: Any, shape: tuple[int, ...], axes: str) -> Any:
    """With the rank of a shape to which it must broadcast; None stays None."""
    own = getattr(array, "shape", ())
    pairs = zip(reversed(own), reversed(shape), strict=False)
    fits = len(own) <= len(shape) and all(size in (1, full) for size, full in pairs)
    require(fits, name, f"broadcastable to {axes} = {shape}", array, ValueError)
    return None if array is None else broadcast_to_rank(array, len(shape))


def check_params(params: Params, name: str = "params") -> None:
    """Require shapes that fit each other."""
    wx, wh, b = params
    is_square = wh.ndim == 2 and wh.shape[0] == wh.shape[1]
    expected = "of shape (n_nodes, n_nodes) (jax.vmap maps over a stack of parameter sets)"
    require(is_square, f"{name}.wh", expected, wh, ValueError)
    fit = f"{name}.wh of shape {wh.shape}"
    if wx is not None:
        expected = f"of shape (n_features, n_nodes) to fit {fit}"
        require(wx.shape[1:] == wh.shape[1:], f"{name}.wx", expected, wx, ValueError)
    if b is not None:
        _check_shape(f"{name}.b", b, "(n_nodes,)", wh.shape[1:], fit)


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


def check_functions(activation: Function, rate: Function | None, like: Any) -> list[Any]:
    """Require functions that keep shape and dtype, and return the types of what they return."""
    given = {"activation": activation} | ({} if rate is None else {"rate": rate})
    returned = []
    for name, function in given.items():
        takes = f"takes {like.dtype}{like.shape}, (*batch, n_nodes), as a traced array"
        with noting(f"in {name}, which {takes} (use jax.numpy, not NumPy)"):
            # In a partial, as JAX needs weak references to what it traces. Not all callables have.
            out = jax.eval_shape(partial(function), like)
        came = getattr(out, "shape", None), getattr(out, "dtype", None)
        expected = f"of the shape and dtype it is given, {like.dtype}{like.shape}"
        require(came == (like.shape, like.dtype), f"what {name} returns", expected, out)
        returned.append(out)
    return returned
