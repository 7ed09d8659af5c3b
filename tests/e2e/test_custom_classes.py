"""Protocol classes and event loops of somebody else's: by class and by import string, alone and under a master."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, Service

CUSTOM = '''
import asyncio
import selectors

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol


class OwnLoop(asyncio.SelectorEventLoop):
    """Told apart by its class."""


def make_loop():
    return OwnLoop(selectors.SelectSelector())


class OwnHTTP(HttpToolsProtocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        print("OwnHTTP", self.transport is transport, flush=True)


class FromScratch(asyncio.Protocol):
    """Knows nothing of what uvicorn's own protocols offer besides the documented constructor and `shutdown`."""

    def __init__(self, config, server_state, app_state, _loop=None):
        self.server_state = server_state

    def connection_made(self, transport):
        self.transport = transport
        self.server_state.connections.add(self)

    def data_received(self, data):
        self.server_state.total_requests += 1
        loop = type(asyncio.get_running_loop()).__name__
        body = f"from scratch in {loop}".encode()
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))

    def connection_lost(self, exc):
        self.server_state.connections.discard(self)

    def shutdown(self):
        self.transport.close()


class OwnWebSocket(WSProtocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        print("OwnWebSocket", flush=True)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})
        return
    body = type(asyncio.get_running_loop()).__name__.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
'''

WORKERS = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])


def custom(tmp_path: Path, *arguments: str) -> Service:
    (tmp_path / "custom.py").write_text(CUSTOM)
    return Service(tmp_path, "--port", "0", *arguments, app="custom:app")


def ready(service: Service, workers: tuple[str, ...]) -> Service:
    service.wait_ready(2) if workers else service.wait_log("Uvicorn running on")
    return service


@WORKERS
@pytest.mark.parametrize("loop", ["custom:OwnLoop", "custom:make_loop"])
def test_an_event_loop_by_import_string(tmp_path: Path, workers: tuple[str, ...], loop: str) -> None:
    with custom(tmp_path, "--loop", loop, *workers) as service:
        ready(service, workers)
        assert service.request("/").body == b"OwnLoop"
        service.stop()
    assert "Traceback" not in service.log


@WORKERS
def test_http_and_websocket_classes_by_import_string(tmp_path: Path, workers: tuple[str, ...]) -> None:
    from websockets.sync.client import connect

    with custom(tmp_path, "--http", "custom:OwnHTTP", "--ws", "custom:OwnWebSocket", *workers) as service:
        ready(service, workers)
        assert service.request("/").status == 200
        service.wait_log("OwnHTTP True")
        with connect(f"ws://127.0.0.1:{service.port}/", proxy=None) as client:
            assert client.recv() == "hello"
        service.wait_log("OwnWebSocket")
        service.stop()
    assert "Traceback" not in service.log


@WORKERS
def test_a_protocol_from_scratch(tmp_path: Path, workers: tuple[str, ...]) -> None:
    arguments = ("--http", "custom:FromScratch", "--loop", "custom:OwnLoop", "--limit-max-requests", "1000")
    with custom(tmp_path, *arguments, *workers) as service:
        ready(service, workers)
        assert service.request("/").body == b"from scratch in OwnLoop"
        with service.connect() as idle:  # a stop closes it by `shutdown`
            idle.sendall(b"x")
            assert idle.recv(1000)
            service.stop()
            assert idle.recv(1000) == b""
    assert "Traceback" not in service.log


SCRIPT = """
import sys, threading, time, urllib.request
import uvicorn
from custom import *

settings = {settings}
server = uvicorn.Server(uvicorn.Config(app, port=0, **settings))

def ask():
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(urllib.request.urlopen(f"http://127.0.0.1:{{port}}/").read().decode())
    server.should_exit = True

threading.Thread(target=ask).start()
server.run()
"""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("dict(loop=OwnLoop)", "OwnLoop"),
        ("dict(loop=make_loop)", "OwnLoop"),
        ("dict(loop='custom:make_loop', http=FromScratch)", "from scratch in OwnLoop"),
        ("dict(http=OwnHTTP, loop='asyncio')", "_UnixSelectorEventLoop"),
        ("dict(http=H11Protocol, ws=OwnWebSocket, loop='uvloop')", "Loop"),
    ],
)
def test_classes_and_functions_themselves(tmp_path: Path, settings: str, expected: str) -> None:
    (tmp_path / "custom.py").write_text(CUSTOM)
    (tmp_path / "script.py").write_text(SCRIPT.format(settings=settings))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout.splitlines()
    assert "Traceback" not in done.stderr


@WORKERS
@pytest.mark.parametrize("option", ["--http", "--ws", "--loop"])
def test_one_that_is_not_there_ends_the_start_with_3(
    tmp_path: Path, workers: tuple[str, ...], option: str
) -> None:
    with custom(tmp_path, option, "custom:Missing", *workers) as service:
        assert service.wait_exit() == 3
    assert 'Attribute "Missing" not found in module "custom".' in service.log
