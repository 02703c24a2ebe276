"""The vanilla RNN as an executable specification: NumPy, float64, loops over batch and step.

Slow and obvious on purpose, and independent of JAX. The gradients are backpropagation through time
written out by hand. Of a scalar loss, let `ga_t` and `gh_t` be the derivatives with respect to
`a_t` and `h_t`, and `g.a_t` and `g.h_t` those parts that do not pass through a later step:

    gh_t = g.h_t + rate'(h_t) * (ga_{t+1} wh^T) + (1 - leak_{t+1}) * gh_{t+1}
    ga_t = g.a_t + leak_t * activation'(a_t) * gh_t

    dwx = sum_t x_t^T ga_t      dwh = sum_t rate(h_{t-1})^T ga_t      db = sum_t ga_t
    dx_t = ga_t wx^T            dh_0 = rate'(h_0) * (ga_1 wh^T) + (1 - leak_1) * gh_1
    dleak_t = (activation(a_t) - h_{t-1}) * gh_t

Without a rate, rate(h) is h; without a leak, leak_t is 1; without wx, x_t wx is x_t. A step that is
a reset has `reset_to` for h_{t-1}, and one in the padding has h_t = h_{t-1} and a_t = 0.

Werbos, "Backpropagation through time: what it does and how to do it", Proceedings of the IEEE 78
(1990), 1550-1560.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxrnn.errors import check_shape, require
from jaxrnn.layers import Layer, LayerStates
from jaxrnn.params import RNNParams
from jaxrnn.recurrence import RNNStates

FloatArray = NDArray[np.float64]


class Differentiable(NamedTuple):
    """An activation or a rate of the oracle: a function of one state, and its derivative.

    That of an elementwise function is elementwise. If it is bool, it selects: where it is false
    nothing passes. A number would pass NaN on there, as 0 times NaN is NaN. A rate that returns
    fewer entries than there are nodes, or more, has a matrix of derivatives, `(n_nodes, n_rates)`.

    Example:
      ```python
      import numpy as np
      from jaxrnn import RNNParams
      from jaxrnn.testing import oracle

      sine = oracle.Differentiable(np.sin, np.cos)
      params = RNNParams(wx=np.ones((1, 2)), wh=np.eye(2), b=None)
      h = oracle.rnn_forward(params, np.ones((1, 1)), activation=sine)
      assert np.allclose(h, np.sin(1))
      ```
    """

    function: Callable[[FloatArray], FloatArray]
    derivative: Callable[[FloatArray], NDArray[Any]]


TANH = Differentiable(np.tanh, lambda a: 1.0 - np.tanh(a) ** 2)
# At 0 the derivative is 0, and it selects, as in jax.nn.relu.
RELU = Differentiable(lambda a: np.maximum(a, 0.0), lambda a: a > 0.0)
IDENTITY = Differentiable(lambda a: a, lambda a: np.ones_like(a))


class Gradients(NamedTuple):
    """The derivative of a scalar loss by each argument, in the shape of that argument.

    `reset_to` and `leak` are None if they were not given.
    """

    params: RNNParams[FloatArray]
    x: FloatArray
    h0: FloatArray
    reset_to: FloatArray | None = None
    leak: FloatArray | None = None


class StackedGradients(NamedTuple):
    """The derivative of a scalar loss by each argument of a network of layers, in its form."""

    layers: tuple[Layer[FloatArray], ...]
    x: FloatArray
    h0: tuple[Any, ...]


class Options(TypedDict, total=False):
    """The options of the oracle, which have the meaning they have in `jaxrnn`.

    Where one of them, or an array of `params`, is not as it must be, an error names it: a TypeError
    for an activation, a rate or an unknown option, a ValueError for a shape or a number.

    Attributes:
      activation: the activation with its derivative; by default tanh.
      rate: the function of the state before `wh`, with its derivative; by default the identity.
      leak: the leak, which broadcasts to `(*batch, n_steps, n_nodes)`; by default 1.
      lengths: integers `(*batch,)`, from 0 to n_steps; by default all steps.
      resets: bool `(*batch, n_steps)`; by default none.
      reset_to: the state after a reset, which broadcasts as `h0` does; by default zero. With
        `h0` it must be given.
      reverse: run from the last step to the first; by default False.
    """

    activation: Differentiable
    rate: Differentiable | None
    leak: ArrayLike | None
    lengths: ArrayLike | None
    resets: ArrayLike | None
    reset_to: ArrayLike | None
    reverse: bool


def rnn_states(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> RNNStates[FloatArray]:
    """What `jaxrnn.rnn_states` must return: every `a` and `h`, each `(*batch, n_steps, n_nodes)`.

    Arguments are those of `jaxrnn.rnn_states`, and options are `Options`.

    Example:
      ```python
      import numpy as np
      from jaxrnn import RNNParams
      from jaxrnn.testing import oracle

      params = RNNParams(wx=np.ones((1, 2)), wh=np.eye(2), b=None)
      a, h = oracle.rnn_states(params, np.ones((3, 1)))
      assert np.allclose(h[1], np.tanh(1 + h[0]))
      ```
    """
    run = _run(params, x, h0, options)
    return RNNStates(run.a, run.h)


def rnn_forward(
    params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> FloatArray:
    """What `jaxrnn.rnn_forward` must return: the state after the last step, `(*batch, n_nodes)`.

    Arguments are those of `jaxrnn.rnn_forward`, and options are `Options`.

    Example:
      ```python
      import numpy as np
      from jaxrnn import RNNParams
      from jaxrnn.testing import oracle

      params = RNNParams(wx=np.ones((1, 2)), wh=np.eye(2), b=None)
      h = oracle.rnn_forward(params, np.ones((3, 1)), lengths=1)
      assert np.allclose(h, np.tanh(1))
      ```
    """
    return _run(params, x, h0, options).last


class _Run(NamedTuple):
    """All that the network passes through.

    Attributes:
      start: the state that each step starts from.
      a: the pre-activations.
      f: their activations.
      h: the states after the steps.
      last: the state after the last step.
    """

    start: FloatArray
    a: FloatArray
    f: FloatArray
    h: FloatArray
    last: FloatArray


def _run(params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None, options: Options) -> _Run:
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"the oracle has no option {', '.join(sorted(unknown))}")
    wx, wh, b = _float64(params, options.get("rate"))
    x, (activation, rate) = np.asarray(x, np.float64), _functions(options)
    steps, lengths, resets = _steps(x, h0, options)
    h0 = _full_h0(params, x, h0)
    reset_to = _full_h0(params, x, options.get("reset_to"))
    *batch, n_steps, _ = x.shape
    a = np.zeros((*batch, n_steps, *b.shape))
    leak = _full_leak(a.shape, options)
    start, f, h, last = np.zeros_like(a), np.zeros_like(a), np.zeros_like(a), np.zeros_like(h0)
    for i in np.ndindex(*batch):
        h_tm1 = h0[i]
        for t in steps:
            if t < lengths[i]:
                start[i][t] = reset_to[i] if resets[i][t] else h_tm1
                a[i][t] = (
                    (x[i][t] if wx is None else x[i][t] @ wx) + rate.function(start[i][t]) @ wh + b
                )
                f[i][t] = activation.function(a[i][t])
                h[i][t] = f[i][t]
                if options.get("leak") is not None:
                    h[i][t] = (1 - leak[i][t]) * start[i][t] + leak[i][t] * f[i][t]
            else:
                h[i][t] = h_tm1
            h_tm1 = h[i][t]
        last[i] = h_tm1
    return _Run(start, a, f, h, last)


def _functions(options: Options) -> tuple[Differentiable, Differentiable]:
    """The activation and the rate."""
    given = {"activation": options.get("activation", TANH), "rate": options.get("rate") or IDENTITY}
    for name, function in given.items():
        expected = "an oracle.Differentiable, a function with its derivative, such as oracle.TANH"
        require(isinstance(function, Differentiable), name, expected, function)
    return given["activation"], given["rate"]


def _full_leak(shape: tuple[int, ...], options: Options) -> FloatArray:
    leak = options.get("leak")
    return np.broadcast_to(np.asarray(1.0 if leak is None else leak, np.float64), shape)


def _steps(
    x: FloatArray, h0: Any, options: Options
) -> tuple[list[int], NDArray[Any], NDArray[Any]]:
    """The steps in the order they are run, and lengths and resets in full."""
    *batch, n_steps, _ = x.shape
    lengths, resets = options.get("lengths"), options.get("resets")
    lengths = np.full(batch, n_steps) if lengths is None else np.asarray(lengths)
    resets = np.zeros((*batch, n_steps), bool) if resets is None else np.asarray(resets)
    is_named = options.get("resets") is None or options.get("reset_to") is not None or h0 is None
    require(is_named, "reset_to", "given where resets and h0 are", None, ValueError)
    check_shape("lengths", lengths, "*batch", batch=tuple(batch))
    check_shape("resets", resets, "*batch n_steps", batch=tuple(batch), n_steps=n_steps)
    is_within = bool(np.all((lengths >= 0) & (lengths <= n_steps)))
    require(is_within, "lengths", f"from 0 to n_steps = {n_steps}", lengths.tolist(), ValueError)
    steps = list(range(n_steps))
    return steps[::-1] if options.get("reverse", False) else steps, lengths, resets


def rnn_gradients(
    params: RNNParams[Any],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    g_last: ArrayLike = 0.0,
    g_a: ArrayLike = 0.0,
    g_h: ArrayLike = 0.0,
    **options: Unpack[Options],
) -> Gradients:
    """Backpropagation through time, from given derivatives of the loss by the network's results.

    Args:
      params: as in `rnn_states`.
      x: likewise.
      h0: likewise.
      g_last: the derivative of the loss by `rnn_forward(...)`, `(*batch, n_nodes)`.
      g_a: by `rnn_states(...).a`, `(*batch, n_steps, n_nodes)`.
      g_h: by `rnn_states(...).h`, the same shape. All three broadcast.
      **options: as in `rnn_states`.

    Returns:
      The gradients of `sum(g_last * h_last) + sum(g_a * a) + sum(g_h * h)`. The one by `h0` has the
      shape of `h0`, or `(*batch, n_nodes)` if `h0` is None. The ones by `wx` and `b` are
      None if these are.

    Example:
      ```python
      import jax
      import jax.numpy as jnp
      import numpy as np
      from jax.nn.initializers import orthogonal
      from jaxrnn import init_params, rnn_forward
      from jaxrnn.testing import oracle

      params = init_params(jax.random.key(0), 3, 4, wh_init=orthogonal(), b_init=None)
      x = jax.random.normal(jax.random.key(1), (5, 3))
      gradient = jax.grad(lambda params: jnp.sum(rnn_forward(params, x)))(params)
      expected = oracle.rnn_gradients(params, x, g_last=1.0).params
      assert np.allclose(gradient.wx, expected.wx, atol=1e-5)
      assert np.allclose(gradient.wh, expected.wh, atol=1e-5)
      ```
    """
    run = _run(params, x, h0, options)
    given = (g_last, run.last), (g_a, run.a), (g_h, run.h)
    g = [np.broadcast_to(np.asarray(by, np.float64), of.shape) for by, of in given]
    dparams, dx, dh0, dreset_to, dleak = _back_in_time(params, x, h0, options, run, *g)
    by_h0 = dh0 if h0 is None else _summed_to(np.shape(h0), dh0)
    by_others = (
        None if array is None else _summed_to(np.shape(array), g)
        for array, g in ((options.get("reset_to"), dreset_to), (options.get("leak"), dleak))
    )
    return Gradients(dparams, dx, by_h0, *by_others)


def _back_in_time(
    params: RNNParams[Any],
    x: Any,
    h0: Any,
    options: Options,
    run: _Run,
    g_last: Any,
    g_a: Any,
    g_h: Any,
) -> Any:
    """The gradients by the parameters, `x`, the states before the first step, resets and leaks."""
    (wx, wh, b), x = _float64(params, options.get("rate")), np.asarray(x, np.float64)
    activation, rate = _functions(options)
    steps, lengths, resets = _steps(x, h0, options)
    leak = _full_leak(run.a.shape, options)

    dwx = None if wx is None else np.zeros_like(wx)
    dwh, db, dx, dleak = (np.zeros_like(array) for array in (wh, b, x, run.a))
    dh0, dreset_to = np.zeros_like(run.last), np.zeros_like(run.last)
    for i in np.ndindex(*lengths.shape):
        gh_later = g_last[i]
        for t in reversed(steps):
            gh_t = g_h[i][t] + gh_later
            if t >= lengths[i]:  # h_t is h_{t-1}
                gh_later = gh_t
                continue
            ga_t = g_a[i][t] + _times(activation.derivative(run.a[i][t]), leak[i][t] * gh_t)
            dleak[i][t] = (run.f[i][t] - run.start[i][t]) * gh_t
            if wx is not None:
                dwx += np.outer(x[i][t], ga_t)
            dwh += np.outer(rate.function(run.start[i][t]), ga_t)
            db += ga_t
            dx[i][t] = ga_t if wx is None else ga_t @ wx.T
            gh_later = _times(rate.derivative(run.start[i][t]), ga_t @ wh.T)
            if options.get("leak") is not None:
                gh_later += (1 - leak[i][t]) * gh_t
            if resets[i][t]:
                dreset_to[i] += gh_later
                gh_later = np.zeros_like(gh_later)
        dh0[i] += gh_later

    dparams = RNNParams(dwx, dwh, None if params.b is None else db)
    return dparams, dx, dh0, dreset_to, dleak


def _times(derivative: ArrayLike, gh: FloatArray) -> FloatArray:
    factor = np.asarray(derivative)
    if factor.ndim > gh.ndim:  # a matrix for each state
        return np.einsum("...ij,...j->...i", factor, gh)  # type: ignore[no-any-return]
    return np.where(factor, gh, 0.0) if factor.dtype == bool else np.asarray(factor * gh)


def rnn_stacked(
    layers: Sequence[Layer[Any]],
    x: ArrayLike,
    h0: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> LayerStates[FloatArray]:
    """What `jaxrnn.rnn_stacked` must return without dropout.

    Of a single layer that is a pair, it is also what `jaxrnn.rnn_bidirectional` must return.
    Arguments are those of `jaxrnn.rnn_stacked`, and options are `Options`.

    Example:
      ```python
      import numpy as np
      from jaxrnn import RNNParams
      from jaxrnn.testing import oracle

      params = RNNParams(wx=np.ones((1, 2)), wh=np.eye(2), b=None)
      h, last = oracle.rnn_stacked([params, params._replace(wx=np.eye(2))], np.ones((3, 1)))
      assert h.shape == (3, 2) and np.array_equal(last[1], h[-1])
      ```
    """
    h, below, last = np.zeros(0), np.asarray(x, np.float64), []
    for layer, state in zip(layers, h0 or [None] * len(layers), strict=True):
        runs = [
            _run(params, below, state_of_direction, turned)
            for params, state_of_direction, turned in _directions(layer, options, layer, state)
        ]
        h = np.concatenate([run.h for run in runs], axis=-1)
        below = _functions(options)[1].function(h)
        last.append(_as_layer(layer, [run.last for run in runs]))
    return LayerStates(h, tuple(last))


def stacked_gradients(
    layers: Sequence[Layer[Any]],
    x: ArrayLike,
    h0: Sequence[Any] | None = None,
    *,
    g_h: ArrayLike = 0.0,
    g_last: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> StackedGradients:
    """Backpropagation through the layers, from given derivatives of the loss by their results.

    Args:
      layers: as in `rnn_stacked`.
      x: likewise.
      h0: likewise.
      g_h: the derivative of the loss by `rnn_stacked(...).h`, which broadcasts to its shape.
      g_last: by `rnn_stacked(...).last`, in its form.
      **options: as in `rnn_stacked`.

    Returns:
      The gradients, in the forms of the arguments. The one by a state that is None has the full
      shape of that state.

    Example:
      ```python
      import numpy as np
      from jaxrnn import RNNParams
      from jaxrnn.testing import oracle

      params = RNNParams(wx=np.ones((1, 2)), wh=np.eye(2), b=None)
      layers = [params, params._replace(wx=np.eye(2))]
      gradients = oracle.stacked_gradients(layers, np.ones((3, 1)), g_h=1.0)
      assert gradients.x.shape == (3, 1) and gradients.layers[1].wx.shape == (2, 2)
      ```
    """
    none = [None] * len(layers)
    rows = list(zip(layers, h0 or none, g_last or none, strict=True))
    below, states, (_, rate) = [np.asarray(x, np.float64)], [], _functions(options)
    for layer, state, _ in rows:
        states.append(rnn_stacked([layer], below[-1], [state], **options).h)
        below.append(rate.function(states[-1]))
    g = np.broadcast_to(np.asarray(g_h, np.float64), below.pop().shape)
    g_layers, g_h0 = [], []
    for k, (layer, state, g_state) in reversed(list(enumerate(rows))):
        g_of_h = g if isinstance(layer, RNNParams) else np.split(g, 2, axis=-1)
        gradients = [
            rnn_gradients(
                params, below[k], each, g_h=part, g_last=0.0 if last is None else last, **turned
            )
            for params, each, part, last, turned in _directions(
                layer, options, layer, state, g_of_h, g_state
            )
        ]
        g_layers.append(_as_layer(layer, [each.params for each in gradients]))
        g_h0.append(_as_layer(layer, [each.h0 for each in gradients]))
        g = np.sum([each.x for each in gradients], axis=0)
        g = g if k == 0 else _times(rate.derivative(states[k - 1]), g)
    return StackedGradients(tuple(g_layers[::-1]), g, tuple(g_h0[::-1]))


def _directions(layer: Layer[Any], options: Options, *forms: Any) -> list[tuple[Any, ...]]:
    """For each direction of a layer its part of each form, None or like the layer, and options."""
    if isinstance(layer, RNNParams):
        return [(*forms, options)]
    turned: Options = {**options, "reverse": not options.get("reverse", False)}
    forward, backward = zip(
        *((None, None) if form is None else form for form in forms), strict=True
    )
    return [(*forward, options), (*backward, turned)]


def _as_layer(layer: Layer[Any], of_directions: list[Any]) -> Any:
    """What belongs to its directions, in the form of a layer."""
    return of_directions[0] if isinstance(layer, RNNParams) else tuple(of_directions)


def _float64(params: RNNParams[Any], rate: Any) -> tuple[Any, FloatArray, FloatArray]:
    wx = None if params.wx is None else np.asarray(params.wx, np.float64)
    wh = np.asarray(params.wh, np.float64)
    check_shape("params.wh", wh, "n_rates n_nodes")
    n_nodes = wh.shape[1]
    if rate is None:
        check_shape("params.wh", wh, "n_nodes n_nodes", "without a rate", n_nodes=n_nodes)
    b = np.zeros(n_nodes) if params.b is None else np.asarray(params.b, np.float64)
    check_shape("params.b", b, "n_nodes", n_nodes=n_nodes)
    if wx is not None:
        check_shape("params.wx", wx, "n_features n_nodes", n_nodes=n_nodes)
    return wx, wh, b


def _full_h0(params: RNNParams[Any], x: ArrayLike, h0: ArrayLike | None) -> FloatArray:
    h0 = np.asarray(0.0 if h0 is None else h0, np.float64)
    return np.broadcast_to(h0, (*np.shape(x)[:-2], np.shape(params.wh)[1]))


def _summed_to(shape: tuple[int, ...], g: FloatArray) -> FloatArray:
    """The gradient by an array of `shape` from the one by that array broadcast to `g.shape`."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return np.asarray(g.sum(axis=stretched, keepdims=True))
