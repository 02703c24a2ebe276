"""The vanilla (Elman) recurrent network as pure JAX functions.

    init_params(key, n_features, n_nodes, **LEARNABLE)   parameters to train, an RNNParams
    rnn_forward(params, x)                               the last state
    rnn_states(params, x)                                every state
    rnn_step(params, h, x_t)                             the state one step on
    mask_padding(array, lengths)                         zeros behind the lengths
    init_stacked(key, n_features, n_nodes)               the parameters of layers
    rnn_stacked(layers, x)                               the states of a network of layers
    rnn_bidirectional((forward, backward), x)            those of a layer in both directions

`x` is `(*batch, n_steps, n_features)`. `help(jaxrnn.rnn_forward)` has the equation and the options.
`jaxrnn.interop` has weights of other libraries and files, `jaxrnn.testing` tests of recurrences.
"""

from jaxrnn.forward import mask_padding, rnn_forward, rnn_states, rnn_step
from jaxrnn.layers import LayerStates, init_stacked, rnn_bidirectional, rnn_stacked
from jaxrnn.params import LEARNABLE, RNNParams, init_params
from jaxrnn.recurrence import RNNStates

__version__ = "0.3.0"

__all__ = ["LEARNABLE", "LayerStates", "RNNParams", "RNNStates", "init_params", "init_stacked"]
__all__ += ["mask_padding", "rnn_bidirectional", "rnn_forward", "rnn_stacked", "rnn_states"]
__all__ += ["rnn_step"]
