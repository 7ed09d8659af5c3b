"""The ASGI half of a WebSocket: what the application may send when, and what it receives.

The rules are a table: (state, message type) -> what to do. A pair that is not in it is the application's error, and
the state says with which words.

    HANDSHAKE   the request has come, the application has not answered
    DENYING     it answers with an HTTP response of its own
    OPEN        messages go both ways
    CLOSED      the application, the client or the server has ended it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols._context import NEVER, is_cancelled
from uvicorn.protocols._fields import InvalidResponse
from uvicorn.protocols._flow import forget, wake
from uvicorn.protocols._say import say
from uvicorn.protocols.utils import ClientDisconnected

if TYPE_CHECKING:
    from uvicorn.protocols.websockets._connection import WebSocketConnection
    from uvicorn.protocols.websockets._opening import Opening

HANDSHAKE, DENYING, OPEN, CLOSED = range(4)

_EXPECTED = {
    HANDSHAKE: "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
    "but got '{}'.",
    DENYING: "Expected ASGI message 'websocket.http.response.body' but got '{}'.",
    OPEN: "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{}'.",
    CLOSED: "Unexpected ASGI message '{}', after sending 'websocket.close' or response already completed.",
}

# RFC 6455 7.4.1 and 7.4.2: what may stand in a close frame.
_SENDABLE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
NO_STATUS, ABNORMAL = 1005, 1006
# A reason has at most 123 bytes (RFC 6455 5.5).
_MAX_REASON = 123


class WebSocketSession:
    """One application call for one WebSocket.

    Args:
        connection: Where the bytes go.
        scope: The scope.

    Attributes:
        state: See the head of this file.
        task: The application's task.
        queued: How many messages wait for the application.
        queued_bytes: How large they are together.
        waiter: The application waits for this future, whose result is the next event. Nothing is queued then.
    """

    __slots__ = (
        "_connection",
        "_denial",
        "_disconnect",
        "_events",
        "_gone",
        "_loop",
        "_others",
        "queued",
        "queued_bytes",
        "scope",
        "started_at",
        "state",
        "task",
        "waiter",
    )

    def __init__(self, connection: WebSocketConnection, scope: Any) -> None:
        self._connection = connection
        self.scope = scope
        self.state = HANDSHAKE
        self.task: asyncio.Task[None] | None = None
        self.started_at = 0.0
        self._events: deque[Any] = deque([{"type": "websocket.connect"}])
        self.queued = 0
        self.queued_bytes = 0
        # What receive() says from the end on, however often it is asked.
        self._disconnect: dict[str, Any] | None = None
        # Whether the client went before the application had closed: sending is an OSError then.
        self._gone = False
        # The application's own HTTP response, until its first body message says how it is framed.
        self._denial: Any = None
        self.waiter: asyncio.Future[Any] | None = None
        # Further parts of the application that ask at the same time: they take their turn.
        self._others: list[asyncio.Future[None]] | None = None
        # The application's event loop. To ask for it costs a system call up to Python 3.11.
        self._loop: Any = None

    # --- from the connection -----------------------------------------------------------------

    def message(self, content: str | bytes) -> None:
        """A whole message has come."""
        if self._disconnect is not None:
            return  # it is over: nobody wants more
        event: dict[str, Any]
        if isinstance(content, str):
            event = {"type": "websocket.receive", "text": content}
        else:
            event = {"type": "websocket.receive", "bytes": content}
        waiter = self.waiter
        if waiter is not None and self._others is None and not waiter.done():
            self.waiter = None
            waiter.set_result(event)
            return
        if waiter is not None and self._hand_over(event):
            return
        self._events.append(event)
        self.queued += 1
        self.queued_bytes += len(content)

    def _hand_over(self, event: dict[str, Any]) -> bool:
        """Give an event to who waits for one; False where that has been cancelled since."""
        waiter, self.waiter = self.waiter, None
        if self._others is not None:
            self._wake_others()
        if waiter is None or waiter.done():
            return False
        waiter.set_result(event)
        return True

    def _give_back(self, waiter: asyncio.Future[Any]) -> None:
        """Who waited for this one does so no longer: the event that it may have got is still the next one."""
        if waiter is self.waiter:
            self.waiter = None
            self._wake_others()
        elif waiter.done() and not waiter.cancelled():
            event = waiter.result()
            if event["type"] == "websocket.receive" and not self._hand_over(event):
                self._events.appendleft(event)
                self.queued += 1
                self.queued_bytes += _size(event)

    def disconnected(self, code: int, reason: str | None) -> None:
        """It is over: what has come before is still received, then this."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code}
            if reason is not None:
                self._disconnect["reason"] = reason
        if self.state != CLOSED:
            self.state = CLOSED
            self._gone = True
        self._hand_over(self._disconnect.copy())

    def _wake_others(self) -> None:
        if self._others is not None:
            others, self._others = self._others, None
            wake(others)

    # --- the application's task --------------------------------------------------------------

    async def run(self, app: ASGI3Application) -> None:
        """Call the application and see to it that the connection gets an end."""
        connection = self._connection
        self._loop = asyncio.get_running_loop()
        try:
            result = await app(self.scope, self.receive, self.send)  # type: ignore[func-returns-value]
        except BaseException as exc:
            cancelled = isinstance(exc, asyncio.CancelledError) and is_cancelled()
            self._failed(exc, cancelled)
            if cancelled:
                raise
        else:
            self._returned(result)
        finally:
            state = connection.server_state
            state.tasks.discard(self.task)
            if state.on_emptied is not None:
                state.look_whether_empty()

    def _failed(self, exc: BaseException, cancelled: bool) -> None:
        connection = self._connection
        # Whose client has gone may well have cancelled its own parts.
        given_up = isinstance(exc, asyncio.CancelledError) and self._gone
        if cancelled or given_up or isinstance(exc, ClientDisconnected):
            connection.close_transport()
            return
        say(connection.logger, logging.ERROR, "Exception in ASGI application\n", exc_info=exc)
        self._end_badly()

    def _returned(self, result: object) -> None:
        connection = self._connection
        if self.state == CLOSED:
            return
        if result is not None:
            say(
                connection.logger,
                logging.ERROR,
                "ASGI callable should return None, but returned '%s'.",
                result,
            )
        elif self.state == HANDSHAKE:
            say(connection.logger, logging.ERROR, "ASGI callable returned without completing handshake.")
        self._end_badly()

    def _end_badly(self) -> None:
        """The application has left its WebSocket behind."""
        state, self.state = self.state, CLOSED
        if state == HANDSHAKE:
            self._connection.refuse(500)
        elif state != CLOSED:
            if self._denial is not None:
                with contextlib.suppress(RuntimeError):  # it has a length: the client sees that it is cut
                    self._write_denial(b"", more=False)
            # Where it was open there is no close frame: the client sees 1006, which is the truth.
            self._connection.close_transport()

    # --- the application's callables ---------------------------------------------------------

    async def receive(self) -> ASGIReceiveEvent:
        """The next event."""
        while not self._events:
            if self._disconnect is not None:
                return self._disconnect.copy()  # type: ignore[return-value]
            if self.waiter is None:
                waiter = self.waiter = self._loop.create_future()
                try:
                    return await waiter  # type: ignore[no-any-return]
                except BaseException:
                    self._give_back(waiter)
                    raise
            await self._wait_for_turn()
        event = self._events.popleft()
        if event["type"] == "websocket.receive":
            self.queued -= 1
            self.queued_bytes -= _size(event)
            self._connection.message_taken()
        return event  # type: ignore[no-any-return]

    async def _wait_for_turn(self) -> None:
        """Wait until who waits now has got its event."""
        turn = self._loop.create_future()
        if self._others is None:
            self._others = []
        self._others.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            forget(self._others, turn)
            raise

    async def send(self, message: ASGISendEvent) -> None:
        """Take one message of the application."""
        connection = self._connection
        if connection.flow.write_paused:
            await connection.flow.drain()
        kind = message["type"]
        if kind == "websocket.send" and self.state == OPEN:
            # By far the most frequent row of the table.
            content = message.get("bytes")
            connection.send_message(message["text"] if content is None else content)  # type: ignore[typeddict-item]
        else:
            handler = _TABLE.get((self.state, kind))
            if handler is None:
                if self._gone:
                    raise ClientDisconnected
                raise RuntimeError(_EXPECTED[self.state].format(kind))
            handler(self, message)
        if connection.flow.write_paused:
            await connection.flow.drain()
            if self._gone:
                raise ClientDisconnected

    # --- what the messages do ----------------------------------------------------------------

    def _accept(self, message: Any) -> None:
        self._opening().accept(message.get("subprotocol"), message.get("headers") or ())
        self.state = OPEN
        self._connection.opened()

    def _deny(self, message: Any) -> None:
        self.state = CLOSED
        self._disconnect = {"type": "websocket.disconnect", "code": ABNORMAL}
        self._connection.refuse(403)

    def _start_denial(self, message: Any) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise InvalidResponse(f"Invalid status code of the response: {status!r}.")
        opening = self._opening()
        self._denial = opening.check_denial(message)
        self.state = DENYING
        self._connection.deadline = NEVER  # from here on only a client that does not read is late
        opening.log(str(status))

    def _deny_body(self, message: Any) -> None:
        more = message.get("more_body", False)
        self._write_denial(message.get("body", b""), more)
        if not more:
            self.state = CLOSED
            self._disconnect = {"type": "websocket.disconnect", "code": ABNORMAL}
            self._connection.close_transport()

    def _write_denial(self, body: bytes, more: bool) -> None:
        denial, self._denial = self._denial, None
        self._opening().write_denial(denial, body, more)

    def _opening(self) -> Opening:
        opening = self._connection.opening
        assert opening is not None  # by the states in which it is asked for
        return opening

    def _close(self, message: Any) -> None:
        code = message.get("code", 1000)
        code = 1000 if code is None else int(code)
        reason = _short(message.get("reason") or "")
        if code not in _SENDABLE_CODES and not 3000 <= code <= 4999 and code not in (NO_STATUS, ABNORMAL):
            raise RuntimeError(f"Invalid WebSocket close code: {code}.")
        self.state = CLOSED
        self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        if code == ABNORMAL:
            self._connection.close_transport()
        else:
            self._connection.start_close(code, reason)


_Handler = Callable[[WebSocketSession, Any], None]

_TABLE: dict[tuple[int, str], _Handler] = {
    (HANDSHAKE, "websocket.accept"): WebSocketSession._accept,  # noqa: SLF001 - the class's own table
    (HANDSHAKE, "websocket.close"): WebSocketSession._deny,  # noqa: SLF001
    (HANDSHAKE, "websocket.http.response.start"): WebSocketSession._start_denial,  # noqa: SLF001
    (DENYING, "websocket.http.response.body"): WebSocketSession._deny_body,  # noqa: SLF001
    (OPEN, "websocket.close"): WebSocketSession._close,  # noqa: SLF001
}


def _size(event: dict[str, Any]) -> int:
    content = event.get("text")
    return len(content if content is not None else event["bytes"])


def _short(reason: str) -> str:
    """The reason, cut to what fits into a close frame."""
    return reason.encode("utf-8")[:_MAX_REASON].decode("utf-8", "ignore")
