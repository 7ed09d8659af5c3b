"""Real frameworks under a master with four workers, by real clients: pages, JSON, large bodies both ways, streams."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.harness import PATIENCE, Service, wait_for

MEBIBYTES = 50

FASTAPI = """
import hashlib
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()

class Item(BaseModel):
    name: str
    price: float

@app.get("/json")
async def json():
    return {"hello": "world"}

@app.post("/items")
async def items(item: Item):
    return {"name": item.name, "double": item.price * 2}

@app.post("/upload")
async def upload(request: Request):
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return {"sha256": digest.hexdigest()}

@app.post("/form")
async def form(file: UploadFile):
    return {"sha256": hashlib.sha256(await file.read()).hexdigest(), "name": file.filename}

@app.get("/download")
async def download():
    async def pieces():
        for i in range(800):
            yield bytes([i % 256]) * 65536
    return StreamingResponse(pieces())
"""

STARLETTE = """
import hashlib
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

async def json(request):
    return JSONResponse({"hello": "world"})

async def items(request):
    item = await request.json()
    return JSONResponse({"name": item["name"], "double": item["price"] * 2})

async def upload(request):
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return JSONResponse({"sha256": digest.hexdigest()})

async def form(request):
    async with request.form() as fields:
        file = fields["file"]
        return JSONResponse({"sha256": hashlib.sha256(await file.read()).hexdigest(), "name": file.filename})

async def download(request):
    async def pieces():
        for i in range(800):
            yield bytes([i % 256]) * 65536
    return StreamingResponse(pieces())

app = Starlette(routes=[
    Route("/json", json), Route("/items", items, methods=["POST"]), Route("/upload", upload, methods=["POST"]),
    Route("/form", form, methods=["POST"]), Route("/download", download),
])
"""

BARE = """
import hashlib, json as jsons

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    async def body():
        while True:
            message = await receive()
            yield message["body"]
            if not message["more_body"]:
                return
    async def answer(value):
        await send({"type": "http.response.start", "status": 200, "headers": [[b"content-type", b"application/json"]]})
        await send({"type": "http.response.body", "body": jsons.dumps(value).encode()})
    path = scope["path"]
    if path == "/json":
        await answer({"hello": "world"})
    elif path == "/items":
        item = jsons.loads(b"".join([piece async for piece in body()]))
        await answer({"name": item["name"], "double": item["price"] * 2})
    elif path == "/upload":
        digest = hashlib.sha256()
        async for piece in body():
            digest.update(piece)
        await answer({"sha256": digest.hexdigest()})
    elif path == "/download":
        await send({"type": "http.response.start", "status": 200})
        for i in range(800):
            await send({"type": "http.response.body", "body": bytes([i % 256]) * 65536, "more_body": True})
        await send({"type": "http.response.body"})
"""

EXPECTED_DOWNLOAD = hashlib.sha256(b"".join(bytes([i % 256]) * 65536 for i in range(800))).hexdigest()


@pytest.fixture(
    scope="module",
    params=[
        (FASTAPI, "httptools", "uvloop"),
        (STARLETTE, "httptools", "asyncio"),
        (BARE, "httptools", "uvloop"),
        (STARLETTE, "h11", "uvloop"),
        (BARE, "h11", "asyncio"),
    ],
    ids=["fastapi", "starlette-asyncio", "bare", "starlette-h11", "bare-h11-asyncio"],
)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    source, http, loop = request.param
    directory = tmp_path_factory.mktemp("application")
    (directory / "app.py").write_text(source)
    (directory / "body").write_bytes(os.urandom(MEBIBYTES * 2**20))
    with Service(directory, "--port", "0", "--workers", "4", "--http", http, "--loop", loop) as running:
        yield running.wait_ready(4)
        assert running.stop() == 0
        assert "Traceback" not in running.log


def url(service: Service, path: str) -> str:
    return f"http://127.0.0.1:{service.port}{path}"


def test_get_and_post_with_httpx(service: Service) -> None:
    with httpx.Client(timeout=PATIENCE) as client:
        for _ in range(20):
            assert client.get(url(service, "/json")).json() == {"hello": "world"}
        item = {"name": "é", "price": 1.5}
        assert client.post(url(service, "/items"), json=item).json() == {"name": "é", "double": 3.0}


def test_a_large_upload_and_download_with_httpx(service: Service) -> None:
    body = (service.directory / "body").read_bytes()
    expected = hashlib.sha256(body).hexdigest()
    with httpx.Client(timeout=PATIENCE) as client:
        assert client.post(url(service, "/upload"), content=body).json() == {"sha256": expected}
        pieces = (body[i : i + 100_000] for i in range(0, len(body), 100_000))  # no length: chunked
        assert client.post(url(service, "/upload"), content=pieces).json() == {"sha256": expected}
        digest = hashlib.sha256()
        with client.stream("GET", url(service, "/download")) as response:
            for piece in response.iter_raw():
                digest.update(piece)
        assert digest.hexdigest() == EXPECTED_DOWNLOAD


def test_a_form_upload_with_httpx(service: Service) -> None:
    if "/form" not in (service.directory / "app.py").read_text():
        pytest.skip("the bare application has no forms")
    content = os.urandom(2**20)
    with httpx.Client(timeout=PATIENCE) as client:
        answer = client.post(url(service, "/form"), files={"file": ("name.bin", content)}).json()
    assert answer == {"sha256": hashlib.sha256(content).hexdigest(), "name": "name.bin"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_large_bodies_with_curl(service: Service) -> None:
    """curl asks with Expect: 100-continue before it uploads."""

    def curl(*arguments: str) -> bytes:
        return subprocess.run(
            ["curl", "--silent", "--fail", *arguments], capture_output=True, check=True
        ).stdout

    body = service.directory / "body"
    expected = hashlib.sha256(body.read_bytes()).hexdigest().encode()
    assert expected in curl("--data-binary", f"@{body}", url(service, "/upload"))
    assert expected in curl(
        "--data-binary", f"@{body}", "--header", "Transfer-Encoding: chunked", url(service, "/upload")
    )
    assert hashlib.sha256(curl(url(service, "/download"))).hexdigest() == EXPECTED_DOWNLOAD
    assert b"HTTP/1.1 200 OK" in curl("--head", "--request", "GET", "--max-time", "60", url(service, "/json"))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_a_load_tool_sees_no_error(service: Service) -> None:
    done = subprocess.run(
        ["wrk", "--threads", "1", "--connections", "32", "--duration", "1s", url(service, "/json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "requests in" in done.stdout
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout


def test_a_client_that_stops_reading_pauses_the_application(service: Service) -> None:
    import psutil

    def memory() -> int:
        return sum(psutil.Process(pid).memory_info().rss for pid in service.workers())

    before = memory()
    with service.connect() as client:
        client.sendall(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(10)
        # The kernel's buffers fill, then the server waits: nothing of the remaining 50 MiB is produced.
        wait_for(lambda: service.request("/json").status == 200, "an answer to somebody else")
        assert memory() - before < 20 * 2**20
