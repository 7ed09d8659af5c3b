"""Flow control of one transport, in both directions; HTTP and WebSocket connections share it.

Reading: whoever holds more than it wants pauses the transport, and the kernel makes the client wait.
Writing: the transport says when its buffer is full; whoever writes waits in `drain()`.
"""

from __future__ import annotations

import asyncio

from uvicorn._kernel import acknowledged_bytes, queued_bytes
from uvicorn.protocols.utils import is_ssl

# More than any connection carries.
_MUCH = 2**62

# Above this many unread bytes a connection stops reading.
HIGH_WATER_LIMIT = 65536


class FlowControl:
    """Pauses and resumes one transport without asking it twice.

    Attributes:
        read_paused: Whether reading is paused.
        write_paused: Whether the transport's write buffer is full.
    """

    __slots__ = ("_transport", "_waiters", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiters: list[asyncio.Future[None]] | None = None
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        """Wait until the write buffer has room, or the connection is gone."""
        while self.write_paused:
            # A future of one's own for each waiter: cancelling one must not cancel the others.
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                forget(self._waiters, waiter)
                raise

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        """Also called when the connection is lost: whoever waits must go on."""
        if self.write_paused:
            self.write_paused = False
            wake(self._waiters)
            self._waiters = None


def forget(waiters: list[asyncio.Future[None]] | None, waiter: asyncio.Future[None]) -> None:
    """Nobody waits for this future any more: without this, waiting with a timeout again and again would keep each."""
    if waiters is not None and waiter in waiters:
        waiters.remove(waiter)


def wake(waiters: list[asyncio.Future[None]] | None) -> None:
    """Let everybody go on who waits for one of these futures."""
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)


def unsent(transport: asyncio.Transport) -> int:
    """What waits for the client: 0 where nothing does, else a number that gets smaller whenever it takes something.

    A TLS transport does not count what it has handed to the transport below it, which may be all of a large response.
    So there the kernel is asked what it still holds: as long as the client has not acknowledged everything that it
    was sent, more may be waiting behind that.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket") if is_ssl(transport) else None
    if sock is None:
        return size
    queued = queued_bytes(sock.fileno())
    if not size and not queued:
        return 0
    acknowledged = acknowledged_bytes(sock.fileno())
    return max(1, size + queued) if acknowledged is None else _MUCH - acknowledged
