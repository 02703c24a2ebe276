"""Real-time recurrent learning: a network learns at every step of a stream without an end.

Backpropagation through time needs all states that a gradient goes back to. Real-time recurrent
learning carries the derivative of the state by every parameter forward instead, and has the same
gradient at every step, in memory that does not grow (Williams and Zipser, Neural Computation 1
(1989), 270-280). The output is to be whether two earlier bits differ, and later on two others.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers

from jaxrnn import LEARNABLE, init_params, rnn_states, rnn_step
from jaxrnn.examples import program

N_NODES, N_LEARNERS, WINDOW = 16, 4, 500
init_adam, update_adam, model_of = optimizers.adam(0.003)


def start(key: jax.Array) -> Any:
    """A network and a readout, and the state and its derivatives by all parameters."""
    rnn = init_params(key, 1, N_NODES, **LEARNABLE)
    by_params = jax.tree.map(lambda p: jnp.zeros((N_NODES, *p.shape)), rnn)
    return (rnn, jnp.zeros(N_NODES)), (jnp.zeros(N_NODES), by_params)


def loss(readout: jax.Array, h: jax.Array, target: jax.Array) -> jax.Array:
    """The cross-entropy of the output with a target of -1 or 1, summed over steps."""
    return jnp.sum(jax.nn.softplus(-target * (h @ readout)))


def differentiate(model: Any, carry: Any, x_t: Any, target: Any, keep: Any = 1.0) -> Any:
    """One step: the carry after it, its loss, and the gradient; 0 keeps no derivatives."""
    (rnn, readout), (h, by_params) = model, carry
    direct, by_h = jax.jacfwd(rnn_step, argnums=(0, 1))(rnn, h, x_t)
    h = rnn_step(rnn, h, x_t)
    by_params = jax.tree.map(lambda d, p: d + keep * jnp.tensordot(by_h, p, 1), direct, by_params)
    value, (by_readout, by_state) = jax.value_and_grad(loss, (0, 1))(readout, h, target)
    by_rnn = jax.tree.map(lambda p: jnp.tensordot(by_state, p, 1), by_params)
    return (h, by_params), value, (by_rnn, by_readout)


def sum_gradients(model: Any, carry: Any, x: jax.Array, targets: jax.Array) -> Any:
    """The gradient of the loss over all steps, carried forward."""

    def add(carry: Any, at: Any) -> tuple[Any, Any]:
        carry, _, gradient = differentiate(model, carry, *at)
        return carry, gradient

    gradients = jax.lax.scan(add, carry, (x, targets))[1]
    return jax.tree.map(lambda g: jnp.sum(g, axis=0), gradients)


def learn(key: jax.Array, keep: Any, n_steps: int) -> jax.Array:
    """Learn at each step of a stream of random bits, -1 or 1; the result are all losses."""
    for_start, for_bits = jax.random.split(key)
    model, carry = start(for_start)

    def step(state: Any, i: Any) -> tuple[Any, jax.Array]:
        adam, carry, bits = state
        bit = jax.random.rademacher(jax.random.fold_in(for_bits, i), (1,), float)
        bits = jnp.concatenate([bit, bits[:-1]])  # the newest comes first
        target = -bits[1] * jnp.where(i < n_steps // 2, bits[2], bits[3])
        carry, value, gradient = differentiate(model_of(adam), carry, bit, target, keep)
        return (update_adam(i, gradient, adam), carry, bits), value

    return jax.lax.scan(step, (init_adam(model), carry, jnp.ones(4)), jnp.arange(n_steps))[1]


@program.draws
def draw(figure: Any, losses: Any) -> None:
    """Draw the losses along the stream, of each learner and of their median."""
    axes = figure.subplots()
    steps = WINDOW * (0.5 + np.arange(losses.shape[-1]))
    names = "real-time recurrent learning", "without derivatives of earlier steps"
    for each, name, colour in zip(losses, names, (program.BLUE, program.ORANGE), strict=True):
        axes.plot(steps, each.T, color=colour, linewidth=0.5, alpha=0.5)
        axes.plot(steps, np.median(each, axis=0), color=colour, linewidth=2, label=name)
    axes.axhline(np.log(2), color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.axvline(WINDOW * len(steps) / 2, color="black", linewidth=0.8)
    axes.set(title="Two earlier bits differ, or not: the task changes in the middle of the stream")
    axes.set(xlabel="steps of the stream", ylabel="loss of an output", yscale="log")
    axes.legend(loc="lower left")


def main(options: Any) -> int:
    """Compare the gradients, then learn along the stream."""
    for_model, for_stream, *keys = jax.random.split(jax.random.key(options.seed), 2 + N_LEARNERS)
    (rnn, readout), carry = start(for_model)
    model = rnn, readout + 0.5
    x = jax.random.rademacher(for_stream, (200, 1), float)
    expected = jax.grad(lambda m: loss(m[1], rnn_states(m[0], x).h, x[:, 0]))(model)
    got = jax.jit(sum_gradients)(model, carry, x, x[:, 0])
    ratios = jax.tree.map(lambda g, e: jnp.max(jnp.abs(g - e)) / jnp.max(jnp.abs(e)), got, expected)
    off = max(jax.tree.leaves(ratios))
    n_steps = WINDOW * max(2, options.steps // WINDOW)
    learners = jax.vmap(lambda keep, key: learn(key, keep, n_steps), in_axes=(None, 0))
    losses = jax.jit(jax.vmap(learners, in_axes=(0, None)))(jnp.array([1.0, 0.0]), jnp.stack(keys))
    losses = np.asarray(losses).reshape(2, N_LEARNERS, -1, WINDOW).mean(axis=-1)
    draw(options.plot, losses)
    medians = np.median(losses, axis=1)
    before, after = medians[:, medians.shape[1] // 2 - 1], medians[:, -1]
    claims = {
        f"the gradient is that of backpropagation through time, up to {off:.0e} of it": off < 1e-4,
        f"before the change the loss comes to {before[0]:.3f}": before[0] < 0.1,
        f"and at the end to {after[0]:.3f}": after[0] < 0.1,
        f"without derivatives of earlier steps to {after[1]:.3f}": after[1] > 0.3,
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, steps=12_000)
