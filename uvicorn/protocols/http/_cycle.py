"""One request and its response, as the application sees them: receive(), send(), and what wrong messages get.

This is on the path of every request. So: no timer, no Event, no done-callback; a future only when receive() really
has to wait; head and first piece of body leave in one write, a system call (5 us) less. The obligations of HTTP and
ASGI cost about 0.85 us of a 6 us request this way; each of the usual means costs more than that alone.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols._context import is_cancelled
from uvicorn.protocols._flow import HIGH_WATER_LIMIT, forget, wake
from uvicorn.protocols._say import say
from uvicorn.protocols._state import CLASS_OF
from uvicorn.protocols.http._framing import CHUNKED, CLOSE, LAST_CHUNK, LENGTH

if TYPE_CHECKING:
    from uvicorn.protocols.http._known import KnownRequests

# Stages of the response.
WAITING, STARTED, COMPLETE = range(3)

_DISCONNECT: Any = {"type": "http.disconnect"}


@types.coroutine
def task_begins() -> Generator[None, None, None]:
    """Awaited first by what is sent None before it gets a task, and goes on with the task's first step.

    Thrown into a coroutine that has not begun, a cancellation would end it without a line of it run.
    """
    yield


class RequestCycle:
    """The ASGI half of one request.

    Attributes:
        scope: The request's scope.
        app: What answers it.
        modern: Whether the client speaks HTTP/1.1.
        keep_alive: Whether the connection may go on after the response.
        stage: How far the response is.
        disconnected: Whether the client has gone, or is taken for gone.
        more_body: Whether more of the request's body is to come.
        task: The application's task.
        waiting_head: The response's head, while it waits for the first piece of the body.
        started_at: Monotonic time at which the application was called, coarse where nobody measures; 0 before.
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_delivered",
        "_expects_continue",
        "_input_ended",
        "_mode",
        "_remaining",
        "_waiters",
        "app",
        "connection",
        "disconnected",
        "is_head",
        "keep_alive",
        "modern",
        "more_body",
        "scope",
        "stage",
        "started_at",
        "task",
        "waiting_head",
    )

    # Set when the response starts, and of no meaning before.
    _mode: int
    _remaining: int

    def __init__(
        self,
        connection: KnownRequests,
        scope: Any,
        app: ASGI3Application,
        modern: bool,
        is_head: bool,
        keep_alive: bool,
        more_body: bool,
        expects_continue: bool,
    ) -> None:
        self.connection = connection
        self.scope = scope
        self.app = app
        self.modern = modern
        self.keep_alive = keep_alive
        self.more_body = more_body
        self.stage = WAITING
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None
        self.started_at = 0.0
        self.is_head = is_head
        self._expects_continue = expects_continue
        # What has arrived and was not taken yet: nothing, one piece, or a list of pieces.
        self._body: bytes | list[bytes] | None = None
        self._body_size = 0
        # Whether the application has been given the end of the body.
        self._delivered = False
        self._input_ended = False
        self._waiters: list[asyncio.Future[None]] | None = None
        self.waiting_head: bytes | None = None

    # --- from the connection -----------------------------------------------------------------

    def feed_body(self, data: bytes) -> int:
        """Take a piece of the body; return how many bytes now wait for the application, and may wait for long."""
        if self.stage == COMPLETE or self.disconnected:
            return 0  # the rest of a body that nobody reads is swallowed
        self._expects_continue = False  # RFC 9110 10.1.1: the body is already on its way
        if self._body is None:
            self._body = data
        elif isinstance(self._body, list):
            self._body.append(data)
        else:
            self._body = [self._body, data]
        self._body_size += len(data)
        if self._waiters is not None:
            # It takes the piece in the next turn of the event loop. To stop reading until then is two system calls for
            # each piece; where another one comes before, it is counted.
            self._wake()
            return 0
        return self._body_size

    def end_body(self) -> None:
        """The body is complete."""
        self.more_body = False
        if self._waiters is not None:
            self._wake()

    def disconnect(self) -> None:
        """The client has gone: receive() says so, send() goes nowhere."""
        self.disconnected = True
        self._body = None
        if self._waiters is not None:
            self._wake()

    def disconnected_input(self) -> None:
        """The client will send no more, or the server wants an end: receive() says so, send() still works."""
        self._input_ended = True
        if self._waiters is not None:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        wake(waiters)

    @property
    def wants_body(self) -> bool:
        """Whether the application waits in receive() for a part of the body that has not come."""
        return bool(self._waiters) and self.more_body

    # --- the application's task --------------------------------------------------------------

    def begin(self) -> Coroutine[Any, Any, None]:
        """`run` for an `asyncio.Task` of its own: it has begun, so that it hears also of being cancelled at once.

        For no other one: what has begun cannot be awaited, as task factories may do.
        """
        answer = self.run(begun=True)
        answer.send(None)
        return answer

    async def run(self, begun: bool = False) -> None:
        """Call the application and see to it that the request gets an end."""
        state = self.connection.server_state
        try:
            if begun:
                await task_begins()
            state.turn = 0.0  # time passes from here on
            result = await self.app(self.scope, self.receive, self.send)  # type: ignore[func-returns-value]
            if result is not None or self.stage != COMPLETE:
                await self.unfinished(result)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the request gets an end
            await self.failed(exc)
        finally:
            state.tasks.discard(self.task)
            if state.on_emptied is not None:
                state.look_whether_empty()

    def _runs(self) -> bool:
        """Whether it is the task that runs; else somebody throws its coroutine away, and nothing can be awaited."""
        try:
            running = asyncio.current_task()
        except RuntimeError:  # no event loop runs
            return False
        return running is not None and self.task in (running, None)

    async def unfinished(self, result: object) -> None:
        """The application has returned, with something that it should not return or before its response was complete."""
        connection = self.connection
        if result is not None:
            say(
                connection.logger,
                logging.ERROR,
                "ASGI callable should return None, but returned '%s'.",
                result,
            )
            if self.stage == COMPLETE:
                connection.shutdown()
            else:
                self._break_off()
        elif self.disconnected:
            pass
        elif self._input_ended:
            self._break_off()  # it was told that the client has gone, and left
        elif self.stage == WAITING:
            say(connection.logger, logging.ERROR, "ASGI callable returned without starting response.")
            await self._send_500()
        else:
            say(connection.logger, logging.ERROR, "ASGI callable returned without completing response.")
            self._break_off()

    async def failed(self, exc: BaseException) -> None:
        """The application has raised this.

        Raises:
            BaseException: The same, where it is the task's to end with.
        """
        if isinstance(exc, GeneratorExit) and not self._runs():
            raise exc  # the event loop is gone, and the task with it
        connection = self.connection
        if isinstance(exc, asyncio.CancelledError) and is_cancelled():
            # Only the server cancels a request's task, at the end of its grace period: the client sees a cut.
            if self.stage != COMPLETE:
                self._break_off()
            raise exc
        say(connection.logger, logging.ERROR, "Exception in ASGI application\n", exc_info=exc)
        if self.disconnected:
            return
        if self.stage == WAITING:
            await self._send_500()
        elif self.stage != COMPLETE:
            self._break_off()

    def _break_off(self) -> None:
        """End the response and the connection where they stand; what other tasks still send goes nowhere."""
        if not self.disconnected:
            self.disconnect()
            self.connection.close()

    async def _send_500(self) -> None:
        self.keep_alive = False
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"21")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    # --- the application's callables ---------------------------------------------------------

    async def receive(self) -> ASGIReceiveEvent:
        """What has arrived of the body so far, or that the client has gone."""
        if self._expects_continue:
            self._say_continue()
        while True:
            if self.disconnected or self.stage == COMPLETE:
                return _DISCONNECT.copy()  # type: ignore[no-any-return]
            body = self._body
            if body is not None or not (self.more_body or self._delivered):
                self._delivered = not self.more_body
                self._body = None
                if self._body_size > HIGH_WATER_LIMIT:
                    self.connection.flow.resume_reading()
                self._body_size = 0
                if isinstance(body, list):
                    body = b"".join(body)
                return {"type": "http.request", "body": body or b"", "more_body": self.more_body}
            if self._input_ended:
                return _DISCONNECT.copy()  # type: ignore[no-any-return]
            if self.more_body:
                self.connection.flow.resume_reading()
                self.connection.expect_body()
            await self._wait()

    async def _wait(self) -> None:
        """Wait for whatever comes next from the client, or for the response's end."""
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            forget(self._waiters, waiter)
            raise

    def _say_continue(self) -> None:
        self._expects_continue = False
        if self.stage == WAITING and not self.disconnected:
            self._write_now(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, message: ASGISendEvent) -> None:
        """Take one message of the response."""
        connection = self.connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
        if self.disconnected:
            return
        stage = self.stage
        if stage == STARTED:
            self._write_body(message)
        elif stage == WAITING:
            self._start(message)
        else:
            connection.shutdown()
            raise RuntimeError(
                f"Unexpected ASGI message '{message['type']}' sent, after response already completed."
            )

    def _start(self, message: Any) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{message['type']}'.")
        connection = self.connection
        context = connection.context
        status = message["status"]
        keep_alive = self.keep_alive
        if keep_alive and (self._expects_continue or context.state.draining or connection.ending):
            keep_alive = connection.may_go_on() and not self._expects_continue
        head, self._mode, self._remaining, self.keep_alive = context.framer.head(
            status,
            message.get("headers", ()),
            context.lines if context.lines_of is context.state.default_headers else context.default_lines(),
            self.is_head,
            self.modern,
            keep_alive,
        )
        self.stage = STARTED
        self._expects_continue = False
        context.state.responses[CLASS_OF[status]] += 1
        if connection.access is not None:
            connection.access.log(self.scope, status)
        # ASGI lets the head wait for the first piece of the body; not longer, though, than a turn of the event loop:
        # who waits for an event stream wants to see that it has begun.
        self.waiting_head = head
        if context.state.answering is self:
            return  # who has called the application looks after it
        held = context.held
        held.append(self)
        if len(held) == 1:  # one call for all heads of a turn
            context.release_soon()

    def release_head(self) -> None:
        """Write the head where it still waits."""
        head, self.waiting_head = self.waiting_head, None
        if head is not None and not self.connection.transport.is_closing():
            self._write_now(head)

    def _write_body(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{message['type']}'.")
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = bytes(body)  # a memoryview's length may count something larger than bytes
        more = message.get("more_body", False)
        mode = self._mode
        if mode == LENGTH:
            left = self._remaining = self._remaining - len(body)
            if left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if left and not more:
                raise RuntimeError("Response content shorter than Content-Length")
            self._write(body, not more)
        elif mode == CHUNKED:
            self._write_chunk(body, not more)
        else:
            self._write(body if mode == CLOSE else b"", not more)
        if not more:
            self.stage = COMPLETE
            if self._waiters is not None:
                self._wake()
            self.connection.response_complete(self)

    def _write(self, data: bytes, last: bool) -> None:
        """Write a piece, behind the head where that still waits."""
        head = self.waiting_head
        if head is None:
            if data:
                self._write_now(data)
        elif len(data) > HIGH_WATER_LIMIT:
            # Not joined: a copy of a large body costs more than another write.
            self.waiting_head = None
            self._write_now(head)
            self._write_now(data)
        elif data or last:
            self.waiting_head = None
            # By far the most frequent one, without a call.
            whole = head + data
            connection = self.connection
            state = connection.server_state
            if state.measured:
                state.bytes_out += len(whole)
            if last and connection.pipeline:
                connection.hold_back(whole)
                return
            held = connection.held
            if held is not None and held.parts:
                held.write()
            connection.transport.write(whole)

    def _write_now(self, data: bytes) -> None:
        connection = self.connection
        state = connection.server_state
        if state.measured:
            state.bytes_out += len(data)
        held = connection.held
        if held is not None and held.parts:
            held.write()
        connection.transport.write(data)

    def _write_chunk(self, body: bytes, last: bool) -> None:
        if not body:
            self._write(LAST_CHUNK if last else b"", last)
        elif len(body) > HIGH_WATER_LIMIT:
            self._write(b"%x\r\n" % len(body), False)
            self._write(body, False)
            self._write(b"\r\n" + LAST_CHUNK if last else b"\r\n", last)
        elif last:
            self._write(b"%x\r\n%b\r\n%b" % (len(body), body, LAST_CHUNK), True)
        else:
            self._write(b"%x\r\n%b\r\n" % (len(body), body), False)
