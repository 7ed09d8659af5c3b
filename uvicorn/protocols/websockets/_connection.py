"""The asyncio half of a WebSocket: the transport, its deadlines, flow control down to the socket.

It comes from HTTP with the request already parsed (`upgrade_received`). An engine owns the frames, a session the
application's side; what happens between them is here.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import unquote

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols._context import NEVER, ConnectionContext, ProtocolConfig
from uvicorn.protocols._flow import FlowControl
from uvicorn.protocols._refusals import refusal
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import TakesUpgrade, UpgradeRequest
from uvicorn.protocols.http._framing import CHUNKED, LAST_CHUNK, ResponseFramer
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.utils import (
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.protocols.websockets._engine import BadHandshake, Closed, Engine, Event, Pong
from uvicorn.protocols.websockets._handshake import Handshake, RawRequestReader, accept_response
from uvicorn.protocols.websockets._keepalive import KeepAlive
from uvicorn.protocols.websockets._session import HANDSHAKE, OPEN, WebSocketSession

# How long the peer may take to answer a close frame, and to close the connection after it.
CLOSE_TIMEOUT = 10.0
# Bytes are parsed in slices of this size, so that reading stops soon after the queue is full.
SLICE = 16384
# Above this much that waits for the application, reading pauses, whatever the number of messages.
QUEUE_BYTES = 1_048_576

# RFC 6455 7.4.1, and the IANA registry it has opened.
ABNORMAL_CLOSURE, INTERNAL_ERROR, SERVICE_RESTART = 1006, 1011, 1012


class WebSocketContext(ConnectionContext):
    """The shared decisions of WebSocket connections."""

    __slots__ = ("framer",)

    def __init__(self, config: ProtocolConfig, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, loop)
        self.framer = ResponseFramer()


class WebSocketConnection(TakesUpgrade):
    """One WebSocket connection.

    Args:
        config: The configuration; loaded if it is not.
        server_state: What the connections of the server share.
        app_state: The state that lifespan has left; every request gets a copy.
        _loop: The event loop; by default the current one.
    """

    __slots__ = (
        "_chunked",
        "_closing",
        "_engine",
        "_handshake",
        "_held",
        "_keepalive",
        "_raw",
        "app_state",
        "config",
        "context",
        "deadline",
        "flow",
        "logger",
        "loop",
        "scope",
        "server_state",
        "session",
        "transport",
    )

    engine_class: ClassVar[Any]
    # Whether a refused handshake is answered with the reason in the body.
    explains_refusals: ClassVar[bool] = True

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(
        self,
        config: ProtocolConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = _loop or asyncio.get_event_loop()
        context = server_state.contexts.get("websocket")
        if context is None or context.config is not config or context.loop is not loop:
            if not config.loaded:
                config.load()
            context = server_state.contexts["websocket"] = WebSocketContext(config, server_state, loop)
        self.config = config
        self.context: WebSocketContext = context
        self.server_state = server_state
        self.app_state = app_state
        self.loop = loop
        self.logger = context.logger
        self.deadline = NEVER
        self.scope: Any = None
        self.session: WebSocketSession | None = None
        self._engine: Engine | None = None
        self._handshake: Handshake | None = None
        self._raw: RawRequestReader | None = None
        self._keepalive = KeepAlive(config.ws_ping_interval, config.ws_ping_timeout)
        self._held = b""  # bytes that wait until the application has taken messages, or has accepted
        self._chunked = False  # the application's own HTTP response is chunked
        self._closing = False  # a close frame has gone out, or the transport is closing

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.flow = FlowControl(self.transport)
        self.server_state.add_connection(self)
        if self.context.trace:
            self._trace("WebSocket connection made")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.context.trace:
            self._trace("WebSocket connection lost")
        self.flow.resume_writing()
        self._closing = True
        self._held = b""
        session = self.session
        if session is not None:
            session.disconnected(ABNORMAL_CLOSURE, None if session.state == HANDSHAKE else "")
        self.server_state.drop_connection(self)

    def eof_received(self) -> None:
        """A WebSocket cannot be half closed: the transport closes."""

    def pause_writing(self) -> None:
        # Answers to pings grow the buffer as messages do: a client that reads nothing is not read from either.
        self.flow.pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._read_on()

    def upgrade_received(self, request: UpgradeRequest) -> None:
        self._held = request.rest
        try:
            handshake = self._handshake = Handshake(request.headers)
            self._engine = self.engine_class(
                self.config.ws_max_size, self.config.ws_per_message_deflate, handshake.extensions
            )
        except BadHandshake as exc:
            self._refuse_handshake(exc)
            return
        self.scope = self._make_scope(request, handshake)
        session = self.session = WebSocketSession(self, self.scope)
        session.started_at = self.server_state.now
        self.server_state.total_requests += 1
        if self.server_state.total_requests == self.server_state.request_limit:
            self.server_state.limit_reached()
        task = session.task = self.context.create_task(session.run(self.context.app))
        self.server_state.tasks.add(task)
        if self._held:
            self.flow.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.session is None:
            if not self._closing:
                self._read_raw_request(data)
            return
        self._held = self._held + data if self._held else data
        self._parse()

    def _read_raw_request(self, data: bytes) -> None:
        if self._raw is None:
            self._raw = RawRequestReader()
        try:
            request = self._raw.feed(data)
        except Refused as exc:
            self.transport.write(refusal(exc.status, self.context.default_lines()))
            self.close_transport()
            return
        if request is not None:
            self._raw = None
            self.upgrade_received(request)

    # --- reading -----------------------------------------------------------------------------

    def _parse(self) -> None:
        """Give held bytes to the engine, as long as the application has room."""
        session, engine = self.session, self._engine
        if session is None or engine is None or self.transport.is_closing():
            return
        if session.state == HANDSHAKE:
            # RFC 6455 4.1: the client must not send before the handshake is complete. Some do, in the same packet.
            self.flow.pause_reading()
            return
        data, self._held = self._held, b""
        while data:
            if session.queued >= self.config.ws_max_queue or session.queued_bytes >= QUEUE_BYTES:
                self._held = data
                self.flow.pause_reading()
                break
            for event in engine.receive(data[:SLICE]):
                self._take(event, session)
            data = data[SLICE:]
        self._write_output()

    def _take(self, event: Event, session: WebSocketSession) -> None:
        if isinstance(event, (str, bytes)):
            session.message(event)
        elif isinstance(event, Pong):
            self._keepalive.pong(event.payload, self.server_state.now)
            if not self._closing:
                self.deadline = self._keepalive.deadline
        elif isinstance(event, Closed):
            self._write_output()
            session.disconnected(event.code, event.reason)
            self.close_transport()

    def message_taken(self) -> None:
        """The application has taken a message out of the queue."""
        if self.flow.read_paused or self._held:
            self._read_on()

    def _read_on(self) -> None:
        if self._held:
            self._parse()
        if not self._held and not self.flow.write_paused and not self.transport.is_closing():
            self.flow.resume_reading()

    # --- the opening handshake ---------------------------------------------------------------

    def accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer 101.

        Raises:
            InvalidResponse: Something in it cannot be written.
        """
        assert self._handshake is not None
        assert self._engine is not None
        fields = [(bytes(name), bytes(value)) for name, value in headers]
        self.transport.write(
            accept_response(
                self._handshake, self._engine.extensions, subprotocol, self.context.default_lines(), fields
            )
        )
        self.log_handshake("[accepted]")

    def opened(self) -> None:
        """The session is open: keep-alive begins, and what came early is read."""
        self._keepalive.start(self.server_state.now)
        self.deadline = self._keepalive.deadline
        if self.server_state.draining:
            self.drain(final=True)
            return
        self._parse()
        self._read_on()

    def refuse(self, status: int) -> None:
        """Answer the handshake with a response of our own."""
        if status == 500:
            body = b"Internal Server Error"
        else:
            body = b""
            self.log_handshake(str(status))
        lines = b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (status, http.HTTPStatus(status).phrase.encode("ascii")),
                self.context.default_lines(),
                b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
                b"connection: close\r\n\r\n",
            )
        )
        self.transport.write(lines + body)
        self.close_transport()

    def write_denial(self, start: Any, body: bytes, more: bool) -> None:
        """Write a part of the application's own HTTP response; `start` with the first part, else None."""
        transport = self.transport
        if start is not None:
            headers = [(bytes(name), bytes(value)) for name, value in start.get("headers") or ()]
            names = {name.lower() for name, _ in headers}
            if not more and not names & {b"content-length", b"transfer-encoding"}:
                headers.append((b"content-length", b"%d" % len(body)))
            head, mode, _, _ = self.context.framer.head(
                start["status"], headers, self.context.default_lines(), False, True, False
            )
            self._chunked = mode == CHUNKED
            transport.write(head)
        if not self._chunked:
            transport.write(body)
            return
        if body:
            transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        if not more:
            transport.write(LAST_CHUNK)

    def _refuse_handshake(self, exc: BadHandshake) -> None:
        self._closing = True
        self._held = b""
        version_line = b"sec-websocket-version: 13\r\n" if exc.version else b""
        self.logger.warning("Invalid WebSocket handshake received. (%s)", exc.text)
        if self.explains_refusals:
            body, status_line = (
                f"Failed to open a WebSocket connection: {exc.text}.\n".encode(),
                b"400 Bad Request",
            )
        else:
            body = b""
            status_line = b"426 Upgrade Required" if exc.version else b"400 Bad Request"
        self.transport.write(
            b"".join(
                (
                    b"HTTP/1.1 %b\r\n" % status_line,
                    self.context.default_lines(),
                    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
                    b"connection: close\r\n",
                    version_line,
                    b"\r\n",
                    body,
                )
            )
        )
        self.close_transport()

    def log_handshake(self, outcome: str) -> None:
        """The access line of a WebSocket."""
        self.logger.info(
            '%s - "WebSocket %s" %s',
            get_client_addr(self.scope),
            get_path_with_query_string(self.scope),
            outcome,
        )

    def _make_scope(self, request: UpgradeRequest, handshake: Handshake) -> Any:
        context = self.context
        return {
            "type": "websocket",
            "asgi": {"version": context.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": context.root_path,
            "path": context.root_path + unquote(request.path.decode("ascii")),
            "raw_path": context.root_path_bytes + request.path,
            "query_string": request.query,
            "headers": request.headers,
            "subprotocols": handshake.subprotocols,
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    # --- writing -----------------------------------------------------------------------------

    def send_message(self, content: Any) -> None:
        assert self._engine is not None
        if isinstance(content, str):
            self._engine.send_text(content)
        else:
            self._engine.send_bytes(bytes(content))
        self._write_output()

    def _write_output(self) -> None:
        if self._engine is not None:
            data = self._engine.output()
            if data and not self.transport.is_closing():
                self.transport.write(data)

    # --- the end -----------------------------------------------------------------------------

    def start_close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the peer's, within limits."""
        if self._closing or self._engine is None:
            return
        self._closing = True
        self._engine.close(code, reason)
        self._write_output()
        self.deadline = self.server_state.now + CLOSE_TIMEOUT
        self._read_on()
        if not self.server_state.now:
            self.close_transport()  # nobody sweeps, so nobody would end a peer that does not answer

    def close_transport(self) -> None:
        """Write what is buffered, then close."""
        self._closing = True
        self.deadline = self.server_state.now + CLOSE_TIMEOUT
        self.transport.close()

    def end_abruptly(self) -> None:
        """The application's task was cancelled, or found the client gone."""
        if not self.transport.is_closing():
            self.close_transport()

    def expire(self, now: float) -> None:
        """The deadline has passed; called by the server's sweep."""
        self.deadline = NEVER
        if self._closing or self._engine is None:
            self.transport.abort()
            return
        payload = self._keepalive.due(now)
        if payload is not None:
            self.deadline = self._keepalive.deadline
            self._engine.ping(payload)
            self._write_output()
            return
        assert self.session is not None
        self.session.disconnected(INTERNAL_ERROR, "keepalive ping timeout")
        self.start_close(INTERNAL_ERROR, "keepalive ping timeout")

    def shutdown(self) -> None:
        """The server goes: tell the client so (1012), and the application."""
        session = self.session
        if session is None:
            self.close_transport()
        elif session.state == OPEN:
            session.disconnected(SERVICE_RESTART, None)
            self.start_close(SERVICE_RESTART, "")
        elif session.state == HANDSHAKE and not self._closing:
            session.disconnected(ABNORMAL_CLOSURE, None)
            self.refuse(500)

    def drain(self, final: bool) -> None:
        """The worker is leaving: open sockets are told; a handshake in flight is answered first."""
        if self.session is not None and self.session.state == OPEN:
            self.shutdown()

    def _trace(self, what: str) -> None:
        client = get_remote_addr(self.transport)
        prefix = f"{client[0]}:{client[1]} - " if client else ""
        self.logger.log(TRACE_LOG_LEVEL, "%s%s", prefix, what)
