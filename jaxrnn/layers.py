"""Layers that run in both directions, and networks of several layers."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn.errors import AN_RNN_PARAMS, noting, require
from jaxrnn.forward import run
from jaxrnn.inputs import WHERE_LAYERS_DIFFER, Options, zero_where
from jaxrnn.jitting import jitted
from jaxrnn.params import ArrayT, Draws, RNNParams, init_params, named, split_key
from jaxrnn.recurrence import rates
from jaxrnn.sharing import bernoulli_like

Pair: TypeAlias = tuple[RNNParams[ArrayT], RNNParams[ArrayT]]
Layer: TypeAlias = RNNParams[ArrayT] | Pair[ArrayT]


@named
class LayerStates(NamedTuple, Generic[ArrayT]):
    """What a network of layers returns.

    Attributes:
      h: the states of the top layer, `(*batch, n_steps, n_nodes)`. If it runs in both directions,
        forward and backward states stand side by side, `(*batch, n_steps, 2 n_nodes)`. In the
        padding they are those that each direction holds there, as in `rnn_states`, not zeros.
      last: the state after the last step that is run, `(*batch, n_nodes)`, in the form of `h0`: a
        pair from `rnn_bidirectional`; from `rnn_stacked`, one state or one pair for each layer.
        Pass it as `h0` to run on.

    Example:
      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import init_stacked, rnn_stacked

      layers = init_stacked(jax.random.key(0), 3, (16, 8), bidirectional=True)
      h, last = rnn_stacked(layers, jnp.ones((2, 5, 3)))
      assert h.shape == (2, 5, 16) and last[1][0].shape == (2, 8)
      ```
    """

    h: ArrayT
    last: Any


def init_stacked(
    key: jax.Array,
    n_features: int | None,
    n_nodes: Sequence[int],
    *,
    bidirectional: bool = False,
    **draws: Unpack[Draws],
) -> tuple[Layer[jax.Array], ...]:
    """Draw the layers of a network for `rnn_stacked`.

    Args:
      key: a JAX PRNG key. `jax.vmap` over keys gives a stack of networks.
      n_features: inputs per step; None makes a lowest layer without `wx`.
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
      ```python
      import jax
      from jaxrnn import LEARNABLE, init_stacked

      layers = init_stacked(jax.random.key(0), 3, (16, 8), **LEARNABLE)
      assert layers[0].wx.shape == (3, 16) and layers[1].wx.shape == (16, 8)
      ```
    """
    require(isinstance(bidirectional, bool), "bidirectional", "a bool", bidirectional)
    check_sequence("n_nodes", n_nodes, "one for each layer")
    layers: list[Layer[jax.Array]] = []
    for layer_key, size in zip(split_key(key, len(n_nodes)), n_nodes, strict=True):
        keys = split_key(layer_key, 2) if bidirectional else [layer_key]
        networks: Any = tuple(init_params(each, n_features, size, **draws) for each in keys)
        layers.append(networks if bidirectional else networks[0])
        n_features = len(keys) * networks[0].wh.shape[0]
    return tuple(layers)


@jitted
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
      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import init_stacked, rnn_bidirectional, rnn_states

      ((forward, backward),) = init_stacked(jax.random.key(0), 3, (16,), bidirectional=True)
      x = jax.random.normal(jax.random.key(1), (2, 5, 3))
      h, (last_forward, last_backward) = rnn_bidirectional((forward, backward), x)
      expected = rnn_states(backward, x, reverse=True).h
      assert jnp.allclose(h[..., 16:], expected) and jnp.allclose(last_backward, expected[:, 0])
      ```
    """
    require(_is_pair(params), "params", "a pair of RNNParams", params)
    of_directions, last = _run_layer(params, x, h0, options)
    return LayerStates(jnp.concatenate(of_directions, axis=-1), last)


@jitted
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

        h^1 = rnn(layers[0], x)      h^k = rnn(layers[k - 1], drop(rate(h^{k - 1})))

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
      **options: as in `rnn_forward`, for all layers. With a `rate`, what a layer passes on are its
        rates; what is returned are states. `reverse` turns every direction, and `reset_to` is one
        state for all of them. `checkpoint_every` saves memory within each layer only: the states
        between layers are stored.

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

      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn import LEARNABLE, init_stacked, rnn_stacked

      layers = init_stacked(jax.random.key(0), 3, (16, 16), **LEARNABLE)
      x = jax.random.normal(jax.random.key(1), (32, 50, 3))
      h, last = rnn_stacked(layers, x, dropout=0.1, key=jax.random.key(2))
      without = rnn_stacked(layers, x).h
      assert h.shape == (32, 50, 16) and not jnp.allclose(h, without)
      ```
    """
    check_layers(layers)
    leak, one = options.get("leak"), f"one for all layers{WHERE_LAYERS_DIFFER}"
    require(not isinstance(leak, list | tuple), "leak", one, leak)
    h0 = (None,) * len(layers) if h0 is None else h0
    check_sequence("h0", h0, "one for each layer", len(layers))
    require(0 <= dropout < 1, "dropout", "at least 0 and less than 1", dropout, ValueError)
    keys = None if key is None else split_key(key, len(layers))
    goes_up = jax.vmap(partial(rates, options.get("rate")), -2, -2)  # of each step
    of_directions, last = list[jax.Array](), list[Any]()
    for i, (layer, state) in enumerate(zip(layers, h0, strict=True)):
        if i > 0:
            up = jnp.concatenate([*map(goes_up, of_directions)], axis=-1)
            x = up if keys is None or dropout == 0 else _drop(keys[i], float(dropout), up)
        where = f"in layers[{i}]" + (f", whose x is h of layers[{i - 1}]" if i else "")
        with noting(where), jax.named_scope(f"layer_{i}"):
            of_directions, layer_last = _run_layer(layer, x, state, options)
        last.append(layer_last)
    return LayerStates(jnp.concatenate(of_directions, axis=-1), tuple(last))


def _run_layer(layer: Layer[Any], x: Any, h0: Any, options: Options) -> tuple[list[jax.Array], Any]:
    """The states of a layer in each of its directions, and its last states."""
    if isinstance(layer, RNNParams):
        trajectory = run(layer, x, h0, **options)
        return [trajectory.states().h], trajectory.last
    h0, runs = ((None, None) if h0 is None else h0), list[Any]()
    check_sequence("h0", h0, "one for each direction", 2)
    for i, name in enumerate(("forward", "backward")):
        turned: Options = {**options, "reverse": options.get("reverse", False) != (i == 1)}
        with noting(f"in the {name} direction"), jax.named_scope(name):
            runs.append(run(layer[i], x, h0[i], **turned))
    sizes, same = [each.last.shape[-1] for each in runs], "the same in both directions of params"
    require(sizes[0] == sizes[1], "n_nodes", same, sizes, ValueError)
    return [each.states().h for each in runs], tuple(each.last for each in runs)


def _drop(key: jax.Array, probability: float, h: jax.Array) -> jax.Array:
    stays = bernoulli_like(h, key, 1 - probability)
    return zero_where(~stays, h / (1 - probability))


def check_layers(layers: Any) -> None:
    """Require at least one layer, and of each that it is an `RNNParams` or a pair of them."""
    check_sequence("layers", layers, "of RNNParams or pairs")
    for i, layer in enumerate(layers):
        check_layer(f"layers[{i}]", layer)


def check_layer(name: str, layer: Any) -> None:
    """Require an `RNNParams` or a pair of them."""
    is_layer = isinstance(layer, RNNParams) or _is_pair(layer)
    require(is_layer, name, f"{AN_RNN_PARAMS} or a pair (forward, backward) of them", layer)


def check_sequence(name: str, value: Any, entries: str, n: int | None = None) -> None:
    """Require a tuple or list that is not empty, or that has `n` entries."""
    is_sequence = isinstance(value, tuple | list) and not isinstance(value, RNNParams)
    require(is_sequence, name, f"a tuple or list, {entries}", value)
    fits = len(value) > 0 if n is None else len(value) == n
    expected = "not empty" if n is None else f"{n} states, {entries}"
    require(fits, name, expected, value, ValueError)


def _is_pair(layer: Any) -> bool:
    return isinstance(layer, tuple | list) and [type(each) for each in layer] == [RNNParams] * 2
