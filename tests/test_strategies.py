"""The strategies keep the promises of their docstrings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from jaxrnn.testing import strategies
from jaxrnn.testing.strategies import SIZES


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
@given(data=st.data())
def test_values_are_exact_in_every_float_type(dtype: Any, data: st.DataObject) -> None:
    case = data.draw(strategies.cases(dtype=dtype))
    for array in jax.tree.leaves(case):
        assert array.dtype == dtype
        assert np.all(np.abs(np.asarray(array, np.float64)) <= 1.0)
    for weights in (case.params.wx, case.params.wh):  # which do not amplify
        assert np.all(np.abs(np.asarray(weights, np.float64)).sum(axis=0) <= 1.0)
    for array in jax.tree.leaves((case.params.b, case.x, case.h0)):
        sixteenths = np.asarray(array, np.float64) * 16
        np.testing.assert_array_equal(sixteenths, np.round(sixteenths))


def test_the_table_of_sizes_has_every_edge_case() -> None:
    batches, *others, n_nodes = map(set, zip(*SIZES, strict=True))
    assert all({0, 1} < each for each in ({np.prod(b, dtype=int) for b in batches}, *others))
    assert any(len(batch) > 1 for batch in batches)
    assert 1 in n_nodes
    assert any(1 < (sizes.n_features or 0) != sizes.n_nodes > 1 for sizes in SIZES)


KINDS: dict[str, Any] = {
    "no bias": lambda case: case.params.b is None,
    "bias": lambda case: case.params.b is not None,
    "no h0": lambda case: case.h0 is None,
    "shared h0": lambda case: case.h0 is not None and case.h0.ndim == 1 < case.x.ndim - 1,
    "full h0": lambda case: case.h0 is not None and case.h0.ndim == 3,
    "least input": lambda case: np.min(case.x, initial=0.0) == -1.0,
    "sixteenth": lambda case: np.any(case.x == 1 / 16),
    "odd sixteenths": lambda case: np.any(case.x == -11 / 16),
    "weight": lambda case: np.any(case.params.wh == -3 / 64),
}


@pytest.mark.parametrize("wanted", KINDS.values(), ids=KINDS)
def test_every_kind_of_case_is_drawn(wanted: Any) -> None:
    unshrunk = settings(database=None, phases=[Phase.generate], max_examples=1000)
    assert wanted(find(strategies.cases(), wanted, settings=unshrunk))


@given(st.data())
def test_cases_are_of_the_kind_asked_for(data: st.DataObject) -> None:
    each = data.draw(strategies.cases(batch_axes=2, bias=True, h0="each"))
    shapes = [np.shape(array) for array in (*each.params, each.x)]
    assert shapes == [(3, 4), (4, 4), (4,), (2, 3, 5, 3)]
    assert np.asarray(each.h0).shape == (*each.x.shape[:2], len(each.params.wh))
    shared = data.draw(strategies.cases(bias=False, h0="shared"))
    assert shared.params.b is None
    assert np.asarray(shared.h0).shape == (len(shared.params.wh),)
    assert data.draw(strategies.cases(h0="none")).h0 is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_cases_of_any_parameters(dtype: Any, data: st.DataObject) -> None:
    """From an `init`, whose integers stay integers, and from a strategy."""

    def init(key: jax.Array, n_features: int, n_nodes: int) -> Any:
        return [jax.random.normal(key, (n_features, n_nodes)), jnp.arange(n_nodes)]

    drawn = strategies.arrays((3, 4), np.float64).map(lambda w: [w, np.arange(4)])
    for parameters in (init, drawn):
        (w, integers), x, h0 = data.draw(strategies.cases_of(parameters, dtype=dtype))
        assert w.dtype == x.dtype == np.asarray(h0).dtype == dtype
        assert np.issubdtype(integers.dtype, np.integer)
        assert (w.shape, x.shape[-1], np.asarray(h0).shape) == ((3, 4), 3, (*x.shape[:-2], 4))
        assert all(isinstance(array, np.ndarray) for array in (w, integers, x, h0))


def test_cases_shrink_to_the_smallest() -> None:
    smallest = settings(database=None)
    params, x, h0 = find(strategies.cases(), lambda case: case.x.size > 0, settings=smallest)
    assert (params.b, x.shape, h0) == (None, (1, 2), None)


@pytest.mark.parametrize(
    ("wanted", "smallest"),
    [
        (lambda array: True, [0, 0, 0]),
        (lambda array: array[1] > 0.5, [0, 9, 0]),
        (lambda array: array[2] < 0, [0, 0, -1]),
    ],
)
def test_arrays_shrink_to_zeros(wanted: Any, smallest: list[int]) -> None:
    array = find(strategies.arrays((3,)), wanted, settings=settings(database=None))
    np.testing.assert_array_equal(16 * array, smallest)
