"""One run of a network: its options, and its arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Function = Callable[[jax.Array], jax.Array]


class Options(TypedDict, total=False):
    """The options of `rnn_forward`, for functions that pass them on."""

    activation: Function
    rate: Function | None
    leak: ArrayLike | None
    lengths: ArrayLike | None
    resets: ArrayLike | None
    reset_to: ArrayLike | None
    reverse: bool
    checkpoint_every: int | None
    unroll: int | None


DEFAULTS: Any = dict.fromkeys(Options.__annotations__) | {"activation": jnp.tanh, "reverse": False}


class Steps(NamedTuple):
    """What single steps of a run take, `(*batch, n_steps, ...)`; or what one step takes.

    Attributes:
      x: inputs, `(*batch, n_steps, n_features)`, zero in the padding; or all that they add to the
        pre-activations.
      leak: the leaks of steps that each have their own, `(*batch, n_steps, n_nodes)`, where axes
        may have one entry; else None.
      is_reset: whether a step starts from `reset_to`, bool `(*batch, n_steps, 1)`; None is never.
      is_padding: whether a step only keeps the state, the same shape; None is never.
    """

    x: jax.Array
    leak: jax.Array | None
    is_reset: jax.Array | None
    is_padding: jax.Array | None

    def at(self, t: jax.Array) -> "Steps":
        """Step `t`, read where it is."""
        return Steps(*jax.tree.map(lambda array: index(array, t, axis=-2), self))

    def time_first(self) -> "Steps":
        """A copy with the axis of steps in front."""
        return Steps(*jax.tree.map(lambda array: jnp.moveaxis(array, -2, 0), self))

    def cut(self, first: Any, size: int) -> "Steps":
        """The `size` steps from step `first` on."""
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=size, axis=-2)
        return Steps(*jax.tree.map(partial(cut, allow_negative_indices=False), self))


class Run(NamedTuple):
    """The arrays of one run. They are checked, and of one dtype.

    Attributes:
      steps: what each step takes.
      h0: the states before the first step, `(*batch, n_nodes)`.
      reset_to: the states that resets go back to, the same shape; None where there are no resets.
      leak: the leak of all steps, the same shape, where axes may have one entry; None where steps
        have their own, or where there is none.
    """

    steps: Steps
    h0: jax.Array
    reset_to: jax.Array | None = None
    leak: jax.Array | None = None

    @property
    def n_steps(self) -> int:
        """The number of steps; it may be symbolic."""
        return self.steps.x.shape[-2]

    def leak_of(self, step: Steps) -> jax.Array | None:
        """The leak of a step, `(*batch, n_nodes)`, where axes may have one entry; None is 1."""
        return self.leak if step.leak is None else step.leak

    def start_of(self, step: Steps, h_tm1: jax.Array) -> jax.Array:
        """The state that a step starts from, zero in the padding; also of several steps."""
        return zero_where(step.is_padding, select(step.is_reset, self.reset_to, h_tm1))


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen`, which may lack first axes, where a mask is true, else `otherwise`."""
    if where is None:
        return otherwise
    return jnp.where(where, jax.lax.broadcast_to_rank(chosen, otherwise.ndim), otherwise)


def zero_where(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zero where a mask is true, else `array`."""
    return array if where is None else select(where, jnp.zeros_like(array), array)


def index(array: jax.Array, i: jax.Array, axis: int = 0) -> Any:
    """Entry `i`, not negative, along an axis, which is dropped."""
    return jax.lax.dynamic_index_in_dim(array, i, axis, False, allow_negative_indices=False)
