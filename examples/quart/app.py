"""Quart: JSON, a form upload, a stream, server-sent events, a WebSocket, what runs before and after serving.

pip install quart 'uvicorn[standard]'
uvicorn --app-dir examples/quart --workers 2 app:app
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

from quart import Quart, Response, make_response, request, websocket

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 2**20


@app.before_serving
async def startup() -> None:
    print(f"quart: startup of worker {os.getpid()}", flush=True)


@app.after_serving
async def shutdown() -> None:
    print(f"quart: shutdown of worker {os.getpid()}", flush=True)


@app.get("/")
async def index() -> dict[str, str | int]:
    return {"framework": "quart", "worker": os.getpid()}


@app.get("/slow")
async def slow() -> dict[str, int]:
    await asyncio.sleep(1)
    return {"worker": os.getpid()}


@app.post("/upload")
async def upload() -> dict[str, str | int | None]:
    note, file = (await request.form)["note"], (await request.files)["file"]
    digest = hashlib.sha256()
    size = 0
    while piece := file.read(65536):
        digest.update(piece)
        size += len(piece)
    return {"note": note, "name": file.filename, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download/<int:mebibytes>")
async def download(mebibytes: int) -> tuple[AsyncIterator[bytes], dict[str, str]]:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(mebibytes * 16):
            yield bytes([i % 256]) * 65536

    return pieces(), {"content-type": "application/octet-stream"}


@app.get("/events")
async def events() -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        number = 0
        while True:
            yield f"id: {number}\ndata: worker {os.getpid()}\n\n".encode()
            number += 1
            await asyncio.sleep(0.1)

    response = await make_response(ticks(), {"content-type": "text/event-stream"})
    response.timeout = None  # a stream without an end
    return response


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(f"worker {os.getpid()}: {await websocket.receive()}")
