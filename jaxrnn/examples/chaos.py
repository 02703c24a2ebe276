"""A random network turns chaotic as the gain of its weights passes 1.

    h_t = tanh(h_{t-1} wh)        wh ~ normal(0, gain^2 / n_nodes)

Below that gain all activity dies out. Above it small differences grow: the largest Lyapunov
exponent, their mean rate of growth, crosses zero (Sompolinsky, Crisanti and Sommers, Physical
Review Letters 61 (1988), 259-262, for currents). Mean-field theory gives the exponent of infinitely
many nodes (Molgedey, Schuchhardt and Schuster, Physical Review Letters 69 (1992), 3717-3719).
All gains and draws run side by side under one `vmap`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal

from jaxrnn import init_params, rnn_states, rnn_step
from jaxrnn.examples import program

N_NODES, N_DRAWS = 400, 6
GAINS = np.linspace(0.5, 2, 16)


def network(key: jax.Array, gain: Any) -> Any:
    """A network without inputs, and the state that it starts from."""
    wh_init = normal(N_NODES**-0.5)
    params = init_params(key, 0, N_NODES, wx_init=normal(), wh_init=wh_init, b_init=None)
    h = jax.random.uniform(jax.random.fold_in(key, 1), (N_NODES,), minval=-1)
    return params._replace(wh=gain * params.wh), h


def exponent(key: jax.Array, gain: Any, n_steps: int) -> jax.Array:
    """The largest Lyapunov exponent: the mean growth of a tangent that is scaled back each step."""
    params, h = network(key, gain)

    def grow(carry: Any, _: None) -> Any:
        h, tangent = carry
        h, tangent = jax.jvp(lambda h: rnn_step(params, h, jnp.zeros(0)), (h,), (tangent,))
        growth = jnp.linalg.norm(tangent)
        return (h, tangent / growth), jnp.log(growth)

    _, rates = jax.lax.scan(grow, (h, h / jnp.linalg.norm(h)), length=n_steps)
    return jnp.mean(rates[n_steps // 3 :])  # before that, state and tangent settle


def mean_field(gain: Any) -> Any:
    """The exponent of infinitely many nodes, whose pre-activations are normal."""
    z = np.linspace(-6, 6, 601)
    weight = np.exp(-(z**2) / 2) / np.sum(np.exp(-(z**2) / 2))
    deviation = 1.0
    for _ in range(300):
        deviation = gain * np.sqrt(np.sum(weight * np.tanh(deviation * z) ** 2))
    return np.log(gain**2 * np.sum(weight / np.cosh(deviation * z) ** 4)) / 2


@program.draws
def draw(figure: Any, exponents: Any, states: dict[float, Any]) -> None:
    """Draw the exponents by gain, and nodes of a network below, near and above the transition."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.3, 1))
    axes = left.subplots()
    fine = np.linspace(0.5, 2, 61)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.plot(fine, [mean_field(gain) for gain in fine], color=program.GREY, label="mean field")
    axes.plot(GAINS, exponents, "o", color=program.BLUE, markersize=3, alpha=0.5)
    axes.plot(GAINS, exponents.mean(axis=1), color=program.BLUE, label=f"{N_NODES} nodes")
    axes.set(title="Largest Lyapunov exponent", xlabel="gain of wh", ylabel="per step")
    axes.legend(loc="lower right")
    for axes, (gain, h) in zip(right.subplots(3, 1, sharex=True), states.items(), strict=True):
        axes.plot(h[:, :3])
        axes.set(title=f"three nodes at a gain of {gain}", ylim=(-1.1, 1.1))
    axes.set_xlabel("step")


def main(options: Any) -> int:
    """Find the exponents of all gains and draws, and where they cross zero."""
    keys = jax.random.split(jax.random.key(options.seed), N_DRAWS)
    of_draws = jax.vmap(lambda gain, key: exponent(key, gain, options.steps), (None, 0))
    exponents = np.asarray(jax.jit(jax.vmap(of_draws, (0, None)))(GAINS, keys))
    expected = np.array([mean_field(gain) for gain in GAINS])
    print("gain   exponent (spread)   mean field")
    for gain, each, theory in zip(GAINS, exponents, expected, strict=True):
        print(f"{gain:4.1f} {each.mean():10.3f} ({each.std():.3f}) {theory:12.3f}")
    runs = {gain: network(keys[0], gain) for gain in (0.8, 1.2, 1.8)}
    states = {gain: rnn_states(rnn, jnp.zeros((40, 0)), h).h for gain, (rnn, h) in runs.items()}
    draw(options.plot, exponents, states)
    off = np.max(np.abs(exponents.mean(axis=1) - expected))
    claims = {
        "every network up to a gain of 0.8 is stable": np.all(exponents[GAINS < 0.85] < 0),
        "every network from a gain of 1.6 on is chaotic": np.all(exponents[GAINS > 1.55] > 0),
        f"mean field theory is at most {off:.3f} off": off < 0.06,
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, steps=600)
