"""The vanilla (Elman) recurrent network as pure JAX functions."""

from jaxrnn.forward import rnn_forward, rnn_states, rnn_step
from jaxrnn.layers import LayerStates, init_stacked, rnn_bidirectional, rnn_stacked
from jaxrnn.params import LEARNABLE, RNNParams, init_params
from jaxrnn.recurrence import RNNStates

__version__ = "0.2.0"

__all__ = [
    "LEARNABLE",
    "LayerStates",
    "RNNParams",
    "RNNStates",
    "init_params",
    "init_stacked",
    "rnn_bidirectional",
    "rnn_forward",
    "rnn_stacked",
    "rnn_states",
    "rnn_step",
]
