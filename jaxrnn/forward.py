"""The public functions of the vanilla RNN: one step, the last state, all states, and padding."""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrnn import running
from jaxrnn.arguments import as_array, as_padding, check_lengths, prepare_step
from jaxrnn.errors import require
from jaxrnn.inputs import Function, Options, zero_where
from jaxrnn.jitting import jitted
from jaxrnn.params import Params
from jaxrnn.plan import Plan
from jaxrnn.recurrence import RNNStates, cell, settle


@partial(jitted, has_loop=False)
def rnn_step(
    params: Params,
    h: ArrayLike,
    x_t: ArrayLike,
    *,
    activation: Function = jnp.tanh,
    rate: Function | None = None,
    leak: ArrayLike | None = None,
) -> jax.Array:
    """One step of the recurrence: `h + leak (activation(x_t wx + rate(h) wh + b) - h)`.

    Args:
      params: the network.
      h: the state before the step, `(*batch, n_nodes)`. It comes before the input, as the carry
        does in `jax.lax.scan`.
      x_t: the input of the step, `(*batch, n_features)`. The batch axes of `h` and `x_t` broadcast
        against each other: many states under one input, or one state under many inputs.
      activation: as in `rnn_forward`.
      rate: likewise.
      leak: likewise, but it broadcasts to `(*batch, n_nodes)`.

    Returns:
      The state after the step, `(*batch, n_nodes)`, in the dtype of `rnn_forward`.

    Raises:
      TypeError, ValueError: as `rnn_forward`.

    Example:
      Fixed points of the dynamics under a constant input, h = rnn_step(params, h, x), by Newton's
      method from many starts. A point attracts where all eigenvalues of the Jacobian there are
      within the unit circle (Sussillo and Barak, Neural Computation 25 (2013), 626-649).

        import jax
        import jax.numpy as jnp
        from jax.nn.initializers import normal
        from jaxrnn import init_params, rnn_step

        params = init_params(jax.random.key(1), 2, 16, wh_init=normal(0.45), b_init=normal(0.1))
        step = lambda h: rnn_step(params, h, jnp.zeros(2))  # the input is held constant
        jacobian = jax.jit(jax.vmap(jax.jacfwd(step)))
        h = jax.random.uniform(jax.random.key(1), (100, 16), minval=-1)
        for _ in range(30):
            h -= jnp.linalg.solve(jacobian(h) - jnp.eye(16), (step(h) - h)[..., None])[..., 0]
        h = h[jnp.max(jnp.abs(step(h) - h), axis=-1) < 1e-5]  # without starts that lead nowhere
        distance = jnp.max(jnp.abs(h[:, None] - h), axis=-1)
        points = h[~jnp.any(jnp.tril(distance < 1e-3, -1), axis=1)]  # each of them once
        eigenvalues = jnp.linalg.eigvals(jacobian(points))  # (n_points, n_nodes)
        attracts = jnp.max(jnp.abs(eigenvalues), axis=-1) < 1
        assert len(points) < len(h) and jnp.allclose(step(points), points, atol=1e-5)
        assert jnp.any(attracts) and not jnp.all(attracts)  # of both kinds

      Real-time recurrent learning: the gradient of a loss over all steps without a backward pass.
      `by_params` is the derivative of the state by every parameter, carried forward in time
      (Williams and Zipser, Neural Computation 1 (1989), 270-280).

        import jax
        import jax.numpy as jnp
        from jax.nn.initializers import normal
        from jaxrnn import init_params, rnn_states, rnn_step

        params = init_params(jax.random.key(0), 2, 16, wh_init=normal(0.5), b_init=normal(0.1))
        x = jax.random.normal(jax.random.key(1), (40, 2))
        loss = lambda h: jnp.sum(h**2)

        def learn(carry, x_t):
            h, by_params, gradient = carry
            direct, by_h = jax.jacfwd(rnn_step, argnums=(0, 1))(params, h, x_t)
            h = rnn_step(params, h, x_t)
            by_params = jax.tree.map(lambda d, p: d + jnp.tensordot(by_h, p, 1), direct, by_params)
            add = lambda g, p: g + jnp.tensordot(jax.grad(loss)(h), p, 1)
            return (h, by_params, jax.tree.map(add, gradient, by_params)), None

        by_params = jax.tree.map(lambda p: jnp.zeros((16, *p.shape)), params)
        start = jnp.zeros(16), by_params, jax.tree.map(jnp.zeros_like, params)
        (_, _, gradient), _ = jax.lax.scan(learn, start, x)
        expected = jax.grad(lambda params: loss(rnn_states(params, x).h))(params)
        close = lambda g, e: jnp.max(jnp.abs(g - e)) < 1e-5 * jnp.max(jnp.abs(e))
        assert jax.tree.all(jax.tree.map(close, gradient, expected))

      Lyapunov exponents of each sequence of a batch: the mean rates, a step, at which small
      differences of the state grow. Divided by dt they are rates in time. They follow from QR
      decompositions (Benettin et al., Meccanica 15 (1980), 21-30). In a warm-up the state and the
      directions of growth settle.

        import jax
        import jax.numpy as jnp
        from jax.nn.initializers import normal
        from jaxrnn import init_params, rnn_states, rnn_step

        params = init_params(jax.random.key(0), 2, 16, wh_init=normal(0.7), b_init=None)
        x = jax.random.normal(jax.random.key(1), (4, 250, 2))
        jacobian = jax.vmap(jax.jacfwd(rnn_step, argnums=1), in_axes=(None, 0, 0))

        def grow(carry, x_t):
            h, q = carry
            q, r = jnp.linalg.qr(jacobian(params, h, x_t) @ q)
            rates = jnp.log(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1)))
            return (rnn_step(params, h, x_t), q), rates

        start = jnp.zeros((4, 16)), jnp.broadcast_to(jnp.eye(16), (4, 16, 16))
        (h, q), _ = jax.lax.scan(grow, start, x[:, :50].swapaxes(0, 1))  # the warm-up
        _, rates = jax.lax.scan(grow, (h, q), x[:, 50:].swapaxes(0, 1))
        exponents = jnp.mean(rates, axis=0)  # (batch, n_nodes), the largest first

        last = lambda h: rnn_states(params, x[:, 50:], h).h[:, -1]
        _, growth = jax.jvp(last, (h,), (q[..., 0],))  # of the direction that grows most
        largest = jnp.log(jnp.linalg.norm(growth, axis=-1)) / 200
        assert jnp.allclose(exponents[:, 0], largest, atol=1e-4)
    """
    params, inputs = prepare_step(params, h, x_t, leak, activation, rate)
    _, f = cell(Plan(activation, rate), params, inputs.steps, inputs.h0)
    return settle(inputs.steps, inputs.leak, f, inputs.h0, inputs.h0)


@jitted
def rnn_forward(
    params: Params, x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> jax.Array:
    """The last hidden state of a vanilla (Elman) RNN run over a sequence.

        a_t = x_t wx + rate(h_{t-1}) wh + b
        h_t = h_{t-1} + leak_t (activation(a_t) - h_{t-1})      t = 1 .. n_steps

    Without a rate, rate(h) is h; without a leak, h_t is activation(a_t). Without both it is the
    network of Elman, "Finding structure in time", Cognitive Science 14 (1990), 179-211, without its
    output layer. `rnn_states` gives every step.

    Args:
      params: the network.
      x: the sequence, `(*batch, n_steps, n_features)`, with any number of batch axes.
      h0: the state before the first step. It broadcasts to `(*batch, n_nodes)`: `(n_nodes,)` is one
        initial state for the whole batch. None is zero.
      activation: any function of one step's `(*batch, n_nodes)` that treats each sequence alone and
        keeps shape and dtype. Most are elementwise. Layer normalisation over the nodes fits too,
        and so does a gain of each sequence. A function that mixes sequences is not noticed, and
        gives wrong results. It may read anything, such as a gain that is trained. A function of
        JAX itself is compiled once, and any other is traced in each call: put a `jax.jit` of your
        own around calls with a function of your own. The fast derivative is for `jnp.tanh`,
        `jax.nn.relu`, `jax.nn.sigmoid`, `jax.nn.softplus`, `jax.nn.identity`, `jax.lax.tanh` and
        `jax.lax.logistic` themselves. JAX differentiates others, a lambda around one of these
        included, step by step.
      rate: a function of the state before `wh`, of which all holds that is said of `activation`.
        None is the identity, and costs nothing. A network of currents has a leak, the activation
        `jax.nn.identity` and a rate such as `jnp.tanh`: `h` are the currents, `rate(h)` the rates.
      leak: how far each node moves from its state towards the activation, which broadcasts to
        `(*batch, n_steps, n_nodes)`: 0 holds the state, 1 is the network without a leak, and dt/tau
        is a rate network of time constant tau. Any number is taken, and it may be traced and
        differentiated. Where it is 0 the input must still be finite, as 0 times NaN is NaN. In the
        padding its value, NaN included, reaches nothing. None is 1.
      lengths: how many steps each sequence has, integers `(*batch,)` from 0 to n_steps. What comes
        after them in `x` is padding. In the padding the state stays as it is, and nothing that the
        padding contains, NaN included, reaches a value or a gradient. Length 0 gives `h0`. A length
        out of range is an error if it is a Python number, or in a NumPy array. The lengths in a JAX
        array, traced or not, are not checked: one out of range counts as the nearest in range.
      resets: bool `(*batch, n_steps)`. Where true, the state is set to `reset_to` before that step,
        as at the beginning of a sequence that is packed behind another. Resets in the padding do
        nothing.
      reset_to: the state after a reset, which broadcasts as `h0` does. None is zero. With `h0` it
        must be given, as resets must not return to a state that the call merely runs on from.
      reverse: run from the last step that is not padding to the first.
      checkpoint_every: store one state in this many for the backward pass, and compute the others
        again there. The memory is some n_steps / checkpoint_every + checkpoint_every states, which
        is least near the square root of n_steps, for up to a third more time. None stores all.
        Values and derivatives are the same, in every mode and order.
      unroll: steps in one iteration of the loop, or whether to unroll it fully, as in
        `jax.lax.scan`. None is what was fastest where it was measured: eight if the default backend
        of JAX is a GPU, and else one. Say 8 when you export a program on a CPU for a GPU. A
        symbolic n_steps allows None, 1 and False.

    Returns:
      The state after the last step that is run, `(*batch, n_nodes)`; `h0` where no step is run.
      Everything is computed in the dtype of the result: what all its arrays but masks promote to by
      JAX's rules, made floating. bfloat16 with float32 gives float32, integers with float32 give
      float32, integers alone give JAX's default, and float64 needs x64. NumPy arrays and Python
      numbers are taken; lists are not, as in JAX. Masked arrays and those of another byte order are
      not looked for: JAX misreads them once it has compiled a call. On GPUs, JAX drops bits of
      float32 in products unless its option `jax_default_matmul_precision` is "highest".

    Raises:
      TypeError: `params` is not an `RNNParams`, an array does not hold real numbers, `activation`
        or `rate` is not callable or changes shape or dtype, `lengths` are not integers or `resets`
        not bool, `reverse` is not a bool, `checkpoint_every` is not an integer, or `unroll` is
        neither an integer nor a bool.
      ValueError: shapes do not fit each other, a Python or NumPy length is out of range,
        `checkpoint_every` is less than 1 or given with a symbolic n_steps, `unroll` is less than
        0 or unrolls a symbolic n_steps, `reset_to` is given without `resets`, or `resets` and
        `h0` without `reset_to`.
      OverflowError: a Python number is too large for any dtype.

    Example:
      Sequences of 4 and 2 steps, where the padding of the second is NaN.

        import jax
        import jax.numpy as jnp
        from jaxrnn import LEARNABLE, init_params, rnn_forward

        params = init_params(jax.random.key(0), 3, 16, **LEARNABLE)
        x = jax.random.normal(jax.random.key(1), (2, 4, 3)).at[1, 2:].set(jnp.nan)
        h = rnn_forward(params, x, lengths=jnp.array([4, 2]))
        assert jnp.allclose(h[1], rnn_forward(params, x[1, :2]), atol=1e-6)

      A gradient through 20,000 steps, in less than a twentieth of the memory.

        x = jax.random.normal(jax.random.key(1), (20_000, 3))

        def temporary_bytes(every):
            last = lambda params: jnp.sum(rnn_forward(params, x, checkpoint_every=every))
            compiled = jax.jit(jax.grad(last)).lower(params).compile()
            return compiled.memory_analysis().temp_size_in_bytes

        assert temporary_bytes(141) < temporary_bytes(None) / 20
    """
    return running.run(params, x, h0, **options).last


@jitted
def rnn_states(
    params: Params, x: ArrayLike, h0: ArrayLike | None = None, **options: Unpack[Options]
) -> RNNStates[jax.Array]:
    """Every pre-activation and every hidden state of a vanilla RNN run over a sequence.

    Arguments, dtype and errors are those of `rnn_forward`. If there is at least one step, its
    result is `h[..., -1, :]` here, or `h[..., 0, :]` with `reverse`.

    Returns:
      `RNNStates(a, h)`, each `(*batch, n_steps, n_nodes)`. Each step stands beside its input in
      `x`, with `reverse` too. In the padding `a` is zero, and `h` is the state that the run holds
      there: the last real state, or with `reverse` `h0`. Inside `jax.jit`, a field that is not used
      is not stored. For the last state alone, call `rnn_forward`, which stores neither.

    Example:
      Truncated backpropagation through time: each piece runs on from the last state of the piece
      before, and the gradient stops there.

        import jax
        import jax.numpy as jnp
        from jaxrnn import LEARNABLE, init_params, rnn_states

        params = init_params(jax.random.key(0), 3, 16, **LEARNABLE)
        x = jax.random.normal(jax.random.key(1), (32, 100, 3))

        def loss(params, piece, h0):
            h = rnn_states(params, piece, h0).h
            return jnp.mean(h**2), h[..., -1, :]

        h = jnp.zeros(16)
        for piece in jnp.split(x, 5, axis=-2):
            gradient, h = jax.grad(loss, has_aux=True)(params, piece, jax.lax.stop_gradient(h))
        assert jnp.allclose(h, rnn_states(params, x).h[:, -1], atol=1e-5)

      Sequences of 4 and 7 steps, packed one behind the other.

        packed = x[0, :11]
        h = rnn_states(params, packed, resets=jnp.isin(jnp.arange(11), jnp.array([0, 4]))).h
        assert jnp.allclose(h[4:], rnn_states(params, packed[4:]).h, atol=1e-5)

      A policy with memory, by reinforcement (Williams, Machine Learning 8 (1992), 229-256). An
      episode shows its cue, -1 or 1, in the first of five steps. In the last the action must be the
      cue. `rnn_step` acts; `rnn_states` runs the same parameters over the rollout, to learn.

        import jax
        import jax.numpy as jnp
        import optax
        from jaxrnn import LEARNABLE, init_params, rnn_states, rnn_step

        def act(params, world, key):
            (rnn, readout), (t, cue, h) = params, world
            for_action, for_cue = jax.random.split(key)
            x_t = jnp.stack([jnp.where(t == 0, cue, 0), jnp.float32(t == 4)], axis=-1)
            h = rnn_step(rnn, jnp.where((t == 0)[:, None], 0, h), x_t)
            is_one = jax.random.bernoulli(for_action, jax.nn.sigmoid(h @ readout))
            action = jnp.where(is_one, 1.0, -1.0)
            reward = jnp.where(t == 4, action * cue, 0)
            cue = jnp.where(t == 4, jax.random.rademacher(for_cue, (64,), float), cue)
            return ((t + 1) % 5, cue, h), (x_t, t == 0, action, reward, h)

        def loss(params, h0, x, done, action, reward):
            rnn, readout = params
            h = rnn_states(rnn, x.swapaxes(0, 1), h0, resets=done.T, reset_to=0).h.swapaxes(0, 1)
            return -jnp.mean(reward * jax.nn.log_sigmoid(action * (h @ readout))), h

        def update(state, key):
            params, moments, world = state
            keys = jax.random.split(key, 20)  # 20 steps in 64 environments
            new, (*rollout, acted) = jax.lax.scan(lambda w, k: act(params, w, k), world, keys)
            gradient, h = jax.grad(loss, has_aux=True)(params, world[2], *rollout)
            changes, moments = optimiser.update(gradient, moments)
            state = optax.apply_updates(params, changes), moments, new
            return state, (jnp.sum(rollout[-1]) / (4 * 64), jnp.max(jnp.abs(h - acted)))

        optimiser = optax.adam(0.01)
        params = init_params(jax.random.key(0), 2, 16, **LEARNABLE), jnp.zeros(16)
        world = jnp.arange(64) % 5, jnp.ones(64), jnp.zeros((64, 16))
        train = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))
        keys = jax.random.split(jax.random.key(1), 60)
        _, (score, differences) = train((params, optimiser.init(params), world), keys)
        assert jnp.mean(score[-5:]) > 0.9  # 1 is best, and chance is 0
        assert jnp.max(differences) < 1e-5

      A flip-flop: the output of a leaky, noisy network with Dale's law is to be the last pulse.
      Newton's method then finds a stable fixed point for each sign, and one between them that
      repels.

        import jax
        import jax.numpy as jnp
        import optax
        from jaxrnn import RNNParams, rnn_forward, rnn_states, rnn_step

        sign = jnp.repeat(jnp.array([1.0, -1.0]), jnp.array([16, 4]))  # 4 of 20 nodes inhibit
        options, optimiser = {"activation": jax.nn.relu, "leak": 0.5}, optax.adam(0.03)
        dale = lambda raw: RNNParams(raw.wx, sign[:, None] * jnp.abs(raw.wh), raw.b)

        def error(trained, key):
            (wx, wh, b), readout = dale(trained[0]), trained[1]
            for_x, for_noise = jax.random.split(key)
            pulses = jax.random.uniform(for_x, (32, 30), minval=-1.1, maxval=1.1)
            x = jnp.trunc(pulses)  # 0, -1 or 1
            hold = lambda old, new: jnp.where(new == 0, old, new)
            target = jax.lax.associative_scan(hold, x, axis=1)
            drive = x[..., None] * wx + 0.1 * jax.random.normal(for_noise, (32, 30, 20))
            h = rnn_states(RNNParams(None, wh, b), drive, **options).h
            return jnp.mean((h @ readout - target) ** 2)

        def update(state, key):
            trained, moments = state
            value, gradient = jax.value_and_grad(error)(trained, key)
            changes, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(trained, changes), moments), value

        wx, wh, readout = jnp.split(jax.random.normal(jax.random.key(0), (22, 20)), [1, 21])
        wh *= 0.3 / jnp.where(sign > 0, 4, 1)[:, None]
        start = RNNParams(wx, wh, jnp.zeros(20)), readout[0] / 20
        train = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))
        keys = jax.random.split(jax.random.key(1), 500)
        (trained, _), errors = train((start, optimiser.init(start)), keys)
        assert jnp.mean(errors[-20:]) < 0.05  # an output of zero has some 0.7

        params, readout = dale(trained[0]), trained[1]
        step = lambda h: rnn_step(params, h, jnp.zeros(1), **options)
        pulses = jnp.zeros((2, 100, 1)).at[:, 0, 0].set(jnp.array([-1.0, 1.0]))
        low, high = rnn_forward(params, pulses, **options)
        h = low + jnp.linspace(0, 1, 33)[:, None] * (high - low)
        slopes = jax.jit(jax.vmap(jax.jacfwd(step)))
        for _ in range(10):
            h -= jnp.linalg.solve(slopes(h) - jnp.eye(20), (step(h) - h)[..., None])[..., 0]
        size = jnp.max(jnp.abs(jnp.linalg.eigvals(slopes(h))), axis=-1)  # the largest eigenvalue's
        fixed = jnp.max(jnp.abs(step(h) - h), axis=-1) < 1e-4
        assert jnp.allclose(h[jnp.array([0, -1])] @ readout, jnp.array([-1.0, 1.0]), atol=0.25)
        assert fixed[0] and fixed[-1] and size[0] < 1 and size[-1] < 1
        assert jnp.any(fixed & (size > 1))
    """
    return running.run(params, x, h0, **options).states()


def mask_padding(array: ArrayLike, lengths: ArrayLike) -> jax.Array:
    """Zeros behind the lengths: of each sequence the first `lengths` steps, and 0 in its padding.

    Inside a call with `lengths`, nothing in the padding reaches a value or a gradient. Outside, NaN
    there does: the gradient of `x @ wx` by `wx`, of a loss by what it compares, multiplies it by 0.
    So mask what you compute from padded arrays: inputs before, targets and losses after the call.

    Args:
      array: `(*batch, n_steps, ...)`, of real numbers: inputs, time steps, targets, losses.
      lengths: integers `(*batch,)`, as in `rnn_forward`.

    Returns:
      An array like `array`.

    Raises:
      TypeError, ValueError: `array` is not one of real numbers, `lengths` are not integers, they do
        not fit each other, or a Python or NumPy length is out of range.

    Example:
        import jax
        import jax.numpy as jnp
        from jaxrnn import LEARNABLE, init_params, mask_padding, rnn_states

        x = jnp.ones((2, 4, 3)).at[1, 2:].set(jnp.nan)  # and so the targets below
        lengths = jnp.array([4, 2])

        def loss(params, target):
            h = rnn_states(params, x, lengths=lengths).h
            errors = jnp.sum(h, axis=-1) - mask_padding(target, lengths)
            return jnp.sum(mask_padding(errors**2, lengths)) / jnp.sum(lengths)

        gradient = jax.grad(loss)(init_params(jax.random.key(0), 3, 8, **LEARNABLE), x[..., 0])
        assert jnp.all(jnp.isfinite(gradient.wx))
    """
    array, n_axes = as_array("array", array), jnp.ndim(lengths)
    expected = f"of shape (*batch, n_steps, ...) with {n_axes} axes of the batch, as lengths have"
    require(array.ndim > n_axes, "array", expected, array, ValueError)
    batch = array.shape[:n_axes]
    check_lengths(lengths, array.shape[n_axes])
    is_padding = as_padding(lengths, array, batch, f"to fit array of shape {array.shape}")
    others = tuple(range(is_padding.ndim, array.ndim))
    return zero_where(jnp.expand_dims(is_padding, others), array)
