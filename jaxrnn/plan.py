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

# For up to this many steps the rule would cost more than it saves (jax 0.12).
FEW_STEPS = 4

# In a small batch so few steps, or nodes, multiply the weights step by step: a product of all steps
# has to be handed over to a library, which takes longer. More steps have one segment (jax 0.12).
SOME_STEPS, SOME_NODES, STEPS_OF_ONE_SEGMENT = 16, 4, 32

# With fewer steps, one sequence has no segments, nor has a derivative by the bias or the state
# alone: they would cost up to 13 % more time (jax 0.12). With more they cost nothing, and one sum
# over all steps would err by 40 epsilons.
MANY_STEPS = 4096

# A small batch has weights of at most so many rows.
FEW_ROWS = 32

# The rows of a tile of a TPU's memory.
ROWS_OF_TILE = 8


class Backend(NamedTuple):
    """What is best on a backend: measured on CPUs, and what XLA compiles for the others.

    `python -m bench` and `python -m bench.accelerators` show it (jax 0.12).

    Attributes:
      unroll: steps in an iteration. XLA launches the kernels of eight together on GPUs. On TPUs, in
        JAX's own derivative, eight share what an operation costs at least.
      inputs_first: as in `Plan`. In a loop a product is one more launch, but on CPUs a sum that
        need not be kept.
      few_multiplications: in each step up to which a batch is small, not counting those that
        `jax.vmap` adds. Then a product is a sum of terms that are written out, of which XLA on CPUs
        compiles the whole loop as one function. To call a library takes longer than the arithmetic.
      steps_of_one_segment: up to which there is one, as a loop over two or more takes longer, or
        launches more. With more steps than that, a GPU would keep up to 1.3 times as much.
    """

    unroll: int
    inputs_first: bool
    few_multiplications: int
    steps_of_one_segment: int


BACKENDS = {
    "cpu": Backend(1, False, 4096, 16),
    "gpu": Backend(8, True, 0, 1024),
    "tpu": Backend(8, True, 0, 1024),
}


class Plan(NamedTuple):
    """How to run a network.

    Attributes:
      activation: as in `rnn_forward`.
      rate: likewise.
      reverse: likewise.
      unroll: steps in one iteration of a loop over steps, as in `jax.lax.scan`.
      squeezed: the batch axes of one entry that are left out, as XLA on CPUs is faster on a vector
        than on a matrix of one row.
      added_rows: of zeros, behind the last axis of the batch, as on a TPU an operation on a part of
        a tile has a fixed cost.
      by_rule: whether the derivative is the rule of `derivative.py`, in place of JAX's own.
      for_tpu: whether loops and arrays have the form that is best on TPUs. It cannot be exported.
      as_sums: whether the loop forward computes the products of a step as sums.
      inputs_first: whether `x wx + b` of all steps is computed before the loop.
      segment: how many steps the rule takes together, in sums and in products; None is all.
      at_once: whether the rule multiplies the inputs and states of a segment by the tangents of
        their weights in one product, not step by step.
      derivative: the plan of a loop whose derivative is JAX's own, where it is to be another loop
        than the one forward.
      shared: whether devices may each hold a part of the batch, and XLA communicates between them,
        which it does not inside `jax.shard_map`; False where it changes nothing.
    """

    activation: Function = jnp.tanh
    rate: Function | None = None
    reverse: bool = False
    unroll: int = 1
    squeezed: tuple[int, ...] = ()
    added_rows: int = 0
    by_rule: bool = False
    for_tpu: bool = False
    as_sums: bool = False
    inputs_first: bool = False
    segment: int | None = None
    at_once: bool = False
    shared: bool = False
    derivative: "Plan | None" = None

    @property
    def in_place(self) -> bool:
        """Whether a step is read where it lies, not from a copy with time first.

        JAX's own transpose of such a read would write an array of all steps, and on a TPU it is a
        slice across tiles.
        """
        return self.by_rule and not self.for_tpu


PLAIN = Plan()  # by JAX's own derivative


def plan_for(params: Params, inputs: Inputs, options: dict[str, Any]) -> Plan:
    """Decide how to run a network, from its functions, its sizes and its devices."""
    x, n_steps, backend = inputs.steps.x, inputs.n_steps, jax.default_backend()
    on = BACKENDS.get(backend, BACKENDS["gpu"])
    is_symbolic = not isinstance(n_steps, int)
    n = SOME_STEPS if is_symbolic else n_steps  # comparisons with a symbol may be undecidable
    unroll = 1 if is_symbolic else on.unroll
    given: dict[str, Any] = {name: options[name] for name in ("activation", "rate", "reverse")}
    given["unroll"] = unroll if options["unroll"] is None else options["unroll"]
    given["inputs_first"] = on.inputs_first and n > FEW_STEPS
    # The rule computes a rate several times: of one as dear as softplus, JAX's own, which
    # keeps the slope, takes 0.6 to 0.8 times as long (jax 0.12).
    slopes = tangent_of(options["activation"]), tangent_of(options["rate"])
    if None in slopes or options["rate"] is jax.nn.softplus:
        # Not squeezed, as a function of the user's may read a value of each sequence.
        return PLAIN._replace(**given)
    axes = enumerate(zip(inputs.h0.shape[:-1], spec_of(x), strict=False))
    squeezed = given["squeezed"] = tuple(axis for axis, each in axes if each == (1, None))
    if backend == "tpu":
        sizes = *inputs.h0.shape[:-1], n_steps
        may_export = options["unroll"] is not None or not all(isinstance(n, int) for n in sizes)
        if not may_export:
            return _on_tpu(PLAIN._replace(**given), inputs)
        # JAX refuses to export what says how arrays lie in memory. With a shared batch, JAX's own
        # derivative would add up the gradients of the weights in each iteration.
        if not may_be_shared(x):
            return PLAIN._replace(**given)
    is_single = len(squeezed) == inputs.h0.ndim - 1
    is_short = is_single and n < MANY_STEPS
    if n <= FEW_STEPS or (is_short and inputs.leak_of(inputs.steps) is not None):
        return PLAIN._replace(**given)
    is_small = not is_single and _is_small(params, inputs, on.few_multiplications)
    plan = Plan(by_rule=True, as_sums=is_small)
    # Devices would add up the gradients of the weights once a segment, so there is one segment.
    shared = given["shared"] = not (is_symbolic or is_short) and may_be_shared(x)
    is_little = plan.as_sums and (n <= SOME_STEPS or inputs.h0.shape[-1] < SOME_NODES)
    by_step = is_symbolic or is_little or (is_single and backend == "cpu")
    given["at_once"] = shared or not by_step
    n_of_whole = STEPS_OF_ONE_SEGMENT if plan.as_sums else on.steps_of_one_segment
    is_whole = is_short or shared or n <= n_of_whole or (is_little and n < MANY_STEPS)
    given["segment"] = None if is_whole else near_root(n)
    return plan._replace(**given)


def _on_tpu(plan: Plan, inputs: Inputs) -> Plan:
    """The plan for a TPU, by XLA's estimate of cycles: `python -m bench.accelerators tpu`."""
    batch, shared = inputs.h0.shape[:-1], may_be_shared(inputs.steps.x)
    is_short = inputs.n_steps <= FEW_STEPS
    if is_short or (len(plan.squeezed) == len(batch) and not shared):
        # A product of one row is no work for the matrix unit. It has a fixed cost, which eight
        # steps share in JAX's own derivative. Rows of zeros would save that cost, but then
        # `jax.vmap` over single sequences would take eight times the memory.
        derivative = plan._replace(inputs_first=False)
        return plan._replace(inputs_first=True, for_tpu=True, derivative=derivative)
    rows = [size for axis, size in enumerate(batch) if axis not in plan.squeezed]
    added = 0 if shared else max(0, ROWS_OF_TILE - rows[-1])
    plan = plan._replace(added_rows=added, by_rule=True, for_tpu=True, at_once=True, shared=shared)
    return plan._replace(unroll=1)  # a step is one operation, and eight would be more


def plan_derivative(plan: Plan, inputs: Inputs, dparams: Params, dinputs: Inputs) -> Plan:
    """The plan of the rule, from which tangents there are; the others are None."""
    if plan.shared or any(each is not None for each in (dparams.wx, dparams.wh, dinputs.steps.x)):
        return plan
    # By the bias, the state or the leak alone: most often many derivatives at once, in a Jacobian
    # or a Hessian. There is nothing to multiply at once.
    segment = plan.segment if plan.segment and inputs.n_steps >= MANY_STEPS else None
    return plan._replace(at_once=False, segment=segment)


def _is_small(params: Params, inputs: Inputs, few_multiplications: int) -> bool:
    """Whether the sequences are so few and narrow that products are best computed as sums."""
    n_rows = [weights.shape[0] for weights in (params.wx, params.wh) if weights is not None]
    n = math.prod(inputs.h0.shape) * sum(n_rows)  # it may be symbolic
    is_few = isinstance(n, int) and 0 < n <= few_multiplications and max(n_rows) <= FEW_ROWS
    return is_few and inputs.h0.dtype.itemsize >= 4  # sums in narrower types could overflow


def near_root(n_steps: int) -> int:
    """About the square root of the number of steps, and a divisor of it if one is near.

    Then sums within segments, and sums over segments, have equally few terms, and err least.
    """
    root = math.isqrt(n_steps)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    divisors = (size for size in near if n_steps % size == 0)
    return min(divisors, key=lambda size: abs(size - root), default=root)
