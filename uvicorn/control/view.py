"""What is shown of a service: the master's snapshot and the scoreboard put together. Pure.

One dictionary is the source of everything that is shown: `uvicornctl`, /status.json, the page, the metrics and the probes.
Times in it are seconds ago, so that nobody has to know our clock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uvicorn._ipc.control import Happening, MoldView, Outcome, Snapshot, WorkerView
from uvicorn._ipc.scoreboard import COUNTERS, DURATION_CELLS, RESPONSES, Cell
from uvicorn.protocols._state import DURATIONS

# A master whose loop has not run for this long, in seconds, is stuck or stopped: it turns once a second.
MASTER_LATE = 10.0
# A worker whose event loop ticks within this time is not late.
TICK = 1.0
# Whose proportional memory is known: not of those who start, and perhaps never of those who are killed.
MEASURED = ("ready", "stalled", "draining")

Rows = Sequence[Sequence[int]]
Status = dict[str, Any]


def status_of(snapshot: Snapshot, rows: Rows, now: float, pss: Mapping[int, int] | None = None) -> Status:
    """The whole status.

    Args:
        snapshot: What the master has said last.
        rows: The scoreboard, the master's own row first.
        now: Monotonic seconds.
        pss: What is known of processes' proportional memory.
    """
    workers = [_worker(view, rows, now, pss or {}) for view in snapshot.workers]
    workers.sort(key=lambda worker: (worker["id"], worker["wid"]))
    counted = {cell: sum(row[cell] for row in rows) for cell in COUNTERS}
    ready = sum(worker["state"] == "ready" for worker in workers)
    return {
        "service": snapshot.title,
        "state": _state(snapshot),
        "ready": ready,
        "wanted": snapshot.wanted,
        "generation": snapshot.generation,
        "ever_ready": snapshot.ever_ready,
        "at": round(now, 3),
        "master": {
            "pid": snapshot.pid,
            "age": _ago(snapshot.started_at, now),
            "heard": _ago(rows[0][Cell.LOOP_TICK] / 1_000_000, now),
        },
        "requests": counted[Cell.REQUESTS],
        "responses": {f"{i}xx": counted[cell] for i, cell in enumerate(RESPONSES, 1)},
        "durations": {"bounds": list(DURATIONS), **_durations(counted)},
        "bytes": {"received": counted[Cell.BYTES_IN], "sent": counted[Cell.BYTES_OUT]},
        "cpu_seconds": round(counted[Cell.CPU] / 1_000_000, 3),
        "connections": sum(worker["connections"] for worker in workers),
        "in_flight": sum(worker["in_flight"] for worker in workers),
        "websockets": sum(worker["websockets"] for worker in workers),
        "memory": sum(worker["memory"] for worker in workers),
        "pss": _sum_where_known(worker["pss"] for worker in workers if worker["state"] in MEASURED),
        "queues": [
            {"name": each.name, "waiting": each.waiting, "limit": each.limit} for each in snapshot.queues
        ],
        "workers": workers,
        "molds": [_mold(each, now) for each in snapshot.molds],
        "restarts": dict(sorted(snapshot.restarts.items())),
        "outcomes": {name: _outcome(each, now) for name, each in snapshot.outcomes.items()},
        "events": [_event(each, now) for each in snapshot.events],
    }


def _state(snapshot: Snapshot) -> str:
    """One word for the service as a whole."""
    if snapshot.phase != "running":
        return snapshot.phase
    if snapshot.paused:
        return "paused"
    if not snapshot.ever_ready:
        return "starting"
    return "reloading" if snapshot.reloading else "running"


def _durations(cells: Mapping[int, int] | Sequence[int]) -> Status:
    """How many requests took how long (by bucket, not added up), and how long all of them together."""
    return {
        "counts": [cells[cell] for cell in DURATION_CELLS],
        "seconds": round(cells[Cell.DURATION] / 1_000_000, 6),
    }


def _sum_where_known(sizes: Iterable[int | None]) -> int | None:
    """A sum of some of them would be taken for that of all."""
    known = list(sizes)
    return sum(filter(None, known)) if known and None not in known else None


def _worker(view: WorkerView, rows: Rows, now: float, pss: Mapping[int, int]) -> Status:
    row = rows[view.row] if view.row < len(rows) else ()
    if not row or row[Cell.PID] != view.pid:
        row = (0,) * len(rows[0])  # it has gone meanwhile, and its row with it
    ticked = row[Cell.LOOP_TICK] / 1_000_000
    lag = row[Cell.LOOP_LAG] / 1_000_000
    if row[Cell.READY]:
        lag = max(lag, now - ticked - TICK, 0.0)  # the one that it is in now
    return {
        "id": view.id,
        "wid": view.wid,
        "pid": view.pid,
        "generation": view.generation,
        "state": view.stage,
        "since": _ago(view.since, now),
        "age": _ago(view.ready_at, now) if view.ready_at is not None else 0.0,
        "retiring": view.retiring,
        "requests": row[Cell.REQUESTS],
        "durations": _durations(row),
        "connections": row[Cell.CONNECTIONS],
        "in_flight": row[Cell.IN_FLIGHT],
        "websockets": row[Cell.WEBSOCKETS],
        "loop_lag": round(lag, 6),
        "cpu_seconds": round(row[Cell.CPU] / 1_000_000, 3),
        "memory": row[Cell.RSS],
        "pss": pss.get(view.pid),
    }


def _mold(view: MoldView, now: float) -> Status:
    return {
        "pid": view.pid,
        "generation": view.generation,
        "state": view.stage,
        "since": _ago(view.since, now),
        "memory": view.memory,
    }


def _outcome(outcome: Outcome, now: float) -> Status:
    return {
        "succeeded": outcome.succeeded,
        "failed": outcome.failed,
        "last": {"ok": outcome.ok, "text": outcome.text, "ago": _ago(outcome.at, now)},
    }


def _event(event: Happening, now: float) -> Status:
    return {
        "number": event.number,
        "ago": _ago(event.at, now),
        "level": logging.getLevelName(event.level).lower(),
        "text": event.text,
    }


def _ago(at: float, now: float) -> float:
    return round(max(0.0, now - at), 3)


# --- probes ------------------------------------------------------------------------------------


def is_alive(status: Status | None) -> tuple[bool, str]:
    """Whether the master's loop turns, and why not. Workers do not matter: the master is there to replace them."""
    if status is None:
        return False, "the master has not been heard of yet"
    late = status["master"]["heard"]
    if late > MASTER_LATE:
        return False, f"the master's loop has not run for {late:.0f} s"
    return True, "the master's loop runs"


def is_ready(status: Status | None) -> tuple[bool, str]:
    """Whether connections should be sent here. One ready worker is enough: with fewer than wanted it is slower, and to
    be taken out for it would leave even more to the others."""
    alive, why = is_alive(status)
    if status is None or not alive:
        return False, why
    if status["state"] in ("lingering", "stopping", "exited", "paused"):
        return False, f"the service is {status['state']}"
    if not status["ready"]:
        return False, f"none of {status['wanted']} worker(s) is ready"
    return True, f"{status['ready']} of {status['wanted']} worker(s) are ready"


def is_started(status: Status | None) -> tuple[bool, str]:
    """Whether any worker has ever been ready."""
    if status is None or not status["ever_ready"]:
        return False, "no worker has been ready yet"
    return True, "a worker has been ready"
