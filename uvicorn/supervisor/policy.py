"""The master's rules as pure functions: when to start again, how many at once, when to give up, what to call an exit."""

from __future__ import annotations

import enum
import signal
from collections.abc import Sequence

# A failed start is tried again after this many seconds, doubled with every failure up to the limit.
BACKOFF_FIRST = 0.5
BACKOFF_LIMIT = 30.0
# Shares of the delay by which it is spread, so that slots do not start together.
BACKOFF_JITTER = 0.2
# After this many seconds of life a slot's failures are forgotten.
STABLE_AFTER = 60.0
# So many short lives in a row are replaced at once; from the next one on the slot waits.
FREE_DEATHS = 3
# The window of `limit_restarts`.
RESTART_PERIOD = 60.0


class ExitCode(enum.IntEnum):
    """How the master ends."""

    OK = 0
    OTHER = 1
    USAGE = 2
    STARTUP_FAILURE = 3
    CRASH_LOOP = 70


def backoff(failures: int, random: float) -> float:
    """Seconds to wait before the next start.

    Args:
        failures: How many starts in a row have failed; 0 waits not at all.
        random: Between 0 and 1: where in the jitter.
    """
    if failures <= 0:
        return 0.0
    delay = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** min(failures - 1, 32))
    return float(min(BACKOFF_LIMIT, delay * (1 + BACKOFF_JITTER * (2 * random - 1))))


def delay_after_death(short_lives: int, random: float) -> float:
    """Seconds to wait before a worker that had been ready is replaced: none, unless it keeps dying young."""
    return backoff(short_lives - FREE_DEATHS, random)


def recent(times: Sequence[float], now: float) -> list[float]:
    """The restarts that still count."""
    return [time for time in times if now - time < RESTART_PERIOD]


def used_up(times: Sequence[float], now: float, limit: int) -> bool:
    """Whether there were as many restarts as `limit_restarts` allows."""
    return len(recent(times, now)) >= limit


def surge(size: int) -> int:
    """How many workers may be replaced at the same time: one in ten, at least one."""
    return max(1, size // 10)


def most_alive(size: int) -> int:
    """How many processes there may be, old ones that drain included, before a replacement has to wait."""
    return 2 * size + 1


_OOM_HINT = " (perhaps out of memory)"


def exit_in_words(code: int, out_of_memory: bool = False) -> str:
    """An exit code, or minus a signal, for people."""
    if out_of_memory:
        return "killed by the kernel: out of memory"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = _OOM_HINT if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def exit_by_the_master(code: int) -> str:
    """The same for a process that the master has killed: there is nothing to guess about."""
    words = exit_in_words(code)
    return f"{words.removesuffix(_OOM_HINT)} by the master" if code < 0 else words


def age_in_words(seconds: float) -> str:
    """A worker's age for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s"
