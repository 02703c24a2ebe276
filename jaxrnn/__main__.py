"""The notebook's worked example, then a laser's next value: `python -m jaxrnn`."""

import sys
from typing import Any

import jax
import numpy as np

from jaxrnn import RNNParams, rnn_forward
from jaxrnn.examples import laser, program


def run_worked_example() -> bool:
    """Print the notebook's example and whether every digit of it comes out."""
    x = np.array([[[1, 2], [2, 3], [3, 4]]]) / 100
    params = RNNParams(
        wx=np.array([[1, 3, 5, 7], [3, 5, 7, 8]]) / 100,
        wh=np.array([[1, 3, 5, 7], [2, 4, 6, 8], [3, 5, 7, 8], [4, 6, 8, 10]]) / 100,
        b=np.ones(4),
    )
    expected = np.array([[0.79494228, 0.81839002, 0.83939649, 0.85584174]])
    with jax.enable_x64(True):
        wide = np.asarray(rnn_forward(params, x))
    narrow = np.asarray(rnn_forward(params, x))
    print("The notebook's worked example, last hidden state")
    for name, h in (("notebook", expected), ("float64", wide), ("float32", narrow)):
        print(f"  {name:10}", *(f"{value:.8f}" for value in h[0]))
    return np.array_equal(np.round(wide, 8), expected) and np.allclose(narrow, expected, 1e-6, 0)


def main(options: Any) -> int:
    """Run both; the result is the exit status."""
    if not run_worked_example():
        print("the worked example is off", file=sys.stderr)
        return 1
    print(f"\n{laser.__doc__}")
    return laser.main(options)


if __name__ == "__main__":
    program.run(main, __doc__, members=8, updates=300)
