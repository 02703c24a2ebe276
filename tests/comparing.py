"""What the numerical tests share: the precisions, the activations, the comparison."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.testing import oracle

# The tolerances are those the strategies promise, for values and gradients alike.
over_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)], ids=["float32", "float64"]
)
over_activations = pytest.mark.parametrize(
    ("activation", "in_oracle"),
    [(jnp.tanh, oracle.TANH), (jax.nn.relu, oracle.RELU)],
    ids=["tanh", "relu"],
)


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """The same tree, the same shapes, and values within an absolute and relative tolerance."""
    for got, wanted in _pairs(actual, expected):
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def assert_equal(actual: Any, expected: Any) -> None:
    """The same tree, the same dtypes and shapes, and the same values to the last bit."""
    for got, wanted in _pairs(actual, expected):
        np.testing.assert_array_equal(got, wanted, strict=True)


def _pairs(actual: Any, expected: Any) -> Iterator[tuple[Any, Any]]:
    leaves, structure = jax.tree.flatten(actual)
    leaves_expected, structure_expected = jax.tree.flatten(expected)
    assert str(structure) == str(structure_expected)
    return zip(leaves, leaves_expected, strict=True)
