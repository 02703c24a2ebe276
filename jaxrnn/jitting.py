"""The public functions under `jax.jit`, and what is checked outside of it.

A call that is compiled already pays for no other check.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypedDict, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AxisType
from jax.typing import ArrayLike

from jaxrnn.recurrence import Activation

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The options of `rnn_forward`, where they are passed on."""

    activation: Activation
    lengths: ArrayLike | None
    resets: ArrayLike | None
    reset_to: ArrayLike | None
    reverse: bool
    checkpoint_every: int | None
    unroll: int


def jitted(*static: str) -> Callable[[FunctionT], FunctionT]:
    """`jax.jit`, with checks outside of what it hides or refuses without naming the argument.

    Type checkers still see the function's own signature.
    """

    def decorate(function: FunctionT) -> FunctionT:
        parameters = inspect.signature(function).parameters
        known = {name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
        if len(known) < len(parameters):
            known |= Options.__annotations__.keys()
        compiled = jax.jit(_on_own_mesh(function), static_argnames=static)

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for name in options:
                if name not in known:
                    unexpected = f"got an unexpected keyword argument {name!r}"
                    raise TypeError(f"{function.__name__}() {unexpected}")
            arguments = dict(zip(parameters, args, strict=False)) | options
            _check_byte_order(arguments)
            if options.get("lengths") is not None:
                _check_lengths(options["lengths"], arguments.get("x"))
            try:
                return compiled(*args, **options)
            except OverflowError as error:  # of a Python integer, whose argument it names
                raise ValueError(str(error)) from error
            except ValueError:
                _check_jittable(arguments, static)
                raise

        return cast(FunctionT, call)

    return decorate


def _on_own_mesh(function: FunctionT) -> FunctionT:
    """Traced on the mesh of explicit axes that the arguments are on, where none is set.

    There alone do constants of the loops, and what JAX makes of these in derivatives and under
    `jax.vmap`, have shardings that fit.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        leaves = [leaf for leaf in jax.tree.leaves((args, options)) if isinstance(leaf, jax.Array)]
        meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
        explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
        if not explicit or not jax.sharding.get_abstract_mesh().empty:
            return function(*args, **options)
        with jax.sharding.use_abstract_mesh(explicit[0]):
            return function(*args, **options)

    return cast(FunctionT, call)


def _check_byte_order(arguments: dict[str, Any]) -> None:
    """That NumPy arrays have this machine's, as `jax.jit` misreads others once it has compiled."""
    for leaf in jax.tree.leaves(arguments):
        if isinstance(leaf, np.ndarray) and not leaf.dtype.isnative:
            place = next(place for place, each in _places(arguments) if each is leaf)
            expected = "must be in the byte order of this machine"
            raise TypeError(f"{place} {expected}, but has dtype {leaf.dtype.str!r}")


def _check_jittable(arguments: dict[str, Any], static: Sequence[str]) -> None:
    """That `jax.jit` takes them, which says of what it does not take what it is, not where."""
    for name in static:
        value = arguments.get(name)
        try:
            hash(value)
        except TypeError:
            raise TypeError(f"{name} must be hashable, as it is static, but is {value!r}") from None
    for place, leaf in _places(arguments):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(f"{place} must be an array of real numbers, but is a MaskedArray")


def _places(arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every leaf of the arguments of a call, and what it is called."""
    for name, argument in arguments.items():
        for path, leaf in jax.tree.leaves_with_path(argument):
            yield name + jax.tree_util.keystr(path), leaf


def _check_lengths(lengths: Any, x: Any) -> None:
    """Check that Python and NumPy lengths are in range.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    shape: tuple[Any, ...] = getattr(x, "shape", ())
    if not isinstance(lengths, np.ndarray | np.integer | int) or len(shape) < 2:
        return  # what else may be wrong is said when they are traced
    values, n_steps = np.asarray(lengths), shape[-2]
    if not isinstance(n_steps, int):
        return  # it is symbolic: they saturate too
    if values.size and np.issubdtype(values.dtype, np.integer):
        for value in (values.min(), values.max()):
            if not 0 <= value <= n_steps:
                raise ValueError(f"lengths must be from 0 to n_steps = {n_steps}, but hold {value}")
