"""The parameters of a vanilla RNN, and how they are drawn."""

import operator
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypedDict, TypeVar

import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform, normal, ones, orthogonal, zeros
from jax.typing import DTypeLike

from jaxrnn.errors import noting, require

ArrayT = TypeVar("ArrayT")
TupleT = TypeVar("TupleT", bound=type[Any])
Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


# A float32 matrix of this many rows and columns is a petabyte. With a thousand times as many
# entries JAX ends the process.
LARGEST = 1 << 24


def named(cls: TupleT) -> TupleT:
    """Make a generic named tuple known to `jax.export`, and plain to checkers of types at run time.

    From its original bases beartype, and jaxtyping's hook with it, would take it for what it is not
    and refuse it. Type checkers read the source.
    """
    jax.export.register_namedtuple_serialization(cls, serialized_name=f"jaxrnn.{cls.__name__}")
    del cls.__orig_bases__
    return cls


@named
class RNNParams(NamedTuple, Generic[ArrayT]):
    """The parameters of `a_t = x_t wx + rate(h_{t-1}) wh + b`, where most networks have no rate.

    It is a named tuple and a pytree. Gradients are of this type too. A stack of parameter sets, for
    `jax.vmap`, is an `RNNParams` whose arrays have one more leading axis, and `in_axes` may be an
    `RNNParams` of integers.

    Attributes:
      wx: input weights, `(n_features, n_nodes)`, or None: then `x` has n_nodes entries a step and
        is added as it is, in place of `x wx`.
      wh: recurrent weights, `(n_nodes, n_nodes)`; `wh[i, j]` leads from node i to node j. With a
        rate that returns n_rates entries, `(n_rates, n_nodes)`.
      b: bias, `(n_nodes,)`, or None for a network without one.

    Example:
      Saving and loading, with NumPy. `help(jaxrnn.interop.to_flat)` has layers and other formats.

      ```python
      import tempfile
      from pathlib import Path
      import jax
      import jax.numpy as jnp
      import numpy as np
      from jaxrnn import init_params, interop, rnn_forward

      params, folder = init_params(jax.random.key(0), 3, 16), Path(tempfile.mkdtemp())
      np.savez(folder / "params.npz", **interop.to_flat(params))
      with np.load(folder / "params.npz") as flat:
          loaded = interop.from_flat(flat)
      assert np.array_equal(loaded.wh, params.wh)
      ```

      A program exported by `jax.export`. Where it takes or returns jaxrnn's named tuples, a process
      must import jaxrnn before `deserialize`, which otherwise tells of "an unregistered type". On a
      TPU, a call that is exported needs `unroll`.

      ```python
      x = jnp.ones((2, 5, 3))
      exported = jax.export.export(jax.jit(rnn_forward))(params, x)
      (folder / "program").write_bytes(exported.serialize())
      program = jax.export.deserialize(bytearray((folder / "program").read_bytes()))
      assert jnp.allclose(program.call(loaded, x), rnn_forward(params, x), atol=1e-6)
      ```
    """

    wx: ArrayT | None
    wh: ArrayT
    b: ArrayT | None


Params: TypeAlias = RNNParams[Any]


class Draws(TypedDict, total=False):
    """Keyword arguments of `init_params`, for functions that pass them on."""

    wx_init: Initializer
    wh_init: Initializer
    b_init: Initializer | None
    dtype: DTypeLike


def shown(function: Callable[..., Any], name: str) -> Any:
    """The function as a default, which prints in `help` as a person would write it."""
    return type("Default", (partial,), {"__repr__": lambda _: name})(function)


_NORMAL, _ONES = shown(normal(0.01), "normal(0.01)"), shown(ones, "ones")

# What a network that is to be trained is drawn with: `init_params(key, 3, 16, **LEARNABLE)`.
_LEARNABLE = {"wx_init": glorot_uniform(), "wh_init": orthogonal(), "b_init": zeros}
LEARNABLE = MappingProxyType[str, Any](_LEARNABLE)  # which nobody can change for others


def init_params(
    key: jax.Array,
    n_features: int | None,
    n_nodes: int,
    *,
    wx_init: Initializer = _NORMAL,
    wh_init: Initializer = _NORMAL,
    b_init: Initializer | None = _ONES,
    dtype: DTypeLike = float,
) -> RNNParams[jax.Array]:
    """Draw the parameters of a network with `n_features` inputs and `n_nodes` nodes.

    To train the network, draw it with `**LEARNABLE`: `glorot_uniform()` for `wx`, `orthogonal()`
    for `wh` and `zeros` for `b`, all of `jax.nn.initializers`. The defaults are those of the
    teaching notebook that jaxrnn grew from (class `SimpleRNN`): weights `0.01 * randn`, biases of
    one. A network drawn with them hardly remembers its inputs.

    `LEARNABLE` is a mapping that cannot be changed. `LEARNABLE | {"b_init": None}` is a dictionary
    like it with another entry.

    Each array is drawn in float32 or wider and then cast, so that an initialiser which needs linear
    algebra, such as `orthogonal`, also works for the narrow types.

    Args:
      key: a JAX PRNG key. `jax.vmap` over keys gives a stack of parameter sets.
      n_features: inputs per step. Zero makes an autonomous network, if `wx_init` can draw that.
        None makes one without `wx`, to which `x` is added as it is.
      n_nodes: hidden nodes, at least one.
      wx_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`, for `wx`; by default
        `normal(0.01)`.
      wh_init: the same for `wh`, with the same default.
      b_init: the same for `b`, which has one axis; by default `ones`. None for no bias.
      dtype: a floating type; by default JAX's own (float32, or float64 under x64).

    Returns:
      `RNNParams` of `wx (n_features, n_nodes)` or None, `wh (n_nodes, n_nodes)`, and `b (n_nodes,)`
      or None.

    Raises:
      TypeError, ValueError: `key` is not one key.
      TypeError: a size is not an integer, an initialiser is not callable or
        does not return real numbers, or `dtype` is not floating.
      ValueError: a size is too small, or too large for any memory, or an initialiser returns
        another shape. An error of the initialiser's own gets a note that names it.

    Example:
      ```python
      import jax
      from jaxrnn import LEARNABLE, init_params

      def draw(key):
          return init_params(key, 3, 16, **LEARNABLE)

      params = draw(jax.random.key(0))
      assert params.wx.shape == (3, 16)
      ensemble = jax.vmap(draw)(jax.random.split(jax.random.key(0), 8))
      assert ensemble.wx.shape == (8, 3, 16)
      ```
    """
    n_nodes = _as_size("n_nodes", n_nodes, least=1)
    require(not isinstance(dtype, jax.Array | None), "dtype", "a floating type", dtype)
    with noting("dtype must be a floating type"):
        jax_dtype = jnp.zeros((), dtype).dtype
    require(jnp.issubdtype(jax_dtype, jnp.floating), "dtype", "a floating type", dtype)
    wx_key, wh_key, b_key = split_key(key, 3)
    n_in = None if n_features is None else _as_size("n_features", n_features, least=0)
    wx = None if n_in is None else _draw("wx_init", wx_init, wx_key, (n_in, n_nodes), jax_dtype)
    wh = _draw("wh_init", wh_init, wh_key, (n_nodes, n_nodes), jax_dtype)
    b = None if b_init is None else _draw("b_init", b_init, b_key, (n_nodes,), jax_dtype)
    return RNNParams(wx, wh, b)


def split_key(key: jax.Array, n: int) -> jax.Array:
    """`jax.random.split`, with an error that names the argument."""
    with noting("key must be one JAX PRNG key, as from jax.random.key; jax.vmap maps over several"):
        return jax.random.split(key, n)


def is_real(dtype: Any) -> bool:
    """Whether numbers of that type are real: floating, integer or bool."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _as_size(name: str, size: Any, least: int) -> int:
    """A Python integer in range."""
    with noting(f"{name} must be an integer"):
        size = operator.index(size)
    require(least <= size <= LARGEST, name, f"from {least} to {LARGEST}", size, ValueError)
    return int(size)


def _draw(name: str, init: Any, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    require(callable(init), name, "a callable (key, shape, dtype) -> array", init)
    wide = dtype if dtype.itemsize > 4 else jnp.float32
    with noting(f"in {name}, which is called with a key, shape {shape} and a dtype"):
        drawn = init(key, shape, wide)
    result = f"the array that {name} returns"
    is_array = hasattr(drawn, "dtype") and is_real(drawn.dtype)
    require(is_array, result, "an array of real numbers", drawn)
    require(drawn.shape == shape, result, f"of shape {shape}", drawn, ValueError)
    return jnp.asarray(drawn).astype(dtype)
