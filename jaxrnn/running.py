"""A run of a network, from the arguments as they come to the results of every step."""

from functools import partial
from typing import Any, Unpack

import jax

from jaxrnn.arguments import prepare_run
from jaxrnn.derivative import loop_by_rule
from jaxrnn.inputs import DEFAULTS, Inputs, Options
from jaxrnn.params import Params
from jaxrnn.plan import plan_for
from jaxrnn.recurrence import Trajectory, in_segments, loop


def run(params: Params, x: Any, h0: Any, **options: Unpack[Options]) -> Trajectory:
    """Run every step of a network.

    With `checkpoint_every` in segments: the backward pass keeps the states before them, and
    computes the others again (Griewank, "Achieving logarithmic growth of temporal and spatial
    complexity in reverse automatic differentiation", Optimization Methods and Software 1 (1992),
    35-54, with a single level).
    """
    options = DEFAULTS | options  # an option that is not given has its default
    params, inputs = prepare_run(params, x, h0, options)
    n_steps, every = inputs.n_steps, options["checkpoint_every"]
    if every is None or n_steps <= every:
        return _as_planned(params, inputs, options)

    def segment(size: int, h: jax.Array, now: Any) -> Any:
        # Cut out of the arrays of all steps: a scan would keep a copy of inputs in segments.
        part = inputs._replace(steps=inputs.steps.cut(now[0], size), h0=h)
        last, *states = _as_planned(params, part, options)
        return last, states

    def run_segment(size: int, *now: Any) -> Any:
        # A partial, not `static_argnums`, with which jax 0.10 keeps what an activation has read.
        return jax.checkpoint(partial(segment, size), prevent_cse=False)(*now)

    last, states = in_segments(run_segment, inputs.h0, None, n_steps, every, options["reverse"])
    return Trajectory(last, *states)


def _as_planned(params: Params, inputs: Inputs, options: Any) -> Trajectory:
    """Run every step in one segment, as planned."""
    if inputs.n_steps == 0:  # with `jax.disable_jit` a scan needs one
        nothing = inputs.h0[None][:0]
        return Trajectory(inputs.h0, nothing, nothing, None)
    plan = plan_for(params, inputs, options)
    inputs = jax.tree.map(lambda array: jax.lax.squeeze(array, plan.squeezed), inputs)
    looped = loop_by_rule if plan.by_rule or plan.derivative is not None else loop
    last, *states = looped(plan, params, inputs)
    expand = partial(jax.lax.expand_dims, dimensions=[axis + 1 for axis in plan.squeezed])
    return Trajectory(jax.lax.expand_dims(last, plan.squeezed), *jax.tree.map(expand, states))
