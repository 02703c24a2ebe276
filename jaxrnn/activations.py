"""The activations and rates whose derivative can be computed from their value."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tangent = Callable[[jax.Array, jax.Array], jax.Array]

# f'(a) * da as a function of f(a) and da. For tanh, 1 - f * f would cancel near f = 1. For relu, a
# selection, as in jax.nn.relu's own derivative, so that an inactive node passes on no NaN.
TANGENTS: dict[Any, Tangent] = {
    **dict.fromkeys((jnp.tanh, jax.lax.tanh), lambda f, da: (1 - f) * (1 + f) * da),
    **dict.fromkeys((jax.nn.sigmoid, jax.lax.logistic), lambda f, da: f * (1 - f) * da),
    jax.nn.identity: lambda f, da: da,
    jax.nn.softplus: lambda f, da: -jnp.expm1(-f) * da,
    jax.nn.relu: lambda f, da: jnp.where(f > 0, da, jnp.zeros_like(da)),
}


def tangent_of(activation: Any) -> Tangent | None:
    """The entry of an activation in the table; None if it has none."""
    # By identity, as an activation need not be hashable, nor comparable.
    return next((entry for known, entry in TANGENTS.items() if known is activation), None)
