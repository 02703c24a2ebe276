"""How to run a network: every decision that depends on sizes, on a mesh or the backend.

`python -m bench` measures the speeds behind the numbers here.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.activations import tangent_of
from jaxrnn.inputs import Function, Inputs
from jaxrnn.params import Params
from jaxrnn.sharing import may_be_shared, spec_of

# A batch whose step has up to this many multiplications, not counting those that `jax.vmap` adds,
# and weights of up to so many rows, computes the products of the loop forward as sums of written
# out terms. XLA on CPUs then compiles the whole loop as one function, where it would call a library
# for each product, which takes longer than the arithmetic (jax 0.12).
FEW_MULTIPLICATIONS = 4096
FEW_ROWS = 32

# For up to this many steps the rule would cost more than it saves (jax 0.12).
FEW_STEPS = 4

# For up to so many steps, and for fewer nodes in small batches, the weights are multiplied step by
# step: a product of all steps has to be handed over to a library, which takes longer (jax 0.12).
SOME_STEPS, SOME_NODES = 16, 4

# Up to so many steps a small batch has one segment: a loop over two or more would take longer.
STEPS_OF_ONE_SEGMENT = 64

# With fewer steps, one sequence has no segments, nor has a derivative by the bias or the state
# alone: they would cost up to 13 % more time (jax 0.12). With more they cost nothing, and one sum
# over all steps would err by 40 epsilons.
MANY_STEPS = 4096

# XLA launches the kernels of so many steps together on GPUs (jax 0.11), and on TPUs a loop of one
# step waits for memory (by XLA's own estimate, jax 0.12).
STEPS_ON_ACCELERATORS = 8


class Plan(NamedTuple):
    """How to run a network.

    Attributes:
      activation: as in `rnn_forward`.
      rate: likewise.
      reverse: likewise.
      unroll: steps in one iteration of a loop over steps, as in `jax.lax.scan`.
      squeezed: the batch axes of one entry that are left out, as XLA on CPUs is faster on a vector
        than on a matrix of one row.
      by_rule: whether the derivative is the rule of `derivative.py`, in place of JAX's own.
      as_sums: whether the loop forward computes the products of a step as sums.
      inputs_first: whether `x wx + b` of all steps is computed before the loop.
      segment: how many steps the rule takes together, in sums and in products; None is all.
      at_once: whether the rule multiplies the inputs and states of a segment by the tangents of
        their weights in one product, not step by step.
      shared: whether devices may each hold a part of the batch, and XLA communicates between them,
        which it does not inside `jax.shard_map`; False where it changes nothing.
    """

    activation: Function = jnp.tanh
    rate: Function | None = None
    reverse: bool = False
    unroll: int = 1
    squeezed: tuple[int, ...] = ()
    by_rule: bool = False
    as_sums: bool = False
    inputs_first: bool = False
    segment: int | None = None
    at_once: bool = False
    shared: bool = False


PLAIN = Plan()  # by JAX's own derivative


def plan_for(params: Params, inputs: Inputs, options: dict[str, Any]) -> Plan:
    """Decide how to run a network, from its functions, its sizes and its devices."""
    x, n_steps, backend = inputs.steps.x, inputs.n_steps, jax.default_backend()
    is_symbolic = not isinstance(n_steps, int)
    n = SOME_STEPS if is_symbolic else n_steps  # comparisons with a symbol may be undecidable
    unroll = 1 if backend == "cpu" or is_symbolic else STEPS_ON_ACCELERATORS
    given: dict[str, Any] = {name: options[name] for name in ("activation", "rate", "reverse")}
    given["unroll"] = unroll if options["unroll"] is None else options["unroll"]
    if backend == "tpu":
        # Never timed. By XLA's estimate of cycles for a v5e this is the best scan by hand, and the
        # rule takes 2 to 16 times as many (jax 0.12).
        return PLAIN._replace(**given, inputs_first=True)
    # The rule computes a rate several times: of one as dear as softplus, JAX's own, which
    # keeps the slope, takes 0.6 to 0.8 times as long (jax 0.12).
    slopes = tangent_of(options["activation"]), tangent_of(options["rate"])
    if None in slopes or options["rate"] is jax.nn.softplus:
        # Not squeezed, as a function of the user's may read a value of each sequence.
        return PLAIN._replace(**given)
    axes = enumerate(zip(inputs.h0.shape[:-1], spec_of(x), strict=False))
    squeezed = given["squeezed"] = tuple(axis for axis, each in axes if each == (1, None))
    is_single = len(squeezed) == inputs.h0.ndim - 1
    is_short = is_single and n < MANY_STEPS
    if n <= FEW_STEPS or (is_short and inputs.leak_of(inputs.steps) is not None):
        return PLAIN._replace(**given)
    plan = Plan(by_rule=True, as_sums=not is_single and _is_small(params, inputs))
    # On accelerators a step costs what it launches, even for one sequence.
    given["inputs_first"] = backend != "cpu" and not plan.as_sums
    # Devices would add up the gradients of the weights once a segment, so there is one segment.
    shared = given["shared"] = not (is_symbolic or is_short) and may_be_shared(x)
    is_little = n <= SOME_STEPS or (plan.as_sums and inputs.h0.shape[-1] < SOME_NODES)
    by_step = is_symbolic or (backend == "cpu" and (is_single or is_little))
    given["at_once"] = shared or not by_step
    is_whole = is_short or (is_little and n < MANY_STEPS)
    is_whole |= shared or (plan.as_sums and n <= STEPS_OF_ONE_SEGMENT)
    given["segment"] = None if is_whole else near_root(n)
    return plan._replace(**given)


def plan_derivative(plan: Plan, inputs: Inputs, dparams: Params, dinputs: Inputs) -> Plan:
    """The plan of the rule, from which tangents there are; the others are None."""
    if plan.shared or any(each is not None for each in (dparams.wx, dparams.wh, dinputs.steps.x)):
        return plan
    # By the bias, the state or the leak alone: most often many derivatives at once, in a Jacobian
    # or a Hessian. There is nothing to multiply at once.
    segment = plan.segment if plan.segment and inputs.n_steps >= MANY_STEPS else None
    return plan._replace(at_once=False, segment=segment)


def _is_small(params: Params, inputs: Inputs) -> bool:
    """Whether the sequences are so few and narrow that products are best computed as sums."""
    n_rows = [weights.shape[0] for weights in (params.wx, params.wh) if weights is not None]
    n = math.prod(inputs.h0.shape) * sum(n_rows)  # it may be symbolic
    is_few = isinstance(n, int) and 0 < n <= FEW_MULTIPLICATIONS and max(n_rows) <= FEW_ROWS
    return is_few and inputs.h0.dtype.itemsize >= 4  # sums in narrower types could overflow


def near_root(n_steps: int) -> int:
    """About the square root of the number of steps, and a divisor of it if one is near.

    Then sums within segments, and sums over segments, have equally few terms, and err least.
    """
    root = math.isqrt(n_steps)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    divisors = (size for size in near if n_steps % size == 0)
    return min(divisors, key=lambda size: abs(size - root), default=root)
