"""When to ping, and when silence means that the peer has gone. Pure: time comes in as a value."""

from __future__ import annotations

from uvicorn.protocols._context import NEVER


class KeepAlive:
    """Ping and pong of one connection.

    Args:
        interval: Seconds between pings; None or 0 sends none.
        timeout: Seconds that the peer has to answer; None or 0 waits for ever.

    Attributes:
        timeout: As given.
        deadline: When `due` wants to be asked next.
    """

    __slots__ = ("_awaiting", "_count", "_interval", "deadline", "timeout")

    def __init__(self, interval: float | None, timeout: float | None) -> None:
        self._interval = interval or 0.0
        self.timeout = timeout or 0.0
        self._awaiting: bytes | None = None
        self._count = 0
        self.deadline = NEVER

    def start(self, now: float) -> None:
        """The connection is open."""
        if self._interval:
            self.deadline = now + self._interval

    def due(self, now: float) -> bytes | None:
        """The deadline has passed: the payload of the ping to send, or None where the peer has not answered."""
        if self._awaiting is not None and self.timeout:
            return None
        self._count += 1
        payload = self._awaiting = self._count.to_bytes(4, "big")
        self.deadline = now + (self.timeout or self._interval)
        return payload

    def pong(self, payload: bytes, now: float) -> None:
        """The peer has sent a pong; only the answer to the last ping counts."""
        if payload == self._awaiting:
            self._awaiting = None
            self.deadline = now + self._interval
