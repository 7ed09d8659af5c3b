"""A WebSocket on its transport: hand-over from HTTP, flow control, deadlines, and every way to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport
from tests.protocols.websockets.frames import (
    BINARY,
    CONT,
    PING,
    PONG,
    RSV1,
    TEXT,
    Sent,
    close_frame,
    closed,
    deflated,
    frame,
    read_frames,
)
from tests.protocols.websockets.peer import HEAD, KEY, Peer, settle
from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols._context import NEVER
from uvicorn.protocols._state import ServerState
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets._connection import CLOSE_TIMEOUT, LINGER, QUEUE_BYTES, SLICE
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from uvicorn.protocols.websockets.websockets_impl import WebSocketProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

CLASSES = [WebSocketProtocol, WebSocketsSansIOProtocol, WSProtocol]
HTTP_CLASSES = [HttpToolsProtocol, H11Protocol]

REQUEST = (
    b"GET /chat/caf%C3%A9?a=1 HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\nX-Name: J\xc3\xa9\r\n"
)
SERVER_LINES = [(b"date", b"now"), (b"server", b"uvicorn")]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def messages(records: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


# --- from HTTP --------------------------------------------------------------------------------------


class Handover:
    """An HTTP connection that a client upgrades."""

    def __init__(self, http: Any, app: Any, transport: FakeTransport | None = None, **settings: Any) -> None:
        options: dict[str, Any] = {"log_config": None, "proxy_headers": False, **settings}
        self.config = Config(app, http=http, **options)
        self.state = ServerState()
        self.state.now = 100.0
        self.state.default_headers = list(SERVER_LINES)
        self.transport = transport or FakeTransport()
        self.app_state = {"db": object()}
        self.http = http(self.config, self.state, self.app_state)
        self.http.connection_made(self.transport)

    @property
    def websocket(self) -> Any:
        return self.transport.protocol


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize("ws", CLASSES)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_upgrade_reaches_the_application_and_is_answered(http: Any, ws: Any, bytewise: bool) -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"server", b"mine")]})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"] * 2})
        await send({"type": "websocket.close", "code": 4000, "reason": "done"})

    async def test() -> None:
        peer = Handover(http, app, ws=ws)
        wire = REQUEST + b"Sec-WebSocket-Protocol: a, b\r\n\r\n"
        pieces = [wire[i : i + 1] for i in range(len(wire))] if bytewise else [wire]
        for piece in pieces:
            peer.http.data_received(piece)
        assert isinstance(peer.websocket, ws)
        assert peer.state.connections == {peer.websocket}
        await settle()
        assert peer.transport.take() == (
            HEAD + b"Sec-WebSocket-Protocol: b\r\ndate: now\r\nserver: uvicorn\r\nserver: mine\r\n\r\n"
        )
        peer.websocket.data_received(frame(TEXT, b"ab"))
        await settle()
        assert read_frames(peer.transport.take()) == [Sent(TEXT, b"abab"), closed(4000, "done")]
        peer.websocket.data_received(close_frame(4000))
        assert peer.transport.closed
        assert (peer.state.websockets, peer.state.responses[1]) == (1, 1)
        peer.websocket.connection_lost(None)
        assert peer.state.websockets == 0
        assert peer.state.connections == set()
        assert peer.state.tasks == set()
        assert peer.state.total_requests == 1
        (scope,) = scopes
        state = scope.pop("state")
        assert state == peer.app_state
        assert state is not peer.app_state
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 4321),
            "root_path": "",
            "path": "/chat/café",
            "raw_path": b"/chat/caf%C3%A9",
            "query_string": b"a=1",
            "headers": [
                (b"host", b"example.org"),
                (b"upgrade", b"websocket"),
                (b"connection", b"Upgrade"),
                (b"sec-websocket-key", KEY),
                (b"sec-websocket-version", b"13"),
                (b"x-name", b"J\xc3\xa9"),
                (b"sec-websocket-protocol", b"a, b"),
            ],
            "subprotocols": ["a", "b"],
            "extensions": {"websocket.http.response": {}},
        }

    run(test)


def test_scope_over_tls_behind_a_root_path_on_a_unix_socket() -> None:
    async def test() -> None:
        transport = FakeTransport(peername="", sockname="/run/app.sock", sslcontext=object())
        peer = Peer(transport=transport, path=b"/x", root_path="/api")
        await peer.accept()
        scope = peer.app.scope
        assert scope["scheme"] == "wss"
        assert (scope["server"], scope["client"]) == (None, None)
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/x", b"/api/x")

    run(test)


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize("ws", CLASSES)
def test_frames_in_one_packet_with_the_request_are_received(http: Any, ws: Any) -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await settle()  # they have come already, and wait
        await send({"type": "websocket.accept"})
        got.extend([await receive() for _ in range(3)])

    async def test() -> None:
        peer = Handover(http, app, ws=ws)
        early = frame(TEXT, b"one") + frame(BINARY, b"two") + frame(PING, b"three")
        peer.http.data_received(REQUEST + b"\r\n" + early[:7])
        peer.websocket.data_received(early[7:] + close_frame(1000))
        for _ in range(3):
            await settle()

    run(test)
    assert got == [
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "bytes": b"two"},
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
    ]


REFUSED = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n"


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize("ws", CLASSES)
@pytest.mark.parametrize(
    ("old", "new", "reason", "version"),
    [
        (b"Sec-WebSocket-Key", b"X-Key", "missing Sec-WebSocket-Key header", False),
        (b"Version: 13", b"Version: 8", "invalid Sec-WebSocket-Version header: 8", True),
        (
            b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13",
            b"Sec-WebSocket-Version: 11",
            "missing Sec-WebSocket-Key header",
            True,
        ),
        (b"Sec-WebSocket-Version", b"X-Version", "missing Sec-WebSocket-Version header", True),
        (
            b"X-Name",
            b"Sec-WebSocket-Extensions: a b\r\nX-Name",
            "invalid Sec-WebSocket-Extensions header: a b",
            False,
        ),
    ],
)
def test_invalid_handshake_is_refused(
    http: Any,
    ws: Any,
    old: bytes,
    new: bytes,
    reason: str,
    version: bool,
    error_log: list[logging.LogRecord],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not to be called")

    async def test() -> None:
        peer = Handover(http, app, ws=ws)
        peer.http.data_received(REQUEST.replace(old, new) + b"\r\n" + frame(TEXT, b"early"))
        body = b"" if ws is WSProtocol else f"Failed to open a WebSocket connection: {reason}.\n".encode()
        status = b"426 Upgrade Required" if ws is WSProtocol and version else b"400 Bad Request"
        assert peer.transport.take() == b"".join(
            (
                b"HTTP/1.1 " + status + b"\r\ndate: now\r\nserver: uvicorn\r\n",
                REFUSED % len(body),
                b"sec-websocket-version: 13\r\n" if version else b"",
                b"\r\n",
                body,
            )
        )
        assert peer.transport.closed
        assert peer.state.tasks == set()
        peer.websocket.data_received(frame(TEXT, b"late"))
        peer.websocket.drain(True)
        peer.websocket.connection_lost(None)
        assert peer.state.connections == set()

    run(test)
    assert messages(error_log) == [
        f"WARNING Invalid WebSocket handshake received. (127.0.0.1:4321: {reason})"
    ]


@pytest.mark.parametrize("ws", CLASSES)
def test_compression_is_agreed_on_and_used(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws, headers=[(b"sec-websocket-extensions", b"x-other, permessage-deflate")])
        await peer.send("accept")
        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate" in peer.transport.take()
        peer.feed(frame(TEXT, deflated(b"hello"), rsv=RSV1))
        await peer.receive()
        assert (await peer.receive())["text"] == "hello"
        await peer.send("send", text="hello")
        assert [sent.rsv for sent in peer.frames()] == [RSV1]

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_compression_that_is_switched_off_is_not_agreed_on(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(
            ws,
            headers=[(b"sec-websocket-extensions", b"permessage-deflate")],
            ws_per_message_deflate=False,
        )
        await peer.send("accept")
        assert peer.transport.take() == HEAD + b"\r\n"

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_message_above_the_limit_ends_with_1009(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws, ws_max_size=10)
        await peer.accept()
        peer.feed(frame(TEXT, b"x" * 10) + frame(TEXT, b"x" * 11))
        assert (await peer.receive())["text"] == "x" * 10
        assert (await peer.receive())["code"] == 1009
        (sent,) = peer.frames()
        assert sent.payload[:2] == (1009).to_bytes(2, "big")
        assert peer.transport.closed

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_what_follows_a_close_frame_is_not_looked_at(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws)
        await peer.accept()
        peer.feed(close_frame(1000) + b"\xff" * 3 * SLICE)
        assert peer.frames() == [closed(1000)]
        assert peer.transport.closed

    run(test)


def test_limit_of_requests_counts_handshakes() -> None:
    async def test() -> None:
        reached = []
        state = ServerState()
        state.request_limit = 2
        state.on_request_limit = lambda: reached.append(state.total_requests)
        config = Config(lambda: None, log_config=None)
        config.load()
        for _ in range(3):
            connection = WebSocketProtocol(config, state, {})
            connection.connection_made(FakeTransport())
            connection.data_received(REQUEST + b"\r\n")
        assert reached == [2]
        assert state.total_requests == 3
        await settle()

    run(test)


# --- a class of HTTP that is none of ours ------------------------------------------------------------


@pytest.mark.parametrize("ws", CLASSES)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_raw_request_through_data_received_opens(ws: Any, bytewise: bool) -> None:
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append((scope["path"], scope["query_string"], scope["headers"][-1]))
        await receive()
        await send({"type": "websocket.accept"})
        got.append(await receive())

    async def test() -> None:
        state = ServerState()
        transport = FakeTransport()
        config = Config(app, log_config=None, proxy_headers=False)
        assert not config.loaded
        connection = ws(config=config, server_state=state, app_state={})
        assert config.loaded
        connection.connection_made(transport)
        wire = REQUEST + b"\r\n" + frame(TEXT, b"early")
        if bytewise:
            for i in range(len(wire)):
                connection.data_received(wire[i : i + 1])
        else:
            connection.data_received(wire)
        await settle()
        assert transport.buffer == HEAD + b"\r\n"

    run(test)
    assert got == [
        ("/chat/café", b"a=1", (b"x-name", b"J\xc3\xa9")),
        {"type": "websocket.receive", "text": "early"},
    ]


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 131072, b"431 Request Header Fields Too Large"),
    ],
)
def test_raw_bytes_that_open_nothing_are_refused(wire: bytes, status: bytes) -> None:
    async def test() -> None:
        transport = FakeTransport()
        connection = WebSocketProtocol(Config(lambda: None, log_config=None), ServerState(), {})
        connection.connection_made(transport)
        connection.data_received(wire)
        assert transport.take().startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert transport.closed
        connection.data_received(b"more")
        assert transport.buffer == b""

    run(test)


def test_tasks_and_nothing_else_are_asked_of_the_given_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def test() -> None:
        loop = FakeLoop()
        transport = FakeTransport()
        config = Config(app, log_config=None)
        connection = WebSocketProtocol(config, ServerState(), {}, _loop=loop)  # type: ignore[arg-type]
        connection.connection_made(transport)
        connection.data_received(REQUEST + b"\r\n")
        assert len(loop.coroutines) == 1
        await loop.run_all()
        assert transport.take().endswith(b"\r\n\r\n\x88\x02\x03\xe8")
        # Nobody sweeps here, so nobody would end a client that does not answer the close frame.
        assert transport.closed
        assert loop.timers == []

    run(test)


def test_connections_of_one_server_share_their_decisions() -> None:
    async def test() -> None:
        config = Config(lambda: None, log_config=None)
        state = ServerState()
        first, second = (WebSocketProtocol(config, state, {}) for _ in range(2))
        assert first.context is second.context
        other = WebSocketProtocol(Config(lambda: None, log_config=None), state, {})
        assert other.context is not first.context

    run(test)


def test_automatic_class_is_the_websockets_one() -> None:
    assert AutoWebSocketsProtocol is WebSocketProtocol


# --- reading no more than the application takes --------------------------------------------------------


def test_early_bytes_up_to_a_limit_leave_reading_on() -> None:
    async def test() -> None:
        peer = Peer(rest=b"x" * SLICE)
        assert peer.transport.reading
        peer.feed(b"x")
        assert not peer.transport.reading

    run(test)


def test_reading_goes_on_when_the_handshake_is_complete() -> None:
    async def test() -> None:
        early = frame(BINARY, b"x" * SLICE) + frame(TEXT, b"a")
        peer = Peer(rest=early)
        assert not peer.transport.reading
        await peer.accept()
        assert peer.transport.reading
        assert (await peer.receive())["bytes"] == b"x" * SLICE
        assert (await peer.receive())["text"] == "a"

    run(test)


def test_bytes_behind_a_request_that_is_denied_are_dropped() -> None:
    async def test() -> None:
        peer = Peer(rest=frame(PING, b"early"))
        await peer.send("http.response.start", status=401)
        peer.feed(frame(PING, b"late"))
        await peer.send("http.response.body", body=b"a", more_body=True)
        peer.feed(b"\xff" * 2 * SLICE)
        await peer.send("http.response.body", body=b"b")
        assert peer.transport.take() == (
            b"HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
        )

    run(test)


def test_full_queue_pauses_reading_until_messages_are_taken() -> None:
    async def test() -> None:
        peer = Peer(ws_max_queue=2)
        await peer.accept()
        large = frame(BINARY, b"x" * SLICE)
        peer.feed(large * 4)
        assert not peer.transport.reading
        assert peer.connection.session.queued == 2
        for _ in range(3):
            assert (await peer.receive())["bytes"] == b"x" * SLICE
        assert peer.transport.reading
        assert (await peer.receive())["bytes"] == b"x" * SLICE
        assert peer.connection.session.queued == peer.connection.session.queued_bytes == 0

    run(test)


def test_large_messages_pause_reading_before_there_are_many() -> None:
    async def test() -> None:
        peer = Peer(ws_max_queue=1000)
        await peer.accept()
        peer.feed(frame(BINARY, b"x" * QUEUE_BYTES) + frame(TEXT, b"y" * 2 * SLICE))
        assert not peer.transport.reading
        assert peer.connection.session.queued == 1
        await peer.receive()
        assert peer.transport.reading
        assert (await peer.receive())["text"] == "y" * 2 * SLICE

    run(test)


def test_own_close_is_answered_although_the_queue_is_full() -> None:
    async def test() -> None:
        peer = Peer(ws_max_queue=1)
        await peer.accept()
        peer.feed(frame(BINARY, b"x" * SLICE) * 3 + close_frame(1000))
        assert not peer.transport.reading
        await peer.send("close")
        assert peer.frames() == [closed(1000)]
        assert peer.transport.closed

    run(test)


def test_close_of_the_client_waits_behind_its_messages() -> None:
    async def test() -> None:
        peer = Peer(ws_max_queue=1)
        await peer.accept()
        peer.feed(frame(BINARY, b"x" * SLICE) * 3 + close_frame(4000))
        assert not peer.transport.closed
        for _ in range(3):
            assert (await peer.receive())["bytes"] == b"x" * SLICE
        assert (await peer.receive())["code"] == 4000
        assert peer.transport.closed

    run(test)


def test_client_that_reads_nothing_is_not_read_from() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.connection.pause_writing()
        assert not peer.transport.reading
        peer.connection.resume_writing()
        assert peer.transport.reading

    run(test)


def test_reading_stays_paused_while_the_client_reads_nothing() -> None:
    async def test() -> None:
        peer = Peer(ws_max_queue=1)
        await peer.accept()
        peer.feed(frame(BINARY, b"x" * SLICE) * 2)
        peer.connection.pause_writing()
        await peer.receive()
        await peer.receive()
        assert not peer.transport.reading
        peer.connection.resume_writing()
        assert peer.transport.reading

    run(test)


# --- writing no faster than the client reads -------------------------------------------------------------


def test_send_waits_while_the_buffer_is_full() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.connection.pause_writing()
        sending = asyncio.create_task(peer.send("send", text="a"))
        await settle()
        assert not sending.done()
        assert peer.frames() == []
        peer.connection.resume_writing()
        await sending
        assert peer.frames() == [Sent(TEXT, b"a")]

    run(test)


class FullTransport(FakeTransport):
    """Says that its buffer is full whenever something is written."""

    full = False

    def write(self, data: Any) -> None:
        super().write(data)
        if self.full:
            self.full = False
            self.protocol.pause_writing()  # type: ignore[union-attr]


def test_send_that_fills_the_buffer_waits_until_it_has_room() -> None:
    async def test() -> None:
        transport = FullTransport()
        peer = Peer(transport=transport)
        transport.protocol = peer.connection
        await peer.accept()
        transport.full = True
        sending = asyncio.create_task(peer.send("send", text="a"))
        await settle()
        assert peer.frames() == [Sent(TEXT, b"a")]
        assert not sending.done()
        peer.connection.resume_writing()
        await sending

    run(test)


@pytest.mark.parametrize("filled_before", [True, False])
def test_send_that_waits_ends_with_the_connection(filled_before: bool) -> None:
    async def test() -> None:
        transport = FullTransport()
        peer = Peer(transport=transport)
        transport.protocol = peer.connection
        await peer.accept()
        if filled_before:
            peer.connection.pause_writing()
        else:
            transport.full = True
        sending = asyncio.create_task(peer.send("send", text="a"))
        await settle()
        peer.connection.connection_lost(ConnectionResetError())
        with pytest.raises(ClientDisconnected):
            await sending

    run(test)


# --- a handshake that takes long ---------------------------------------------------------------------


@pytest.mark.parametrize("ws", CLASSES)
def test_handshake_that_the_application_does_not_answer_ends_with_504(
    ws: Any, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer(ws, ws_handshake_timeout=7)
        assert await peer.receive() == {"type": "websocket.connect"}
        assert peer.connection.deadline == 107.0
        peer.connection.expire(107.0)
        assert peer.transport.take().startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert peer.transport.closed
        assert peer.state.responses[5] == 1
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1006}
        with pytest.raises(ClientDisconnected):
            await peer.send("accept")
        peer.connection.expire(peer.connection.deadline)
        assert peer.transport.aborted
        await peer.end()

    run(test)
    assert messages(error_log) == [
        "WARNING WebSocket handshake timed out: no answer of the application within 7 s (ws_handshake_timeout).",
        'INFO 127.0.0.1:4321 - "WebSocket /" 504',
    ]


@pytest.mark.parametrize("timeout", [0, None])
def test_handshake_without_a_limit_waits_for_the_application(timeout: float | None) -> None:
    async def test() -> None:
        peer = Peer(ws_handshake_timeout=timeout)
        assert peer.connection.deadline == NEVER
        await peer.accept()

    run(test)


def test_own_response_that_has_begun_is_in_time() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.receive()
        await peer.send("http.response.start", status=401)
        assert peer.connection.deadline == NEVER

    run(test)


def test_raw_request_that_never_becomes_complete_is_cut() -> None:
    async def test() -> None:
        transport, state = FakeTransport(), ServerState()
        state.now = 100.0
        config = Config(lambda: None, log_config=None, timeout_request_head=3)
        connection = WebSocketProtocol(config, state, {})
        connection.connection_made(transport)
        connection.data_received(REQUEST)
        assert connection.deadline == 103.0
        connection.expire(103.0)
        assert transport.aborted

    run(test)


# --- pings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ws", CLASSES)
def test_ping_goes_out_after_the_interval_and_again_after_the_answer(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws, ws_ping_interval=20, ws_ping_timeout=5)
        await peer.accept()
        assert peer.connection.deadline == 120.0
        peer.connection.expire(120.0)
        (first,) = peer.frames()
        assert first.opcode == PING
        assert peer.connection.deadline == 125.0
        peer.state.now = 121.0
        peer.feed(frame(PONG, first.payload))
        assert peer.connection.deadline == 141.0
        peer.connection.expire(141.0)
        (second,) = peer.frames()
        assert second.opcode == PING
        assert second.payload != first.payload

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_client_that_does_not_answer_pings_is_closed_with_1011(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws, ws_ping_interval=20, ws_ping_timeout=5)
        await peer.accept()
        peer.connection.expire(120.0)
        peer.transport.take()
        peer.state.now = 125.0
        peer.connection.expire(125.0)
        assert peer.frames() == [closed(1011, "keepalive ping timeout")]
        end = {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}
        assert await peer.receive() == end
        with pytest.raises(ClientDisconnected):
            await peer.send("send", text="a")
        assert peer.connection.deadline == 125.0 + CLOSE_TIMEOUT
        peer.connection.expire(125.0 + CLOSE_TIMEOUT)
        assert peer.transport.aborted

    run(test)


def test_client_whose_answer_nobody_reads_is_not_blamed() -> None:
    async def test() -> None:
        peer = Peer(ws_ping_interval=20, ws_ping_timeout=5, ws_max_queue=1)
        await peer.accept()
        peer.connection.expire(120.0)
        (ping,) = peer.frames()
        # The application takes nothing, so the answer waits behind messages.
        peer.feed(frame(BINARY, b"x" * SLICE) * 2 + frame(PONG, ping.payload))
        peer.connection.expire(125.0)
        assert peer.frames() == []
        assert peer.connection.deadline == 130.0
        peer.state.now = 126.0
        await peer.receive()
        await peer.receive()
        assert peer.connection.deadline == 146.0

    run(test)


def test_client_that_reads_nothing_is_blamed_although_it_is_not_read_from() -> None:
    async def test() -> None:
        peer = Peer(ws_ping_interval=20, ws_ping_timeout=5)
        await peer.accept()
        peer.connection.expire(120.0)
        peer.connection.pause_writing()
        peer.connection.expire(125.0)
        assert (await peer.receive())["code"] == 1011

    run(test)


@pytest.mark.parametrize("interval", [None, 0])
def test_without_an_interval_there_is_no_ping(interval: float | None) -> None:
    async def test() -> None:
        peer = Peer(ws_ping_interval=interval)
        await peer.accept()
        assert peer.connection.deadline == NEVER

    run(test)


def test_pong_after_the_own_close_does_not_move_its_deadline() -> None:
    async def test() -> None:
        peer = Peer(ws_ping_interval=20, ws_ping_timeout=5)
        await peer.accept()
        peer.connection.expire(120.0)
        (ping,) = peer.frames()
        await peer.send("close")
        assert peer.connection.deadline == 100.0 + CLOSE_TIMEOUT
        peer.feed(frame(PONG, ping.payload))
        assert peer.connection.deadline == 100.0 + CLOSE_TIMEOUT

    run(test)


# --- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ws", CLASSES)
def test_client_that_does_not_answer_the_close_is_cut(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws)
        await peer.accept()
        await peer.send("close")
        assert not peer.transport.closed
        peer.connection.expire(100.0 + CLOSE_TIMEOUT)
        assert peer.transport.aborted

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
@pytest.mark.parametrize(
    ("wire", "code"),
    [(frame(TEXT, b"\xff"), 1007), (frame(3), 1002), (close_frame(1000), 1000)],
    ids=["text", "opcode", "close"],
)
def test_client_that_still_sends_when_it_is_over_gets_the_close_frame_and_no_reset(
    ws: Any, wire: bytes, code: int
) -> None:
    async def test() -> None:
        peer = Peer(ws, transport=FakeTransport(half_close=True))
        await peer.accept()
        peer.feed(wire)
        assert peer.frames()[0].payload[:2] == code.to_bytes(2, "big")
        for _ in range(5):
            peer.feed(frame(PING, b"?") * 10_000)
        assert (await peer.receive())["code"] == code
        with pytest.raises(ClientDisconnected):
            await peer.send("send", text="too late")
        await peer.end(ClientDisconnected())
        # The application's end is not the connection's: that comes from the client, or from the clock.
        assert peer.transport.eof_written
        assert peer.transport.reading
        assert not peer.transport.closed
        assert peer.transport.take() == b""
        assert peer.connection.deadline == 100.0 + LINGER
        peer.connection.expire(100.0 + LINGER)
        assert peer.transport.aborted

    run(test)


def test_client_that_has_more_to_take_than_the_close_frame_gets_the_time_for_it() -> None:
    async def test() -> None:
        peer = Peer(transport=FakeTransport(half_close=True))
        await peer.accept()
        peer.transport.unsent = 100_000
        peer.connection.pause_writing()
        assert not peer.transport.reading
        peer.feed(frame(3))
        assert peer.transport.reading
        assert peer.connection.deadline == 100.0 + CLOSE_TIMEOUT

    run(test)


def test_client_that_does_not_take_a_refusal_is_cut() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("close")
        assert peer.transport.closed
        assert peer.connection.deadline == 100.0 + CLOSE_TIMEOUT
        peer.connection.expire(110.0)
        assert peer.transport.aborted

    run(test)


def test_client_that_does_not_take_the_applications_response_is_cut() -> None:
    async def test() -> None:
        peer = Peer(timeout_response_write=7)
        await peer.send("http.response.start", status=401)
        peer.connection.pause_writing()
        assert peer.connection.deadline == 107.0
        peer.connection.resume_writing()
        assert peer.connection.deadline == NEVER
        peer.connection.pause_writing()
        peer.connection.expire(107.0)
        assert peer.transport.aborted

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_drain_closes_an_open_socket_with_1012(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws)
        await peer.accept()
        peer.feed(frame(TEXT, b"before"))
        peer.connection.drain(False)
        assert peer.frames() == [closed(1012)]
        assert (await peer.receive())["text"] == "before"
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1012}
        with pytest.raises(ClientDisconnected):
            await peer.send("send", text="late")
        peer.feed(close_frame(1012))
        assert peer.transport.closed

    run(test)


@pytest.mark.parametrize("ws", CLASSES)
def test_drain_lets_a_handshake_be_answered_and_then_closes_with_1012(ws: Any) -> None:
    async def test() -> None:
        peer = Peer(ws)
        assert (await peer.receive())["type"] == "websocket.connect"
        peer.state.draining = True
        peer.connection.drain(True)
        assert peer.transport.take() == b""
        await peer.send("accept")
        head, _, rest = peer.transport.take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert read_frames(rest) == [closed(1012)]
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1012}

    run(test)


def test_drain_lets_a_denial_be_completed() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=401)
        peer.connection.drain(True)
        peer.connection.shutdown()
        await peer.send("http.response.body", body=b"no")
        assert peer.transport.take().endswith(b"\r\n\r\nno")

    run(test)


def test_shutdown_answers_a_handshake_with_500() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.receive()
        peer.connection.shutdown()
        assert peer.transport.take().startswith(b"HTTP/1.1 500 ")
        assert peer.transport.closed
        peer.connection.shutdown()
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1006}
        with pytest.raises(ClientDisconnected):
            await peer.send("accept")

    run(test)


def test_shutdown_closes_a_connection_without_a_request() -> None:
    async def test() -> None:
        transport = FakeTransport()
        connection = WebSocketProtocol(Config(lambda: None, log_config=None), ServerState(), {})
        connection.connection_made(transport)
        connection.data_received(b"GET / HTTP/1.1\r\n")
        connection.shutdown()
        assert transport.closed
        connection.expire(1.0)
        assert transport.aborted

    run(test)


def test_shutdown_of_an_open_socket_without_a_sweep_closes_at_once() -> None:
    async def test() -> None:
        peer = Peer(now=0.0)
        await peer.accept()
        peer.connection.shutdown()
        assert peer.frames() == [closed(1012)]
        assert peer.transport.closed
        peer.connection.shutdown()

    run(test)


def test_end_of_file_closes_the_transport_by_itself() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        assert peer.connection.eof_received() is None

    run(test)


def test_loss_of_the_connection_is_told_to_the_server() -> None:
    class Counter:
        lost = 0

        def connection_lost(self) -> None:
            self.lost += 1

    async def test() -> None:
        emptied = []
        peer = Peer()
        await peer.accept()
        counter = peer.state.counter = Counter()
        peer.state.on_emptied = lambda: emptied.append(set(peer.state.connections))
        assert peer.state.connections == {peer.connection}
        peer.connection.connection_lost(None)
        assert peer.state.connections == set()
        assert counter.lost == 1
        assert emptied == [set()]

    run(test)


def test_answer_to_frames_of_a_closing_transport_is_not_written() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.transport.close()
        peer.feed(frame(PING, b"x") + frame(TEXT, b"a", final=False) + frame(CONT, b"b"))
        await peer.send("send", text="into the void")
        assert peer.transport.buffer == b""

    run(test)


@pytest.mark.parametrize("peername", [("127.0.0.1", 4321), ""], ids=["TCP", "UNIX"])
def test_trace_lines(peername: Any, process_state: None) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelno} {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async def test() -> None:
        peer = Handover(
            HttpToolsProtocol,
            app,
            FakeTransport(peername=peername),
            log_level=TRACE_LOG_LEVEL,
        )
        peer.http.data_received(REQUEST + b"\r\n")
        await settle()
        peer.websocket.connection_lost(None)

    run(test)
    who = "127.0.0.1:4321 - " if peername else ""
    access = "127.0.0.1:4321" if peername else ""
    assert [line for line in lines if "ASGI" not in line] == [
        f"5 {who}HTTP connection made",
        f"5 {who}Upgrading to WebSocket",
        f"5 {who}WebSocket connection made",
        f'20 {access} - "WebSocket /chat/caf%C3%A9?a=1" 403',
        f"5 {who}WebSocket connection lost",
    ]
