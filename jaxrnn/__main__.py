"""The demonstration: `python -m jaxrnn`.

First the notebook's worked example. Then an ensemble of small networks, trained side by side by
`jax.vmap` to forecast the next year's sunspot number from all years before it.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers
from jax.nn.initializers import normal, orthogonal, zeros
from numpy.typing import NDArray

from jaxrnn import RNNParams, init_params, rnn_forward, rnn_states

# Forecasts of the years up to the first are for training, those up to the second for deciding when
# to stop and how many years the linear model looks back, those after it for the comparison alone.
LAST_TRAINING_YEAR, LAST_VALIDATION_YEAR = 1900, 1930
LARGEST_ORDER = 12
N_NODES, LEARNING_RATE, N_UPDATES, UPDATES_PER_LINE = 16, 1e-3, 300, 20

FloatArray = NDArray[np.floating[Any]]


class Forecaster(NamedTuple):
    """A network, its trainable initial state, and a linear readout of its states."""

    rnn: RNNParams[jax.Array]
    h0: jax.Array
    readout: jax.Array


def init_forecaster(key: jax.Array) -> Forecaster:
    """Draw one member of the ensemble."""
    rnn = init_params(key, 1, N_NODES, wx_init=normal(0.5), wh_init=orthogonal(0.9), b_init=zeros)
    return Forecaster(rnn, jnp.zeros(N_NODES), jnp.zeros(N_NODES))


def forecast(model: Forecaster, values: jax.Array) -> jax.Array:
    """Forecast, after each value `(n_steps,)`, the next one: the value and a learnt change."""
    h = rnn_states(model.rnn, values[:, None], model.h0).h
    return values + h @ model.readout


def run_worked_example() -> bool:
    """Print the notebook's example and whether every digit of it comes out."""
    x = np.array([[[1, 2], [2, 3], [3, 4]]]) / 100
    params = RNNParams(
        wx=np.array([[1, 3, 5, 7], [3, 5, 7, 8]]) / 100,
        wh=np.array([[1, 3, 5, 7], [2, 4, 6, 8], [3, 5, 7, 8], [4, 6, 8, 10]]) / 100,
        b=np.ones(4),
    )
    expected = np.array([[0.79494228, 0.81839002, 0.83939649, 0.85584174]])
    with jax.enable_x64(True):
        wide = np.asarray(rnn_forward(params, x))
    narrow = np.asarray(rnn_forward(params, x))
    print("The notebook's worked example, last hidden state")
    for name, h in (("notebook", expected), ("float64", wide), ("float32", narrow)):
        print(f"  {name:10}", *(f"{value:.8f}" for value in h[0]))
    return np.array_equal(np.round(wide, 8), expected) and np.allclose(narrow, expected, 1e-6, 0)


def load_sunspots() -> tuple[FloatArray, FloatArray]:
    """Read the years and their mean sunspot numbers."""
    with resources.files("jaxrnn").joinpath("sunspots.csv").open() as file:
        years, sunspots = np.loadtxt(file, delimiter=",").T
    return years, sunspots


def fit_linear(values: FloatArray, fitted: NDArray[np.bool_], order: int) -> FloatArray:
    """Forecast every value from the `order` before it, by least squares over the `fitted` ones."""
    forecasts = np.full_like(values, np.nan)
    lags = np.lib.stride_tricks.sliding_window_view(values[:-1], order)
    regressors = np.column_stack([lags, np.ones(len(lags))])
    weights = np.linalg.lstsq(regressors[fitted[order:]], values[fitted], rcond=None)[0]
    forecasts[order:] = regressors @ weights
    return forecasts


def train_ensemble(
    keys: jax.Array, values: FloatArray, fitted: NDArray[np.bool_]
) -> Iterator[tuple[int, FloatArray]]:
    """Yield, as training goes on, the updates done and all forecasts `(n_members, n_values)`."""
    series, weights = jnp.asarray(values, jnp.float32), jnp.asarray(fitted[1:], jnp.float32)
    init_adam, update_adam, model_of = optimizers.adam(LEARNING_RATE)

    def loss(model: Forecaster) -> jax.Array:
        return jnp.sum(weights * (forecast(model, series[:-1]) - series[1:]) ** 2) / weights.sum()

    def update(adam: Any, i: Any) -> tuple[Any, None]:
        return update_adam(i, jax.grad(loss)(model_of(adam)), adam), None

    def advance(adam: Any, first: int) -> tuple[Any, jax.Array]:
        adam, _ = jax.lax.scan(update, adam, first + jnp.arange(UPDATES_PER_LINE))
        return adam, forecast(model_of(adam), series[:-1])

    adam = jax.vmap(lambda key: init_adam(init_forecaster(key)))(keys)
    advance_all = jax.jit(jax.vmap(advance, in_axes=(0, None)))
    for first in range(0, N_UPDATES, UPDATES_PER_LINE):
        adam, forecasts = advance_all(adam, first)
        unknown = np.full((len(keys), 1), np.nan)
        yield first + UPDATES_PER_LINE, np.concatenate([unknown, forecasts], axis=1)


def forecast_sunspots(seed: int, n_members: int) -> None:
    """Fit on the early years, choose on the next, and print the errors in the late ones."""
    years, sunspots = load_sunspots()
    training = (years >= years[LARGEST_ORDER]) & (years <= LAST_TRAINING_YEAR)
    validation = (years > LAST_TRAINING_YEAR) & (years <= LAST_VALIDATION_YEAR)
    test = years > LAST_VALIDATION_YEAR

    # The square root steadies the spread of counts; the networks and the linear model both see it.
    roots = np.sqrt(sunspots)
    mean, deviation = roots[training].mean(), roots[training].std()
    values = (roots - mean) / deviation

    def error(forecasts: FloatArray, part: NDArray[np.bool_]) -> float:
        counts = np.maximum(mean + deviation * forecasts, 0.0) ** 2
        return float(np.sqrt(np.mean((counts - sunspots)[part] ** 2)))

    print(f"\nNext year's sunspot number: {n_members} networks of {N_NODES} nodes, seed {seed}")
    for use, part in (("fitted on", training), ("chosen on", validation), ("compared on", test)):
        print(f"  {use:12} {years[part].min():.0f}-{years[part].max():.0f}")
    print("\n  root-mean-square error of the ensemble's mean\n  updates   fitted   chosen")
    ensembles = []
    keys = jax.random.split(jax.random.key(seed), n_members)
    for n_updates, forecasts in train_ensemble(keys, values, training):
        ensembles.append(forecasts)
        average = forecasts.mean(axis=0)
        errors = f"{error(average, training):8.2f} {error(average, validation):8.2f}"
        print(f"  {n_updates:7} {errors}", flush=True)

    def choose(candidates: list[FloatArray]) -> FloatArray:
        return min(candidates, key=lambda f: error(np.atleast_2d(f).mean(axis=0), validation))

    ensemble = choose(ensembles)
    linear = choose([fit_linear(values, training, k) for k in range(1, LARGEST_ORDER + 1)])
    results = {
        "persistence (the year before)": error(np.roll(values, 1), test),
        "linear autoregression": error(linear, test),
        "one network, on average": float(np.mean([error(member, test) for member in ensemble])),
        "the ensemble's mean": error(ensemble.mean(axis=0), test),
    }
    print("\n  root-mean-square error, compared")
    for name, result in results.items():
        print(f"  {name:30} {result:6.2f}")


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jaxrnn", description=__doc__)
    parser.add_argument(
        "--seed", type=positive_integer, default=1, help="of the ensemble (default: 1)"
    )
    parser.add_argument(
        "--members",
        type=positive_integer,
        default=16,
        help="networks in the ensemble (default: 16)",
    )
    options = parser.parse_args(arguments)
    if not run_worked_example():
        print("the worked example is off", file=sys.stderr)
        return 1
    forecast_sunspots(options.seed, options.members)
    return 0


def positive_integer(text: str) -> int:
    """Read a count from the command line."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be from 1 to 2**31 - 1, but is {number}")
    return number


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has stopped, as `head` does. Python flushes once more at exit, which would fail
        # again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
