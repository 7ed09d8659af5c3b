"""One WSGI request: the application in a thread, everything of ASGI in the event loop, and what goes between the two.

Both directions have backpressure. The body is read from the client as the application reads it, and no more than
`READ_AHEAD` of it waits meanwhile; a piece of the response is taken from the application when the one before has gone
out. Nothing here is ever held whole.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextvars
import io
import threading
from collections.abc import Callable, Iterable
from typing import IO, Any, cast

from uvicorn._types import (
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Environ,
    ExcInfo,
    HTTPScope,
    StartResponse,
    WSGIApp,
)
from uvicorn.middleware._wsgi_environ import build_environ

# As much of a request's body as may wait for the application to read it.
READ_AHEAD = 262_144
# What the application gets at once where it reads line by line.
_BUFFER = 65_536


class ClientGone(ConnectionResetError):
    """The client went away: raised in the application's thread, where it reads or writes."""


class RequestBody(io.RawIOBase):
    """wsgi.input: filled in the event loop, read in the application's thread.

    Args:
        loop: Where `receive` belongs.
        receive: The ASGI callable. It is not called before `start()` or the first read, since the first call is
            what makes the server say "100 Continue".
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: ASGIReceiveCallable) -> None:
        self._loop = loop
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._changed = threading.Condition()
        # All below is shared, and touched with the condition held.
        self._pieces: collections.deque[memoryview] = collections.deque()
        self._waiting = 0
        self._complete = False
        self.gone = False

    # --- in the event loop -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive; the second time nothing happens."""
        if self._task is None and not self.gone:
            self._task = self._loop.create_task(self._pump())

    def abandon(self) -> None:
        """Nobody serves this request any more: wake the thread, and stop receiving."""
        if self._task is not None:
            self._task.cancel()
        self._mark_gone()

    async def _pump(self) -> None:
        try:
            while True:
                message: Any = await self._receive()
                if message["type"] != "http.request":
                    return
                self._add(message.get("body", b""), complete=not message.get("more_body", False))
                while not self._has_room():
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._mark_gone()

    def _add(self, piece: bytes, complete: bool) -> None:
        with self._changed:
            if piece:
                self._pieces.append(memoryview(piece))
                self._waiting += len(piece)
            self._complete = complete
            self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            return self._waiting < READ_AHEAD

    def _mark_gone(self) -> None:
        with self._changed:
            self.gone = True
            self._changed.notify_all()

    # --- in the thread -----------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what is there, after waiting until something is; 0 at the end of the body.

        Raises:
            ClientGone: The rest will not come. A truncated body must not look like a whole one.
        """
        if self._task is None:
            self._call_soon(self.start)
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._complete or self.gone)
            if self._pieces:
                taken = self._take(memoryview(buffer).cast("B"))
            elif self._complete:
                return 0
            else:
                raise ClientGone("the client went away before its request body was complete")
        self._call_soon(self._room.set)
        return taken

    def _take(self, buffer: memoryview) -> int:
        taken = 0
        while self._pieces and taken < len(buffer):
            piece = self._pieces.popleft()
            part = piece[: len(buffer) - taken]
            buffer[taken : taken + len(part)] = part
            taken += len(part)
            if len(part) < len(piece):
                self._pieces.appendleft(piece[len(part) :])
        self._waiting -= taken
        return taken

    def _call_soon(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: the server has ended without waiting for this thread
            self._mark_gone()


class WSGIResponder:
    """One request.

    Args:
        app: The WSGI application.
        executor: The threads that applications run in; a request waits while all of them are busy.
        scope: The request's scope.
    """

    def __init__(
        self, app: WSGIApp, executor: concurrent.futures.ThreadPoolExecutor, scope: HTTPScope
    ) -> None:
        self.app = app
        self.executor = executor
        self.scope = scope
        self.response_started = False
        self.exc_info: ExcInfo | None = None
        self._start: ASGISendEvent | None = None
        # Between the event loop, which abandons the request, and the thread, which sends.
        self._lock = threading.Lock()
        self._abandoned = False
        self._sending: concurrent.futures.Future[None] | None = None

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._body = RequestBody(self._loop, receive)
        # Also an application that does not read wants to know that its client has gone. A client that waits for
        # "100 Continue" gets it only from an application that reads.
        if not any(name == b"expect" for name, _ in self.scope.get("headers", [])):
            self._body.start()
        stream = cast("IO[bytes]", io.BufferedReader(self._body, _BUFFER))
        environ = build_environ(self.scope, {"type": "http.request", "body": b"", "more_body": True}, stream)
        run = contextvars.copy_context().run
        try:
            await self._loop.run_in_executor(self.executor, run, self.wsgi, environ)
        finally:
            self._abandon()
        if self.exc_info is not None:
            raise self.exc_info[1].with_traceback(self.exc_info[2])

    def _abandon(self) -> None:
        """Release the thread, wherever it waits for the event loop: that may be about to end."""
        self._body.abandon()
        with self._lock:
            self._abandoned = True
            sending = self._sending
        if sending is not None:
            sending.cancel()

    # --- in the thread -----------------------------------------------------------------------

    def wsgi(self, environ: Environ) -> None:
        """Run the application, and send what it returns piece by piece."""
        try:
            chunks = cast(Iterable[bytes], self.app(environ, cast(StartResponse, self.start_response)))
            try:
                self._send_all(chunks)
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    close()
        except ClientGone:
            pass  # there is nobody to answer

    def start_response(
        self,
        status: str,
        response_headers: Iterable[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response; nothing is sent before the first piece of the body that is not empty."""
        if exc_info is not None and self.response_started:
            raise exc_info[1].with_traceback(exc_info[2])  # too late for another response
        if exc_info is None and self._start is not None:
            raise AssertionError("start_response() may be called again only with exc_info.")
        self.exc_info = exc_info
        self._start = {
            "type": "http.response.start",
            "status": int(status.split(" ", 1)[0]),
            "headers": [
                (name.strip().encode("latin1").lower(), value.strip().encode("latin1"))
                for name, value in response_headers
            ],
        }
        return self.write

    def write(self, data: bytes) -> None:
        """Send one piece, and wait until the event loop has taken it.

        Raises:
            ClientGone: The request is no longer served.
            AssertionError: There was no start_response() before it, or it is no bytes.
        """
        if not isinstance(data, bytes):
            raise AssertionError(f"a WSGI response consists of bytes, not {type(data).__name__}.")
        if data:
            self._send_now({"type": "http.response.body", "body": data, "more_body": True})

    def _send_all(self, chunks: Iterable[bytes]) -> None:
        # A list has an end. Of anything else the rest is not asked for when nobody is there to have it; what has
        # come of it is sent all the same, since a client that has only shut down its own direction still listens.
        endless = not isinstance(chunks, (list, tuple))
        for chunk in chunks:
            self.write(chunk)
            if self.response_started and self.scope["method"] == "HEAD":
                break  # the head is all that goes out
            if endless and self._body.gone:
                raise ClientGone("the client went away before its response was complete")
        self._send_now({"type": "http.response.body", "body": b""})

    def _send_now(self, message: ASGISendEvent) -> None:
        messages = [message]
        if not self.response_started:
            if self._start is None:
                raise AssertionError(
                    "the application did not call start_response() before its first piece of body."
                )
            self.response_started = True
            messages.insert(0, self._start)
        with self._lock:
            if self._abandoned:
                raise ClientGone("the request is no longer served")
            self._sending = asyncio.run_coroutine_threadsafe(self._send_in_loop(messages), self._loop)
        try:
            self._sending.result()
        except concurrent.futures.CancelledError:
            raise ClientGone("the request is no longer served") from None

    async def _send_in_loop(self, messages: list[ASGISendEvent]) -> None:
        for message in messages:
            await self._send(message)
        self._body.start()  # from now on "100 Continue" is no longer said
