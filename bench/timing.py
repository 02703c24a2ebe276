"""Times functions against each other: in turns, in random order, by medians of ratios."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Call = Callable[[], object]

# The seconds that each call took, one entry for each round.
Rounds = dict[str, list[float]]


class Ratio(NamedTuple):
    """How many times as long one call took as another: quartiles over the rounds."""

    median: float
    lower: float
    upper: float


def time_calls(calls: Mapping[str, Call], *, seconds: float, min_rounds: int) -> Rounds:
    """Time each call, which must block until its result is there.

    In a round every call is timed once, in an order drawn anew, so that other work on the machine
    slows all of them alike. Within a round, short calls are repeated until the clock's error is
    small.

    Args:
      calls: what to time, by name, at least one. They may be compiled already or not.
      seconds: how long to go on.
      min_rounds: how many rounds there are at least, two or more.
    """
    repeats = {name: _repeats(call) for name, call in calls.items()}
    rounds: Rounds = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    n_rounds, end = 0, time.perf_counter() + seconds
    while n_rounds < min_rounds or time.perf_counter() < end:
        shuffle(order)
        for name in order:
            rounds[name].append(_seconds_per_call(calls[name], repeats[name]))
        n_rounds += 1
    return rounds


def ratio(rounds: Rounds, name: str, other: str) -> Ratio:
    """One call's time divided by the other's in the same round."""
    ratios = [own / its for own, its in zip(rounds[name], rounds[other], strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, lower, upper)


def _repeats(call: Call) -> int:
    call()
    return max(1, int(1e-3 / _seconds_per_call(call, 1)))


def _seconds_per_call(call: Call, repeats: int) -> float:
    # The threads of the program timed before may still be spinning, and would take a core from this
    # one.
    time.sleep(5e-3)
    call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
