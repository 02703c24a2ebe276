"""The parameters of a vanilla RNN, and how they are drawn."""

import operator
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, ones
from jax.typing import DTypeLike

ArrayT = TypeVar("ArrayT")
Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


# Entries of a matrix, a petabyte of them; with some thousand times as many JAX ends the process.
LARGEST = 1 << 48


class RNNParams(NamedTuple, Generic[ArrayT]):
    """The parameters of `a_t = x_t wx + h_{t-1} wh + b`.

    It is a named tuple and a pytree. Gradients are of this type too. A stack of parameter sets, for
    `jax.vmap`, is an `RNNParams` whose arrays have one more leading axis, and `in_axes` may be an
    `RNNParams` of integers.

    Attributes:
      wx: input weights, `(n_features, n_nodes)`.
      wh: recurrent weights, `(n_nodes, n_nodes)`; `wh[i, j]` leads from node i to node j.
      b: bias, `(n_nodes,)`, or None for a network without one.

    Example:
      Saving and loading, with NumPy.

        import tempfile
        from pathlib import Path
        import jax
        import numpy as np
        from jaxrnn import RNNParams, init_params

        params = init_params(jax.random.key(0), 3, 16)
        folder = Path(tempfile.mkdtemp())
        np.savez(folder / "params.npz", **params._asdict())
        with np.load(folder / "params.npz") as arrays:
            loaded = RNNParams(**arrays)
        assert np.array_equal(loaded.wh, params.wh)

      The same with Orbax.

        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / "params", params)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(folder / "params", params)
        assert isinstance(restored, RNNParams) and np.array_equal(restored.wh, params.wh)
    """

    wx: ArrayT
    wh: ArrayT
    b: ArrayT | None


class Draws(TypedDict, total=False):
    """How `init_params` draws, where that is passed on."""

    wx_init: Initializer
    wh_init: Initializer
    b_init: Initializer | None
    dtype: DTypeLike


jax.export.register_namedtuple_serialization(RNNParams, serialized_name="jaxrnn.RNNParams")


def init_params(
    key: jax.Array,
    n_features: int,
    n_nodes: int,
    *,
    wx_init: Initializer = normal(0.01),
    wh_init: Initializer = normal(0.01),
    b_init: Initializer | None = ones,
    dtype: DTypeLike = float,
) -> RNNParams[jax.Array]:
    """Draw the parameters of a network with `n_features` inputs and `n_nodes` nodes.

    The defaults are those of the teaching notebook whose NumPy class `SimpleRNN` jaxrnn began as a
    JAX version of: weights `0.01 * randn`, biases of one. A network drawn with them hardly
    remembers its inputs. To train one, start with `glorot_uniform()`, `orthogonal()` and `zeros` of
    `jax.nn.initializers`, as in the example.

    Each array is drawn in float32 or wider and then cast, so that an initialiser which needs linear
    algebra, such as `orthogonal`, also works for the narrow types.

    Args:
      key: a JAX PRNG key. `jax.vmap` over keys gives a stack of parameter sets.
      n_features: inputs per step. Zero makes an autonomous network, if `wx_init` can draw that.
      n_nodes: hidden nodes, at least one.
      wx_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`, for `wx`.
      wh_init: the same for `wh`.
      b_init: the same for `b`, which has one axis; None for no bias.
      dtype: a floating type; by default JAX's own (float32, or float64 under x64).

    Returns:
      `RNNParams` of `wx (n_features, n_nodes)`, `wh (n_nodes, n_nodes)`, `b (n_nodes,)` or None.

    Raises:
      TypeError: `key` is not one key, a size is not an integer, an initialiser is not callable or
        does not return real numbers, or `dtype` is not floating.
      ValueError: a size is too small, or too large for any memory, or an initialiser cannot draw a
        shape or returns another.

    Example:
        import jax
        from jax.nn import initializers as init
        from jaxrnn import init_params

        def draw(key):
            start = {"wx_init": init.glorot_uniform(), "wh_init": init.orthogonal()}
            return init_params(key, 3, 16, b_init=init.zeros, **start)

        params = draw(jax.random.key(0))
        assert params.wx.shape == (3, 16)
        ensemble = jax.vmap(draw)(jax.random.split(jax.random.key(0), 8))
        assert ensemble.wx.shape == (8, 3, 16)
    """
    n_features = checked_size("n_features", n_features, least=0)
    n_nodes = checked_size("n_nodes", n_nodes, least=1)
    if n_nodes * max(n_features, n_nodes) >= LARGEST:
        raise ValueError(
            f"n_features and n_nodes must give matrices of less than {LARGEST} entries, "
            f"but are {n_features} and {n_nodes}"
        )
    _check_floating(dtype)
    wx_key, wh_key, b_key = split_key(key, 3)
    wx = _draw("wx_init", wx_init, wx_key, (n_features, n_nodes), dtype)
    wh = _draw("wh_init", wh_init, wh_key, (n_nodes, n_nodes), dtype)
    b = None if b_init is None else _draw("b_init", b_init, b_key, (n_nodes,), dtype)
    return RNNParams(wx, wh, b)


def split_key(key: jax.Array, n: int) -> jax.Array:
    """`jax.random.split`, with an error that names the argument."""
    try:
        return jax.random.split(key, n)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"key must be one JAX PRNG key, as from jax.random.key, but is {key!r}; "
            "map over several with jax.vmap"
        ) from error


def is_real(dtype: Any) -> bool:
    """Whether numbers of that type are real: floating, integer or bool."""
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def checked_size(name: str, size: int, least: int) -> int:
    """As a Python integer, which does not overflow."""
    try:
        size = operator.index(size)
    except TypeError:
        raise TypeError(f"{name} must be an integer, but is {size!r}") from None
    if size < least:
        raise ValueError(f"{name} must be at least {least}, but is {size}")
    return size


def _check_floating(dtype: DTypeLike) -> None:
    # None would be NumPy's float64, and what JAX deprecates is an array for its own dtype.
    is_type = dtype is not None and not isinstance(dtype, jax.Array)
    try:
        floating = is_type and jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(f"dtype must be a floating type, but is {dtype!r}")


def _draw(
    name: str, init: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike
) -> jax.Array:
    if not callable(init):
        raise TypeError(f"{name} must be a callable (key, shape, dtype) -> array, but is {init!r}")
    resolved = jnp.result_type(dtype)
    try:
        drawn = init(key, shape, resolved if resolved.itemsize > 4 else jnp.float32)
    except ZeroDivisionError as error:  # of those that divide by the number of rows
        raise ValueError(f"{name} cannot draw an array of shape {shape}: {error}") from error
    except Exception as error:
        error.add_note(f"in {name}, which is called with a key, shape {shape} and a dtype")
        raise
    if not (hasattr(drawn, "dtype") and is_real(drawn.dtype)):
        came = getattr(drawn, "dtype", type(drawn).__name__)
        raise TypeError(f"{name} must return an array of real numbers, but returned {came}")
    if drawn.shape != shape:
        raise ValueError(f"{name} must return shape {shape}, but returned {drawn.shape}")
    return jnp.asarray(drawn).astype(dtype)
