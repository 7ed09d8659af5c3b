"""Bookkeeping of workers, slots and molds: who is there, in which stage, until when. Queries only, no decisions.

A slot is a place for one worker. While a worker is being replaced, its slot has two holders, the old one and its
successor; a worker that drains holds no slot any more. A mold is no worker and holds no slot: workers are forked from it
where `preload` is on.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from uvicorn.supervisor.events import PoolSpec

NEVER = float("inf")


class Stage(enum.Enum):
    """What the master knows of a worker's life, or of a mold's: that one is starting while it imports the application,
    and draining when it was told to end."""

    SPAWNING = "spawning"  # fork asked for, no pid yet
    STARTING = "starting"  # forked; the startup clock runs
    READY = "ready"  # it has said so
    STALLED = "stalled"  # its event loop stands still; the stall clock runs
    DRAINING = "draining"  # told to stop; the drain clock runs
    ABORTING = "aborting"  # SIGABRT sent
    KILLED = "killed"  # SIGKILL sent


HOLDING = frozenset((Stage.SPAWNING, Stage.STARTING, Stage.READY, Stage.STALLED))
SERVING = frozenset((Stage.READY, Stage.STALLED))
GIVEN_UP = frozenset((Stage.ABORTING, Stage.KILLED))


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
        mold: The mold that it is forked from; 0 where the master does it.
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
    mold: int = 0

    @property
    def name(self) -> str:
        return f"worker={self.slot} gen={self.generation} pid={self.pid}"


@dataclass(slots=True)
class Mold:
    """A process that has imported the application, or is about to; see `Worker` for what is not said here.

    Attributes:
        deadline: When the stage's consequence is due; while it is ready, when it has to have answered a request.
        memory: Its resident memory in bytes when it was ready.
    """

    mid: int
    generation: int
    stage: Stage
    since: float
    spec: PoolSpec
    deadline: float = NEVER
    pid: int | None = None
    ready_at: float | None = None
    memory: int = 0
    doomed: str = ""
    complaint: str = ""

    @property
    def name(self) -> str:
        return f"mold gen={self.generation} pid={self.pid}"


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
    """All workers, slots and molds.

    Attributes:
        mold_place: What is remembered of molds, as of a slot.
    """

    workers: dict[int, Worker] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    molds: dict[int, Mold] = field(default_factory=dict)
    mold_place: Slot = field(default_factory=Slot)
    next_wid: int = 1
    next_mid: int = 1

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
        for slot in (*self.slots.values(), self.mold_place):
            slot.failures = slot.short_lives = 0
            slot.not_before = 0.0

    def with_pid(self, pid: int) -> Worker | None:
        return next((worker for worker in self.workers.values() if worker.pid == pid), None)

    # --- molds -------------------------------------------------------------------------------

    def add_mold(self, generation: int, spec: PoolSpec, now: float) -> Mold:
        mold = Mold(self.next_mid, generation, Stage.SPAWNING, now, spec)
        self.next_mid += 1
        self.molds[mold.mid] = mold
        return mold

    def mold_with_pid(self, pid: int) -> Mold | None:
        return next((mold for mold in self.molds.values() if mold.pid == pid), None)

    def mold_for(self, generation: int) -> Mold | None:
        """The mold that this generation has, or is about to have."""
        found = (mold for mold in self.molds.values() if mold.generation == generation)
        return next((mold for mold in found if mold.stage in HOLDING), None)

    def asked_of(self, mold: Mold) -> list[Worker]:
        """The workers that the mold has been asked for and that have not been heard of."""
        return [
            worker
            for worker in self.workers.values()
            if worker.mold == mold.mid and worker.stage is Stage.SPAWNING
        ]

    # --- queries -----------------------------------------------------------------------------

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
