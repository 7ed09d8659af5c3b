"""The memory that workers have to themselves: their own pages, and their share of those that they have in common (PSS).

The kernel walks through all pages of a process for it and holds the process's memory still meanwhile, a millisecond for
some 100 MB. So it is asked here and not in the worker, only while somebody looks, in a thread, and at a bounded rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import psutil

# Numbers are at least this old before they are asked for again, in seconds; before those of new processes are.
PERIOD = 5.0
PERIOD_NEW = 1.0
# And at least so many times as long as asking has taken: at most one percent of a CPU goes into it.
REST = 100.0


def pss_of(pid: int) -> int | None:
    """In bytes; None where the system does not tell."""
    try:
        return getattr(psutil.Process(pid).memory_full_info(), "pss", None)
    except (psutil.Error, OSError):
        return None  # gone, or a process that has changed its user: the kernel shows it to root alone


class Memory:
    """What was found last.

    Args:
        read: Asks the system about one process.
        clock: Monotonic seconds.

    Attributes:
        pss: By process id.
    """

    def __init__(
        self, read: Callable[[int], int | None] = pss_of, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pss: dict[int, int] = {}
        self._read = read
        self._clock = clock
        self._asked: frozenset[int] = frozenset()
        self._ended_at = float("-inf")
        self._took = 0.0
        self._thread: threading.Thread | None = None

    def look(self, pids: Iterable[int]) -> dict[int, int]:
        """What is known of these; where that is old, it is asked for again, for the next look."""
        wanted = frozenset(pids)
        thread = self._thread
        if thread is None or not thread.is_alive():
            period = PERIOD if wanted <= self._asked else PERIOD_NEW
            if wanted and self._clock() - self._ended_at >= max(period, REST * self._took):
                self._asked = wanted
                self._thread = threading.Thread(
                    target=self._refresh, args=(wanted,), name="uvicorn-memory", daemon=True
                )
                self._thread.start()
        return self.pss

    def wait(self) -> None:
        """Until what has been asked for is there."""
        if self._thread is not None:
            self._thread.join()

    def _refresh(self, pids: frozenset[int]) -> None:
        began = self._clock()
        found = {pid: size for pid in sorted(pids) if (size := self._read(pid)) is not None}
        self._ended_at = self._clock()
        self._took = self._ended_at - began
        self.pss = found
