"""What the connections of one server share. `uvicorn.server.ServerState` is this class."""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from uvicorn.protocols._access import AccessLog
    from uvicorn.protocols.http._cycle import RequestCycle


# Seconds between two lines about the same shortage.
COMPLAINT_PERIOD = 10.0

# The class of each status, 1 to 5; 0 is that of all others. To look it up is cheaper than to work it out.
CLASS_OF = tuple(status // 100 if 100 <= status < 600 else 0 for status in range(1000))
# The upper bounds of the buckets that requests are counted in, by how long they took, in seconds. Almost all of what is
# fast ends in the first one, which costs a request no more than a comparison.
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FAST = DURATIONS[0]
# Less than anything takes.
NOTHING = -1.0


class ConnectionCounter(Protocol):
    """Told whenever a connection has gone; see `uvicorn.worker.accept`."""

    def connection_lost(self) -> None: ...


class ServerState:
    """Shared state of all protocol instances of a server.

    Attributes:
        total_requests: Requests answered and WebSocket handshakes taken so far.
        handshakes: The latter.
        responses: Responses begun so far, by the class of their status, see `CLASS_OF`; may be memory that others see.
        measured: Whether somebody looks at the six that follow, which cost a small request 2 to 3 % of its CPU time;
            decided before the first connection. Else they stay as they are.
        seconds: How long all requests answered have taken, from the application's call to the response's last byte.
        slow: Those that took longer than the first of `DURATIONS`, by the bucket that they belong into.
        bytes_in: What clients have sent: heads, bodies and frames, without TLS.
        bytes_out: What was sent to them.
        settled: Whether everything that was counted is where others see it.
        unremarkable: Seconds; a request that takes no longer is in the first bucket, and nobody has to be told of it.
        on_unsettled: Called when something has been counted while everything was settled.
        websockets: Open WebSocket connections.
        connections: The open connections.
        tasks: The running application tasks.
        default_headers: What every response begins with; replaced, never changed in place, once a second.
        now: Coarse monotonic time in seconds, moved by the server's ticker, which leaves out what the event loop has stood still;
            0 where nobody moves it.
        ticked_at: Monotonic time in seconds at which that was; 0 likewise.
        together: `started_at` of the requests that one task answers one after the other; when it is through with them, the
            clock is read once for all, which is when an event loop like uvloop's sends their responses. Else -1.
        answered_together: How many of them are answered.
        answering: The request whose application has been called by a task that answers several: if it waits with its head
            not written, that is for who has called it to see to.
        turn: Where durations are measured: monotonic time at which the first request of this turn of the event loop
            began, for all that begin before any application runs. To read the clock costs 50 ns; 0 where it is to be read.
        tasks_see: The context that the tasks of applications get copies of; None before the first connection.
        draining: Whether each answer should be its connection's last.
        request_limit: After how many requests `on_request_limit` is called; 0 for never.
        connection_limit: How many connections may be open at the same time.
        address: The (host, port) that every connection arrives at, where there is just one: to ask each of them
            costs two system calls.
        access: The server's access log; None leaves the choice to the connection.
        counter: Told when a connection goes, so that the accept gate of the siblings sees it.
        contexts: What connections of one class have worked out once for all of them.
    """

    __slots__ = (
        "_complained_at",
        "access",
        "address",
        "answered_together",
        "answering",
        "bytes_in",
        "bytes_out",
        "connection_limit",
        "connections",
        "contexts",
        "counter",
        "default_headers",
        "draining",
        "handshakes",
        "measured",
        "now",
        "on_emptied",
        "on_request_limit",
        "on_unsettled",
        "request_limit",
        "responses",
        "seconds",
        "settled",
        "slow",
        "tasks",
        "tasks_see",
        "ticked_at",
        "together",
        "total_requests",
        "turn",
        "unremarkable",
        "websockets",
    )

    def __init__(self) -> None:
        self.total_requests = 0
        self.responses: list[int] | memoryview[int] = [0] * 6
        self.handshakes = 0
        self.measured = False
        self.seconds = 0.0
        self.slow = [0] * (len(DURATIONS) + 1)
        self.bytes_in = 0
        self.bytes_out = 0
        self.settled = False
        self.unremarkable = FAST
        self.on_unsettled: Callable[[], None] = _nobody
        self.websockets = 0
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.default_headers: list[tuple[bytes, bytes]] = []
        self.now = 0.0
        self.ticked_at = 0.0
        self.turn = 0.0
        self.together = NOTHING
        self.answered_together = 0
        self.answering: RequestCycle | None = None
        self.tasks_see: Context | None = None
        self.draining = False
        self.request_limit = 0
        self.on_request_limit: Callable[[], None] | None = None
        self.on_emptied: Callable[[], None] | None = None
        self.connection_limit = sys.maxsize
        self._complained_at = float("-inf")
        self.address: tuple[str, int] | None = None
        self.access: AccessLog | None = None
        self.counter: ConnectionCounter | None = None
        self.contexts: dict[Any, Any] = {}

    def add_connection(self, connection: Any) -> None:
        self.connections.add(connection)

    def drop_connection(self, connection: Any) -> None:
        """A connection has gone: tell those who count."""
        self.connections.discard(connection)
        if self.counter is not None:
            self.counter.connection_lost()
        if self.on_emptied is not None:
            self.look_whether_empty()

    def may_complain(self) -> bool:
        """Whether it is time for another line about too many connections: they would be as many as connections."""
        if self.now - self._complained_at < COMPLAINT_PERIOD:
            return False
        self._complained_at = self.now
        return True

    def settle(self) -> None:
        """Everything that was counted is where others see it."""
        self.settled = True
        self.unremarkable = NOTHING

    def begin_together(self, started_at: float) -> None:
        """One task begins to answer the requests that have begun at this time."""
        if self.answered_together:
            self.end_together()
        self.together = started_at

    def end_together(self) -> None:
        """It is through with them, or waits with one that is not answered yet."""
        count, started_at = self.answered_together, self.together
        self.answered_together = 0
        self.together = NOTHING
        if count:
            duration = monotonic() - started_at
            self.seconds += count * duration
            if duration > self.unremarkable:
                self.remark(duration, count)

    def remark(self, duration: float, count: int = 1) -> None:
        """So many requests were answered that have taken so many seconds: more than is `unremarkable`."""
        if duration > FAST:
            self.slow[bisect_left(DURATIONS, duration)] += count
        if self.settled:
            self.unsettle()

    def unsettle(self) -> None:
        """Something has been counted: let somebody carry it to where others see it."""
        self.settled = False
        self.unremarkable = FAST
        self.on_unsettled()

    def refused(self, status: int, size: int) -> None:
        """The server itself has answered, with so many bytes."""
        self.responses[CLASS_OF[status]] += 1
        self.sent(size)

    def sent(self, size: int) -> None:
        """So many bytes were sent, by something that is not on the path of every request."""
        self.bytes_out += size
        if self.settled:
            self.unsettle()

    def look_whether_empty(self) -> None:
        """Tell who waits for the last connection or the last task to end."""
        if self.on_emptied is not None and not (self.connections and self.tasks):
            self.on_emptied()

    def limit_reached(self) -> None:
        """`request_limit` requests have been answered."""
        if self.on_request_limit is not None:
            self.on_request_limit()


def _nobody() -> None:
    pass
