"""An ensemble, trained under one `vmap`, forecasts the next value of a chaotic laser.

The swings of the laser grow, and then collapse. Whether the next one grows or collapses depends on
how high the last ones were. A sum of past values with fixed weights cannot tell, and expects one
more swing. A network can tell. `laser.txt` says where the values are from, and their licence.
"""

from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers

from jaxrnn import LEARNABLE, init_params, rnn_states
from jaxrnn.examples import program

# Models are fitted on the first values. The next ones decide how many values the linear model looks
# back. All others are for the comparison alone.
FITTED, CHOSEN, COMPARED = slice(200, 4000), slice(4000, 6000), slice(6000, 10_093)
# Networks are trained on pieces of 200 steps, of which the first 20 do not count.
N_NODES, N_STEPS, WARM_UP = 32, 200, 20


def load_laser() -> Any:
    """Read the intensity of the laser, a whole number from 0 to 255 at each step."""
    with (resources.files("jaxrnn.examples") / "laser.npy").open("rb") as file:
        return np.asarray(np.load(file), np.float64)


def fit_linear(values: Any, fitted: slice, order: int) -> Any:
    """Forecast every value from the `order` before it, by least squares over the `fitted` ones."""
    regressors = np.ones((len(values), order + 1))
    regressors[order:, 1:] = np.lib.stride_tricks.sliding_window_view(values[:-1], order)
    weights = np.linalg.lstsq(regressors[fitted], values[fitted], rcond=None)[0]
    return np.concatenate([np.full(order, np.nan), regressors[order:] @ weights])


def train_ensemble(keys: jax.Array, values: Any, n_updates: int) -> Any:
    """Train a network for each key; the result is their forecasts `(n_members, n_values)`."""
    series = jnp.asarray(values, jnp.float32)
    pieces = series[FITTED].reshape(-1, N_STEPS)
    init_adam, update_adam, model_of = optimizers.adam(0.02)

    def forecast(model: Any, values: jax.Array) -> Any:
        rnn, readout, bias = model
        return rnn_states(rnn, values[..., None]).h @ readout + bias

    def loss(model: Any) -> jax.Array:
        errors = forecast(model, pieces[:, :-1]) - pieces[:, 1:]
        return jnp.mean(errors[:, WARM_UP:] ** 2)

    def update(adam: Any, i: Any) -> tuple[Any, None]:
        return update_adam(i, jax.grad(loss)(model_of(adam)), adam), None

    def train(key: jax.Array) -> Any:
        rnn = init_params(key, 1, N_NODES, **LEARNABLE)
        start = init_adam((rnn, jnp.zeros(N_NODES), jnp.zeros(())))
        adam, _ = jax.lax.scan(update, start, jnp.arange(n_updates))
        return forecast(model_of(adam), series[:-1])

    forecasts = jax.jit(jax.vmap(train))(keys)
    return np.pad(forecasts, [(0, 0), (1, 0)], constant_values=np.nan)


def nmse(forecasts: Any, values: Any, part: slice) -> float:
    """The normalised mean squared error: 0 is perfect, and to forecast the mean has 1."""
    return float(np.mean((forecasts - values)[part] ** 2) / np.var(values[part]))


@program.draws
def draw(figure: Any, laser: Any, linear: Any, members: Any, errors: dict[str, float]) -> None:
    """Draw forecasts around the steepest collapse of the compared values, and all errors."""
    shown = np.arange(8112, 8212)
    above, below = figure.subplots(2, 1, height_ratios=(2.6, 1))
    above.plot(shown, laser[shown], "o", color="black", markersize=3, label="laser")
    above.plot(shown, linear[shown], color=program.ORANGE, label="linear autoregression")
    above.plot(shown, members.mean(axis=0)[shown], color=program.BLUE, label="the ensemble's mean")
    span = members.min(axis=0)[shown], members.max(axis=0)[shown]
    above.fill_between(shown, *span, color="#a8c8fa", label="its members")
    above.set(title="A laser's next value, forecast from all values before it", xlabel="step")
    above.set(xlim=shown[[0, -1]], ylim=(-20, 330), ylabel="intensity")
    above.legend(ncols=4, loc="upper left")
    colours = program.GREY, program.ORANGE, program.BLUE, program.BLUE
    for place, error in enumerate(errors.values()):
        below.plot(error, place, "o", color=colours[place])
        below.annotate(f"{error:.4f}", (error, place), (7, -3), textcoords="offset points")
    below.set_yticks(range(len(errors)), errors)
    below.set(title="Normalised mean squared error", xscale="log", xlim=(None, 2), ylim=(3.5, -0.5))
    below.grid(axis="x", color="#dddddd")


def main(options: Any) -> int:
    """Fit a linear model and the ensemble, and compare their errors in the last values."""
    laser = load_laser()
    mean, deviation = laser[FITTED].mean(), laser[FITTED].std()
    values = (laser - mean) / deviation
    linears = [fit_linear(values, FITTED, order) for order in (1, 2, 4, 8, 16, 32, 64, 128)]
    linear = min(linears, key=lambda each: nmse(each, values, CHOSEN))
    keys = jax.random.split(jax.random.key(options.seed), options.members)
    members = train_ensemble(keys, values, options.updates)
    errors = {
        "persistence (the value before)": nmse(np.roll(values, 1), values, COMPARED),
        f"linear autoregression, {np.isnan(linear).sum()} lags": nmse(linear, values, COMPARED),
        "one network, on average": np.mean([nmse(each, values, COMPARED) for each in members]),
        "the ensemble's mean": nmse(members.mean(axis=0), values, COMPARED),
    }
    print("normalised mean squared error of a laser's next value (to forecast the mean has 1)")
    for name, error in errors.items():
        print(f"  {name:32} {error:.4f}")
    draw(options.plot, laser, mean + deviation * linear, mean + deviation * members, errors)
    _, of_linear, _, of_ensemble = errors.values()
    claim = f"the error of the ensemble is 1/{of_linear / of_ensemble:.1f} of the linear model's"
    return program.conclude({claim: of_ensemble < of_linear / 10})


if __name__ == "__main__":
    program.run(main, __doc__, members=8, updates=300)
