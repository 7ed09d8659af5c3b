"""WSGI applications as ASGI 3, in a bounded pool of threads.

`WSGIMiddleware` is a2wsgi's class where that package is installed, as documented; the built-in one stands in where it is
not. What `--interface wsgi` serves with is `ServedWSGIMiddleware` in both cases: it is a kind of that class, so that
programs that look find what they expect, and handles requests itself, so that what is promised here does not
depend on what is installed.
"""

from __future__ import annotations

import concurrent.futures
import warnings
from typing import Any

from uvicorn._types import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPScope,
    Scope,
    WSGIApp,
)
from uvicorn.middleware._wsgi_environ import build_environ
from uvicorn.middleware._wsgi_request import WSGIResponder

__all__ = ["WORKERS", "ServedWSGIMiddleware", "WSGIMiddleware", "WSGIResponder", "build_environ"]

# Threads in each process. More requests than these wait, their clients held up by flow control.
WORKERS = 10


class _WSGIMiddleware:
    def __init__(self, app: WSGIApp, workers: int = WORKERS) -> None:
        warnings.warn(
            "Uvicorn's native WSGI implementation is deprecated: install a2wsgi, which is used where it is found.",
            DeprecationWarning,
            stacklevel=2,
        )
        self.app = app
        self.executor = _threads(workers)

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await WSGIResponder(self.app, self.executor, scope)(receive, send)
        elif scope["type"] == "lifespan":
            raise RuntimeError("WSGI applications have no lifespan.")  # lifespan "auto" goes on without it


WSGIMiddleware: Any
try:
    from a2wsgi import WSGIMiddleware
except ModuleNotFoundError:  # pragma: no cover - decided by what is installed
    WSGIMiddleware = _WSGIMiddleware


class ServedWSGIMiddleware(WSGIMiddleware):  # type: ignore[misc]  # a class that is known only when it runs
    """What `interface="wsgi"` serves with.

    Args:
        app: The WSGI application.
        workers: Threads that it runs in.
    """

    def __init__(self, app: WSGIApp, workers: int = WORKERS) -> None:
        # Not super().__init__(): all that the others make there is the pool, and one of them warns.
        self.app = app
        self.executor = _threads(workers)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await WSGIResponder(self.app, self.executor, scope)(receive, send)
        elif scope["type"] == "lifespan":
            await _no_lifespan(receive, send)


def _threads(workers: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(max_workers=workers, thread_name_prefix="wsgi")


async def _no_lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The protocol without an application that would take part: also `lifespan="on"` starts."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
