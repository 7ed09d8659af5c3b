"""The status as Prometheus metrics, by the library where it is installed (`pip install 'uvicorn[metrics]'`).

Counters come summed over the workers that are and those that have been, so they never run backwards. A worker is known by
its slot, which its successor takes over; numbers of single workers are gauges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from uvicorn.control.view import Status

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
    from prometheus_client.registry import Collector
except ImportError:  # an extra
    AVAILABLE = False
else:
    AVAILABLE = True

MISSING = "Metrics need prometheus_client: install 'uvicorn[metrics]', or read /status.json."

# Every state that a worker can be in: a gauge that comes and goes cannot be alerted on.
STATES = ("spawning", "starting", "ready", "stalled", "draining", "aborting", "killed")


def exposition(status: Status) -> tuple[bytes, str]:
    """The text and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


if AVAILABLE:

    class _Collector(Collector):
        """One look at the service, for one scrape."""

        def __init__(self, status: Status) -> None:
            self._status = status

        def describe(self) -> list[Any]:
            return []

        def collect(self) -> Iterator[Any]:
            yield from _of_the_service(self._status)
            yield from _of_the_workers(self._status["workers"])


def _of_the_service(status: Status) -> Iterator[Any]:
    yield _counter("requests", "Requests answered and WebSocket handshakes taken.", status["requests"])
    yield _counter("cpu_seconds", "CPU time used by workers.", status["cpu_seconds"])
    yield _counters(
        "responses", "Responses begun, by the class of their status.", "status", status["responses"]
    )
    yield _counters(
        "worker_restarts", "Workers that were replaced or given up, by reason.", "reason", status["restarts"]
    )
    for what in ("reload", "upgrade"):
        outcome = status["outcomes"].get(what, {"succeeded": 0, "failed": 0})
        counts = {"succeeded": outcome["succeeded"], "failed": outcome["failed"]}
        yield _counters(f"{what}s", f"How often a {what} has ended how.", "outcome", counts)
    for name, text in (
        ("connections", "Open connections."),
        ("in_flight", "Running application tasks."),
        ("websockets", "Open WebSocket connections."),
        ("generation", "The configuration and code that new workers run."),
    ):
        yield _gauge(name, text, status[name])
    yield _gauge("workers_wanted", "How many workers are wanted.", status["wanted"])
    yield _gauge(
        "memory_bytes", "Resident memory of all workers; shared pages count for each.", status["memory"]
    )
    yield _gauge("master_loop_age_seconds", "When the master's loop last ran.", status["master"]["heard"])
    if status["molds"]:
        ready = [mold for mold in status["molds"] if mold["state"] == "ready"]
        yield _gauge("mold_ready", "Whether workers can be forked.", int(bool(ready)))
        yield _gauge(
            "mold_memory_bytes",
            "Resident memory of what workers are forked from; most of it is shared with them.",
            max((mold["memory"] for mold in ready), default=0),
        )
    states = GaugeMetricFamily("uvicorn_workers", "Workers by state.", labels=["state"])
    for state in STATES:
        states.add_metric([state], sum(worker["state"] == state for worker in status["workers"]))
    yield states


def _of_the_workers(workers: list[Status]) -> Iterator[Any]:
    for name, key, text in (
        ("age_seconds", "age", "Since it became ready."),
        ("connections", "connections", "Its open connections."),
        ("in_flight", "in_flight", "Its running application tasks."),
        ("websockets", "websockets", "Its open WebSocket connections."),
        ("loop_lag_seconds", "loop_lag", "How late its event loop is."),
        ("memory_bytes", "memory", "Its resident memory."),
    ):
        family = GaugeMetricFamily(f"uvicorn_worker_{name}", text, labels=["worker"])
        # While a worker is replaced its slot has two; the one that serves stands for it.
        for worker in {each["id"]: each for each in sorted(workers, key=_serves)}.values():
            family.add_metric([str(worker["id"])], worker[key])
        yield family


def _serves(worker: Status) -> tuple[bool, int]:
    return worker["state"] in ("ready", "stalled"), worker["wid"]


def _counter(name: str, text: str, value: float) -> Any:
    return CounterMetricFamily(f"uvicorn_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: dict[str, int]) -> Any:
    family = CounterMetricFamily(f"uvicorn_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, value: float) -> Any:
    return GaugeMetricFamily(f"uvicorn_{name}", text, value=value)
