"""The status as Prometheus text."""

from __future__ import annotations

import pytest

from tests.control.test_view import rows, status
from uvicorn.control import metrics

parser = pytest.importorskip("prometheus_client.parser")


def samples(**cells: int) -> dict[tuple[str, str], float]:
    content, kind = metrics.exposition(status(rows(**cells)))
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
