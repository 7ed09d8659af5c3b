"""The status as text for a terminal: as wide and as high as that is. Pure.

At 80 columns everything that matters in an incident is there; a narrower terminal loses the least important columns, a
wider one gets more.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Status = dict[str, Any]

WIDTH = 79
# What stands below the workers keeps so many lines where there are more workers than lines.
LEAST_TAIL = 8
# In capitals, so that they are seen in a table of sixty-four.
TROUBLE = ("stalled", "aborting", "killed")


@dataclass(frozen=True, slots=True)
class _Look:
    """One worker, and what it was at the look before."""

    now: Status
    before: Status | None
    seconds: float
    bounds: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table of workers.

    Attributes:
        name: Its head; where there is nothing to compare with, `total`.
        rank: The highest is the first to go where there is no room.
    """

    name: str
    width: int
    rank: int
    value: Callable[[_Look], str]
    total: str = ""
    left: bool = False


def listing(
    status: Status,
    previous: Status | None = None,
    events: int = 5,
    width: int | None = WIDTH,
    height: int | None = None,
    skip: int = 0,
) -> list[str]:
    """The service in one screen.

    Args:
        status: How it is.
        previous: How it was, for what happens in a second; without it there are totals only.
        events: How many of the last events are shown.
        width: Where longer lines are cut; None leaves reasons whole.
        height: How many lines there are room for; None for any number.
        skip: How many workers are left out at the top, where not all have room.
    """
    seconds = status["at"] - previous["at"] if previous else 0.0
    head = [*_summary(status, previous, seconds, width), ""]
    molds = _molds(status)
    tail = _history(status) + _events(status, events)
    room = None
    if height is not None:
        room = max(1, height - len(head) - 1 - len(molds) - min(len(tail), LEAST_TAIL))
    lines = [*head, *_workers(status, previous, seconds, width, room, skip), *molds, *tail]
    return [_cut(line, width) for line in lines[:height]]


# --- the service -------------------------------------------------------------------------------


def _summary(status: Status, previous: Status | None, seconds: float, width: int | None) -> list[str]:
    about = (
        f"  {status['state']}  gen {status['generation']}  ready {status['ready']}/{status['wanted']}  "
        f"up {_age(status['master']['age'])}  pid {status['master']['pid']}"
    )
    name = _clean(status["service"])
    if width is not None:
        name = _cut(name, max(8, width - len(about)))
    return [
        name + about,
        _fields(_load(status, previous, seconds), width),
        _fields(_use(status, previous, seconds), width),
    ]


def _load(status: Status, previous: Status | None, seconds: float) -> list[str]:
    bounds = status["durations"]["bounds"]
    responses = status["responses"]
    counts = _new(status, previous)
    latency = [f"p{q} {_short(quantile(counts, bounds, q / 100))}" for q in (50, 95, 99)]
    if previous is None:
        answered = [f"{kind} {responses[kind]}" for kind in ("2xx", "4xx", "5xx")]
        return [f"requests {status['requests']}", *answered, *latency]
    rates = [
        f"{kind}/s {_rate(responses[kind], previous['responses'][kind], seconds)}" for kind in ("4xx", "5xx")
    ]
    return [f"req/s {_rate(status['requests'], previous['requests'], seconds)}", *rates, *latency]


def _use(status: Status, previous: Status | None, seconds: float) -> list[str]:
    waiting = sum(queue["waiting"] for queue in status["queues"])
    fields = [f"in flight {status['in_flight']}", f"conn {status['connections']}"]
    if status["websockets"]:
        fields.append(f"ws {status['websockets']}")
    fields.append(f"queue {waiting}")
    if previous is not None and seconds > 0:
        cpu = (status["cpu_seconds"] - previous["cpu_seconds"]) / seconds
        fields.append(f"cpu {max(0.0, cpu):.0%}")
        for name, key in (("in", "received"), ("out", "sent")):
            rate = max(0, status["bytes"][key] - previous["bytes"][key]) / seconds
            fields.append(f"{name} {_bytes(rate)}/s")
    fields.append(f"mem {_size(status['memory'])}")
    if status["pss"] is not None:
        fields.append(f"pss {_size(status['pss'])}")
    return fields


def _fields(fields: list[str], width: int | None) -> str:
    """As many of them as there is room for."""
    line = fields[0]
    for field in fields[1:]:
        if width is None or len(line) + 2 + len(field) <= width:
            line += "  " + field
    return line


def _molds(status: Status) -> list[str]:
    return [
        f"mold {mold['pid']}  gen {mold['generation']}  {mold['state']}  {_age(mold['since'])}  "
        f"mem {_size(mold['memory'])}, shared with its workers"
        for mold in status["molds"]
    ]


def _history(status: Status) -> list[str]:
    lines = []
    if status["restarts"]:
        counts = ", ".join(f"{name} {count}" for name, count in status["restarts"].items())
        lines.append(f"restarts: {counts}")
    for name, outcome in status["outcomes"].items():
        lines.append(
            f"{name}s: {outcome['succeeded']} succeeded, {outcome['failed']} failed; last: {outcome['last']['text']}"
        )
    return ["", *lines] if lines else []


def _events(status: Status, events: int) -> list[str]:
    found = status["events"][-events:] if events else []
    return ["", *(f"{_age(event['ago']):>6} {event['text']}" for event in found)] if found else []


# --- the workers -------------------------------------------------------------------------------


def _workers(
    status: Status,
    previous: Status | None,
    seconds: float,
    width: int | None,
    room: int | None,
    skip: int,
) -> list[str]:
    workers = status["workers"]
    columns = _columns(width)
    lines = [_line(columns, [column.name if previous else column.total or column.name for column in columns])]
    if not workers:
        return [*lines, "  no workers"]
    left = 0
    if room is not None and len(workers) > room:
        # Those that are in trouble are seen first.
        workers = sorted(workers, key=lambda worker: worker["state"] == "ready")
        shown = max(1, room - 1)
        skip = max(0, min(skip, len(workers) - shown))
        left = len(workers) - shown
        workers = workers[skip : skip + shown]
    before = {worker["wid"]: worker for worker in previous["workers"]} if previous else {}
    bounds = status["durations"]["bounds"]
    for worker in workers:
        look = _Look(worker, before.get(worker["wid"]), seconds, bounds)
        lines.append(_line(columns, [column.value(look) for column in columns]))
    if left:
        lines.append(f"  … {left} more (of {len(status['workers'])})")
    return lines


def _columns(width: int | None) -> list[_Column]:
    """Those that there is room for."""
    columns = list(_COLUMNS)
    while width is not None and sum(column.width + 1 for column in columns) - 1 > width and len(columns) > 1:
        columns.remove(max(columns, key=lambda column: column.rank))
    return columns


def _line(columns: list[_Column], values: list[str]) -> str:
    return " ".join(
        value.ljust(column.width) if column.left else value.rjust(column.width)
        for column, value in zip(columns, values, strict=True)
    ).rstrip()


def _state(look: _Look) -> str:
    state: str = look.now["state"]
    return state.upper() if state in TROUBLE else state


def _requests(look: _Look) -> str:
    if look.before is None or look.seconds <= 0:
        return _count(look.now["requests"])
    return _rate(look.now["requests"], look.before["requests"], look.seconds)


def _p95(look: _Look) -> str:
    return _short(quantile(_new(look.now, look.before), look.bounds, 0.95))


def _cpu(look: _Look) -> str:
    if look.before is None or look.seconds <= 0:
        return "-"
    return f"{max(0.0, look.now['cpu_seconds'] - look.before['cpu_seconds']) / look.seconds * 100:.0f}"


def _pss(look: _Look) -> str:
    return "-" if look.now["pss"] is None else _size(look.now["pss"])


def _number(key: str) -> Callable[[_Look], str]:
    return lambda look: str(look.now[key])


_COLUMNS = (
    _Column("ID", 3, 0, _number("id")),
    _Column("PID", 7, 7, _number("pid")),
    _Column("GEN", 3, 6, _number("generation")),
    _Column("STATE", 8, 1, _state, left=True),
    _Column("AGE", 6, 5, lambda look: _age(look.now["since"])),
    _Column("REQ/S", 7, 2, _requests, total="REQS"),
    _Column("P95", 6, 3, _p95),
    _Column("BUSY", 4, 4, lambda look: _count(look.now["in_flight"], 4)),
    _Column("CONN", 5, 8, lambda look: _count(look.now["connections"], 5)),
    _Column("WS", 4, 10, lambda look: _count(look.now["websockets"], 4)),
    _Column("LAG", 5, 9, lambda look: _lag(look.now["loop_lag"])),
    _Column("CPU%", 4, 5, _cpu),
    _Column("MEM", 5, 6, lambda look: _size(look.now["memory"])),
    _Column("PSS", 5, 11, _pss),
)


# --- numbers -----------------------------------------------------------------------------------


def quantile(counts: Sequence[int], bounds: Sequence[float], part: float) -> float | None:
    """Below which duration this part of the requests was, as far as the buckets tell; None where there were none.

    Args:
        counts: How many are in each bucket; one more than bounds, for what is above the last.
    """
    rank = part * sum(counts)
    if rank <= 0:
        return None
    below = 0
    for i, count in enumerate(counts):
        if count and below + count >= rank:
            if i == len(bounds):
                return float("inf")
            lower = bounds[i - 1] if i else 0.0
            return lower + (bounds[i] - lower) * (rank - below) / count
        below += count
    return None  # pragma: no cover - the last bucket has the rest


def _new(now: Status, before: Status | None) -> list[int]:
    """How many requests have taken how long since the look before, or at all."""
    counts: list[int] = now["durations"]["counts"]
    if before is None:
        return counts
    return [max(0, new - old) for new, old in zip(counts, before["durations"]["counts"], strict=True)]


def _rate(now: int, before: int, seconds: float) -> str:
    if seconds <= 0:
        return "-"
    rate = max(0, now - before) / seconds
    return f"{rate:.1f}" if rate < 10_000 else _count(int(rate))


def _count(number: int, width: int = 7) -> str:
    """In so many columns at most."""
    text = str(number)
    for unit in "kMGT":
        if len(text) <= width:
            break
        number //= 1000
        text = f"{number}{unit}"
    return text


def _age(seconds: float) -> str:
    """At most six columns."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 60:
        return f"{minutes:.0f}m{seconds % 60:02.0f}s" if seconds % 60 < 59.5 else f"{minutes:.0f}m59s"
    if hours < 48:
        return f"{hours:.0f}h{minutes % 60:02.0f}m"
    return f"{seconds // 86400:.0f}d"


def _lag(seconds: float) -> str:
    """At most five columns."""
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s" if seconds < 100 else _age(seconds)


def _short(seconds: float | None) -> str:
    """A latency in at most six columns. Buckets do not tell more than this."""
    if seconds is None:
        return "-"
    if seconds == float("inf"):
        return ">10s"
    if seconds <= 0.001:
        return "<1ms"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f}G" if size >= 10 * 2**30 else f"{size / 2**20:.0f}M"


def _bytes(size: float) -> str:
    for unit in ("B", "K", "M"):
        if size < 1000:
            return f"{size:.0f}{unit}"
        size /= 1024
    return f"{size:.1f}G"


def _clean(line: str) -> str:
    """Nothing of what was logged may move the cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _cut(line: str, width: int | None) -> str:
    line = _clean(line)
    if width is None or _wide(line) <= width:
        return line
    end = width - 1
    while _wide(line[:end]) > width - 1:
        end -= 1
    return line[:end] + "…"


def _wide(line: str) -> int:
    """How many columns of a terminal it takes: some letters take two."""
    if line.isascii():
        return len(line)
    return len(line) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
