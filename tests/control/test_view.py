"""What is shown: the snapshot and the scoreboard put together, and what the probes say to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.scoreboard import ROW_CELLS, Cell
from uvicorn.control import view
from uvicorn.control.view import status_of
from uvicorn.protocols._state import DURATIONS

NOW = 100.0


def rows(**cells: int) -> list[list[int]]:
    """The master's row and those of two workers; `cells` are of the first."""
    found = [[0] * ROW_CELLS for _ in range(6)]
    found[0][Cell.LOOP_TICK] = int((NOW - 0.5) * 1_000_000)
    for index, pid in ((4, 41), (5, 42)):
        found[index][Cell.PID] = pid
    for name, value in cells.items():
        found[4][Cell[name]] = value
    return found


def status(
    scoreboard: list[list[int]] | None = None, pss: dict[int, int] | None = None, **changes: Any
) -> view.Status:
    return status_of(replace(SNAPSHOT, **changes), scoreboard or rows(), NOW, pss)


def test_numbers_come_from_the_row_of_the_worker() -> None:
    found = status(rows(REQUESTS=5, CONNECTIONS=3, IN_FLIGHT=2, WEBSOCKETS=1, RSS=2**20, CPU=1_500_000))
    first, second = found["workers"]
    assert (first["id"], first["pid"], first["state"], first["age"]) == (1, 41, "ready", 97.5)
    assert [first[name] for name in ("requests", "connections", "in_flight", "websockets")] == [5, 3, 2, 1]
    assert (first["memory"], first["cpu_seconds"]) == (2**20, 1.5)
    assert (second["state"], second["age"], second["requests"], second["retiring"]) == (
        "starting",
        0.0,
        0,
        "x",
    )
    assert (found["connections"], found["memory"], found["ready"], found["wanted"]) == (3, 2**20, 1, 2)


def test_sums_include_those_who_are_gone() -> None:
    scoreboard = rows(REQUESTS=5, RESPONSES_5XX=2)
    scoreboard[0][Cell.REQUESTS] = 100
    scoreboard[0][Cell.RESPONSES_5XX] = 10
    found = status(scoreboard)
    assert found["requests"] == 105
    assert found["responses"] == {"1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 12}


def test_durations_and_bytes_are_sums_too() -> None:
    scoreboard = rows(DURATIONS=5, DURATION=1_500_000, BYTES_IN=10, BYTES_OUT=20)
    scoreboard[0][Cell.DURATIONS] = 100
    scoreboard[0][Cell.DURATION] = 1_000_000
    found = status(scoreboard)
    assert found["durations"]["counts"] == [105, *[0] * len(DURATIONS)]
    assert found["durations"]["bounds"] == list(DURATIONS)
    assert found["durations"]["seconds"] == 2.5
    assert found["bytes"] == {"received": 10, "sent": 20}
    assert found["workers"][0]["durations"] == {"counts": [5, *[0] * len(DURATIONS)], "seconds": 1.5}


def test_proportional_memory_is_that_of_those_who_are_known() -> None:
    assert status()["pss"] is None
    found = status(pss={41: 1000, 99: 5})
    assert [worker["pss"] for worker in found["workers"]] == [1000, None]
    assert found["pss"] == 1000  # the other one is not ready yet
    for stage in ("ready", "stalled", "draining"):
        both = [SNAPSHOT.workers[0], replace(SNAPSHOT.workers[1], stage=stage)]
        assert status(pss={41: 1000}, workers=both)["pss"] is None
        assert status(pss={41: 1000, 42: 500}, workers=both)["pss"] == 1500


def test_queues_are_shown() -> None:
    assert status()["queues"] == [{"name": "127.0.0.1:8000", "waiting": 3, "limit": 2048}]


def test_a_row_that_has_another_owner_by_now_says_nothing() -> None:
    scoreboard = rows(CONNECTIONS=3)
    scoreboard[4][Cell.PID] = 99
    assert status(scoreboard)["workers"][0]["connections"] == 0
    assert status(scoreboard[:3])["workers"][0]["connections"] == 0


def test_the_lag_of_a_loop_that_stands_still_grows() -> None:
    ticked = int((NOW - 8) * 1_000_000)
    assert status(rows(READY=1, LOOP_TICK=ticked, LOOP_LAG=2000))["workers"][0]["loop_lag"] == pytest.approx(
        7
    )
    on_time = int((NOW - 0.5) * 1_000_000)
    assert status(rows(READY=1, LOOP_TICK=on_time, LOOP_LAG=2000))["workers"][0]["loop_lag"] == 0.002
    assert status(rows(LOOP_TICK=0))["workers"][0]["loop_lag"] == 0


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"reloading": False}, "running"),
        ({}, "reloading"),
        ({"paused": True}, "paused"),
        ({"ever_ready": False}, "starting"),
        ({"phase": "lingering"}, "lingering"),
        ({"phase": "stopping", "paused": True}, "stopping"),
    ],
)
def test_one_word_says_what_the_service_does(changes: dict[str, Any], state: str) -> None:
    assert status(**changes)["state"] == state


def test_events_and_outcomes_say_how_long_ago() -> None:
    found = status()
    assert found["events"][0]["ago"] == 98.0
    assert found["events"][0]["level"] == "info"
    assert found["outcomes"]["reload"]["last"] == {"ok": False, "text": "broken: ü", "ago": 91.0}


# --- probes ------------------------------------------------------------------------------------


def test_before_the_master_has_spoken_nothing_is_well() -> None:
    assert [judge(None)[0] for judge in (view.is_alive, view.is_ready, view.is_started)] == [False] * 3


def test_one_ready_worker_is_enough() -> None:
    assert view.is_ready(status()) == (True, "1 of 2 worker(s) are ready")
    assert view.is_started(status()) == (True, "a worker has been ready")


@pytest.mark.parametrize("phase", ["lingering", "stopping"])
def test_a_service_that_stops_is_alive_but_not_ready(phase: str) -> None:
    found = status(phase=phase)
    assert view.is_alive(found)[0]
    assert view.is_ready(found) == (False, f"the service is {phase}")


def test_without_a_ready_worker_it_is_alive_but_not_ready() -> None:
    found = status(workers=[replace(worker, stage="stalled") for worker in SNAPSHOT.workers])
    assert view.is_alive(found)[0]
    assert view.is_ready(found) == (False, "none of 2 worker(s) is ready")


def test_a_master_whose_loop_stands_still_is_not_alive() -> None:
    scoreboard = rows()
    scoreboard[0][Cell.LOOP_TICK] = int((NOW - 11) * 1_000_000)
    for judge in (view.is_alive, view.is_ready):
        assert judge(status(scoreboard)) == (False, "the master's loop has not run for 11 s")


def test_before_the_first_ready_worker_it_has_not_started() -> None:
    assert view.is_started(status(ever_ready=False)) == (False, "no worker has been ready yet")
