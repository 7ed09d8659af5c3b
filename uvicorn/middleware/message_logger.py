"""Every ASGI message on the trace log, for level "trace"."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from uvicorn.logging import TRACE_LOG_LEVEL

_BODY_KEYS = ("body", "bytes", "text")


def message_with_placeholders(message: Any) -> Any:
    """A copy of the message whose bodies are lengths and whose headers are left out."""
    shown = dict(message)
    for key in _BODY_KEYS:
        content = shown.get(key)
        if content is not None:
            unit = "bytes" if isinstance(content, (bytes, bytearray, memoryview)) else "chars"
            shown[key] = f"<{len(content)} {unit}>"
    if "headers" in shown:
        shown["headers"] = "<...>"
    return shown


class MessageLoggerMiddleware:
    """Logs scopes and messages at level TRACE on the logger "uvicorn.asgi".

    Args:
        app: The application whose messages are logged.
    """

    def __init__(self, app: ASGI3Application) -> None:
        self.app = app
        self.logger = logging.getLogger("uvicorn.asgi")
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        number = next(self._numbers)
        client: Any = scope.get("client")
        prefix = f"{client[0]}:{client[1]} - ASGI" if client else "ASGI"

        def log(what: str, *args: Any) -> None:
            self.logger.log(TRACE_LOG_LEVEL, "%s [%d] " + what, prefix, number, *args)  # noqa: G003 - four texts

        async def logging_receive() -> ASGIReceiveEvent:
            message = await receive()
            log("Receive %s", message_with_placeholders(message))
            return message

        async def logging_send(message: ASGISendEvent) -> None:
            log("Send %s", message_with_placeholders(message))
            await send(message)

        log("Started scope=%s", message_with_placeholders(scope))
        try:
            await self.app(scope, logging_receive, logging_send)
        except BaseException:
            log("Raised exception")
            raise
        log("Completed")
