"""`jax.jit` for the public functions, with the checks that must run before it."""

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import jax
import numpy as np

from jaxrnn.arguments import STATIC, check_static
from jaxrnn.errors import require
from jaxrnn.plan import mesh_of
from jaxrnn.run import DEFAULTS

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

    `jax.jit` keeps what an activation or rate read when a call was traced. So it gets functions of
    JAX itself only, which read nothing. A call with any other is traced anew. Then its loop is
    compiled anew too, as `jax.lax.scan` compiles one outside `jax.jit`.
    """
    *parameters, last = inspect.signature(function).parameters.values()
    defaults = DEFAULTS if last.kind is last.VAR_KEYWORD else {last.name: last.default}
    last = last.replace(kind=last.KEYWORD_ONLY)
    parameters += [last.replace(name=each, default=defaults[each]) for each in defaults]
    parameters = [each.replace(annotation=each.empty) for each in parameters]
    names = [each.name for each in parameters]

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        mesh = mesh_of((args, kwargs))
        with nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh):
            return function(*args, **kwargs)

    static = [name for name in STATIC if name in names]
    compiled: Any = jax.jit(traced, static_argnames=static)

    def bound(args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The function with what is static bound in it, and the other keyword arguments."""
        kwargs = _checked(function.__name__, names, args, kwargs)
        given = {name: kwargs.pop(name) for name in static if name in kwargs}
        return partial(cast(Any, traced), **given), kwargs

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not kwargs:  # the usual call, which is to cost what a jitted loop costs
            return compiled(*args)  # type: ignore[no-any-return]  # `cast` would take 50 ns
        run, arrays = bound(args, kwargs)
        if all(map(_is_of_jax, run.keywords.values())):
            return cast(R, compiled(*args, **run.keywords, **arrays))
        if has_loop or mesh_of((args, arrays)) is not None:
            run = jax.jit(run)  # a program of its own, which dies with the call
        return cast(R, run(*args, **arrays))

    def method(name: str, *args: Any, **kwargs: Any) -> Any:
        run, arrays = bound(args, kwargs)
        return getattr(jax.jit(run), name)(*args, **arrays)

    vars(call).update({name: partial(method, name) for name in ("lower", "trace", "eval_shape")})
    vars(call).update(clear_cache=compiled.clear_cache, __signature__=inspect.Signature(parameters))
    return cast(Jitted[P, R], call)


def _is_of_jax(option: Any) -> bool:
    """Whether it can never change: no function, or one in a module of JAX under its own name."""
    module = getattr(option, "__module__", None) or ""
    own = getattr(sys.modules.get(module), getattr(option, "__name__", ""), None)
    return not callable(option) or (module.split(".")[0] == "jax" and own is option)


def _checked(name: str, names: list[str], args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments as `jax.jit` tells them apart."""
    for each in kwargs.keys() - names:
        raise TypeError(f"{name}() got an unexpected keyword argument {each!r}")
    check_static(kwargs)
    arguments = dict(zip(names, args, strict=False)) | kwargs
    _check_lengths(arguments.get("lengths"), arguments.get("x"))
    # To `jax.jit` True is 1, and False is 0. To `jax.lax.scan` True is 0, and False is 1.
    unroll = kwargs.get("unroll")
    return kwargs | ({"unroll": int(not unroll)} if isinstance(unroll, bool) else {})


def _check_lengths(lengths: Any, x: Any) -> None:
    """Require Python and NumPy lengths in range.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    is_here = (
        isinstance(lengths, np.ndarray | np.integer | int) and len(getattr(x, "shape", ())) > 1
    )
    n_steps, values = x.shape[-2] if is_here else None, np.asarray(lengths if is_here else 0)
    if isinstance(n_steps, int) and values.dtype.kind in "iu":  # tracing finds other mistakes
        for value in values[(values < 0) | (values > n_steps)].flat:
            require(False, "lengths", f"from 0 to n_steps = {n_steps}", int(value), ValueError)
