"""A client's end of one HTTP connection: what was sent, what came, and in which words it failed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import Self

from tests.soak.ledger import Connection

# Ten times what the slowest answer takes on a busy machine.
PATIENCE = 60.0


class Lost(Exception):
    """No whole answer came; the text says what came instead."""


@dataclass
class Reply:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection", b"").lower() == b"close"


class Wire:
    """An open connection.

    Args:
        sock: Its socket.
        reader, writer: Its streams.
        opened: When it began to connect.
    """

    def __init__(
        self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float
    ) -> None:
        self.sock = sock
        self.reader = reader
        self.writer = writer
        self.connection = Connection(sock.getsockname()[1], opened)
        # False before any answer has come: then nothing that the server has done explains an end.
        self.closes = False

    @classmethod
    async def open(cls, port: int, window: int = 0) -> Self:
        """Connect.

        Raises:
            Lost: Nobody takes the connection.
        """
        opened = time.monotonic()
        sock = await connected(port, window)
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(sock, reader, writer, opened)

    @property
    def usable(self) -> bool:
        """Whether a pool would take it for another request."""
        return not (
            self.closes
            or self.reader.at_eof()
            or self.reader.exception() is not None
            or self.writer.is_closing()
        )

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), PATIENCE)
        except (OSError, TimeoutError) as exc:
            raise Lost(f"{type(exc).__name__} while sending") from exc

    async def reply(self, pause: float = 0.0) -> Reply:
        """Read one response; with a pause a piece at a time.

        Raises:
            Lost: It does not come, or not to its end.
        """
        began = "answer"
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self.reader.readuntil(b"\r\n\r\n")
                began = "rest of an answer"
                first, *lines = head[:-4].split(b"\r\n")
                pairs = (line.split(b": ", 1) for line in lines)
                headers = {name.lower(): value for name, value in pairs}
                if headers.get(b"transfer-encoding") == b"chunked":
                    body = await self._chunks()
                else:
                    body = await self._exactly(int(headers[b"content-length"]), pause)
        except TimeoutError as exc:
            raise Lost(f"no {began} in {PATIENCE:g} s") from exc
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Lost(f"{type(exc).__name__} instead of the {began}") from exc
        reply = Reply(int(first.split(b" ")[1]), headers, body)
        self.closes = reply.closes
        return reply

    async def _exactly(self, length: int, pause: float) -> bytes:
        body = b""
        while len(body) < length:
            body += await self.reader.readexactly(min(16384, length - len(body)) if pause else length)
            if pause:
                await asyncio.sleep(pause)
        return body

    async def _chunks(self) -> bytes:
        pieces = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
            if not size:
                return b"".join(pieces)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End it by a reset, as a client that dies, or that has had enough."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def connected(port: int, window: int = 0) -> socket.socket:
    """A connected socket.

    Raises:
        Lost: Nobody takes the connection.
    """
    sock = socket.socket()
    sock.setblocking(False)
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port)), PATIENCE)
    except (OSError, TimeoutError) as exc:
        sock.close()
        raise Lost(f"{type(exc).__name__} while connecting") from exc
    return sock
