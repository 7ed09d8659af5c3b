"""What stands between bytes and a connection: the codec's face, its stand-ins, and what connections share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from uvicorn.protocols._context import ConnectionContext, ProtocolConfig
from uvicorn.protocols._flow import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._framing import ResponseFramer
from uvicorn.protocols.http._repeats import Sections
from uvicorn.protocols.http._turn import TurnTasks

if TYPE_CHECKING:
    from uvicorn.protocols.http._cycle import RequestCycle

# What a chunked body may carry besides its data: chunk lines, extensions, trailers. This much for each body, and
# seven bytes for each byte of data: one-byte chunks have five.
FRAMING_ALLOWANCE = 16384
FRAMING_RATIO = 8

# How often a closing connection looks whether what still waited has arrived.
LINGER_POLL = 0.5

# What a TLS client sends first: a handshake record of some version (RFC 8446 5.1).
_TLS_RECORD = b"\x16\x03"


def why_no_request(data: bytes | bytearray, reason: str) -> str:
    """For the log: why these bytes are no request, in the parser's words unless it is a well-known mistake."""
    return "a TLS handshake on a port without TLS" if data.startswith(_TLS_RECORD) else reason


class Codec(Protocol):
    """A parser of requests as the connection uses it.

    Attributes:
        begun: Whether it holds the begin of a request that is not complete: what comes next belongs to that one.
    """

    @property
    def begun(self) -> bool: ...

    def feed(self, data: bytes) -> None:
        """Parse; calls the connection back. Raises Refused where the bytes are no request."""

    def resume(self) -> None:
        """Go on with bytes that were kept back while the pipeline was full. Raises Refused."""

    def drop(self) -> None:
        """Nothing more is parsed: let go of what would be left to the garbage collector."""


class _Discard:
    """Stands in for the codec of a connection that has ended: what still comes is not looked at."""

    begun = True  # nothing that comes is a request of its own

    def feed(self, data: bytes) -> None:
        pass

    def resume(self) -> None:
        pass

    def drop(self) -> None:
        pass


DISCARD = _Discard()


class UpgradeBuffer:
    """Stands in for the codec while a connection waits to leave HTTP, behind requests that came before."""

    __slots__ = ("_flow", "_request")

    begun = False

    def __init__(self, request: UpgradeRequest, flow: FlowControl) -> None:
        self._request = request
        self._flow = flow

    def feed(self, data: bytes) -> None:
        self._request.rest += data
        if len(self._request.rest) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()

    def resume(self) -> None:
        pass

    def drop(self) -> None:
        pass


class HTTPContext(ConnectionContext):
    """The shared decisions of HTTP connections: those of all protocols, and the framer; and the heads that wait."""

    __slots__ = (
        "call_soon",
        "fields_limit",
        "first_look",
        "framer",
        "held",
        "keep_alive",
        "limits_concurrency",
        "pipeline_limit",
        "sections",
        "turn",
    )

    def __init__(
        self, config: ProtocolConfig, state: ServerState, loop: asyncio.AbstractEventLoop, title_case: bool
    ) -> None:
        super().__init__(config, state, loop)
        self.framer = ResponseFramer(title_case)
        self.fields_limit = config.limit_request_fields
        self.pipeline_limit = config.limit_pipelined_requests
        self.keep_alive = config.timeout_keep_alive
        self.first_look = min(LINGER_POLL, config.timeout_response_write)
        self.limits_concurrency = config.limit_concurrency is not None
        self.sections = Sections()
        self.held: list[RequestCycle] = []
        # Programs give loops of their own that have tasks and timers, and nothing else: there nothing waits.
        self.call_soon: Callable[..., object] | None = getattr(loop, "call_soon", None)
        # None where each request needs a task of its own: the loop's factory makes it, or `limit_concurrency` counts it.
        self.turn: TurnTasks | None = None
        if self.makes_tasks and not self.limits_concurrency and sys.implementation.name == "cpython":
            self.turn = TurnTasks(loop, state, self.tasks_see)

    def release_soon(self) -> None:
        """Let the heads that wait for their bodies in `held` go out with the event loop's next turn, at the latest."""
        if self.call_soon is None:
            self._release()
        else:
            self.call_soon(self._release)

    def _release(self) -> None:
        held, self.held = self.held, []
        for cycle in held:
            if cycle.waiting_head is not None:  # of few: the body has taken it along
                cycle.release_head()
