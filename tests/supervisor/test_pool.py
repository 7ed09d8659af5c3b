"""Bookkeeping of workers and slots."""

from __future__ import annotations

import pytest

from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.pool import HOLDING, SERVING, Pool, Slot, Stage, Worker

SPEC = PoolSpec(2)


def pool_of(*workers: tuple[int, Stage]) -> Pool:
    """A pool with a worker for each slot and stage given; its pid is its wid plus 100."""
    pool = Pool()
    for slot, stage in workers:
        worker = pool.add(slot, 1, SPEC, 5.0)
        worker.stage = stage
        worker.pid = 100 + worker.wid
    return pool


def wids(workers: list[Worker]) -> list[int]:
    return [worker.wid for worker in workers]


def test_add_makes_a_spawning_worker_with_a_number_of_its_own() -> None:
    pool = Pool()
    first, second = pool.add(3, 7, SPEC, 5.0), pool.add(3, 7, SPEC, 5.0)
    assert (first.wid, second.wid) == (1, 2)
    assert (first.slot, first.generation, first.stage, first.since) == (3, 7, Stage.SPAWNING, 5.0)
    assert (first.spec, first.pid, first.ready_at, first.deadline) == (SPEC, None, None, float("inf"))
    assert len(pool) == 2


def test_a_number_is_never_used_twice() -> None:
    pool = Pool()
    pool.remove(pool.add(1, 1, SPEC, 0.0))
    assert pool.add(1, 1, SPEC, 0.0).wid == 2
    assert len(pool) == 1


def test_name_is_what_logs_call_a_worker() -> None:
    assert pool_of((4, Stage.READY)).with_pid(101).name == "worker=4 gen=1 pid=101"  # type: ignore[union-attr]


def test_a_slot_is_made_once_and_remembered() -> None:
    pool = Pool()
    assert pool.slot(2) == Slot(failures=0, short_lives=0, not_before=0.0, vacated=False)
    assert pool.slot(2) is pool.slot(2)
    assert list(pool.slots) == [2]


def test_forgive_forgets_failures_but_not_for_what_a_slot_waits() -> None:
    pool = Pool()
    slot = pool.slot(1)
    slot.failures, slot.short_lives, slot.not_before, slot.vacated = 3, 4, 99.0, True
    pool.forgive()
    assert slot == Slot(vacated=True)


@pytest.mark.parametrize(("pid", "wid"), [(101, 1), (102, 2), (103, None), (1, None)])
def test_with_pid(pid: int, wid: int | None) -> None:
    found = pool_of((1, Stage.READY), (2, Stage.KILLED)).with_pid(pid)
    assert (found.wid if found is not None else None) == wid


def test_with_pid_does_not_find_a_worker_without_one() -> None:
    pool = Pool()
    pool.add(1, 1, SPEC, 0.0)
    assert pool.with_pid(0) is None


@pytest.mark.parametrize("stage", list(Stage))
def test_a_worker_holds_its_slot_until_it_is_told_to_leave(stage: Stage) -> None:
    holds = stage in (Stage.SPAWNING, Stage.STARTING, Stage.READY, Stage.STALLED)
    assert (stage in HOLDING) is holds
    assert list(pool_of((1, stage)).holders()) == [1] * holds


@pytest.mark.parametrize("stage", list(Stage))
def test_a_worker_serves_from_ready_on_also_when_it_is_stalled(stage: Stage) -> None:
    serves = stage in (Stage.READY, Stage.STALLED)
    assert (stage in SERVING) is serves
    assert len(pool_of((1, stage)).serving()) == serves


def test_holders_are_grouped_by_slot_the_oldest_first() -> None:
    pool = pool_of(
        (1, Stage.READY), (2, Stage.READY), (1, Stage.DRAINING), (1, Stage.STARTING), (3, Stage.KILLED)
    )
    assert {slot: wids(holders) for slot, holders in pool.holders().items()} == {1: [1, 4], 2: [2]}


def test_in_stage_and_ready() -> None:
    pool = pool_of((1, Stage.READY), (2, Stage.STALLED), (3, Stage.KILLED))
    assert wids(pool.in_stage(Stage.STALLED, Stage.KILLED)) == [2, 3]
    assert wids(pool.ready()) == [1]


def test_being_replaced_counts_slots_with_two_holders() -> None:
    pool = pool_of(
        (1, Stage.READY), (1, Stage.STARTING), (2, Stage.STALLED), (2, Stage.SPAWNING), (3, Stage.READY),
        (3, Stage.DRAINING),
    )  # fmt: skip
    assert pool.being_replaced() == 2


def test_iterating_allows_removal() -> None:
    pool = pool_of((1, Stage.READY), (2, Stage.READY))
    for worker in pool:
        pool.remove(worker)
    assert len(pool) == 0
