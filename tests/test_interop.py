"""Weights come from and go to other libraries, and give there what they give here."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import zeros

from jaxrnn import RNNParams, init_stacked, interop, rnn_forward, rnn_stacked, rnn_states
from jaxrnn.testing.relations import RELATIONS
from jaxrnn.testing.strategies import Case
from tests.helpers import assert_close, assert_equal, numbers, numbers_like, scanned

N_FEATURES, N_NODES = 3, 4
(X,) = numbers((2, 6, N_FEATURES))
LENGTHS = np.array([6, 3], np.int32)


def network(n_layers: int, *, bidirectional: bool = False, biased: bool = True) -> Any:
    def draw(key: jax.Array) -> Any:
        b_init = zeros if biased else None
        sizes = N_FEATURES, (N_NODES,) * n_layers
        return init_stacked(key, *sizes, bidirectional=bidirectional, b_init=b_init)

    shapes = jax.eval_shape(draw, jax.random.key(0))
    return jax.tree.map(lambda array: array / 2, numbers_like(shapes, seed=n_layers))


def to_cell(layers: Any) -> dict[str, Any]:
    """The entries of a `torch.nn.RNNCell`."""
    return {key.removesuffix("_l0"): each for key, each in interop.to_torch(layers).items()}


PARAMS, PAIR = network(1)[0], network(1, bidirectional=True)[0]
WITHOUT_BIAS = PARAMS._replace(b=None)
# Of weights which the identity does not round.
EIGHTHS: Any = PARAMS._replace(wh=np.round(8 * PARAMS.wh) / 8)
RESIDUAL: Any = {"residual": True}
# With all that may be missing, layers that do not fit each other, and leading axes.
SETS = RNNParams(*numbers((3, 5), (2, 1, 5, 5), (2, 5)))
MIXED: Any = (PARAMS._replace(wx=None), (PAIR[0]._replace(b=None), PAIR[1]), SETS)

ROUND_TRIPS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Any]] = {
    "torch": (interop.to_torch, interop.from_torch, network(3)),
    "torch, two directions": (interop.to_torch, interop.from_torch, network(2, bidirectional=True)),
    "torch, no bias": (interop.to_torch, interop.from_torch, network(2, biased=False)),
    "a cell of torch": (to_cell, interop.from_torch, network(1)),
    "a cell of torch, no bias": (to_cell, interop.from_torch, network(1, biased=False)),
    "onnx": (interop.to_onnx, interop.from_onnx, PARAMS),
    "onnx, two directions": (interop.to_onnx, interop.from_onnx, PAIR),
    "onnx, no bias": (interop.to_onnx, interop.from_onnx, WITHOUT_BIAS),
    "keras": (interop.to_keras, interop.from_keras, PARAMS),
    "keras, no bias": (interop.to_keras, interop.from_keras, WITHOUT_BIAS),
    "flat, one network": (interop.to_flat, interop.from_flat, PARAMS._replace(wx=None)),
    "flat, one layer": (interop.to_flat, interop.from_flat, (WITHOUT_BIAS,)),
    "flat, no features": (interop.to_flat, interop.from_flat, PARAMS._replace(wx=PARAMS.wx[:0])),
    "flat, layers": (interop.to_flat, interop.from_flat, MIXED),
    "flat, many layers": (interop.to_flat, interop.from_flat, network(11, bidirectional=True)),
}
_ONE, _TWO, _OTHER, _LAST = numbers(*[(2, N_NODES)] * 4)
STATES: dict[str, tuple[Any, Any]] = {
    "one layer": (network(1), (_ONE,)),
    "one layer, two directions": ((PAIR,), ((_ONE, _TWO),)),
    "layers": (network(3), (_ONE, _TWO, _OTHER)),
    "layers, two directions": (network(2, bidirectional=True), ((_ONE, _TWO), (_OTHER, _LAST))),
    "no batch": (network(3), (_ONE[0], _TWO[0], _OTHER[0])),
    "no wx": ([PARAMS._replace(wx=None)], (_ONE,)),
}
for name, (layers, states) in STATES.items():
    unstack = partial(interop.unstack_states, layers=layers)
    ROUND_TRIPS[f"states, {name}"] = interop.stack_states, unstack, states
for name, to, back in (
    ("linen", interop.to_linen, interop.from_linen),
    ("nnx", interop.to_nnx, interop.from_nnx),
):
    ROUND_TRIPS[name] = to, back, PARAMS
    ROUND_TRIPS[f"{name}, residual"] = partial(to, **RESIDUAL), partial(back, **RESIDUAL), EIGHTHS


@pytest.fixture(autouse=True)
def as_other_libraries_need_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keras on JAX, and implicit promotion of ranks."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", ROUND_TRIPS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_what_goes_out_comes_back(name: str, dtype: Any) -> None:
    """To the last bit, in the same dtype, and in memory of its own."""
    to, back, ours = ROUND_TRIPS[name]
    ours = jax.tree.map(lambda array: array.astype(dtype), ours)
    theirs = to(ours)
    assert_equal(to(back(theirs)), theirs)
    jax.tree.map(lambda array: array.fill(7), back(theirs))
    assert_equal(back(theirs), ours)
    jax.tree.map(lambda array: array.fill(7), theirs)
    assert all(np.all(array != 7) for array in jax.tree.leaves(ours))


def test_biases_are_summed_and_absent_ones_are_zeros() -> None:
    state_dict = interop.to_torch((PARAMS, network(2)[1]._replace(b=None)))
    assert_equal(state_dict["bias_ih_l1"], np.zeros(N_NODES))
    state_dict["bias_hh_l0"] = np.ones(N_NODES)
    assert_equal(interop.from_torch(state_dict)[0].b, PARAMS.b + 1)  # type: ignore[union-attr]
    inputs = interop.to_onnx((PARAMS, WITHOUT_BIAS))
    assert_equal(inputs["B"], np.stack([np.append(PARAMS.b, np.zeros(4)), np.zeros(8)]))
    pair: Any = interop.from_onnx(inputs | {"B": inputs["B"] + 1})
    assert_equal(pair[0].b, PARAMS.b + 2)
    for to, key in ((interop.to_linen, "i"), (interop.to_nnx, "dense_i")):
        assert_equal(to(WITHOUT_BIAS)[key]["bias"], np.zeros(N_NODES))


def test_states_are_in_the_order_of_layers_and_then_of_directions() -> None:
    states = ROUND_TRIPS["states, layers, two directions"][2]
    assert_equal(interop.stack_states(states), np.stack(jax.tree.leaves(states)))


TORCH = interop.to_torch(network(2, bidirectional=True))
CELL = to_cell((PARAMS,))
ONNX, LINEN = interop.to_onnx(PARAMS), interop.to_linen(PARAMS)
NNX_OF_INPUTS = {"dense_i": LINEN["i"]}
UNLIKE = RNNParams(np.ones((4, 5)), np.ones((5, 5)), None)
PAIR_UNLIKE: Any = (PAIR[0], RNNParams(np.ones((2, 4)), PAIR[1].wh, None))
WIDER = {"weight_ih_l0_reverse": np.ones((5, 3)), "weight_hh_l0_reverse": np.ones((5, 5))}
THREE, UNEQUAL = "layers of [4, 4, 4] nodes, but is of shape", (np.ones(4), np.ones(5))
RAGGED = {"R": [[1], [1, 2]]}
LSTM = {"weight_ih_l0": np.ones((16, 3)), "weight_hh_l0": X[0]}
WITH_BIAS = LINEN | {"h": {"kernel": PARAMS.wh, "bias": PARAMS.b}}
FLAT = interop.to_flat(MIXED)

# By the name of an argument, a function that takes it.
TAKES: dict[str, Callable[[Any], Any]] = {
    "state_dict": interop.from_torch,
    "inputs": interop.from_onnx,
    "params": interop.from_linen,
    "state": interop.from_nnx,
    "flat": lambda flat: (interop.from_flat if isinstance(flat, dict) else interop.to_flat)(flat),
    "layers": interop.to_torch,
    "layer": interop.to_onnx,
    "last": interop.stack_states,
    "h": partial(interop.unstack_states, layers=network(3)),
}
# How a message begins, with the name of the argument, and how it goes on for wrong values.
WRONG: dict[str, dict[str, Any]] = {
    "TypeError: state_dict": {
        "['bias_hh_l1'] must be no masked array": TORCH | {"bias_hh_l1": np.ma.masked_array(X[0])}
    },
    "ValueError: state_dict": {
        "['weight_hh_l0'] must be of shape (n_nodes, n_nodes) with n_nodes = 16, but": LSTM,
        "['weight_ih_l1'] must be of shape (n_nodes, n_features) with n_features = 8": TORCH
        | {"weight_ih_l1": X[0]},
        "['weight_ih_l0_reverse'] must be of shape (n_nodes, n_features) with n_nodes": TORCH
        | WIDER,
        " must have an entry 'weight_ih_l0'; besides those read it has ['rnn.weight_ih_l0', ": {
            f"rnn.{key}": entry for key, entry in TORCH.items()
        },
        " must have an entry 'weight_ih_l1'": {k.replace("l1", "l2"): v for k, v in TORCH.items()},
        " must have an entry 'weight_ih'": {"weight_hh": X[0]},
        " must have no other entries, but has ['weight_ih_l0', ": TORCH | CELL,
        " must have no other entries, but has [1]": CELL | {1: X},
    },
    "TypeError: inputs": {"['R'] must be an array that NumPy can read": ONNX | RAGGED},
    "ValueError: inputs": {
        "['W'] must have 1 or 2 directions, but has shape (3, ": ONNX | {"W": np.ones((3, 4, 3))}
    },
    "ValueError: params": {
        "['i'] must have an entry 'bias'": LINEN | {"i": {"kernel": PARAMS.wx}},
        "['h'] must have no other entries, but has ['bias']": WITH_BIAS,
    },
    "ValueError: state": {" must have an entry 'dense_h', but has ['dense_i']": NNX_OF_INPUTS},
    "TypeError: flat": {
        "['wh'] must be an array that NumPy can read": {"wh": [[1], [1, 2]]},
        "['layers.0.b'] must be an array of real numbers": [PARAMS._replace(b="text")],
    },
    "ValueError: flat": {
        " must have an entry 'wh'; besides those read it has ['weight_ih_l0', ": TORCH,
        " must have an entry 'wh'": PARAMS._replace(wh=None),
        " must have an entry 'layers.1.wh'": {"layers.0.wh": PARAMS.wh, "layers.7.wh": PARAMS.wh},
        " must have an entry 'layers.0.forward.wh'": {"layers.0.backward.wh": PARAMS.wh},
        " must have no other entries, but has ['layers.00.b']": FLAT | {"layers.00.b": PARAMS.b},
        " must have no other entries, but has ['wx', 'wh', 'b']": FLAT | interop.to_flat(PARAMS),
        "['layers.0.wh'] must be of shape (*sets, n_nodes, n_nodes), but is of shape (6, 3)": (
            FLAT | {"layers.0.wh": X[0]}
        ),
        "['wh'] must be of shape (*sets, n_nodes, n_nodes), but is of shape (3,)": {"wh": X[0, 0]},
        "['layers.1.backward.wx'] must be of shape (*sets, n_features, n_nodes) with n_n": (
            FLAT | {"layers.1.backward.wx": X}
        ),
        "['layers.0.backward.b'] must be of shape (*sets, n_nodes) with n_nodes = 4, but": (
            [(PAIR[0], PAIR[1]._replace(b=X[0, 0]))]
        ),
    },
    "ValueError: layers": {
        " must all have as many directions for torch, but layers[0] has 2 and": (PAIR, PARAMS),
        "[1] must have wx of shape (4, 4) for torch, but has (4, 5)": (PARAMS, UNLIKE),
    },
    "ValueError: layer": {
        " must have wx of one shape for ONNX, but has [(3, 4), (2, 4)]": PAIR_UNLIKE
    },
    "TypeError: last": {
        " must be a tuple or list, one state or pair a layer, but is of shape (2, 3)": X[:, 0],
        "[1] must be an array of real numbers": (np.ones(4), None),
        "[1] must be a state or a pair of them, but is a list": (X, [X, X, X]),
    },
    "ValueError: last": {
        " must be of at least one layer, but is ()": (),
        "[0] must be of shape (*batch, n_nodes)": (1.0,),
        "[0][1] must be of shape (*batch, n_nodes), the same for all states: (4,), but": (UNEQUAL,),
    },
    "TypeError: h": {" must be an array of real numbers": None},
    "ValueError: h": {
        f" must be of shape (3, *batch, 4) to fit {THREE} {of}": np.ones(of)
        for of in ((2, 2, 4), (3, 2, 3), (4,), ())
    },
}


@pytest.mark.parametrize("begins", WRONG)
def test_the_error_says_what_is_wrong(begins: str) -> None:
    for goes_on, value in WRONG[begins].items():
        with pytest.raises((TypeError, ValueError)) as told:
            TAKES[begins.split()[1]](value)
        assert told.exconly().startswith(begins + goes_on)


def test_states_must_fit_their_layers() -> None:
    fits = "h must be of shape (2, *batch, 4) to fit layers of [4, 5] nodes, but is of shape "
    with pytest.raises(ValueError, match=re.escape(fits)):
        interop.unstack_states(np.ones((2, 2, 4)), (PARAMS, UNLIKE))
    with pytest.raises(TypeError, match="layers must be a tuple or list"):
        interop.unstack_states(np.ones((1, 2, 4)), PARAMS)


@pytest.mark.parametrize("mapping", [TORCH, CELL])
def test_torch_has_all_biases_or_none(mapping: Any) -> None:
    """Not those of one layer, of one direction, or one of the two."""
    biases = [key for key in mapping if key.startswith("bias")]
    for n in range(1, len(biases)):
        for missing in combinations(biases, n):
            with pytest.raises(ValueError, match=f"must have an entry '({'|'.join(missing)})'"):
                interop.from_torch({k: each for k, each in mapping.items() if k not in missing})


# Beside the real libraries


def with_library(*modules: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        any(find_spec(module) is None for module in modules),
        reason="to run it: pip install -e '.[test,interop]'",
    )


@with_library("safetensors")
def test_files_are_read(tmp_path: Path) -> None:
    import safetensors.flax
    import safetensors.numpy
    from orbax.checkpoint import StandardCheckpointer

    layers = jax.tree.map(np.float32, MIXED)
    flat, path = interop.to_flat(layers), tmp_path / "safetensors"
    np.savez(tmp_path / "npz", **flat)
    safetensors.numpy.save_file(flat, path)
    with StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", flat)
    with np.load(tmp_path / "npz.npz") as npz, StandardCheckpointer() as checkpointer:
        flats = [npz, checkpointer.restore(tmp_path / "orbax")]
        flats += [each.load_file(path) for each in (safetensors.numpy, safetensors.flax)]
        assert_equal([*map(interop.from_flat, flats)], [layers] * 4)


KERAS = with_library("keras"), pytest.mark.filterwarnings("ignore")  # it warns
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def tensors(entries: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(entry) for key, entry in entries.items()}


@with_library("torch")
@pytest.mark.parametrize(
    ("n_layers", "two_ways", "biased", "activation"),
    [(1, False, True, "tanh"), (2, True, True, "relu"), (3, False, False, "tanh")],
)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_torch(n_layers: int, two_ways: bool, biased: bool, activation: str, lengths: Any) -> None:
    """States, last states and gradients, of whole and of packed sequences."""
    import torch
    from torch.nn.utils import rnn as packing

    torch.manual_seed(0)
    options: Any = {"bias": biased, "bidirectional": two_ways, "dtype": torch.float64}
    sizes = N_FEATURES, N_NODES, n_layers
    rnn = torch.nn.RNN(*sizes, nonlinearity=activation, batch_first=True, **options)
    (h_0,) = numbers((n_layers * (1 + two_ways), 2, N_NODES), seed=1)

    def run() -> Any:
        x, h0 = torch.from_numpy(X), torch.from_numpy(h_0)
        if lengths is None:
            return rnn(x, h0)
        x = packing.pack_padded_sequence(x, torch.from_numpy(lengths), True, enforce_sorted=False)
        states, h_n = rnn(x, h0)
        return packing.pad_packed_sequence(states, True)[0], h_n

    def loss(states: Any, last: Any) -> Any:
        return (states**2).sum() + (last**3).sum()

    states, h_n = run()
    loss(states, h_n).backward()
    layers = interop.from_torch(rnn.state_dict())
    real = (np.arange(6) < (6 if lengths is None else lengths[:, None]))[..., None]
    h0 = interop.unstack_states(h_0, layers)
    call: Any = {"activation": ACTIVATIONS[activation], "lengths": lengths}

    def here(layers: Any) -> Any:
        out = rnn_stacked(layers, X, h0, **call)
        return loss(jnp.where(real, out.h, 0), jnp.stack(jax.tree.leaves(out.last))), out

    with jax.enable_x64(True):
        ours, out = jax.grad(here, has_aux=True)(layers)
    assert_close(np.where(real, out.h, 0), states.detach().numpy(), 1e-12)
    assert_close(interop.stack_states(out.last), h_n.detach().numpy(), 1e-12)
    theirs = {key: value.grad.numpy() for key, value in rnn.named_parameters()}
    in_torch = interop.to_torch(ours)
    assert in_torch.keys() == theirs.keys() == rnn.state_dict().keys()
    for key in theirs:
        # Each of torch's two biases has the gradient of their sum.
        assert_close(in_torch[key.replace("bias_hh", "bias_ih")], theirs[key], 1e-11)

    rnn.load_state_dict(tensors(interop.to_torch(layers)))
    assert_close(run()[0].detach().numpy(), states.detach().numpy(), 1e-12)


@with_library("torch")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_a_cell_of_torch(activation: str, biased: bool) -> None:
    """Run over a sequence in a loop; and weights from here, put into it."""
    import torch

    torch.manual_seed(0)
    options: Any = {"nonlinearity": activation, "bias": biased, "dtype": torch.float64}
    cell = torch.nn.RNNCell(N_FEATURES, N_NODES, **options)
    (h_0,) = numbers((2, N_NODES), seed=1)
    layers: Any
    for layers in (interop.from_torch(cell.state_dict()), network(1, biased=biased)):
        cell.load_state_dict(tensors(to_cell(layers)))
        h = torch.from_numpy(h_0)
        for x_t in torch.from_numpy(X.swapaxes(0, 1)):
            h = cell(x_t, h)
        with jax.enable_x64(True):
            last = rnn_forward(layers[0], X, h_0, activation=ACTIVATIONS[activation])
        assert_close(last, h.detach().numpy(), 1e-12)


def half_square(run: Callable[[Any], Any], weights: Any) -> tuple[Any, Any]:
    """The last state in float32, and the gradient of half the sum of its squares."""

    def loss(weights: Any) -> Any:
        last = run(weights)
        return 0.5 * jnp.sum(last**2), last

    gradient, last = jax.grad(loss, has_aux=True)(jax.tree.map(np.float32, weights))
    return last, gradient


# The weights of a layer of another library, and a function from such weights to states and last.
Theirs: TypeAlias = tuple[Any, Callable[..., tuple[Any, Any]]]


def keras_layer(activation: str, **settings: Any) -> Theirs:
    import keras

    keras.utils.set_random_seed(0)
    settings |= {"return_sequences": True, "return_state": True}
    layer = keras.layers.SimpleRNN(N_NODES, activation=activation, **settings)
    layer.build(X.shape)
    others = [each.value for each in layer.non_trainable_variables]

    def run(weights: Any, mask: Any = None) -> tuple[Any, Any]:
        values = [weights[each.name] for each in layer.trainable_variables]
        (h, last), _ = layer.stateless_call(values, others, np.float32(X), mask=mask)
        return h, last

    return {each.name: each.numpy() for each in layer.weights}, run


def linen_layer(activation: str, residual: bool = False, **settings: Any) -> Theirs:
    from flax import linen

    cell = linen.SimpleCell(N_NODES, activation_fn=ACTIVATIONS[activation], residual=residual)
    rnn = linen.RNN(cell, return_carry=True, **settings)
    x = np.float32(X)

    def run(weights: Any, lengths: Any = None) -> tuple[Any, Any]:
        last, h = rnn.apply({"params": {"cell": weights}}, x, seq_lengths=lengths)
        return h, last

    return rnn.init(jax.random.key(0), x)["params"]["cell"], run


def nnx_layer(activation: str, residual: bool = False, **settings: Any) -> Theirs:
    from flax import nnx

    options: Any = {"activation_fn": ACTIVATIONS[activation], "residual": residual}
    cell = nnx.SimpleCell(N_FEATURES, N_NODES, **options, rngs=nnx.Rngs(0))
    rnn = nnx.RNN(cell, return_carry=True, **settings)
    graph, state, others = nnx.split(rnn, nnx.Param, ...)

    def run(weights: Any, lengths: Any = None) -> tuple[Any, Any]:
        nnx.replace_by_pure_dict(state, {"cell": weights})
        h0 = jnp.zeros((2, N_NODES))
        rnn = nnx.merge(graph, state, others)
        last, h = rnn(jnp.float32(X), initial_carry=h0, seq_lengths=lengths)
        return h, last

    return nnx.to_pure_dict(state)["cell"], run


# What makes a layer, what reads and what writes its weights, and settings to try.
LIBRARIES: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "keras": (keras_layer, interop.from_keras, interop.to_keras, {"use_bias": False}, KERAS),
    "linen": (linen_layer, interop.from_linen, interop.to_linen, RESIDUAL, with_library("flax")),
    "nnx": (nnx_layer, interop.from_nnx, interop.to_nnx, RESIDUAL, with_library("flax")),
}


@pytest.mark.parametrize(
    ("library", "activation", "settings"),
    [
        pytest.param(library, *each, marks=mark)
        for library, (*_, settings, mark) in LIBRARIES.items()
        for each in (("tanh", dict[str, Any]()), ("relu", settings))
    ],
)
def test_keras_and_flax(library: str, activation: str, settings: Any) -> None:
    """Values with weights from there and from here, and gradients."""
    layer, read, write, *_ = LIBRARIES[library]
    weights, run = layer(activation, **settings)
    options = settings if settings == RESIDUAL else {}
    ours = read(weights, **options)

    def here(params: Any) -> Any:
        return rnn_forward(params, np.float32(X), activation=ACTIVATIONS[activation])

    def there(weights: Any) -> Any:
        return run(weights)[1]

    assert_close(there(weights), here(ours), 1e-6)
    params = WITHOUT_BIAS if ours.b is None else PARAMS
    last, gradient = half_square(here, params)
    their_last, theirs = half_square(there, write(params, **options))
    assert_close(their_last, last, 1e-6)
    assert_close(theirs, write(gradient), 1e-5)


@with_library("flax")
@pytest.mark.parametrize("keep_order", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_flax_reversed(library: str, lengths: Any, keep_order: bool) -> None:
    """Without `keep_order` it turns the real steps of each sequence."""
    layer, read, *_ = LIBRARIES[library]
    weights, run = layer("tanh", reverse=True, keep_order=keep_order)
    theirs, last = run(weights, lengths)
    options: Any = {"lengths": lengths, "reverse": True}
    ours = rnn_states(read(weights), np.float32(X), **options).h
    for i, length in enumerate([6, 6] if lengths is None else lengths):
        real = theirs[i, :length]
        assert_close(real if keep_order else np.flip(real, 0), ours[i, :length], 1e-6)
    assert_close(last, ours[:, 0], 1e-6)


@KERAS[0]
@KERAS[1]
@pytest.mark.parametrize("go_backwards", [False, True])
def test_a_mask_of_keras_is_a_leak(go_backwards: bool) -> None:
    """With holes, and with False in the first and in the last step. Backwards all steps turn."""
    _, run = keras_layer("tanh", go_backwards=go_backwards)
    mask = np.array([[0, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0, 0]], np.float32)
    theirs, _ = run(interop.to_keras(PARAMS), mask > 0)
    ours = rnn_states(PARAMS, np.float32(X), leak=mask[..., None], reverse=go_backwards).h
    assert_close(ours, jnp.flip(theirs, 1) if go_backwards else theirs, 1e-6)


@KERAS[0]
@KERAS[1]
def test_layers_of_keras_with_dropout_are_a_loop() -> None:
    """That of the docstring. Masks that are fixed drop half of the inputs and of all states."""
    import keras

    kept: Any = [np.float32(each > 0) / 0.5 for each in numbers((2, 3), (2, 4), (2, 4))]
    of_inputs, of_states = (kept[0], None), kept[1:]
    theirs: Any = np.float32(X)
    layers, options_of_layers = [], []
    for activation, *masks in zip(ACTIVATIONS, of_inputs, of_states, strict=True):
        options: Any = {"dropout": 0.5, "recurrent_dropout": 0.5, "return_sequences": True}
        layer = keras.layers.SimpleRNN(N_NODES, activation, **options)
        layer.cell.get_dropout_mask = lambda _, mask=masks[0]: mask
        layer.cell.get_recurrent_dropout_mask = lambda _, mask=masks[1]: mask
        theirs = layer(theirs, training=True)
        layers.append(interop.from_keras({each.name: each.numpy() for each in layer.weights}))
        rate = partial(jnp.multiply, masks[1])
        options_of_layers.append({"activation": ACTIVATIONS[activation], "rate": rate})
    names: Any = {"layers": layers, "options_of_layers": options_of_layers}
    names |= {"x": np.float32(X) * kept[0][:, None], "rnn_states": rnn_states}
    (loop,) = re.findall(r"^ {4}for params, options in .*\n.*$", interop.__doc__, re.MULTILINE)
    exec(dedent(loop), names)
    assert_close(names["x"], theirs, 1e-6)


@KERAS[0]
@KERAS[1]
def test_the_directions_of_keras_are_read_one_by_one() -> None:
    import keras

    both = keras.layers.Bidirectional(keras.layers.SimpleRNN(N_NODES, return_sequences=True))
    theirs = both(np.float32(X))
    pair: Any = tuple(
        interop.from_keras({each.name: each.numpy() for each in layer.weights})
        for layer in (both.forward_layer, both.backward_layer)
    )
    assert_close(rnn_stacked([pair], np.float32(X)).h, theirs, 1e-6)


@with_library("onnx", "onnxruntime")
@pytest.mark.parametrize(("activation", "clip"), [("tanh", None), ("relu", None), ("tanh", 0.2)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_onnx(direction: str, activation: str, clip: float | None) -> None:
    """With sequences of different lengths; ONNX Runtime gives no gradients."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    layer = PAIR if direction == "bidirectional" else PARAMS
    inputs = interop.to_onnx(jax.tree.map(np.float32, layer))
    n_directions = len(inputs["W"])
    attributes: Any = {"activations": [activation.capitalize()] * n_directions}
    attributes |= {"direction": direction, "hidden_size": N_NODES}
    attributes |= {} if clip is None else {"clip": clip}
    names = ["X", "W", "R", "B", "lengths", "initial_h"]
    initial_h = np.float32(numbers((n_directions, 2, N_NODES), seed=1)[0])
    node = helper.make_node("RNN", names, ["Y", "Y_h"], **attributes)
    x = np.float32(np.ascontiguousarray(X.swapaxes(0, 1)))
    given, *results = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("X", x.shape), ("Y", None), ("Y_h", None))
    )
    constants = inputs | {"lengths": LENGTHS, "initial_h": initial_h}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "rnn", [given], results, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    states, last = session.run(None, {"X": x})

    def clipped(a: jax.Array) -> jax.Array:
        return ACTIVATIONS[activation](jnp.clip(a, -clip, clip))  # type: ignore[operator]

    layers = (interop.from_onnx(inputs),)
    h0 = interop.unstack_states(initial_h, layers)
    options: Any = {"lengths": LENGTHS, "reverse": direction == "reverse"}
    options["activation"] = ACTIVATIONS[activation] if clip is None else clipped
    out = rnn_stacked(layers, np.float32(X), h0, **options)
    real = (np.arange(6) < LENGTHS[:, None])[..., None]
    # Of steps, directions, batch and nodes.
    theirs = states.transpose(2, 0, 1, 3).reshape(2, 6, -1)
    assert_close(np.where(real, out.h, 0), np.where(real, theirs, 0), 1e-6)
    assert_close(interop.stack_states(out.last), last, 1e-6)


@with_library("equinox")
@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_of_a_cell_of_equinox(relation: str) -> None:
    """Its parameters, a module, hold what is no array too."""
    import equinox

    def step(cell: Any, h: Any, x_t: Any) -> Any:
        both = jnp.concatenate([x_t, h], axis=-1)
        return jnp.tanh(jnp.vectorize(cell, signature="(n)->(m)")(both))

    cell = equinox.nn.Linear(N_FEATURES + N_NODES, N_NODES, key=jax.random.key(0))
    case = Case(cell, *numbers((3, 5, N_FEATURES), (3, N_NODES), seed=1))
    RELATIONS[relation](scanned(step), jax.tree.map(np.float32, case))
