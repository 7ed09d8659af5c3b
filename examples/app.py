"""An application with a page, JSON, a stream, an upload and a WebSocket. Run it with `make serve`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE = Path(__file__).with_name("page.html")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, float]]:
    """What is yielded here is the state of every request."""
    yield {"started": time.monotonic()}


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE)


async def info(request: Request) -> JSONResponse:
    """Which worker answers, and for how long it has been up."""
    up = time.monotonic() - request.state.started
    return JSONResponse({"worker": os.getpid(), "up": round(up, 1), "client": request.client.host})


async def clock(request: Request) -> StreamingResponse:
    """Server-sent events, one a second, until the client goes. A browser that comes back says which one it had last."""
    seen = request.headers.get("last-event-id", "")

    async def events() -> AsyncIterator[str]:
        for number in itertools.count(int(seen) + 1 if seen.isdecimal() else 1):
            yield f"id: {number}\ndata: {time.strftime('%H:%M:%S')} from worker {os.getpid()}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def upload(request: Request) -> JSONResponse:
    """Reads a body of any size piece by piece."""
    size, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest()})


async def download(request: Request) -> StreamingResponse:
    """As many MiB as asked for."""
    mebibytes = min(int(request.path_params["mebibytes"]), 1024)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(mebibytes * 16):
            yield bytes(65536)

    headers = {"content-length": str(mebibytes * 2**20)}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def slow(request: Request) -> JSONResponse:
    """Takes two seconds: reload or stop the server meanwhile, it is answered all the same."""
    await asyncio.sleep(2)
    return JSONResponse({"worker": os.getpid(), "slow": True})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        async for text in websocket.iter_text():
            await websocket.send_text(f"worker {os.getpid()} says: {text}")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", page),
        Route("/info", info),
        Route("/clock", clock),
        Route("/slow", slow),
        Route("/upload", upload, methods=["POST"]),
        Route("/download/{mebibytes:int}", download),
        WebSocketRoute("/echo", echo),
    ],
)
