"""ASGI 2 applications as ASGI 3: two calls become one."""

from __future__ import annotations

from uvicorn._types import ASGI2Application, ASGIReceiveCallable, ASGISendCallable, Scope


class ASGI2Middleware:
    """Calls `app(scope)` and then its result with receive and send.

    Args:
        app: An ASGI 2 application: called with the scope, it returns a coroutine function.
    """

    def __init__(self, app: ASGI2Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await self.app(scope)(receive, send)
