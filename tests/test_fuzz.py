"""Any call under any transformations of JAX gives what the oracle says."""

from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import checked
from tests.checked import Checked
from tests.checked_calls import Call, as_checked, calls
from tests.helpers import assert_close

COUNT = count(1)

# Few unless the profile is `long`, as each example compiles programs of its own.
N_EXAMPLES = settings().max_examples if settings().max_examples > 1000 else 16


class Kind(NamedTuple):
    """Dtypes to draw from, their tolerance, and how many derivatives can be checked with them."""

    dtypes: tuple[Any, ...]
    tolerance: float
    activations: tuple[str, ...] = ("tanh", "silu")
    n_derivatives: int = 0


# relu is tested in float64 only, for the reason that `over_numerics` in tests/helpers.py gives, and
# once differentiated: finite differences across its kink are wrong.
KINDS = (
    Kind((np.float32,), 1e-5, n_derivatives=1),
    Kind((np.float64,), 1e-12, n_derivatives=2),
    Kind((np.float64,), 1e-12, ("relu",), n_derivatives=1),
    Kind((np.float64,), 1e-12, n_derivatives=2),
    Kind((jnp.bfloat16,), 0.03),
    Kind((np.float16,), 0.004),
    Kind((np.float32, jnp.bfloat16, np.float16), 0.03),
)


class Fuzzed(NamedTuple):
    """A transformed call, its tolerance, and how it is run."""

    function: Checked
    tolerance: float
    how: str


@st.composite
def fuzzed(draw: st.DrawFn) -> Fuzzed:
    """Calls under up to three transformations."""
    kind = draw(st.sampled_from(KINDS))
    call = draw(calls(kind.activations))
    function = as_checked(call)
    args = {
        name: array.astype(draw(st.sampled_from(kind.dtypes)))
        if checked.is_floating(array)
        else array
        for name, array in function.args.items()
    }
    function = function._replace(args=args)
    n_derivatives = 0
    for _ in range(draw(st.sampled_from([0, 1, 2, 3, 2, 3]))):
        kinds = ["wrapped", "mapped", "mapped"]
        kinds += ["differentiated"] * (3 if n_derivatives < kind.n_derivatives else 0)
        drawn = draw(st.sampled_from(kinds))
        if drawn == "wrapped":
            function = checked.wrapped(function, draw(st.sampled_from(list(checked.WRAPPERS))))
        elif drawn == "mapped":
            function = draw(maps(function, call))
        else:
            n_derivatives += 1
            function = draw(derivatives(function))
    # Finite differences, which give second derivatives, are less exact than the oracle's gradients.
    tolerance = 1e-8 if n_derivatives > 1 else kind.tolerance
    how = draw(st.sampled_from(["jit", "jit", "jit", "jit", "op by op", "without jit"]))
    return Fuzzed(function, tolerance, how)


@st.composite
def maps(draw: st.DrawFn, function: Checked, call: Call) -> Checked:
    """The function mapped over one to three variations of some of its arguments."""
    way = draw(st.sampled_from(list(checked.MAPS)))
    allowed = [key for key in function.args if not (call.poisoned and key == "lengths")]
    axis = checked.MAPS[way]
    over = draw(st.lists(st.sampled_from(allowed), min_size=1, unique=True))
    size = draw(st.integers(1, 3))
    stacks = {
        key: np.stack([_varied(function.args[key], i, call.n_steps) for i in range(size)], axis)
        for key in over
    }
    return checked.mapped(function, way, over, stacks)


def _varied(array: Any, i: int, n_steps: int) -> Any:
    """The array itself or a variation of it, as valid and as exactly held by its dtype."""
    if array.dtype == np.bool_:
        return [array, ~array, np.flip(array)][i]
    if checked.is_floating(array):
        return (array * np.asarray([1.0, -1.0, 0.5][i], array.dtype)).astype(array.dtype)
    return [array, n_steps - array, array // 2][i].astype(array.dtype)


@st.composite
def derivatives(draw: st.DrawFn, function: Checked) -> Checked:
    """The gradient of the function, or its derivative along a tangent, by some arguments."""
    by = draw(st.lists(st.sampled_from(function.by), min_size=1, unique=True))
    dtype = function.args[by[0]].dtype
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def like(array: Any) -> Any:
        return (random.integers(-16, 17, np.shape(array)) / 16).astype(dtype)

    weights = [like(leaf) for leaf in jax.tree.leaves(function.expected(function.args))]
    ways = [*checked.ALONG, *(checked.GRADIENTS if function.gradients is not None else ())]
    way = draw(st.sampled_from(ways))
    tangent = [like(function.args[key]) for key in by] if way in checked.ALONG else []
    return checked.differentiated(function, way, by, weights, tangent)


@settings(max_examples=N_EXAMPLES)
@given(fuzzed())
def test_transformed_calls_are_the_oracles(case: Fuzzed) -> None:
    if not next(COUNT) % 100:
        jax.clear_caches()  # each example compiles programs of its own
    function, args = case.function, case.function.args
    x64 = any(array.dtype == np.float64 for array in args.values())
    with (
        jax.enable_x64(x64),
        jax.numpy_dtype_promotion("standard"),
        jax.disable_jit(case.how == "without jit"),
    ):
        run = jax.jit(function.run) if case.how == "jit" else function.run
        actual = run(args)
    assert_close(actual, function.expected(args), case.tolerance)
