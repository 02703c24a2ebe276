"""How to run a network: every decision that depends on sizes, on a mesh or on the backend.

`python -m bench` measures the speeds behind the numbers here.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from jaxrnn.activations import tangent_of
from jaxrnn.params import Params
from jaxrnn.run import Function, Run

Product = Callable[[jax.Array, jax.Array], jax.Array]

# A batch whose step has up to this many multiplications, not counting those that `jax.vmap` adds,
# computes its products as sums. XLA on CPUs then compiles a whole loop as one function, where it
# would call a library for each product, which takes longer than the arithmetic (jax 0.12).
FEW_MULTIPLICATIONS = 4096

# For up to this many steps the rule would cost more than it saves (jax 0.12).
FEW_STEPS = 4

# A single sequence of fewer steps has no segments, which would take up to 13 % more time (jax
# 0.12). Over more steps they cost nothing, and sums over all steps would err by 40 epsilons.
MANY_STEPS = 4096

# XLA launches the kernels of so many steps together on GPUs (jax 0.11).
STEPS_ON_GPU = 8


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
      as_sums: whether the products of a step are computed as sums.
      inputs_first: whether `x wx + b` of all steps is computed before the loop.
      in_place: whether the loop reads each step where it is, not from a copy with time first. To
        JAX's own derivative, to read one step has the size of all steps.
      segment: how many steps the rule computes again from one state that it keeps; None is all.
      at_once: whether the rule multiplies the inputs and states of a segment by the tangents of
        their weights in one product, not step by step.
      shared: whether devices may each hold a part of the batch, and XLA communicates between them.
    """

    activation: Function = jnp.tanh
    rate: Function | None = None
    reverse: bool = False
    unroll: int = 1
    squeezed: tuple[int, ...] = ()
    by_rule: bool = False
    as_sums: bool = False
    inputs_first: bool = False
    in_place: bool = False
    segment: int | None = None
    at_once: bool = False
    shared: bool = False

    @property
    def product(self) -> Product:
        """How a step multiplies: `array @ weights`."""
        return _sum_of_products if self.as_sums else jnp.matmul


def plan_for(params: Params, run: Run, options: Any) -> Plan:
    """Decide how to run a network."""
    n_steps, backend = run.n_steps, jax.default_backend()
    is_symbolic = not isinstance(n_steps, int)  # comparisons with a symbol may be undecidable
    unroll = STEPS_ON_GPU if backend == "gpu" and not is_symbolic else 1
    unroll = unroll if options["unroll"] is None else options["unroll"]
    plan = Plan(options["activation"], options["rate"], options["reverse"], unroll)
    functions = (plan.activation, plan.rate)
    if any(each is not None and tangent_of(each) is None for each in functions):
        return plan
    specs = jax.typeof(run.h0).sharding.spec
    sizes = enumerate(zip(run.h0.shape[:-1], specs, strict=False))
    plan = plan._replace(squeezed=tuple(axis for axis, each in sizes if each == (1, None)))
    is_single = len(plan.squeezed) == run.h0.ndim - 1
    is_short = is_symbolic or (is_single and n_steps < MANY_STEPS)
    has_leak = run.leak is not None or run.steps.leak is not None
    if (not is_symbolic and n_steps <= FEW_STEPS) or (is_single and is_short and has_leak):
        return plan
    as_sums = not is_single and _is_small(params, run)
    plan = plan._replace(by_rule=True, as_sums=as_sums, in_place=not is_single)
    # On accelerators what counts is how few kernels a step launches, also of one sequence.
    inputs_first = backend != "cpu" and not as_sums
    # Devices add up the gradients of the weights in each segment, so there is one.
    shared = not is_short and _may_be_shared(run.steps.x)
    at_once = shared or not (is_symbolic or as_sums or (is_single and backend == "cpu"))
    plan = plan._replace(inputs_first=inputs_first, at_once=at_once, shared=shared)
    return plan._replace(segment=None if is_short or shared else near_root(n_steps))


def plan_derivative(plan: Plan, run: Run, dparams: Params, drun: Run) -> Plan:
    """The plan of the rule, from which tangents there are; the others are None."""
    if plan.shared or any(each is not None for each in (dparams.wx, dparams.wh, drun.steps.x)):
        return plan
    # By the bias, the state or the leak alone: most often many derivatives at once, in a Jacobian
    # or a Hessian. Then sums are slower than products, and there is nothing to multiply at once.
    is_short = plan.segment is None or run.n_steps < MANY_STEPS
    segment = None if is_short else plan.segment
    return plan._replace(as_sums=False, at_once=False, segment=segment)


def _is_small(params: Params, run: Run) -> bool:
    """Whether the sequences are so few and narrow that products are best computed as sums."""
    n_weights = params.wh.size + (0 if params.wx is None else params.wx.size)
    n = math.prod(run.h0.shape[:-1]) * n_weights  # it may be symbolic
    is_exact = run.h0.dtype.itemsize >= 4  # sums in narrower types could overflow
    return isinstance(n, int) and n <= FEW_MULTIPLICATIONS and is_exact


def _may_be_shared(array: jax.Array) -> bool:
    """Whether its type says that devices may each hold a part, and XLA communicates between them.

    Inside `jax.shard_map` each device has an array of its own.
    """
    sharding = jax.typeof(array).sharding
    return any(sharding.spec) or AxisType.Auto in sharding.mesh.axis_types


def _sum_of_products(array: jax.Array, weights: jax.Array) -> jax.Array:
    """`array @ weights`, without a call of a library."""
    weights = jnp.expand_dims(weights, range(array.ndim - 1))
    return jnp.sum(array[..., None] * weights, axis=-2)


def near_root(n_steps: int) -> int:
    """About the square root of the number of steps, and best a divisor of it.

    That many steps in a segment keep least.
    """
    root = math.isqrt(n_steps)
    near = range(math.ceil(root / 1.5), math.floor(root * 1.5) + 1)
    divisors = [size for size in near if n_steps % size == 0]
    return min(divisors, key=lambda size: abs(size - root), default=root)


def mesh_of(arguments: Any) -> Any:
    """The mesh of explicit axes that arguments are on, where none is set; else None.

    Without it, the constants of the loops, their tangents and their batched forms would get
    shardings that do not fit those of the arguments.
    """
    leaves = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    return explicit[0] if explicit and jax.sharding.get_abstract_mesh().empty else None
