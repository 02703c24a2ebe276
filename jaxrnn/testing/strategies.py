"""Hypothesis strategies: parameters, inputs and whole cases, of vanilla RNNs and of any other cell.

They are made for functions behind a compiler. Sizes come from the small table `SIZES`, so that
hundreds of examples compile only a few times. All values are drawn freely. In all functions `sizes`
are a `Sizes`, and `dtype` is the float type of every array.

Values are multiples of 1/16 in [-1, 1]. Every float type from bfloat16 up holds these exactly, so
the oracle sees the same numbers as the tested function. Weights are divided by a power of two that
is at least their number of rows, so that the network does not amplify rounding errors. States and
gradients then agree with the oracle to 1e-5 in float32 and to 1e-12 in float64, and values to 0.004
in float16 and to 0.03 in bfloat16.

Example:
  Here the variant to test is jaxrnn's own function.

  ```python
  import numpy as np
  from hypothesis import given, settings
  from jaxrnn import rnn_forward as my_variant
  from jaxrnn.testing import oracle, strategies

  @settings(deadline=None)  # each new shape compiles, which takes longer than hypothesis allows
  @given(strategies.cases())
  def test_my_variant(case):
      expected = oracle.rnn_forward(*case)
      np.testing.assert_allclose(my_variant(*case), expected, rtol=1e-5, atol=1e-5)

  test_my_variant()
  ```
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike, NDArray

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError(
        "relations and strategies need hypothesis: pip install 'jaxrnn[testing]'"
    ) from error

from jaxrnn.errors import require
from jaxrnn.layers import Layer
from jaxrnn.params import RNNParams


class Sizes(NamedTuple):
    """The sizes of a network and of the sequences it runs over.

    With `n_features` None, `params.wx` is None, and `x` has as many entries a step as there are
    nodes.
    """

    batch: tuple[int, ...]
    n_steps: int
    n_features: int | None
    n_nodes: int


# The smallest first, as hypothesis shrinks towards the front.
SIZES = (
    Sizes((), 0, 1, 1),
    Sizes((), 1, 2, 3),
    Sizes((0,), 2, 1, 2),
    Sizes((1,), 3, 0, 2),
    Sizes((3,), 7, 3, 1),
    Sizes((2, 3), 5, 3, 4),
)


# For each layer of a network, the lowest first, in how many directions it runs.
DIRECTIONS = ((1, 1), (2,), (2, 2), (1, 2, 1))


# The sizes that `cases_of` draws. In the first, nothing is empty, one, or of the same size as
# another. The others have no batch axis, and more steps than most loops unroll; and a batch of one.
# There are few lengths, as each may compile anew. The same parameters fit all of them.
USUAL_SIZES = (Sizes((2,), 5, 3, 4), Sizes((), 9, 3, 4), Sizes((1,), 2, 3, 4))


class Case(NamedTuple):
    """One call: `rnn_forward(*case)`, `rnn_states(*case)`, and the same of the oracle.

    The parameters are those of `cases`, an `RNNParams`, or any tree of arrays from `cases_of`.
    """

    params: Any
    x: NDArray[Any]
    h0: NDArray[Any] | None


class StackedCase(NamedTuple):
    """One call: `rnn_stacked(*case)`, and the same of the oracle."""

    layers: tuple[Layer[NDArray[Any]], ...]
    x: NDArray[Any]
    h0: tuple[Any, ...] | None


def arrays(
    shape: tuple[int, ...], dtype: DTypeLike = np.float32
) -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of multiples of 1/16 in [-1, 1], which shrink towards zeros.

    An array is drawn in one piece, as bytes: drawing entry by entry would take most of a test's
    time. Of more than 1024 numbers a seed is drawn, as hypothesis refuses to draw that much, and
    they do not shrink.
    """
    size = math.prod(shape)

    def from_bytes(drawn: bytes) -> NDArray[Any]:
        sixteenths = np.frombuffer(drawn, np.uint8).astype(np.float64) % 33
        signed = np.where(sixteenths <= 16, sixteenths, 16 - sixteenths)
        return (signed / 16).reshape(shape).astype(dtype)

    if size > 1024:
        seeds = st.integers(0, 2**32 - 1)
        return seeds.map(lambda seed: from_bytes(np.random.default_rng(seed).bytes(size)))
    return st.binary(min_size=size, max_size=size).map(from_bytes)


@st.composite
def params(
    draw: st.DrawFn,
    n_features: int | None,
    n_nodes: int,
    *,
    dtype: DTypeLike = np.float32,
    bias: bool | None = None,
    n_rates: int | None = None,
) -> RNNParams[NDArray[Any]]:
    """The parameters of a network that does not amplify.

    `bias` says whether there is one; None draws that too. `n_rates` says how many entries the rate
    returns, for each of which `wh` has a row; None is `n_nodes`.
    """

    def weights(n_rows: int) -> NDArray[Any]:
        drawn = draw(arrays((n_rows, n_nodes), np.float64)) / _power_of_two(n_rows)
        return drawn.astype(dtype)

    wx: Any = None if n_features is None else weights(n_features)
    wh = weights(n_nodes if n_rates is None else n_rates)
    biases = {True: arrays((n_nodes,), dtype), False: st.none()}
    return RNNParams(wx, wh, draw(biases[False] | biases[True] if bias is None else biases[bias]))


def inputs(sizes: Sizes, *, dtype: DTypeLike = np.float32) -> st.SearchStrategy[NDArray[Any]]:
    """Sequences `x`, `(*batch, n_steps, n_features)`."""
    n_features = sizes.n_nodes if sizes.n_features is None else sizes.n_features
    return arrays((*sizes.batch, sizes.n_steps, n_features), dtype)


def initial_states(
    sizes: Sizes, *, dtype: DTypeLike = np.float32
) -> st.SearchStrategy[NDArray[Any] | None]:
    """Initial states `h0`: None, one for the whole batch, or one for each sequence."""
    return st.none() | states(sizes, dtype=dtype)


def states(sizes: Sizes, *, dtype: DTypeLike = np.float32) -> st.SearchStrategy[NDArray[Any]]:
    """States: one for the whole batch, or one for each sequence."""
    shapes = dict.fromkeys([(sizes.n_nodes,), (*sizes.batch, sizes.n_nodes)])
    return st.one_of(*(arrays(shape, dtype) for shape in shapes))


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    sizes: st.SearchStrategy[Sizes] = st.sampled_from(SIZES),
    dtype: DTypeLike = np.float32,
    batch_axes: int | None = None,
    bias: bool | None = None,
    h0: Literal["each", "shared", "none"] | None = None,
    n_rates: int | None = None,
) -> Case:
    """Whole calls: parameters, inputs and an initial state that fit each other.

    Args:
      draw: given by hypothesis.
      sizes: where the sizes come from.
      dtype: the float type of every array.
      batch_axes: how many batch axes `x` has; None draws any number that `sizes` gives.
      bias: whether there is one; None draws that too.
      h0: "each" for one state a sequence, `(*batch, n_nodes)`; "shared" for `(n_nodes,)`; "none"
        for None; None draws any of the three.
      n_rates: as in `params`.

    Example:
      ```python
      from hypothesis import given
      from jaxrnn.testing import strategies

      @given(strategies.cases(batch_axes=1, bias=True, h0="each"))
      def test_shapes(case):
          assert case.h0.shape == (len(case.x), len(case.params.b))

      test_shapes()
      ```
    """
    if batch_axes is not None:
        sizes = sizes.filter(lambda drawn: len(drawn.batch) == batch_axes)
    drawn = draw(sizes)
    initial: dict[str | None, st.SearchStrategy[Any]] = {
        "each": arrays((*drawn.batch, drawn.n_nodes), dtype),
        "shared": arrays((drawn.n_nodes,), dtype),
        "none": st.none(),
        None: initial_states(drawn, dtype=dtype),
    }
    return Case(
        draw(params(drawn.n_features, drawn.n_nodes, dtype=dtype, bias=bias, n_rates=n_rates)),
        draw(inputs(drawn, dtype=dtype)),
        draw(initial[h0]),
    )


@st.composite
def cases_of(
    draw: st.DrawFn,
    init: Callable[[Any, Any, Any], Any] | st.SearchStrategy[Any],
    *,
    sizes: st.SearchStrategy[Sizes] = st.sampled_from(USUAL_SIZES),
    dtype: DTypeLike = np.float32,
) -> Case:
    """Whole calls of any recurrence `run(params, x, h0)`, whose parameters are any tree of arrays.

    Args:
      draw: given by hypothesis.
      init: `init(key, n_features, n_nodes)` gives parameters; the key is drawn. Or a strategy for
        parameters, which must fit every one of `sizes`.
      sizes: where the sizes come from; by default any of `USUAL_SIZES`.
      dtype: the float type of every array. The floating arrays of the parameters are converted.

    Returns:
      `Case(params, x, h0)` of NumPy arrays: `x` is `(*batch, n_steps, n_features)`, and `h0`
      `(*batch, n_nodes)`.

    Raises:
      TypeError: if there is a typed key in the parameters, as NumPy has none.

    Example:
      ```python
      import jax
      from hypothesis import given, settings
      from jaxrnn.testing import strategies

      def init(key, n_features, n_nodes):
          return {"w": jax.random.normal(key, (n_features + n_nodes, n_nodes)) / 4}

      @settings(deadline=None)  # init compiles, which takes longer than hypothesis allows
      @given(strategies.cases_of(init))
      def test_shapes(case):
          assert len(case.params["w"]) == case.x.shape[-1] + case.h0.shape[-1]

      test_shapes()
      ```
    """
    drawn = draw(sizes)
    if isinstance(init, st.SearchStrategy):
        params = draw(init)
    else:
        key = jax.random.key(draw(st.integers(0, 2**32 - 1)))
        params = init(key, drawn.n_features, drawn.n_nodes)
    states = arrays((*drawn.batch, drawn.n_nodes), dtype)
    params, x, h0 = in_numpy(Case(params, draw(inputs(drawn, dtype=dtype)), draw(states)))
    return Case(jax.tree.map(lambda a: a.astype(dtype) if is_floating(a) else a, params), x, h0)


def is_floating(array: Any) -> bool:
    """Whether it is of real floating numbers, by which JAX differentiates."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def in_numpy(case: Case) -> Any:
    """The case with all its arrays in NumPy, which has no typed keys."""

    def converted(path: Any, leaf: Any) -> NDArray[Any]:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        require(not is_key, name, "an array of numbers, such as jax.random.key_data(key)", leaf)
        return np.asarray(leaf)

    return jax.tree_util.tree_map_with_path(converted, case)


@st.composite
def stacked_cases(
    draw: st.DrawFn,
    *,
    sizes: st.SearchStrategy[Sizes] = st.sampled_from(SIZES),
    directions: st.SearchStrategy[Sequence[int]] = st.sampled_from(DIRECTIONS),
    dtype: DTypeLike = np.float32,
) -> StackedCase:
    """Whole calls of networks of layers, with or without initial states.

    Args:
      draw: given by hypothesis.
      sizes: where the sizes come from. Every direction of every layer has `n_nodes` nodes.
      directions: where the number of directions of each layer comes from, 1 or 2.
      dtype: the float type of every array.

    Example:
      ```python
      from hypothesis import given
      from hypothesis.strategies import just
      from jaxrnn.testing import oracle, strategies

      @given(strategies.stacked_cases(directions=just((1, 2))))
      def test_layers(case):
          h, last = oracle.rnn_stacked(*case)
          assert len(last) == 2 and h.shape[-1] == 2 * last[0].shape[-1]

      test_layers()
      ```
    """
    drawn = draw(sizes)
    n_features = drawn.n_features
    layers: list[Layer[NDArray[Any]]] = []
    h0: list[Any] = []
    states = draw(st.sampled_from([st.none(), arrays((*drawn.batch, drawn.n_nodes), dtype)]))
    for n_directions in draw(directions):
        weights = params(n_features, drawn.n_nodes, dtype=dtype)
        pair = draw(weights), draw(weights)
        layers.append(pair if n_directions == 2 else pair[0])
        h0.append((draw(states), draw(states)) if n_directions == 2 else draw(states))
        n_features = n_directions * drawn.n_nodes
    return StackedCase(tuple(layers), draw(inputs(drawn, dtype=dtype)), tuple(h0))


def lengths(sizes: Sizes) -> st.SearchStrategy[NDArray[Any]]:
    """How many steps each sequence has, `(*batch,)`, from none to all."""
    return hnp.arrays(np.int32, sizes.batch, elements=st.integers(0, sizes.n_steps))


def resets(sizes: Sizes) -> st.SearchStrategy[NDArray[Any]]:
    """Where the state is reset, `(*batch, n_steps)`."""
    return hnp.arrays(np.bool_, (*sizes.batch, sizes.n_steps), elements=st.booleans())


def leaks(sizes: Sizes, *, dtype: DTypeLike = np.float32) -> st.SearchStrategy[NDArray[Any]]:
    """Leaks from 0 to 1: one, one for each node or step, or one for each node of each step."""
    full = (*sizes.batch, sizes.n_steps, sizes.n_nodes)
    shapes = dict.fromkeys([(), full[-1:], (*full[:-1], 1), full])
    return st.one_of(*(arrays(shape, dtype).map(np.abs) for shape in shapes))


@st.composite
def options(draw: st.DrawFn, sizes: Sizes, *, dtype: DTypeLike = np.float32) -> dict[str, Any]:
    """Keyword options of `rnn_forward` and `rnn_states`, and of the oracle's functions.

    Which options are present is drawn as well. Each combination is another compilation.

    Example:
      ```python
      from hypothesis import given
      from jaxrnn.testing import strategies

      @given(strategies.options(strategies.Sizes((2,), 5, 3, 4)))
      def test_options(options):
          assert options["lengths"] is None or options["lengths"].shape == (2,)

      test_options()
      ```
    """
    drawn = {
        "leak": draw(st.none() | leaks(sizes, dtype=dtype)),
        "lengths": draw(st.none() | lengths(sizes)),
        "resets": draw(st.none() | resets(sizes)),
        "reverse": draw(st.booleans()),
    }
    if drawn["resets"] is not None:
        drawn["reset_to"] = draw(states(sizes, dtype=dtype))
    return drawn


@st.composite
def calls(draw: st.DrawFn, /, **kind: Any) -> tuple[Case, dict[str, Any]]:
    """Whole calls with options: `rnn_forward(*case, **options)`, and the same of the oracle.

    The keyword arguments are those of `cases`. With resets there is always a `reset_to`.

    Example:
      ```python
      import numpy as np
      from hypothesis import given, settings
      from jaxrnn import rnn_forward as my_variant
      from jaxrnn.testing import oracle, strategies

      @settings(deadline=None, max_examples=10)  # most calls compile anew
      @given(strategies.calls(batch_axes=1))
      def test_my_variant(call):
          case, options = call
          expected = oracle.rnn_forward(*case, **options)
          found = my_variant(*case, **options)
          np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

      test_my_variant()
      ```
    """
    case = draw(cases(**kind))
    sizes = Sizes(case.x.shape[:-2], case.x.shape[-2], None, case.params.wh.shape[1])
    return case, draw(options(sizes, dtype=case.x.dtype))


def _power_of_two(size: int) -> int:
    """The least power of two that is not below `size`."""
    return 1 << max(size - 1, 0).bit_length()
