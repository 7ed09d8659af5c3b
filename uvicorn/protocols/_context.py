"""What connections need of the configuration, worked out once for all connections of a server.

Protocols know the configuration only by `ProtocolConfig`, which `uvicorn.Config` satisfies; they never import it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

from uvicorn._types import ASGI3Application
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols._access import AccessLog, RecordAccessLog
from uvicorn.protocols._state import ServerState

NEVER = float("inf")

_ASCII = bytes(range(128))


class ProtocolConfig(Protocol):
    """The part of `uvicorn.Config` that protocols use."""

    loaded: bool
    loaded_app: Any
    ws_protocol_class: type[asyncio.Protocol] | None
    access_log: bool
    root_path: str
    limit_concurrency: int | None
    limit_request_head: int
    limit_request_fields: int
    limit_pipelined_requests: int
    h11_max_incomplete_event_size: int | None
    timeout_keep_alive: float
    timeout_request_head: float
    timeout_request_body: float
    timeout_response_write: float
    ws_max_size: int
    ws_max_queue: int
    ws_handshake_timeout: float | None
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    reset_contextvars: bool

    @property
    def asgi_version(self) -> Any: ...

    def load(self) -> None: ...


class ConnectionContext:
    """The decisions that all connections of one server share."""

    __slots__ = (
        "_create_task",
        "app",
        "asgi_version",
        "config",
        "direct_app",
        "lines",
        "lines_of",
        "logger",
        "loop",
        "makes_tasks",
        "own_access",
        "root_path",
        "root_path_bytes",
        "starts_eagerly",
        "state",
        "tasks_see",
        "trace",
    )

    def __init__(self, config: ProtocolConfig, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.state = state
        self.loop = loop
        self.app: ASGI3Application = config.loaded_app
        # What answers requests that no proxy says anything about: for these the middleware is only another coroutine
        # (0.4 us of a 6 us request).
        self.direct_app: ASGI3Application = (
            self.app.app if type(self.app) is ProxyHeadersMiddleware else self.app
        )
        self.asgi_version = config.asgi_version
        self.logger = logging.getLogger("uvicorn.error")
        self.trace = self.logger.isEnabledFor(TRACE_LOG_LEVEL)
        self.root_path = config.root_path
        # In raw_path it stands as it was given; what is not ASCII cannot, and is percent-encoded.
        self.root_path_bytes = quote(config.root_path, safe=_ASCII).encode("ascii")
        real_loop = isinstance(loop, asyncio.AbstractEventLoop)
        # Where a task factory is set, a task may have run to its end when it comes into being.
        self.starts_eagerly = real_loop and loop.get_task_factory() is not None
        # Made directly, tasks cost 0.3 to 0.6 us less than through `loop.create_task`, which has to be used all the
        # same where a task factory is set, and with loops that are none of asyncio's.
        self.makes_tasks = real_loop and not self.starts_eagerly
        # What the application's tasks get a copy of. Taken by the first connection: later ones may be made, and requests begin,
        # where an application runs that has set variables.
        if state.tasks_see is None:
            state.tasks_see = Context() if config.reset_contextvars else copy_context()
        self.tasks_see = state.tasks_see
        self._create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = (
            partial(asyncio.Task, loop=loop) if self.makes_tasks else loop.create_task
        )
        self.own_access = _own_access_log(config)
        # What `default_lines` has made last, and of which headers: who answers each request looks here first.
        self.lines = b""
        self.lines_of: list[tuple[bytes, bytes]] | None = None

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the application's."""
        return self.tasks_see.copy().run(self._create_task, coroutine)

    def default_lines(self) -> bytes:
        """The server's own header lines, made once for each change of them (once a second)."""
        headers = self.state.default_headers
        if headers is not self.lines_of:
            self.lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in headers)
            self.lines_of = headers
        return self.lines

    def overloaded(self) -> bool:
        """Whether `limit_concurrency` is reached."""
        limit = self.config.limit_concurrency
        if limit is None:
            return False
        return len(self.state.connections) >= limit or len(self.state.tasks) >= limit


def is_cancelled() -> bool:
    """Whether somebody cancels this task; else a CancelledError is one that the application has let escape."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _own_access_log(config: ProtocolConfig) -> AccessLog | None:
    logger = logging.getLogger("uvicorn.access")
    if not config.access_log or not logger.hasHandlers():
        return None
    return RecordAccessLog(logger)
