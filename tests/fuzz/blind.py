"""Fuzzing without a guide: seeded mutations of what a target begins with."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.targets import TARGETS, found
from tests.protocols.http.mutations import composed, mutated


class Finding(AssertionError):
    """An input that breaks a promise."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"{data!r}")
        self.data = data


def mutate(name: str, seed: int, goes_on: Callable[[int], bool]) -> int:
    """Try mutations as long as `goes_on(count)` says so; how many there were.

    Raises:
        Finding: One of them breaks a promise.
    """
    run, seeds = TARGETS[name]
    samples = [*seeds(), *found(name)]
    rng = random.Random(seed)
    count = 0
    while goes_on(count):
        if name in ("http", "connection") and rng.random() < 0.3:
            second = rng.randbytes(1) if name == "connection" else b""
            data = bytes((rng.choice((0, 1, 7)),)) + second + composed(rng)
        else:
            data = rng.choice(samples)
        data = mutated(rng, data)
        try:
            run(data)
        except Exception as exc:
            raise Finding(data) from exc
        count += 1
    return count
