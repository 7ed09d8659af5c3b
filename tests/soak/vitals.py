"""Memory and descriptors of master and workers while the soak goes on, and whether they stay level."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Vitals:
    """One process: its memory in MiB, its descriptors."""

    memory: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Sample:
    master: Vitals
    workers: dict[int, Vitals]


@dataclass(frozen=True, slots=True)
class Level:
    """The medians of the first and the last third."""

    what: str
    first: float
    last: float

    def rises(self, share: float, least: float) -> bool:
        """Whether the last is more above the first than so large a share of it, and than so much."""
        return self.last - self.first > max(share * self.first, least)

    def __str__(self) -> str:
        return f"{self.what}: {self.first:.1f} in the first third, {self.last:.1f} in the last"


def vitals(pid: int) -> Vitals:
    process = psutil.Process(pid)
    with process.oneshot():
        return Vitals(process.memory_info().rss / 2**20, process.num_fds())


def opened(pid: int) -> int:
    """A process' descriptors, without those of /dev/null: one of them is kept for when there are no others."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(entry.path) != os.devnull
    return count


def sample(master: int, workers: Iterable[int]) -> Sample:
    found = {}
    for pid in workers:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            found[pid] = vitals(pid)
    return Sample(vitals(master), found)


def level(what: str, samples: list[Sample], value: Callable[[Sample], float | None]) -> Level:
    """What a value was in the first third of the samples that have it, and in the last."""
    values = [found for each in samples if (found := value(each)) is not None]
    third = max(1, len(values) // 3)
    return Level(what, statistics.median(values[:third]), statistics.median(values[-third:]))


def levels(samples: list[Sample]) -> list[Level]:
    """Master and workers, the latter by their mean: which ones there are changes all the time."""

    def mean(values: Iterable[float]) -> float | None:
        found = [*values]
        return statistics.mean(found) if found else None

    return [
        level("master, MiB", samples, lambda each: each.master.memory),
        level("master, descriptors", samples, lambda each: each.master.descriptors),
        level("workers, MiB", samples, lambda each: mean(w.memory for w in each.workers.values())),
        level(
            "workers, descriptors", samples, lambda each: mean(w.descriptors for w in each.workers.values())
        ),
    ]
