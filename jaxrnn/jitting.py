"""`jax.jit` for the public functions, with the checks that must run before it."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import jax

from jaxrnn.arguments import STATIC, check_lengths, check_static
from jaxrnn.errors import require
from jaxrnn.plan import mesh_of
from jaxrnn.run import DEFAULTS

# What other libraries and papers call an argument, and what serves here.
OTHER_NAMES = {
    **dict.fromkeys(("alpha", "tau", "dt"), "leak, which is alpha, or dt / tau"),
    **dict.fromkeys(("nonlinearity", "phi"), "activation"),
    **dict.fromkeys(("initial_state", "initial_carry", "hx", "init_state"), "h0"),
    **dict.fromkeys(("seq_lengths", "sequence_lens", "sequence_length"), "lengths"),
    **dict.fromkeys(("dones", "done"), "resets"),
    "mask": "lengths, or for single steps leak=mask[..., None]",
    "noise": "x, with wx=None: RNNParams(None, wh, b), x @ wx + noise",
    "time_major": "x.swapaxes(0, 1), as the batch comes first",
    "batch_first": "x, in which the batch always comes first",
    "return_sequences": "rnn_states, which returns every state",
    "go_backwards": "reverse",
    "recurrent_dropout": "rate=lambda h: h * keeps / keep",
}

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
    positional = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]

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
            known = f" (here: {OTHER_NAMES[each]})" if each in OTHER_NAMES else ""
            told = f"got an unexpected keyword argument {each!r}{known}"
            raise TypeError(f"{function.__name__}() {told}")
        if len(args) > len(positional):
            told = f"takes {len(positional)} arguments by position ({', '.join(positional)})"
            raise TypeError(f"{function.__name__}() {told} and options by name, not {len(args)}")
        for each in ("activation", "rate", "leak") if "layers" in names else ():
            expected = "one for all layers; where they differ, call rnn_states layer by layer"
            require(
                not isinstance(kwargs.get(each), list | tuple), each, expected, kwargs.get(each)
            )
        check_static(kwargs)
        arguments = dict(zip(names, args, strict=False)) | kwargs
        x_shape: Any = getattr(arguments.get("x"), "shape", ())
        check_lengths(arguments.get("lengths"), x_shape[-2] if len(x_shape) > 1 else None)
        # `jax.jit` takes True for 1. `jax.lax.scan` takes it for 0, all steps, and False for 1.
        unroll = kwargs.get("unroll")
        kwargs = kwargs | ({"unroll": int(not unroll)} if isinstance(unroll, bool) else {})
        given = {name: kwargs.pop(name) for name in static if name in kwargs}
        return partial(cast(Any, traced), **given), kwargs

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            # The usual call is to cost what a jitted loop costs.
            usual = not kwargs and len(args) <= len(positional)
            return compiled(*args) if usual else call_with_options(args, kwargs)
        except TypeError as error:
            _note_what_jax_refuses(error, dict(zip(names, args, strict=False)) | kwargs)
            raise

    def call_with_options(args: Any, kwargs: Any) -> Any:
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
    own = getattr(sys.modules.get(module), str(getattr(option, "__name__", "")), None)
    return not callable(option) or (module.split(".")[0] == "jax" and own is option)


def _note_what_jax_refuses(error: TypeError, arguments: dict[str, Any]) -> None:
    """Name an argument that JAX does not take at all; its own message may have no name."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(arguments):
        try:
            jax.eval_shape(lambda _: None, leaf)
        except (TypeError, OverflowError):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            error.add_note(f"{name} must be an array of real numbers")
