"""What one call gives: its options, and its arrays."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Annotated, Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Function = Callable[[jax.Array], jax.Array]


class Static(NamedTuple):
    """What an option must be that is no array.

    Attributes:
      kind: its type.
      expected: the same in words.
      default: its default; if that is None, the option may be None.
      least: the least that a number may be.
    """

    kind: Any
    expected: str
    default: Any = None
    least: int | None = None


class Options(TypedDict, total=False):
    """The options of `rnn_forward`, for functions that pass them on; all are declared here."""

    activation: Annotated[Function, Static(Callable, "a function, as jax.numpy.tanh is", jnp.tanh)]
    rate: Annotated[Function | None, Static(Callable, "a function, as jax.numpy.tanh is, or None")]
    leak: ArrayLike | None
    lengths: ArrayLike | None
    resets: ArrayLike | None
    reset_to: ArrayLike | None
    reverse: Annotated[bool, Static(bool, "a bool", False)]
    checkpoint_every: Annotated[int | None, Static(int, "an integer or None", least=1)]
    unroll: Annotated[int | None, Static(int, "an integer or None", least=0)]


# Of options that differ from layer to layer.
WHERE_LAYERS_DIFFER = " (where layers differ, call rnn_states for one after the other)"

_KINDS = Options.__annotations__
STATIC = {name: of.__metadata__[0] for name, of in _KINDS.items() if hasattr(of, "__metadata__")}
DEFAULTS: Any = dict.fromkeys(_KINDS) | {name: each.default for name, each in STATIC.items()}
# Of `rnn_stacked` alone.
STATIC["dropout"] = Static(Real, "a number", 0.0)


class Steps(NamedTuple):
    """What the steps of a call take, `(*batch, n_steps, ...)`; or one step, without that axis.

    Attributes:
      x: inputs, `(*batch, n_steps, n_features)`; or all that they add to the pre-activations.
      leak: the leaks of steps that each have their own, `(*batch, n_steps, n_nodes)`, where axes
        may have one entry; else None.
      is_reset: whether a step starts from `reset_to`, bool `(*batch, n_steps, 1)`; None is never.
      is_padding: whether a step only keeps the state, the same shape; None is never, or not known
        yet: `Inputs.padded` says it of steps that are read.
    """

    x: jax.Array
    leak: jax.Array | None = None
    is_reset: jax.Array | None = None
    is_padding: jax.Array | None = None

    def time_first(self) -> "Steps":
        """A copy with the axis of steps in front."""
        return Steps(*jax.tree.map(lambda array: jnp.moveaxis(array, -2, 0), self))

    def cleared(self) -> "Steps":
        """With zeros in the padding of `x`, where NaN would reach gradients by 0 * NaN."""
        return self._replace(x=zero_where(self.is_padding, self.x))


class Inputs(NamedTuple):
    """The arrays of a call but its parameters. They are checked, and of one dtype.

    Attributes:
      steps: what each step takes.
      h0: the states before the first step, `(*batch, n_nodes)`.
      reset_to: the states that resets go back to, the same shape; None where there are no resets.
      leak: the leak of all steps, the same shape, where axes may have one entry; None where steps
        have their own, or where there is none.
      lengths: how many steps each sequence has, integers `(*batch, 1)`; None is all.
    """

    steps: Steps
    h0: jax.Array
    reset_to: jax.Array | None = None
    leak: jax.Array | None = None
    lengths: jax.Array | None = None

    @property
    def n_steps(self) -> int:
        """The number of steps; it may be symbolic."""
        return self.steps.x.shape[-2]

    def leak_of(self, step: Steps) -> jax.Array | None:
        """The leak of a step, `(*batch, n_nodes)`, where axes may have one entry; None is 1."""
        return self.leak if step.leak is None else step.leak

    def padded(self, steps: Steps, t: jax.Array) -> Steps:
        """Step `t`, or steps with time first, with `is_padding`, which follows from the lengths."""
        if self.lengths is None:
            return steps
        t = t.astype(self.lengths.dtype).reshape(*t.shape, *[1] * self.lengths.ndim)
        is_padding = t >= jax.lax.broadcast_to_rank(self.lengths, t.ndim)
        return steps._replace(is_padding=is_padding)

    def at(self, t: jax.Array) -> Steps:
        """Step `t`, read where it is, and zeros in the padding of `x`."""
        step = Steps(*jax.tree.map(lambda array: index(array, t, axis=-2), self.steps))
        return self.padded(step, t).cleared()

    def time_first(self) -> Steps:
        """A copy of the steps with their axis in front, and zeros in the padding of `x`."""
        t = jnp.arange(self.n_steps, dtype=jnp.int32)
        return self.padded(self.steps.time_first(), t).cleared()

    def cut(self, first: Any, size: int) -> "Inputs":
        """The `size` steps from step `first` on."""
        steps = Steps(*jax.tree.map(lambda array: cut(array, first, size, axis=-2), self.steps))
        if self.lengths is None:
            return self._replace(steps=steps)
        first = jnp.asarray(first, self.lengths.dtype)  # which may be unsigned
        return self._replace(steps=steps, lengths=jnp.maximum(self.lengths, first) - first)


def select(where: jax.Array | None, chosen: Any, otherwise: jax.Array) -> jax.Array:
    """`chosen`, which may lack first axes, where a mask is true, else `otherwise`."""
    if where is None:
        return otherwise
    return jnp.where(where, jax.lax.broadcast_to_rank(chosen, otherwise.ndim), otherwise)


def zero_where(where: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zero where a mask is true, else `array`."""
    return array if where is None else select(where, jnp.zeros_like(array), array)


def zero_behind(lengths: jax.Array | None, array: jax.Array) -> jax.Array:
    """Zeros in the padding of an array `(*batch, n_steps, ...)`, with lengths `(*batch, 1)`."""
    if lengths is None:
        return array
    t = jnp.arange(array.shape[lengths.ndim - 1], dtype=lengths.dtype)
    is_padding = jax.lax.broadcast_to_rank(t, lengths.ndim) >= lengths
    return zero_where(jnp.expand_dims(is_padding, range(lengths.ndim, array.ndim)), array)


# In a `jax.jit`, as checkify's index checks fail on a bare slice in `jax.checkpoint` (jax 0.12).
@partial(jax.jit, static_argnames=("size", "axis"))
def cut(array: jax.Array, first: Any, size: int, axis: int = 0) -> jax.Array:
    """`size` entries from entry `first`, not negative, along an axis."""
    return jax.lax.dynamic_slice_in_dim(array, first, size, axis, allow_negative_indices=False)


def index(array: jax.Array, i: jax.Array, axis: int = 0) -> jax.Array:
    """Entry `i`, not negative, along an axis, which is dropped."""
    return jax.lax.dynamic_index_in_dim(array, i, axis, False, allow_negative_indices=False)  # type: ignore[no-any-return]
