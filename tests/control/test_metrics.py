"""The status as Prometheus text."""

from __future__ import annotations

import pytest

from tests.control.test_view import rows, status
from uvicorn._ipc.control import RESTART_REASONS
from uvicorn._ipc.scoreboard import DURATION_CELLS, Cell
from uvicorn.control import metrics

parser = pytest.importorskip("prometheus_client.parser")


def samples(pss: dict[int, int] | None = None, **cells: int) -> dict[tuple[str, str], float]:
    content, kind = metrics.exposition(status(rows(**cells), pss=pss))
    assert kind.startswith("text/plain")
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(content.decode())
        for sample in family.samples
    }


def test_counters_are_sums_and_gauges_are_of_now() -> None:
    found = samples(REQUESTS=5, RESPONSES_2XX=4, RESPONSES_5XX=1, CPU=250_000, IN_FLIGHT=2, RSS=1000)
    assert found["uvicorn_requests_total", ""] == 5
    assert found["uvicorn_responses_total", "2xx"] == 4
    assert found["uvicorn_cpu_seconds_total", ""] == 0.25
    assert found["uvicorn_in_flight", ""] == found["uvicorn_worker_in_flight", "1"] == 2
    assert found["uvicorn_worker_restarts_total", "died"] == 3
    assert (found["uvicorn_reloads_total", "succeeded"], found["uvicorn_reloads_total", "failed"]) == (1, 2)
    assert found["uvicorn_upgrades_total", "failed"] == 0


def test_durations_are_a_histogram_of_all_requests() -> None:
    scoreboard = rows(DURATIONS=5, DURATION=2_500_000)
    scoreboard[4][Cell.DURATIONS + 3] = 2
    scoreboard[0][DURATION_CELLS.stop - 1] = 1  # somebody who is gone
    content, _ = metrics.exposition(status(scoreboard))
    text = content.decode()
    name = "uvicorn_request_duration_seconds"
    for line in (
        f'{name}_bucket{{le="0.001"}} 5.0',
        f'{name}_bucket{{le="0.005"}} 5.0',
        f'{name}_bucket{{le="0.01"}} 7.0',
        f'{name}_bucket{{le="10.0"}} 7.0',
        f'{name}_bucket{{le="+Inf"}} 8.0',
        f"{name}_count 8.0",
        f"{name}_sum 2.5",
    ):
        assert f"{line}\n" in text
    assert f"# TYPE {name} histogram\n" in text


def test_bytes_and_queues() -> None:
    found = samples(BYTES_IN=10, BYTES_OUT=20)
    assert (found["uvicorn_received_bytes_total", ""], found["uvicorn_sent_bytes_total", ""]) == (10, 20)
    assert found["uvicorn_accept_queue", "127.0.0.1:8000"] == 3
    assert found["uvicorn_accept_queue_limit", "127.0.0.1:8000"] == 2048


def test_every_reason_is_there_before_it_first_happens() -> None:
    """The increase from nothing to one would be no increase."""
    found = samples()
    assert {reason for name, reason in found if name == "uvicorn_worker_restarts_total"} == set(
        RESTART_REASONS
    )


def test_memory_that_the_system_does_not_tell_is_not_there() -> None:
    assert not [key for key in samples() if "pss" in key[0]]
    found = samples(pss={41: 1000})
    assert found["uvicorn_worker_pss_bytes", "1"] == found["uvicorn_pss_bytes", ""] == 1000
    assert ("uvicorn_worker_pss_bytes", "2") not in found


def test_the_last_reload() -> None:
    assert samples()["uvicorn_last_reload_succeeded", ""] == 0
    content, _ = metrics.exposition(status(outcomes={}))
    assert "uvicorn_last_reload_succeeded 1.0\n" in content.decode()


def test_every_state_is_there_also_where_nobody_is_in_it() -> None:
    found = samples()
    assert {state: found["uvicorn_workers", state] for state in metrics.STATES} == {
        **dict.fromkeys(metrics.STATES, 0.0),
        "ready": 1.0,
        "starting": 1.0,
    }


def test_a_slot_with_two_workers_is_one_series() -> None:
    found = status(rows(CONNECTIONS=7))
    heir = {**found["workers"][0], "wid": 99, "state": "starting", "connections": 0}
    found["workers"].append(heir)
    content, _ = metrics.exposition(found)
    assert content.decode().count('uvicorn_worker_connections{worker="1"}') == 1
    assert 'uvicorn_worker_connections{worker="1"} 7.0' in content.decode()
