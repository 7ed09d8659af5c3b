"""What the tests of HTTP connections share: both implementations, a protocol on fakes, responses read back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

IMPLEMENTATIONS = {"httptools": HttpToolsProtocol, "h11": H11Protocol}

GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as bytes; Host is added."""
    return "\r\n".join([line, "Host: example.org", *fields, "", ""]).encode("latin1") + body


class StrictTransport(FakeTransport):
    """A FakeTransport that takes no second close."""

    def close(self) -> None:
        assert not self.closed, "closed twice"
        super().close()


class TaskLoop(FakeLoop):
    """A FakeLoop whose tasks run in the running event loop by themselves."""

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        return asyncio.get_running_loop().create_task(coroutine)

    def call_soon(self, callback: Callable[[], None]) -> Any:
        return asyncio.get_running_loop().call_soon(callback)


async def settle(turns: int = 10) -> None:
    """Let every task run until it waits for something."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Answer:
    """An application that answers every request with the same response, and keeps the scopes.

    Args:
        body: The body, or its pieces.
        status: The status.
        headers: The header fields; None for the body's length.
        reads: Whether it reads the request's body to its end first.
    """

    def __init__(
        self,
        body: bytes | list[bytes] = b"ok",
        status: int = 200,
        headers: Any = None,
        reads: bool = False,
    ) -> None:
        self.pieces = [body] if isinstance(body, bytes) else body
        length = b"%d" % sum(len(piece) for piece in self.pieces)
        self.start = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-length", length)] if headers is None else headers,
        }
        self.reads = reads
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if self.reads:
            body, more = b"", True
            while more:
                message = await receive()
                assert message["type"] == "http.request"
                body += message["body"]
                more = message["more_body"]
            self.bodies.append(body)
        await send(self.start)
        for piece in self.pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.pieces[-1]})


class Script:
    """An application that is driven message by message by the test.

    `receive` and `send` are those of the last request; a call ends when `finish` is called.
    """

    def __init__(self) -> None:
        self.scope: Any = None
        self.receive: Any = None
        self.send: Any = None
        self.calls = 0
        self._ends: list[asyncio.Future[Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        self.scope, self.receive, self.send = scope, receive, send
        self.calls += 1
        end = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        return await end

    def finish(self, result: Any = None) -> None:
        """End the oldest call that has not ended: with a value, or by raising an exception."""
        end = self._ends.pop(0)
        if isinstance(result, BaseException):
            end.set_exception(result)
        else:
            end.set_result(result)

    async def start(self, status: int = 200, headers: Any = ()) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, body: bytes = b"", more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, body: bytes = b"ok") -> None:
        """Send a whole response and end the call."""
        await self.start(200, [(b"content-length", b"%d" % len(body))])
        await self.body(body)
        self.finish()
        await settle()


def connect(
    protocol_class: Any,
    app: Any,
    *,
    loop: Any = None,
    state: ServerState | None = None,
    now: float = 0.0,
    transport: FakeTransport | None = None,
    app_state: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A protocol that is connected to a fake transport.

    Args:
        protocol_class: HttpToolsProtocol or H11Protocol.
        app: The application.
        loop: The event loop; by default a FakeLoop.
        state: The server's state; by default a new one.
        now: The coarse time; above 0 it means that a server sweeps.
        transport: The transport; by default a StrictTransport that cannot be half closed.
        app_state: What lifespan has left.
        settings: For the configuration.
    """
    defaults: dict[str, Any] = {
        "log_config": None, "proxy_headers": False, "ws": "none", "lifespan": "off", "access_log": False
    }  # fmt: skip
    config = Config(app, **(defaults | settings))
    server_state = state or ServerState()
    if now:
        server_state.now = server_state.ticked_at = now
    protocol = protocol_class(
        config=config, server_state=server_state, app_state=app_state or {}, _loop=loop or FakeLoop()
    )
    protocol.connection_made(transport or StrictTransport())
    return protocol


class Response:
    """One response as a client reads it.

    Attributes:
        status: The status code.
        headers: Name in lower case to value; of repeated fields the last.
        body: The body, decoded.
        ended: Whether the body's end was on the wire, as far as its framing tells.
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes, ended: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.ended = ended


def read_responses(data: bytes, methods: tuple[str, ...] = ()) -> list[Response]:
    """Read responses from what was written, strictly.

    Args:
        data: The bytes.
        methods: The methods of the requests, in order; those that are missing are taken for GET.
    """
    responses: list[Response] = []
    waiting = list(methods)
    while data:
        head, found, data = data.partition(b"\r\n\r\n")
        assert found, f"no end of a response head: {head!r}"
        status_line, *lines = head.decode("latin1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([1-9][0-9]{2}) [^\r\n]*", status_line)
        assert match, status_line
        status = int(match[1])
        headers = {}
        for line in lines:
            field = re.fullmatch(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([^\r\n]*)", line)
            assert field, line
            headers[field[1].lower()] = field[2]
        if status < 200:
            responses.append(Response(status, headers, b"", True))
            continue
        method = waiting.pop(0) if waiting else "GET"
        body, ended = b"", True
        if method == "HEAD" or status in (204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body, ended, data = _read_chunked(data)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            ended = len(body) == length
        else:
            body, ended, data = data, False, b""
        responses.append(Response(status, headers, body, ended))
    return responses


def _read_chunked(data: bytes) -> tuple[bytes, bool, bytes]:
    body = b""
    while data:
        size, found, data = data.partition(b"\r\n")
        assert found, f"no end of a chunk line: {size!r}"
        length = int(size, 16)
        if not length:
            assert data.startswith(b"\r\n")
            return body, True, data[2:]
        body += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
    return body, False, b""


class Listener:
    """What a codec takes for its connection: notes what it is told.

    Attributes:
        events: ("head", method, target, version), ("body", data), "end", ("upgrade", rest), in order.
        headers: The header fields of each head.
        takes: Whether the connection leaves HTTP with the next head.
        error: Raised by the next head.
    """

    def __init__(self, head: int = 131072, incomplete: int | None = None) -> None:
        self.config = SimpleNamespace(limit_request_head=head, h11_max_incomplete_event_size=incomplete)
        self.events: list[Any] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.client_goes_on = True
        self.pipeline_full = False
        self.takes = False
        self.error: Exception | None = None

    def on_head(
        self,
        method: bytes,
        target: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
        may_upgrade: bool,
    ) -> bool:
        if self.error is not None:
            raise self.error
        self.events.append(("head", method, target, version))
        self.headers.append(headers)
        self.client_goes_on = (b"connection", b"close") not in headers
        return self.takes and may_upgrade

    def on_body(self, data: bytes) -> None:
        if self.events and self.events[-1][0] == "body":
            data = self.events.pop()[1] + data
        self.events.append(("body", data))

    def on_end(self) -> None:
        self.events.append(("end",))

    def on_upgrade(self, rest: bytes) -> None:
        self.events.append(("upgrade", rest))
