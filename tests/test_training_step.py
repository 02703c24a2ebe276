"""A training step as PsychRNN has it: currents, Dale's law, a mask, noise, a trained initial state.

Ehrlich et al., "PsychRNN: an accessible and flexible Python package for training recurrent neural
network models on cognitive tasks", eNeuro 8 (2021). The task is to say which of two pulses was the
larger.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import RNNParams, rnn_states
from tests.helpers import assert_close, numbers

N_TRIALS, N_STEPS, N_NODES, LEAK, NOISE = 8, 30, 10, 0.2, 0.1
SIGN = np.where(np.arange(N_NODES) < 8, 1.0, -1.0)  # of what leaves a node
EXISTS = numbers((N_NODES, N_NODES), seed=1)[0] > -0.6

TRAINED = dict(
    zip(
        ("wx", "wh", "b", "h0", "readout"),
        numbers((1, N_NODES), (N_NODES, N_NODES), (N_NODES,), (N_NODES,), (N_NODES, 2)),
        strict=True,
    )
)


def trials() -> tuple[Any, Any, Any]:
    """Two pulses of random sizes, which of them was the larger, and noise of unit variance."""
    random = np.random.default_rng(0)
    sizes = random.uniform(0.5, 1.5, (N_TRIALS, 2))
    x = np.zeros((N_TRIALS, N_STEPS, 1))
    x[:, 3:6], x[:, 15:18] = sizes[:, :1, None], sizes[:, 1:, None]
    return x, np.argmax(sizes, axis=1), random.normal(size=(N_TRIALS, N_STEPS, N_NODES))


def loss(trained: Any, x: Any, larger: Any, noise: Any) -> Any:
    """As a user of jaxrnn writes it: the error of the readout in the last ten steps."""
    wh = jnp.where(EXISTS, SIGN[:, None] * jnp.abs(trained["wh"]), 0)
    # In the drive it is divided by the leak, to have the scale that it has on the state.
    drive = x @ trained["wx"] + trained["b"] + jnp.sqrt(2 / LEAK) * NOISE * noise
    options: Any = {"activation": jax.nn.identity, "rate": jax.nn.relu, "leak": LEAK}
    h = rnn_states(RNNParams(None, wh, None), drive, trained["h0"], **options).h
    out = jax.nn.relu(h) @ trained["readout"]
    target = jax.nn.one_hot(larger, 2)[:, None]
    return jnp.mean((out[:, -10:] - target) ** 2)


def loss_and_gradient(wx: Any, wh: Any, b: Any, h0: Any, readout: Any, *task: Any) -> Any:
    """The same in NumPy, step by step, with backpropagation written out."""
    x, larger, noise = task
    weights = EXISTS * SIGN[:, None] * abs(wh)
    h = [np.tile(h0, (N_TRIALS, 1))]
    for t in range(N_STEPS):
        drive = x[:, t] @ wx + np.maximum(h[-1], 0) @ weights + b
        h.append((1 - LEAK) * h[-1] + LEAK * drive + np.sqrt(2 * LEAK) * NOISE * noise[:, t])
    rates = np.maximum(h, 0)
    difference = rates[-10:] @ readout - np.eye(2)[larger]
    by_out = 2 * difference / difference.size
    by_h, by_wx, by_weights, by_b = np.zeros_like(h[0]), 0 * wx, 0 * wh, 0 * b
    for t in reversed(range(N_STEPS)):
        if t >= N_STEPS - 10:
            by_h = by_h + (by_out[t - N_STEPS] @ readout.T) * (h[t + 1] > 0)
        by_drive = LEAK * by_h
        by_wx, by_b = by_wx + x[:, t].T @ by_drive, by_b + by_drive.sum(axis=0)
        by_weights = by_weights + rates[t].T @ by_drive
        by_h = (1 - LEAK) * by_h + (by_drive @ weights.T) * (h[t] > 0)
    gradient = {
        "wx": by_wx,
        "wh": by_weights * EXISTS * SIGN[:, None] * np.sign(wh),
        "b": by_b,
        "h0": by_h.sum(axis=0),
        "readout": np.einsum("tbn,tbo->no", rates[-10:], by_out),
    }
    return np.mean(difference**2), gradient


def test_a_training_step_is_that_of_a_plain_loop() -> None:
    task = trials()
    expected, by_hand = loss_and_gradient(*TRAINED.values(), *task)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        value, gradient = jax.jit(jax.value_and_grad(loss))(TRAINED, *task)
    assert_close(value, expected, 1e-10)
    assert_close(gradient, by_hand, 1e-8)
    assert all(np.any(each) for each in by_hand.values())
