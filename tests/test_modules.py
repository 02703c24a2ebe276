"""`RNNParams` in models of other libraries, as the docstring of `jaxrnn.interop` shows them."""

import inspect
import re
from textwrap import dedent
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import RNNParams, interop, rnn_forward
from tests.helpers import assert_close

pytestmark = pytest.mark.usefixtures("usual_promotion")

CODE = re.findall(r"(?:^ {4}.*\n|^\n)+", f"{inspect.getdoc(interop)}\n", re.MULTILINE)
X = np.linspace(-1, 1, 30, dtype=np.float32).reshape(2, 5, 3)


def model_of(library: str) -> Any:
    """The `model` or the class `Model` of the snippet for a library."""
    (snippet,) = (dedent(code) for code in CODE if f"({library}.Module)" in code)
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, library, "exec"), names)
    return names.get("model", names["Model"])


def gradient(params: Any, readout: Any, bias: Any = 0.0) -> Any:
    """What the gradients of the loss below by the network and its readout must be."""

    def loss(params: Any, readout: Any) -> Any:
        return jnp.mean((rnn_forward(params, X) @ readout + bias) ** 2)

    return jax.grad(loss, (0, 1))(params, readout)


def test_equinox() -> None:
    equinox = pytest.importorskip("equinox")
    model = model_of("equinox")
    got = equinox.filter_grad(lambda model: jnp.mean(model(X) ** 2))(model)
    assert_close((got.rnn, got.readout), gradient(model.rnn, model.readout), 1e-5)


def test_linen() -> None:
    pytest.importorskip("flax")
    model = model_of("linen")()
    variables = model.init(jax.random.key(0), X)
    got = jax.grad(lambda variables: jnp.mean(model.apply(variables, X) ** 2))(variables)["params"]
    params = variables["params"]
    expected = gradient(params["rnn"], params["Dense_0"]["kernel"])
    assert_close((got["rnn"], got["Dense_0"]["kernel"]), expected, 1e-5)


def test_nnx_with_its_optimizer() -> None:
    """In two updates, as its optimizer failed in the second where one variable had all arrays."""
    pytest.importorskip("flax")
    optax = pytest.importorskip("optax")
    from flax import nnx

    model = model_of("nnx")(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    kernel, bias = model.readout.kernel, model.readout.bias
    for _ in range(2):
        arrays = model.wx[...], model.wh[...], model.b[...]
        by_params, by_kernel = gradient(RNNParams(*arrays), kernel[...], bias[...])
        expected = [p - 0.1 * g for p, g in zip(arrays, by_params, strict=True)]
        expected.append(kernel[...] - 0.1 * by_kernel)
        optimizer.update(model, nnx.grad(lambda model: jnp.mean(model(X) ** 2))(model))
        got = [each[...] for each in (model.wx, model.wh, model.b, kernel)]
        assert_close(got, expected, 1e-5)
