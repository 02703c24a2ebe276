"""A run of a network, from the arguments as they come to the results of every step."""

from functools import partial
from typing import Any, Unpack

import jax

from jaxrnn.arguments import prepare_run
from jaxrnn.derivative import run_by_rule
from jaxrnn.params import Params
from jaxrnn.plan import plan_for
from jaxrnn.recurrence import Trajectory, in_pieces, run_loop
from jaxrnn.run import DEFAULTS, Options, Run


def run(params: Params, x: Any, h0: Any, **options: Unpack[Options]) -> Trajectory:
    """Run every step of a network.

    With `checkpoint_every` in pieces: the backward pass keeps the states before them, and computes
    the others again (Griewank, "Achieving logarithmic growth of temporal and spatial complexity in
    reverse automatic differentiation", Optimization Methods and Software 1 (1992), 35-54, with a
    single level).
    """
    options = DEFAULTS | options  # an option that is not given has its default
    params, prepared = prepare_run(params, x, h0, options)
    n_steps, every = prepared.n_steps, options["checkpoint_every"]
    if every is None or n_steps <= every:
        return run_steps(params, prepared, options)

    def run_piece(size: int, h: jax.Array, inputs: Any) -> Any:
        # A partial, not `static_argnums`, with which jax 0.10 keeps what an activation has read.
        piece = partial(_run_piece, params, prepared, options, size)
        return jax.checkpoint(piece, prevent_cse=False)(h, inputs[0])

    last, states = in_pieces(run_piece, prepared.h0, None, n_steps, every, options["reverse"])
    return Trajectory(last, *states)


def _run_piece(params: Params, run: Run, options: Any, size: int, h: jax.Array, first: Any) -> Any:
    # Cut out of the arrays of all steps: a scan would keep a copy of inputs in pieces.
    run = run._replace(steps=run.steps.cut(first, size), h0=h)
    last, *states = run_steps(params, run, options)
    return last, states


def run_steps(params: Params, run: Run, options: Any) -> Trajectory:
    """Run every step in one piece, as planned."""
    if run.n_steps == 0:  # with `jax.disable_jit` a scan needs one
        nothing = run.h0[None][:0]
        return Trajectory(run.h0, nothing, nothing, None)
    plan = plan_for(params, run, options)
    run = jax.tree.map(lambda array: jax.lax.squeeze(array, plan.squeezed), run)
    last, *states = (run_by_rule if plan.by_rule else run_loop)(plan, params, run)
    expand = partial(jax.lax.expand_dims, dimensions=[axis + 1 for axis in plan.squeezed])
    return Trajectory(jax.lax.expand_dims(last, plan.squeezed), *jax.tree.map(expand, states))
