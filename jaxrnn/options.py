"""The options of a run, each declared once, and the record that carries them by name."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict

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


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Run:
    """One run of a network: its inputs, its initial states, and its options.

    The options are checked, and of the dtype and shape that the recurrence needs. Every array has
    the batch axes first, or axes of size one in their place. A pytree, whose static fields are part
    of its structure.

    Attributes:
      x: inputs, `(*batch, n_steps, n_features)`.
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

    def used(self) -> set[str]:
        """The options that differ from their defaults."""
        return {each.name for each in OPTIONS if getattr(self, each.name) is not each.default}

    def has_leak_of_steps(self) -> bool:
        """Whether `leak` has an entry for each step."""
        return self.leak is not None and self.leak.shape[-2] == self.x.shape[-2]

    def cut(self, first: Any, size: int, h0: jax.Array) -> "Run":
        """The run of `size` steps from step `first` on, which starts from other states."""

        def steps_of(array: Any, axis: int) -> Any:
            return jax.lax.dynamic_slice_in_dim(
                array, first, size, axis, allow_negative_indices=False
            )

        return replace(
            self,
            x=steps_of(self.x, -2),
            h0=h0,
            lengths=None if self.lengths is None else jnp.clip(self.lengths - first, 0, size),
            leak=steps_of(self.leak, -2) if self.has_leak_of_steps() else self.leak,
            resets=None if self.resets is None else steps_of(self.resets, -1),
        )


OPTIONS = tuple(each for each in fields(Run) if each.name not in ("x", "h0"))
STATIC = tuple(each.name for each in OPTIONS if each.metadata.get("static"))
