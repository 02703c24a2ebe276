"""An echo state network, of which only the readout is fitted, runs on as the Mackey-Glass series.

    dy/dt = 0.2 y(t - 17) / (1 + y(t - 17)^10) - 0.1 y(t)

The network is drawn and stays as it is. Its states under the series are regressed on the next
value. Then each forecast is its next input, and it runs free beside the true series until chaos
parts them (Jaeger and Haas, Science 304 (2004), 78-80).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import init_params, rnn_states, rnn_step
from jaxrnn.examples import program

N_NODES, LEAK, RADIUS, RIDGE = 400, 0.5, 1.2, 1e-8
SETTLE, FITTED, N_STARTS, N_FREE = 200, 3000, 20, 1000


def mackey_glass(n_values: int) -> Any:
    """The series at whole times, in Euler steps of a tenth."""
    y = np.full(170 + 10 * (n_values + 1000), 1.2)
    for t in range(170, len(y) - 1):
        y[t + 1] = y[t] + 0.1 * (0.2 * y[t - 170] / (1 + y[t - 170] ** 10) - 0.1 * y[t])
    return y[::10][-n_values:] - 0.9


def draw_reservoir(key: jax.Array) -> Any:
    """A network whose recurrent weights have the spectral radius `RADIUS`."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.random.uniform(key, shape, dtype, -0.5, 0.5)

    params = init_params(key, 1, N_NODES, wx_init=init, wh_init=init, b_init=init)
    radius = np.max(np.abs(np.linalg.eigvals(params.wh)))
    return params._replace(wh=params.wh * RADIUS / radius)


def fit(h: Any, target: Any) -> Any:
    """The readout of the states, by ridge regression."""
    return jnp.linalg.solve(h.T @ h + RIDGE * jnp.eye(N_NODES), h.T @ target)


@jax.jit
def run_free(params: Any, readout: Any, h: Any) -> Any:
    """The forecasts `(n_starts, N_FREE)` from states, in which each is the next input."""

    def step(h: jax.Array, _: None) -> Any:
        y = h @ readout
        return rnn_step(params, h, y[:, None], leak=LEAK), y

    return jax.lax.scan(step, h, length=N_FREE)[1].T


@program.draws
def draw(figure: Any, true: Any, free: Any, errors: Any) -> None:
    """Draw one free run beside the series, the errors of all, and the attractors of both."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    above, below = left.subplots(2, 1, sharex=True)
    steps = np.arange(0, N_FREE, 4)
    above.plot(steps, true[::4], color="black", linewidth=1, label="Mackey-Glass")
    label = "network, running free"
    above.plot(steps, free[::4], "--", color=program.BLUE, linewidth=1, label=label)
    above.set(title="One free run", ylim=(-0.6, 0.7))
    above.legend(loc="upper left", ncols=2)
    below.plot(steps, errors[::4], color=program.BLUE)
    below.set(yscale="log", xlabel="steps ahead", title=f"Error of {N_STARTS} free runs (NRMSE)")
    axes = right.subplots()
    axes.plot(true[17:517:2], true[:500:2], color="black", linewidth=0.6)
    axes.plot(free[17:517:2], free[:500:2], color=program.BLUE, linewidth=0.6)
    axes.set(title="Attractors", xlabel="y(t)", ylabel="y(t - 17)", aspect="equal")


def main(options: Any) -> int:
    """Fit the readout, run free from many states, and compare with the true series."""
    end = SETTLE + options.fitted
    starts = end + 100 * np.arange(N_STARTS)
    series = mackey_glass(starts[-1] + N_FREE + 1)
    with jax.enable_x64(True):  # the regression loses too many bits of float32
        params = draw_reservoir(jax.random.key(options.seed))
        h = rnn_states(params, series[:, None], leak=LEAK).h
        readout = fit(h[SETTLE : end - 1], series[SETTLE + 1 : end])
        free = np.asarray(run_free(params, readout, h[starts]))
    true = np.stack([series[start + 1 :][:N_FREE] for start in starts])
    errors = np.sqrt(np.mean((free - true) ** 2, axis=0)) / series.std()
    print("steps ahead   normalised root mean squared error")
    for n in (1, 10, 84, 200, 500, 1000):
        print(f"{n:11} {errors[n - 1]:11.5f}")
    draw(options.plot, true[0], free[0], errors)
    ratio = np.ptp(free) / np.ptp(series)
    claims = {
        f"84 steps ahead the error is {errors[83]:.4f}": errors[83] < 0.05,
        f"the free runs have {ratio:.2f} of the range of the series": 0.9 < ratio < 1.1,
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, fitted=3000)
