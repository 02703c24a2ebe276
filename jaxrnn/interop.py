"""Weights from and to other libraries and files, as plain mappings. It imports none of them.

    layers = interop.from_torch(rnn.state_dict())                     # for rnn_stacked
    rnn.load_state_dict({k: torch.from_numpy(v) for k, v in interop.to_torch(layers).items()})
    safetensors.numpy.save_file(interop.to_flat(layers), path)        # or np.savez, or Orbax

Arrays that come in may be anything that NumPy can read. NumPy cannot read torch's bfloat16: convert
that with `.float()` first. Arrays that go out are new NumPy arrays, and dtypes stay as they are.
Each `to_...` undoes its `from_...`, with two exceptions. torch and ONNX add two biases: their sum
comes in, and goes out as the first of the two, beside zeros. Flax's `residual` rounds.

The outputs are those of the other library at all real steps. In the padding `h` holds, where torch,
ONNX and Keras's `Bidirectional` have zeros, and Flax runs on: with length 0 its last state is one
of the padding, not the initial one. Keras with a mask and `unroll=True` has zeros, not the initial
state, before the first real step.

The mappings hold weights alone, so nothing here can see the other library's settings. A setting
that is not passed on changes the outputs, and no error says so:

- Activation (torch `nonlinearity`, Keras `activation`, Flax `activation_fn`, ONNX `activations`):
  as `activation`. With ONNX's `clip=c` it is `lambda a: jnp.tanh(jnp.clip(a, -c, c))`. If ONNX has
  another for each direction, run each of the pair by `rnn_states`, the second with `reverse=True`.
- Flax `residual=True`: as `residual=True` of the four functions for Flax.
- One direction that runs backwards (Keras `go_backwards`, Flax `reverse`, ONNX `direction`): as
  `reverse=True`. Here and in ONNX each state stands beside its input. Keras returns the states in
  the order in which they were processed, which is `jnp.flip(h, 1)` of those here. So does Flax
  without `keep_order`, but with `seq_lengths` it turns only the real steps of each sequence, and
  the padding stays at the end.
- Time as the first axis (torch without `batch_first`, ONNX, Flax `time_major`): put the batch first
  with `jnp.moveaxis`.
- Lengths (torch's packed sequences, ONNX `sequence_lens`, Flax `seq_lengths`): as `lengths`. The
  mask of Keras is a `leak`: `leak=mask[..., None]`.
- Initial states: those of torch and ONNX go in by `unstack_states`, and final states go out by
  `stack_states`. A state of Keras or Flax goes in as `h0` as it is. With Keras `stateful` that is
  the last state of the call before, and with Flax `carry_init` what this makes.
- A dtype of computation other than that of the weights (Flax `dtype`, a policy of Keras): cast the
  parameters, `x` and `h0` to it.
- Dropout: torch's is that of `rnn_stacked`. Keras's `dropout` is one mask of the inputs for all
  steps: multiply `x` by it. Its `recurrent_dropout` is one of the states: as a `rate`, such as
  `rate=lambda h: h * mask / keep`, where entries of `mask` are 1 with probability `keep`, else 0.
  With several layers it needs the loop below: in `rnn_stacked` a `rate` also acts on what goes up
  to the next layer.

Layers whose options differ, as those of Keras may, run in a loop. For a penalty on the states of
all layers, keep each `h` in a list.

    for params, options in zip(layers, options_of_layers):
        x = rnn_states(params, x, **options).h

A network may also be part of a model of another library. In a module of Equinox, `RNNParams` is a
field like any other, as it is a pytree:

    import equinox
    import jax
    import jax.numpy as jnp
    from jaxrnn import LEARNABLE, RNNParams, init_params, rnn_forward

    class Model(equinox.Module):
        rnn: RNNParams
        readout: jax.Array

        def __call__(self, x):
            return rnn_forward(self.rnn, x) @ self.readout

    model = Model(init_params(jax.random.key(0), 3, 16, **LEARNABLE), jnp.ones((16, 1)))

Flax linen draws it by `self.param`:

    from flax import linen
    from jaxrnn import LEARNABLE, init_params, rnn_forward

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            draw = lambda key: init_params(key, x.shape[-1], 16, **LEARNABLE)
            return linen.Dense(1)(rnn_forward(self.param("rnn", draw), x))

A module that an activation or a rate calls must have its parameters before the loop, as in a scan
by hand: call it once before, on `jnp.zeros(n_nodes)`.

In Flax nnx each array is an `nnx.Param`, whose value must be taken out, by `[...]`. `nnx.data` says
that an attribute holds such arrays. It takes one `RNNParams` as well as layers. Do not put a whole
`RNNParams` into one `nnx.Param`: `nnx.Optimizer` cannot update that.

    import jax
    from flax import nnx
    from jaxrnn import LEARNABLE, init_stacked, rnn_stacked

    class Model(nnx.Module):
        def __init__(self, rngs):
            layers = init_stacked(rngs.params(), 3, (16, 16), **LEARNABLE)
            self.layers = nnx.data(jax.tree.map(nnx.Param, layers))
            self.readout = nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x):
            is_param = lambda each: isinstance(each, nnx.Param)
            layers = jax.tree.map(lambda param: param[...], self.layers, is_leaf=is_param)
            return self.readout(rnn_stacked(layers, x).h[..., -1, :])
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jaxrnn.arguments import check_params, check_square
from jaxrnn.errors import AN_RNN_PARAMS, check_shape, require
from jaxrnn.layers import Layer, check_layer, check_layers
from jaxrnn.params import RNNParams, is_real

Array: TypeAlias = NDArray[Any]
_WAYS = {1: ("",), 2: ("forward.", "backward.")}  # names of one direction or two in a flat mapping


# Not of `Array`, as type checkers then refuse `np.savez(path, **to_flat(layers))`.
def to_flat(layers: RNNParams[Any] | Sequence[Layer[Any]]) -> dict[str, Any]:
    """One network or layers as one flat mapping, to be saved in a file.

    safetensors, `np.savez` and Orbax take it. `np.savez` does not keep bfloat16, and Orbax refuses
    arrays without entries.

    Args:
      layers: an `RNNParams`, or the layers of `rnn_stacked`. Give the pair of `rnn_bidirectional`
        as `(pair,)`, as two `RNNParams` are two layers. All arrays may have leading axes, as in a
        stack for `jax.vmap`.

    Returns:
      Of an `RNNParams` the entries `wx`, `wh` and `b`. Of layers `layers.0.wx` and so on, or
      `layers.0.forward.wx` and `layers.0.backward.wx` where one is a pair. None has no entry.

    Raises:
      TypeError, ValueError: `layers` are not as above, or `from_flat` would refuse an array.

    Example:
      ```python
      import tempfile
      from pathlib import Path
      import jax
      import numpy as np
      from jaxrnn import init_stacked, interop

      layers = init_stacked(jax.random.key(0), 3, (16, 8), bidirectional=True, b_init=None)
      path = Path(tempfile.mkdtemp()) / "layers.npz"
      np.savez(path, **interop.to_flat(layers))  # safetensors.numpy.save_file(flat, path)
      with np.load(path) as flat:  # flat = safetensors.numpy.load_file(path)
          loaded = interop.from_flat(flat)
      assert np.array_equal(loaded[1][0].wx, layers[1][0].wx) and loaded[1][0].b is None
      ```
    """
    networks: dict[str, RNNParams[Any]] = {}
    if isinstance(layers, RNNParams):
        networks[""] = layers
    else:
        check_layers(layers)
        for i, layer in enumerate(layers):
            pair = (layer,) if isinstance(layer, RNNParams) else layer
            ways = zip(_WAYS[len(pair)], pair, strict=True)
            networks |= {f"layers.{i}.{way}": params for way, params in ways}
    flat = {
        start + field: _array(f"flat[{start + field!r}]", value)
        for start, params in networks.items()
        for field, value in params._asdict().items()
        if value is not None
    }
    from_flat(flat)  # so that nothing is saved that cannot be read
    return flat


def from_flat(flat: Mapping[str, Any]) -> RNNParams[Array] | tuple[Layer[Array], ...]:
    """What `to_flat` was given: an `RNNParams`, or a tuple of layers.

    Args:
      flat: `wh` `(*sets, n_nodes, n_nodes)`, and `wx` `(*sets, n_features, n_nodes)` and `b`
        `(*sets, n_nodes)` or none, with the names of `to_flat`. Take out first what else a file
        has, such as a readout.

    Raises:
      TypeError: it is not a mapping, or an entry is not an array of real numbers.
      ValueError: an entry is missing, has a shape that does not fit the other entries of its
        network, or has none of these names.

    Example:
      ```python
      import tempfile
      from pathlib import Path
      import jax
      import orbax.checkpoint as ocp
      from jaxrnn import init_params, interop

      path = Path(tempfile.mkdtemp()) / "params"
      with ocp.StandardCheckpointer() as checkpointer:
          checkpointer.save(path, interop.to_flat(init_params(jax.random.key(0), 3, 16)))
          checkpointer.wait_until_finished()
          params = interop.from_flat(checkpointer.restore(path))
      assert params.wx.shape == (3, 16)
      ```
    """
    rest = _entries("flat", flat)
    found = [re.match(r"layers\.(\d{1,9})\.((?:for|back)ward\.)?", str(key)) for key in rest]
    n_ways = {int(place[1]): 2 if place[2] else 1 for place in found if place}
    if not n_ways:
        network = _take_network(rest, "")
        _refuse_others("flat", rest)
        return network
    layers: list[Layer[Array]] = []
    for i in range(len(n_ways)):
        layer = [_take_network(rest, f"layers.{i}.{way}") for way in _WAYS[n_ways.get(i, 1)]]
        layers.append(layer[0] if len(layer) == 1 else (layer[0], layer[1]))
    _refuse_others("flat", rest)
    return tuple(layers)


def _take_network(rest: dict[str, Any], start: str) -> RNNParams[Array]:
    sizes: dict[str, Any] = {}
    wh = _take(rest, "flat", f"{start}wh", "*sets n_nodes n_nodes", sizes)
    wx, b = (
        _take(rest, "flat", start + field, axes, sizes) if start + field in rest else None
        for field, axes in (("wx", "*sets n_features n_nodes"), ("b", "*sets n_nodes"))
    )
    return RNNParams(wx, wh, b)


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Layer[Array], ...]:
    """The layers of a `torch.nn.RNN`, or the one layer of a `torch.nn.RNNCell`.

    Args:
      state_dict: `weight_ih_l0` `(n_nodes, n_features)`, `weight_hh_l0` `(n_nodes, n_nodes)`, and
        `bias_ih_l0` and `bias_hh_l0` `(n_nodes,)`. The layers above have the same with `l1` and so
        on, and the other direction has `_reverse` at the end of each key. With `bias=False` no
        layer has biases. The keys of an `RNNCell` have no `_l0`. Cut the prefix off the keys if the
        network is part of a larger model.

    Returns:
      For each layer an `RNNParams`, or a pair (forward, backward) of them, as for `rnn_stacked`.

    Raises:
      TypeError: it is not a mapping, or an entry is not an array of real numbers.
      ValueError: an entry is missing, has a shape that does not fit the other entries, or has none
        of these names. The message names its key, as in all functions here.

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop, rnn_stacked

      # As of torch.nn.RNN(3, 4), whose rnn.state_dict() holds tensors, which will do as well.
      state_dict = {"weight_ih_l0": np.full((4, 3), 0.1), "weight_hh_l0": np.eye(4)}
      state_dict |= {"bias_ih_l0": np.zeros(4), "bias_hh_l0": np.zeros(4)}
      layers = interop.from_torch(state_dict)
      h, last = rnn_stacked(layers, np.ones((2, 7, 3)))  # activation=jax.nn.relu, if torch's is
      assert h.shape == (2, 7, 4)
      ```
    """
    rest = _entries("state_dict", state_dict)
    is_cell = not rest.keys().isdisjoint(["weight_ih", "weight_hh"])
    two = not is_cell and any(str(key).endswith("_reverse") for key in rest)
    suffixes = ("", "_reverse") if two else ("",)
    biased = any(str(key).startswith("bias_") for key in rest)
    layers: list[Layer[Array]] = []
    sizes: dict[str, Any] = {}
    depths = [int(found[1]) for key in rest if (found := re.search(r"_l(\d{1,9})", str(key)))]
    for i in range(1 if is_cell else max(depths, default=0) + 1):
        directions: list[RNNParams[Array]] = []
        for suffix in suffixes:
            place = "" if is_cell else f"_l{i}{suffix}"
            wx = _take(rest, "state_dict", f"weight_ih{place}", "n_nodes n_features", sizes)
            wh = _take(rest, "state_dict", f"weight_hh{place}", "n_nodes n_nodes", sizes)
            b = None
            if biased:
                keys = [f"bias_{kind}{place}" for kind in ("ih", "hh")]
                b_ih, b_hh = (_take(rest, "state_dict", key, "n_nodes", sizes) for key in keys)
                b = b_ih + b_hh
            directions.append(RNNParams(wx.T, wh.T, b))
        layers.append(directions[0] if len(suffixes) == 1 else (directions[0], directions[1]))
        sizes = {"n_features": sum(len(params.wh) for params in directions)}
    _refuse_others("state_dict", rest)
    return tuple(layers)


def to_torch(layers: Sequence[Layer[Any]]) -> dict[str, Array]:
    """The `state_dict` of a `torch.nn.RNN` with the layers of `rnn_stacked`.

    If no layer has a bias there is none, for `bias=False`. If some have one, the others get zeros.
    For an `RNNCell`, cut `_l0` off the keys.

    Args:
      layers: for each layer an `RNNParams`, or a pair (forward, backward) of them.

    Returns:
      New arrays with the keys and shapes of `from_torch`.

    Raises:
      TypeError, ValueError: `layers` are not those of `rnn_stacked`, or torch cannot hold them: all
        must have the same number of nodes, and the same number of directions.

    Example:
      ```python
      import jax
      from jaxrnn import init_stacked, interop

      state_dict = interop.to_torch(init_stacked(jax.random.key(0), 3, (4, 4)))
      # rnn.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
      assert state_dict["weight_ih_l0"].shape == (4, 3)
      ```
    """
    check_layers(layers)
    directions = [_directions(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
    n_nodes, n_directions = len(directions[0][0].wh), len(directions[0])
    biased = any(params.b is not None for layer in directions for params in layer)
    state_dict: dict[str, Array] = {}
    for i, layer in enumerate(directions):
        if len(layer) != n_directions:
            raise ValueError(
                "layers must all have as many directions for torch, "
                f"but layers[0] has {n_directions} and layers[{i}] has {len(layer)}"
            )
        n_features = n_directions * n_nodes if i else len(layer[0].wx)
        for params, suffix in zip(layer, ("", "_reverse"), strict=False):
            if params.wx.shape != (n_features, n_nodes):
                raise ValueError(
                    f"layers[{i}] must have wx of shape {(n_features, n_nodes)} for torch, "
                    f"but has {params.wx.shape}"
                )
            state_dict[f"weight_ih_l{i}{suffix}"] = np.ascontiguousarray(params.wx.T)
            state_dict[f"weight_hh_l{i}{suffix}"] = np.ascontiguousarray(params.wh.T)
            if biased:
                b = _bias_or_zeros(params)
                state_dict[f"bias_ih_l{i}{suffix}"] = b
                state_dict[f"bias_hh_l{i}{suffix}"] = np.zeros_like(b)
    return state_dict


def from_onnx(inputs: Mapping[str, Any]) -> Layer[Array]:
    """The parameters of ONNX's operator `RNN`.

    Args:
      inputs: `W` `(n_directions, n_nodes, n_features)`, `R` `(n_directions, n_nodes, n_nodes)`, and
        `B` `(n_directions, 2 n_nodes)` or none.

    Returns:
      An `RNNParams`, or with two directions a pair (forward, backward).

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop

      params = interop.from_onnx({"W": np.ones((1, 4, 3)), "R": np.ones((1, 4, 4))})
      assert params.wx.shape == (3, 4) and params.b is None
      ```
    """
    rest = _entries("inputs", inputs)
    sizes: dict[str, Any] = {}
    w = _take(rest, "inputs", "W", "n_directions n_nodes n_features", sizes)
    n_directions, n_nodes, _ = w.shape
    if n_directions not in (1, 2):
        raise ValueError(f"inputs['W'] must have 1 or 2 directions, but has shape {w.shape}")
    r = _take(rest, "inputs", "R", "n_directions n_nodes n_nodes", sizes)
    sizes["n_biases"] = 2 * n_nodes
    b = _take(rest, "inputs", "B", "n_directions n_biases", sizes) if "B" in rest else None
    _refuse_others("inputs", rest)
    layer = [
        RNNParams(w[i].T, r[i].T, None if b is None else b[i, :n_nodes] + b[i, n_nodes:])
        for i in range(n_directions)
    ]
    return layer[0] if n_directions == 1 else (layer[0], layer[1])


def to_onnx(layer: Layer[Any]) -> dict[str, Array]:
    """`W`, `R` and `B` of ONNX's operator `RNN`.

    Args:
      layer: an `RNNParams`, or a pair (forward, backward) of them.

    Returns:
      New arrays of the shapes of `from_onnx`. Without biases there is no `B`.

    Raises:
      TypeError, ValueError: `layer` is neither, or its directions differ in shape.

    Example:
      ```python
      import jax
      from jaxrnn import init_params, interop

      inputs = interop.to_onnx(init_params(jax.random.key(0), 3, 4))
      assert inputs["W"].shape == (1, 4, 3) and inputs["B"].shape == (1, 8)
      ```
    """
    check_layer("layer", layer)
    directions = _directions("layer", layer)
    shapes = [params.wx.shape for params in directions]
    if shapes[0] != shapes[-1]:
        raise ValueError(f"layer must have wx of one shape for ONNX, but has {shapes}")
    inputs = {
        "W": np.stack([params.wx.T for params in directions]),
        "R": np.stack([params.wh.T for params in directions]),
    }
    if any(params.b is not None for params in directions):
        biases = [_bias_or_zeros(params) for params in directions]
        inputs["B"] = np.stack([np.concatenate([b, np.zeros_like(b)]) for b in biases])
    return inputs


def unstack_states(h: Any, layers: Sequence[Layer[Any]]) -> tuple[Any, ...]:
    """The states of torch or ONNX, which are one array, as `h0` of `rnn_stacked`.

    For layers in two directions `h[0]` is the forward state of the lowest, `h[1]` its backward one,
    `h[2]` the forward state of the next, and so on.

    Args:
      h: `(n_layers * n_directions, *batch, n_nodes)`: `h_0` or `h_n` of a `torch.nn.RNN`,
        `initial_h` or `Y_h` of ONNX's `RNN`. ONNX's `layout=1` has the batch first: move that axis
        to the second place.
      layers: those of `rnn_stacked`. The one layer of `from_onnx` is `(layer,)`.

    Returns:
      For each layer a state `(*batch, n_nodes)`, or a pair of them. ONNX's one layer has `[0]`.

    Raises:
      TypeError: `h` is not an array of real numbers, or `layers` are not those of `rnn_stacked`.
      ValueError: the shape of `h` does not fit the layers.

    Example:
      ```python
      import jax
      import numpy as np
      from jaxrnn import init_stacked, interop, rnn_stacked

      layers = init_stacked(jax.random.key(0), 3, (4, 4), bidirectional=True)
      h_0 = np.ones((4, 2, 4))  # layers * directions, batch, nodes
      h, last = rnn_stacked(layers, np.ones((2, 7, 3)), interop.unstack_states(h_0, layers))
      assert interop.stack_states(last).shape == (4, 2, 4)
      ```
    """
    check_layers(layers)
    array = _array("h", h)
    directions = [[layer] if isinstance(layer, RNNParams) else layer for layer in layers]
    sizes = [
        _array(f"layers[{i}].wh", params.wh).shape[-1]
        for i, layer in enumerate(directions)
        for params in layer
    ]
    expected = f"of shape ({len(sizes)}, *batch, {sizes[0]}) to fit layers of {sizes} nodes"
    fits = array.ndim >= 2 and [array.shape[-1]] * len(array) == sizes
    require(fits, "h", expected, array, ValueError)
    states = iter(array)
    pairs = [tuple(next(states) for _ in layer) for layer in directions]
    return tuple(pair if len(pair) == 2 else pair[0] for pair in pairs)


def stack_states(last: Sequence[Any]) -> Array:
    """The states of a network as the one array of torch or ONNX. It undoes `unstack_states`.

    Args:
      last: `last` of `rnn_stacked` or `rnn_bidirectional`, or an `h0` without None: for each layer
        a state `(*batch, n_nodes)`, or a pair of them.

    Returns:
      `(n_layers * n_directions, *batch, n_nodes)`.

    Raises:
      TypeError: `last` is not a tuple or list, or a state is not an array of real numbers.
      ValueError: it is empty, or the states differ in shape.

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop

      forward, backward = np.zeros((2, 4)), np.ones((2, 4))
      assert interop.stack_states(((forward, backward),)).shape == (2, 2, 4)
      ```
    """
    is_tuple = isinstance(last, tuple | list)
    require(is_tuple, "last", "a tuple or list, one state or pair a layer", last)
    require(len(last) > 0, "last", "of at least one layer", last, ValueError)
    states: dict[str, Any] = {}
    for i, state in enumerate(last):
        is_pair = isinstance(state, tuple | list)
        pair = state if is_pair else [state]
        name = f"last[{i}]"
        require(not is_pair or len(pair) == 2, name, "a state or a pair of them", state)
        states |= {f"{name}[{k}]" if is_pair else name: each for k, each in enumerate(pair)}
    arrays = {name: _array(name, state) for name, state in states.items()}
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        expected = f"of shape (*batch, n_nodes), the same for all states: {first.shape}"
        fits = array.ndim >= 1 and array.shape == first.shape
        require(fits, name, expected, array, ValueError)
    return np.stack(list(arrays.values()))


def from_keras(weights: Mapping[str, Any]) -> RNNParams[Array]:
    """The parameters of a Keras `SimpleRNN`: `{each.name: each.numpy() for each in layer.weights}`.

    Args:
      weights: `kernel` `(n_features, n_nodes)`, `recurrent_kernel` `(n_nodes, n_nodes)`, and `bias`
        `(n_nodes,)` or none. The two layers of a `Bidirectional` have the same names, so read its
        `forward_layer` and its `backward_layer` one by one.

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop

      params = interop.from_keras({"kernel": np.ones((3, 4)), "recurrent_kernel": np.eye(4)})
      assert params.wx.shape == (3, 4) and params.b is None
      ```
    """
    rest = _entries("weights", weights)
    sizes: dict[str, Any] = {}
    wx = _take(rest, "weights", "kernel", "n_features n_nodes", sizes)
    wh = _take(rest, "weights", "recurrent_kernel", "n_nodes n_nodes", sizes)
    b = _take(rest, "weights", "bias", "n_nodes", sizes) if "bias" in rest else None
    _refuse_others("weights", rest)
    return RNNParams(wx, wh, b)


def to_keras(params: RNNParams[Any]) -> dict[str, Array]:
    """The weights of a Keras `SimpleRNN`, for `layer.set_weights(list(weights.values()))`.

    Args:
      params: an `RNNParams`. Its arrays are `kernel`, `recurrent_kernel` and, if not None, `bias`.

    Example:
      ```python
      import jax
      from jaxrnn import init_params, interop

      weights = interop.to_keras(init_params(jax.random.key(0), 3, 4))
      assert list(weights) == ["kernel", "recurrent_kernel", "bias"]
      ```
    """
    arrays = _as_arrays("params", params)
    weights = {"kernel": arrays.wx, "recurrent_kernel": arrays.wh}
    return weights if arrays.b is None else weights | {"bias": arrays.b}


def from_linen(params: Mapping[str, Any], *, residual: bool = False) -> RNNParams[Array]:
    """The parameters of a Flax linen `SimpleCell`: of a `linen.RNN`, `variables["params"]["cell"]`.

    Args:
      params: `{"i": {"kernel": ..., "bias": ...}, "h": {"kernel": ...}}`, of shapes
        `(n_features, n_nodes)`, `(n_nodes,)` and `(n_nodes, n_nodes)`.
      residual: that of the cell. If true, the cell adds `h` before its activation, so `wh` is the
        kernel of `h` plus the identity, rounded to its dtype.

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop

      weights = {"i": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}, "h": {"kernel": np.eye(4)}}
      assert interop.from_linen(weights).wx.shape == (3, 4)
      ```
    """
    return _from_flax("params", params, "i", "h", residual)


def to_linen(params: RNNParams[Any], *, residual: bool = False) -> dict[str, dict[str, Array]]:
    """The parameters of a Flax linen `SimpleCell`, whose bias is zeros where `b` is None.

    Args:
      params: an `RNNParams`.
      residual: that of the cell, as in `from_linen`.

    Example:
      ```python
      import jax
      from jaxrnn import init_params, interop

      weights = interop.to_linen(init_params(jax.random.key(0), 3, 4))
      assert weights["i"]["kernel"].shape == (3, 4)
      ```
    """
    return _to_flax(params, "i", "h", residual)


def from_nnx(state: Mapping[str, Any], *, residual: bool = False) -> RNNParams[Array]:
    """The parameters of a Flax nnx `SimpleCell`: `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`.

    Args:
      state: as in `from_linen`, with `dense_i` for `i` and `dense_h` for `h`.
      residual: as in `from_linen`.

    Example:
      ```python
      import numpy as np
      from jaxrnn import interop

      into = {"kernel": np.ones((3, 4)), "bias": np.ones(4)}
      params = interop.from_nnx({"dense_i": into, "dense_h": {"kernel": np.eye(4)}})
      assert params.wx.shape == (3, 4)
      ```
    """
    return _from_flax("state", state, "dense_i", "dense_h", residual)


def to_nnx(params: RNNParams[Any], *, residual: bool = False) -> dict[str, dict[str, Array]]:
    """The parameters of a Flax nnx `SimpleCell`, for `nnx.replace_by_pure_dict`.

    Args:
      params: an `RNNParams`; where its `b` is None, the bias is zeros.
      residual: that of the cell, as in `from_linen`.

    Example:
      ```python
      import jax
      from jaxrnn import init_params, interop

      state = interop.to_nnx(init_params(jax.random.key(0), 3, 4))
      assert state["dense_i"]["kernel"].shape == (3, 4)
      ```
    """
    return _to_flax(params, "dense_i", "dense_h", residual)


def _from_flax(
    name: str, nested: Mapping[str, Any], i: str, h: str, residual: bool
) -> RNNParams[Array]:
    require(isinstance(residual, bool), "residual", "a bool", residual)
    rest = _entries(name, nested)
    for key in (i, h):
        if key not in rest:
            raise ValueError(f"{name} must have an entry {key!r}, but has {list(nested)}")
    into, within = (_entries(f"{name}[{key!r}]", rest.pop(key)) for key in (i, h))
    sizes: dict[str, Any] = {}
    wx = _take(into, f"{name}[{i!r}]", "kernel", "n_features n_nodes", sizes)
    b = _take(into, f"{name}[{i!r}]", "bias", "n_nodes", sizes)
    wh = _take(within, f"{name}[{h!r}]", "kernel", "n_nodes n_nodes", sizes)
    for where, left in ((name, rest), (f"{name}[{i!r}]", into), (f"{name}[{h!r}]", within)):
        _refuse_others(where, left)
    # act(x wx + h wh + h + b) has wh + 1. int8 promotes to all dtypes but bool and unsigned ones.
    return RNNParams(wx, wh + np.eye(len(wh), dtype=np.int8) if residual else wh, b)


def _to_flax(params: RNNParams[Any], i: str, h: str, residual: bool) -> dict[str, dict[str, Array]]:
    require(isinstance(residual, bool), "residual", "a bool", residual)
    wx, wh, _ = arrays = _as_arrays("params", params)
    kernel = wh - np.eye(len(wh), dtype=np.int8) if residual else wh
    return {i: {"kernel": wx, "bias": _bias_or_zeros(arrays)}, h: {"kernel": kernel}}


def _entries(name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a mapping, to take entries out of it."""
    require(isinstance(mapping, Mapping), name, "a mapping of arrays", mapping)
    return dict(mapping)


def _take(rest: dict[str, Any], name: str, key: str, axes: str, sizes: dict[str, Any]) -> Array:
    """Take out an array, with axes as `check_shape` names them; sizes not yet known are added."""
    if key not in rest:
        raise ValueError(
            f"{name} must have an entry {key!r}; besides those read it has {list(rest)}"
        )
    array = _array(f"{name}[{key!r}]", rest.pop(key))
    check_shape(f"{name}[{key!r}]", array, axes, **sizes)
    found = zip(reversed(axes.split()), reversed(array.shape), strict=False)
    sizes |= {word: size for word, size in found if word[0] != "*"}
    return array


def _refuse_others(name: str, rest: dict[str, Any]) -> None:
    if rest:
        raise ValueError(f"{name} must have no other entries, but has {list(rest)}")


def _array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value).copy()
    except Exception as error:  # libraries raise errors of their own, as for arrays on a GPU
        raise TypeError(f"{name} must be an array that NumPy can read, but {error}") from error
    require(not isinstance(value, np.ma.MaskedArray), name, "no masked array", value)
    require(is_real(array.dtype), name, "an array of real numbers", array)
    return array


class _Arrays(NamedTuple):
    """Parameters as NumPy arrays, none of which but the bias may be missing."""

    wx: Array
    wh: Array
    b: Array | None


def _directions(name: str, layer: Layer[Any]) -> list[_Arrays]:
    """The one or two directions of a layer."""
    if isinstance(layer, RNNParams):
        return [_as_arrays(name, layer)]
    return [_as_arrays(f"{name}[{i}]", params) for i, params in enumerate(layer)]


def _as_arrays(name: str, params: RNNParams[Any]) -> _Arrays:
    require(isinstance(params, RNNParams), name, AN_RNN_PARAMS, params)
    require(params.wx is not None, f"{name}.wx", "an array, as other libraries need it", None)
    wx, wh = (_array(f"{name}.{field}", getattr(params, field)) for field in ("wx", "wh"))
    b = None if params.b is None else _array(f"{name}.b", params.b)
    check_params(RNNParams(wx, wh, b), name)
    check_square(RNNParams(wx, wh, b), name)
    return _Arrays(wx, wh, b)


def _bias_or_zeros(params: _Arrays) -> Array:
    return np.zeros(len(params.wh), params.wh.dtype) if params.b is None else params.b
