"""`jax.jit` for the public functions, with the checks that must run before it."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from inspect import Parameter, Signature, signature
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
    """The function under `jax.jit`, and checks of what `jax.jit` would misread without an error.

    `jax.jit` keeps what an activation or rate read when a call was traced. So it gets functions of
    JAX itself only, which read nothing. A call with any other is traced anew. Then its loop is
    compiled anew too, as `jax.lax.scan` compiles one outside `jax.jit`.
    """
    *parameters, last = signature(function).parameters.values()
    defaults = DEFAULTS if last.kind is last.VAR_KEYWORD else {last.name: last.default}
    parameters += [Parameter(each, last.KEYWORD_ONLY, default=defaults[each]) for each in defaults]
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
        for each in kwargs.keys() - names:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {each!r}")
        check_static(kwargs)
        arguments = dict(zip(names, args, strict=False)) | kwargs
        _check_lengths(arguments.get("lengths"), arguments.get("x"))
        # `jax.jit` takes True for 1. `jax.lax.scan` takes it for 0, all steps, and False for 1.
        unroll = kwargs.get("unroll")
        kwargs = kwargs | ({"unroll": int(not unroll)} if isinstance(unroll, bool) else {})
        given = {name: kwargs.pop(name) for name in static if name in kwargs}
        return partial(cast(Any, traced), **given), kwargs

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        if not kwargs:  # the usual call, which is to cost what a jitted loop costs
            return compiled(*args)
        program, arrays = bound(args, kwargs)
        if all(map(_is_constant, program.keywords.values())):
            return compiled(*args, **program.keywords, **arrays)
        if has_loop or mesh_of((args, arrays)) is not None:
            program = jax.jit(program)  # a program of its own, which dies with the call
        return program(*args, **arrays)

    def method(name: str, *args: Any, **kwargs: Any) -> Any:
        program, arrays = bound(args, kwargs)
        return getattr(jax.jit(program), name)(*args, **arrays)

    vars(call).update({name: partial(method, name) for name in ("lower", "trace", "eval_shape")})
    vars(call).update(clear_cache=compiled.clear_cache, __signature__=Signature(parameters))
    return cast(Jitted[P, R], call)


def _is_constant(option: Any) -> bool:
    """Whether it can never change: no function, or one that JAX itself defines."""
    module = getattr(option, "__module__", None) or ""
    own = getattr(sys.modules.get(module), getattr(option, "__name__", ""), None)
    return not callable(option) or (module.split(".")[0] == "jax" and own is option)


def _check_lengths(lengths: Any, x: Any) -> None:
    """Require Python and NumPy lengths in range.

    A JAX array is not fetched from its device for this: its lengths saturate, as traced ones do.
    """
    if isinstance(lengths, np.ndarray | np.integer | int) and len(getattr(x, "shape", ())) > 1:
        n_steps, values = x.shape[-2], np.asarray(lengths)
        if isinstance(n_steps, int) and values.dtype.kind in "iu":  # tracing finds other mistakes
            wrong = values[(values < 0) | (values > n_steps)].tolist()
            require(not wrong, "lengths", f"from 0 to n_steps = {n_steps}", wrong, ValueError)
