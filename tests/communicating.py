"""What a compiled program sends between devices."""

import re
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def communication(compiled: Any) -> dict[str, int]:
    """How often each collective operation stands in a compiled program, of those that do."""
    text = compiled.as_text()
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}


def communication_in_loops(compiled: Any) -> list[str]:
    """The collective operations in the bodies of loops, which send something in every step."""
    computations = re.split(r"\n(?=%|ENTRY )", compiled.as_text())
    named = {text.split()[0]: text for text in computations if text.startswith("%")}

    def within(text: str) -> str:
        called = set(re.findall(r"(?:calls|to_apply|body|branch\w*)=\{?(%[\w.-]+)", text))
        return text + "".join(within(named[name]) for name in called)

    bodies = re.findall(r"body=(%[\w.-]+)", compiled.as_text())
    text = "".join(within(named[name]) for name in bodies)
    return [name for name in COLLECTIVES if re.search(rf" {name}(?:-start)?\(", text)]
