"""Plays a case against a server, and keeps what came back. It shares nothing with what it tests but the standard library."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.autobahn.case import Case, Echoes, Event, Frame, Message, Pause, Raw, Wait, fragments
from tests.autobahn.sizes import contents
from tests.protocols.websockets.frames import BINARY, CLOSE, CONT, PING, PONG, RSV1, TEXT, close_frame, frame

# For whatever has to happen: a busy machine is no mistake of the server.
PATIENCE = 60.0
NORMAL, EMPTY = 1000, 1005


class Broken(Exception):
    """The server has broken the protocol."""


@dataclass
class Seen:
    """What a case has led to.

    Attributes:
        events: What the server has sent.
        close: The code of its close frame; None where there was none.
        ended: Whether it has ended the TCP connection.
        steps: How many steps were begun before that.
        mistake: What it did against the protocol, or did not do in time.
    """

    events: list[Event] = field(default_factory=list)
    close: int | None = None
    ended: bool = False
    steps: int = 0
    mistake: str = ""


class Inflater:
    """The client's side of what was agreed on (RFC 7692 7.1)."""

    def __init__(self, answer: str) -> None:
        parts = [part.strip().partition("=") for part in answer.split(";")]
        self._parameters = {name: value for name, _, value in parts[1:]}
        self._compressor: Any = None
        self._decompressor: Any = None

    def _window(self, side: str) -> int:
        return -int(self._parameters.get(f"{side}_max_window_bits") or 15)

    def compress(self, data: bytes) -> bytes:
        if self._compressor is None or "client_no_context_takeover" in self._parameters:
            self._compressor = zlib.compressobj(1, wbits=self._window("client"))
        return (self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]  # type: ignore[no-any-return]

    def decompress(self, data: bytes) -> bytes:
        if self._decompressor is None or "server_no_context_takeover" in self._parameters:
            self._decompressor = zlib.decompressobj(wbits=self._window("server"))
        try:
            return self._decompressor.decompress(data + b"\x00\x00\xff\xff")  # type: ignore[no-any-return]
        except zlib.error as exc:
            raise Broken(f"what it has compressed does not inflate: {exc}") from None


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.inflater: Inflater | None = None
        self.head = b""
        self._buffer = bytearray()
        self._message: tuple[int, bool, bytearray] | None = None  # opcode, compressed, content
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._paused = False
        self.transport: Any = None

    # --- the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def eof_received(self) -> None:
        self.seen.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.ended = True
        self._paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._read()
        except Broken as exc:
            self.seen.mistake = self.seen.mistake or str(exc)
            self.transport.abort()
        self._wake()

    # --- waiting -----------------------------------------------------------------------------

    def _wake(self) -> None:
        for waiter in self._waiters[:]:
            condition, future = waiter
            if condition() or self.seen.ended:
                self._waiters.remove(waiter)
                if not future.done():
                    future.set_result(None)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Wait for it, or for the end; False where neither came in time."""
        if condition() or self.seen.ended:
            return True
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter[1]
        except TimeoutError:
            self._waiters.remove(waiter)
            return False
        return True

    async def write(self, packets: Iterator[bytes]) -> None:
        for packet in packets:
            if self.transport.is_closing():
                return
            self.transport.write(packet)
            if self._paused:
                await self.until(lambda: not self._paused)

    # --- what the server sends ---------------------------------------------------------------

    def _read(self) -> None:
        if not self.head:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self._buffer[: end + 4])
            del self._buffer[: end + 4]
        at = 0
        while (found := self._next_frame(at)) is not None:
            first, start, at = found
            self._take(first, bytes(self._buffer[start:at]))
        del self._buffer[:at]

    def _next_frame(self, at: int) -> tuple[int, int, int] | None:
        """The first byte of the frame there, and where its payload begins and ends; None where it is not complete."""
        buffer = self._buffer
        if len(buffer) - at < 2:
            return None
        length = buffer[at + 1]
        if length & 0x80:
            raise Broken("a frame of the server is masked")
        size = {126: 2, 127: 8}.get(length, 0)
        start = at + 2 + size
        if len(buffer) < start:
            return None
        if size:
            length = int.from_bytes(buffer[at + 2 : start], "big")
        return (buffer[at], start, start + length) if len(buffer) >= start + length else None

    def _take(self, first: int, payload: bytes) -> None:
        final, rsv, opcode = bool(first & 0x80), first >> 4 & 7, first & 0x0F
        if self.seen.close is not None:
            raise Broken("a frame behind the close frame")
        if rsv and (rsv != RSV1 or self.inflater is None or opcode not in (TEXT, BINARY)):
            raise Broken(f"reserved bits {rsv} in a frame of opcode {opcode}")
        if opcode in (CLOSE, PING, PONG):
            if not final or len(payload) > 125:
                raise Broken("a control frame that is none")
            self._take_control(opcode, payload)
            return
        if opcode not in (CONT, TEXT, BINARY) or (opcode == CONT) == (self._message is None):
            raise Broken(f"a frame of opcode {opcode} here")
        if self._message is None:
            self._message = (opcode, bool(rsv), bytearray())
        kind, compressed, content = self._message
        content += payload
        if final:
            self._message = None
            whole = bytes(content)
            if compressed:
                assert self.inflater is not None
                whole = self.inflater.decompress(whole)
            self.seen.events.append(Event(kind, whole))

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == PONG:
            self.seen.events.append(Event(PONG, payload))
        elif opcode == PING:
            self.transport.write(frame(PONG, payload))
        elif len(payload) == 1:
            raise Broken("a close frame with half a code")
        else:
            self.seen.close = int.from_bytes(payload[:2], "big") if payload else EMPTY
            payload[2:].decode("utf-8")

    # --- what the client does ----------------------------------------------------------------

    async def open(self, offer: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET / HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
        ]  # fmt: skip
        if offer:
            lines.append(f"Sec-WebSocket-Extensions: {offer}")
        self.transport.write("\r\n".join((*lines, "", "")).encode())
        await self.until(lambda: bool(self.head))
        if not self.head.startswith(b"HTTP/1.1 101 "):
            raise Broken(f"no handshake: {self.head[:60]!r}")
        answer = re.search(r"(?im)^sec-websocket-extensions: *(.*?)\r$", self.head.decode("latin-1"))
        if answer is not None:
            self.inflater = Inflater(answer[1])
        elif offer:
            raise Broken("no compression was agreed on")

    async def do(self, step: Any, messages: int) -> None:
        seen = self.seen
        if isinstance(step, (Raw, Frame, Message)):
            await self.write(step.packets())
        elif isinstance(step, Wait):
            if not await self.until(lambda: len(seen.events) >= step.events):
                raise Broken(f"fewer than {step.events} answers in time")
        elif isinstance(step, Pause):
            await self.until(lambda: seen.close is not None, step.seconds)
        else:
            await self._echo(step, messages)

    async def _echo(self, step: Echoes, messages: int) -> None:
        seen = self.seen
        for i, content in enumerate(contents(step.source, step.size, messages)):
            compressed = self.inflater is not None
            data = self.inflater.compress(content) if self.inflater is not None else content
            await self.write(iter((fragments(step.opcode, data, step.fragment, compressed),)))
            if not await self.until(lambda: bool(seen.events)) or not seen.events:
                raise Broken(f"message {i + 1} of {messages} did not come back")
            if seen.events.pop() != Event(step.opcode, content):
                raise Broken(f"message {i + 1} of {messages} came back changed")


async def play(case: Case, port: int, messages: int) -> Seen:
    """What comes of it.

    Args:
        case: It.
        port: Where the server is.
        messages: How many messages a case of many has.
    """
    client = Client()
    seen = client.seen
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    except OSError as exc:
        seen.mistake = f"no connection: {exc}"
        return seen
    try:
        await client.open(case.offer)
        for step in case.steps:
            if seen.close is not None or seen.ended:
                break
            await client.do(step, messages)
            seen.steps += 1
        if not case.fails and not case.closes:
            if not await client.until(lambda: len(seen.events) >= len(case.events)):
                raise Broken("fewer answers than expected in time")
            await client.write(iter((close_frame(NORMAL),)))
        if not await client.until(lambda: False):
            raise Broken("the connection was left open")
    except Broken as exc:
        seen.mistake = seen.mistake or str(exc)
    finally:
        with contextlib.suppress(OSError):
            transport.abort()
    return seen
