"""The record of one run of a network: its inputs and its options, each declared once."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Activation = Callable[[jax.Array], jax.Array]


class Options(TypedDict, total=False):
    """The options of `rnn_forward`, for functions that pass them on."""

    activation: Activation
    leak: ArrayLike | None
    lengths: ArrayLike | None
    resets: ArrayLike | None
    reset_to: ArrayLike | None
    reverse: bool
    checkpoint_every: int | None
    unroll: int | None


_STATIC = {"static": True}


class Steps(NamedTuple):
    """What single steps of a run take, time first; or what one step takes, without that axis.

    Attributes:
      x: inputs, `(n_steps, *batch, n_features)`.
      leak: the leaks of steps that each have their own, `(n_steps, *batch, n_nodes)`, where axes
        may have one entry; else None.
      is_reset: whether a step starts from `reset_to`, bool `(n_steps, *batch)`; None is never.
      is_padding: whether a step only keeps the state, the same shape; None is never.
    """

    x: jax.Array
    leak: jax.Array | None
    is_reset: jax.Array | None
    is_padding: jax.Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Run:
    """One run of a network: its inputs, its initial states, and its options.

    The options are checked, and of the dtype and shape that the recurrence needs. Every array has
    the batch axes first, or axes of size one in their place. A pytree, whose static fields are part
    of its structure.

    Attributes:
      x: inputs, `(*batch, n_steps, n_features)`, zero in the padding.
      h0: the states before the first step, `(*batch, n_nodes)`.
      activation: as in `rnn_forward`.
      leak: as in `rnn_forward`, but with as many axes as `x`; axes of one entry broadcast.
      lengths: how many steps of each sequence are not padding, int32 `(*batch,)`; None is all.
      resets: whether a step starts from `reset_to`, bool `(*batch, n_steps)`; None is never.
      reset_to: the states that resets go back to, `(*batch, n_nodes)`; None where `resets` is.
      reverse: as in `rnn_forward`.
      checkpoint_every: likewise.
      unroll: likewise.
    """

    x: jax.Array
    h0: jax.Array
    activation: Activation = field(default=jnp.tanh, metadata=_STATIC)
    leak: jax.Array | None = None
    lengths: jax.Array | None = None
    resets: jax.Array | None = None
    reset_to: jax.Array | None = None
    reverse: bool = field(default=False, metadata=_STATIC)
    checkpoint_every: int | None = field(default=None, metadata=_STATIC)
    unroll: int | None = field(default=None, metadata=_STATIC)

    @property
    def n_steps(self) -> int:
        """The number of steps; it may be symbolic."""
        return self.x.shape[-2]

    def has_leak_of_steps(self) -> bool:
        """Whether `leak` has an entry for each step."""
        return self.leak is not None and self.leak.shape[-2] == self.n_steps

    def steps(self) -> Steps:
        """What each step takes, time first."""
        t = jnp.arange(self.n_steps, dtype=jnp.int32)
        return Steps(
            time_first(self.x),
            time_first(cast(Any, self.leak)) if self.has_leak_of_steps() else None,
            None if self.resets is None else time_first(self.resets, axis=-1),
            self._padding(t),
        )

    def step_at(self, t: jax.Array) -> Steps:
        """What step `t` takes, read where it is: `steps` is a copy in another order."""
        return Steps(
            index(self.x, t, axis=-2),
            index(cast(Any, self.leak), t, axis=-2) if self.has_leak_of_steps() else None,
            None if self.resets is None else index(self.resets, t, axis=-1),
            self._padding(t),
        )

    def _padding(self, t: jax.Array) -> jax.Array | None:
        if self.lengths is None:
            return None
        lengths = jnp.expand_dims(self.lengths, range(t.ndim))
        return jnp.expand_dims(t, range(t.ndim, lengths.ndim)) >= lengths

    def without_padding(self) -> "Run":
        """With zeros in the padding of `x`, and of a leak that differs by sequence or step.

        NaN there would reach gradients by 0 * NaN, and `jax.debug_nans` in what is kept for them.
        """
        if self.lengths is None:
            return self
        leak = self.leak
        if leak is not None and any(size != 1 for size in leak.shape[:-1]):
            leak = self._clear(leak)
        return replace(self, x=self._clear(self.x), leak=leak)

    def _clear(self, array: Any) -> Any:
        t = jnp.arange(array.shape[-2], dtype=jnp.int32)  # one entry may stand for all steps
        is_padding = jnp.moveaxis(cast(Any, self._padding(t)), 0, -1)[..., None]
        return jnp.where(is_padding, jnp.zeros((), array.dtype), array)

    def leak_of(self, step: Steps) -> jax.Array | None:
        """The leak of a step, `(*batch, n_nodes)`, where axes may have one entry; None is 1."""
        if self.leak is None or step.leak is not None:
            return step.leak
        return self.leak[..., 0, :]

    def start_of(self, step: Steps, h_tm1: jax.Array) -> jax.Array:
        """The state that a step starts from, zero in the padding; also of several steps."""
        return zero_where(step.is_padding, select(step.is_reset, self.reset_to, h_tm1))

    def cut(self, first: Any, size: int, h0: jax.Array) -> "Run":
        """The run of `size` steps from step `first` on, which starts from other states."""

        def cut(array: Any, axis: int) -> Any:
            return jax.lax.dynamic_slice_in_dim(
                array, first, size, axis, allow_negative_indices=False
            )

        return replace(
            self,
            x=cut(self.x, -2),
            h0=h0,
            lengths=None if self.lengths is None else jnp.clip(self.lengths - first, 0, size),
            leak=cut(self.leak, -2) if self.has_leak_of_steps() else self.leak,
            resets=None if self.resets is None else cut(self.resets, -1),
        )


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen`, which may lack first axes, where a mask, which may lack last ones, is true."""
    if where is None:
        return otherwise
    where = jnp.expand_dims(where, range(where.ndim, otherwise.ndim))
    chosen = jnp.expand_dims(chosen, range(otherwise.ndim - chosen.ndim))
    return jnp.where(where, chosen, otherwise)


def zero_where(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zero where a mask is true, else `array`."""
    return array if where is None else select(where, jnp.zeros_like(array), array)


def time_first(array: jax.Array, axis: int = -2) -> jax.Array:
    """Move the axis of steps to the front."""
    return jnp.moveaxis(array, axis, 0)


def index(array: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """Entry `i`, not negative, along an axis, which is dropped; out of range, the nearest."""
    out = jax.lax.dynamic_index_in_dim(array, i, axis, False, allow_negative_indices=False)
    return cast(jax.Array, out)


OPTIONS = tuple(each for each in fields(Run) if each.name not in ("x", "h0"))
