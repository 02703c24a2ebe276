"""What must hold of any recurrence, whatever its cell: a GRU, a leaky network, one of your own.

One line in a test checks all of it: `relations.check(run, init)`. What does a caught bug look like?
Let the cell at the end of this text return the state before each step, `return new, h`, not the one
after it, `return new, new`. Then pytest prints this (shortened: it has whole cases and all digits):

    AssertionError: 3 of 14 relations do not hold

    runs_on: h[1, 4, 0] is 0.0 where a second call runs on from step 4, but 0.0062 in one call
    effective: no finite state depends on x[..., 4, :]
    differentiable: the derivative of h by x[..., 4, :] is 0 or NaN for x and h0 of every size

    The smallest case of each:
    Failing test case: holds(case=Case(...))
    Failing test case: holds(case=Case(...))
    Failing test case: holds(case=Case(...))

The cases have five steps here, so step 4 is the last. No state that is returned depends on the
input of that step.

A recurrence is a function `h = run(params, x, h0)`:

    params   any tree of arrays; of a key it has `jax.random.key_data(key)`
    x        (*batch, n_steps, n_features), with any number of batch axes
    h0       (*batch, n_nodes)
    h        (*batch, n_steps, n_nodes), the state after each step

A state of several parts, such as the two of an LSTM, is their concatenation along the last axis.

A relation is a function `(run, case)`, where `case` is a `strategies.Case(params, x, h0)` of NumPy
arrays in float32 or float64. It raises an AssertionError if the relation does not hold. The error
names the relation, the first place where it fails, and both numbers. `RELATIONS` maps names to
relations; `RELATIONS_WITH_LENGTHS` is for a `run(params, x, h0, lengths)`, where `lengths`,
`(*batch,)`, says how many steps of each sequence are real. `check` runs them all on drawn cases.

One case with a batch axis is enough for a relation to catch what it is there for, in a cell that
treats all batches and steps alike; `strategies.cases_of` also draws cases without a batch axis, of
nine steps, and batches of one. What a relation needs besides, such as other parameter sets, is
derived from the case, the same at each call.

Two numbers agree if they differ by at most 1e-5 in float32 and 1e-11 in float64, and derivatives,
which are all in float64, by 1e-6: times the largest entry of their array, if that is above one. A
cell that amplifies rounding errors more than that, such as a chaotic one, needs a shorter case. So
may a large network of relu, where a difference can cross a place without a derivative.

Example:
  A leaky network in a test of its own for each relation.

  ```python
  import jax
  import jax.numpy as jnp
  import pytest
  from hypothesis import given, settings
  from jaxrnn.testing import relations, strategies

  def init(key, n_features, n_nodes):
      w = jax.random.normal(key, (n_features + n_nodes, n_nodes)) / 2
      return {"w": w, "leak": jnp.full(n_nodes, 0.3)}

  def run(params, x, h0):
      def step(h, x_t):
          a = jnp.concatenate([x_t, h], axis=-1) @ params["w"]
          new = h + params["leak"] * (jnp.tanh(a) - h)
          return new, new  # as carry and as output

      return jnp.moveaxis(jax.lax.scan(step, h0, jnp.moveaxis(x, -2, 0))[1], 0, -2)

  # Each new shape compiles, which takes longer than the deadline of hypothesis.
  @pytest.mark.parametrize("relation", relations.RELATIONS.values(), ids=relations.RELATIONS)
  @settings(deadline=None, max_examples=10)
  @given(case=strategies.cases_of(init))
  def test_my_cell(relation, case):
      relation(run, case)
  ```

  `relations.check(run, init)` runs them all in one line, also without pytest.
"""

# First, as its error says what to install.
from jaxrnn.testing.strategies import USUAL_SIZES, Case, cases_of, in_numpy, is_floating

# isort: split
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from itertools import compress, product
from textwrap import shorten
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax.extend.core import Literal
from numpy.typing import DTypeLike

from jaxrnn.errors import require

Run = Callable[..., Any]
Relation = Callable[[Run, Case], None]
_Part = tuple[str, tuple[Any, ...]]  # the path of an array of a case, and an index into it


def _relation(function: Relation, dtype: DTypeLike | None = None) -> Relation:
    """The function where it checks its case, has JAX compute in that dtype, and names its errors.

    With None it is the dtype of the case.
    """

    @wraps(function)
    def relation(run: Run, case: Case) -> None:
        given, case = _converted(case, None), _converted(case, dtype)
        try:
            with _precision(case):
                function(run, case)
        except AssertionError as error:
            error.args = (f"{function.__name__}: {error}",)
            raise
        except Exception as error:
            if _gives_states(run, given):  # else the error is one of `run` itself
                _advise(error, function.__name__, run, case)
            raise

    return relation


_in_float64 = partial(_relation, dtype=np.float64)


def _advise(error: Exception, name: str, run: Run, case: Case) -> None:
    """Add to the error of a relation what `run` lacks, where that is known."""
    if not _gives_states(run, case):
        lack = f"{name} has the case in {case.x.dtype}, so run must compute in the type of x,"
        error.add_note(f"{lack} not in one of its own.")
    elif "custom_vjp" in str(error):
        lack = f"run has no forward mode, which {name} takes, as jax.custom_vjp makes none."
        error.add_note(f"{lack} check(run, cases, without=['{name}']) leaves {name} out.")


# Values


@_relation
def runs_on(run: Run, case: Case) -> None:
    """Running on from a returned state gives the rest: `run(params, x[t:], h[t - 1]) = h[t:]`.

    For every t or, in a long sequence, for four, as each length compiles anew.
    """
    n_steps = case.x.shape[-2]
    whole = _states(run, case)
    # As far from the end as from the start, so that the parts are of few lengths.
    for t in np.unique(np.linspace(1, n_steps - 1, 4).round().astype(int)) if n_steps > 1 else ():
        head = _states(run, case._replace(x=case.x[..., :t, :]))
        rest = _states(run, case._replace(x=case.x[..., t:, :], h0=head[..., -1, :]))
        parts = np.concatenate([head, rest], axis=-2)
        _agree("h", (parts, f"where a second call runs on from step {t}"), (whole, "in one call"))


@_relation
def causal(run: Run, case: Case) -> None:
    """No state depends on a later input, not on NaN either."""
    h, noise = _states(run, case), _noise(case.x)
    for t in range(1, case.x.shape[-2]):
        for later in (noise[..., t:, :], np.nan):
            x = case.x.copy()
            x[..., t:, :] += later
            earlier = _states(run, case._replace(x=x))[..., :t, :]
            _agree("h", (earlier, f"if x changes from step {t} on"), (h[..., :t, :], "if not"))


@_relation
def independent(run: Run, case: Case) -> None:
    """No sequence of a batch depends on another."""
    case = _with_batch(case)
    h = _states(run, case)
    for i in np.ndindex(case.x.shape[:-2]):
        x, h0 = case.x.copy(), np.array(case.h0)
        x[i] += _noise(x[i])
        h0[i] += _noise(h0[i])
        others = _states(run, case._replace(x=x, h0=h0))
        others[i] = h[i]
        _agree("h", (others, f"if x and h0 of sequence {list(i)} change"), (h, "if not"))


@_relation
def unordered(run: Run, case: Case) -> None:
    """The order of the sequences in a batch does not matter."""
    case = _with_batch(case)
    h = _states(run, case)
    for axis in range(case.x.ndim - 2):
        x, h0 = (np.roll(array, 1, axis) for array in (case.x, np.asarray(case.h0)))
        back = np.roll(_states(run, case._replace(x=x, h0=h0)), -1, axis)
        _agree("h", (back, f"if the sequences along axis {axis} are rolled"), (h, "if not"))


@_in_float64
def batch_axes(run: Run, case: Case) -> None:
    """A batch axis more is a loop, for gradients too: by the parameters they add up."""
    sets = _sets(case)._replace(params=case.params)
    weights = _weights(sets)
    found = jax.device_get(_value_and_gradient(run, sets, weights))
    each = zip(sets.x, sets.h0, weights, strict=True)
    alone = [_value_and_gradient(run, case._replace(x=x, h0=h0), w) for x, h0, w in each]
    wanted = jax.tree.map(lambda *parts: np.stack(parts), *alone)
    total = jax.tree.map(lambda parts: parts.sum(axis=0), wanted["gradient"].params)
    wanted["gradient"] = wanted["gradient"]._replace(params=total)
    _agree("", (found, "with a batch axis more"), (wanted, "in a loop over that axis"))


@_in_float64
def vmap(run: Run, case: Case) -> None:
    """`jax.vmap` over parameter sets, over x, and over h0 is a loop, for gradients too."""
    weights = _weights(case)
    for name, sets in _sets(case)._asdict().items():
        axes: Any = [0 if name == field else None for field in Case._fields]
        found = jax.device_get(_mapped(run, Case(*axes), case._replace(**{name: sets}), weights))
        for i in range(_N_SETS):
            alone = case._replace(**{name: _index(sets, i)})
            wanted = jax.device_get(_value_and_gradient(run, alone, weights))
            _agree("", (_index(found, i), f"at {i} of vmap over {name}"), (wanted, "without vmap"))


@_relation
def jit(run: Run, case: Case) -> None:
    """`jax.jit` changes no value."""
    _agree("h", (_states(run, case), "under jit"), (_eager(run, case), "without jit"))


@_relation
def repeatable(run: Run, case: Case) -> None:
    """The same call gives the same bits, and to run on from its last state traces nothing anew."""
    first, second = _eager(run, case), _eager(run, case)
    _agree("h", (second, "in a second call"), (first, "in the first"), tolerance=0.0)
    if case.x.shape[-2] == 0:
        return
    n_traces = 0

    @jax.jit
    def counted(*args: Any) -> Any:
        nonlocal n_traces
        n_traces += 1
        return run(*args)

    h = counted.eval_shape(*case)  # which traces, but compiles nothing
    counted.eval_shape(case.params, case.x, jax.eval_shape(lambda h: h[..., -1, :], h))
    if n_traces > 1:
        again = "jit traces again if h0 is a state that run returned, not a NumPy array"
        raise AssertionError(again)


@_in_float64
def effective(run: Run, case: Case) -> None:
    """Every parameter, input, step and node of `h0` has an effect.

    Of a parameter, that holds of every row and column, also of each matrix in a stack of them; one
    that is not floating, such as a key, is left out. As nodes may be silent, as those of relu are,
    or saturated, x and h0 of several sizes and both signs are tried. An effect is a change of a
    state that is finite before and after. So a part of the state that is only an output, or a node
    that a mask disconnects, is refused.
    """

    def is_silent(case: Case, parts: list[_Part]) -> list[bool]:
        h = _states(run, case)
        changed = [_states(run, _changed(case, *part)) for part in parts]
        return [not np.any((each != h) & np.isfinite(each) & np.isfinite(h)) for each in changed]

    _require_effects(case, is_silent, "no finite state depends on {}")


# Derivatives


@_in_float64
def differentiable(run: Run, case: Case) -> None:
    """The derivative by each parameter, input, step and node of `h0` is somewhere not zero.

    It is zero everywhere by what a state depends on only through rounding, a comparison or
    `jax.lax.stop_gradient`: then nothing can be trained there. The parts of the arrays and the
    sizes of x and h0 are those of `effective`.
    """

    def is_flat(case: Case, parts: list[_Part]) -> list[bool]:
        gradient = _value_and_gradient(run, case, weights)["gradient"]
        slopes = {path: np.where(np.isfinite(g), g, 0) for path, g in _named(gradient)}
        return [not np.any(slopes[path][index]) for path, index in parts]

    weights = _weights(case)
    said = "the derivative of h by {} is 0 or NaN for x and h0 of every size"
    _require_effects(case, is_flat, said)


@_in_float64
def forward_mode(run: Run, case: Case) -> None:
    """The derivative by forward mode is a central difference, by each parameter, x and h0."""
    case = _moved(case)
    for name, tangent in _tangents(run, case):
        found = jax.device_get(_derivative(run, case, tangent)), "by forward mode"
        wanted = _difference(partial(_states, run), case, tangent), "by a central difference"
        _agree(f"the derivative by {name} of h", found, wanted, tolerance=DERIVATIVES)


@_in_float64
def reverse_mode(run: Run, case: Case) -> None:
    """Reverse mode is the transpose of forward mode: `<J^T g, v> = <g, J v>`, by each array.

    Where `run` has no forward mode, as with `jax.custom_vjp`, `J v` is a central difference.
    """
    case = _moved(case)
    weights = _weights(case)
    gradient = dict(_named(_value_and_gradient(run, case, weights)["gradient"]))
    for name, tangent in _tangents(run, case):
        try:
            derivative, way = jax.device_get(_derivative(run, case, tangent)), "by forward mode"
        except TypeError:
            derivative = _difference(partial(_states, run), case, tangent)
            way = "by a central difference"
        found = np.sum(gradient[name] * dict(_named(tangent))[name]), "by reverse mode"
        wanted = np.sum(weights * derivative), way
        tolerance = DERIVATIVES * max(1.0, np.sum(np.abs(weights * derivative)))
        _agree(f"the derivative by {name} of a sum of states", found, wanted, tolerance=tolerance)


@_in_float64
def second_order(run: Run, case: Case) -> None:
    """The gradient's derivative by forward mode, reverse mode and a central difference agree."""
    case = _moved(case)
    weights = _weights(case)
    tangent = jax.tree.map(lambda *each: sum(each), *dict(_tangents(run, case)).values())

    def gradient(case: Case) -> Any:
        return _value_and_gradient(run, case, weights)["gradient"]

    forward, reverse = jax.device_get(_second_derivatives(run, case, weights, tangent))
    difference = _difference(gradient, case, tangent)
    label, said = "the derivative of the gradient by ", "by forward over reverse mode"
    by_reverse, by_difference = "by reverse over reverse mode", "by a central difference"
    _agree(label, (forward, said), (difference, by_difference), tolerance=DERIVATIVES)
    _agree(label, (reverse, by_reverse), (difference, by_difference), tolerance=DERIVATIVES)


@_in_float64
def float64(run: Run, case: Case) -> None:
    """Nothing in the states or in their gradients falls back to a narrower type, not a constant."""
    weights = _weights(case)
    traced = jax.make_jaxpr(partial(_value_and_gradient, run))(case, weights)
    for equation in _equations(traced.jaxpr):
        for value in (*equation.invars, *equation.outvars):
            dtype = getattr(value.aval, "dtype", np.dtype(np.float64))
            if jnp.issubdtype(dtype, jnp.inexact) and dtype not in _WIDE:
                place = shorten(str(equation), 200)
                raise AssertionError(f"with x64, there is {dtype} in {place}")
            if isinstance(value, Literal) and _was_float32(value.val):
                raise AssertionError(f"the constant {value.val} has the digits of float32")


_VALUES = (runs_on, causal, independent, unordered, batch_axes, vmap, jit, repeatable, effective)
_DERIVATIVES = (differentiable, forward_mode, reverse_mode, second_order, float64)
RELATIONS: Mapping[str, Relation] = {each.__name__: each for each in _VALUES + _DERIVATIVES}

# With lengths


@_in_float64
def full_is_effective(run: Run, case: Case) -> None:
    """With no padding, all of `effective` holds: no real step is left out."""
    effective(_Full(run), case)


@_in_float64
def padding_is_unseen(run: Run, case: Case) -> None:
    """Nothing in the padding, NaN and infinities included, reaches a real state or a gradient."""
    lengths, real = _lengths(case)
    x = np.where(real, case.x, 0)
    weights = np.where(real, _weights(case), 0)

    def found(padding: float) -> Any:
        padded = case._replace(x=np.where(real, x, np.asarray(padding, x.dtype)))
        out = _value_and_gradient(run, padded, weights, lengths)
        return out | {"h": np.where(real, out["h"], 0)}

    wanted = found(0.0)
    for padding in (1.0, np.nan, np.inf):
        _agree("", (found(padding), f"with {padding} in the padding"), (wanted, "with zeros"))
    in_padding = np.where(real, 0, wanted["gradient"].x)
    _agree("gradient.x", (in_padding, "in the padding"), (np.zeros_like(x), "as it must be"))


@_in_float64
def padding_holds(run: Run, case: Case) -> None:
    """In the padding a state is the last real one, `h0` at length 0; in gradients too.

    So `h[..., -1, :]` is the last state of each sequence. It does not hold if zeros are meant
    there, nor of a run from the last step to the first.
    """
    of = case, _weights(case), _lengths(case)[0]
    found, wanted = (_value_and_gradient(each, *of) for each in (run, _Held(run)))
    _agree("", (found, "as returned"), (wanted, "if the last real state holds in the padding"))


@_relation
def padded_is_alone(run: Run, case: Case) -> None:
    """A padded batch gives what its sequences give alone, without padding."""
    case = _with_batch(case)
    lengths, _ = _lengths(case)
    h = _states(run, case, lengths)
    for i in np.ndindex(lengths.shape):
        n = lengths[i]
        one = case._replace(x=case.x[i][None, :n], h0=np.asarray(case.h0)[i][None])
        alone = _states(run, one, lengths[i][None])[0]
        _agree("h", (h[i][:n], f"of sequence {list(i)} in a batch"), (alone, "alone"))


@_in_float64
def empty_is_absent(run: Run, case: Case) -> None:
    """A sequence of length 0 changes no other, and its x and h0 have gradients of zero."""
    case = _with_batch(case)
    lengths = np.full(case.x.shape[:-2], case.x.shape[-2], np.int32)
    lengths[0] = 0
    weights = _weights(case)
    weights[0] = 0
    x = case.x.copy()
    x[0] = np.nan
    found = jax.device_get(_value_and_gradient(run, case._replace(x=x), weights, lengths))
    others = case._replace(x=case.x[1:], h0=np.asarray(case.h0)[1:])
    wanted = jax.device_get(_value_and_gradient(run, others, weights[1:], lengths[1:]))

    def with_zeros(array: Any) -> Any:
        return np.concatenate([np.zeros_like(array[:1]), array])

    gradient = wanted["gradient"]
    gradient = gradient._replace(x=with_zeros(gradient.x), h0=with_zeros(gradient.h0))
    wanted = {"h": with_zeros(wanted["h"]), "gradient": gradient}
    found["h"] = with_zeros(found["h"][1:])
    _agree("", (found, "beside a first sequence of length 0"), (wanted, "without it"))


_PADDED = (full_is_effective, padding_is_unseen, padding_holds, padded_is_alone, empty_is_absent)
RELATIONS_WITH_LENGTHS: Mapping[str, Relation] = {each.__name__: each for each in _PADDED}


def check(
    run: Run,
    cases: st.SearchStrategy[Case] | Callable[[Any, Any, Any], Any],
    *,
    relations: Mapping[str, Relation] = RELATIONS,
    without: Collection[str] = (),
    max_examples: int = 10,
) -> None:
    """Run relations on drawn cases, print which hold, and fail with all that do not.

    Args:
      run: the recurrence, `run(params, x, h0)`; with `RELATIONS_WITH_LENGTHS`,
        `run(params, x, h0, lengths)`.
      cases: `init(key, n_features, n_nodes)`, which gives parameters, or a strategy for cases, such
        as `strategies.cases_of(init, dtype=np.float64)`. With an `init`, each relation is run on
        batches of two, then on cases without a batch axis, then on batches of one.
      relations: names and relations.
      without: names of those to leave out, as they do not hold on purpose: of a straight-through
        estimator `forward_mode` and `second_order`, of a state that is rounded `differentiable`,
        where states are zero in the padding `padding_holds`.
      max_examples: how many cases each relation is run on, in all; 3 or more for every shape.

    Raises:
      AssertionError: with the message of every relation that does not hold, and its smallest case.
      TypeError, ValueError: if a case is not as it must be, or there is no relation of that name.

    Example:
      A cell of which only reverse mode has a rule, so that it has no forward mode.

      ```python
      import jax
      import jax.numpy as jnp
      from jaxrnn.testing import relations

      @jax.custom_vjp
      def tanh(a):
          return jnp.tanh(a)

      tanh.defvjp(lambda a: (jnp.tanh(a), jnp.tanh(a)), lambda h, g: ((1 - h * h) * g,))

      def init(key, n_features, n_nodes):
          return jax.random.normal(key, (n_features + n_nodes, n_nodes)) / 2

      def run(w, x, h0):
          def step(h, x_t):
              h = tanh(jnp.concatenate([x_t, h], axis=-1) @ w)
              return h, h

          return jnp.moveaxis(jax.lax.scan(step, h0, jnp.moveaxis(x, -2, 0))[1], 0, -2)

      relations.check(run, init, without=["forward_mode"], max_examples=3)
      ```
    """
    __tracebackhide__ = True  # pytest then shows the caller's line, and not this function
    expected = f"names of relations, which are {', '.join(relations)}"
    require(set(without) <= set(relations), "without", expected, without, ValueError)
    if isinstance(cases, st.SearchStrategy):
        drawn = [cases]
    else:
        drawn = [cases_of(cases, sizes=st.just(sizes)) for sizes in USUAL_SIZES]
    # What is wrong with the cases themselves is said once, and not of every relation.
    _for_cases(drawn[0], 1, lambda case: _converted(case, None))
    anew = partial(run)  # a new object, which compiles anew: what `run` calls may have changed
    chosen = {name: relation for name, relation in relations.items() if name not in without}
    failures = []
    for name, relation in chosen.items():
        failure = _failure(relation, anew, drawn, max_examples)
        print(f"{name} {'does not hold' if failure else 'holds'}", flush=True)
        failures += [failure] if failure else []
    if failures:
        said, notes = zip(*failures, strict=True)
        first = f"{len(failures)} of {len(chosen)} relations do not hold"
        raise AssertionError(
            "\n".join([first, "", *said, "", "The smallest case of each:", *notes])
        )


def _failure(
    relation: Relation, run: Run, drawn: list[st.SearchStrategy[Case]], max_examples: int
) -> tuple[str, str] | None:
    """What is wrong, and the smallest case for which it is; None if the relation holds.

    The examples are shared out among the strategies, to the first ones one more.
    """
    try:
        for i, cases in enumerate(drawn):
            n_examples = len(range(i, max_examples, len(drawn)))
            if n_examples:
                _for_cases(cases, n_examples, partial(relation, run))
    except Exception as error:
        said = (
            str(error) if isinstance(error, AssertionError) else f"{relation.__name__}: {error!r}"
        )
        notes = [note for note in getattr(error, "__notes__", []) if "JAX has removed" not in note]
        smallest = [note for note in notes if "case=Case(" in note]
        others = [note for note in notes if note not in smallest]
        return "\n".join([said, *others]), "\n".join(smallest)
    return None


def _for_cases(
    cases: st.SearchStrategy[Case], max_examples: int, function: Callable[[Case], object]
) -> None:
    """Call a function with drawn cases. Its error has the smallest case for which it fails."""

    @settings(
        deadline=None,  # the first case compiles, which takes longer than hypothesis allows
        max_examples=max_examples,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )
    @given(case=cases)
    def holds(case: Case) -> None:
        function(case)

    holds()


# What the relations share

# The largest difference of two numbers that agree, if no number of their array is above one.
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
DERIVATIVES = 1e-6

_N_SETS = 3
_WIDE = (np.float64, np.complex128)


def _agree(
    label: str, found: tuple[Any, str], wanted: tuple[Any, str], tolerance: float | None = None
) -> None:
    """Raise an error at the first place where two trees differ, each with where it is from."""
    pairs = zip(_named(found[0]), _named(wanted[0]), strict=True)
    values_first = sorted(pairs, key=lambda pair: pair[0][0].startswith("gradient"))
    for (name, a), (_, b) in values_first:
        usual = DERIVATIVES if name.startswith("gradient") else TOLERANCES[b.dtype]
        limit = (usual if tolerance is None else tolerance) * max(1.0, _size(b))
        with np.errstate(invalid="ignore"):
            differs = ~(np.abs(a - b) <= limit)  # also where a number is NaN
        if np.any(differs):
            at = tuple(map(int, np.argwhere(differs)[0]))
            place = f"{label}{name}{list(at) if at else ''}"
            if np.array_equal(a[at], b[at], equal_nan=True):
                both = f"both {found[1]} and {wanted[1]}"
                raise AssertionError(f"{place} must be finite, but is {a[at]} {both}")
            raise AssertionError(f"{place} is {a[at]} {found[1]}, but {b[at]} {wanted[1]}")


def _size(array: Any) -> float:
    """The largest finite number of an array, without its sign."""
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Each array of a tree, in NumPy, and its path, such as "params.wx"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    keystr = partial(jax.tree_util.keystr, simple=True, separator=".")
    return [(keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def _precision(case: Case) -> AbstractContextManager[Any]:
    """Where JAX computes in the type of the case."""
    return jax.enable_x64(True) if case.x.dtype == np.float64 else nullcontext()


def _converted(case: Case, dtype: DTypeLike | None) -> Any:
    """The case with its floating arrays in a dtype, None for its own."""
    params, x, h0 = in_numpy(case)
    float_types = [np.dtype(np.float32), np.dtype(np.float64)]
    require(x.ndim > 1, "case.x", "(*batch, n_steps, n_features)", x, ValueError)
    require(x.dtype in float_types, "case.x", "an array of float32 or float64", x)
    ok = h0 is not None and h0.shape[:-1] == x.shape[:-2]
    require(ok, "case.h0", f"(*batch, n_nodes), here {x.shape[:-2]} and n_nodes", h0, ValueError)
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype or x.dtype) if is_floating(leaf) else leaf,
        Case(params, x, h0),
    )


def _with_batch(case: Case) -> Any:
    """The case, if it has two sequences or more along a first batch axis; else a batch of it."""
    if case.x.ndim > 2 and len(case.x) > 1:
        return case
    return _sets(case)._replace(params=case.params)


def _lengths(case: Case) -> tuple[Any, Any]:
    """Lengths for a case, and which steps are real, with an axis for the nodes."""
    n_steps = case.x.shape[-2]
    lengths = np.resize([n_steps // 2, 0, n_steps, 1], case.x.shape[:-2])
    lengths = np.minimum(lengths, n_steps, dtype=np.int32)
    return lengths, (np.arange(n_steps) < lengths[..., None])[..., None]


def _require_effects(
    case: Case, lacks_effect: Callable[[Case, list[_Part]], list[bool]], said: str
) -> None:
    """Raise an error if a part of the arrays lacks an effect whatever the size of x and h0."""
    case = _moved(case)
    parts = [
        (path, index)
        for path, leaf in _named(case)
        if is_floating(leaf)
        for index in _slices(path, leaf)
        if np.size(leaf[index])
    ]
    if 0 in case.x.shape[:-1]:  # there is no state
        return
    scales = (1.0, -1.0, 16.0, -16.0, 256.0, -256.0, 1 / 16, 1 / 256, 4.0, -4.0)
    for seed, scale in product(range(8), scales):  # mostly one or two are enough
        start = case._replace(x=scale * _noise(case.x, seed), h0=scale * _noise(case.h0, seed))
        parts = list(compress(parts, lacks_effect(start, parts)))
        if not parts:
            return
    path, index = parts[0]
    inside = ", ".join("..." if i is ... else ":" if i == slice(None) else str(i) for i in index)
    raise AssertionError(said.format(f"{path}[{inside}]"))


@dataclass(frozen=True)
class _Full:
    """A recurrence without lengths from one with them. Two of the same `run` compile once."""

    run: Run

    def __call__(self, params: Any, x: Any, h0: Any) -> Any:
        return self.run(params, x, h0, jnp.full(x.shape[:-2], x.shape[-2], jnp.int32))


@dataclass(frozen=True)
class _Held:
    """A recurrence with lengths, with the last real state, or `h0`, put in the padding."""

    run: Run

    def __call__(self, params: Any, x: Any, h0: Any, lengths: Any) -> Any:
        states = jnp.concatenate([h0[..., None, :], self.run(params, x, h0, lengths)], axis=-2)
        held = jnp.minimum(np.arange(1, x.shape[-2] + 1, dtype=np.int32), lengths[..., None])
        return jnp.take_along_axis(states, held[..., None], axis=-2)


# Trees of numbers


def _floating(tree: Any) -> Any:
    """The tree with None in place of what one cannot differentiate by."""
    return jax.tree.map(lambda leaf: leaf if is_floating(leaf) else None, tree)


def _joined(floating: Any, tree: Any) -> Any:
    """The tree with those arrays in place of its floating ones."""
    return jax.tree.map(
        lambda new, old: old if new is None else new,
        floating,
        tree,
        is_leaf=lambda leaf: leaf is None,
    )


def _noise(tree: Any, seed: int = 0) -> Any:
    """A tree like that of floating numbers in [-1, 1), the same for the same seed."""
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.default_rng(seed)
    noise = [random.uniform(-1, 1, leaf.shape).astype(leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, noise)


def _moved(tree: Any, seed: int = 0) -> Any:
    """The tree with its floating numbers changed by up to a quarter, and zeros to small numbers.

    Signs stay, as a cell may need them. Drawn cases hold many zeros, which would hide what another
    number multiplies, and where relu has no derivative.
    """
    floating = _floating(tree)
    moved = jax.tree.map(
        lambda old, noise: old * (1 + noise / 4) + (old == 0) * abs(noise) / 8,
        floating,
        _noise(floating, seed),
    )
    return _joined(moved, tree)


def _sets(tree: Any) -> Any:
    """The tree and others like it, stacked along a new first axis."""
    others = [_moved(tree, seed) for seed in range(1, _N_SETS)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), tree, *others)


def _index(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _slices(path: str, leaf: Any) -> list[tuple[Any, ...]]:
    """The parts of an array of a case each of which must have an effect, as indices."""
    if leaf.ndim == 0:
        return [(...,)]
    rows = range(leaf.shape[-2]) if leaf.ndim > 1 and path != "h0" else ()
    parts: list[tuple[Any, ...]] = []
    for lead in [()] if path in ("x", "h0") else np.ndindex(leaf.shape[:-2]):
        parts += [(*lead, ..., i, slice(None)) for i in rows]
        parts += [(*lead, ..., i) for i in range(leaf.shape[-1])]
    return parts


def _changed(case: Case, path: str, index: tuple[Any, ...]) -> Case:
    """The case with a part of one array changed."""
    changed = []
    for name, leaf in _named(case):
        new = np.array(leaf)
        if name == path:
            new[index] = _moved(leaf, seed=1)[index]
        changed.append(new)
    return Case(*jax.tree.unflatten(jax.tree.structure(case), changed))


def _weights(case: Any) -> Any:
    """A weight for each number of the states."""
    return _noise(np.empty((*case.x.shape[:-1], case.h0.shape[-1]), case.x.dtype))


def _tangents(run: Run, case: Any) -> Iterator[tuple[str, Any]]:
    """For each array to differentiate by, its path, and a tangent that is zero for the others.

    It is of the size of the array, and at least of one, but in small arrays, such as time constants
    in seconds. `h0` is taken to be as large as the states, as their differences are rounded.
    """
    sized = _floating(case._replace(h0=np.append(case.h0, _states(run, case))))
    sizes = [_size(leaf) for leaf in jax.tree.leaves(sized)]
    leaves, structure = jax.tree.flatten(_noise(_floating(case), seed=1))
    leaves = [v * min(max(n, 1.0), 2.0**10 * n) for v, n in zip(leaves, sizes, strict=True)]
    for i, (name, _) in enumerate(_named(_floating(case))):
        parts = [leaf if i == j else np.zeros_like(leaf) for j, leaf in enumerate(leaves)]
        yield name, jax.tree.unflatten(structure, parts)


def _difference(function: Callable[[Case], Any], case: Case, tangent: Any) -> Any:
    """The derivative of a function along a tangent, as a central difference of fourth order.

    One of second order is too far off where parameters are small, as time constants in seconds.
    """
    step = 2.0**-22  # short, as the derivative of relu jumps

    def at(side: float) -> Any:
        floating = jax.tree.map(lambda a, v: a + side * step * v, _floating(case), tangent)
        return function(_joined(floating, case))

    def slope(up: Any, down: Any, up_twice: Any, down_twice: Any) -> Any:
        near, far = np.asarray(up) - down, np.asarray(up_twice) - down_twice
        return (8 * near - far) / (12 * step)

    return jax.tree.map(slope, at(1), at(-1), at(2), at(-2))


# What JAX computes. `run` is static, so each of these compiles once for the cases of one shape.


def _checked(run: Run, case: Any, *lengths: Any) -> Any:
    """The states, if they are an array as promised."""
    h = run(*case, *lengths)
    shape = (*case.x.shape[:-1], case.h0.shape[-1])
    expected = f"(*batch, n_steps, n_nodes), here {shape}, of {case.x.dtype}"
    ok = getattr(h, "shape", None) == shape and h.dtype == case.x.dtype
    require(ok, "h", expected, h, AssertionError)
    return h


_compiled = jax.jit(_checked, static_argnums=0)


def _gives_states(run: Run, case: Case) -> bool:
    """Whether `run` takes such a case at all, with lengths or without."""
    for function in (run, _Full(run)):
        try:
            with _precision(case):
                jax.eval_shape(partial(_checked, function), case)
        except Exception:
            continue
        return True
    return False


def _states(run: Run, case: Case, *lengths: Any) -> Any:
    """The states in NumPy, by a compiled call."""
    return np.array(_compiled(run, case, *lengths))


def _eager(run: Run, case: Case) -> Any:
    """The states in NumPy, by a call on arrays of JAX that nothing is around."""
    return np.array(_checked(run, jax.tree.map(jnp.asarray, case)))


@partial(jax.jit, static_argnums=0)
def _value_and_gradient(run: Run, case: Case, weights: Any, *lengths: Any) -> Any:
    """The states, and the gradient of their weighted sum by every floating array of the case."""

    def weighted(floating: Any) -> Any:
        h = _checked(run, _joined(floating, case), *lengths)
        return jnp.sum(weights * h), h

    gradient, h = jax.grad(weighted, has_aux=True)(_floating(case))
    return {"h": h, "gradient": gradient}


@partial(jax.jit, static_argnums=(0, 1))
def _mapped(run: Run, axes: Case, case: Case, weights: Any) -> Any:
    """The same under `vmap`."""
    return jax.vmap(lambda case: _value_and_gradient(run, case, weights), in_axes=(axes,))(case)


@partial(jax.jit, static_argnums=0)
def _derivative(run: Run, case: Case, tangent: Any) -> Any:
    """The derivative of the states along a tangent, by forward mode."""

    def states(floating: Any) -> Any:
        return run(*_joined(floating, case))

    return jax.jvp(states, (_floating(case),), (tangent,))[1]


@partial(jax.jit, static_argnums=0)
def _second_derivatives(run: Run, case: Case, weights: Any, tangent: Any) -> Any:
    """The derivative of the gradient along a tangent, by forward and by reverse mode."""

    def gradient(floating: Any) -> Any:
        return _value_and_gradient(run, _joined(floating, case), weights)["gradient"]

    def product(floating: Any) -> Any:
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), gradient(floating), tangent)
        return sum(jax.tree.leaves(products))

    floating = _floating(case)
    return jax.jvp(gradient, (floating,), (tangent,))[1], jax.grad(product)(floating)


def _equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program and of all programs inside it, the innermost first."""
    for equation in jaxpr.eqns:
        for part in jax.tree.leaves(equation.params, is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                yield from _equations(part)
        yield equation


def _was_float32(value: Any) -> bool:
    """Whether a number has the 24 binary digits of float32, and not few as 0.5 or an integer."""
    parts = np.array([np.real(value), np.imag(value)], np.float64)
    parts = parts[np.isfinite(parts)]
    digits = np.frexp(parts)[0] * 2.0**16
    with np.errstate(over="ignore"):
        narrow = parts.astype(np.float32)
    return bool(np.any((narrow == parts) & (digits % 1 != 0) & (parts % 1 != 0)))
