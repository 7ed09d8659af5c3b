"""Statistics of samples: pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What is said of some samples of one thing.

    Attributes:
        median: Of all samples.
        least: The smallest: what it costs when nothing else disturbs.
        spread: The median distance from the median, as a share of it: half of the samples are as near as that.
        count: How many samples there were.
    """

    median: float
    least: float
    spread: float
    count: int


def figure(samples: Iterable[float]) -> Figure:
    values = list(samples)
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return Figure(middle, min(values), deviation / middle if middle else 0.0, len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Of one contender to another, round by round: what disturbs a round disturbs both sides of it."""
    return figure(a / b for a, b in zip(ours, theirs, strict=True) if b)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values do not exceed.

    Args:
        ordered: Not empty, and in order.
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def fairness(counts: Sequence[int], members: int) -> float:
    """How much more than its share the busiest of the members has: 1 is even, `members` all on one."""
    return max(counts) * members / sum(counts)
