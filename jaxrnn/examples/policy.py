"""A policy with memory learns by reinforcement, eight seeds side by side under one `vmap`.

An episode shows its cue, -1 or 1, in the first of twenty steps. In the last the action must be the
cue: the reward is 1 if it is, and else -1. `rnn_step` acts in many environments at once.
`rnn_states` then runs the same parameters over the rollout, with `resets` where episodes begin, and
its gradient is that of REINFORCE (Williams, Machine Learning 8 (1992), 229-256).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.example_libraries import optimizers

from jaxrnn import LEARNABLE, init_params, rnn_states, rnn_step
from jaxrnn.examples import program

N_NODES, N_SEEDS, N_WORLDS, EPISODE = 16, 8, 32, 20
ROLLOUT, WINDOW = 2 * EPISODE, 10  # steps of one update, and updates that are shown together
init_adam, update_adam, policy_of = optimizers.adam(0.002)


def act(policy: Any, world: Any, key: jax.Array) -> tuple[Any, Any]:
    """One step in all environments: the worlds after it, and what is to be learnt from."""
    (rnn, readout), (t, cue, h) = policy, world
    for_action, for_cue = jax.random.split(key)
    x_t = jnp.stack([jnp.where(t == 0, cue, 0), t == EPISODE - 1], axis=-1)
    h = rnn_step(rnn, jnp.where((t == 0)[:, None], 0, h), x_t)
    is_one = jax.random.bernoulli(for_action, jax.nn.sigmoid(h @ readout))
    action = jnp.where(is_one, 1.0, -1.0)
    reward = jnp.where(t == EPISODE - 1, action * cue, 0)
    cue = jnp.where(t == EPISODE - 1, jax.random.rademacher(for_cue, (N_WORLDS,), float), cue)
    return ((t + 1) % EPISODE, cue, h), (x_t, t == 0, action, reward, h)


def loss(policy: Any, h0: jax.Array, x: Any, resets: Any, action: Any, reward: Any) -> Any:
    """REINFORCE over a rollout, whose arrays have time first, and all states."""
    rnn, readout = policy
    h = rnn_states(rnn, x.swapaxes(0, 1), h0, resets=resets.T, reset_to=0).h.swapaxes(0, 1)
    return -jnp.mean(reward * jax.nn.log_sigmoid(action * (h @ readout))), h


def update(carry: Any, at: Any) -> tuple[Any, Any]:
    """Act, then learn: the mean reward, and how far the states of acting and learning differ."""
    (adam, world), (i, key) = carry, at
    policy = policy_of(adam)
    keys = jax.random.split(key, ROLLOUT)
    new, (*rollout, acted) = jax.lax.scan(partial(act, policy), world, keys)
    gradient, h = jax.grad(loss, has_aux=True)(policy, world[2], *rollout)
    score = jnp.sum(rollout[-1]) / (N_WORLDS * ROLLOUT / EPISODE)
    return (update_adam(i, gradient, adam), new), (score, jnp.max(jnp.abs(h - acted)))


def train(key: jax.Array, updates: jax.Array) -> Any:
    """What every update of one seed gives."""
    for_policy, for_cue, for_updates = jax.random.split(key, 3)
    policy = init_params(for_policy, 2, N_NODES, **LEARNABLE), jnp.zeros(N_NODES)
    cue = jax.random.rademacher(for_cue, (N_WORLDS,), float)
    world = jnp.arange(N_WORLDS) % EPISODE, cue, jnp.zeros((N_WORLDS, N_NODES))
    keys = jax.random.split(for_updates, updates.size)
    return jax.lax.scan(update, (init_adam(policy), world), (updates, keys))[1]


@program.draws
def draw(figure: Any, scores: Any) -> None:
    """Draw the learning curve of each seed, their median, and their quartiles."""
    axes = figure.subplots()
    updates = np.arange(WINDOW, WINDOW * (scores.shape[1] + 1), WINDOW)
    low, median, high = np.percentile(scores, [25, 50, 75], axis=0)
    axes.fill_between(updates, low, high, color="#a8c8fa", label="quartiles")
    axes.plot(updates, scores.T, color=program.GREY, linewidth=0.5)
    axes.plot(updates, median, color=program.BLUE, linewidth=2, label="median of eight seeds")
    axes.axhline(0, color="black", linestyle=":", linewidth=0.8)
    axes.set(title="Learning to act on a cue of 19 steps ago", xlabel="updates", ylim=(-0.15, 1.05))
    axes.set_ylabel("mean reward of an episode (chance: 0, best: 1)")
    axes.legend(loc="center right")


def main(options: Any) -> int:
    """Train all seeds, and print how their rewards grow."""
    keys = jax.random.split(jax.random.key(options.seed), N_SEEDS)
    train_all = jax.jit(jax.vmap(train, in_axes=(0, None)))
    scores, differences = map(np.asarray, train_all(keys, jnp.arange(options.updates)))
    parts = range(0, options.updates, WINDOW)  # the means over them are shown
    scores = np.stack([scores[:, n : n + WINDOW].mean(axis=1) for n in parts], axis=1)
    print("updates   worst seed   median   best seed")
    for n, each in zip(parts, scores.T, strict=True):
        print(
            "{:7} {:12.2f} {:8.2f} {:11.2f}".format(n + WINDOW, *np.percentile(each, [0, 50, 100]))
        )
    draw(options.plot, scores)
    last = np.median(scores[:, -1])
    claims = {
        f"the median seed comes to a reward of {last:.2f}": last > 0.9,
        f"acting and learning differ by {differences.max():.0e}": differences.max() < 1e-4,
    }
    return program.conclude(claims)


if __name__ == "__main__":
    program.run(main, __doc__, updates=300)
