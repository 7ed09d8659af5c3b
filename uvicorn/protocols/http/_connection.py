"""The asyncio half of HTTP/1.1: one connection and its requests, in order.

A codec feeds it with what it has parsed (`on_head`, `on_body`, `on_end`, `on_upgrade`); a cycle (`_cycle.py`) tells
it when a response is complete. It never looks at bytes itself. Its deadlines and its end are in `_lifetime.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols._context import NEVER
from uvicorn.protocols._flow import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols._say import say
from uvicorn.protocols._upgrade import UpgradeRequest, hand_over
from uvicorn.protocols.http._codec import UpgradeBuffer
from uvicorn.protocols.http._cycle import RequestCycle
from uvicorn.protocols.http._head import Head, Refused, examine
from uvicorn.protocols.http._held import HeldResponses
from uvicorn.protocols.http._known import KnownRequests
from uvicorn.protocols.http.flow_control import service_unavailable


class HTTPConnection(KnownRequests):
    """One HTTP connection.

    Args:
        config: The configuration; loaded if it is not.
        server_state: What the connections of the server share.
        app_state: The state that lifespan has left; every request gets a copy.
        _loop: The event loop; by default the current one.
    """

    __slots__ = ()

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.flow = FlowControl(self.transport)
        state = self.server_state
        state.add_connection(self)
        self.deadline = state.now + self.config.timeout_request_head
        if self.context.trace:
            self._trace("HTTP connection made")
        if len(state.connections) > state.connection_limit:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.context.trace:
            self._trace("HTTP connection lost")
        self._stop_timer()
        self.flow.resume_writing()
        for cycle in (self.current, *(self.pipeline or ())):
            if cycle is not None:
                cycle.disconnect()
        self.pipeline = None
        self._receiving = None
        self._discard()
        self.server_state.drop_connection(self)

    def data_received(self, data: bytes) -> None:
        state = self.server_state
        if state.measured:
            state.bytes_in += len(data)
        codec = self._codec
        if codec is None and self._silent:
            self._first_bytes(data)
        if self.current is not None or self._receiving is not None or self._head_pending:
            self._feed(data)
            return
        begun = codec is not None and codec.begun
        if not begun:
            repeated = self._repeated
            if repeated is not None and data == repeated.request:
                self._on_same(repeated)
                return
            if self._takes_known(data):
                return
        self._head_pending = True
        self._feed(data)
        if self._head_pending:
            self._head_begins(data)
        elif self._last_section >= 0 and not begun:
            self._compare_section(data)

    def _feed(self, data: bytes) -> None:
        codec = self._codec
        if codec is None:
            codec = self._codec = self.codec_class(self)
        try:
            codec.feed(data)
        except Refused as exc:
            self._refuse(exc)

    def _head_begins(self, data: bytes) -> None:
        """The first bytes of a head whose end has not come."""
        if not data.strip(b"\r\n"):
            self._head_pending = False  # RFC 9112 2.2: empty lines before a request are ignored
            return
        # From here on its deadline stands: no later byte moves it, or one byte every few seconds would hold a connection
        # for ever.
        self._stop_timer()
        self._set_deadline()

    def _first_bytes(self, data: bytes) -> None:
        self._silent = False
        self._look_at_peers()
        self._repeated = self.context.sections.known(data)

    def eof_received(self) -> bool | None:
        """The client will send no more. It may still read, so a request in flight is answered (RFC 9112 9.6)."""
        if self._lingering or self.current is None:
            return None
        self._eof = self.ending = True
        for cycle in (self.current, *(self.pipeline or ())):
            cycle.disconnected_input()
        # TLS cannot be half closed: there the answer is None, and the transport closes.
        return True if self.scheme == "http" else None

    # --- from the codec ----------------------------------------------------------------------

    def on_head(
        self,
        method: bytes,
        target: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
        may_upgrade: bool,
    ) -> bool:
        """A request head is complete. True where the connection leaves HTTP with it.

        Raises:
            Refused: The request cannot be served.
        """
        self._head_pending = False
        if self._lingering:
            return False  # the connection has already ended; what else was in the same packet is not served
        try:
            if len(headers) > self.context.fields_limit:
                raise Refused(431, "too many header fields")
            head = examine(method, target, version, headers)
        except Refused as exc:
            exc.bodiless = method == b"HEAD"
            raise
        path, query, keep_alive, expects_continue, upgrade, length, forwarded = head
        self.client_goes_on = keep_alive
        if upgrade is not None and may_upgrade and self._takes_upgrade(head, method, headers):
            return True
        text = path.decode("ascii")
        if b"%" in path:
            text = unquote(text)
        cycle = self._receiving = RequestCycle(
            self,
            self._make_scope(version, method.decode("ascii"), text, path, query, headers),
            self.context.app if forwarded else self.context.direct_app,
            version == "1.1",
            method == b"HEAD",
            keep_alive,
            length != 0,
            expects_continue,
        )
        if self.current is None:
            self._begin(cycle)
        else:
            self._enqueue(cycle)
        return False

    @property
    def scope(self) -> Any:
        """The scope of the request that is being answered; None where there is none."""
        return self.current.scope if self.current is not None else None

    def on_body(self, data: bytes) -> None:
        """A piece of the body of the request that came last."""
        cycle = self._receiving
        if cycle is None:
            return
        if self._awaits_body:
            # The application's turn. Its time is not the client's: the clock starts again when it asks for more.
            self._awaits_body = False
            self._set_deadline()
        if cycle.feed_body(data) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_end(self) -> None:
        """The request that came last is complete."""
        cycle = self._receiving
        self._receiving = None
        if cycle is None:
            return
        cycle.end_body()
        if self._awaits_body:
            self._awaits_body = False
            self._set_deadline()
        if self.current is None:
            self._after_exchange(cycle)

    def on_upgrade(self, rest: bytes) -> None:
        """The bytes behind a head that leaves HTTP."""
        assert self._upgrade is not None
        self._upgrade.rest += rest
        if self.current is None:
            self._hand_over()
        else:
            self._codec = UpgradeBuffer(self._upgrade, self.flow)

    @property
    def pipeline_full(self) -> bool:
        """Whether the codec should keep further requests to itself for now."""
        return self.pipeline is not None and len(self.pipeline) >= self.context.pipeline_limit

    # --- requests in order -------------------------------------------------------------------

    def _begin(self, cycle: RequestCycle) -> None:
        """Call the application."""
        self.current = cycle
        if not self.flow.write_paused:
            self.deadline = NEVER
        if self._timer is not None:
            self._stop_timer()
        context = self.context
        if context.limits_concurrency and context.overloaded():
            say(self.logger, logging.WARNING, "Exceeded concurrency limit.")
            cycle.app = service_unavailable
        if context.turn is not None:
            # An application that is called before the body has come waits for it, as a rule.
            begin = context.turn.begin_apart if cycle.more_body else context.turn.begin
            begin(cycle)
        state = self.server_state
        if state.measured:
            # Looked at now, since others may have been answered meanwhile.
            turn = state.turn
            if not turn:
                turn = state.turn = monotonic()
            cycle.started_at = turn
        else:
            cycle.started_at = state.ticked_at
        if context.turn is None:
            task = cycle.task = context.create_task(cycle.begin() if context.makes_tasks else cycle.run())
            if not (context.starts_eagerly and task.done()):
                state.tasks.add(task)

    def _enqueue(self, cycle: RequestCycle) -> None:
        if self.pipeline is None:
            self.pipeline = deque()
        self.pipeline.append(cycle)
        if len(self.pipeline) >= self.context.pipeline_limit:
            self.flow.pause_reading()

    def expect_body(self) -> None:
        """The application waits for body that has not come: the client's time begins."""
        if not self._awaits_body:
            self._awaits_body = True
            self._set_deadline()

    def may_go_on(self) -> bool:
        """Whether the server has no reason of its own to make the coming response the connection's last."""
        if self.pipeline or self._upgrade is not None:
            return True  # more has come that wants its answer
        return not (self.server_state.draining or self.ending)

    def response_complete(self, cycle: RequestCycle) -> None:
        """The current response has been written."""
        state = self.server_state
        state.total_requests += 1
        if state.measured:
            started_at = cycle.started_at
            if started_at == state.together:
                state.answered_together += 1
            else:
                duration = monotonic() - started_at
                state.seconds += duration
                if duration > state.unremarkable:
                    state.remark(duration)
        if state.total_requests == state.request_limit:
            state.limit_reached()
        self.current = None
        self._awaits_body = False
        if cycle is self._receiving:
            self._response_before_request_end(cycle)
        elif cycle.keep_alive and not self.pipeline and not self.ending and not state.draining:
            # By far the most frequent case, without the questions of the general one.
            flow = self.flow
            if not flow.write_paused:
                self.deadline = state.now + self.context.keep_alive
            if flow.read_paused:
                flow.resume_reading()
            if not state.now:
                self._start_timer()
        else:
            self._after_exchange(cycle)

    def _response_before_request_end(self, cycle: RequestCycle) -> None:
        # The client is still sending a body that nobody reads. Keep in step by swallowing it, within a deadline;
        # or, where the connection ends anyway, give the client time to see the answer.
        if cycle.keep_alive and not self._eof:
            self.flow.resume_reading()
            self._set_deadline()
        else:
            self._linger()

    def _after_exchange(self, cycle: RequestCycle) -> None:
        """Request and response are both complete: what comes next on this connection?"""
        if self._lingering or self.transport.is_closing():
            return
        if not cycle.keep_alive:
            if self._refused is not None:
                self._linger()
            else:
                self.close()
        elif self.pipeline:
            self._begin(self.pipeline.popleft())
            self.server_state.turn = 0.0  # read between applications: what comes later reads it again
            if len(self.pipeline) < (self.context.pipeline_limit // 2 or 1):
                self._resume_codec()
        elif self._refused is not None:
            self._write_refusal(self._refused)
        elif self._upgrade is not None and not self._eof:
            self._hand_over()
        elif self._eof or self._final:
            self.close()
        else:
            self.flow.resume_reading()
            self._set_deadline()
            if not self.server_state.now:
                self._start_timer()

    def hold_back(self, data: bytes) -> None:
        """A complete response, and another request waits: write them together, if that is answered at once."""
        if self.held is None:
            call_soon = self.context.call_soon
            if call_soon is None:
                self.transport.write(data)
                return
            self.held = HeldResponses(self.transport, call_soon, self.context.pipeline_limit)
        self.held.hold(data)

    def _resume_codec(self) -> None:
        assert self._codec is not None
        self.flow.resume_reading()
        try:
            self._codec.resume()
        except Refused as exc:
            self._refuse(exc)

    # --- leaving HTTP ------------------------------------------------------------------------

    def _takes_upgrade(self, head: Head, method: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        # RFC 6455 4.1: the opening request is a GET. Whatever else asks to upgrade is an ordinary request.
        opens_websocket = head.upgrade == b"websocket" and head.length == 0 and method == b"GET"
        if not opens_websocket or self.config.ws_protocol_class is None:
            say(self.logger, logging.WARNING, "Unsupported upgrade request.")
            if self.config.ws_protocol_class is None:
                say(
                    self.logger,
                    logging.WARNING,
                    "No supported WebSocket library detected. Please use \"pip install 'uvicorn[standard]'\", "
                    "or install 'websockets' or 'wsproto' manually.",
                )
            return False
        self._upgrade = UpgradeRequest(method, head.path, head.query, headers)
        self.ending = True
        return True

    def _hand_over(self) -> None:
        request = self._upgrade
        assert request is not None
        if self.context.trace:
            self._trace("Upgrading to WebSocket")
        self._stop_timer()
        self._write_held()
        self.flow.resume_reading()
        self.server_state.connections.discard(self)
        hand_over(self.config, self.server_state, self.app_state, self.transport, request)
