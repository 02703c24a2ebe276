"""`jax.jit` for the public functions, with the checks that must run before it."""

import sys
from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, TypeVar

import jax

from jaxrnn.arguments import check_lengths, check_static
from jaxrnn.inputs import DEFAULTS, STATIC
from jaxrnn.params import shown
from jaxrnn.sharing import mesh_of, on_mesh_of

# What others call an argument, and what serves here.
OTHER_NAMES = {
    "alpha": "leak",
    "tau": "leak=dt / tau",
    "noise": "wx=None, and x @ wx + noise for x",
    "mask": "lengths, or leak=mask[..., None]",
    "time_major": "x.swapaxes(0, 1)",
    "initial_state": "h0",
    "nonlinearity": "activation",
    "return_sequences": "rnn_states",
    "go_backwards": "reverse",
}

P = ParamSpec("P")
R = TypeVar("R")


def jitted(function: Callable[P, R], *, has_loop: bool = True) -> Callable[P, R]:
    """The function under `jax.jit`, and checks of what `jax.jit` would misread without an error.

    `jax.jit` keeps what an activation or rate read when a call was traced. So it gets functions of
    JAX itself only, which read nothing. A call with any other is traced anew. Then its loop is
    compiled anew too, as `jax.lax.scan` compiles one outside `jax.jit`. A function without a loop
    is run as it is, if no mesh must be set.
    """
    parameters = _parameters(function)
    positional = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    static = [name for name in STATIC if name in parameters]
    vars(function).update(__signature__=Signature([*parameters.values()]))  # `wraps` copies it

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with on_mesh_of((args, kwargs)):
            return function(*args, **kwargs)

    compiled: Any = jax.jit(traced, static_argnames=static)

    def check(args: Any, kwargs: Any) -> None:
        called = f"{function.__name__}()"
        for name in kwargs.keys() - parameters:
            ours = f" (here: {OTHER_NAMES[name]})" if name in OTHER_NAMES else ""
            raise TypeError(f"{called} got an unexpected keyword argument {name!r}{ours}")
        if len(args) > len(positional):
            takes = f"takes {len(positional)} arguments by position ({', '.join(positional)})"
            raise TypeError(f"{called} {takes} and options by name, but {len(args)} came")
        check_static(kwargs)
        x = dict(zip(positional, args, strict=False)).get("x", kwargs.get("x"))
        n_steps = (None, None, *getattr(x, "shape", ()))[-2]  # None is not known
        check_lengths(kwargs.get("lengths"), n_steps)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        program, arrays = compiled, kwargs
        if kwargs or len(args) > len(positional):  # else it is to cost what a jitted loop costs
            check(args, kwargs)
            given = {name: kwargs[name] for name in static if name in kwargs}
            if not all(map(_is_constant, given.values())):
                arrays = {name: kwargs[name] for name in kwargs.keys() - given}
                program = partial(traced, **given)
                if has_loop or mesh_of((args, arrays)) is not None:
                    program = jax.jit(program)  # a program of its own, which dies with the call
        try:
            return program(*args, **arrays)
        except TypeError:
            # What JAX refuses before it traces need not have a name in its message.
            jax.eval_shape(lambda: function(*args, **kwargs))
            raise

    return call


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a function, with each option by name, and without types, for `help`."""
    *own, last = signature(function).parameters.values()
    options = [Parameter(key, last.KEYWORD_ONLY, default=DEFAULTS[key]) for key in DEFAULTS]
    own += options if last.kind is last.VAR_KEYWORD else [last]
    for i, each in enumerate(own):
        default = each.default
        if hasattr(default, "__wrapped__"):
            default = shown(default, f"{default.__module__}.{default.__name__}")
        own[i] = each.replace(default=default, annotation=each.empty)
    return {each.name: each for each in own}


def _is_constant(option: Any) -> bool:
    """Whether it can never change: no function, or one that JAX itself defines."""
    module = getattr(option, "__module__", None) or ""
    own = getattr(sys.modules.get(module), str(getattr(option, "__name__", "")), None)
    return not callable(option) or (module.split(".")[0] == "jax" and own is option)
