"""The status as Prometheus metrics, by the library where it is installed (`pip install 'uvicorn[metrics]'`).

Counters come summed over the workers that are and those that have been, so they never run backwards. A worker is known by
its slot, which its successor takes over; numbers of single workers are gauges.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from uvicorn import __version__
from uvicorn._ipc.control import RESTART_REASONS
from uvicorn.control.view import Status, is_ready

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
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
    yield _gauge("info", "The program; always 1.", 1, version=__version__, service=status["service"])
    yield from _of_requests(status)
    restarts = {**dict.fromkeys(RESTART_REASONS, 0), **status["restarts"]}
    yield _counters(
        "worker_restarts", "Workers that were replaced or given up, by reason.", "reason", restarts
    )
    for what in ("reload", "upgrade"):
        outcome = status["outcomes"].get(what, {"succeeded": 0, "failed": 0})
        counts = {"succeeded": outcome["succeeded"], "failed": outcome["failed"]}
        yield _counters(f"{what}s", f"How often a {what} has ended how.", "outcome", counts)
    last = status["outcomes"].get("reload", {}).get("last", {"ok": True})
    yield _gauge(
        "last_reload_succeeded",
        "Whether the last reload has; 1 where there was none.",
        last["ok"] is not False,
    )
    yield _gauge("ready", "Whether connections should be sent here, as /readyz says.", is_ready(status)[0])
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
    if status["pss"] is not None:
        yield _gauge("pss_bytes", "Memory of all workers; shared pages count once.", status["pss"])
    yield _gauge("uptime_seconds", "Since the service began; upgrades do not count.", status["master"]["age"])
    yield _gauge("master_loop_age_seconds", "When the master's loop last ran.", status["master"]["heard"])
    if status["molds"]:
        ready = [mold for mold in status["molds"] if mold["state"] == "ready"]
        yield _gauge("mold_ready", "Whether workers can be forked.", int(bool(ready)))
        yield _gauge(
            "mold_memory_bytes",
            "Resident memory of what workers are forked from; most of it is shared with them.",
            max((mold["memory"] for mold in ready), default=0),
        )
    states = {state: sum(worker["state"] == state for worker in status["workers"]) for state in STATES}
    yield _gauges("workers", "Workers by state.", "state", states)
    for name, key, text in (
        ("accept_queue", "waiting", "Connections that wait to be accepted, by address."),
        ("accept_queue_limit", "limit", "How many may wait; further ones are not let in."),
    ):
        yield _gauges(name, text, "listener", {queue["name"]: queue[key] for queue in status["queues"]})


def _of_requests(status: Status) -> Iterator[Any]:
    yield _counter("requests", "Requests answered and WebSocket handshakes taken.", status["requests"])
    yield _counters(
        "responses", "Responses begun, by the class of their status.", "status", status["responses"]
    )
    durations = status["durations"]
    bounds = [*map(str, durations["bounds"]), "+Inf"]
    buckets = list(zip(bounds, accumulate(durations["counts"]), strict=True))
    yield HistogramMetricFamily(
        "uvicorn_request_duration_seconds",
        "From the application's call to the last byte of its response.",
        buckets=buckets,
        sum_value=durations["seconds"],
    )
    yield _counter("received_bytes", "What clients have sent, without TLS.", status["bytes"]["received"])
    yield _counter("sent_bytes", "What was sent to clients, without TLS.", status["bytes"]["sent"])
    yield _counter("cpu_seconds", "CPU time used by workers.", status["cpu_seconds"])


def _of_the_workers(workers: list[Status]) -> Iterator[Any]:
    # While a worker is replaced its slot has two; the one that serves stands for it.
    shown = {each["id"]: each for each in sorted(workers, key=_serves)}.values()
    for name, key, text in (
        ("age_seconds", "age", "Since it became ready."),
        ("connections", "connections", "Its open connections."),
        ("in_flight", "in_flight", "Its running application tasks."),
        ("websockets", "websockets", "Its open WebSocket connections."),
        ("loop_lag_seconds", "loop_lag", "How late its event loop is."),
        ("memory_bytes", "memory", "Its resident memory."),
        ("pss_bytes", "pss", "Its memory; of shared pages its share."),
    ):
        known = {str(worker["id"]): worker[key] for worker in shown if worker[key] is not None}
        yield _gauges(f"worker_{name}", text, "worker", known)


def _serves(worker: Status) -> tuple[bool, int]:
    return worker["state"] in ("ready", "stalled"), worker["wid"]


def _counter(name: str, text: str, value: float) -> Any:
    return CounterMetricFamily(f"uvicorn_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: dict[str, int]) -> Any:
    family = CounterMetricFamily(f"uvicorn_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, value: float, **labels: str) -> Any:
    family = GaugeMetricFamily(f"uvicorn_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _gauges(name: str, text: str, label: str, values: dict[str, float]) -> Any:
    family = GaugeMetricFamily(f"uvicorn_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
