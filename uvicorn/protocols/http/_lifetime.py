"""What an HTTP connection is doing, until when, and how it ends: its deadlines, refusals, and its close. No request is
parsed or answered here; that is `_connection.py`.

A connection has at any moment one deadline, a coarse time that the server's sweep compares once a second (or more
often where a timeout is short); nothing is armed or cancelled per request. What the deadline means follows from what
the connection is doing: see `expire`. Without a server that sweeps, only the keep-alive timeout is kept, by a timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols._access import AccessLog
from uvicorn.protocols._context import NEVER, ProtocolConfig
from uvicorn.protocols._flow import FlowControl, unsent
from uvicorn.protocols._refusals import refusal
from uvicorn.protocols._say import say
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._codec import DISCARD, LINGER_POLL, Codec, HTTPContext
from uvicorn.protocols.http._cycle import STARTED, WAITING, RequestCycle
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

if TYPE_CHECKING:
    from uvicorn.protocols.http._held import HeldResponses
    from uvicorn.protocols.http._repeats import RepeatedSection
    from uvicorn.protocols.http._varying import VaryingSection

# How long a closing connection still reads, so that the client gets the answer and not a reset (RFC 9112 9.6).
LINGER = 2.0
# More than ever waits to be written.
_MUCH = 2**62


class ConnectionLifetime(asyncio.Protocol):
    """The part of a connection that does not ask what its requests are.

    Args:
        config: The configuration; loaded if it is not.
        server_state: What the connections of the server share.
        app_state: The state that lifespan has left; every request gets a copy.
        _loop: The event loop; by default the current one.
    """

    __slots__ = (
        "_awaits_body",
        "_client",
        "_codec",
        "_eof",
        "_final",
        "_gives_up_at",
        "_head_pending",
        "_last_section",
        "_lingering",
        "_receiving",
        "_refused",
        "_repeated",
        "_server",
        "_silent",
        "_timer",
        "_unlike",
        "_upgrade",
        "_varying",
        "_written",
        "access",
        "app_state",
        "client_goes_on",
        "config",
        "context",
        "current",
        "deadline",
        "ending",
        "flow",
        "held",
        "logger",
        "loop",
        "pipeline",
        "scheme",
        "server_state",
        "transport",
    )

    codec_class: ClassVar[Any]
    title_case: ClassVar[bool] = False

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
        context = server_state.contexts.get(self.title_case)
        if context is None or context.config is not config or context.loop is not loop:
            if not config.loaded:
                config.load()
            context = HTTPContext(config, server_state, loop, self.title_case)
            server_state.contexts[self.title_case] = context
        self.config = config
        self.context: HTTPContext = context
        self.server_state = server_state
        self.app_state = app_state
        self.loop = loop
        self.logger = context.logger
        self.access: AccessLog | None = server_state.access or context.own_access
        self.current: RequestCycle | None = None
        self.deadline = NEVER
        self.scheme = "http"
        self.client_goes_on = True  # the last head leaves room for another one
        self.pipeline: deque[RequestCycle] | None = None  # what has come behind the current one
        self.held: HeldResponses | None = None
        self.ending = False  # no request will be taken after those that have come
        self._codec: Codec | None = None
        self._receiving: RequestCycle | None = None
        self._refused: Refused | None = None
        self._upgrade: UpgradeRequest | None = None
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silent = True  # nothing has come yet
        self._head_pending = False  # a head has begun and is not complete
        self._awaits_body = False  # the application waits for body that has not come
        self._eof = False
        self._final = False  # the whole service stops: no idle connection is kept
        self._lingering = False  # nothing more is answered; what the client still sends is not looked at
        self._written = 0  # what waited to be written when that was last looked at
        self._gives_up_at = NEVER  # when the connection ends if the client takes nothing of it
        self._last_section = 0  # the size of the last request's header section; negative where it says more
        self._repeated: RepeatedSection | None = None  # the section that has come twice
        self._unlike = 0  # how many whole requests have been parsed since the last one with that section
        self._varying: VaryingSection | None = None  # the section, where lines of it vary

    # --- writing -----------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self._watch_writing(self.server_state.now)

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._set_deadline()

    def _write_held(self) -> None:
        if self.held is not None:
            self.held.write()

    # --- refusals ----------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> None:
        """The bytes are no request. Nothing after them is parsed; what came before is answered first."""
        self._discard()
        self._refused = refused
        self.ending = True
        broken, self._receiving = self._receiving, None
        if broken is not None and broken.stage == WAITING:
            refused.bodiless = broken.is_head  # it answers this one
        peer = self._peer_text()
        say(self.logger, logging.WARNING, "Invalid HTTP request received. (%s: %s)", peer, refused.reason)
        if self.current is None:
            self._write_refusal(refused)
        elif broken is self.current:
            # The body of the request being answered broke off: the application must not take it for complete.
            started = broken.stage == STARTED
            broken.disconnect()
            if started:
                self.close()
            else:
                self._write_refusal(refused)
        elif broken is not None and self.pipeline:
            self.pipeline.pop()  # its body can never be complete

    def _write_refusal(self, refused: Refused) -> None:
        if self._lingering or self.transport.is_closing():
            return
        answer = refusal(
            refused.status,
            self.context.default_lines(),
            title_case=self.title_case,
            bodiless=refused.bodiless,
        )
        self.server_state.refused(refused.status, len(answer))
        self._write_held()
        self.transport.write(answer)
        self._linger()

    def _turn_away(self) -> None:
        """There are too many connections. Closed at once: to linger would take what there is none left of."""
        state = self.server_state
        answer = refusal(503, self.context.default_lines(), title_case=self.title_case)
        state.refused(503, len(answer))
        if state.may_complain():
            say(
                self.logger,
                logging.WARNING,
                "%d connections are open, as many as limit_connections allows: more get 503.",
                state.connection_limit,
            )
        self.transport.write(answer)
        self.close()

    def _linger(self) -> None:
        """Close so that the answer arrives: stop sending, and read for a while what the client still sends."""
        transport = self.transport
        can_write_eof = getattr(transport, "can_write_eof", None)
        if not self.server_state.now or self._eof or can_write_eof is None or not can_write_eof():
            self.close()
            return
        self._write_held()
        self._end_here()
        self._watch_writing(self.server_state.now)
        self.flow.resume_reading()
        transport.write_eof()

    def close(self) -> None:
        """Write what is buffered, then close; what still comes in is not looked at."""
        if self.current is not None:
            self.current.release_head()
        self._write_held()
        self._end_here()
        now = self.server_state.now
        if now:  # else nobody sweeps, and nobody looks at deadlines
            # What still waits is asked by the sweep: almost always the connection is gone by then.
            self._written = _MUCH
            self._gives_up_at = now + LINGER
            self.deadline = now + self.context.first_look
        if not self.transport.is_closing():
            self.transport.close()

    def _end_here(self) -> None:
        self._lingering = self.ending = True
        self._discard()

    def _discard(self) -> None:
        """What still comes is not looked at."""
        codec, self._codec = self._codec, DISCARD
        if codec is not None:
            codec.drop()

    # --- deadlines ---------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        """The deadline of what the connection is doing now. While the client takes nothing, that has its own."""
        if self.flow.write_paused or self._lingering:
            return
        now = self.server_state.now
        config = self.config
        if self.current is not None:
            self.deadline = now + config.timeout_request_body if self._awaits_body else NEVER
        elif self._receiving is not None:
            self.deadline = now + config.timeout_request_body
        elif self._head_pending:
            self.deadline = now + config.timeout_request_head
        else:
            self.deadline = now + self.context.keep_alive

    def _watch_writing(self, now: float) -> None:
        """From here on the client has to take something within the time of the setting, if there is anything."""
        waiting = self._written = unsent(self.transport)
        self._gives_up_at = now + (self.config.timeout_response_write if waiting else LINGER)
        # What waits at the end is mostly gone in a moment, and then only the client's own end is waited for, which a
        # TLS client need never send (RFC 8446 6.1).
        polled = self._lingering and waiting
        self.deadline = min(self._gives_up_at, now + LINGER_POLL) if polled else self._gives_up_at

    def expire(self, now: float) -> None:
        """The deadline has passed; called by the server's sweep."""
        self.deadline = NEVER
        if self.flow.write_paused or self._lingering:
            self._expire_writing(now)
        elif self.current is not None:
            # The application may have stopped waiting meanwhile.
            if self._awaits_body and self.current.wants_body:
                self._expire_body()
            self._awaits_body = False
        elif self._head_pending:
            self._refuse_late("request head not complete in time")
        else:
            self.close()

    def _expire_writing(self, now: float) -> None:
        size = unsent(self.transport)
        if self._written == _MUCH and not size:
            self._written = 0
        elif size < self._written:
            self._watch_writing(now)
            return
        if now < self._gives_up_at:
            self.deadline = min(self._gives_up_at, now + LINGER_POLL)
            return
        if size:
            say(
                self.logger,
                logging.INFO,
                "%s takes nothing of its response: connection aborted.",
                self._peer_text(),
            )
        self.transport.abort()

    def _expire_body(self) -> None:
        cycle = self.current
        assert cycle is not None
        waiting = cycle.stage == WAITING
        self._receiving = None
        cycle.disconnect()
        if waiting:
            self._refuse_late("request body not complete in time", cycle.is_head)
        else:
            self.close()

    def _refuse_late(self, reason: str, bodiless: bool = False) -> None:
        say(self.logger, logging.INFO, "%s: %s.", self._peer_text(), reason)
        self._write_refusal(Refused(408, reason, bodiless))

    def timeout_keep_alive_handler(self) -> None:
        """The keep-alive timeout where no server sweeps."""
        self._timer = None
        if self.current is None and not self.transport.is_closing():
            self.close()

    def _start_timer(self) -> None:
        """Nobody sweeps: the keep-alive timeout needs a timer of its own."""
        self._stop_timer()
        self._timer = self.loop.call_later(self.context.keep_alive, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the server stops --------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close: at once where nothing is in flight, else after the responses of the requests that have come."""
        if self.current is None:
            if not self._lingering:
                self.close()
        elif self.pipeline:
            self.pipeline[-1].keep_alive = False
        else:
            self.current.keep_alive = False

    def drain(self, final: bool, chance: float = 1.0) -> None:
        """The worker is leaving.

        Args:
            final: Whether the whole service stops. Then an idle connection closes now, and one on which nothing has
                come yet gets `chance` seconds; else both live as long as they would have.
            chance: See there.
        """
        self._final = final
        if self.current is not None or self._receiving is not None or self._head_pending:
            return  # `ServerState.draining` makes the next response the last
        if not final or self._lingering:
            return
        if self._silent:
            self.deadline = min(self.deadline, self.server_state.now + chance)
        else:
            self.close()

    def end_streams(self) -> None:
        """The grace period is nearly over: applications that watch for it see http.disconnect."""
        for cycle in (self.current, *(self.pipeline or ())):
            if cycle is not None:
                cycle.disconnected_input()

    # --- who is there ------------------------------------------------------------------------

    def _look_at_peers(self) -> None:
        # As the transport has it: asking the socket as `get_remote_addr` does costs 3 us more on uvloop.
        name = self.transport.get_extra_info("peername")
        known = type(name) is tuple and type(name[0]) is str  # else perhaps no address of the internet
        self._client = name[:2] if known else get_remote_addr(self.transport)
        self._server = self.server_state.address or get_local_addr(self.transport)
        if is_ssl(self.transport):
            self.scheme = "https"

    def _peer_text(self) -> str:
        client = self._client or get_remote_addr(self.transport)
        return f"{client[0]}:{client[1]}" if client else "peer without address"

    def _trace(self, what: str) -> None:
        client = get_remote_addr(self.transport)
        prefix = f"{client[0]}:{client[1]} - " if client else ""
        self.logger.log(TRACE_LOG_LEVEL, "%s%s", prefix, what)
