"""The application of the soak, with a path that keeps memory: `/hold?TOKEN.MEBIBYTES`."""

from __future__ import annotations

from typing import Any

from tests.soak.app import app as soak_app

HELD: list[bytes] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/hold":
        HELD.append(b"x" * (int(scope["query_string"].rpartition(b".")[2]) << 20))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
    else:
        await soak_app(scope, receive, send)
