"""Flask, by WSGI: JSON, a form upload, a stream, server-sent events. Each request has a thread of its own.

pip install flask 'uvicorn[standard]'
uvicorn --app-dir examples/flask --interface wsgi --workers 2 app:app
"""

import hashlib
import os
import time
from collections.abc import Iterator

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
def index() -> dict[str, str | int]:
    return {"framework": "flask", "worker": os.getpid()}


@app.get("/slow")
def slow() -> dict[str, int]:
    time.sleep(1)
    return {"worker": os.getpid()}


@app.post("/upload")
def upload() -> dict[str, str | int | None]:
    note, file = request.form["note"], request.files["file"]
    digest = hashlib.sha256()
    size = 0
    while piece := file.read(65536):
        digest.update(piece)
        size += len(piece)
    return {"note": note, "name": file.filename, "bytes": size, "sha256": digest.hexdigest()}


@app.get("/download/<int:mebibytes>")
def download(mebibytes: int) -> Response:
    def pieces() -> Iterator[bytes]:
        for i in range(mebibytes * 16):
            yield bytes([i % 256]) * 65536

    return Response(pieces(), content_type="application/octet-stream")


@app.get("/events")
def events() -> Response:
    """Keeps a thread until the client goes: where many listen, an ASGI framework serves better."""

    def ticks() -> Iterator[str]:
        number = 0
        while True:
            yield f"id: {number}\ndata: worker {os.getpid()}\n\n"
            number += 1
            time.sleep(0.1)

    return Response(ticks(), content_type="text/event-stream")
