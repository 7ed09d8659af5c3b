"""Bookkeeping of workers and slots: who is there, in which stage, until when. Queries only, no decisions.

A slot is a place for one worker. While a worker is being replaced, its slot has two holders, the old one and its
successor; a worker that drains holds no slot any more.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from uvicorn.supervisor.events import PoolSpec

NEVER = float("inf")


class Stage(enum.Enum):
    """What the master knows of a worker's life."""

    SPAWNING = "spawning"  # fork asked for, no pid yet
    STARTING = "starting"  # forked; the startup clock runs
    READY = "ready"  # it has said so
    STALLED = "stalled"  # its event loop stands still; the stall clock runs
    DRAINING = "draining"  # told to stop; the drain clock runs
    ABORTING = "aborting"  # SIGABRT sent
    KILLED = "killed"  # SIGKILL sent


HOLDING = frozenset((Stage.SPAWNING, Stage.STARTING, Stage.READY, Stage.STALLED))
SERVING = frozenset((Stage.READY, Stage.STALLED))


@dataclass(slots=True)
class Worker:
    """One worker as the master sees it.

    Attributes:
        spec: The settings it was started with: a reload changes none of its clocks.
        deadline: When the stage's consequence is due.
        ready_at: When it became ready; None before.
        retiring: Why it is to be replaced, in words; "" where it is not.
        final: Whether it has been told that the service stops.
        accepting: Whether it may still take connections.
        frozen: Whether somebody has stopped its process, and that has been reported.
        excused_at: Silence before this time is not its own: it, or the master, was stopped.
        complaint: Why its start has failed, in its own words; "" where it has not said.
        doomed: What the master has killed it for, in words; "" where it has not.
    """

    wid: int
    slot: int
    generation: int
    stage: Stage
    since: float
    spec: PoolSpec
    deadline: float = NEVER
    pid: int | None = None
    ready_at: float | None = None
    retiring: str = ""
    final: bool = False
    accepting: bool = True
    frozen: bool = False
    excused_at: float = 0.0
    doomed: str = ""
    complaint: str = ""

    @property
    def name(self) -> str:
        return f"worker={self.slot} gen={self.generation} pid={self.pid}"


@dataclass(slots=True)
class Slot:
    """What is remembered of a place, whoever holds it.

    Attributes:
        failures: Failed starts in a row.
        short_lives: Deaths in a row within a minute of becoming ready.
        not_before: When the next start may be tried.
        vacated: Whether its worker was told to go before there was another one, for want of memory.
    """

    failures: int = 0
    short_lives: int = 0
    not_before: float = 0.0
    vacated: bool = False


@dataclass(slots=True)
class Pool:
    """All workers and slots."""

    workers: dict[int, Worker] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    next_wid: int = 1

    def add(self, slot: int, generation: int, spec: PoolSpec, now: float) -> Worker:
        worker = Worker(self.next_wid, slot, generation, Stage.SPAWNING, now, spec)
        self.next_wid += 1
        self.workers[worker.wid] = worker
        return worker

    def remove(self, worker: Worker) -> None:
        del self.workers[worker.wid]

    def slot(self, number: int) -> Slot:
        return self.slots.setdefault(number, Slot())

    def forgive(self) -> None:
        """There is new code: what the old one has failed in says nothing about it."""
        for slot in self.slots.values():
            slot.failures = slot.short_lives = 0
            slot.not_before = 0.0

    def with_pid(self, pid: int) -> Worker | None:
        return next((worker for worker in self.workers.values() if worker.pid == pid), None)

    def holders(self) -> dict[int, list[Worker]]:
        """Who holds each slot that is held, the oldest first."""
        found: dict[int, list[Worker]] = {}
        for worker in self.workers.values():
            if worker.stage in HOLDING:
                found.setdefault(worker.slot, []).append(worker)
        return found

    def in_stage(self, *stages: Stage) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.stage in stages]

    def ready(self) -> list[Worker]:
        return self.in_stage(Stage.READY)

    def serving(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.stage in SERVING]

    def being_replaced(self) -> int:
        """In how many slots a successor is on its way beside the one it replaces."""
        return sum(1 for holders in self.holders().values() if len(holders) > 1)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.workers.values()))

    def __len__(self) -> int:
        return len(self.workers)
