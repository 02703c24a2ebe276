"""`jax.jit` for the public functions, with the checks that must run before it."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import update_wrapper
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AxisType

from jaxrnn.errors import refuse, require
from jaxrnn.options import OPTIONS, STATIC, Options

P = ParamSpec("P")
R = TypeVar("R")


class Jitted(Generic[P, R]):
    """A function under `jax.jit`, with checks of what `jax.jit` would misread in silence.

    Once `jax.jit` has compiled a call, a masked array or one of another byte order passes for an
    array of the same shape, and gives wrong numbers.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[P, R]) -> None:
        """Jit the function, with options static that are not arrays."""
        signature = inspect.signature(function)
        *parameters, last = signature.parameters.values()
        options = [last]
        if last.kind is last.VAR_KEYWORD:  # `help` shows each option in its place
            types = Options.__annotations__
            last = last.replace(kind=last.KEYWORD_ONLY)
            options = [
                last.replace(name=each.name, default=each.default, annotation=types[each.name])
                for each in OPTIONS
            ]
        update_wrapper(self, function)
        self.__signature__ = signature.replace(parameters=[*parameters, *options])
        self._names = tuple(self.__signature__.parameters)
        self._static = [name for name in (*STATIC, "dropout") if name in self._names]

        def traced(*args: P.args, **kwargs: P.kwargs) -> R:
            self._check_names(kwargs)
            with _explicit_mesh_of((args, kwargs)):
                return function(*args, **kwargs)

        traced = update_wrapper(traced, function)
        self._compiled: Any = jax.jit(traced, static_argnames=self._static)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check the arguments, and call the compiled function."""
        self._check_names(kwargs)
        for name, value in kwargs.items():
            if name in self._static:
                _check_hashable(name, value)
        arguments = dict(zip(self._names, args, strict=False)) | kwargs
        for leaf in jax.tree.leaves(arguments):
            if isinstance(leaf, np.ndarray):
                _check_array(leaf, arguments)
        _check_lengths(arguments.get("lengths"), arguments.get("x"))
        return cast(R, self._compiled(*args, **kwargs))

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._names:
                raise TypeError(f"{self.__name__}() got an unexpected keyword argument {name!r}")

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """As of `jax.jit`."""
        return self._compiled.lower(*args, **kwargs)

    def trace(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """As of `jax.jit`."""
        return self._compiled.trace(*args, **kwargs)

    def eval_shape(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """As of `jax.jit`."""
        return self._compiled.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        """As of `jax.jit`."""
        self._compiled.clear_cache()

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind to an instance as a function does; by this method `help` knows a function."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str:
        """Pickle by name, as a function does."""
        return self.__qualname__

    def __repr__(self) -> str:
        """Name the function."""
        return f"<jitted function {self.__module__}.{self.__qualname__}>"


def _explicit_mesh_of(arguments: Any) -> AbstractContextManager[Any]:
    """The mesh of explicit axes that the arguments are on, where none is set.

    Without it, the constants of the loops, their tangents and their batched forms would get
    shardings that do not fit those of the arguments.
    """
    leaves = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    if not explicit or not jax.sharding.get_abstract_mesh().empty:
        return nullcontext()
    return jax.sharding.use_abstract_mesh(explicit[0])


def _check_hashable(name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        refuse(name, "hashable, as it is static", value)


def _check_array(array: np.ndarray[Any, Any], arguments: dict[str, Any]) -> None:
    """Refuse masked arrays, and arrays of another byte order."""
    is_masked = isinstance(array, np.ma.MaskedArray)
    if is_masked or not array.dtype.isnative:
        leaves = jax.tree.leaves_with_path(arguments)
        path = next(path for path, leaf in leaves if leaf is array)
        expected = "no masked array" if is_masked else "in the byte order of this machine"
        refuse(path[0].key + jax.tree_util.keystr(path[1:]), expected, array)


def _check_lengths(lengths: Any, x: Any) -> None:
    """Require Python and NumPy lengths in range.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    shape: tuple[Any, ...] = getattr(x, "shape", ())
    if not isinstance(lengths, np.ndarray | np.integer | int) or len(shape) < 2:
        return  # other mistakes are found when the call is traced
    values, n_steps = np.asarray(lengths), shape[-2]
    if values.size and np.issubdtype(values.dtype, np.integer) and isinstance(n_steps, int):
        for value in (values.min(), values.max()):
            expected = f"from 0 to n_steps = {n_steps}"
            require(0 <= value <= n_steps, "lengths", expected, int(value), ValueError)
