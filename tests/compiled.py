"""What compiled programs hold: collectives, loops and matrix products.

No public API of JAX or XLA lists the operations of a compiled program, so some of these functions
search its text. That is sound as far as the names of HLO operations go: they are documented and
stable, and `compile().as_text()` prints each operation as ` name(operands)`. To notice if the
printed form changes all the same, each function has a test in which it must find something:

- `communication` and `communication_in_loops`: `test_every_collective_is_found`, in `on_devices.py`
- `n_products`: `test_small_products_are_sums`, where larger networks have products
- `products_in_loops`: `test_on_gpus_a_step_has_one_product`
"""

import re
from collections.abc import Callable
from typing import Any

import jax

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def communication(compiled: Any) -> dict[str, int]:
    """How often each collective operation occurs in a compiled program, if it occurs."""
    return _collectives(compiled.as_text())


def communication_in_loops(compiled: Any) -> dict[str, int]:
    """The same in the bodies of loops, which communicate in every iteration."""
    text = compiled.as_text()
    computations = {
        each.split()[0]: each for each in re.split(r"\n(?=%|ENTRY )", text) if each[0] == "%"
    }

    def with_called(name: str) -> str:
        text = computations[name]
        called = set(re.findall(r"(?:calls|to_apply|body|branch\w*)=\{?(%[\w.-]+)", text))
        return text + "".join(map(with_called, called))

    return _collectives("".join(map(with_called, re.findall(r"body=(%[\w.-]+)", text))))


def _collectives(text: str) -> dict[str, int]:
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}


def n_products(function: Callable[..., Any], *args: Any) -> int:
    """How many matrix products a function has when it is compiled for the CPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        return str(jax.jit(function).lower(*args).compile().as_text()).count(" dot(")


def products_in_loops(function: Callable[..., Any], args: Any, platform: str) -> list[int]:
    """How many matrix products each loop has in the StableHLO for a platform, in order.

    Products of a loop inside another count for the inner one.
    """
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,))
    module: Any = lowered.compiler_ir("stablehlo")
    functions = {each.name.value: each for each in module.body.operations if hasattr(each, "name")}
    counts: list[int] = []

    def count(root: Any, loop: int | None) -> None:
        for each in (each for region in root.regions for block in region for each in block):
            inner = loop
            if each.operation.name == "stablehlo.while":
                inner = len(counts)
                counts.append(0)
            elif each.operation.name == "func.call":
                count(functions[each.attributes["callee"].value].operation, loop)
            elif each.operation.name == "stablehlo.dot_general" and loop is not None:
                counts[loop] += 1
            count(each.operation, inner)

    count(functions["main"].operation, None)
    return counts
