"""Weights from and to other libraries, as plain mappings of arrays. It imports none of them.

    layers = interop.from_torch(rnn.state_dict())                     # for rnn_stacked
    rnn.load_state_dict({k: torch.from_numpy(v) for k, v in interop.to_torch(layers).items()})

Arrays that come in may be anything that NumPy can read. NumPy cannot read torch's bfloat16: convert
that with `.float()` first. Arrays that go out are new NumPy arrays, and dtypes stay as they are.
Each `to_...` undoes its `from_...`, with one exception: torch and ONNX add two biases. Their sum
comes in, and goes out as the first of the two, beside zeros.

The outputs are those of the other library at all real steps. In the padding `h` is the last real
state, where torch and ONNX have zeros.

The mappings hold weights alone. The other library's remaining settings are options here: pass its
activation as `activation`, pass `reverse` if its single direction runs backwards, and put the batch
first with `jnp.moveaxis` if time is its first axis. The initial and final states of torch and ONNX
are `h0` and `last`, stacked: `jnp.stack(jax.tree.leaves(last))`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jaxrnn.arguments import check_params
from jaxrnn.errors import require
from jaxrnn.layers import Layer, check_layer, check_layers
from jaxrnn.params import RNNParams, is_real

Array: TypeAlias = NDArray[Any]


def from_torch(state_dict: Mapping[str, Any]) -> tuple[Layer[Array], ...]:
    """The layers of a `torch.nn.RNN`.

    Args:
      state_dict: `weight_ih_l0` `(n_nodes, n_features)`, `weight_hh_l0` `(n_nodes, n_nodes)`, and
        `bias_ih_l0` and `bias_hh_l0` `(n_nodes,)` or neither. The layers above have the same with
        `l1` and so on, and the other direction has `_reverse` at the end of each key. Cut the
        prefix off the keys if the network is part of a larger model.

    Returns:
      For each layer an `RNNParams`, or a pair (forward, backward) of them, as for `rnn_stacked`.

    Raises:
      TypeError: it is not a mapping, or an entry is not an array of real numbers.
      ValueError: an entry is missing, has a shape that does not fit the other entries, or has none
        of these names. The message names its key, as in all functions here.

    Example:
        import numpy as np
        from jaxrnn import interop, rnn_stacked

        # As of torch.nn.RNN(3, 4), whose rnn.state_dict() holds tensors, which will do as well.
        state_dict = {"weight_ih_l0": np.full((4, 3), 0.1), "weight_hh_l0": np.eye(4)}
        state_dict |= {"bias_ih_l0": np.zeros(4), "bias_hh_l0": np.zeros(4)}
        layers = interop.from_torch(state_dict)
        h, last = rnn_stacked(layers, np.ones((2, 7, 3)))  # activation=jax.nn.relu, if torch's is
        assert h.shape == (2, 7, 4)
    """
    rest = _entries("state_dict", state_dict)
    two = any(str(key).endswith("_reverse") for key in rest)
    suffixes = ("", "_reverse") if two else ("",)
    layers: list[Layer[Array]] = []
    n_features: int | str = "n_features"
    depths = [int(found[1]) for key in rest if (found := re.search(r"_l(\d{1,9})", str(key)))]
    for i in range(max(depths, default=0) + 1):
        directions: list[RNNParams[Array]] = []
        for suffix in suffixes:
            place = f"l{i}{suffix}"
            size = len(directions[0].wh) if directions else "n_nodes"
            wx = _take(rest, "state_dict", f"weight_ih_{place}", (size, n_features))
            n_nodes, n_features = wx.shape
            wh = _take(rest, "state_dict", f"weight_hh_{place}", (n_nodes, n_nodes))
            keys = [f"bias_{kind}_{place}" for kind in ("ih", "hh")]
            if rest.keys().isdisjoint(keys):
                b = None
            else:
                b_ih, b_hh = (_take(rest, "state_dict", key, (n_nodes,)) for key in keys)
                b = b_ih + b_hh
            directions.append(RNNParams(wx.T, wh.T, b))
        layers.append(directions[0] if len(suffixes) == 1 else (directions[0], directions[1]))
        n_features = sum(len(params.wh) for params in directions)
    _refuse_others("state_dict", rest)
    return tuple(layers)


def to_torch(layers: Sequence[Layer[Any]]) -> dict[str, Array]:
    """The `state_dict` of a `torch.nn.RNN` with the layers of `rnn_stacked`.

    If no layer has a bias there is none, for `bias=False`. If some have one, the others get zeros.

    Raises:
      TypeError, ValueError: `layers` are not those of `rnn_stacked`, or torch cannot hold them: all
        must have the same number of nodes, and the same number of directions.

    Example:
        import jax
        from jaxrnn import init_stacked, interop

        state_dict = interop.to_torch(init_stacked(jax.random.key(0), 3, (4, 4)))
        # rnn.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
        assert state_dict["weight_ih_l0"].shape == (4, 3)
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
        import numpy as np
        from jaxrnn import interop

        params = interop.from_onnx({"W": np.ones((1, 4, 3)), "R": np.ones((1, 4, 4))})
        assert params.wx.shape == (3, 4) and params.b is None
    """
    rest = _entries("inputs", inputs)
    w = _take(rest, "inputs", "W", ("n_directions", "n_nodes", "n_features"))
    n_directions, n_nodes, _ = w.shape
    if n_directions not in (1, 2):
        raise ValueError(f"inputs['W'] must have 1 or 2 directions, but has shape {w.shape}")
    r = _take(rest, "inputs", "R", (n_directions, n_nodes, n_nodes))
    b = _take(rest, "inputs", "B", (n_directions, 2 * n_nodes)) if "B" in rest else None
    _refuse_others("inputs", rest)
    layer = [
        RNNParams(w[i].T, r[i].T, None if b is None else b[i, :n_nodes] + b[i, n_nodes:])
        for i in range(n_directions)
    ]
    return layer[0] if n_directions == 1 else (layer[0], layer[1])


def to_onnx(layer: Layer[Any]) -> dict[str, Array]:
    """`W`, `R` and `B` of ONNX's operator `RNN`, from an `RNNParams` or a pair of them.

    Raises:
      TypeError, ValueError: `layer` is neither, or its directions differ in shape.

    Example:
        import jax
        from jaxrnn import init_params, interop

        inputs = interop.to_onnx(init_params(jax.random.key(0), 3, 4))
        assert inputs["W"].shape == (1, 4, 3) and inputs["B"].shape == (1, 8)
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


def from_keras(weights: Mapping[str, Any]) -> RNNParams[Array]:
    """The parameters of a Keras `SimpleRNN`: `{each.name: each.numpy() for each in layer.weights}`.

    Args:
      weights: `kernel` `(n_features, n_nodes)`, `recurrent_kernel` `(n_nodes, n_nodes)`, and `bias`
        `(n_nodes,)` or none.

    Example:
        import numpy as np
        from jaxrnn import interop

        params = interop.from_keras({"kernel": np.ones((3, 4)), "recurrent_kernel": np.eye(4)})
        assert params.wx.shape == (3, 4) and params.b is None
    """
    rest = _entries("weights", weights)
    wx = _take(rest, "weights", "kernel", ("n_features", "n_nodes"))
    n_nodes = wx.shape[1]
    wh = _take(rest, "weights", "recurrent_kernel", (n_nodes, n_nodes))
    b = _take(rest, "weights", "bias", (n_nodes,)) if "bias" in rest else None
    _refuse_others("weights", rest)
    return RNNParams(wx, wh, b)


def to_keras(params: RNNParams[Any]) -> dict[str, Array]:
    """The weights of a Keras `SimpleRNN`, for `layer.set_weights(list(weights.values()))`.

    Example:
        import jax
        from jaxrnn import init_params, interop

        weights = interop.to_keras(init_params(jax.random.key(0), 3, 4))
        assert list(weights) == ["kernel", "recurrent_kernel", "bias"]
    """
    arrays = _as_arrays("params", params)
    weights = {"kernel": arrays.wx, "recurrent_kernel": arrays.wh}
    return weights if arrays.b is None else weights | {"bias": arrays.b}


def from_linen(params: Mapping[str, Any]) -> RNNParams[Array]:
    """The parameters of a Flax linen `SimpleCell`: of a `linen.RNN`, `variables["params"]["cell"]`.

    Args:
      params: `{"i": {"kernel": ..., "bias": ...}, "h": {"kernel": ...}}`, of shapes
        `(n_features, n_nodes)`, `(n_nodes,)` and `(n_nodes, n_nodes)`.

    Example:
        import numpy as np
        from jaxrnn import interop

        weights = {"i": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}, "h": {"kernel": np.eye(4)}}
        assert interop.from_linen(weights).wx.shape == (3, 4)
    """
    return _from_flax("params", params, "i", "h")


def to_linen(params: RNNParams[Any]) -> dict[str, dict[str, Array]]:
    """The parameters of a Flax linen `SimpleCell`, whose bias is zeros where `b` is None.

    Example:
        import jax
        from jaxrnn import init_params, interop

        weights = interop.to_linen(init_params(jax.random.key(0), 3, 4))
        assert weights["i"]["kernel"].shape == (3, 4)
    """
    return _to_flax(params, "i", "h")


def from_nnx(state: Mapping[str, Any]) -> RNNParams[Array]:
    """The parameters of a Flax nnx `SimpleCell`: `nnx.to_pure_dict(nnx.state(cell, nnx.Param))`.

    Args:
      state: as in `from_linen`, with `dense_i` for `i` and `dense_h` for `h`.

    Example:
        import numpy as np
        from jaxrnn import interop

        into = {"kernel": np.ones((3, 4)), "bias": np.ones(4)}
        params = interop.from_nnx({"dense_i": into, "dense_h": {"kernel": np.eye(4)}})
        assert params.wx.shape == (3, 4)
    """
    return _from_flax("state", state, "dense_i", "dense_h")


def to_nnx(params: RNNParams[Any]) -> dict[str, dict[str, Array]]:
    """The parameters of a Flax nnx `SimpleCell`, for `nnx.replace_by_pure_dict`.

    The bias is zeros where `b` is None, as in `to_linen`.

    Example:
        import jax
        from jaxrnn import init_params, interop

        state = interop.to_nnx(init_params(jax.random.key(0), 3, 4))
        assert state["dense_i"]["kernel"].shape == (3, 4)
    """
    return _to_flax(params, "dense_i", "dense_h")


def _from_flax(name: str, nested: Mapping[str, Any], i: str, h: str) -> RNNParams[Array]:
    rest = _entries(name, nested)
    for key in (i, h):
        if key not in rest:
            raise ValueError(f"{name} must have an entry {key!r}, but has {list(nested)}")
    into, within = (_entries(f"{name}[{key!r}]", rest.pop(key)) for key in (i, h))
    wx = _take(into, f"{name}[{i!r}]", "kernel", ("n_features", "n_nodes"))
    n_nodes = wx.shape[1]
    b = _take(into, f"{name}[{i!r}]", "bias", (n_nodes,))
    wh = _take(within, f"{name}[{h!r}]", "kernel", (n_nodes, n_nodes))
    for where, left in ((name, rest), (f"{name}[{i!r}]", into), (f"{name}[{h!r}]", within)):
        _refuse_others(where, left)
    return RNNParams(wx, wh, b)


def _to_flax(params: RNNParams[Any], i: str, h: str) -> dict[str, dict[str, Array]]:
    arrays = _as_arrays("params", params)
    return {i: {"kernel": arrays.wx, "bias": _bias_or_zeros(arrays)}, h: {"kernel": arrays.wh}}


def _entries(name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a mapping, to take entries out of it."""
    require(isinstance(mapping, Mapping), name, "a mapping of arrays", mapping)
    return dict(mapping)


def _take(rest: dict[str, Any], name: str, key: str, shape: tuple[int | str, ...]) -> Array:
    """Take out an array of a shape, in which a size that is given as a word may be any."""
    if key not in rest:
        raise ValueError(
            f"{name} must have an entry {key!r}; besides those read it has {list(rest)}"
        )
    array = _array(f"{name}[{key!r}]", rest.pop(key))
    fits = array.ndim == len(shape) and all(
        isinstance(wanted, str) or size == wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    expected = f"of shape ({', '.join(map(str, shape))})"
    require(fits, f"{name}[{key!r}]", expected, array, ValueError)
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


def _directions(name: str, layer: Layer[Any]) -> list[RNNParams[Array]]:
    """The one or two directions of a layer."""
    if isinstance(layer, RNNParams):
        return [_as_arrays(name, layer)]
    return [_as_arrays(f"{name}[{i}]", params) for i, params in enumerate(layer)]


def _as_arrays(name: str, params: RNNParams[Any]) -> RNNParams[Array]:
    require(isinstance(params, RNNParams), name, "an RNNParams", params)
    wx, wh = (_array(f"{name}.{field}", getattr(params, field)) for field in ("wx", "wh"))
    arrays = RNNParams(wx, wh, None if params.b is None else _array(f"{name}.b", params.b))
    check_params(arrays, name)
    return arrays


def _bias_or_zeros(params: RNNParams[Array]) -> Array:
    return np.zeros(len(params.wh), params.wh.dtype) if params.b is None else params.b
