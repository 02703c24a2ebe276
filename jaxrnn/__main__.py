"""The demonstration: `python -m jaxrnn`.

First the notebook's worked example. Then an ensemble of small networks, trained side by side by
`jax.vmap` to forecast the next value of a chaotic laser from all values before it. `laser.txt` says
where the values are from, and their licence.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers
from numpy.typing import NDArray

from jaxrnn import LEARNABLE, RNNParams, init_params, rnn_forward, rnn_states

# Models are fitted on the first values. The next ones decide when to stop, and how many values the
# linear model looks back. All others are for the comparison alone.
ORDERS = 1, 2, 4, 8, 16, 32, 64, 128
FITTED, CHOSEN, COMPARED = slice(200, 4000), slice(4000, 6000), slice(6000, 10_093)
N_NODES, LEARNING_RATE, N_UPDATES, UPDATES_PER_LINE = 32, 0.02, 300, 20
# Networks are trained on pieces of 200 steps. The first 20 of each do not count, as a network has
# seen too little there.
N_STEPS, WARM_UP = 200, 20

CONCLUSION = """
The error of the ensemble is 1/{:.0f} of the linear model's. The swings of the laser grow, and then
collapse. Whether the next one grows or collapses depends on how high the last ones were. A sum of
past values with fixed weights cannot tell, and expects one more swing. A network can tell.

Read next: README.md, and help(jaxrnn.rnn_states)."""

FloatArray = NDArray[np.floating[Any]]


class Forecaster(NamedTuple):
    """A network, and a linear readout of its states."""

    rnn: RNNParams[jax.Array]
    readout: jax.Array
    bias: jax.Array


def init_forecaster(key: jax.Array) -> Forecaster:
    """Draw one member of the ensemble."""
    rnn = init_params(key, 1, N_NODES, **LEARNABLE)
    return Forecaster(rnn, jnp.zeros(N_NODES), jnp.zeros(()))


def forecast(model: Forecaster, values: jax.Array) -> jax.Array:
    """Forecast, after each of the values `(*batch, n_steps)`, the next one."""
    h = rnn_states(model.rnn, values[..., None]).h
    return h @ model.readout + model.bias


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


def load_laser() -> FloatArray:
    """Read the intensity of the laser, a whole number from 0 to 255 at each step."""
    with resources.files("jaxrnn").joinpath("laser.npy").open("rb") as file:
        return np.asarray(np.load(file), np.float64)


def fit_linear(values: FloatArray, fitted: slice, order: int) -> FloatArray:
    """Forecast every value from the `order` before it, by least squares over the `fitted` ones."""
    forecasts = np.full_like(values, np.nan)
    regressors = np.ones((len(values), order + 1))
    regressors[order:, 1:] = np.lib.stride_tricks.sliding_window_view(values[:-1], order)
    weights = np.linalg.lstsq(regressors[fitted], values[fitted], rcond=None)[0]
    forecasts[order:] = regressors[order:] @ weights
    return forecasts


def train_ensemble(keys: jax.Array, values: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield, as training goes on, the updates done and all forecasts `(n_members, n_values)`."""
    series = jnp.asarray(values, jnp.float32)
    pieces = series[FITTED].reshape(-1, N_STEPS)
    init_adam, update_adam, model_of = optimizers.adam(LEARNING_RATE)

    def loss(model: Forecaster) -> jax.Array:
        errors = forecast(model, pieces[:, :-1]) - pieces[:, 1:]
        return jnp.mean(errors[:, WARM_UP:] ** 2)

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


def nmse(forecasts: FloatArray, values: FloatArray, part: slice) -> float:
    """The normalised mean squared error: 0 is perfect, and to forecast the mean has 1."""
    return float(np.mean((forecasts - values)[part] ** 2) / np.var(values[part]))


def forecast_laser(seed: int, n_members: int, plot: Path | None = None) -> None:
    """Fit on the first values, choose on the next, and print the errors in the last ones."""
    laser = load_laser()
    mean, deviation = laser[FITTED].mean(), laser[FITTED].std()
    values = (laser - mean) / deviation

    print(f"\nA laser's next value: {n_members} networks of {N_NODES} nodes, seed {seed}")
    for use, part in (("fitted on", FITTED), ("chosen on", CHOSEN), ("compared on", COMPARED)):
        print(f"  {use:12} values {part.start} to {part.stop - 1}")
    print("\n  normalised mean squared error of the ensemble's mean\n  updates   fitted   chosen")
    ensembles = []
    keys = jax.random.split(jax.random.key(seed), n_members)
    for n_updates, forecasts in train_ensemble(keys, values):
        ensembles.append(forecasts)
        fitted, chosen = (nmse(forecasts.mean(axis=0), values, part) for part in (FITTED, CHOSEN))
        print(f"  {n_updates:7} {fitted:8.4f} {chosen:8.4f}", flush=True)

    members = min(ensembles, key=lambda each: nmse(each.mean(axis=0), values, CHOSEN))
    linears = {order: fit_linear(values, FITTED, order) for order in ORDERS}
    order = min(ORDERS, key=lambda each: nmse(linears[each], values, CHOSEN))
    alone = [nmse(member, values, COMPARED) for member in members]
    errors = {
        "persistence (the value before)": nmse(np.roll(values, 1), values, COMPARED),
        f"linear autoregression, {order} lags": nmse(linears[order], values, COMPARED),
        "one network, on average": float(np.mean(alone)),
        "the ensemble's mean": nmse(members.mean(axis=0), values, COMPARED),
    }
    print("\n  normalised mean squared error, compared (to forecast the mean has 1)")
    for name, error in errors.items():
        spread = f"   from {min(alone):.4f} to {max(alone):.4f}" if "network" in name else ""
        print(f"  {name:32} {error:.4f}{spread}")
    _, of_linear, _, of_ensemble = errors.values()
    print(CONCLUSION.format(of_linear / of_ensemble))
    if plot:
        draw(plot, laser, mean + deviation * linears[order], mean + deviation * members, errors)
        print(f"The picture is in {plot}.")


def draw(
    path: Path, laser: FloatArray, linear: FloatArray, members: FloatArray, errors: dict[str, float]
) -> None:
    """Draw forecasts around the steepest collapse of the compared values, and all errors."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The height of the swings is the largest value of 20 steps, which are two or three swings.
    heights = np.lib.stride_tricks.sliding_window_view(laser[COMPARED], 20).max(axis=1)
    collapse = COMPARED.start + 20 + int(np.argmax(heights[:-20] - heights[20:]))
    shown = np.arange(collapse - 70, collapse + 30)
    orange, blue = "#d9822b", "#1f6feb"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxrnn", "font.size": 9}):
        figure = Figure(figsize=(8.6, 4.8), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(2.6, 1))
        above.plot(shown, laser[shown], "o", color="black", markersize=3, label="laser")
        above.plot(shown, linear[shown], color=orange, label="linear autoregression")
        above.plot(shown, members.mean(axis=0)[shown], color=blue, label="the ensemble's mean")
        span = members.min(axis=0)[shown], members.max(axis=0)[shown]
        above.fill_between(shown, *span, color="#a8c8fa", label="its members")
        above.set(xlim=shown[[0, -1]], ylim=(-20, 330), xlabel="step", ylabel="intensity")
        above.set_title("A laser's next value, forecast from all values before it", loc="left")
        above.legend(ncols=4, loc="upper left", frameon=False)
        colours = "#777777", orange, blue, blue
        for place, error in enumerate(errors.values()):
            below.plot(error, place, "o", color=colours[place])
            below.annotate(f"{error:.4f}", (error, place), (7, -3), textcoords="offset points")
        below.set_yticks(range(len(errors)), errors)
        below.set(xscale="log", xlim=(None, 2), ylim=(3.5, -0.5))
        below.set_title("Normalised mean squared error (logarithmic axis)", loc="left")
        below.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        below.grid(axis="x", color="#dddddd")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
        # Without the date, the same numbers give the same file.
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jaxrnn", description=__doc__)
    parser.add_argument(
        "--seed", type=positive_integer, default=1, help="of the ensemble (default: 1)"
    )
    parser.add_argument(
        "--members", type=positive_integer, default=8, help="networks in the ensemble (default: 8)"
    )
    parser.add_argument(
        "--plot", type=picture, metavar="FILE", help="draw the forecasts there, as in laser.svg"
    )
    options = parser.parse_args(arguments)
    if not run_worked_example():
        print("the worked example is off", file=sys.stderr)
        return 1
    forecast_laser(options.seed, options.members, options.plot)
    return 0


def positive_integer(text: str) -> int:
    """Read a count from the command line."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be from 1 to 2**31 - 1, but is {number}")
    return number


def picture(text: str) -> Path:
    """Read the path of a picture from the command line, before anything is trained."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        needs = f"needs matplotlib: {sys.executable} -m pip install matplotlib"
        raise argparse.ArgumentTypeError(needs) from error
    path = Path(text)
    suffixes = [f".{name}" for name in Figure().canvas.get_supported_filetypes()]
    if path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"must end in one of {' '.join(suffixes)}, but is {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder that exists, but is {text}")
    return path


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
