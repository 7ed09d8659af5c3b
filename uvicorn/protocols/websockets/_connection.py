"""The asyncio half of a WebSocket: the transport, its deadlines, flow control down to the socket.

It comes from HTTP with the request already parsed (`upgrade_received`). An engine owns the frames, a session the
application's side; what happens between them is here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols._access import client_text
from uvicorn.protocols._context import NEVER, ProtocolConfig
from uvicorn.protocols._flow import FlowControl
from uvicorn.protocols._refusals import refusal
from uvicorn.protocols._say import say
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import TakesUpgrade, UpgradeRequest
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets._deflate import agree
from uvicorn.protocols.websockets._engine import Closed, Engine, Pong
from uvicorn.protocols.websockets._handshake import (
    BadHandshake,
    Handshake,
    RawRequestReader,
    refused_handshake,
)
from uvicorn.protocols.websockets._keepalive import KeepAlive
from uvicorn.protocols.websockets._opening import Opening, WebSocketContext
from uvicorn.protocols.websockets._session import DENYING, HANDSHAKE, OPEN, WebSocketSession

# How long the peer may take to answer a close frame, and to close the connection after it.
CLOSE_TIMEOUT = 10.0
# How long a connection that has ended still reads, so that the client gets the close frame and not a reset.
LINGER = 2.0
# Bytes are parsed in slices of this size, so that reading stops soon after the queue is full. So much may also come
# before the handshake is complete.
SLICE = 16384
# Above this much that waits for the application, reading pauses, whatever the number of messages.
QUEUE_BYTES = 1_048_576

# RFC 6455 7.4.1, and the IANA registry it has opened.
ABNORMAL_CLOSURE, INTERNAL_ERROR, SERVICE_RESTART = 1006, 1011, 1012


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
        "_engine",
        "_held",
        "_keepalive",
        "_lingering",
        "_raw",
        "app_state",
        "config",
        "context",
        "deadline",
        "flow",
        "logger",
        "loop",
        "opening",
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
        self.opening: Opening | None = None  # until it is answered
        self.session: WebSocketSession | None = None
        self._engine: Engine | None = None
        self._raw: RawRequestReader | None = None
        self._keepalive = KeepAlive(config.ws_ping_interval, config.ws_ping_timeout)
        self._held = b""  # bytes that wait until the application has taken messages, or has accepted
        self._counted = False  # among the open ones
        self._closing = False  # a close frame has gone out, or the transport is closing
        self._lingering = False  # nothing is sent any more, and what comes is not looked at

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.flow = FlowControl(self.transport)
        self.server_state.add_connection(self)
        # For requests that come unparsed. Those from our own HTTP are handed over at once.
        self.deadline = self.server_state.now + self.config.timeout_request_head
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
            handshake = Handshake(request.headers)
        except BadHandshake as exc:
            self._refuse_handshake(exc)
            return
        config = self.config
        deflate = agree(handshake.extensions) if config.ws_per_message_deflate else None
        self._engine = self.engine_class(config.ws_max_size, deflate)
        opening = self.opening = Opening(
            self.context, self.transport, request, handshake, deflate, self.app_state
        )
        self.scope = opening.scope
        session = self.session = WebSocketSession(self, self.scope)
        session.started_at = self.server_state.ticked_at
        timeout = config.ws_handshake_timeout
        self.deadline = self.server_state.now + timeout if timeout else NEVER
        if request.rest:
            self._received(request.rest)
        state = self.server_state
        state.handshakes += 1
        state.total_requests += 1
        if state.total_requests == state.request_limit:
            state.limit_reached()
        task = session.task = self.context.create_task(session.run(self.context.app))
        if not (self.context.starts_eagerly and task.done()):
            state.tasks.add(task)

    def data_received(self, data: bytes) -> None:
        self.server_state.bytes_in += len(data)
        session, engine = self.session, self._engine
        if (
            session is not None
            and session.waiter is not None
            and session.state == OPEN
            and not self._held
            and engine is not None
        ):
            # By far the most frequent case: the application waits for a message, and here it is.
            message = engine.receive_message(data)
            if message is not None:
                session.message(message)
                return
        self._received(data)

    def _received(self, data: bytes) -> None:
        if self.session is None:
            if not self._closing:
                self._read_raw_request(data)
            return
        if self._lingering:
            return
        self._held = self._held + data if self._held else data
        self._parse()

    def _read_raw_request(self, data: bytes) -> None:
        if self._raw is None:
            self._raw = RawRequestReader()
        try:
            request = self._raw.feed(data)
        except Refused as exc:
            self._write(refusal(exc.status, self.context.default_lines()))
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
        while data and not self._lingering and not self.transport.is_closing():
            if session.state == OPEN and self._queue_full(session):
                self._held = data
                self.flow.pause_reading()
                break
            size = max(SLICE, engine.missing)
            for event in engine.receive(data[:size]):
                if isinstance(event, (str, bytes)):
                    session.message(event)
                else:
                    self._take(event, session)
            data = data[size:]
        self._write_output()

    def _queue_full(self, session: WebSocketSession) -> bool:
        return session.queued >= self.config.ws_max_queue or session.queued_bytes >= QUEUE_BYTES

    def _take(self, event: Pong | Closed, session: WebSocketSession) -> None:
        if isinstance(event, Pong):
            self._keepalive.pong(event.payload, self.server_state.now)
            if not self._closing:
                self.deadline = self._keepalive.deadline
        else:
            self._write_output()
            session.disconnected(event.code, event.reason)
            self._linger()

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

    def opened(self) -> None:
        """The session is open: keep-alive begins, and what came early is read."""
        self.opening = None
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
        assert self.opening is not None
        self.opening.refuse(status)
        self.close_transport()

    def _refuse_handshake(self, exc: BadHandshake) -> None:
        self._closing = True
        self._held = b""
        peer = client_text(get_remote_addr(self.transport)) or "peer without address"
        say(self.logger, logging.WARNING, "Invalid WebSocket handshake received. (%s: %s)", peer, exc.text)
        status, response = refused_handshake(exc, self.explains_refusals, self.context.default_lines())
        self.server_state.refused(status, len(response))
        self.transport.write(response)
        self.close_transport()

    # --- writing -----------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        state = self.server_state
        state.bytes_out += len(data)
        if state.settled:
            state.unsettle()
        self.transport.write(data)

    def send_message(self, content: Any) -> None:
        engine = self._engine
        assert engine is not None
        if isinstance(content, str):
            data = engine.text(content)
        else:
            data = engine.binary(content if type(content) is bytes else bytes(memoryview(content)))
        transport = self.transport
        if not transport.is_closing():
            state = self.server_state
            state.bytes_out += len(data)
            if state.settled:
                state.unsettle()
            transport.write(data)

    def _write_output(self) -> None:
        assert self._engine is not None
        data = self._engine.output()
        if data and not self.transport.is_closing():
            self._write(data)

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

    def _linger(self) -> None:
        """Close so that the close frame arrives: stop sending, and read for a while what the client still sends.

        RFC 6455 7.1.1. Who breaks the protocol is often in the middle of sending, and whoever sends to a socket that is
        closed gets a reset, which takes the close frame with its reason away from most clients.
        """
        transport = self.transport
        can_write_eof = getattr(transport, "can_write_eof", None)
        if (
            not self.server_state.now
            or transport.is_closing()
            or can_write_eof is None
            or not can_write_eof()
        ):
            self.close_transport()  # TLS cannot be half closed
            return
        self._closing = self._lingering = True
        self._held = b""
        waits = transport.get_write_buffer_size()
        self.deadline = self.server_state.now + (CLOSE_TIMEOUT if waits else LINGER)
        self.flow.resume_reading()
        transport.write_eof()

    def close_transport(self) -> None:
        """Write what is buffered, then close."""
        self._closing = True
        if not self._lingering and not self.transport.is_closing():
            self.deadline = self.server_state.now + CLOSE_TIMEOUT
            self.transport.close()

    def expire(self, now: float) -> None:
        """The deadline has passed; called by the server's sweep."""
        self.deadline = NEVER
        if self._closing or self._engine is None or self._denying():
            self.transport.abort()
            return
        if self.opening is not None:
            self._give_up_handshake()
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

    def _give_up_handshake(self) -> None:
        """The application has neither accepted nor refused in time."""
        assert self.session is not None
        say(
            self.logger,
            logging.WARNING,
            "WebSocket handshake timed out: no answer of the application within %g s (ws_handshake_timeout).",
            self.config.ws_handshake_timeout,
        )
        self.session.disconnected(ABNORMAL_CLOSURE, None)
        self.refuse(504)

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
