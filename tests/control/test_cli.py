"""The command line of `uvicornctl`: which service, exit codes, JSON everywhere. The real ones run in tests/e2e."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.control.test_view import status
from uvicorn import compose
from uvicorn.control import cli
from uvicorn.control.client import Client, Unreachable

Asked = list[tuple[str, str, Any]]
VERBS = (
    "reload",
    "upgrade",
    "reopen-logs",
    "scale 3",
    "restart 2",
    "dump 2",
    "stop --no-wait",
    "health",
    "status",
)


class FakeClient:
    """Gives one answer to everything."""

    answer: tuple[int, Any] | Unreachable = (200, {"ok": True, "text": "done"})
    asked: Asked
    paths: list[str]
    timeouts: list[float]

    def __init__(self, path: str, timeout: float) -> None:
        self.paths.append(path)
        self.timeouts.append(timeout)

    def ask(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        self.asked.append((method, path, content))
        if isinstance(self.answer, Unreachable):
            raise self.answer
        return (200, status()) if path == "/v1/status" and self.answer[0] == 200 else self.answer


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    class Fresh(FakeClient):
        asked: Asked = []
        paths: list[str] = []
        timeouts: list[float] = []

    monkeypatch.setattr(cli, "Client", Fresh)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("UVICORN_CONTROL_SOCKET", "/from/environ")
    return Fresh


def run(text: str) -> Result:
    return CliRunner().invoke(cli.main, text.split())


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_done_is_0_and_what_is_not_is_1_and_nobody_is_3(verb: str, client: type[FakeClient]) -> None:
    assert run(verb).exit_code == 0
    client.answer = (409, {"ok": False, "text": "broken: because"})
    result = run(verb)
    assert result.exit_code == (3 if verb == "status" else 1)
    assert result.stderr == "broken: because\n"
    client.answer = Unreachable("c.sock: nobody listens")
    result = run(verb)
    assert result.exit_code == (1 if verb == "health" else 3)
    assert result.stderr == "c.sock: nobody listens\n"


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_everywhere_also_where_it_went_wrong(verb: str, client: type[FakeClient]) -> None:
    assert isinstance(json.loads(run(f"{verb} --json").stdout), dict)
    assert isinstance(json.loads(run(f"--json {verb}").stdout), dict)
    for answer in ((409, {"ok": False, "text": "broken"}), Unreachable("broken")):
        client.answer = answer
        assert json.loads(run(f"{verb} --json").stdout) == {"ok": False, "text": "broken"}


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        ("reload", ("POST", "/v1/reload", None)),
        ("upgrade", ("POST", "/v1/upgrade", None)),
        ("reopen-logs", ("POST", "/v1/reopen-logs", None)),
        ("scale 3", ("POST", "/v1/scale", {"workers": 3})),
        ("restart 2", ("POST", "/v1/workers/2/restart", None)),
        ("dump 2", ("GET", "/v1/workers/2/dump", None)),
        ("stop --no-wait", ("POST", "/v1/stop", None)),
        ("health", ("GET", "/v1/health", None)),
        ("status", ("GET", "/v1/status", None)),
        ("top --count 1", ("GET", "/v1/status", None)),
    ],
)
def test_each_verb_asks_for_what_it_says(verb: str, asked: Any, client: type[FakeClient]) -> None:
    run(verb)
    assert client.asked == [asked]


def test_the_socket_is_named_or_found(client: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    run("health --socket /behind")
    run("--socket /before health")
    run("health")
    monkeypatch.delenv("UVICORN_CONTROL_SOCKET")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/first:/run/second")
    run("health")
    assert client.paths == ["/behind", "/before", "/from/environ", "/run/first/uvicorn.ctl"]
    assert cli.SOCKET_NAME == compose.CONTROL_SOCKET
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    result = run("health")
    assert result.exit_code == 2
    assert "Which service? Give --socket PATH, or set UVICORN_CONTROL_SOCKET." in result.stderr


def test_outcomes_are_waited_for_longer_than_looks(client: type[FakeClient]) -> None:
    for verb in ("reload", "status", "reload --timeout 3"):
        run(verb)
    assert client.timeouts == [cli.OUTCOME_PATIENCE, cli.PATIENCE, 3.0]


@pytest.mark.parametrize(
    "text", ["scale", "scale x", "scale 0", "restart", "restart -1", "nothing", "top --interval 0"]
)
def test_what_is_no_command_is_2(text: str) -> None:
    assert run(text).exit_code == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a full queue refuses")
def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        with pytest.raises(Unreachable, match="no answer in time"):
            Client(path, 0.2).ask("GET", "/v1/status")
        room = threading.Timer(0.2, lambda: server.accept()[0].close())
        room.start()
        with pytest.raises(Unreachable, match="no answer in time"):
            Client(path, 0.6).ask("GET", "/v1/status")
        room.join()
        with server.accept()[0] as second:
            assert second.recv(100).startswith(b"GET /v1/status")


def test_a_socket_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(Unreachable, match="/not/there: there is no such socket; is the service running"):
        Client("/not/there", 1).ask("GET", "/v1/status")


def test_a_file_that_is_no_socket_is_not_taken_for_a_service_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    with pytest.raises(Unreachable, match=r"c\.yaml: this is no socket"):
        Client(str(tmp_path / "c.yaml"), 1).ask("GET", "/v1/status")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    with pytest.raises(Unreachable, match="nobody listens; the service has ended"):
        Client(path, 1).ask("GET", "/v1/status")
