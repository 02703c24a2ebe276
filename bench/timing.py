"""Times functions against each other: in turns, in random order, by medians of ratios."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Call = Callable[[], object]


class Timing(NamedTuple):
    """How long a call takes, and how many times as long as the first one timed with it.

    Attributes:
      seconds: median over the rounds.
      ratio: median over the rounds of this call's time divided by the first's in the same round.
      ratio_quartiles: the first and third quartile of that ratio.
    """

    seconds: float
    ratio: float
    ratio_quartiles: tuple[float, float]


def time_calls(calls: Mapping[str, Call], *, seconds: float, min_rounds: int) -> dict[str, Timing]:
    """Time each call, which must block until its result is there.

    In a round every call is timed once, in an order drawn anew, so that other work on the machine
    slows all of them alike. Within a round, short calls are repeated until the clock's error is
    small.

    Args:
      calls: what to time, by name, at least one. They may be compiled already or not.
      seconds: how long to go on.
      min_rounds: how many rounds there are at least.
    """
    repeats = {name: _repeats(call) for name, call in calls.items()}
    rounds: list[dict[str, float]] = []
    order, shuffle = list(calls), random.Random(0).shuffle
    end = time.perf_counter() + seconds
    while len(rounds) < min_rounds or time.perf_counter() < end:
        shuffle(order)
        rounds.append({name: _seconds_per_call(calls[name], repeats[name]) for name in order})
    first = next(iter(calls))
    return {name: _timing([(each[name], each[first]) for each in rounds]) for name in calls}


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


def _timing(pairs: list[tuple[float, float]]) -> Timing:
    ratios = sorted(own / first for own, first in pairs)
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return Timing(statistics.median(own for own, _ in pairs), middle, (lower, upper))
