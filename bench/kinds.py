"""What is timed: a forward pass, its derivatives in every mode, and calls outside `jax.jit`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bench.cells import (
    CALLS,
    CHECKPOINTS,
    COMPILE,
    CURRENTS,
    DEVICES,
    LEAK,
    LENGTHS,
    MODES,
    SETS,
    SIZES,
    Cell,
)

FORWARD = "forward"
GRADIENT = "gradient"
STATES = "gradient through all states"
DIRECT = "direct call"
STEPS = "steps in a Python loop"
BY_X = "gradient by x"
EXAMPLES = "gradients of each example"
JVP = "jvp by params"
PRODUCT = "Hessian-vector product"
JACFWD = "jacfwd by b"
JACREV = "jacrev by b"
BY_H0 = "Jacobian by h0"
HESSIAN = "Hessian by b"
BY_ALL = ("jacfwd", "jacrev", "Hessian")
COMPILING = "compile the gradient"

KINDS = {
    SIZES: (FORWARD, GRADIENT, STATES),
    LEAK: (FORWARD, GRADIENT),
    CURRENTS: (FORWARD, GRADIENT, COMPILING),
    SETS: (GRADIENT,),
    DEVICES: (GRADIENT,),
    LENGTHS: (FORWARD, GRADIENT),
    CHECKPOINTS: (GRADIENT,),
    MODES: (STEPS, DIRECT, BY_X, JVP, PRODUCT, EXAMPLES, JACFWD, JACREV, BY_H0, HESSIAN),
    COMPILE: (COMPILING,),
    CALLS: (FORWARD, GRADIENT, BY_X, JVP, PRODUCT, *BY_ALL),
}

# A function of parameters and inputs, and of an initial state where it is differentiated by that.
# It returns the last hidden state or all of them.
Run = Callable[..., jax.Array]


def kinds(cell: Cell) -> tuple[str, ...]:
    """What is timed in a cell."""
    if cell.part == MODES and cell.batch > 1:
        return tuple(kind for kind in KINDS[MODES] if kind != STEPS)
    return KINDS[cell.part]


def half_square(run: Run) -> Run:
    """Half the sum of the squares of what `run` returns: the loss of all derivatives of a loss."""
    return lambda params, inputs: 0.5 * jnp.sum(run(params, inputs) ** 2)


def gradient(run: Run) -> Callable[..., Any]:
    """The gradient by the parameters, which comes with the loss."""
    return jax.value_and_grad(half_square(run))


def _of_each_example(run: Run) -> Callable[..., Any]:
    return jax.vmap(jax.grad(half_square(run)), in_axes=(None, 0))


def _jvp(run: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x, tangents: jax.jvp(
        lambda params: run(params, x), (params,), (tangents,)
    )


def _product(run: Run) -> Callable[..., Any]:
    of_gradient = _jvp(jax.grad(half_square(run)))
    return lambda params, x, tangents: of_gradient(params, x, tangents)[1]


def _by_b(derivative: Any, run: Run) -> Callable[..., Any]:
    return lambda params, x: derivative(lambda b: run(params._replace(b=b), x))(params.b)


def _by_h0(run: Run) -> Callable[..., Any]:
    return lambda params, x, h0: jax.jacobian(lambda h0: run(params, x, h0))(h0)


# The function that is timed under `jax.jit`, made from one that returns the last hidden state.
OF_LAST: dict[str, Callable[[Run], Callable[..., Any]]] = {
    FORWARD: lambda run: run,
    DIRECT: lambda run: run,
    GRADIENT: gradient,
    BY_X: lambda run: jax.grad(half_square(run), argnums=1),
    EXAMPLES: _of_each_example,
    JVP: _jvp,
    PRODUCT: _product,
    JACFWD: partial(_by_b, jax.jacfwd),
    JACREV: partial(_by_b, jax.jacrev),
    BY_H0: _by_h0,
    HESSIAN: lambda run: _by_b(jax.hessian, half_square(run)),
    COMPILING: gradient,
    BY_ALL[0]: jax.jacfwd,
    BY_ALL[1]: jax.jacrev,
    BY_ALL[2]: lambda run: jax.hessian(half_square(run)),
}
