"""examples/<framework>/ under a master with two workers, by real clients: what the users of each rely on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.harness import PATIENCE, ROOT, Service, read_response, wait_for

MEBIBYTES = 20


@dataclass(frozen=True)
class Framework:
    name: str
    app: str = "app:app"
    arguments: tuple[str, ...] = ()
    lifespan: bool = True
    websockets: bool = True

    def serve(self, directory: Path) -> Service:
        if importlib.util.find_spec(self.name) is None:
            pytest.skip(f"{self.name} is not installed; the dependency group `frameworks` has it")
        example = str(ROOT / "examples" / self.name)
        arguments = ["--app-dir", example, "--port", "0", "--workers", "2", *self.arguments]
        # A stream that nobody ends is given up then.
        return Service(directory, *arguments, "--timeout-graceful-shutdown", "10", app=self.app)


FRAMEWORKS = [
    Framework("fastapi"),
    Framework("starlette"),
    Framework("quart"),
    Framework("litestar"),
    Framework("django", app="asgi:application", lifespan=False),
    Framework("flask", arguments=("--interface", "wsgi"), lifespan=False, websockets=False),
]

pytestmark = pytest.mark.parametrize(
    "framework", FRAMEWORKS, ids=lambda framework: framework.name, indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def framework(request: pytest.FixtureRequest) -> Framework:
    found: Framework = request.param
    return found


@pytest.fixture(scope="module")
def service(framework: Framework, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with framework.serve(tmp_path_factory.mktemp(framework.name)) as running:
        yield running.wait_ready(2)
        assert running.stop() == 0
        assert "Traceback" not in running.log
        assert "graceful shutdown exceeded" not in running.log  # no stream has outlived its client


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=PATIENCE) as opened:
        yield opened


@pytest.fixture(scope="session")
def content() -> bytes:
    return os.urandom(MEBIBYTES * 2**20)


def test_a_request_is_answered_by_either_worker(framework: Framework, service: Service) -> None:
    seen: set[int] = set()

    def both_seen() -> bool:
        # Each with a connection of its own.
        answer = httpx.get(f"http://127.0.0.1:{service.port}/", timeout=PATIENCE)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json()["framework"] == framework.name
        seen.add(answer.json()["worker"])
        return len(seen) == 2

    wait_for(both_seen, "both workers")
    assert seen == set(service.workers())


def test_a_form_upload_arrives_whole(client: httpx.Client, content: bytes) -> None:
    files = {"file": ("a name.bin", content)}
    answer = client.post("/upload", files=files, data={"note": "é"})
    assert answer.status_code == 200
    assert answer.json() == {
        "note": "é",
        "name": "a name.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert client.get("/").status_code == 200  # on the same connection


def test_a_stream_arrives_whole(client: httpx.Client) -> None:
    expected, digest = hashlib.sha256(), hashlib.sha256()
    for i in range(MEBIBYTES * 16):
        expected.update(bytes([i % 256]) * 65536)
    with client.stream("GET", f"/download/{MEBIBYTES}") as response:
        assert response.status_code == 200
        assert response.headers["transfer-encoding"] == "chunked"
        for piece in response.iter_raw():
            digest.update(piece)
    assert digest.hexdigest() == expected.hexdigest()


def test_events_come_one_by_one_and_end_with_the_client(service: Service, client: httpx.Client) -> None:
    with client.stream("GET", "/events") as response:
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        lines = (line for line in response.iter_lines() if line)
        events = [(next(lines), next(lines)) for _ in range(5)]
    assert [max(event) for event in events] == [f"id: {number}" for number in range(5)]
    (said,) = {min(event) for event in events}
    assert said in {f"data: worker {pid}" for pid in service.workers()}


def test_a_websocket_echoes(framework: Framework, service: Service) -> None:
    url = f"ws://127.0.0.1:{service.port}/echo"
    if not framework.websockets:
        with pytest.raises(InvalidStatus) as refused, connect(url, open_timeout=PATIENCE):
            pass
        assert refused.value.response.status_code in range(400, 600)
        return
    for text in ("hello", "é 漢字 🦄", "x" * 100_000):
        with connect(url, open_timeout=PATIENCE, proxy=None) as websocket:
            for _ in range(2):
                websocket.send(text)
                said = str(websocket.recv(timeout=PATIENCE))
                worker = re.fullmatch(r"worker (\d+): " + text, said)
                assert worker, said[:100]
                assert int(worker[1]) in service.workers()


def in_flight(service: Service) -> socket.socket:
    """A connection with a request that takes a second, in the hands of a worker."""
    connection = service.connect()
    connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    port = connection.getsockname()[1]

    def accepted() -> bool:
        return any(
            other.raddr and other.raddr.port == port
            for pid in service.workers()
            for other in psutil.Process(pid).net_connections("tcp")
        )

    wait_for(accepted, "a worker that has the connection")
    return connection


def answered_by(connection: socket.socket) -> int:
    with connection:
        status, _, body = read_response(connection)
    assert status == 200, body
    worker: int = json.loads(body)["worker"]
    return worker


def test_a_reload_and_a_stop_lose_no_request_and_run_the_lifespan(
    framework: Framework, tmp_path: Path
) -> None:
    with framework.serve(tmp_path) as service:
        before = set(service.wait_ready(2).workers())
        connection = in_flight(service)
        service.send_signal(signal.SIGHUP)
        assert answered_by(connection) in before
        wait_for(lambda: len(service.workers()) == 2 and not before & set(service.workers()), "new workers")
        after = set(service.workers())
        connection = in_flight(service)
        service.send_signal(signal.SIGTERM)
        assert answered_by(connection) in after
        assert service.wait_exit() == 0
        for phase in ("startup", "shutdown"):
            said = re.findall(rf"{framework.name}: {phase} of worker (\d+)", service.log)
            assert sorted(map(int, said)) == (sorted(before | after) if framework.lifespan else [])
        assert "Traceback" not in service.log
