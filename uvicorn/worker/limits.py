"""When a worker should be replaced: pure, time and memory come in as values."""

from __future__ import annotations

# Memory is looked at this often, in seconds, and has to be above the limit this many times in a row.
MEMORY_PERIOD = 10.0
MEMORY_SAMPLES = 3


class Limits:
    """The limits of one worker.

    Args:
        lifetime: Seconds it may live, jitter included; None for ever.
        memory: Bytes of resident memory it may use; None for any.
        now: Monotonic seconds.

    Attributes:
        useless: Whether the very first sample was above the limit, which does not count any more.
    """

    def __init__(self, lifetime: float | None, memory: int | None, now: float) -> None:
        self._end = now + lifetime if lifetime is not None else None
        self._lifetime = lifetime
        self._memory = memory
        self._above = 0
        self._next_sample = now + MEMORY_PERIOD
        self._first = True
        self.useless = False

    def wants_sample(self, now: float) -> bool:
        """Whether memory should be looked at now."""
        return self._memory is not None and now >= self._next_sample

    def sample(self, now: float, resident: int) -> str | None:
        """Take a look at memory; a reason to replace the worker, or None.

        A worker that is above its limit from the start would be replaced by one that is, too: then the limit is of
        no use, and the first sample says so by switching it off.
        """
        assert self._memory is not None
        self._next_sample = now + MEMORY_PERIOD
        first, self._first = self._first, False
        if resident <= self._memory:
            self._above = 0
            return None
        if first:
            self.useless = True
            self._memory = None
            return None
        self._above += 1
        if self._above < MEMORY_SAMPLES:
            return None
        self._above = 0
        return f"limit_worker_memory: {resident >> 20} MiB resident, above {self._memory >> 20} MiB"

    def expired(self, now: float) -> str | None:
        """A reason to replace the worker for its age, or None."""
        if self._end is None or now < self._end:
            return None
        self._end = None
        return f"limit_worker_lifetime: older than {self._lifetime:g} s"
