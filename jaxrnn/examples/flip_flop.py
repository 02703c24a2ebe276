"""A network remembers three bits in fixed points, which Newton's method finds.

    h_t = tanh(x_t wx + h_{t-1} wh + b)

Each input sends pulses of -1 and 1 now and then, and each output is to be the last pulse of its
input. Trained to do so, the network has a stable fixed point for each of the eight memories, and
between them saddles, whose unstable directions lead from one memory to another (Sussillo and
Barak, Neural Computation 25 (2013), 626-649).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers

from jaxrnn import LEARNABLE, init_params, rnn_states, rnn_step
from jaxrnn.examples import program

N_NODES, N_STEPS = 32, 64


def trials(key: jax.Array, n_trials: int) -> tuple[jax.Array, jax.Array]:
    """Draw pulses and what is to be remembered, `(n_trials, n_steps, 3)`."""
    uniform = jax.random.uniform(key, (n_trials, N_STEPS, 3), minval=-1.1, maxval=1.1)
    pulses = jnp.trunc(uniform)  # 0, and in one step of eleven -1 or 1
    return pulses, jax.lax.associative_scan(lambda a, b: jnp.where(b == 0, a, b), pulses, axis=1)


@jax.jit
def train(key: jax.Array, updates: jax.Array) -> Any:
    """Train the network and its readout, in 64 trials an update."""
    rate = optimizers.exponential_decay(0.01, updates.size, 0.05)
    init_adam, update_adam, model_of = optimizers.adam(rate)

    def loss(model: Any, key: jax.Array) -> jax.Array:
        pulses, bits = trials(key, 64)
        rnn, readout = model
        return jnp.mean((rnn_states(rnn, pulses).h @ readout - bits) ** 2)

    def update(adam: Any, i: Any) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(model_of(adam), jax.random.fold_in(key, i))
        return update_adam(i, gradient, adam), value

    start = init_params(key, 3, N_NODES, **LEARNABLE), jnp.zeros((N_NODES, 3))
    adam, _ = jax.lax.scan(update, init_adam(start), updates)
    return model_of(adam)


@jax.jit
def newton(rnn: Any, h: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Go from each state to a fixed point: the points, how far they move, and their Jacobians."""

    def step(h: jax.Array) -> jax.Array:
        return rnn_step(rnn, h, jnp.zeros(3))

    def improve(_: Any, h: jax.Array) -> Any:
        return h - jnp.linalg.solve(jacobian(h) - identity, (step(h) - h)[..., None])[..., 0]

    jacobian, identity = jax.vmap(jax.jacfwd(step)), jnp.eye(N_NODES)
    h = jax.lax.fori_loop(0, 30, improve, h)
    return h, jnp.max(jnp.abs(step(h) - h), axis=-1), jacobian(h)


def fixed_points(rnn: Any, h: Any, key: jax.Array) -> tuple[Any, Any]:
    """Search from between visited states `(n, n_nodes)`: points, and their unstable directions."""
    for_pairs, for_weights = jax.random.split(key)
    one, other = h[np.asarray(jax.random.randint(for_pairs, (2, 1000), 0, len(h)))]
    weights = np.asarray(jax.random.uniform(for_weights, (1000, 1)))
    found = newton(rnn, weights * one + (1 - weights) * other)
    points, moves, jacobians = map(np.asarray, found)
    again = np.any(np.tril(np.max(np.abs(points[:, None] - points), axis=-1) < 0.01, -1), axis=1)
    kept = (moves < 1e-5) & ~again  # those that Newton's method found, each once
    return points[kept], np.sum(np.abs(np.linalg.eigvals(jacobians[kept])) > 1, axis=-1)


@program.draws
def draw(figure: Any, pulses: Any, outputs: Any, h: Any, points: Any, unstable: Any) -> None:
    """Draw states and fixed points in the plane of two principal components, and one trial."""
    plane, time = figure.subplots(1, 2, width_ratios=(1, 1.1))
    components = np.linalg.svd(h - h.mean(axis=0), full_matrices=False)[2][:2].T
    plane.plot(*(h[:700] @ components).T, color=program.BLUE, linewidth=0.3, alpha=0.6)
    names = "stable", "1 unstable direction", "2", "3 or more"
    for n, (name, marker) in enumerate(zip(names, "oxs^", strict=True)):
        colour = program.ORANGE if n else "black"
        each = points[np.minimum(unstable, 3) == n] @ components
        plane.plot(*each.T, marker, color=colour, markersize=5, label=name)
    plane.set(title="States and fixed points", xlabel="PC 1", ylabel="PC 2", aspect="equal")
    plane.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4, columnspacing=0.8)
    for bit in range(3):
        time.step(range(N_STEPS), pulses[:, bit] + 3 * bit, color=program.GREY, linewidth=0.8)
        time.plot(outputs[:, bit] + 3 * bit, color=program.BLUE)
    time.set(title="Pulses (grey) and what the network remembers (blue)", xlabel="step")
    time.set_yticks([0, 3, 6], ["bit 1", "bit 2", "bit 3"])


def main(options: Any) -> int:
    """Train the network, search its fixed points, and count them by unstable directions."""
    for_training, for_trials, for_search = jax.random.split(jax.random.key(options.seed), 3)
    rnn, readout = train(for_training, jnp.arange(options.updates))
    pulses, bits = map(np.asarray, trials(for_trials, 64))
    h = np.asarray(rnn_states(rnn, pulses).h)
    right = np.mean((np.sign(h @ readout) == bits)[bits != 0])
    visited = h.reshape(-1, N_NODES)
    points, unstable = fixed_points(rnn, visited, for_search)
    memories = np.unique(np.sign(points[unstable == 0] @ readout), axis=0)
    counts = np.bincount(unstable, minlength=4)
    print("fixed points by their unstable directions, from 0 on:", *counts)
    draw(options.plot, pulses[0], h[0] @ readout, visited, points, unstable)
    claims = {
        f"{right:.1%} of the bits are right": right > 0.98,
        f"{len(memories)} memories are stable fixed points": len(memories) == counts[0] == 8,
        f"{counts[1:].sum()} saddles lie between them": counts[1] >= 12,
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, updates=600)
