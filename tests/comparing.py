"""What the numerical tests share: what they range over, and how they compare."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxrnn import RNNParams
from jaxrnn.testing import oracle, strategies
from jaxrnn.testing.strategies import SIZES, Case

# The notebook's worked example.
WORKED_PARAMS = RNNParams(
    wx=np.array([[1, 3, 5, 7], [3, 5, 7, 8]]) / 100,
    wh=np.array([[1, 3, 5, 7], [2, 4, 6, 8], [3, 5, 7, 8], [4, 6, 8, 10]]) / 100,
    b=np.ones(4),
)
WORKED_X = np.array([[[1, 2], [2, 3], [3, 4]]]) / 100
WORKED_H_LAST = np.array([[0.79494228, 0.81839002, 0.83939649, 0.85584174]])

# The tolerances are those the strategies promise, for values and gradients alike. relu is tried in
# float64 alone: in float32, rounding alone can decide on which side of its kink a sum falls.
over_numerics = pytest.mark.parametrize(
    ("dtype", "tolerance", "options", "in_oracle"),
    [
        (np.float32, 1e-5, {}, oracle.TANH),
        (np.float64, 1e-12, {}, oracle.TANH),
        (np.float64, 1e-12, {"activation": jax.nn.relu}, oracle.RELU),
    ],
    ids=["tanh-float32", "tanh-float64", "relu-float64"],
)


def filled(case: Case) -> Case:
    """The same call with its zeros written out."""
    (wx, wh, b), x, h0 = case
    shape = (*x.shape[:-2], len(wh))
    h0 = np.broadcast_to(np.zeros_like(wh[0]) if h0 is None else h0, shape)
    return Case(RNNParams(wx, wh, np.zeros_like(wh[0]) if b is None else b), x, h0)


# Cases of one shape and structure, for relations that do not depend on either: one compilation.
cases_of_one_shape = strategies.cases(sizes=st.just(SIZES[-1])).map(filled)


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
