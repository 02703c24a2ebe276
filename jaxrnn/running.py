"""A run of a network, from the arguments as they come to the results of every step."""

from functools import partial
from typing import Any, Unpack

import jax

from jaxrnn.arguments import prepare_run
from jaxrnn.derivative import run_by_rule
from jaxrnn.params import Params
from jaxrnn.pieces import in_pieces
from jaxrnn.plan import plan_for
from jaxrnn.recurrence import Trajectory, run_loop
from jaxrnn.run import Options, Run


def run(params: Params, x: Any, h0: Any, **options: Unpack[Options]) -> Trajectory:
    """Run every step of a network.

    With `checkpoint_every` in pieces: the backward pass keeps the states before them, and computes
    the others again (Griewank, "Achieving logarithmic growth of temporal and spatial complexity in
    reverse automatic differentiation", Optimization Methods and Software 1 (1992), 35-54, with a
    single level).
    """
    params, prepared = prepare_run(params, x, h0, **options)
    every = prepared.checkpoint_every
    if every is None or prepared.n_steps <= every:
        return run_steps(params, prepared)

    def run_piece(size: int, h: jax.Array, inputs: Any) -> Any:
        # Without its `static_argnums`, for which jax 0.10 would keep what the activation reads.
        piece = partial(_run_piece, params, prepared, size)
        return jax.checkpoint(piece, prevent_cse=False)(h, inputs[0])

    n_steps, reverse = prepared.n_steps, prepared.reverse
    last, of_steps = in_pieces(run_piece, prepared.h0, None, n_steps, every, reverse)
    return Trajectory(last, *of_steps)


def _run_piece(params: Params, run: Run, size: int, h: jax.Array, first: Any) -> tuple[Any, Any]:
    # Cut out of the arrays of all steps: a scan would keep a copy of inputs in pieces.
    last, *of_steps = run_steps(params, run.cut(first, size, h))
    return last, of_steps


def run_steps(params: Params, run: Run) -> Trajectory:
    """Run every step in one piece, as planned."""
    if isinstance(run.n_steps, int) and run.n_steps == 0:  # with `jax.disable_jit` a scan needs one
        nothing = run.h0[None][:0]
        return Trajectory(run.h0, nothing, nothing, None)
    plan = plan_for(params, run)
    run = jax.tree.map(lambda array: jax.lax.squeeze(array, plan.squeezed), run)
    loop = run_by_rule if plan.by_rule else run_loop
    last, *of_steps = loop(plan, params, run)
    last = jax.lax.expand_dims(last, plan.squeezed)
    after_time = [axis + 1 for axis in plan.squeezed]
    expand = partial(jax.lax.expand_dims, dimensions=after_time)
    return Trajectory(last, *jax.tree.map(expand, of_steps))
