"""Starlette: JSON, a form upload, a stream, server-sent events, a WebSocket, lifespan.

pip install starlette python-multipart 'uvicorn[standard]'
uvicorn --app-dir examples/starlette --workers 2 app:app
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    print(f"starlette: startup of worker {os.getpid()}", flush=True)
    yield {"greeting": "hello"}  # the state of every request
    print(f"starlette: shutdown of worker {os.getpid()}", flush=True)


async def index(request: Request) -> JSONResponse:
    return JSONResponse({"framework": "starlette", "worker": os.getpid(), "greeting": request.state.greeting})


async def slow(request: Request) -> JSONResponse:
    await asyncio.sleep(1)
    return JSONResponse({"worker": os.getpid()})


async def upload(request: Request) -> JSONResponse:
    digest = hashlib.sha256()
    size = 0
    async with request.form() as form:
        file = form["file"]
        while piece := await file.read(65536):
            digest.update(piece)
            size += len(piece)
        return JSONResponse(
            {"note": form["note"], "name": file.filename, "bytes": size, "sha256": digest.hexdigest()}
        )


async def download(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(request.path_params["mebibytes"] * 16):
            yield bytes([i % 256]) * 65536

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def events(request: Request) -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        number = 0
        while True:
            yield f"id: {number}\ndata: worker {os.getpid()}\n\n"
            number += 1
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():  # ends when the client goes
        await websocket.send_text(f"worker {os.getpid()}: {text}")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/slow", slow),
        Route("/upload", upload, methods=["POST"]),
        Route("/download/{mebibytes:int}", download),
        Route("/events", events),
        WebSocketRoute("/echo", echo),
    ],
)
