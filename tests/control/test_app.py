"""The application: what is answered on which door, how much of it, and for how long."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.control.test_view import status
from uvicorn._ipc.control import Answer, Verb
from uvicorn.control.accept import PEER
from uvicorn.control.app import BODY_LIMIT, NO_REPORT, ROUTES, ControlApp
from uvicorn.control.master import Unanswered


class FakeMaster:
    """Gives the answer that a test wants, and keeps what it was asked."""

    def __init__(self, answer: Answer | Unanswered | None = None, known: bool = True) -> None:
        self.answer = answer or Answer(1, True, "done")
        self.asked: list[tuple[Verb, int]] = []
        self.known = known

    def status(self) -> Any:
        return status() if self.known else None

    async def ask(self, verb: Verb, argument: int, limit: float) -> Answer:
        self.asked.append((verb, argument))
        if isinstance(self.answer, Unanswered):
            raise self.answer
        return self.answer


def call(
    method: str,
    path: str,
    body: bytes = b"",
    master: FakeMaster | None = None,
    peer: bool = True,
    read_only: bool = False,
) -> tuple[int, dict[str, str], bytes]:
    """One request; status, header and body of the answer."""
    app = ControlApp(master or FakeMaster(), read_only)  # type: ignore[arg-type]
    app.ending.set()
    sent: list[Any] = []
    pieces = [body[i : i + 10_000] for i in range(0, len(body), 10_000)] or [b""]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "state": {PEER: 0} if peer else {}}
    asyncio.run(app(scope, receive, send))
    start, end = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(headers["content-length"]) == len(end["body"])
    return start["status"], headers, end["body"]


def path_of(pattern: str) -> str:
    return pattern.replace("([0-9]{1,9})", "1")


def test_only_the_control_socket_commands_and_shows_an_application_inside() -> None:
    for route in ROUTES:
        path = path_of(route.path.pattern)
        code, _, _ = call(route.method, path, b'{"workers": 1}', peer=False)
        assert (code == 404) == path.startswith("/v1/"), path
        assert call(route.method, path, b'{"workers": 1}')[0] in (200, 501), path


@pytest.mark.parametrize(
    ("method", "path", "body", "asked"),
    [
        ("POST", "/v1/reload", b"", (Verb.RELOAD, 0)),
        ("POST", "/v1/scale", b'{"workers": 7}', (Verb.SCALE, 7)),
        ("POST", "/v1/workers/3/restart", b"", (Verb.RESTART, 3)),
        ("GET", "/v1/workers/3/dump", b"", (Verb.DUMP, 3)),
        ("POST", "/v1/reopen-logs", b"", (Verb.REOPEN_LOGS, 0)),
        ("POST", "/v1/upgrade", b"", (Verb.UPGRADE, 0)),
        ("POST", "/v1/stop", b"", (Verb.STOP, 0)),
    ],
)
def test_commands_reach_the_master_and_their_outcome_comes_back(
    method: str, path: str, body: bytes, asked: tuple[Verb, int]
) -> None:
    master = FakeMaster()
    code, _, content = call(method, path, body, master)
    assert (code, json.loads(content)) == (200, {"ok": True, "text": "done"})
    assert master.asked == [asked]
    master = FakeMaster(Answer(1, False, "broken"))
    code, _, content = call(method, path, body, master)
    assert (code, json.loads(content)) == (409, {"ok": False, "text": "broken"})
    code, _, content = call(method, path, body, FakeMaster(Unanswered("no outcome")))
    assert (code, json.loads(content)["text"]) == (504, NO_REPORT if asked[0] is Verb.DUMP else "no outcome")
    master = FakeMaster()
    wrong = "GET" if method == "POST" else "POST"
    assert call(wrong, path, body, master)[0] == 405
    assert master.asked == []


def test_read_only_refuses_what_changes_anything_and_nothing_else() -> None:
    for route in ROUTES:
        master = FakeMaster()
        path = path_of(route.path.pattern)
        code, _, _ = call(route.method, path, b'{"workers": 1}', master, read_only=True)
        assert (code == 403) == (route.method == "POST"), path
        assert [verb for verb, _ in master.asked] in ([], [Verb.DUMP])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"[]",
        b"{}",
        b'{"workers": "7"}',
        b'{"workers": true}',
        b'{"workers": -1}',
        b"\xff",
        b"[" * 60000,
    ],
)
def test_what_is_no_size_is_refused(body: bytes) -> None:
    master = FakeMaster()
    code, _, content = call("POST", "/v1/scale", body, master)
    assert (code, json.loads(content)["text"]) == (400, 'The body is not {"workers": N}.')
    assert master.asked == []


def test_a_body_has_a_limit() -> None:
    master = FakeMaster()
    assert call("POST", "/v1/reload", b"x" * (BODY_LIMIT + 1), master)[0] == 413
    assert master.asked == []


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/workers/0x1/dump", "/v1/workers/99999999999/dump", "//", "/v1/status/"]
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert call("GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/status.json", "/v1/health"])
def test_before_the_master_has_spoken_the_answer_is_503(path: str) -> None:
    assert call("GET", path, master=FakeMaster(known=False))[0] == 503


def test_the_page_takes_nothing_from_elsewhere() -> None:
    code, headers, body = call("GET", "/")
    assert (code, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert body.count(b"href=") == body.count(b'href="data:,"') == 1  # the icon, drawn by the page
    for sign in (b"src=", b"@import", b"url(", b"innerHTML", b"https://"):
        assert sign not in body
    assert body.count(b"http://") == body.count(b"http://www.w3.org/2000/svg")


def test_metrics_without_the_library_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from uvicorn.control import metrics

    monkeypatch.setattr(metrics, "AVAILABLE", False)
    code, _, body = call("GET", "/metrics")
    assert code == 501
    assert body == b"Metrics need prometheus_client: install 'uvicorn[metrics]', or read /status.json.\n"
