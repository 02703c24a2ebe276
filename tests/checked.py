"""Functions of JAX beside what they must give, and transformations of both alike."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# By name and without structure, so that each can be mapped over or differentiated by alone.
Arrays = dict[str, Any]


class Checked(NamedTuple):
    """A function of named arrays, and what it must give.

    Attributes:
      names: of the function and of its transformations, for messages.
      args: what to call it with.
      run: the function, in JAX.
      expected: the same in NumPy and float64.
      by: the arguments by which `pull` knows gradients; all floating ones, where it is None.
      pull: from arguments, and from weights of the leaves of the result, the gradients of the
        weighted sum. None where only differences tell them.
    """

    names: tuple[str, ...]
    args: Arrays
    run: Callable[[Arrays], Any]
    expected: Callable[[Arrays], Any]
    by: tuple[str, ...]
    pull: Callable[[Arrays, Sequence[Any]], Arrays] | None

    def __repr__(self) -> str:
        """What can be read: of whole arrays hypothesis warns that they are many."""
        shapes = (f"{key}: {array.dtype}{array.shape}" for key, array in self.args.items())
        return "; ".join((*self.names, *shapes))


# What leaves a function as it is.
SAME: dict[str, Callable[[Any], Any]] = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "jit of checkpoint": lambda run: jax.jit(jax.checkpoint(run)),
}


def same(checked: Checked, name: str) -> Checked:
    """The function in one of `SAME`."""
    return checked._replace(names=(*checked.names, name), run=SAME[name](checked.run))


# And along which axis.
MAPS = {"vmap": 0, "vmap over last axes": -1, "lax.map": 0}


def mapped(checked: Checked, name: str, over: Sequence[str], stacks: Arrays) -> Checked:
    """The function mapped over `stacks`, which it takes in place of some of its arguments."""
    axis = MAPS[name]
    size = stacks[over[0]].shape[axis]
    axes = {key: axis if key in over else None for key in checked.args}

    def each(args: Arrays) -> list[Arrays]:
        return [
            args | {key: np.take(np.asarray(args[key]), i, axis) for key in over}
            for i in range(size)
        ]

    def run(args: Arrays) -> Any:
        if name == "lax.map":
            some = {key: args[key] for key in over}
            return jax.lax.map(lambda some: checked.run(args | some), some)
        return jax.vmap(checked.run, (axes,))(args)

    def expected(args: Arrays) -> Any:
        results = [checked.expected(one) for one in each(args)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *results)

    def pull(args: Arrays, weights: Sequence[Any]) -> Arrays:
        assert checked.pull is not None
        gradients = [checked.pull(one, [g[i] for g in weights]) for i, one in enumerate(each(args))]
        of_each = {key: [gradient[key] for gradient in gradients] for key in gradients[0]}
        return {
            key: np.stack(by, axis) if key in over else np.sum(by, axis=0)
            for key, by in of_each.items()
        }

    names = (*checked.names, f"{name} of {size} over {', '.join(over)}")
    known = None if checked.pull is None else pull
    return Checked(names, checked.args | stacks, run, expected, checked.by, known)


# Of a weighted sum of results: all of its derivatives, or that along a tangent.
GRADIENTS: dict[str, Callable[..., Any]] = {
    "grad": lambda weighed, args: jax.grad(weighed)(args),
    "value_and_grad": lambda weighed, args: jax.value_and_grad(weighed)(args)[1],
    "jacfwd": lambda weighed, args: jax.jacfwd(weighed)(args),
    "jacrev": lambda weighed, args: jax.jacrev(weighed)(args),
}
ALONG: dict[str, Callable[..., Any]] = {
    "jvp": lambda weighed, args, tangent: jax.jvp(weighed, (args,), (tangent,))[1],
    "linearize": lambda weighed, args, tangent: jax.linearize(weighed, args)[1](tangent),
    "grad along": lambda weighed, args, tangent: _inner(jnp, jax.grad(weighed)(args), tangent),
}


def gradient(checked: Checked, name: str, by: Sequence[str], weights: Sequence[Any]) -> Checked:
    """The gradient of the sum of the results, weighed by new arguments, by some arguments."""
    given = _named(checked, "weight", weights)

    def run(args: Arrays) -> Any:
        return GRADIENTS[name](*_weighed(checked, args, by, given))

    def expected(args: Arrays) -> Any:
        assert checked.pull is not None
        gradients = checked.pull(_inner_args(checked, args), [args[key] for key in given])
        return {key: gradients[key] for key in by}

    names = (*checked.names, f"{name} by {', '.join(by)}")
    return _derived(names, checked.args | given, run, expected)


def along(
    checked: Checked, name: str, by: Sequence[str], weights: Sequence[Any], tangent: Sequence[Any]
) -> Checked:
    """The derivative of that sum along a tangent, which is an argument too."""
    given, tangents = _named(checked, "weight", weights), _named(checked, "tangent", tangent)

    def moves(args: Arrays) -> Arrays:
        return {key: args[new] for key, new in zip(by, tangents, strict=True)}

    def run(args: Arrays) -> Any:
        return ALONG[name](*_weighed(checked, args, by, given), moves(args))

    def expected(args: Arrays) -> Any:
        weights = [args[key] for key in given]
        if checked.pull is not None:
            gradients = checked.pull(_inner_args(checked, args), weights)
            return _inner(np, {key: gradients[key] for key in by}, moves(args))
        return _difference(
            lambda args: _inner(np, jax.tree.leaves(checked.expected(args)), weights),
            _inner_args(checked, args),
            moves(args),
        )

    names = (*checked.names, f"{name} by {', '.join(by)}")
    return _derived(names, checked.args | given | tangents, run, expected)


def _derived(names: tuple[str, ...], args: Arrays, run: Any, expected: Any) -> Checked:
    by = tuple(key for key in args if is_floating(args[key]))
    return Checked(names, args, run, expected, by, None)


def is_floating(array: Any) -> bool:
    """Whether it can be differentiated by."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _named(checked: Checked, kind: str, arrays: Sequence[Any]) -> Arrays:
    return {f"{kind} {len(checked.args)} {i}": array for i, array in enumerate(arrays)}


def _inner_args(checked: Checked, args: Arrays) -> Arrays:
    return {key: args[key] for key in checked.args}


def _weighed(
    checked: Checked, args: Arrays, by: Sequence[str], given: Arrays
) -> tuple[Callable[[Arrays], jax.Array], Arrays]:
    """The weighted sum as a function of the arguments `by`, and these."""

    def weighed(some: Arrays) -> Any:
        results = checked.run(_inner_args(checked, args) | some)
        return _inner(jnp, jax.tree.leaves(results), [args[key] for key in given])

    return weighed, {key: args[key] for key in by}


def _inner(numpy: Any, left: Any, right: Any) -> Any:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return sum((numpy.sum(a * b) for a, b in pairs), start=numpy.zeros(()))


def _difference(function: Callable[[Arrays], Any], args: Arrays, tangent: Arrays) -> Any:
    """The derivative along a tangent, to fourth order in a step that balances rounding."""
    step = 2.0**-12

    def at(n_steps: int) -> Any:
        return function(args | {key: args[key] + n_steps * step * tangent[key] for key in tangent})

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
