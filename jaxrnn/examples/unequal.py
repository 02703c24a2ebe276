"""Noisy sequences of unequal length are smoothed by a network that runs in both directions.

    z_t = 0.95 z_{t-1} + noise        y_t = z_t + noise

The padding is NaN, and reaches nothing. A network that runs forward knows the past of a step, and
comes near the Kalman filter. One that runs in both directions (Schuster and Paliwal, IEEE
Transactions on Signal Processing 45 (1997), 2673-2681) knows the future too, and comes near the
best smoother, the mean of z given all y, but for the last step, where there is no future.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers

from jaxrnn import LEARNABLE, init_stacked, rnn_stacked
from jaxrnn.examples import program

N_NODES, N_STEPS, SHORTEST, DECAY, NOISE = 16, 50, 20, 0.95, 1.0
COLOURS = program.ORANGE, program.BLUE
# The covariance of z; z_t has the variance 1 at every t.
COVARIANCE = DECAY ** np.abs(np.subtract.outer(np.arange(N_STEPS), np.arange(N_STEPS)))


def sequences(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw y with NaN in the padding, z, both `(n, n_steps)`, and the lengths `(n,)`."""
    for_z, for_y, for_lengths = jax.random.split(key, 3)
    z = jax.random.normal(for_z, (n, N_STEPS)) @ np.linalg.cholesky(COVARIANCE).T
    y = z + NOISE * jax.random.normal(for_y, (n, N_STEPS))
    lengths = jax.random.randint(for_lengths, (n,), SHORTEST, N_STEPS + 1)
    return jnp.where(lengths[:, None] > jnp.arange(N_STEPS), y, jnp.nan), z, lengths


def estimate(model: Any, y: Any, lengths: Any) -> Any:
    """Estimate z at each step."""
    layers, readout = model
    return rnn_stacked(layers, y[..., None], lengths=lengths).h @ readout


def train(key: jax.Array, updates: jax.Array, both: bool) -> Any:
    """Train a network of one layer, in one or both directions."""
    rate = optimizers.exponential_decay(0.01, updates.size, 0.1)
    init_adam, update_adam, model_of = optimizers.adam(rate)
    for_model, for_updates = jax.random.split(key)
    layers = init_stacked(for_model, 1, (N_NODES,), bidirectional=both, **LEARNABLE)

    def loss(model: Any, key: jax.Array) -> jax.Array:
        y, z, lengths = sequences(key, 64)
        errors = jnp.where(jnp.isnan(y), 0, (estimate(model, y, lengths) - z) ** 2)
        return jnp.sum(errors) / jnp.sum(lengths)

    def update(adam: Any, i: Any) -> tuple[Any, None]:
        gradient = jax.grad(loss)(model_of(adam), jax.random.fold_in(for_updates, i))
        return update_adam(i, gradient, adam), None

    start = init_adam((layers, jnp.zeros((1 + both) * N_NODES)))
    return model_of(jax.lax.scan(update, start, updates)[0])


def best_errors() -> tuple[Any, Any]:
    """The least mean squared error `(n_steps,)` of a long sequence, without and with its future."""

    def given(n: int) -> Any:  # the variances of z given the first n of y
        gain = COVARIANCE[:, :n] @ np.linalg.inv(COVARIANCE[:n, :n] + NOISE**2 * np.eye(n))
        return np.diag(COVARIANCE - gain @ COVARIANCE[:n])

    return np.array([given(n + 1)[n] for n in range(N_STEPS)]), given(N_STEPS)


@program.draws
def draw(figure: Any, y: Any, z: Any, estimates: dict[str, Any], errors: dict[str, Any]) -> None:
    """Draw four sequences, and the errors by the steps that are left."""
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for place in range(4):
        real, shift = ~np.isnan(y[place]), 6 * place
        left.plot(y[place] + shift, ".", color=program.GREY, markersize=3)
        left.plot((z[place] + shift)[real], color="black", linewidth=1)
        for each, colour in zip(estimates.values(), COLOURS, strict=True):
            left.plot((each[place] + shift)[real], color=colour, linewidth=1)
    left.set(title="Sequences of unequal length: y (dots), z (black), estimates", xlabel="step")
    left.set_yticks([])
    for (name, each), best, colour in zip(errors.items(), best_errors(), COLOURS, strict=True):
        right.plot(each, "o", color=colour, markersize=4, label=name)
        right.plot(best[::-1][:SHORTEST], color=colour, label="best possible")
    right.set(title="Mean squared error", xlabel="steps left in the sequence", ylim=(0, None))
    right.legend(loc="lower right")


def main(options: Any) -> int:
    """Train both networks, and compare their errors with the least that are possible."""
    for_training, for_test = jax.random.split(jax.random.key(options.seed))
    y, z, lengths = map(np.asarray, sequences(for_test, 4000))
    estimates, errors = {}, {}
    for name, both in (("forward", False), ("both directions", True)):
        model = jax.jit(train, static_argnums=2)(for_training, jnp.arange(options.updates), both)
        estimates[name] = np.asarray(estimate(model, y, lengths))
        squared = (estimates[name] - z) ** 2
        places = lengths[:, None] - 1 - np.arange(SHORTEST)  # the last step first
        errors[name] = np.take_along_axis(squared, places, axis=1).mean(axis=0)
    draw(options.plot, y, z, estimates, errors)
    claims = {}
    for (name, each), best in zip(errors.items(), best_errors(), strict=True):
        least = best[-SHORTEST:].mean()
        claim = f"{name}: the mean squared error is {each.mean():.3f}, and can be {least:.3f}"
        claims[claim] = each.mean() < 1.15 * least
    ratio = errors["both directions"].mean() / errors["forward"].mean()
    return program.conclude(claims | {f"the future reduces it to {ratio:.2f}": ratio < 0.8})


if __name__ == "__main__":
    program.run(main, __doc__, updates=1000)
