"""A transport that keeps what is written to it."""

from __future__ import annotations

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """Looks connected; nothing goes anywhere.

    Attributes:
        buffer: Everything that was written.
        writes: The same, write by write.
        closed: Whether close() or abort() was called.
        eof_written: Whether write_eof() was called.
        reading: Whether reading is on.
        unsent: What get_write_buffer_size() says.
        protocol: What set_protocol() was called with.
    """

    def __init__(
        self,
        peername: Any = ("127.0.0.1", 4321),
        sockname: Any = ("127.0.0.1", 8000),
        sslcontext: Any = None,
        half_close: bool = False,
    ) -> None:
        super().__init__({"peername": peername, "sockname": sockname, "sslcontext": sslcontext})
        self.buffer = b""
        self.writes: list[Any] = []
        self.closed = False
        self.aborted = False
        self.eof_written = False
        self.reading = True
        self.unsent = 0
        self.protocol: asyncio.BaseProtocol | None = None
        self._half_close = half_close

    def write(self, data: Any) -> None:
        assert not self.closed, "write after close"
        assert not self.eof_written, "write after write_eof"
        self.buffer += bytes(data)
        self.writes.append(data)

    def can_write_eof(self) -> bool:
        return self._half_close

    def write_eof(self) -> None:
        self.eof_written = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self.buffer = self.buffer, b""
        return data
