"""WSGI applications as ASGI 3, in a bounded pool of threads.

`WSGIMiddleware` is a2wsgi's where that package is installed; the implementation here stands in where it is not.
The request body is gathered before the application runs (in memory up to a limit, then in a temporary file), and
the response goes out piece by piece.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import tempfile
import warnings
from collections.abc import Iterable
from typing import IO, Any, cast

from uvicorn._types import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Environ,
    ExcInfo,
    HTTPRequestEvent,
    HTTPScope,
    StartResponse,
    WSGIApp,
)

# A body above this size waits in a file, so that uploads do not grow the process.
SPOOL_SIZE = 1_048_576

_CONTENT_HEADERS = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


def build_environ(scope: HTTPScope, message: ASGIReceiveEvent, body: IO[bytes]) -> Environ:
    """The WSGI environment (PEP 3333) of one request; texts are the UTF-8 bytes read as latin-1."""
    script_name = scope.get("root_path", "").encode("utf8").decode("latin1")
    path_info = scope["path"].encode("utf8").decode("latin1")
    if script_name and path_info.startswith(script_name):
        path_info = path_info[len(script_name) :]
    server = scope.get("server") or ("localhost", 80)
    client = scope.get("client")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path_info,
        "QUERY_STRING": scope["query_string"].decode("ascii"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": server[1],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stdout,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
    for name, value in scope.get("headers", []):
        key = _CONTENT_HEADERS.get(name) or "HTTP_" + name.decode("latin1").upper().replace("-", "_")
        text = value.decode("latin1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


class _WSGIMiddleware:
    def __init__(self, app: WSGIApp, workers: int = 10) -> None:
        warnings.warn(
            "Uvicorn's native WSGI implementation is deprecated: install a2wsgi, which is used where it is found.",
            DeprecationWarning,
            stacklevel=2,
        )
        self.app = app
        self.executor = concurrent.futures.ThreadPoolExecutor(max_workers=workers)

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await WSGIResponder(self.app, self.executor, scope)(receive, send)
        elif scope["type"] == "lifespan":
            raise RuntimeError("WSGI applications have no lifespan.")  # lifespan "auto" goes on without it


class WSGIResponder:
    """One request: the application runs in a thread, its messages are sent from the event loop."""

    def __init__(
        self, app: WSGIApp, executor: concurrent.futures.ThreadPoolExecutor, scope: HTTPScope
    ) -> None:
        self.app = app
        self.executor = executor
        self.scope = scope
        self.response_started = False
        self.exc_info: ExcInfo | None = None
        self._start: ASGISendEvent | None = None

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_SIZE) as body:
            message = cast(HTTPRequestEvent, await receive())
            while message["type"] == "http.request":
                body.write(message.get("body", b""))
                if not message.get("more_body", False):
                    break
                message = cast(HTTPRequestEvent, await receive())
            else:
                return  # the client went before its request was complete: there is nobody to answer
            body.seek(0)
            environ = build_environ(self.scope, message, cast("IO[bytes]", body))
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self.executor, self.wsgi, environ, loop, send)
        if self.exc_info is not None:
            raise self.exc_info[1].with_traceback(self.exc_info[2])

    def start_response(
        self,
        status: str,
        response_headers: Iterable[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> None:
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

    def wsgi(self, environ: Environ, loop: asyncio.AbstractEventLoop, send: ASGISendCallable) -> None:
        """Runs in the thread: each piece of the body waits until the event loop has taken the one before."""

        def send_now(message: ASGISendEvent) -> None:
            asyncio.run_coroutine_threadsafe(cast(Any, send(message)), loop).result()

        chunks = cast(Iterable[bytes], self.app(environ, cast(StartResponse, self.start_response)))
        try:
            for chunk in chunks:
                if not chunk:
                    continue
                self._send_start(send_now)
                send_now({"type": "http.response.body", "body": chunk, "more_body": True})
            self._send_start(send_now)
            send_now({"type": "http.response.body", "body": b""})
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _send_start(self, send_now: Any) -> None:
        if self.response_started:
            return
        if self._start is None:
            raise AssertionError(
                "the application did not call start_response() before its first piece of body."
            )
        self.response_started = True
        send_now(self._start)


WSGIMiddleware: Any
try:
    from a2wsgi import WSGIMiddleware
except ModuleNotFoundError:  # pragma: no cover - decided by what is installed
    WSGIMiddleware = _WSGIMiddleware
