"""`jax.jit` for the public functions, with the checks that must run before it."""

import inspect
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import jax
import numpy as np

from jaxrnn.arguments import STATIC, check_static
from jaxrnn.errors import require
from jaxrnn.plan import mesh_for
from jaxrnn.run import OPTIONS, Options

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Jitted(Protocol[P, R]):
    """A function with the methods of one under `jax.jit`."""

    lower: Callable[..., Any]
    trace: Callable[..., Any]
    eval_shape: Callable[..., Any]
    clear_cache: Callable[[], None]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""


def jitted(function: Callable[P, R], *, has_loop: bool = True) -> Jitted[P, R]:
    """The function under `jax.jit`, with checks of what that would misread in silence.

    `jax.jit` keeps what an activation read when a call was traced. So it gets only functions of JAX
    itself, which read nothing. A call with any other activation is traced anew. Then its loop is
    compiled anew too, as `jax.lax.scan` compiles one outside `jax.jit`.
    """
    signature = _with_options(inspect.signature(function))
    names = tuple(signature.parameters)
    static = tuple(name for name in STATIC if name in names)

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with mesh_for((args, kwargs)):
            return function(*args, **kwargs)

    compiled: Any = jax.jit(traced, static_argnames=static)

    def program(kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The jitted function for these keyword arguments, and those that are left for it."""
        if "activation" not in kwargs or _is_of_jax(kwargs["activation"]):
            return compiled, kwargs
        bound = {name: value for name, value in kwargs.items() if name in static}
        rest = {name: value for name, value in kwargs.items() if name not in static}
        return jax.jit(partial(cast(Any, traced), **bound)), rest

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not kwargs:  # the usual call, which is to cost what a jitted loop costs
            return compiled(*args)  # type: ignore[no-any-return]  # `cast` would take 50 ns
        checked = _checked(function.__name__, names, args, kwargs)
        run, rest = program(checked)
        if run is not compiled and not has_loop:
            run, rest = traced, checked  # there is nothing that would have to be compiled
        return cast(R, run(*args, **rest))

    def method(name: str, *args: Any, **kwargs: Any) -> Any:
        run, rest = program(_checked(function.__name__, names, args, kwargs))
        return getattr(run, name)(*args, **rest)

    vars(call).update({name: partial(method, name) for name in ("lower", "trace", "eval_shape")})
    vars(call).update(clear_cache=compiled.clear_cache, __signature__=signature)
    return cast(Jitted[P, R], call)


def _with_options(signature: inspect.Signature) -> inspect.Signature:
    """With each option and its default in place of `**options`."""
    *parameters, last = signature.parameters.values()
    if last.kind is not last.VAR_KEYWORD:
        return signature
    types = Options.__annotations__
    last = last.replace(kind=last.KEYWORD_ONLY)
    options = [
        last.replace(name=each.name, default=each.default, annotation=types[each.name])
        for each in OPTIONS
    ]
    return signature.replace(parameters=[*parameters, *options])


def _is_of_jax(function: Any) -> bool:
    """Whether it stands in a module of JAX under its own name, so that it can never change."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    return (
        module.split(".")[0] == "jax" and getattr(sys.modules.get(module), name, None) is function
    )


def _checked(
    name: str, names: tuple[str, ...], args: Any, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments as `jax.jit` tells them apart."""
    for each in kwargs:
        if each not in names:
            raise TypeError(f"{name}() got an unexpected keyword argument {each!r}")
    arguments = dict(zip(names, args, strict=False)) | kwargs
    check_static(kwargs)
    _check_lengths(arguments.get("lengths"), arguments.get("x"))
    unroll = kwargs.get("unroll")
    # To `jax.jit` True is 1, and False is 0. To `jax.lax.scan` True is 0, and False is 1.
    return kwargs | {"unroll": int(not unroll)} if isinstance(unroll, bool) else kwargs


def _check_lengths(lengths: Any, x: Any) -> None:
    """Require Python and NumPy lengths in range.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    shape: tuple[Any, ...] = getattr(x, "shape", ())
    if not isinstance(lengths, np.ndarray | np.integer | int) or len(shape) < 2:
        return  # other mistakes are found when the call is traced
    values, n_steps = np.asarray(lengths), shape[-2]
    if values.size and values.dtype.kind in "iu" and isinstance(n_steps, int):
        for value in (values.min(), values.max()):
            expected = f"from 0 to n_steps = {n_steps}"
            require(0 <= value <= n_steps, "lengths", expected, int(value), ValueError)
