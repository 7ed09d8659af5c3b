"""What a server does again and again while it runs: the Date header, the connections' deadlines, and whatever else is to
be looked at. One timer for all of it, whatever the number of connections.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from email.utils import formatdate

from uvicorn.config import Config
from uvicorn.protocols._context import NEVER
from uvicorn.protocols._state import ServerState

# The shortest period, where a timeout is short; and the longest while the server drains.
SHORTEST_TICK = 0.05
DRAIN_TICK = 0.1
# When a tick is so late the event loop has stood still: an application has blocked it, or nobody has let the process run.
STANDSTILL = 0.5

logger = logging.getLogger("uvicorn.error")


class Ticker:
    """Ticks from `start` to `stop`.

    Args:
        loop: The event loop.
        config: The server's configuration.
        state: What the server's connections share.
        on_tick: Called with the loop's time in each tick. What it raises is logged, and changes nothing.
        longest: The longest period, in seconds.

    Attributes:
        lag: By how much the event loop was late for the last tick, in seconds.

    The coarse time that deadlines are held against stops with the event loop. What clients have sent meanwhile is read after the
    tick; by the clock on the wall, idle connections would be closed on which a request waits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        state: ServerState,
        on_tick: Callable[[float], None],
        longest: float,
    ) -> None:
        self.lag = 0.0
        self._loop = loop
        self._config = config
        self._state = state
        self._on_tick = on_tick
        timeouts: list[float | None] = [
            config.timeout_keep_alive,
            config.timeout_request_head,
            config.timeout_request_body,
            config.timeout_response_write,
            config.ws_ping_interval,
            config.ws_ping_timeout,
        ]
        shortest = min((timeout for timeout in timeouts if timeout), default=4 * longest)
        self._period = max(SHORTEST_TICK, min(longest, shortest / 4))
        self._due = 0.0
        self._stood_still = 0.0
        self._date_second = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The first tick is now."""
        self._tick()

    def stop(self) -> None:
        """No tick comes any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        state = self._state
        now = self._loop.time()
        self.lag = max(0.0, now - self._due) if self._due else 0.0
        if self.lag > STANDSTILL:
            self._stood_still += self.lag
        state.ticked_at = now
        coarse = state.now = now - self._stood_still
        wall = time.time()  # noqa: TID251 - the Date header is wall clock
        if int(wall) != self._date_second:
            self._date_second = int(wall)
            self._renew_default_headers(wall)
        for connection in [each for each in state.connections if getattr(each, "deadline", NEVER) <= coarse]:
            try:
                connection.expire(coarse)
            except Exception:
                logger.exception("A connection's deadline could not be handled.")
        try:
            self._on_tick(now)
        except Exception:
            # Everything hangs on the next tick: deadlines, health, the Date header.
            logger.exception("A tick of the server has failed.")
        # Ticks fall just behind the full second, where the Date header changes.
        period = min(self._period, DRAIN_TICK) if state.draining else self._period
        delay = period - wall % period + 0.001
        self._due = now + delay
        self._timer = self._loop.call_later(delay, self._tick)

    def _renew_default_headers(self, wall: float) -> None:
        headers = self._config.encoded_headers
        if self._config.date_header:
            date = formatdate(wall, usegmt=True).encode()
            headers = [(b"date", date), *headers]
        self._state.default_headers = headers
