"""The activations and rates whose derivative can be computed from their value."""

from typing import Any

import jax
import jax.numpy as jnp

# f'(a) * da as a function of f(a) and da. For tanh, 1 - f * f would cancel near f = 1. For relu, a
# selection, as in jax.nn.relu's own derivative, so that an inactive node passes on no NaN.
TANGENTS: dict[Any, Any] = {
    **dict.fromkeys((jnp.tanh, jax.lax.tanh), lambda f, da: (1 - f) * (1 + f) * da),
    **dict.fromkeys((jax.nn.sigmoid, jax.lax.logistic), lambda f, da: f * (1 - f) * da),
    **dict.fromkeys((jax.nn.identity, None), lambda f, da: da),  # None is no rate
    jax.nn.softplus: lambda f, da: -jnp.expm1(-f) * da,
    jax.nn.relu: lambda f, da: jnp.where(f > 0, da, jnp.zeros_like(da)),
}


def tangent_of(activation: Any) -> Any:
    """The entry of an activation in the table; None if it has none."""
    # By identity, as an activation need not be hashable, nor comparable.
    return next((entry for known, entry in TANGENTS.items() if known is activation), None)
