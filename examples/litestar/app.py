"""Litestar: JSON, a form upload, a stream, server-sent events, a WebSocket, lifespan.

pip install litestar 'uvicorn[standard]'
uvicorn --app-dir examples/litestar --workers 2 app:app
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from litestar import Litestar, get, post, websocket_listener
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import ServerSentEvent, ServerSentEventMessage, Stream


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    print(f"litestar: startup of worker {os.getpid()}", flush=True)
    yield
    print(f"litestar: shutdown of worker {os.getpid()}", flush=True)


@get("/")
async def index() -> dict[str, str | int]:
    return {"framework": "litestar", "worker": os.getpid()}


@get("/slow")
async def slow() -> dict[str, int]:
    await asyncio.sleep(1)
    return {"worker": os.getpid()}


@dataclass
class Upload:
    note: str
    file: UploadFile


@post("/upload", status_code=200, request_max_body_size=64 * 2**20)
async def upload(
    data: Annotated[Upload, Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, str | int]:
    digest = hashlib.sha256()
    size = 0
    while piece := await data.file.read(65536):
        digest.update(piece)
        size += len(piece)
    return {"note": data.note, "name": data.file.filename, "bytes": size, "sha256": digest.hexdigest()}


@get("/download/{mebibytes:int}")
async def download(mebibytes: int) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(mebibytes * 16):
            yield bytes([i % 256]) * 65536

    return Stream(pieces(), media_type="application/octet-stream")


@get("/events")
async def events() -> ServerSentEvent:
    async def ticks() -> AsyncIterator[ServerSentEventMessage]:
        number = 0
        while True:
            yield ServerSentEventMessage(id=number, data=f"worker {os.getpid()}")
            number += 1
            await asyncio.sleep(0.1)

    return ServerSentEvent(ticks())


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return f"worker {os.getpid()}: {data}"


app = Litestar([index, slow, upload, download, events, echo], lifespan=[lifespan])
