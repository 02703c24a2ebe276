"""`RNNParams` in models of other libraries, as the docstring of `jaxrnn.interop` shows them."""

import inspect
import re
from textwrap import dedent
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    LayerStates,
    RNNParams,
    RNNStates,
    init_params,
    interop,
    rnn_forward,
    rnn_stacked,
    rnn_states,
)
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


def gradient(layers: Any, readout: Any, bias: Any = 0.0) -> Any:
    """What the gradients of the loss below by the layers and their readout must be."""

    def loss(layers: Any, readout: Any) -> Any:
        return jnp.mean((rnn_stacked(layers, X).h[:, -1] @ readout + bias) ** 2)

    return jax.grad(loss, (0, 1))(layers, readout)


def test_equinox() -> None:
    equinox = pytest.importorskip("equinox")
    model = model_of("equinox")
    got = equinox.filter_grad(lambda model: jnp.mean(model(X) ** 2))(model)
    assert_close(((got.rnn,), got.readout), gradient((model.rnn,), model.readout), 1e-5)


def test_linen() -> None:
    pytest.importorskip("flax")
    model = model_of("linen")()
    variables = model.init(jax.random.key(0), X)
    got = jax.grad(lambda variables: jnp.mean(model.apply(variables, X) ** 2))(variables)["params"]
    params = variables["params"]
    expected = gradient((params["rnn"],), params["Dense_0"]["kernel"])
    assert_close(((got["rnn"],), got["Dense_0"]["kernel"]), expected, 1e-5)


def test_linen_in_an_activation() -> None:
    """Its module is called once before the loop, as the docstring says."""
    linen = pytest.importorskip("flax").linen

    class Model(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            norm = linen.LayerNorm()
            norm(jnp.zeros(4))
            params = self.param("rnn", lambda key: init_params(key, 3, 4))
            return rnn_forward(params, x, activation=lambda a: jnp.tanh(norm(a)))

    variables = Model().init(jax.random.key(0), X)

    def loss(variables: Any) -> Any:
        return jnp.sum(Model().apply(variables, X) ** 2)

    gradient = jax.jit(jax.grad(loss))(variables)["params"]
    assert np.all(np.asarray(gradient["LayerNorm_0"]["scale"]) != 0)


def test_nnx_with_its_optimizer() -> None:
    """In two updates, as its optimizer failed in the second where one variable had all arrays."""
    pytest.importorskip("flax")
    optax = pytest.importorskip("optax")
    from flax import nnx

    model = model_of("nnx")(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    def weights() -> Any:
        params = model.layers, model.readout.kernel
        return jax.tree.map(
            lambda param: param[...], params, is_leaf=lambda each: isinstance(each, nnx.Param)
        )

    for _ in range(2):
        layers, kernel = before = weights()
        by_weights = gradient(layers, kernel, model.readout.bias[...])
        expected = jax.tree.map(lambda weight, g: weight - 0.1 * g, before, by_weights)
        optimizer.update(model, nnx.grad(lambda model: jnp.mean(model(X) ** 2))(model))
        assert_close(weights(), expected, 1e-5)


@pytest.mark.parametrize("kind", [RNNParams, RNNParams[jax.Array], RNNStates, LayerStates])
@pytest.mark.parametrize("hook", ["beartype", "jaxtyping"])
def test_types_are_checked_at_run_time(kind: Any, hook: str) -> None:
    """Their checkers take the named tuples as types, and refuse what is none."""
    check = pytest.importorskip("beartype").beartype
    if hook == "jaxtyping":
        check = pytest.importorskip("jaxtyping").jaxtyped(typechecker=check)

    def same(value: Any) -> Any:
        return value

    same.__annotations__ = {"value": kind, "return": kind}
    params = init_params(jax.random.key(0), 3, 4)
    values = {RNNStates: rnn_states(params, X), LayerStates: rnn_stacked((params,), X)}
    value = values.get(kind, params)
    assert check(same)(value) is value
    with pytest.raises(Exception, match=r"(?i)type"):
        check(same)(X)
