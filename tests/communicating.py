"""What a compiled program sends between devices."""

import re
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def communication(compiled: Any) -> dict[str, int]:
    """How often each collective operation stands in a compiled program, of those that do."""
    text = compiled.as_text()
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}
