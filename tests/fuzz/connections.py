"""A fuzzing target: whole connections, from the first byte to the last, with an application that does right and wrong.

`targets.http` compares what codecs read; this looks at what a client gets, and at what is left when it has gone. The first
byte says how the input is cut into packets, the second what the application does, which WebSocket implementation there
is, and whether the transport can be half closed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterator
from typing import Any

from tests.fuzz.reading import cut, heads
from tests.protocols.http.harness import IMPLEMENTATIONS, StrictTransport, read_responses, request, settle
from tests.protocols.websockets.frames import BINARY, TEXT, close_frame, frame
from tests.protocols.websockets.peer import HEADERS
from uvicorn.config import Config
from uvicorn.protocols._state import ServerState

# What a client must never read.
SECRET = "the application's own"
WEBSOCKETS = ("websockets-sansio", "wsproto")
NUMBER = b"x-number"
# Longer than any deadline: whatever a silent connection waits for, it waits no longer.
LONG = 100.0
# A silent connection ends in a few steps: a ping, a close frame, the end.
STEPS = 10


class Application:
    """Answers, or fails, in one of eight ways; the next request gets the next one."""

    def __init__(self) -> None:
        self.first = 0
        self.calls: list[tuple[str, bytes]] = []

    def begin(self, first: int) -> None:
        self.first = first
        self.calls = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number = len(self.calls)
        way = (self.first + number) % 8
        self.calls.append((scope.get("method", "GET"), scope["raw_path"]))
        if scope["type"] == "websocket":
            await self._websocket(way, receive, send)
        else:
            await self._http(way, number, receive, send)

    async def _http(self, way: int, number: int, receive: Any, send: Any) -> None:
        async def start(*headers: tuple[bytes, bytes]) -> None:
            fields = [(NUMBER, b"%d" % number), *headers]
            await send({"type": "http.response.start", "status": 200, "headers": fields})

        async def body(data: bytes, more: bool = False) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        if way == 0:
            await _read(receive)
        if way in (0, 1):
            await start((b"content-length", b"2"))
            await body(b"ok")
        elif way == 2:
            await start()
            await body(b"a", True)
            await body(b"b", True)
            await body(b"")
        elif way == 3:
            raise RuntimeError(SECRET)
        elif way == 4:
            await start()
            await body(b"a", True)
            raise RuntimeError(SECRET)
        elif way == 5:
            await start((b"content-length", b"5"))
            await body(b"too long")
        elif way == 6:
            await receive()
            await start()
            await body(b"ab")
        else:
            await start((b"x", f"a\r\nset-cookie: {SECRET}".encode()))

    async def _websocket(self, way: int, receive: Any, send: Any) -> None:
        await receive()
        if way == 4:
            await send({"type": "websocket.close"})
            return
        if way == 5:
            await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if way == 6:
                await send({"type": "websocket.close", "code": 4000})
                return
            if way == 7:
                raise RuntimeError(SECRET)
            await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


async def _read(receive: Any) -> None:
    while (message := await receive()).get("more_body"):
        assert message["type"] == "http.request"


APPLICATION = Application()


@functools.cache
def _config(ws: str) -> Any:
    config = Config(
        APPLICATION,
        log_config=None,
        proxy_headers=False,
        ws=ws,  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        limit_request_head=2048,
        h11_max_incomplete_event_size=2048,
        ws_max_size=1000,
    )
    config.load()
    return config


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _play(protocol_class: Any, how: int, packets: list[bytes]) -> None:
    APPLICATION.begin(how >> 2)
    mistakes: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: mistakes.append(context))
    transport = StrictTransport(half_close=bool(how & 1))
    state = ServerState()
    state.now = 1000.0
    protocol = protocol_class(
        config=_config(WEBSOCKETS[how >> 1 & 1]), server_state=state, app_state={}, _loop=loop
    )
    protocol.connection_made(transport)

    def current() -> Any:
        return transport.protocol or protocol

    for packet in packets:
        if transport.closed:
            break
        if not transport.reading:
            await settle()
        if transport.closed or not transport.reading:
            break
        current().data_received(packet)
        await settle(4)
    await settle()
    for _ in range(STEPS):
        if transport.closed:
            break
        state.now += LONG
        if current().deadline <= state.now:
            current().expire(state.now)
        await settle()
    assert transport.closed, "a silent connection never ends"
    current().connection_lost(None)
    await settle()
    assert not mistakes, mistakes
    assert not state.tasks, "a task that nobody waits for"
    assert not state.connections, "a connection that nobody has"
    expected = heads(protocol_class.codec_class, b"".join(packets))
    assert all(called == sent for called, sent in zip(APPLICATION.calls, expected, strict=False)), expected
    _look_at(transport.buffer, [method for method, _ in APPLICATION.calls])


def _look_at(written: bytes, methods: list[str]) -> None:
    """What the client has read: responses in order, each whole but the last, and nothing of the inside."""
    assert SECRET.encode() not in written
    http, switched, _ = written.partition(b"HTTP/1.1 101 ")
    responses = [response for response in read_responses(http, tuple(methods)) if response.status >= 200]
    assert len(responses) <= len(methods) + 1, "more responses than requests"
    numbers = [response.headers.get(NUMBER.decode()) for response in responses]
    # Whatever is not the application's ends the connection.
    assert numbers[:-1] == [str(number) for number in range(len(numbers) - 1)], numbers
    assert numbers[-1:] in ([], [None], [str(len(numbers) - 1)]), numbers
    assert all(response.ended for response in responses[: None if switched else -1])


def connection(data: bytes) -> None:
    """A connection is answered in order or refused, ends, and leaves nothing behind."""
    how = data[1] if len(data) > 1 else 0
    packets, _ = cut(data[:1] + data[2:])
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for protocol_class in IMPLEMENTATIONS.values():
            _loop().run_until_complete(_play(protocol_class, how, packets))
    finally:
        logging.disable(before)


def seeds(http: Iterator[bytes]) -> Iterator[bytes]:
    """The seeds of HTTP with every kind of application, and connections that leave HTTP."""
    for number, seed in enumerate(http):
        yield seed[:1] + bytes([number % 64]) + seed[1:]
    handshake = b"".join(b"%b: %b\r\n" % field for field in HEADERS)
    opening = b"GET /a HTTP/1.1\r\n" + handshake
    pieces = [
        b"\r\n" + frame(TEXT, b"hello") + frame(BINARY, b"x" * 300) + close_frame(1000),
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" + frame(TEXT, b"hello") * 3,
        b"\r\n" + frame(BINARY, b"x", declared=2**40, length_bytes=8),
        b"\r\n" + b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for number, piece in enumerate(pieces):
        for how in range(0, 32, 3):
            yield bytes([number * 7, how]) + opening + piece
            yield bytes([number, how]) + request("GET /first HTTP/1.1") + opening + piece
