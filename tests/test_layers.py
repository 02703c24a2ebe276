"""Networks of layers, in one direction or both: how they are put together, and drawn.

That values and gradients are the oracle's is in `test_plan.py`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import constant, glorot_uniform

from jaxrnn import RNNParams, init_stacked, rnn_stacked
from tests.helpers import X, assert_close, assert_equal, numbers_like

KEY = jax.random.key(0)


draw: Any = partial(init_stacked, n_features=3, n_nodes=(4, 5), bidirectional=True)
NETWORK: Any = jax.tree.map(lambda array: array / 2, numbers_like(jax.eval_shape(draw, KEY)))


def test_dropout_is_between_layers() -> None:
    """Seen through layers that return their input: relu with wx the identity."""
    of_positive = RNNParams(np.ones((3, 500)), np.zeros((500, 500)), np.ones(500))
    identity = of_positive._replace(wx=np.eye(500), b=np.zeros(500))
    layers, x = (of_positive, identity, identity), np.abs(X[0])

    def run(key: Any, *layers: Any, dropout: float = 0.25) -> Any:
        out = rnn_stacked(layers, x, dropout=dropout, key=key, activation=jax.nn.relu)
        return jax.tree.map(np.asarray, out)

    whole, dropped = run(None, *layers), run(KEY, *layers)
    scales = dropped.h / whole.h
    stays = scales > 0
    np.testing.assert_allclose(scales, np.where(stays, 1 / 0.75**2, 0), rtol=1e-6)
    assert abs(stays.mean() - 0.75**2) < 0.02  # the mean of 9000, drawn anew between two layers
    assert 0 < stays[:, 0].mean() < 1  # drawn anew for each step, sequence and node
    assert 0 < stays[:, :, 0].mean() < 1
    assert_equal(dropped.last[0], whole.last[0])
    assert_equal(run(KEY, *layers), dropped)
    other = run(jax.random.key(1), *layers)
    assert np.any(other.h != dropped.h)
    options: Any = {"dropout": 0.25, "activation": jax.nn.relu}
    of_keys: Any = jax.vmap(lambda key: rnn_stacked(layers, x, key=key, **options).h)
    keys = jnp.stack([KEY, jax.random.key(1)])
    assert_close(of_keys(keys), np.stack([dropped.h, other.h]), 1e-6)
    assert_equal(run(KEY, *layers, dropout=0.0), whole)
    assert_equal(run(KEY, of_positive), run(None, of_positive))

    @jax.jit
    def pulled(key: Any, layers: Any, g: Any) -> Any:
        def h(first: Any) -> Any:
            return rnn_stacked((first, *layers), x, key=key, **options).h

        return jax.vjp(h, of_positive)[1](jnp.asarray(g))

    ones = np.ones_like(scales)
    assert_close(pulled(KEY, layers[1:], ones), pulled(None, (), scales), 1e-4)


def test_initialisation() -> None:
    def shapes(tree: Any) -> Any:
        return jax.tree.map(jnp.shape, tree)

    network: Any = init_stacked(KEY, 3, (4, 5), bidirectional=True, wx_init=glorot_uniform())
    lower, upper = RNNParams((3, 4), (4, 4), (4,)), RNNParams((8, 5), (5, 5), (5,))
    assert shapes(network) == ((lower,) * 2, (upper,) * 2)
    squares = [layer.wh for pair in network for layer in pair]
    drawn = np.concatenate(list(map(np.ravel, squares)))
    assert len(np.unique(drawn)) == len(drawn)  # each array has a key of its own
    options: Any = {"wh_init": constant(2.0), "b_init": None, "dtype": jnp.float16}
    one_way: Any = init_stacked(KEY, 3, (4, 4), **options)
    both_ways: Any = init_stacked(KEY, 3, (4,), bidirectional=True, **options)
    of_inputs, of_states = RNNParams((3, 4), (4, 4), None), RNNParams((4, 4), (4, 4), None)
    assert shapes((one_way, both_ways)) == ((of_inputs, of_states), ((of_inputs, of_inputs),))
    for layer in (*one_way, *both_ways[0]):
        assert_equal(layer.wh, jnp.full((4, 4), 2, jnp.float16))
        assert layer.wx.dtype == jnp.float16
    # Sizes whose double does not fit into their type.
    narrow = jax.eval_shape(lambda: draw(KEY, n_nodes=[np.uint8(200), np.uint8(4)]))
    assert narrow[1][0].wx.shape == (400, 4)


def test_profiles_name_layers_and_directions() -> None:
    text = jax.jit(rnn_stacked).lower(NETWORK, X).as_text(debug_info=True)
    assert all(f"layer_{i}/{way}" in text for i in (0, 1) for way in ("forward", "backward"))
