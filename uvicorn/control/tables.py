"""The status as text for a terminal: what is live has at most 79 columns, so that it fits everywhere. Pure."""

from __future__ import annotations

from typing import Any

Status = dict[str, Any]

WIDTH = 79

_HEAD = " ID     PID  GEN STATE       AGE    REQ/S  CONN FLIGHT   WS    LAG  CPU%    MEM"
_ROW = "{:>3} {:>7} {:>4} {:<8} {:>6} {:>8} {:>5} {:>6} {:>4} {:>6} {:>5} {:>6}"


def listing(
    status: Status, previous: Status | None = None, events: int = 5, width: int | None = WIDTH
) -> list[str]:
    """The service in one screen.

    Args:
        status: How it is.
        previous: How it was, for what happens in a second; without it there are totals only.
        events: How many of the last events are shown.
        width: Where longer lines are cut; None leaves reasons whole.
    """
    seconds = status["at"] - previous["at"] if previous else 0.0
    before = {worker["wid"]: worker for worker in previous["workers"]} if previous else {}
    lines = _summary(status, previous, seconds)
    lines += ["", _HEAD if previous else _HEAD.replace("   REQ/S", "REQUESTS")]
    for worker in status["workers"]:
        lines.append(_row(worker, before.get(worker["wid"]), seconds))
    for mold in status["molds"]:
        lines.append(
            f"mold {mold['pid']:>6} {mold['generation']:>4} {mold['state']:<8} {_age(mold['since']):>6}  "
            f"mem {_size(mold['memory'])}, shared with its workers"
        )
    if status["restarts"]:
        lines.append("")
        lines.append(
            "restarts: " + ", ".join(f"{name} {count}" for name, count in status["restarts"].items())
        )
    for name, outcome in status["outcomes"].items():
        lines.append(
            f"{name}s: {outcome['succeeded']} succeeded, {outcome['failed']} failed; last: {outcome['last']['text']}"
        )
    if status["events"]:
        lines.append("")
        lines += [f"{_age(event['ago']):>6} {event['text']}" for event in status["events"][-events:]]
    return [_cut(line, width) for line in lines]


def _summary(status: Status, previous: Status | None, seconds: float) -> list[str]:
    responses = status["responses"]
    first = (
        f"{status['service']}  {status['state']}  gen {status['generation']}  "
        f"ready {status['ready']}/{status['wanted']}  up {_age(status['master']['age'])}  "
        f"pid {status['master']['pid']}"
    )
    if previous is None:
        load = f"requests {status['requests']}"
    else:
        load = f"req/s {_rate(status['requests'], previous['requests'], seconds)}"
    second = (
        f"{load}  2xx {responses['2xx']}  4xx {responses['4xx']}  5xx {responses['5xx']}  "
        f"conn {status['connections']}  flight {status['in_flight']}  mem {_size(status['memory'])}"
    )
    return [first, second]


def _row(worker: Status, before: Status | None, seconds: float) -> str:
    rate, cpu = str(worker["requests"]), "-"
    if before is not None and seconds > 0:
        rate = _rate(worker["requests"], before["requests"], seconds)
        cpu = f"{max(0.0, worker['cpu_seconds'] - before['cpu_seconds']) / seconds * 100:.0f}"
    return _ROW.format(
        worker["id"],
        worker["pid"],
        worker["generation"],
        worker["state"],
        _age(worker["since"]),
        rate,
        worker["connections"],
        worker["in_flight"],
        worker["websockets"],
        _lag(worker["loop_lag"]),
        cpu,
        _size(worker["memory"]),
    )


def _rate(now: int, before: int, seconds: float) -> str:
    return f"{max(0, now - before) / seconds:.1f}" if seconds > 0 else "-"


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
    return f"{seconds * 1000:.0f}ms" if seconds < 10 else f"{seconds:.0f}s"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f}G" if size >= 10 * 2**30 else f"{size / 2**20:.0f}M"


def _cut(line: str, width: int | None) -> str:
    # Nothing of what was logged may move the cursor.
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return line if width is None or len(line) <= width else line[: width - 1] + "…"
