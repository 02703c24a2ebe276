"""A perceptual decision by currents: a noisy network with Dale's law says where dots move.

    v_t = (1 - leak) v_{t-1} + leak (x_t wx + f(v_{t-1}) wh + b) + noise

The dots give noisy evidence for right and for left. The weaker its coherence, the more often the
network errs, as monkeys do (Roitman and Shadlen, Journal of Neuroscience 22 (2002), 9475-9489).
Each node excites or inhibits, most connections are absent, and the loss counts only where the task
asks for an answer (Song, Yang and Wang, PLOS Computational Biology 12 (2016), e1004792).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers
from jax.scipy.stats import norm

from jaxrnn import RNNParams, rnn_states
from jaxrnn.examples import program

N_NODES, N_STEPS, LEAK = 50, 50, 0.2  # a step is 20 ms, and the time constant of a node 100 ms
CURRENTS: Any = {"activation": jax.nn.identity, "rate": jax.nn.relu, "leak": LEAK}
DOTS, ANSWER, NOISE_OF_DOTS, NOISE_OF_NODES = slice(5, 40), slice(40, 50), 0.5, 0.1
COHERENCES = np.outer([-1, 1], 0.512 / 2 ** np.arange(5)).ravel()  # positive is right
EXCITES = np.arange(N_NODES) < 40  # and the others inhibit
THERE = np.random.default_rng(0).random((N_NODES, N_NODES)) < 0.2  # one connection in five
SIGNS = np.where(THERE, np.where(EXCITES, 1, -1)[:, None], 0)


def start(key: jax.Array) -> Any:
    """Draw the numbers that are trained, so that excitation and inhibition balance."""
    for_wh, for_others = jax.random.split(key)
    wh = jax.random.gamma(for_wh, 2, SIGNS.shape) / 20 * jnp.where(EXCITES, 1, 4)[:, None]
    others = jax.random.normal(for_others, (3, N_NODES))
    return RNNParams(others[:2] / 2, wh, jnp.full(N_NODES, 0.1)), others[2] / 10


def network(trained: Any) -> Any:
    """Whatever is trained, weights with Dale's law, and a readout of nodes that excite."""
    (wx, wh, b), readout = trained
    return RNNParams(jnp.abs(wx), SIGNS * jnp.abs(wh), b), readout * EXCITES


def run(trained: Any, key: jax.Array, coherence: Any) -> tuple[jax.Array, jax.Array]:
    """The rates of all nodes, and the output, in a trial of each coherence."""
    (wx, wh, b), readout = network(trained)
    for_dots, for_nodes = jax.random.split(key)
    evidence = 0.5 + 0.5 * coherence[:, None, None] * jnp.array([1, -1])
    dots = evidence + NOISE_OF_DOTS * jax.random.normal(for_dots, (len(coherence), N_STEPS, 2))
    x = jnp.zeros_like(dots).at[:, DOTS].set(dots[:, DOTS])
    noise = NOISE_OF_NODES * jax.random.normal(for_nodes, (*x.shape[:2], N_NODES))
    v = rnn_states(RNNParams(None, wh, b), x @ wx + jnp.sqrt(2 / LEAK) * noise, **CURRENTS).h
    return jax.nn.relu(v), jax.nn.relu(v) @ readout


def ideal_observer(coherence: Any) -> Any:
    """How often an observer that sums all evidence says right."""
    return np.asarray(norm.cdf(coherence * np.sqrt((DOTS.stop - DOTS.start) / 2) / NOISE_OF_DOTS))


@jax.jit
def train(key: jax.Array, updates: jax.Array) -> Any:
    """Train in six trials of each coherence an update."""
    rate = optimizers.exponential_decay(0.01, updates.size, 0.1)
    init_adam, update_adam, trained_of = optimizers.adam(rate)
    coherence = np.tile(COHERENCES, 6)

    def loss(trained: Any, key: jax.Array) -> jax.Array:
        rates, output = run(trained, key, coherence)
        wrong = jax.nn.softplus(-np.sign(coherence)[:, None] * output[:, ANSWER])
        return jnp.mean(wrong) + 0.01 * jnp.mean(rates**2)

    def update(adam: Any, i: Any) -> tuple[Any, None]:
        gradient = jax.grad(loss)(trained_of(adam), jax.random.fold_in(key, i))
        return update_adam(i, gradient, adam), None

    return trained_of(jax.lax.scan(update, init_adam(start(key)), updates)[0])


@program.draws
def draw(figure: Any, right: Any, output: Any, wh: Any) -> None:
    """Draw the psychometric curve, the output by coherence, and the weights."""
    curve, time, weights = figure.subplots(1, 3, width_ratios=(1, 1.2, 1))
    fine = np.linspace(-0.55, 0.55, 200)
    curve.plot(100 * fine, 100 * ideal_observer(fine), color=program.GREY, label="ideal observer")
    curve.plot(100 * COHERENCES, 100 * right, "o", color=program.BLUE, label="network")
    curve.set(title="Psychometric curve", xlabel="coherence (%)", ylabel="answers rightward (%)")
    curve.legend(loc="upper left")
    time.axvspan(20 * DOTS.start, 20 * DOTS.stop, color="#eeeeee")
    for c, each in zip(COHERENCES, output, strict=True):
        colour = program.BLUE if c > 0 else program.ORANGE
        time.plot(20 * np.arange(N_STEPS), each, color=colour, alpha=0.3 + abs(c))
    time.set(title="Mean output, by coherence (grey: dots)", xlabel="time (ms)")
    weights.imshow(wh, cmap="RdBu", vmin=-0.5, vmax=0.5, interpolation="none")
    weights.set(title="wh: a row excites or inhibits", xlabel="to node", ylabel="from node")


def main(options: Any) -> int:
    """Train, and compare the answers of the network with an observer that sums all evidence."""
    for_training, for_answers = jax.random.split(jax.random.key(options.seed))
    trained = train(for_training, jnp.arange(options.updates))
    _, output = jax.jit(run)(trained, for_answers, np.repeat(COHERENCES, 300))
    output = np.reshape(output, (len(COHERENCES), 300, N_STEPS))
    right, ideal = np.mean(output[..., ANSWER].sum(axis=-1) > 0, axis=1), ideal_observer(COHERENCES)
    print("coherence   says right   ideal observer")
    for row in zip(COHERENCES, right, ideal, strict=True):
        print("{:8.1%} {:12.1%} {:14.1%}".format(*row))
    wh = np.asarray(network(trained)[0].wh)
    draw(options.plot, right, output.mean(axis=1), wh)
    correct, best = (np.mean(np.where(COHERENCES > 0, p, 1 - p)) for p in (right, ideal))
    claims = {
        f"{correct:.1%} are correct, and {best:.1%} of an ideal observer's": correct > best - 0.05,
        "Dale's law holds, and absent connections stay absent": np.all(wh * SIGNS == np.abs(wh)),
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, updates=300)
