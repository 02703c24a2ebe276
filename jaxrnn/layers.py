"""Layers that run in both directions, and networks of several layers."""

import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxrnn import checkpointing, recurrence
from jaxrnn.arguments import check_bool, prepared
from jaxrnn.jitting import Options, jitted
from jaxrnn.params import ArrayT, Draws, RNNParams, checked_size, init_params, split_key

Pair: TypeAlias = tuple[RNNParams[ArrayT], RNNParams[ArrayT]]
Layer: TypeAlias = RNNParams[ArrayT] | Pair[ArrayT]


class LayerStates(NamedTuple, Generic[ArrayT]):
    """What a network of layers returns.

    Attributes:
      h: the states of the top layer, `(*batch, n_steps, n_nodes)`. If it runs in both directions,
        forward and backward states stand side by side, `(*batch, n_steps, 2 n_nodes)`. In the
        padding they are the last real states, as in `rnn_states`, not torch's zeros.
      last: the state after the last step that is run, `(*batch, n_nodes)`, in the form of `h0`: a
        pair from `rnn_bidirectional`; from `rnn_stacked`, one state or one pair for each layer.
        Pass it as `h0` to run on.

    Example:
        import jax
        import jax.numpy as jnp
        from jaxrnn import init_stacked, rnn_stacked

        layers = init_stacked(jax.random.key(0), 3, (16, 8), bidirectional=True)
        h, last = rnn_stacked(layers, jnp.ones((2, 5, 3)))
        assert h.shape == (2, 5, 16) and last[1][0].shape == (2, 8)
    """

    h: ArrayT
    last: Any


jax.export.register_namedtuple_serialization(LayerStates, serialized_name="jaxrnn.LayerStates")


def init_stacked(
    key: jax.Array,
    n_features: int,
    n_nodes: Sequence[int],
    *,
    bidirectional: bool = False,
    **draws: Unpack[Draws],
) -> tuple[Layer[jax.Array], ...]:
    """Draw the layers of a network for `rnn_stacked`.

    Args:
      key: a JAX PRNG key. `jax.vmap` over keys gives a stack of networks.
      n_features: inputs per step.
      n_nodes: hidden nodes of each layer, the lowest first. A layer with two directions has this
        many in each.
      bidirectional: whether every layer is a pair (forward, backward).
      **draws: `wx_init`, `wh_init`, `b_init` and `dtype`, as in `init_params`.

    Returns:
      For each layer an `RNNParams`, or a pair of them.

    Raises:
      TypeError, ValueError: as `init_params`; `n_nodes` is not a sequence, or is empty;
        `bidirectional` is not a bool.

    Example:
        import jax
        from jax.nn import initializers as init
        from jaxrnn import init_stacked

        start = {"wx_init": init.glorot_uniform(), "wh_init": init.orthogonal()}
        layers = init_stacked(jax.random.key(0), 3, (16, 8), b_init=init.zeros, **start)
        assert layers[0].wx.shape == (3, 16) and layers[1].wx.shape == (16, 8)
    """
    check_bool("bidirectional", bidirectional)
    if not _is_sequence(n_nodes):
        raise TypeError(f"n_nodes must be a tuple or list, one a layer, but is {n_nodes!r}")
    if not n_nodes:
        raise ValueError("n_nodes must hold at least one layer, but is empty")
    layers: list[Layer[jax.Array]] = []
    sizes = [checked_size("n_nodes", size, least=1) for size in n_nodes]
    for layer_key, size in zip(split_key(key, len(sizes)), sizes, strict=True):
        if bidirectional:
            forward, backward = split_key(layer_key, 2)
            pair = (
                init_params(forward, n_features, size, **draws),
                init_params(backward, n_features, size, **draws),
            )
            layers.append(pair)
        else:
            layers.append(init_params(layer_key, n_features, size, **draws))
        n_features = 2 * size if bidirectional else size
    return tuple(layers)


@jitted("activation", "reverse", "checkpoint_every", "unroll")
def rnn_bidirectional(
    params: Pair[Any], x: ArrayLike, h0: Any = None, **options: Unpack[Options]
) -> LayerStates[jax.Array]:
    """The states of two networks that run over a sequence in opposite directions.

    Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on Signal
    Processing 45 (1997), 2673-2681, without its output layer.

    Args:
      params: a pair (forward, backward) with the same number of nodes. The second runs from the
        last step that is not padding to the first.
      x: the sequence, `(*batch, n_steps, n_features)`.
      h0: a pair of states before the first step that is run, each as in `rnn_forward`. None, for
        one or both, is zero.
      **options: as in `rnn_forward`. `reverse` turns both directions, and `reset_to` is one state
        for both.

    Returns:
      `LayerStates(h, last)`. `h` is `(*batch, n_steps, 2 n_nodes)`, forward states first, and each
      state stands beside its input. `last` is the pair of last states.

    Raises:
      TypeError, ValueError: as `rnn_forward`, with a note that names the direction; `params` or
        `h0` is not a pair, or the directions differ in nodes.

    Example:
        import jax
        import jax.numpy as jnp
        from jaxrnn import init_stacked, rnn_bidirectional, rnn_states

        ((forward, backward),) = init_stacked(jax.random.key(0), 3, (16,), bidirectional=True)
        x = jax.random.normal(jax.random.key(1), (2, 5, 3))
        h, (last_forward, last_backward) = rnn_bidirectional((forward, backward), x)
        expected = rnn_states(backward, x, reverse=True).h
        assert jnp.allclose(h[..., 16:], expected) and jnp.allclose(last_backward, expected[:, 0])
    """
    if not _is_pair(params):
        raise TypeError(f"params must be a pair of RNNParams, but is {_described(params)}")
    return _run_layer(params, x, h0, options)


@jitted("dropout", "activation", "reverse", "checkpoint_every", "unroll")
def rnn_stacked(
    layers: Sequence[Layer[Any]],
    x: ArrayLike,
    h0: Sequence[Any] | None = None,
    *,
    dropout: float = 0.0,
    key: jax.Array | None = None,
    **options: Unpack[Options],
) -> LayerStates[jax.Array]:
    """The states of a network of layers, each of which runs over the states of the one below.

        h^1 = rnn(layers[0], x)      h^k = rnn(layers[k - 1], drop(h^{k - 1}))

    As torch's `nn.RNN` with `num_layers`, `bidirectional` and `dropout`. Dropout is that of Zaremba
    et al., "Recurrent neural network regularization", arXiv:1409.2329 (2014): between layers, not
    between steps.

    Args:
      layers: for each layer, the lowest first, an `RNNParams`, or a pair (forward, backward) of
        them, as in `rnn_bidirectional`.
      x: the sequence, `(*batch, n_steps, n_features)`.
      h0: for each layer its state before the first step that is run, as in `rnn_forward`, or a pair
        of these. None, at any place, is zero.
      dropout: the probability with which each entry that goes from one layer to the next is set to
        zero, from 0 to below 1. The other entries are divided by 1 - dropout. It is a Python
        number, and each value is a compilation of its own.
      key: a JAX PRNG key for dropout. Without a key there is no dropout. Pass a new key to each
        call: the same key drops the same entries.
      **options: as in `rnn_forward`, for all layers. `reverse` turns every direction, and
        `reset_to` is one state for all of them. `checkpoint_every` saves memory within each layer
        only: the states between layers are stored.

    Returns:
      `LayerStates(h, last)`: the states of the top layer, and the last states of all layers. Each
      layer and direction has the dtype of its own parameters, input and initial state.

    Raises:
      TypeError, ValueError: as `rnn_forward`, with a note that names the layer and direction;
        `layers` or `h0` is not a sequence as described above, they differ in length, or the
        directions of a layer differ in nodes; `dropout` is not a number or out of range; `key` is
        not one key.

    Example:
      Dropout in training, and none without a key.

        import jax
        import jax.numpy as jnp
        from jax.nn.initializers import orthogonal
        from jaxrnn import init_stacked, rnn_stacked

        layers = init_stacked(jax.random.key(0), 3, (16, 16), wh_init=orthogonal())
        x = jax.random.normal(jax.random.key(1), (32, 50, 3))
        h, last = rnn_stacked(layers, x, dropout=0.1, key=jax.random.key(2))
        without = rnn_stacked(layers, x).h
        assert h.shape == (32, 50, 16) and not jnp.allclose(h, without)
    """
    check_layers(layers)
    states = [None] * len(layers) if h0 is None else h0
    if not _is_sequence(states):
        raise TypeError(f"h0 must be a tuple or list, one a layer, but is {_described(states)}")
    if len(states) != len(layers):
        raise ValueError(f"h0 must hold {len(layers)} states, one a layer, but holds {len(states)}")
    _check_dropout(dropout)
    keys = None if key is None else split_key(key, len(layers))
    h: Any = x
    last = []
    for i, (layer, state) in enumerate(zip(layers, states, strict=True)):
        if i > 0 and keys is not None and dropout > 0:
            h = _drop(keys[i], float(dropout), h)
        with _noting(f"in layers[{i}]" + (f", whose x is h of layers[{i - 1}]" if i else "")):
            h, layer_last = _run_layer(layer, h, state, options)
        last.append(layer_last)
    return LayerStates(h, tuple(last))


def _run_layer(layer: Layer[Any], x: Any, h0: Any, options: Options) -> LayerStates[jax.Array]:
    """One layer, in one direction or both."""
    if isinstance(layer, RNNParams):
        for wanted, state in (
            ("h0 of one direction must be one state", h0),
            ("reset_to must be one state for all layers and directions", options.get("reset_to")),
        ):
            if _is_sequence(state):
                raise TypeError(f"{wanted}, but is {_described(state)}")
        loop, params, given = prepared(layer, x, h0, **options)
        trajectory = checkpointing.run(loop, params, given)
        return LayerStates(recurrence.states(trajectory).h, trajectory.last)
    if h0 is not None and not (_is_sequence(h0) and len(h0) == 2):
        raise TypeError(f"h0 of two directions must be a pair of states, but is {_described(h0)}")
    h0_forward, h0_backward = (None, None) if h0 is None else h0
    opposite: Options = {**options, "reverse": not options.get("reverse", False)}
    with _noting("in the forward direction"):
        forward = _run_layer(layer[0], x, h0_forward, options)
    with _noting("in the backward direction"):
        backward = _run_layer(layer[1], x, h0_backward, opposite)
    sizes = forward.h.shape[-1], backward.h.shape[-1]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"params of both directions must have equally many nodes, but have {sizes}"
        )
    h = jnp.concatenate([forward.h, backward.h], axis=-1)
    return LayerStates(h, (forward.last, backward.last))


@contextmanager
def _noting(place: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(place)
        raise


def _drop(key: jax.Array, rate: float, h: jax.Array) -> jax.Array:
    stays = jax.random.bernoulli(key, 1 - rate, h.shape, out_sharding=jax.typeof(h).sharding)
    return jnp.where(stays, h / jnp.asarray(1 - rate, h.dtype), jnp.zeros_like(h))


def check_layers(layers: Any) -> None:
    """That each is an `RNNParams` or a pair of them, and there is at least one."""
    if not _is_sequence(layers):
        came = _described(layers)
        raise TypeError(f"layers must be a tuple or list of RNNParams or pairs, but is {came}")
    if not layers:
        raise ValueError("layers must hold at least one layer, but is empty")
    for i, layer in enumerate(layers):
        check_layer(f"layers[{i}]", layer)


def check_layer(name: str, layer: Any) -> None:
    """That it is an `RNNParams` or a pair of them."""
    if not (isinstance(layer, RNNParams) or _is_pair(layer)):
        raise TypeError(
            f"{name} must be an RNNParams or a pair (forward, backward) of them, "
            f"but is {_described(layer)}"
        )


def _check_dropout(dropout: float) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real):
        raise TypeError(f"dropout must be a number, but is {dropout!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, but is {dropout}")


def _is_pair(layer: Any) -> bool:
    return (
        _is_sequence(layer)
        and len(layer) == 2
        and all(isinstance(each, RNNParams) for each in layer)
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list) and not isinstance(value, RNNParams)


def _described(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}"
    if _is_sequence(value):
        return f"a {type(value).__name__} of {[type(each).__name__ for each in value]}"
    return f"of type {type(value).__name__}"
