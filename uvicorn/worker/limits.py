"""When a worker should be replaced: pure, time and memory come in as values."""

from __future__ import annotations

# Memory has to be above the limit this many times in a row: one large request is no leak.
MEMORY_SAMPLES = 3


class Limits:
    """The limits of one worker.

    Args:
        lifetime: Seconds it may live, jitter included; None for ever.
        memory: Bytes of memory it may use, jitter included; None for any.
        now: Monotonic seconds.
        period: Seconds between two looks at memory.
        measure: What is looked at, for the log.

    Attributes:
        useless: Why the limit of memory is not applied, in words; "" where it is.
    """

    def __init__(
        self, lifetime: float | None, memory: int | None, now: float, period: float, measure: str = "rss"
    ) -> None:
        self._end = now + lifetime if lifetime is not None else None
        self._lifetime = lifetime
        self._memory = memory
        self._period = period
        self._measure = measure
        self._above = 0
        # Of a worker that has served nothing yet: what its successor would use as well.
        self._next_sample = now
        self._fresh = True
        self.useless = ""

    def wants_sample(self, now: float) -> bool:
        """Whether memory should be looked at now."""
        return self._memory is not None and now >= self._next_sample

    def sample(self, now: float, used: int) -> str | None:
        """Take a look at memory; a reason to replace the worker, or None.

        A worker that is above its limit from the start would be replaced by one that is, too, and so on for ever: then
        the limit is not applied to it.
        """
        assert self._memory is not None
        self._next_sample = now + self._period
        fresh, self._fresh = self._fresh, False
        if used <= self._memory:
            self._above = 0
            return None
        text = f"limit_worker_memory: {used >> 20} MiB {self._measure}, above {self._memory >> 20} MiB"
        if fresh:
            self.useless = f"{text}, already when it starts: the limit is not applied; raise it."
            self._memory = None
            return None
        self._above += 1
        if self._above < MEMORY_SAMPLES:
            return None
        self._memory = None  # said once: the master has heard it, or will
        return f"{text} {MEMORY_SAMPLES} times in a row"

    def expired(self, now: float) -> str | None:
        """A reason to replace the worker for its age, or None."""
        if self._end is None or now < self._end:
            return None
        self._end = None
        return f"limit_worker_lifetime: older than {self._lifetime:g} s"
