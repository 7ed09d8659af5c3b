"""The ASGI application of the control process.

One table of routes. What only looks is answered on both doors, `admin` and the control socket; what commands, and what
shows an application's inside, on the control socket alone, whose peers have been looked at (`accept.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.resources
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from uvicorn._ipc.control import Verb
from uvicorn.control import view
from uvicorn.control.accept import PEER
from uvicorn.control.master import Master, Unanswered

# More than this of a command is no command.
BODY_LIMIT = 64 * 1024
# How long a command may take to have an outcome, in seconds. What rolls workers waits for their start and their drain.
SHORT, LONG = 10.0, 3600.0

NO_REPORT = (
    "The worker does not answer: not its event loop but its process is blocked or stopped. If it stays so, the master "
    "aborts it, and the log has its stacks."
)
# How long the first snapshot is waited for.
FIRST_WORD = 2.0

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
# The page takes nothing from anywhere, and nobody may frame it.
PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    b"frame-ancestors 'none'; base-uri 'none'"
)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """The request cannot be served: a status, and why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def as_json(status: int, content: Any) -> Response:
    return Response(status, json.dumps(content, indent=2).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        path: What it matches; a group is the argument.
        verb: What is asked of the master for it, or None where it is not asked.
        private: Whether it is answered on the control socket alone.
        limit: How long its outcome may take.
    """

    method: str
    path: re.Pattern[str]
    answer: Callable[[ControlApp, Route, int, bytes], Awaitable[Response]]
    verb: Verb | None = None
    limit: float = SHORT
    private: bool = False

    @property
    def commands(self) -> bool:
        """Whether it changes anything: refused with `control_read_only`."""
        return self.verb not in (None, Verb.DUMP)


class ControlApp:
    """The application.

    Args:
        master: Who knows, and who does.
        read_only: Whether commands are refused.

    Attributes:
        ending: Set when this process is told to stop.
    """

    def __init__(self, master: Master, read_only: bool) -> None:
        self.master = master
        self.ending = asyncio.Event()
        self._read_only = read_only

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            response = await self._answer(scope, receive)
        except Refused as exc:
            response = as_json(exc.status, {"ok": False, "text": str(exc)})
        headers = [
            (b"content-type", response.kind),
            (b"content-length", str(len(response.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *response.headers,
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.master.listen(asyncio.get_running_loop())
                # Who has connected waits in the queue for the moment that it takes to know something.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.master.heard.wait(), FIRST_WORD)
                await send({"type": "lifespan.startup.complete"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Any, receive: Any) -> Response:
        route, argument = self._find(scope["method"], scope["path"], PEER in scope["state"])
        body = await _body(receive) if route.commands else b""
        return await route.answer(self, route, argument, body)

    def _find(self, method: str, path: str, is_peer: bool) -> tuple[Route, int]:
        """The route and its argument.

        Raises:
            Refused: There is none, or not here.
        """
        method = "GET" if method == "HEAD" else method
        found = [(route, match) for route in ROUTES if (match := route.path.fullmatch(path))]
        found = [(route, match) for route, match in found if is_peer or not route.private]
        if not found:
            raise Refused(404, f"There is no {path} here.")
        for route, match in found:
            if route.method == method:
                if route.commands and self._read_only:
                    raise Refused(403, "The control socket is read-only (control_read_only).")
                return route, int(match[1]) if match.groups() else 0
        raise Refused(405, f"{path} takes {found[0][0].method}.")

    # --- what only looks ---------------------------------------------------------------------

    def status(self) -> view.Status:
        """
        Raises:
            Refused: The master has not said anything yet.
        """
        status = self.master.status()
        if status is None:
            raise Refused(503, "The master has not been heard of yet.")
        return status


async def _body(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The command has not come whole.")  # half of one is none
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise Refused(413, f"A command has at most {BODY_LIMIT} bytes.")
        if not message.get("more_body"):
            return body


async def _status(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    return as_json(200, app.status())


def _probe(judge: Callable[[view.Status | None], tuple[bool, str]]) -> Any:
    async def answer(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
        ok, text = judge(app.master.status())
        return Response(200 if ok else 503, f"{'ok' if ok else 'not ok'}: {text}\n".encode(), TEXT)

    return answer


async def _health(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    ok, text = view.is_ready(app.master.status())
    return as_json(200 if ok else 503, {"ok": ok, "text": text})


async def _metrics(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    # Here and not in the master, which imports this module before it forks: the library is large.
    metrics = importlib.import_module("uvicorn.control.metrics")
    if not metrics.AVAILABLE:
        return Response(501, metrics.MISSING.encode() + b"\n", TEXT)
    content, kind = metrics.exposition(app.status())
    return Response(200, content, kind.encode())


async def _end(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    """Answered when the service ends, for those who have stopped it."""
    await app.ending.wait()
    return as_json(200, {"ok": True, "text": "The service ends."})


async def _page(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    page = importlib.resources.files("uvicorn.control").joinpath("page.html").read_bytes()
    return Response(200, page, b"text/html; charset=utf-8", ((b"content-security-policy", PAGE_POLICY),))


# --- commands ----------------------------------------------------------------------------------


async def _command(app: ControlApp, route: Route, argument: int, body: bytes) -> Response:
    assert route.verb is not None
    if route.verb is Verb.SCALE:
        argument = _size(body)
    try:
        answer = await app.master.ask(route.verb, argument, route.limit)
    except Unanswered as exc:
        text = NO_REPORT if route.verb is Verb.DUMP else str(exc)
        return as_json(504, {"ok": False, "text": text})
    return as_json(200 if answer.ok else 409, {"ok": answer.ok, "text": answer.text})


def _size(body: bytes) -> int:
    try:
        size = json.loads(body)["workers"]
    except (ValueError, LookupError, TypeError, RecursionError):
        size = None
    if type(size) is not int or not 0 <= size < 2**31:
        raise Refused(400, 'The body is not {"workers": N}.')
    return size


def _path(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("ID", r"([0-9]{1,9})"))


ROUTES = (
    Route("GET", _path("/"), _page),
    Route("GET", _path("/status.json"), _status),
    Route("GET", _path("/livez"), _probe(view.is_alive)),
    Route("GET", _path("/readyz"), _probe(view.is_ready)),
    Route("GET", _path("/startupz"), _probe(view.is_started)),
    Route("GET", _path("/metrics"), _metrics),
    Route("GET", _path("/v1/status"), _status, private=True),
    Route("GET", _path("/v1/health"), _health, private=True),
    Route("GET", _path("/v1/end"), _end, private=True),
    Route("GET", _path("/v1/workers/ID/dump"), _command, Verb.DUMP, private=True),
    Route("POST", _path("/v1/reload"), _command, Verb.RELOAD, LONG, private=True),
    Route("POST", _path("/v1/scale"), _command, Verb.SCALE, LONG, private=True),
    Route("POST", _path("/v1/workers/ID/restart"), _command, Verb.RESTART, LONG, private=True),
    Route("POST", _path("/v1/reopen-logs"), _command, Verb.REOPEN_LOGS, private=True),
    Route("POST", _path("/v1/upgrade"), _command, Verb.UPGRADE, LONG, private=True),
    Route("POST", _path("/v1/stop"), _command, Verb.STOP, private=True),
)
