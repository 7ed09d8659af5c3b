"""Django by ASGI: JSON, a form upload, a stream, server-sent events; and a WebSocket, which Django leaves to others.

pip install django 'uvicorn[standard]'
uvicorn --app-dir examples/django --workers 2 asgi:application
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

django_application = get_asgi_application()


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "websocket" and scope["path"] == "/echo":
        await echo(receive, send)
    else:
        await django_application(scope, receive, send)


async def echo(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """As ASGI has it; Channels puts classes around it."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"worker {os.getpid()}: {message['text']}"})
