"""`jax.jit` for the public functions, with the checks that must run before it."""

import inspect
from collections.abc import Callable
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
    """A function under `jax.jit`, whose `lower`, `trace`, `eval_shape` and so on it has too.

    Each call checks what `jax.jit` would misread in silence, or refuse without naming the argument.
    """

    # `functools.wraps` copies the other attributes to what JAX makes of the function.
    __slots__ = ("__dict__", "__weakref__", "_compiled", "_names", "_static")

    def __init__(self, function: Callable[P, R], *more_static: str) -> None:
        """Jit the function. Options that are no arrays are static, and so are `more_static`."""
        signature = inspect.signature(function)
        *parameters, last = signature.parameters.values()
        if last.kind is last.VAR_KEYWORD:  # `help` shows every option in its place
            last = last.replace(kind=last.KEYWORD_ONLY)
            types = Options.__annotations__
            options = [
                last.replace(name=each.name, default=each.default, annotation=types[each.name])
                for each in OPTIONS
            ]
        else:
            options = [last]
        update_wrapper(self, function)
        self.__signature__ = signature.replace(parameters=[*parameters, *options])
        self._names = tuple(self.__signature__.parameters)
        self._static = [name for name in (*STATIC, *more_static) if name in self._names]

        def on_own_mesh(*args: P.args, **kwargs: P.kwargs) -> R:
            with _explicit_mesh_of((args, kwargs)):
                return function(*args, **kwargs)

        traced = update_wrapper(on_own_mesh, function)
        self._compiled = jax.jit(traced, static_argnames=self._static)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the compiled function."""
        for name, value in kwargs.items():
            if name not in self._names:
                raise TypeError(f"{self.__name__}() got an unexpected keyword argument {name!r}")
            if name in self._static:
                _check_hashable(name, value)
        arguments = dict(zip(self._names, args, strict=False)) | kwargs
        for leaf in jax.tree.leaves(arguments):
            if isinstance(leaf, np.ndarray):
                _check_array(leaf, arguments)
        _check_lengths(arguments.get("lengths"), arguments.get("x"))
        return cast(R, self._compiled(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        """Pass on what `jax.jit` gives: `lower`, `trace`, `eval_shape`, ..."""
        return getattr(self._compiled, name)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind as a function does, by which `help` knows one."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str:
        """Pickle by name, as a function does."""
        return cast(str, self.__qualname__)


def jitted(*more_static: str) -> Callable[[Callable[P, R]], Jitted[P, R]]:
    """Decorate a public function; `more_static` names static arguments that are no options."""
    return lambda function: Jitted(function, *more_static)


def _explicit_mesh_of(arguments: Any) -> AbstractContextManager[Any]:
    """The mesh of explicit axes that the arguments are on, where none is set.

    Only when it is set do the constants of the loops, and what JAX makes of them in derivatives and
    under `jax.vmap`, have shardings that fit.
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
    """Refuse what `jax.jit` misreads once it has compiled a call of the same shapes."""
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
