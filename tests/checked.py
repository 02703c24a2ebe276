"""Functions in JAX beside the same in NumPy, and transformations of both.

The fuzz test draws a call of jaxrnn and transforms it several times, so it must know what the
transformed call gives. Therefore a `Checked` holds a function twice: in JAX, where `jax.vmap` and
the like transform it, and in NumPy, where a map is a loop, and a derivative comes from gradients
that are known or from finite differences. For example, the gradient of many squares at once:

    square = Checked(
        name="square",
        args={"x": np.float32(2)},
        run=lambda args: jnp.square(args["x"]),
        expected=lambda args: np.square(args["x"]),
        by=("x",),
        gradients=lambda args, weights: {"x": weights[0] * 2 * args["x"]},
    )
    squares = mapped(square, "vmap", over=["x"], stacks={"x": np.arange(3.0)})
    slopes = differentiated(squares, "grad", by=["x"], weights=[np.ones(3)], tangent=[])
    assert_close(slopes.run(slopes.args), slopes.expected(slopes.args), 1e-5)

Arguments are in a dict, so that each can be mapped over or differentiated by alone. What a
transformation needs besides, such as the weights here, become arguments of the new function: later
transformations can then map over them and differentiate by them too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, Any]


class Checked(NamedTuple):
    """A function of named arrays, in JAX and in NumPy.

    Attributes:
      name: the function and its transformations, for messages.
      args: what to call both with.
      run: the function in JAX.
      expected: the function in NumPy and float64.
      by: the arguments by which it can be differentiated.
      gradients: a function of arguments and of a weight for each leaf of the result, which gives
        the gradients of the weighted sum by `by`; None if they must come from finite differences.
    """

    name: str
    args: Arrays
    run: Callable[[Arrays], Any]
    expected: Callable[[Arrays], Any]
    by: tuple[str, ...]
    gradients: Callable[[Arrays, Sequence[Any]], Arrays] | None

    def __repr__(self) -> str:
        """Shapes instead of whole arrays, which hypothesis would print."""
        shapes = (f"{key}: {array.dtype}{array.shape}" for key, array in self.args.items())
        return "; ".join((self.name, *shapes))


def is_floating(array: Any) -> bool:
    """Whether one can differentiate by it."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


# Transformations that change no result

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "jit of checkpoint": lambda run: jax.jit(jax.checkpoint(run)),
}


def wrapped(checked: Checked, way: str) -> Checked:
    """The function inside one of `WRAPPERS`."""
    return checked._replace(name=f"{checked.name}; {way}", run=WRAPPERS[way](checked.run))


# Maps, and the axis along which each goes

MAPS = {"vmap": 0, "vmap over last axes": -1, "lax.map": 0}


def mapped(checked: Checked, way: str, over: Sequence[str], stacks: Arrays) -> Checked:
    """The function mapped over the arguments `over`, which are replaced by `stacks`."""
    axis = MAPS[way]
    size = stacks[over[0]].shape[axis]
    axes = {key: axis if key in over else None for key in checked.args}

    def each(args: Arrays) -> list[Arrays]:
        return [
            args | {key: np.take(np.asarray(args[key]), i, axis) for key in over}
            for i in range(size)
        ]

    def run(args: Arrays) -> Any:
        if way == "lax.map":
            some = {key: args[key] for key in over}
            return jax.lax.map(lambda some: checked.run(args | some), some)
        return jax.vmap(checked.run, (axes,))(args)

    def expected(args: Arrays) -> Any:
        results = [checked.expected(one) for one in each(args)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *results)

    def gradients(args: Arrays, weights: Sequence[Any]) -> Arrays:
        assert checked.gradients is not None
        of_each = [
            checked.gradients(one, [weight[i] for weight in weights])
            for i, one in enumerate(each(args))
        ]
        stacked = {key: [one[key] for one in of_each] for key in of_each[0]}
        return {
            key: np.stack(ones, axis) if key in over else np.sum(ones, axis=0)
            for key, ones in stacked.items()
        }

    return Checked(
        f"{checked.name}; {way} of {size} over {', '.join(over)}",
        checked.args | stacks,
        run,
        expected,
        checked.by,
        checked.gradients and gradients,
    )


# Derivatives of a weighted sum: the gradient by some arguments, or the derivative along a tangent

GRADIENTS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, args, tangent: jax.grad(f)(args),
    "value_and_grad": lambda f, args, tangent: jax.value_and_grad(f)(args)[1],
    "jacfwd": lambda f, args, tangent: jax.jacfwd(f)(args),
    "jacrev": lambda f, args, tangent: jax.jacrev(f)(args),
}
ALONG: dict[str, Callable[..., Any]] = {
    "jvp": lambda f, args, tangent: jax.jvp(f, (args,), (tangent,))[1],
    "linearize": lambda f, args, tangent: jax.linearize(f, args)[1](tangent),
    "grad along": lambda f, args, tangent: _product(jnp, jax.grad(f)(args), tangent),
}


def differentiated(
    checked: Checked, way: str, by: Sequence[str], weights: Sequence[Any], tangent: Sequence[Any]
) -> Checked:
    """A derivative of the sum of all results times `weights`, by the arguments `by`.

    `tangent` has an array for each of `by` if `way` is in `ALONG`, and is empty otherwise.
    """
    number = len(checked.args)  # makes names unique where derivatives are nested
    of_weights = {f"weight {number} {i}": array for i, array in enumerate(weights)}
    of_tangent = {f"tangent {number} {i}": array for i, array in enumerate(tangent)}

    def parts(args: Arrays) -> tuple[Arrays, list[Any], Arrays]:
        """The arguments of `checked`, the weights, and the tangent by arguments."""
        along = {key: args[name] for key, name in zip(by, of_tangent, strict=False)}
        return {key: args[key] for key in checked.args}, [args[name] for name in of_weights], along

    def run(args: Arrays) -> Any:
        inner, weights, along = parts(args)

        def weighted_sum(some: Arrays) -> Any:
            return _product(jnp, jax.tree.leaves(checked.run(inner | some)), weights)

        return (GRADIENTS | ALONG)[way](weighted_sum, {key: args[key] for key in by}, along)

    def expected(args: Arrays) -> Any:
        inner, weights, along = parts(args)

        def weighted_sum(args: Arrays) -> Any:
            return _product(np, jax.tree.leaves(checked.expected(args)), weights)

        if checked.gradients is None:
            return _difference(weighted_sum, inner, along)
        gradients = checked.gradients(inner, weights)
        gradients = {key: gradients[key] for key in by}
        return _product(np, gradients, along) if way in ALONG else gradients

    args = checked.args | of_weights | of_tangent
    floating = tuple(key for key in args if is_floating(args[key]))
    return Checked(f"{checked.name}; {way} by {', '.join(by)}", args, run, expected, floating, None)


def _product(numpy: Any, left: Any, right: Any) -> Any:
    """The sum of the products of all entries, in `jax.numpy` or NumPy."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return sum((numpy.sum(a * b) for a, b in pairs), start=numpy.zeros(()))


def _difference(function: Callable[[Arrays], Any], args: Arrays, tangent: Arrays) -> Any:
    """The derivative along a tangent, by differences of fourth order.

    With this step, what they leave out and what rounding adds are about as small.
    """
    step = 2.0**-12

    def at(n_steps: int) -> Any:
        return function(args | {key: args[key] + n_steps * step * tangent[key] for key in tangent})

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
