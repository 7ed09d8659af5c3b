"""FastAPI: JSON, a form upload, a stream, server-sent events, a WebSocket, lifespan.

pip install fastapi python-multipart 'uvicorn[standard]'
uvicorn --app-dir examples/fastapi --workers 2 app:app
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Form, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    print(f"fastapi: startup of worker {os.getpid()}", flush=True)
    yield {"greeting": "hello"}  # the state of every request
    print(f"fastapi: shutdown of worker {os.getpid()}", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def index(request: Request) -> dict[str, str | int]:
    return {"framework": "fastapi", "worker": os.getpid(), "greeting": request.state.greeting}


@app.get("/slow")
async def slow() -> dict[str, int]:
    await asyncio.sleep(1)
    return {"worker": os.getpid()}


@app.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, str | int | None]:
    digest = hashlib.sha256()
    size = 0
    while piece := await file.read(65536):
        digest.update(piece)
        size += len(piece)
    return {"note": note, "name": file.filename, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download/{mebibytes}")
async def download(mebibytes: int) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(mebibytes * 16):
            yield bytes([i % 256]) * 65536

    return StreamingResponse(pieces(), media_type="application/octet-stream")


@app.get("/events")
async def events() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        number = 0
        while True:
            yield f"id: {number}\ndata: worker {os.getpid()}\n\n"
            number += 1
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"worker {os.getpid()}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass
