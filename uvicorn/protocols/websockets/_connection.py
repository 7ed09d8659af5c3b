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
from uvicorn.protocols._access import CHANGED_SCOPE, client_text, mended, request_path
from uvicorn.protocols._context import NEVER, ConnectionContext, ProtocolConfig
from uvicorn.protocols._flow import FlowControl
from uvicorn.protocols._refusals import refusal
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import TakesUpgrade, UpgradeRequest
from uvicorn.protocols.http._framing import CHUNKED, LAST_CHUNK, NONE, ResponseFramer
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.utils import (
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.protocols.websockets._engine import Engine, Event, Pong
from uvicorn.protocols.websockets._handshake import (
    BadHandshake,
    Handshake,
    RawRequestReader,
    accept_response,
)
from uvicorn.protocols.websockets._keepalive import KeepAlive
from uvicorn.protocols.websockets._session import DENYING, HANDSHAKE, OPEN, WebSocketSession

# How long the peer may take to answer a close frame, and to close the connection after it.
CLOSE_TIMEOUT = 10.0
# Bytes are parsed in slices of this size, so that reading stops soon after the queue is full. So much may also come
# before the handshake is complete.
SLICE = 16384
# Above this much that waits for the application, reading pauses, whatever the number of messages.
QUEUE_BYTES = 1_048_576

# RFC 6455 7.4.1, and the IANA registry it has opened.
ABNORMAL_CLOSURE, INTERNAL_ERROR, SERVICE_RESTART = 1006, 1011, 1012


# Status and headers of the application's own HTTP response.
Denial = tuple[int, list[tuple[bytes, bytes]]]


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
        "_closing",
        "_counted",
        "_denial_left",
        "_denial_mode",
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
        self._denial_mode = NONE  # how the body of the application's own HTTP response goes
        self._counted = False  # among the open ones
        self._denial_left = 0  # how much of it is to come, where it has a length
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
            before = session.state in (HANDSHAKE, DENYING)
            session.disconnected(ABNORMAL_CLOSURE, None if before else "")
        if self._counted:
            self._counted = False
            self.server_state.websockets -= 1
        self.server_state.drop_connection(self)

    def eof_received(self) -> None:
        """A WebSocket cannot be half closed: the transport closes."""

    def pause_writing(self) -> None:
        # Answers to pings grow the buffer as messages do: a client that reads nothing is not read from either.
        self.flow.pause_writing()
        self.flow.pause_reading()
        if self._denying():
            self.deadline = self.server_state.now + self.config.timeout_response_write

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self._denying():
            self.deadline = NEVER
        self._read_on()

    def _denying(self) -> bool:
        return self.session is not None and self.session.state == DENYING and not self._closing

    def upgrade_received(self, request: UpgradeRequest) -> None:
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
        if request.rest:
            self.data_received(request.rest)
        self.server_state.total_requests += 1
        if self.server_state.total_requests == self.server_state.request_limit:
            self.server_state.limit_reached()
        task = session.task = self.context.create_task(session.run(self.context.app))
        if not (self.context.starts_eagerly and task.done()):
            self.server_state.tasks.add(task)

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
            # Up to a limit reading goes on, because who does not read does not see the client go.
            if len(self._held) > SLICE:
                self.flow.pause_reading()
            return
        data, self._held = self._held, b""
        if session.state == DENYING:
            return  # it stays HTTP, and nothing may come behind this request
        while data and not self.transport.is_closing():
            if session.state == OPEN and self._queue_full(session):
                self._held = data
                self.flow.pause_reading()
                break
            size = max(SLICE, engine.missing)
            for event in engine.receive(data[:size]):
                self._take(event, session)
            data = data[size:]
        self._write_output()

    def _queue_full(self, session: WebSocketSession) -> bool:
        return session.queued >= self.config.ws_max_queue or session.queued_bytes >= QUEUE_BYTES

    def _take(self, event: Event, session: WebSocketSession) -> None:
        if isinstance(event, (str, bytes)):
            session.message(event)
        elif isinstance(event, Pong):
            self._keepalive.pong(event.payload, self.server_state.now)
            if not self._closing:
                self.deadline = self._keepalive.deadline
        else:
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
        self.server_state.statuses[101] += 1
        self.log_handshake("[accepted]")

    def opened(self) -> None:
        """The session is open: keep-alive begins, and what came early is read."""
        self._counted = True
        self.server_state.websockets += 1
        self._keepalive.start(self.server_state.now)
        self.deadline = self._keepalive.deadline
        if self.server_state.draining:
            self.drain(final=True)
            return
        self._parse()
        self._read_on()

    def refuse(self, status: int) -> None:
        """Answer the handshake with a response of our own."""
        self.server_state.statuses[status] += 1
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

    def check_denial(self, start: Any) -> Denial:
        """The application's own HTTP response, where it can be written.

        Raises:
            InvalidResponse: It cannot.
        """
        headers = [(bytes(name), bytes(value)) for name, value in start.get("headers") or ()]
        self.context.framer.head(start["status"], headers, b"", False, True, False)
        return start["status"], headers

    def write_denial(self, denial: Denial | None, body: bytes, more: bool) -> None:
        """Write a part of the application's own HTTP response: with `denial` the first one.

        Raises:
            RuntimeError: The body is longer or shorter than its Content-Length.
        """
        if denial is not None:
            status, headers = denial
            self.server_state.statuses[status] += 1
            names = {name.lower() for name, _ in headers}
            bodiless = status in (204, 304)
            if not more and not bodiless and not names & {b"content-length", b"transfer-encoding"}:
                headers.append((b"content-length", b"%d" % len(body)))
            head, self._denial_mode, self._denial_left, _ = self.context.framer.head(
                status, headers, self.context.default_lines(), bodiless, True, False
            )
            self.transport.write(head)
        if self._denial_mode == CHUNKED:
            if body:
                self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not more:
                self.transport.write(LAST_CHUNK)
        elif self._denial_mode != NONE:
            self._denial_left -= len(body)
            if self._denial_left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if body:
                self.transport.write(body)
            if not more and self._denial_left:
                raise RuntimeError("Response content shorter than Content-Length")

    def _refuse_handshake(self, exc: BadHandshake) -> None:
        self._closing = True
        self._held = b""
        version_line = b"sec-websocket-version: 13\r\n" if exc.version else b""
        self.server_state.statuses[426 if exc.version and not self.explains_refusals else 400] += 1
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
        scope = self.scope
        try:
            shown = client_text(scope["client"]), get_path_with_query_string(scope)
        except CHANGED_SCOPE:
            known = mended(scope)
            shown = client_text(known["client"]), request_path(known)
        self.logger.info('%s - "WebSocket %s" %s', *shown, outcome)

    def _make_scope(self, request: UpgradeRequest, handshake: Handshake) -> Any:
        context = self.context
        return {
            "type": "websocket",
            "asgi": {"version": context.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": self.server_state.address or get_local_addr(self.transport),
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
            self._engine.send_bytes(bytes(memoryview(content)))
        self._write_output()

    def _write_output(self) -> None:
        assert self._engine is not None
        data = self._engine.output()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    # --- the end -----------------------------------------------------------------------------

    def start_close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the peer's, within limits."""
        assert self._engine is not None
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
        if not self.transport.is_closing():
            self.deadline = self.server_state.now + CLOSE_TIMEOUT
            self.transport.close()

    def expire(self, now: float) -> None:
        """The deadline has passed; called by the server's sweep."""
        self.deadline = NEVER
        if self._closing or self._engine is None or self._denying():
            self.transport.abort()
            return
        payload = self._keepalive.due(now)
        if payload is not None:
            self.deadline = self._keepalive.deadline
            self._engine.ping(payload)
            self._write_output()
            return
        if self._held and not self.flow.write_paused:
            # It is the application that keeps us from reading, so the answer may have come.
            self.deadline = now + self._keepalive.timeout
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
