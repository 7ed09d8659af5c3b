"""The application of the soak. What it answers depends on the request alone; `answers.py` says how."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.soak.answers import ASKED, asked, content

PIECE = 2048


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    else:
        await _answer(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def _echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": asked("WEBSOCKET", "/", message["bytes"])})


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """`/plain?TOKEN.SIZE`, `/slow?TOKEN.MILLISECONDS`, `/stream?TOKEN.PIECES`, `/upload?TOKEN.SIZE`."""
    query = scope["query_string"].decode("ascii")
    number = int(query.rpartition(".")[2])
    body = await _body(receive)
    checksum = asked(scope["method"], f"{scope['path']}?{query}", body)
    headers = [(ASKED, checksum.encode())]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        whole = content(checksum, number * PIECE)
        for at in range(0, len(whole), PIECE):
            await send({"type": "http.response.body", "body": whole[at : at + PIECE], "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(number / 1000)
        number = 100
    headers.append((b"content-length", b"%d" % number))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content(checksum, number)})


async def _body(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)
