"""One connection: its requests in order, its deadlines, its end. Both documented classes, on fakes."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import pytest

from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport
from tests.protocols.http.conftest import Log
from tests.protocols.http.harness import (
    GET,
    IMPLEMENTATIONS,
    Answer,
    Script,
    StrictTransport,
    TaskLoop,
    connect,
    read_responses,
    request,
    settle,
)
from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols import _state
from uvicorn.protocols._access import RecordAccessLog
from uvicorn.protocols._context import NEVER
from uvicorn.protocols._state import DURATIONS
from uvicorn.protocols._upgrade import TakesUpgrade, UpgradeRequest
from uvicorn.protocols.http import _connection, _turn
from uvicorn.protocols.http._codec import LINGER_POLL
from uvicorn.protocols.http._lifetime import LINGER
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

# The coarse time at which the tests with a sweeping server begin, and the settings they use.
NOW = 1000.0
TIMEOUTS: dict[str, Any] = {
    "timeout_keep_alive": 5,
    "timeout_request_head": 60,
    "timeout_request_body": 30,
    "timeout_response_write": 40,
}
GET_2 = request("GET /2 HTTP/1.1")
CLOSE = request("GET / HTTP/1.1", "Connection: close")
POST_5 = request("POST / HTTP/1.1", "Content-Length: 5")


def play(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


def run(protocol: Any) -> None:
    """Let the application answer everything that it has been called for."""
    asyncio.run(protocol.loop.run_all())


def swept(protocol_class: Any, app: Any, **changes: Any) -> Any:
    """A protocol whose server sweeps. Its application's tasks run by themselves."""
    return connect(protocol_class, app, loop=TaskLoop(), now=NOW, **(TIMEOUTS | changes))


def at(protocol: Any, now: float) -> None:
    """The time moves, and the server sweeps: connections whose deadline has come are told."""
    protocol.server_state.now = protocol.server_state.ticked_at = now
    if protocol.deadline <= now:
        protocol.expire(now)


def statuses(transport: FakeTransport, *methods: str) -> list[int]:
    return [response.status for response in read_responses(transport.buffer, methods)]


# --- the scope --------------------------------------------------------------------------------


def test_scope_of_a_request(protocol_class: Any) -> None:
    app = Answer()
    protocol = connect(protocol_class, app, app_state={"a": 1})
    protocol.data_received(request("GET /a%20b/%C3%A4?q=%20 HTTP/1.1", "X-A: 1", "Accept: x", "X-a: 2"))
    run(protocol)
    assert app.scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 4321),
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": "/a b/ä",
            "raw_path": b"/a%20b/%C3%A4",
            "query_string": b"q=%20",
            "headers": [(b"host", b"example.org"), (b"x-a", b"1"), (b"accept", b"x"), (b"x-a", b"2")],
            "state": {"a": 1},
        }
    ]
    assert protocol.scope is None


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("GET / HTTP/1.0", {"http_version": "1.0"}),
        ("HEAD / HTTP/1.1", {"method": "HEAD"}),
        ("GET /%zz%ff HTTP/1.1", {"path": "/%zz\ufffd", "raw_path": b"/%zz%ff"}),
        ("GET http://other/p?q HTTP/1.1", {"path": "/p", "raw_path": b"/p", "query_string": b"q"}),
        ("OPTIONS * HTTP/1.1", {"method": "OPTIONS", "path": "*", "raw_path": b"*"}),
    ],
)
def test_scope_follows_the_request_line(protocol_class: Any, line: str, changes: dict[str, Any]) -> None:
    app = Answer()
    protocol = connect(protocol_class, app)
    protocol.data_received(request(line))
    run(protocol)
    [scope] = app.scopes
    assert {name: scope[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("transport", "changes"),
    [
        (FakeTransport(sslcontext=object()), {"scheme": "https"}),
        (FakeTransport(peername="", sockname="/run/app.sock"), {"client": None, "server": None}),
        (
            FakeTransport(peername=("::1", 1, 0, 0), sockname=("::1", 2, 0, 0)),
            {"client": ("::1", 1), "server": ("::1", 2)},
        ),
        (FakeTransport(peername=None, sockname=None), {"client": None, "server": None}),
    ],
    ids=["tls", "unix", "ipv6", "unknown"],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_scope_follows_the_transport(
    implementation: str, transport: FakeTransport, changes: dict[str, Any]
) -> None:
    app = Answer()
    protocol = connect(IMPLEMENTATIONS[implementation], app, transport=transport)
    protocol.data_received(GET)
    run(protocol)
    [scope] = app.scopes
    assert {name: scope[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path"),
    [
        ("/api", "/api/a b", b"/api/a%20b"),
        ("/x%20y", "/x%20y/a b", b"/x%20y/a%20b"),
        ("/ä b", "/ä b/a b", b"/%C3%A4 b/a%20b"),
    ],
)
def test_root_path_stands_before_the_path(
    protocol_class: Any, root_path: str, path: str, raw_path: bytes
) -> None:
    app = Answer()
    protocol = connect(protocol_class, app, root_path=root_path)
    protocol.data_received(request("GET /a%20b?q HTTP/1.1"))
    run(protocol)
    [scope] = app.scopes
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, path, raw_path)
    assert scope["query_string"] == b"q"


def test_state_is_copied_for_each_request_and_no_deeper(protocol_class: Any) -> None:
    app = Answer()
    shared: list[int] = []
    app_state = {"shared": shared}
    protocol = connect(protocol_class, app, app_state=app_state)
    protocol.data_received(GET)
    run(protocol)
    app.scopes[0]["state"]["own"] = 1
    app.scopes[0]["state"]["shared"].append(1)
    protocol.data_received(GET)
    run(protocol)
    assert app.scopes[1]["state"] == {"shared": [1]}
    assert app.scopes[1]["state"]["shared"] is shared
    assert app_state == {"shared": [1]}


def test_requests_of_one_connection_share_no_scope(protocol_class: Any) -> None:
    app = Answer()
    protocol = connect(protocol_class, app)
    protocol.data_received(GET + GET)
    run(protocol)
    first, second = app.scopes
    assert first == second
    assert first is not second
    assert first["headers"] is not second["headers"]
    assert first["asgi"] is not second["asgi"]


# --- construction -----------------------------------------------------------------------------


def test_configuration_is_loaded_where_it_is_not(protocol_class: Any) -> None:
    app = Answer()
    config = Config(app, log_config=None)
    assert not config.loaded
    protocol = protocol_class(config=config, server_state=ServerState(), app_state={}, _loop=FakeLoop())
    assert config.loaded
    protocol.connection_made(FakeTransport())
    protocol.data_received(GET)
    run(protocol)
    assert statuses(protocol.transport) == [200]


def test_loop_is_the_current_one_by_default(protocol_class: Any) -> None:
    async def main() -> None:
        config = Config(Answer(), log_config=None)
        protocol = protocol_class(config=config, server_state=ServerState(), app_state={})
        assert protocol.loop is asyncio.get_running_loop()

    play(main)


def test_connections_of_one_server_share_what_is_worked_out_once(protocol_class: Any) -> None:
    state, loop, config = ServerState(), FakeLoop(), Config(Answer(), log_config=None)
    first, second = (
        protocol_class(config=config, server_state=state, app_state={}, _loop=loop) for _ in range(2)
    )
    assert first.context is second.context


@pytest.mark.parametrize("what", ["config", "loop"])
def test_other_configuration_or_loop_is_worked_out_anew(protocol_class: Any, what: str) -> None:
    given = {"config": Config(Answer(), log_config=None), "_loop": FakeLoop()}
    other = {"config": Config(Answer(), log_config=None)} if what == "config" else {"_loop": FakeLoop()}
    state = ServerState()
    first = protocol_class(server_state=state, app_state={}, **given)
    second = protocol_class(server_state=state, app_state={}, **(given | other))
    assert first.context is not second.context
    assert second.context.config is second.config


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_request_may_come_in_pieces_of_any_size(protocol_class: Any, size: int) -> None:
    app = Answer(reads=True)
    protocol = connect(protocol_class, app)
    data = request("POST /a?b HTTP/1.1", "X-A: b", "Content-Length: 5", body=b"hello") + GET
    for start in range(0, len(data), size):
        protocol.data_received(data[start : start + size])
    run(protocol)
    assert app.bodies == [b"hello", b""]
    assert statuses(protocol.transport) == [200, 200]
    assert app.scopes[0]["headers"][1] == (b"x-a", b"b")


# --- keep-alive without a sweeping server -----------------------------------------------------


def test_idle_connection_is_closed_by_a_timer(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), timeout_keep_alive=7)
    protocol.data_received(GET)
    assert protocol.loop.timers == []
    run(protocol)
    [timer] = protocol.loop.timers
    assert timer.delay == 7
    written = protocol.transport.buffer
    protocol.loop.run_timers(until=7)
    assert protocol.transport.closed
    assert protocol.transport.buffer == written


@pytest.mark.parametrize("data", [GET, b"G", b"\r\nG"])
def test_new_bytes_cancel_the_timer(protocol_class: Any, data: bytes) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET)
    run(protocol)
    [timer] = protocol.loop.timers
    protocol.data_received(data)
    assert timer.cancelled
    run(protocol)
    protocol.loop.run_timers(until=0)
    assert not protocol.transport.closed


def test_each_response_has_its_own_timer(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    for _ in range(3):
        protocol.data_received(GET)
        run(protocol)
    assert [timer.cancelled for timer in protocol.loop.timers] == [True, True, False]


def test_timer_waits_for_the_last_of_pipelined_requests(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET + GET)
    asyncio.run(protocol.loop.run_one())
    assert protocol.loop.timers == []
    asyncio.run(protocol.loop.run_one())
    assert len(protocol.loop.timers) == 1


def test_timer_runs_behind_a_body_that_nobody_read(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(POST_5)
    run(protocol)
    assert protocol.loop.timers == []
    protocol.data_received(b"hello")
    [timer] = protocol.loop.timers
    assert not timer.cancelled


def test_timer_that_comes_too_late_closes_nothing(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET)
    run(protocol)
    [timer] = protocol.loop.timers
    protocol.data_received(GET)
    timer.callback()
    assert not protocol.transport.closed
    run(protocol)
    protocol.transport.close()
    timer.callback()


def test_lost_connection_cancels_its_timer(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET)
    run(protocol)
    protocol.connection_lost(None)
    assert protocol.loop.timers[0].cancelled


@pytest.mark.parametrize("data", [CLOSE, request("GET / HTTP/1.0")])
def test_connection_that_ends_has_no_timer(protocol_class: Any, data: bytes) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(data)
    run(protocol)
    assert protocol.transport.closed
    assert protocol.loop.timers == []


# --- keep-alive with a sweeping server --------------------------------------------------------


def test_sweeping_server_needs_no_timers(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), now=NOW)
    for _ in range(3):
        protocol.data_received(GET)
        run(protocol)
    protocol.data_received(POST_5)
    run(protocol)
    protocol.data_received(b"hello")
    assert protocol.loop.timers == []


def test_idle_connection_is_closed_at_its_deadline_without_a_word(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(GET)
        await settle()
        assert protocol.deadline == NOW + 5
        written = protocol.transport.buffer
        at(protocol, NOW + 4.9)
        assert not protocol.transport.closed
        at(protocol, NOW + 5)
        assert protocol.transport.closed
        assert protocol.transport.buffer == written

    play(main)


def test_request_that_runs_has_no_deadline(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        assert protocol.deadline == NEVER
        await settle()
        at(protocol, NOW + 100_000)
        await app.answer()
        assert protocol.deadline == NOW + 100_005
        assert not protocol.transport.closed

    play(main)


def test_idle_time_counts_from_the_last_response(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        for step in (0, 4, 8, 12):
            at(protocol, NOW + step)
            protocol.data_received(GET)
            await settle()
        assert protocol.deadline == NOW + 17
        assert statuses(protocol.transport) == [200] * 4

    play(main)


# --- pipelining -------------------------------------------------------------------------------


def test_requests_are_answered_one_after_the_other(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        await settle()
        assert app.calls == 1
        await app.answer(b"one")
        assert app.calls == 2
        assert app.scope["path"] == "/2"
        await app.answer(b"two")
        assert [response.body for response in read_responses(protocol.transport.buffer)] == [b"one", b"two"]

    play(main)


@pytest.mark.parametrize(("settings", "limit"), [({}, 16), ({"limit_pipelined_requests": 4}, 4)])
def test_reading_pauses_while_many_requests_wait(
    protocol_class: Any, settings: dict[str, int], limit: int
) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, **settings)
        protocol.data_received(GET * limit)
        assert protocol.transport.reading
        protocol.data_received(GET)
        assert not protocol.transport.reading
        answered = 0
        while not protocol.transport.reading:
            await settle()
            await app.answer()
            answered += 1
        assert answered == limit // 2 + 1
        while protocol.current is not None:
            await app.answer()
        assert statuses(protocol.transport) == [200] * (limit + 1)

    play(main)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_small_limit_of_waiting_requests_stops_none(protocol_class: Any, limit: int) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, limit_pipelined_requests=limit)
        protocol.data_received(request("GET / HTTP/1.1", "X: " + "y" * 6000) * 9)
        await settle()
        while protocol.current is not None:
            await app.answer()
            await settle()
        assert statuses(protocol.transport) == [200] * 9

    play(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_application_that_closes_ends_the_parsing_of_the_same_packet(protocol_class: Any) -> None:
    async def go() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11
        closing = Answer(headers=[(b"connection", b"close"), (b"content-length", b"2")])
        protocol = connect(protocol_class, closing, loop=loop)
        protocol.data_received(GET + b"GET /x HTTP/1.0\r\nHos")
        await settle()
        return protocol.transport

    transport = asyncio.run(go())
    assert transport.closed
    assert statuses(transport) == [200]


def test_flood_of_requests_is_parsed_a_few_at_a_time(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        count = 5000
        protocol.data_received(GET * count)
        await settle()
        # A slice of them at most has become requests.
        assert len(protocol.pipeline) <= 16384 // len(GET) + 1
        answered = 0
        while protocol.current is not None:
            await app.answer(b"")
            answered += 1
        assert answered == count
        assert protocol.transport.reading

    play(main)


def test_packet_behind_a_flood_waits_for_its_turn(protocol_class: Any) -> None:
    async def main() -> None:
        app = Answer()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET * 1000 + GET_2[:10])
        protocol.data_received(GET_2[10:] + request("GET /3 HTTP/1.1"))
        for _ in range(300):
            await settle()
        assert [scope["path"] for scope in app.scopes] == ["/"] * 1000 + ["/2", "/3"]

    play(main)


def test_bad_request_in_a_flood_is_refused_when_its_turn_comes(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        app = Answer()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET * 1000 + b"GET / HTTP/1.1\r\n\r\n" + GET)
        for _ in range(300):
            await settle()
        # It is met while the last of the others is answered, which then says that it is the last.
        responses = read_responses(protocol.transport.buffer)
        assert [response.status for response in responses] == [200] * 1000
        assert responses[-1].headers["connection"] == "close"
        assert protocol.transport.closed
        assert len(app.scopes) == 1000

    play(main)
    [message] = log.messages
    assert message.startswith("Invalid HTTP request received. (127.0.0.1:4321: ")


def test_bad_request_met_while_the_application_handles_an_exception_is_refused(
    protocol_class: Any, log: Log
) -> None:
    # Frameworks answer from inside an except clause; parsing goes on from there.
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise ValueError("for the framework")
        except ValueError:
            await Answer()(scope, receive, send)

    async def main() -> None:
        protocol = swept(protocol_class, app)
        protocol.data_received(GET * 1000 + b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(300):
            await settle()
        assert statuses(protocol.transport) == [200] * 1000
        assert protocol.transport.closed

    play(main)
    [message] = log.messages
    assert message.startswith("Invalid HTTP request received.")


def test_nothing_is_served_behind_a_request_that_closes(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(CLOSE + GET)
    protocol.data_received(GET)
    run(protocol)
    assert statuses(protocol.transport) == [200]
    assert protocol.transport.closed


def test_nothing_is_served_behind_a_response_that_closes(protocol_class: Any) -> None:
    app = Answer(headers=[(b"connection", b"close"), (b"content-length", b"2")])
    protocol = connect(protocol_class, app)
    protocol.data_received(GET + GET)
    run(protocol)
    assert len(app.scopes) == 1
    assert statuses(protocol.transport) == [200]
    assert protocol.transport.closed


def test_lost_connection_tells_the_requests_that_wait(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        await settle()
        waiting = protocol.pipeline[0]
        protocol.connection_lost(None)
        assert waiting.disconnected
        app.finish()
        await settle()
        assert app.calls == 1
        assert protocol.transport.buffer == b""
        protocol.data_received(GET)  # some loops still deliver
        assert app.calls == 1

    play(main)


def test_bytes_that_come_after_the_connection_is_lost_are_not_looked_at(protocol_class: Any) -> None:
    app = Answer()
    protocol = connect(protocol_class, app)
    protocol.connection_lost(None)
    protocol.data_received(GET + b"GARBAGE")
    protocol.eof_received()
    run(protocol)
    assert app.scopes == []
    assert protocol.transport.buffer == b""


# --- flow control of reading ------------------------------------------------------------------


def upload(size: int, *fields: str) -> bytes:
    return request("POST / HTTP/1.1", f"Content-Length: {size}", *fields)


def test_reading_pauses_above_the_limit_and_goes_on_when_the_body_is_taken(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(upload(200_000))
        await settle()
        protocol.data_received(b"x" * HIGH_WATER_LIMIT)
        assert protocol.transport.reading
        protocol.data_received(b"x")
        assert not protocol.transport.reading
        message = await app.receive()
        assert len(message["body"]) == HIGH_WATER_LIMIT + 1
        assert protocol.transport.reading
        protocol.data_received(b"x" * (HIGH_WATER_LIMIT + 1))
        assert not protocol.transport.reading
        await app.answer()
        assert protocol.transport.reading  # to swallow the rest

    play(main)


def test_reading_goes_on_behind_a_whole_body_that_nobody_read(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(upload(100_000) + b"x" * 100_000)
        assert not protocol.transport.reading
        await settle()
        await app.answer()
        assert protocol.transport.reading
        protocol.data_received(GET)
        await settle()
        await app.answer()
        assert statuses(protocol.transport) == [200, 200]

    play(main)


def test_large_body_behind_another_request_waits_for_its_turn(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + upload(100_000) + b"x" * 70_000)
        assert not protocol.transport.reading
        await settle()
        await app.answer()
        message = await app.receive()
        assert len(message["body"]) == 70_000
        assert protocol.transport.reading
        protocol.data_received(b"x" * 30_000)
        assert len((await app.receive())["body"]) == 30_000
        await app.answer()

    play(main)


def test_unread_body_is_swallowed_and_the_connection_stays(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), now=NOW, **TIMEOUTS)
    protocol.data_received(upload(100_000))
    run(protocol)
    for _ in range(10):
        assert protocol.transport.reading
        protocol.data_received(b"GET / HTTP" * 1000)
    assert protocol.deadline == NOW + 5
    protocol.data_received(GET)
    run(protocol)
    assert statuses(protocol.transport) == [200, 200]
    assert not protocol.transport.closed


# --- upgrade ----------------------------------------------------------------------------------

POST_LARGE = request("POST / HTTP/1.1", "Content-Length: 50000", body=b"x" * 50_000)
HANDSHAKE = request("GET /chat?a=b HTTP/1.1", "Connection: Upgrade", "Upgrade: WebSocket", "X-A: b")


class Socket(TakesUpgrade):
    """A WebSocket protocol of ours: keeps what it is given."""

    last: Socket

    def __init__(self, config: Any, server_state: Any, app_state: Any) -> None:
        self.given = (config, server_state, app_state)
        self.transport: Any = None
        self.request: UpgradeRequest | None = None
        self.data = b""
        Socket.last = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def upgrade_received(self, request: UpgradeRequest) -> None:
        assert self.transport.protocol is self  # what comes from now on comes here
        self.request = request

    def data_received(self, data: bytes) -> None:
        self.data += data


class ForeignSocket(asyncio.Protocol):
    """A WebSocket protocol of a user's own."""

    last: ForeignSocket

    def __init__(self, config: Any, server_state: Any, app_state: Any) -> None:
        self.data = b""
        self.transport: Any = None
        ForeignSocket.last = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data


def test_websocket_gets_the_parsed_request_and_the_bytes_behind_it(protocol_class: Any) -> None:
    app = Answer()
    protocol = connect(protocol_class, app, ws=Socket, app_state={"a": 1})
    protocol.data_received(HANDSHAKE + b"\x81\x00frames")
    socket = Socket.last
    assert socket.given == (protocol.config, protocol.server_state, {"a": 1})
    assert socket.transport is protocol.transport
    request = socket.request
    assert request is not None
    assert (request.method, request.path, request.query) == (b"GET", b"/chat", b"a=b")
    assert request.headers == [
        (b"host", b"example.org"), (b"connection", b"Upgrade"), (b"upgrade", b"WebSocket"), (b"x-a", b"b")
    ]  # fmt: skip
    assert request.rest == b"\x81\x00frames"
    assert protocol not in protocol.server_state.connections
    assert app.scopes == []
    assert protocol.transport.buffer == b""


def test_websocket_of_ones_own_gets_the_request_as_bytes(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), ws=ForeignSocket)
    protocol.data_received(HANDSHAKE + b"\x81\x00")
    assert ForeignSocket.last.data == (
        b"GET /chat?a=b HTTP/1.1\r\nhost: example.org\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n"
        b"x-a: b\r\n\r\n\x81\x00"
    )
    assert protocol.transport.protocol is ForeignSocket.last


@pytest.mark.parametrize("size", [1, 5])
def test_handshake_may_come_in_pieces(protocol_class: Any, size: int) -> None:
    protocol = connect(protocol_class, Answer(), ws=Socket, now=NOW)
    for start in range(0, len(HANDSHAKE), size):
        protocol.data_received(HANDSHAKE[start : start + size])
    assert protocol.transport.protocol is Socket.last
    assert Socket.last.request is not None
    assert Socket.last.request.rest == b""


def test_websocket_on_an_idle_connection_cancels_its_timer(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), ws=Socket)
    protocol.data_received(GET)
    run(protocol)
    protocol.data_received(HANDSHAKE)
    assert protocol.loop.timers[0].cancelled
    assert protocol.transport.protocol is Socket.last


def test_websocket_behind_a_request_waits_for_its_response(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, ws=Socket)
        protocol.data_received(GET + HANDSHAKE + b"one")
        protocol.data_received(b"two")
        await settle()
        assert protocol.transport.protocol is None
        await app.answer()
        [response] = read_responses(protocol.transport.buffer)
        assert "connection" not in response.headers
        assert protocol.transport.protocol is Socket.last
        assert Socket.last.request is not None
        assert Socket.last.request.rest == b"onetwo"
        assert protocol.transport.reading

    play(main)


def test_bytes_behind_a_waiting_websocket_are_bounded(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, ws=Socket)
        protocol.data_received(GET + HANDSHAKE)
        protocol.data_received(b"x" * HIGH_WATER_LIMIT)
        assert protocol.transport.reading
        protocol.data_received(b"x")
        assert not protocol.transport.reading
        await settle()
        await app.answer()
        assert protocol.transport.protocol is Socket.last
        assert protocol.transport.reading

    play(main)


@pytest.mark.parametrize("before", [b"", GET, GET * 5, POST_LARGE], ids=["nothing", "one", "five", "body"])
@pytest.mark.parametrize("size", [1, 16_384, 70_000, 300_000])
def test_websocket_gets_all_that_came_in_the_packet_of_its_handshake(
    protocol_class: Any, size: int, before: bytes
) -> None:
    """However much it is: none of it is a request."""

    async def main() -> None:
        protocol = swept(protocol_class, Answer(), ws=Socket)
        rest = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        protocol.data_received(before + HANDSHAKE + rest)
        for _ in range(20):
            await settle()
        assert protocol.transport.protocol is Socket.last
        assert Socket.last.request is not None
        assert Socket.last.request.rest == rest
        assert set(statuses(protocol.transport)) <= {200}

    play(main)


def test_websocket_waits_behind_a_full_pipeline(protocol_class: Any) -> None:
    async def main() -> None:
        app = Answer()
        protocol = swept(protocol_class, app, ws=Socket)
        protocol.data_received(GET * 40 + HANDSHAKE + b"rest")
        for _ in range(20):
            await settle()
        assert statuses(protocol.transport) == [200] * 40
        assert protocol.transport.protocol is Socket.last
        assert Socket.last.request is not None
        assert Socket.last.request.rest == b"rest"

    play(main)


def test_websocket_is_not_opened_for_a_client_that_has_ended(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, ws=Socket)
        protocol.data_received(GET + HANDSHAKE)
        await settle()
        assert protocol.eof_received()
        await app.answer()
        assert protocol.transport.protocol is None
        assert protocol.transport.closed

    play(main)


def test_websocket_is_not_opened_behind_a_response_that_closes(protocol_class: Any) -> None:
    app = Answer(headers=[(b"connection", b"close"), (b"content-length", b"2")])
    protocol = connect(protocol_class, app, ws=Socket)
    protocol.data_received(GET + HANDSHAKE)
    run(protocol)
    assert protocol.transport.closed
    assert protocol.transport.protocol is None


@pytest.mark.parametrize(
    "data",
    [
        request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
        request("POST / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"),
        request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5", body=b"hello"),
    ],
    ids=["h2c", "post", "body"],
)  # fmt: skip
def test_other_upgrade_is_served_as_http(protocol_class: Any, log: Log, data: bytes) -> None:
    app = Answer(reads=True)
    protocol = connect(protocol_class, app, ws=Socket)
    protocol.data_received(data + GET)
    run(protocol)
    assert statuses(protocol.transport) == [200, 200]
    assert protocol.transport.protocol is None
    assert log.messages == ["Unsupported upgrade request."]
    assert log.records[0].levelno == logging.WARNING


NO_WEBSOCKETS = (
    "No supported WebSocket library detected. Please use \"pip install 'uvicorn[standard]'\", "
    "or install 'websockets' or 'wsproto' manually."
)


@pytest.mark.parametrize("upgrade", [b"WebSocket", b"h2c"])
def test_upgrade_without_an_implementation_is_served_as_http(
    protocol_class: Any, log: Log, upgrade: bytes
) -> None:
    protocol = connect(protocol_class, Answer(), ws="none")
    assert b"Upgrade: WebSocket" in HANDSHAKE
    protocol.data_received(HANDSHAKE.replace(b"Upgrade: WebSocket", b"Upgrade: " + upgrade))
    run(protocol)
    assert statuses(protocol.transport) == [200]
    assert log.messages == ["Unsupported upgrade request.", NO_WEBSOCKETS]


BODIES = {
    "length": (["Content-Length: 5"], b"hello"),
    "chunked": (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("framing", BODIES)
@pytest.mark.parametrize("packets", ["one", "body apart", "byte by byte"])
def test_upgrade_that_is_not_taken_keeps_its_body(protocol_class: Any, framing: str, packets: str) -> None:
    fields, body = BODIES[framing]
    head = request("POST / HTTP/1.1", "Connection: upgrade", "Upgrade: foo", *fields)
    data = head + body + GET_2
    app = Answer(reads=True)
    protocol = connect(protocol_class, app)
    if packets == "one":
        protocol.data_received(data)
    elif packets == "body apart":
        for packet in (head, body, GET_2):
            protocol.data_received(packet)
    else:
        for start in range(len(data)):
            protocol.data_received(data[start : start + 1])
    run(protocol)
    assert app.bodies == [b"hello", b""]
    assert [scope["path"] for scope in app.scopes] == ["/", "/2"]
    assert app.scopes[0]["headers"][1:3] == [(b"connection", b"upgrade"), (b"upgrade", b"foo")]


def test_late_body_of_an_upgrade_that_is_not_taken_is_no_request(protocol_class: Any) -> None:
    # The body looks like a request, and comes when the response has been sent.
    app = Answer()
    protocol = connect(protocol_class, app)
    protocol.data_received(
        request("POST / HTTP/1.1", "Connection: upgrade", "Upgrade: foo", f"Content-Length: {len(GET_2)}")
    )
    run(protocol)
    protocol.data_received(GET_2)
    run(protocol)
    assert [scope["path"] for scope in app.scopes] == ["/"]
    protocol.data_received(GET)
    run(protocol)
    assert statuses(protocol.transport) == [200, 200]


# --- limit_concurrency ------------------------------------------------------------------------


def test_request_above_the_limit_of_connections_gets_503(protocol_class: Any, log: Log) -> None:
    app = Answer()
    protocol = connect(protocol_class, app, limit_concurrency=1)
    protocol.data_received(GET)
    run(protocol)
    [response] = read_responses(protocol.transport.buffer)
    assert (response.status, response.body) == (503, b"Service Unavailable")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["connection"] == "close"
    assert protocol.transport.closed
    assert app.scopes == []
    assert log.messages == ["Exceeded concurrency limit."]
    assert log.records[0].levelno == logging.WARNING


def test_request_above_the_limit_of_tasks_gets_503(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, limit_concurrency=2)
        state = protocol.server_state
        others: set[Any] = {asyncio.ensure_future(asyncio.sleep(0)) for _ in range(2)}
        state.tasks |= others
        protocol.data_received(GET)
        await settle()
        assert statuses(protocol.transport) == [503]
        assert app.calls == 0
        assert state.tasks == others

    play(main)


def test_connection_above_the_limit_is_turned_away(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        app = Answer()
        state = ServerState()
        state.connection_limit = 2
        kept = [swept(protocol_class, app, state=state) for _ in range(2)]
        for _ in range(3):
            more = swept(protocol_class, app, state=state)
            assert statuses(more.transport) == [503]
            assert more.transport.closed
            more.data_received(GET)
            more.connection_lost(None)
        # One line for all of them, and another one when it goes on.
        assert [message.partition(",")[0] for message in log.messages] == ["2 connections are open"]
        state.now += 60
        connect(protocol_class, app, loop=TaskLoop(), now=state.now, state=state).connection_lost(None)
        assert len(log.messages) == 2
        kept.pop().connection_lost(None)
        again = swept(protocol_class, app, state=state)
        again.data_received(GET)
        await settle()
        assert statuses(again.transport) == [200]
        assert len(app.scopes) == 1
        assert state.responses[5] == 4

    play(main)


def test_request_below_the_limit_is_served(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), limit_concurrency=2)
    protocol.data_received(GET)
    run(protocol)
    assert statuses(protocol.transport) == [200]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (request("GET / HTTP/2.0"), 505),
        (request("CONNECT a:1 HTTP/1.1"), 501),
        (request("POST / HTTP/1.1", "Content-Length: " + "9" * 19), 413),
        (request("POST / HTTP/1.1", "Expect: other"), 417),
        (request("GET / HTTP/1.1", "X: " + "v" * 140_000), 431),
        (request("GET /" + "v" * 140_000 + " HTTP/1.1"), 414),
        (request("GET / HTTP/1.1", *["X: v"] * 256), 431),
    ],
)
def test_refused_request_gets_its_status_and_the_connection_ends(
    protocol_class: Any, log: Log, data: bytes, status: int
) -> None:
    app = Answer()
    protocol = connect(protocol_class, app)
    protocol.server_state.default_headers = [(b"server", b"uvicorn")]
    protocol.data_received(data)
    protocol.data_received(GET)
    [response] = read_responses(protocol.transport.buffer)
    assert response.status == status
    assert response.ended
    assert response.headers["connection"] == "close"
    assert response.headers["server"] == "uvicorn"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert protocol.transport.closed
    assert app.scopes == []
    [message] = log.messages
    assert message.startswith("Invalid HTTP request received. (127.0.0.1:4321: ")
    assert log.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("data", "statuses", "methods"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a/b\r\n\r\n", [400], ["HEAD"]),
        (request("HEAD / HTTP/1.1", "Expect: other"), [417], ["HEAD"]),
        (request("HEAD / HTTP/1.1", *["X: v"] * 256), [431], ["HEAD"]),
        (request("HEAD / HTTP/1.1", "Transfer-Encoding: chunked", body=b"no chunk\r\n"), [400], ["HEAD"]),
        (GET + b"HEAD / HTTP/1.1\r\nHost: a/b\r\n\r\n", [200, 400], ["GET", "HEAD"]),
        (request("HEAD / HTTP/1.1") + b"GARBAGE\r\n\r\n", [200, 400], ["HEAD", "GET"]),
    ],
)
def test_refusal_of_head_says_how_long_it_would_be_and_has_no_body(
    protocol_class: Any, data: bytes, statuses: list[int], methods: list[str]
) -> None:
    """RFC 9110 9.3.2. Where it is another request that is refused, there is one."""

    async def main() -> None:
        protocol = swept(protocol_class, Answer(reads=True))
        for byte in data:
            protocol.data_received(bytes([byte]))
            await settle(3)
        responses = read_responses(protocol.transport.buffer, tuple(methods))
        assert [response.status for response in responses] == statuses
        assert int(responses[-1].headers["content-length"]) > 0
        if methods[-1] == "HEAD":
            assert protocol.transport.buffer.endswith(b"\r\n\r\n")
        else:
            assert responses[-1].ended

    play(main)


def test_late_body_of_head_is_refused_without_a_body(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer(reads=True))
        protocol.data_received(request("HEAD / HTTP/1.1", "Content-Length: 5"))
        await settle()
        at(protocol, NOW + 100)
        assert statuses(protocol.transport, "HEAD") == [408]
        assert protocol.transport.buffer.endswith(b"content-length: 15\r\n\r\n") or (
            protocol.transport.buffer.endswith(b"Content-Length: 15\r\n\r\n")
        )

    play(main)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bad_request_byte_for_byte(implementation: str) -> None:
    protocol = connect(IMPLEMENTATIONS[implementation], Answer())
    protocol.server_state.default_headers = [(b"server", b"uvicorn")]
    protocol.data_received(b"GARBAGE\r\n\r\n")
    fields = {
        "httptools": b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: 30\r\n",
        "h11": b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\n",
    }
    assert protocol.transport.buffer == (
        b"HTTP/1.1 400 Bad Request\r\nserver: uvicorn\r\n"
        + fields[implementation]
        + b"\r\nInvalid HTTP request received."
    )


def test_refusal_of_a_peer_without_address_is_logged(protocol_class: Any, log: Log) -> None:
    protocol = connect(protocol_class, Answer(), transport=FakeTransport(peername=""))
    protocol.data_received(b"GARBAGE\r\n\r\n")
    [message] = log.messages
    assert message.startswith("Invalid HTTP request received. (peer without address: ")


@pytest.mark.parametrize(
    "data",
    [
        b"G\x1b[31mT / HTTP/1.1\r\nHost: a\r\n\r\n",
        request("GET / HTTP/1.1", "X\x85\x1b" + "y" * 100_000 + " z"),
        request("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"5;\x1b[0m\x85\r\n"),
    ],
)
def test_refusal_is_logged_in_one_short_line_without_control_characters(
    protocol_class: Any, log: Log, data: bytes
) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(data)
    run(protocol)
    [message] = log.messages
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 300


BAD_CHUNK = request("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\nxyz\r\n")


def test_body_that_breaks_off_before_the_response_gets_400(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(BAD_CHUNK)
        assert statuses(protocol.transport) == [400]
        await settle()
        assert await app.receive() == {"type": "http.disconnect"}
        await app.answer()
        assert statuses(protocol.transport) == [400]
        assert protocol.transport.closed

    play(main)


def test_body_that_breaks_off_in_the_response_cuts_it(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(BAD_CHUNK[:-5])
        await settle()
        assert (await app.receive())["body"] == b"hello"
        waiting = asyncio.ensure_future(app.receive())
        await app.start()
        protocol.data_received(b"xyz\r\n")
        assert protocol.transport.closed
        assert await waiting == {"type": "http.disconnect"}
        await app.body(b"late")
        app.finish()
        await settle()
        [response] = read_responses(protocol.transport.buffer)
        assert (response.status, response.ended, response.body) == (200, False, b"")

    play(main)


def test_body_that_breaks_off_after_the_response_gets_400_of_its_own(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(BAD_CHUNK[:-5])
        await settle()
        protocol.data_received(b"xyz\r\n" + GET)
        await settle()
        assert statuses(protocol.transport) == [200, 400]
        assert protocol.transport.closed

    play(main)


def test_body_that_breaks_off_behind_another_request_is_never_served(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + BAD_CHUNK)
        await settle()
        await app.answer()
        assert app.calls == 1
        [response] = read_responses(protocol.transport.buffer)
        assert response.headers["connection"] == "close"
        assert protocol.transport.closed

    play(main)


def test_bad_request_behind_a_response_that_has_begun_is_refused_after_it(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        await app.start(200, [(b"content-length", b"5")])
        protocol.data_received(b"GARBAGE\r\n\r\n")
        assert not protocol.transport.closed
        await app.body(b"hello")
        first, second = read_responses(protocol.transport.buffer)
        assert (first.status, first.body, first.ended) == (200, b"hello", True)
        assert (second.status, second.headers["connection"]) == (400, "close")
        assert protocol.transport.closed
        app.finish()
        await settle()

    play(main)


def test_nothing_is_written_to_a_connection_that_is_closing(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.transport.close()
    protocol.data_received(b"GARBAGE\r\n\r\n")
    assert protocol.transport.buffer == b""


# --- clients that half-close ------------------------------------------------------------------


def test_end_of_an_idle_connection_closes_it(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    assert not protocol.eof_received()
    protocol.data_received(GET)
    run(protocol)
    assert not protocol.eof_received()


def test_end_in_the_middle_of_a_head_closes_without_a_word(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET[:-2])
    assert not protocol.eof_received()
    assert protocol.transport.buffer == b""


def test_client_that_only_stops_sending_gets_its_answer(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        assert protocol.eof_received() is True
        assert (await app.receive())["type"] == "http.request"
        assert await app.receive() == {"type": "http.disconnect"}
        await app.answer()
        [response] = read_responses(protocol.transport.buffer)
        assert (response.body, response.headers["connection"]) == (b"ok", "close")
        assert protocol.transport.closed

    play(main)


def test_client_that_stops_sending_in_a_body_is_a_disconnect_behind_what_has_come(
    protocol_class: Any,
) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5 + b"he")
        await settle()
        protocol.eof_received()
        assert await app.receive() == {"type": "http.request", "body": b"he", "more_body": True}
        assert await app.receive() == {"type": "http.disconnect"}
        app.finish()
        await settle()
        assert protocol.transport.buffer == b""
        assert protocol.transport.closed

    play(main)


def test_client_that_stops_sending_wakes_whoever_waits(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        protocol.eof_received()
        assert await waiting == {"type": "http.disconnect"}
        await app.answer()
        assert statuses(protocol.transport) == [200]
        assert protocol.transport.closed

    play(main)


def test_client_that_stops_sending_gets_all_its_answers(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        await settle()
        protocol.eof_received()
        await app.answer()
        assert not protocol.transport.closed
        assert statuses(protocol.transport) == [200]
        assert (await app.receive())["type"] == "http.request"
        assert await app.receive() == {"type": "http.disconnect"}
        await app.answer()
        first, second = read_responses(protocol.transport.buffer)
        assert "connection" not in first.headers
        assert second.headers["connection"] == "close"
        assert protocol.transport.closed

    play(main)


def test_end_behind_a_response_that_has_begun_closes_after_it(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        await app.start(200, [(b"content-length", b"2")])
        protocol.eof_received()
        assert not protocol.transport.closed
        await app.body(b"ok")
        assert protocol.transport.closed
        app.finish()
        await settle()

    play(main)


def test_tls_cannot_be_half_closed(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, transport=FakeTransport(sslcontext=object()))
        protocol.data_received(GET)
        await settle()
        assert not protocol.eof_received()
        protocol.connection_lost(None)
        app.finish()
        await settle()

    play(main)


def test_end_while_a_body_is_swallowed_closes(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), now=NOW)
    protocol.data_received(POST_5)
    run(protocol)
    assert not protocol.eof_received()


def test_answer_before_the_end_of_a_body_that_will_not_come_closes(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app, transport=StrictTransport(half_close=True))
        protocol.data_received(POST_5)
        await settle()
        await app.start(200, [(b"content-length", b"0")])
        protocol.eof_received()
        await app.body()
        assert protocol.transport.closed  # there is nothing to wait for
        app.finish()
        await settle()

    play(main)


# --- the lingering close ----------------------------------------------------------------------


def lingering(protocol_class: Any, data: bytes = POST_5, **changes: Any) -> Any:
    """A connection that has answered before the end of the request, and ends."""
    app = Answer(headers=[(b"connection", b"close"), (b"content-length", b"2")])
    protocol = swept(protocol_class, app, transport=StrictTransport(half_close=True), **changes)
    protocol.data_received(data)
    return protocol


def test_early_answer_that_closes_leaves_time_to_read_it(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class)
        await settle()
        transport = protocol.transport
        assert statuses(transport) == [200]
        assert transport.eof_written
        assert not transport.closed
        assert transport.reading
        assert protocol.deadline == NOW + LINGER
        protocol.data_received(b"he")
        protocol.data_received(b"llo" + GET)
        at(protocol, NOW + 1)
        assert protocol.deadline == NOW + LINGER
        assert not transport.closed
        at(protocol, NOW + LINGER)
        assert transport.aborted
        assert statuses(transport) == [200]

    play(main)


def test_client_that_ends_ends_the_lingering(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class)
        await settle()
        assert not protocol.eof_received()

    play(main)


def test_refusal_lingers_too(protocol_class: Any) -> None:
    protocol = lingering(protocol_class, b"GARBAGE\r\n\r\n")
    assert statuses(protocol.transport) == [400]
    assert protocol.transport.eof_written
    assert not protocol.transport.closed
    protocol.data_received(GET)
    at(protocol, NOW + LINGER)
    assert protocol.transport.aborted


def test_client_that_ends_after_a_refusal_ends_the_lingering(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class, BAD_CHUNK)
        assert protocol.transport.eof_written
        assert not protocol.eof_received()
        await settle()

    play(main)


def test_lingering_connection_is_left_its_time_in_a_final_drain(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class, b"GARBAGE\r\n\r\n")
        drain(protocol, final=True)
        assert not protocol.transport.closed
        protocol.data_received(b"more")
        drain(protocol, final=True)
        assert protocol.deadline == NOW + LINGER
        assert not protocol.transport.closed

    play(main)


def test_lingering_connection_reads_though_it_was_paused(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class, upload(200_000) + b"x" * 100_000)
        assert not protocol.transport.reading
        await settle()
        assert protocol.transport.reading

    play(main)


def test_answer_that_is_not_sent_yet_gets_the_time_of_a_response(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class)
        transport = protocol.transport
        transport.unsent = 5000
        await settle()
        assert protocol.deadline == NOW + LINGER_POLL
        transport.unsent = 4000
        at(protocol, NOW + 39)
        assert protocol.deadline == NOW + 39 + LINGER_POLL
        at(protocol, NOW + 78)  # by the first 5000 it would be over
        assert not transport.aborted
        transport.unsent = 0
        at(protocol, NOW + 78.5)
        assert protocol.deadline == NOW + 78.5 + LINGER
        assert not transport.closed
        at(protocol, NOW + 78.5 + LINGER)
        assert transport.aborted

    play(main)
    assert log.messages == []


def test_answer_that_nobody_takes_is_aborted(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class)
        protocol.transport.unsent = 5000
        await settle()
        at(protocol, NOW + 40)
        assert protocol.transport.aborted

    play(main)
    assert log.messages == ["127.0.0.1:4321 takes nothing of its response: connection aborted."]


@pytest.mark.parametrize(("now", "half_close"), [(0.0, False), (0.0, True), (NOW, False)])
def test_without_a_sweep_or_half_close_the_end_is_at_once(
    protocol_class: Any, now: float, half_close: bool
) -> None:
    app = Answer(headers=[(b"connection", b"close"), (b"content-length", b"2")])
    protocol = connect(protocol_class, app, now=now, transport=StrictTransport(half_close=half_close))
    protocol.data_received(POST_5)
    run(protocol)
    assert protocol.transport.closed
    assert not protocol.transport.eof_written


def test_complete_exchange_does_not_linger(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class, POST_5 + b"hello")
        await settle()
        assert protocol.transport.closed
        assert not protocol.transport.eof_written

    play(main)


def test_bad_request_behind_the_last_response_lingers(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class, GET + b"GARBAGE\r\n\r\n")
        await settle()
        assert statuses(protocol.transport) == [200]
        assert protocol.transport.eof_written
        assert not protocol.transport.closed

    play(main)


# --- deadlines --------------------------------------------------------------------------------


def test_connection_that_never_sends_is_closed_without_a_word(protocol_class: Any) -> None:
    protocol = swept(protocol_class, Answer())
    assert protocol.deadline == NOW + 60
    at(protocol, NOW + 60)
    assert protocol.transport.closed
    assert protocol.transport.buffer == b""


@pytest.mark.parametrize("before", [b"", GET])
def test_head_that_is_dripped_gets_408_at_its_first_deadline(protocol_class: Any, before: bytes) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        if before:
            protocol.data_received(before)
            await settle()
        protocol.transport.take()
        for second, byte in enumerate(GET[:-1], start=2):
            at(protocol, NOW + second)
            protocol.data_received(bytes([byte]))
            assert protocol.deadline == NOW + 62
        at(protocol, NOW + 62)
        [response] = read_responses(protocol.transport.buffer)
        assert (response.status, response.headers["connection"]) == (408, "close")
        assert protocol.transport.closed

    play(main)


@pytest.mark.parametrize(
    ("sent", "what"), [(b"GET / HTTP/1.1\r\n", "head"), (POST_5, "body")], ids=["head", "body"]
)
def test_client_that_is_late_is_one_line(protocol_class: Any, log: Log, sent: bytes, what: str) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer(reads=True))
        protocol.data_received(sent)
        await settle()
        at(protocol, NOW + 60)
        assert statuses(protocol.transport) == [408]
        assert log.messages == [f"127.0.0.1:4321: request {what} not complete in time."]
        assert log.records[0].levelno == logging.INFO
        protocol.connection_lost(None)
        await settle()

    play(main)


def test_empty_lines_do_not_hold_a_connection(protocol_class: Any) -> None:
    protocol = swept(protocol_class, Answer())
    for second in range(59):
        at(protocol, NOW + second)
        protocol.data_received(b"\r\n")
        assert protocol.deadline == NOW + 60
    at(protocol, NOW + 60)
    assert protocol.transport.closed


def test_head_that_is_complete_has_no_deadline_any_more(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET[:10])
        assert protocol.deadline == NOW + 60
        protocol.data_received(GET[10:])
        assert protocol.deadline == NEVER
        await settle()
        await app.answer()
        assert protocol.deadline == NOW + 5

    play(main)


def test_head_that_begins_behind_a_running_request_has_its_time_from_the_next_byte(
    protocol_class: Any,
) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        protocol.data_received(GET_2[:10])
        await settle()
        await app.answer()
        assert protocol.deadline == NOW + 5
        at(protocol, NOW + 4)
        protocol.data_received(GET_2[10:20])
        assert protocol.deadline == NOW + 64
        protocol.data_received(GET_2[20:])
        await settle()
        await app.answer()
        assert protocol.deadline == NOW + 9
        assert statuses(protocol.transport) == [200, 200]

    play(main)


def test_body_has_a_deadline_only_while_the_application_waits(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(upload(100))
        await settle()
        assert protocol.deadline == NEVER
        at(protocol, NOW + 1000)
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert protocol.deadline == NOW + 1030
        at(protocol, NOW + 1029)
        protocol.data_received(b"x")
        await waiting
        # The application is busy: the client is not to blame.
        assert protocol.deadline == NEVER
        at(protocol, NOW + 5000)
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert protocol.deadline == NOW + 5030
        protocol.data_received(b"x" * 99)
        assert protocol.deadline == NEVER
        assert (await waiting)["more_body"] is False
        await app.answer()

    play(main)


def test_end_of_a_body_ends_its_deadline(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(request("POST / HTTP/1.1", "Transfer-Encoding: chunked"))
        await settle()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert protocol.deadline == NOW + 30
        protocol.data_received(b"0\r\n\r\n")
        assert protocol.deadline == NEVER
        assert await waiting == {"type": "http.request", "body": b"", "more_body": False}
        at(protocol, NOW + 100)
        await app.answer()
        assert statuses(protocol.transport) == [200]

    play(main)


def test_body_that_stands_still_gets_408(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        at(protocol, NOW + 30)
        assert await waiting == {"type": "http.disconnect"}
        [response] = read_responses(protocol.transport.buffer)
        assert (response.status, response.headers["connection"]) == (408, "close")
        await app.answer()  # goes nowhere
        assert statuses(protocol.transport) == [408]
        assert protocol.transport.closed

    play(main)


def test_body_that_stands_still_in_the_response_cuts_it(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        await app.start()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        at(protocol, NOW + 30)
        assert protocol.transport.closed
        assert await waiting == {"type": "http.disconnect"}
        [response] = read_responses(protocol.transport.buffer)
        assert (response.status, response.ended) == (200, False)
        app.finish()
        await settle()

    play(main)


def test_application_that_has_given_up_waiting_is_left_alone(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        at(protocol, NOW + 30)
        assert not protocol.transport.closed
        assert protocol.deadline == NEVER
        # When it waits again, the client's time begins again.
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert protocol.deadline == NOW + 60
        protocol.data_received(b"hello")
        await waiting
        await app.answer()

    play(main)


def test_body_that_is_swallowed_has_a_deadline(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(POST_5)
        await settle()
        assert protocol.deadline == NOW + 30
        at(protocol, NOW + 30)
        assert protocol.transport.closed
        assert statuses(protocol.transport) == [200]

    play(main)


def test_connection_is_idle_behind_a_body_that_was_swallowed(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(POST_5)
        await settle()
        at(protocol, NOW + 10)
        protocol.data_received(b"hello")
        assert protocol.deadline == NOW + 15
        at(protocol, NOW + 15)
        assert protocol.transport.closed
        assert statuses(protocol.transport) == [200]  # no 408: no head has begun

    play(main)


class FillingTransport(StrictTransport):
    """Can be told to be full from its next write on."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Any = None

    def fill_with_the_next_write(self, protocol: Any) -> None:
        self._told = protocol

    def write(self, data: Any) -> None:
        super().write(data)
        if self._told is not None:
            told, self._told = self._told, None
            self.unsent = len(data)
            told.pause_writing()


async def full(protocol_class: Any) -> tuple[Any, Script]:
    """A connection whose client takes nothing of the response that has begun."""
    app = Script()
    protocol = swept(protocol_class, app)
    protocol.data_received(GET)
    await settle()
    await app.start(200, [(b"content-length", b"10")])
    protocol.transport.unsent = 100_000
    protocol.pause_writing()
    assert protocol.deadline == NOW + 40
    return protocol, app


async def over(protocol: Any, app: Script) -> None:
    """The connection is gone, and the application with it."""
    protocol.connection_lost(None)
    while app._ends:
        app.finish()
    await settle()


def test_response_that_nobody_takes_is_aborted(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol, app = await full(protocol_class)
        at(protocol, NOW + 40)
        assert protocol.transport.aborted
        await over(protocol, app)

    play(main)
    assert log.messages == ["127.0.0.1:4321 takes nothing of its response: connection aborted."]


def test_response_that_is_taken_slowly_goes_on(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app = await full(protocol_class)
        for step in range(1, 5):
            protocol.transport.unsent -= 1
            at(protocol, NOW + 40 * step)
            assert protocol.deadline == NOW + 40 * (step + 1)
        assert not protocol.transport.closed
        await over(protocol, app)

    play(main)


def test_response_that_is_taken_leaves_the_application_its_time(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app = await full(protocol_class)
        protocol.resume_writing()
        assert protocol.deadline == NEVER
        await over(protocol, app)

    play(main)


def test_complete_response_that_is_not_taken_keeps_its_own_deadline(protocol_class: Any) -> None:
    # The keep-alive time, which is shorter, begins when the client has it all.
    async def main() -> None:
        app = Script()
        transport = FillingTransport()
        protocol = swept(protocol_class, app, transport=transport)
        protocol.data_received(GET)
        await settle()
        await app.start(200, [(b"content-length", b"10")])
        transport.fill_with_the_next_write(protocol)
        await app.body(b"x" * 10)
        app.finish()
        await settle()
        assert protocol.deadline == NOW + 40
        transport.unsent = 5
        at(protocol, NOW + 40)
        assert not transport.closed
        at(protocol, NOW + 50)
        transport.unsent = 0
        protocol.resume_writing()
        assert protocol.deadline == NOW + 55
        at(protocol, NOW + 55)
        assert transport.closed
        assert not transport.aborted

    play(main)


def test_next_request_does_not_hide_that_nothing_is_taken(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        transport = FillingTransport()
        protocol = swept(protocol_class, app, transport=transport)
        protocol.data_received(GET + GET_2)
        await settle()
        await app.start(200, [(b"content-length", b"10")])
        transport.fill_with_the_next_write(protocol)
        await app.body(b"x" * 10)
        app.finish()
        await settle()
        assert app.calls == 2
        assert protocol.deadline == NOW + 40
        at(protocol, NOW + 40)
        assert transport.aborted
        await over(protocol, app)

    play(main)


@pytest.mark.parametrize("packet", [GET_2, GET_2[:10], POST_5 + b"he", POST_5 + b"hello"])
def test_what_comes_in_does_not_move_the_deadline_of_what_is_not_taken(
    protocol_class: Any, packet: bytes
) -> None:
    async def main() -> None:
        protocol, app = await full(protocol_class)
        at(protocol, NOW + 10)
        protocol.data_received(packet)
        assert protocol.deadline == NOW + 40
        await over(protocol, app)

    play(main)


def test_waiting_for_a_body_does_not_move_the_deadline_of_what_is_not_taken(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        await app.start()
        protocol.transport.unsent = 100_000
        protocol.pause_writing()
        waiting = asyncio.ensure_future(app.receive())
        at(protocol, NOW + 20)
        await settle()
        assert protocol.deadline == NOW + 40
        protocol.resume_writing()
        assert protocol.deadline == NOW + 20 + 30
        protocol.pause_writing()
        protocol.data_received(b"hello")
        await waiting
        assert protocol.deadline == NOW + 20 + 40
        protocol.resume_writing()
        assert protocol.deadline == NEVER
        await over(protocol, app)

    play(main)


def test_head_that_has_begun_gets_its_deadline_when_the_response_is_taken(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app = await full(protocol_class)
        protocol.resume_writing()
        await app.body(b"x" * 10)
        app.finish()
        protocol.pause_writing()
        protocol.data_received(GET[:10])
        assert protocol.deadline == NOW + 40
        protocol.resume_writing()
        assert protocol.deadline == NOW + 60

    play(main)


def test_swallowed_body_gets_its_deadline_when_the_response_is_taken(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        await app.answer()
        protocol.transport.unsent = 10
        protocol.pause_writing()
        protocol.resume_writing()
        assert protocol.deadline == NOW + 30

    play(main)


def test_closed_connection_that_does_not_go_is_aborted(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(CLOSE)
        protocol.transport.unsent = 100
        await settle()
        assert protocol.transport.closed
        assert not protocol.transport.aborted
        assert protocol.deadline == NOW + LINGER_POLL
        at(protocol, NOW + LINGER_POLL)
        assert protocol.deadline == NOW + 2 * LINGER_POLL
        # The client's time counts from the first look.
        at(protocol, NOW + 40.4)
        assert not protocol.transport.aborted
        assert protocol.deadline == NOW + 40.5
        at(protocol, NOW + 40.5)
        assert protocol.transport.aborted

    play(main)


def test_gone_connection_leaves_nothing_to_the_garbage_collector(protocol_class: Any) -> None:
    ours = (protocol_class, protocol_class.codec_class, httptools.HttpRequestParser)

    async def main() -> None:
        # One that is answered, and one whose head stops in the middle.
        for data in (CLOSE, GET[:-2]):
            protocol = swept(protocol_class, Answer())
            protocol.data_received(data)
            await settle()
            protocol.connection_lost(None)

    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(each, ours) for each in gc.get_objects())
        play(main)
        assert sum(isinstance(each, ours) for each in gc.get_objects()) == before
    finally:
        gc.enable()


def test_deadline_of_a_running_request_that_is_over_changes_nothing(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        protocol.expire(NOW)
        assert not protocol.transport.closed
        await app.answer()

    play(main)


@pytest.mark.parametrize("pieces", [[b"\r\n"], [b"\r", b"\n"], [b"\n"], [b"\r\n\r\n"]])
def test_empty_lines_behind_a_response_begin_no_request(
    protocol_class: Any, pieces: list[bytes], log: Log
) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(GET)
        await settle()
        idle_until = protocol.deadline
        answered = protocol.transport.buffer
        for piece in pieces:
            protocol.data_received(piece)
        assert protocol.deadline == idle_until
        at(protocol, idle_until)
        assert protocol.transport.closed
        assert protocol.transport.buffer == answered

    play(main)
    assert log.messages == []


def test_request_behind_empty_lines_is_answered(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        for data in (b"\r\n", GET, b"\r\n", GET):
            protocol.data_received(data)
            await settle()
        assert len(read_responses(protocol.transport.buffer)) == 2

    play(main)


# --- draining ---------------------------------------------------------------------------------


def drain(protocol: Any, final: bool) -> None:
    protocol.server_state.draining = True
    protocol.drain(final)


@pytest.mark.parametrize("final", [False, True])
def test_response_that_begins_in_a_drain_is_the_last(protocol_class: Any, final: bool) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        drain(protocol, final)
        assert not protocol.transport.closed
        await app.answer()
        [response] = read_responses(protocol.transport.buffer)
        assert response.headers["connection"] == "close"
        assert protocol.transport.closed

    play(main)


@pytest.mark.parametrize("final", [False, True])
def test_pipelined_requests_are_all_answered_in_a_drain(protocol_class: Any, final: bool) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        await settle()
        drain(protocol, final)
        await app.answer()
        await app.answer()
        first, second = read_responses(protocol.transport.buffer)
        assert "connection" not in first.headers
        assert second.headers["connection"] == "close"
        assert protocol.transport.closed

    play(main)


@pytest.mark.parametrize("final", [False, True])
def test_response_that_has_begun_leaves_an_idle_connection(protocol_class: Any, final: bool) -> None:
    # It did not say that it was the last: where siblings go on, the next request must find somebody.
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        await app.start(200, [(b"content-length", b"2")])
        drain(protocol, final)
        await app.body(b"ok")
        app.finish()
        await settle()
        assert protocol.transport.closed is final
        if not final:
            assert protocol.deadline == NOW + 5
            protocol.data_received(GET)
            await settle()
            await app.answer()
            assert read_responses(protocol.transport.buffer)[1].headers["connection"] == "close"
            assert protocol.transport.closed

    play(main)


def test_idle_connection_closes_in_a_final_drain(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(GET)
        await settle()
        drain(protocol, final=True)
        assert protocol.transport.closed

    play(main)


def test_idle_connection_lives_out_its_time_in_another_drain(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(GET)
        await settle()
        drain(protocol, final=False)
        assert not protocol.transport.closed
        assert protocol.deadline == NOW + 5
        protocol.data_received(GET)
        await settle()
        assert read_responses(protocol.transport.buffer)[1].headers["connection"] == "close"
        assert protocol.transport.closed

    play(main)


@pytest.mark.parametrize(("final", "deadline"), [(False, NOW + 60), (True, NOW + 1)])
def test_connection_that_has_sent_nothing_gets_its_chance(
    protocol_class: Any, final: bool, deadline: float
) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        drain(protocol, final)
        assert not protocol.transport.closed
        assert protocol.deadline == deadline
        protocol.data_received(GET)
        await settle()
        assert statuses(protocol.transport) == [200]
        assert protocol.transport.closed

    play(main)


def test_chance_does_not_prolong_a_deadline(protocol_class: Any) -> None:
    protocol = swept(protocol_class, Answer())
    protocol.server_state.draining = True
    protocol.drain(True, chance=1000)
    assert protocol.deadline == NOW + 60


@pytest.mark.parametrize("data", [GET[:10], POST_5 + b"he"])
def test_request_that_has_begun_is_answered_in_a_final_drain(protocol_class: Any, data: bytes) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer(reads=True))
        protocol.data_received(data)
        await settle()
        drain(protocol, final=True)
        assert not protocol.transport.closed
        protocol.data_received(GET[10:] if data == GET[:10] else b"llo")
        await settle()
        assert statuses(protocol.transport) == [200]
        assert protocol.transport.closed

    play(main)


@pytest.mark.parametrize("final", [False, True])
def test_body_that_is_swallowed_ends_the_connection_in_a_final_drain(
    protocol_class: Any, final: bool
) -> None:
    async def main() -> None:
        protocol = swept(protocol_class, Answer())
        protocol.data_received(POST_5)
        await settle()
        drain(protocol, final)
        assert not protocol.transport.closed
        protocol.data_received(b"hello")
        assert protocol.transport.closed is final

    play(main)


@pytest.mark.parametrize("behind", [GET, request("POST / HTTP/1.1", "Content-Length: 2", body=b"hi")])
def test_request_behind_a_connection_that_has_just_ended_is_not_served(
    protocol_class: Any, behind: bytes
) -> None:
    async def main() -> None:
        app = Answer()
        protocol = swept(protocol_class, app)
        protocol.data_received(POST_5)
        await settle()
        drain(protocol, final=True)
        protocol.data_received(b"hello" + behind)
        await settle()
        assert len(app.scopes) == 1
        assert statuses(protocol.transport) == [200]
        assert protocol.transport.closed

    play(main)


def test_connection_that_is_closing_is_not_closed_again(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer(), now=NOW)
    protocol.data_received(CLOSE)
    run(protocol)
    assert protocol.transport.closed
    drain(protocol, final=True)
    protocol.shutdown()
    protocol.timeout_keep_alive_handler()


def test_streams_are_told_before_the_grace_period_ends(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        await settle()
        await app.receive()
        await app.start()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        protocol.end_streams()
        assert await waiting == {"type": "http.disconnect"}
        await app.body(b"last words")  # still goes out
        app.finish()
        await settle()
        # The one behind it has its body, and then is told as well.
        assert (await app.receive())["type"] == "http.request"
        assert await app.receive() == {"type": "http.disconnect"}
        await app.answer()
        assert [response.body for response in read_responses(protocol.transport.buffer)] == [
            b"last words",
            b"ok",
        ]

    play(main)


def test_stream_that_leaves_when_it_is_told_is_cut_without_an_error(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        await app.start()
        protocol.end_streams()
        app.finish()
        await settle()
        assert protocol.transport.closed

    play(main)
    assert log.messages == []


def test_end_streams_of_an_idle_connection_does_nothing(protocol_class: Any) -> None:
    protocol = swept(protocol_class, Answer())
    protocol.end_streams()
    assert not protocol.transport.closed


# --- shutdown() -------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GET])
def test_shutdown_of_an_idle_connection_closes_it_without_a_word(protocol_class: Any, before: bytes) -> None:
    protocol = connect(protocol_class, Answer())
    if before:
        protocol.data_received(before)
    run(protocol)
    written = protocol.transport.buffer
    protocol.shutdown()
    assert protocol.transport.closed
    assert protocol.transport.buffer == written


def test_shutdown_in_a_request_closes_after_its_response(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET)
    protocol.shutdown()
    assert not protocol.transport.closed
    run(protocol)
    [response] = read_responses(protocol.transport.buffer)
    assert response.headers["connection"] == "close"
    assert protocol.transport.closed


def test_shutdown_in_a_response_closes_after_it(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET)
        await settle()
        await app.start(200, [(b"content-length", b"2")])
        protocol.shutdown()
        await app.body(b"ok")
        assert protocol.transport.closed
        app.finish()
        await settle()

    play(main)


def test_shutdown_closes_after_all_requests_that_have_come(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(GET + GET_2)
    protocol.shutdown()
    run(protocol)
    first, second = read_responses(protocol.transport.buffer)
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"
    assert protocol.transport.closed


def test_shutdown_leaves_a_lingering_connection_its_time(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = lingering(protocol_class)
        await settle()
        protocol.shutdown()
        assert not protocol.transport.closed

    play(main)


# --- what the server counts -------------------------------------------------------------------


class Counter:
    def __init__(self) -> None:
        self.lost = 0

    def connection_lost(self) -> None:
        self.lost += 1


def test_connections_are_counted_while_they_are_open(protocol_class: Any) -> None:
    state = ServerState()
    counter = state.counter = Counter()
    protocol = connect(protocol_class, Answer(), state=state)
    assert state.connections == {protocol}
    assert counter.lost == 0
    protocol.connection_lost(None)
    assert state.connections == set()
    assert counter.lost == 1


def test_tasks_are_counted_while_they_run(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        emptied: list[bool] = []
        protocol.data_received(GET)
        await settle()
        assert len(protocol.server_state.tasks) == 1
        protocol.server_state.on_emptied = lambda: emptied.append(True)
        await app.answer()
        assert protocol.server_state.tasks == set()
        assert emptied == [True]

    play(main)


def test_requests_are_counted_when_they_are_answered(protocol_class: Any) -> None:
    state = ServerState()
    reached: list[int] = []
    state.request_limit = 2
    state.on_request_limit = lambda: reached.append(state.total_requests)
    protocol = connect(protocol_class, Answer(), state=state)
    protocol.data_received(GET * 3)
    asyncio.run(protocol.loop.run_one())
    assert (state.total_requests, reached) == (1, [])
    run(protocol)
    assert (state.total_requests, reached) == (3, [2])


def test_responses_are_counted_by_their_status(protocol_class: Any) -> None:
    state = ServerState()
    protocol = connect(protocol_class, Answer(), state=state)
    protocol.data_received(GET * 3)
    run(protocol)
    connect(protocol_class, Answer(), state=state).data_received(b"GARBAGE\r\n\r\n")
    assert state.responses == [0, 0, 3, 0, 1, 0]


def test_refused_requests_are_not_counted(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    protocol.data_received(b"GARBAGE\r\n\r\n")
    assert protocol.server_state.total_requests == 0


def test_time_of_the_call_is_kept(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.data_received(GET + GET_2)
        waiting = protocol.pipeline[0]
        # Nobody measures: the coarse time will do.
        assert (protocol.current.started_at, waiting.started_at) == (NOW, 0.0)
        assert protocol.current.task in protocol.server_state.tasks
        assert waiting.task is None
        await settle()
        at(protocol, NOW + 7)
        await app.answer()
        assert waiting.started_at == NOW + 7
        await app.answer()

    play(main)


def test_what_is_measured(protocol_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a request takes goes from the application's call to the response's end; bytes are those of the wire."""
    clock = [0.0]
    monkeypatch.setattr(_connection, "monotonic", lambda: clock[0])

    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        state = protocol.server_state
        state.measured = True
        sent = 0
        for took, bucket in ((0.001, None), (0.0011, 1), (0.25, 7), (0.3, 8), (99.0, len(DURATIONS))):
            before = list(state.slow)
            clock[0] = 0.0
            protocol.data_received(GET)
            sent += len(GET)
            await settle()
            clock[0] = took
            await app.answer()
            changed = [i for i, (old, new) in enumerate(zip(before, state.slow, strict=True)) if old != new]
            assert changed == ([] if bucket is None else [bucket])
        assert state.seconds == pytest.approx(0.001 + 0.0011 + 0.25 + 0.3 + 99.0)
        assert state.total_requests - sum(state.slow) == 1  # the first bucket's
        assert state.bytes_in == sent
        assert state.bytes_out == len(protocol.transport.buffer)
        protocol.data_received(b"GARBAGE\r\n\r\n")
        assert state.bytes_out == len(protocol.transport.buffer)

    play(main)


def beside(protocol: Any) -> Any:
    """Another connection of the same server."""
    other = type(protocol)(protocol.config, protocol.server_state, {}, protocol.loop)
    other.connection_made(FakeTransport())
    return other


def test_requests_of_one_turn_share_the_time_at_which_they_begin(
    protocol_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once before the applications run, and read again for what comes after them."""
    clock = iter(range(1, 100))
    monkeypatch.setattr(_connection, "monotonic", lambda: float(next(clock)))

    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        protocol.server_state.measured = True
        other, third, pipelining, fourth = (beside(protocol) for _ in range(4))
        protocol.data_received(GET)
        other.data_received(GET)
        assert protocol.current.started_at == other.current.started_at == 1.0
        await settle()
        third.data_received(GET)
        assert third.current.started_at == 2.0
        await settle()
        pipelining.data_received(GET + GET_2)
        assert pipelining.current.started_at == 3.0
        await settle()
        # The next one of a pipeline begins between applications: what comes in the turn after has a time of its own.
        await app.start()
        await app.body()
        assert pipelining.current.started_at == 5.0
        fourth.data_received(GET)
        assert fourth.current.started_at == 6.0

    play(main)


def test_of_many_in_a_turn_the_later_ones_begin_when_the_first_are_answered(
    protocol_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_turn, "BATCH", 2)
    clock = [1.0]
    monkeypatch.setattr(_connection, "monotonic", lambda: clock[0])
    monkeypatch.setattr(_state, "monotonic", lambda: clock[0])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock[0] += 0.004
        await Answer()(scope, receive, send)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = connect(protocol_class, app, loop=loop, now=NOW)
        state = first.server_state
        state.measured = True
        clients = [first, *(beside(first) for _ in range(4))]
        answered: list[list[bool]] = []

        def read_all() -> None:
            for client in clients:
                client.data_received(GET)
                answered.append([bool(other.transport.buffer) for other in clients])
            assert clients[4].current.started_at == 1.016

        loop.call_soon(read_all)
        await settle()
        assert [sum(each) for each in answered] == [0, 0, 2, 2, 4]
        assert all(client.transport.buffer.endswith(b"ok") for client in clients)
        # Two and two of 8 ms, and one of 4 ms.
        assert state.seconds == pytest.approx(4 * 0.008 + 0.004)
        assert sum(state.slow) == 5
        assert not state.tasks

    play(main)


@pytest.mark.parametrize("measured", [False, True])
def test_somebody_is_told_once_that_something_was_counted(protocol_class: Any, measured: bool) -> None:
    async def main() -> None:
        app = Script()
        protocol = swept(protocol_class, app)
        state = protocol.server_state
        told: list[int] = []
        state.measured = measured
        if measured:
            state.settle()
        state.on_unsettled = lambda: told.append(state.total_requests)
        for _ in range(2):
            protocol.data_received(GET)
            await settle()
            await app.answer()
        assert told == ([1] if measured else [])
        assert (state.bytes_in, state.seconds) == (0, 0.0) or measured
        if measured:
            state.settle()
        protocol.data_received(GET)
        await settle()
        await app.answer()
        assert told == ([1, 3] if measured else [])

    play(main)


class Done:
    """A task that had ended when it came into being."""

    def done(self) -> bool:
        return True

    def set_name(self, name: object) -> None:
        pass


def test_tasks_that_end_at_once_are_not_counted_for_ever(protocol_class: Any) -> None:
    # Event loops may have a factory that starts tasks eagerly.
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def eager(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
            with pytest.raises(StopIteration):
                coroutine.send(None)
            return Done()

        app = Answer()
        loop.set_task_factory(eager)
        protocol = connect(protocol_class, app, loop=loop, now=NOW, **TIMEOUTS)
        protocol.data_received(GET + GET_2)
        assert protocol.deadline == NOW + 5
        protocol.data_received(CLOSE)
        loop.set_task_factory(None)
        assert statuses(protocol.transport) == [200, 200, 200]
        assert protocol.server_state.tasks == set()
        assert protocol.transport.closed

    play(main)


# --- logs -------------------------------------------------------------------------------------


class Access:
    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def log(self, scope: Any, status: int) -> None:
        self.lines.append((scope["path"], status))


def test_access_is_logged_when_the_response_starts(protocol_class: Any) -> None:
    async def main() -> None:
        app = Script()
        access = Access()
        state = ServerState()
        state.access = access
        protocol = swept(protocol_class, app, state=state)
        protocol.data_received(GET + GET_2)
        await settle()
        assert access.lines == []
        await app.start(404, [(b"content-length", b"0")])
        assert access.lines == [("/", 404)]
        await app.body()
        app.finish()
        await settle()
        app.finish(RuntimeError("broken"))
        await settle()
        assert access.lines == [("/", 404), ("/2", 500)]

    play(main)


def test_server_without_an_access_log_leaves_it_to_the_connection(protocol_class: Any) -> None:
    logger = logging.getLogger("uvicorn.access")
    before = logger.handlers, logger.propagate
    keeper = Log()
    logger.handlers, logger.propagate = [keeper], False
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        protocol = connect(protocol_class, Answer(), access_log=True)
        # The level and handlers of `access_log=False` are the configuration's matter.
        assert isinstance(protocol.access, RecordAccessLog)
        protocol.data_received(GET)
        run(protocol)
        assert keeper.messages == ['127.0.0.1:4321 - "GET / HTTP/1.1" 200']
        logger.handlers = []
        assert connect(protocol_class, Answer(), access_log=True).access is None
    finally:
        logger.handlers, logger.propagate = before
        logger.setLevel(level)


def test_no_access_log_where_it_is_off(protocol_class: Any) -> None:
    assert connect(protocol_class, Answer(), access_log=False).access is None


@pytest.mark.parametrize(("peername", "prefix"), [(("192.0.2.1", 5), "192.0.2.1:5 - "), ("", ""), (None, "")])
def test_trace_tells_of_connections(protocol_class: Any, log: Log, peername: Any, prefix: str) -> None:
    logging.getLogger("uvicorn.error").setLevel(TRACE_LOG_LEVEL)
    protocol = connect(protocol_class, Answer(), ws=Socket, transport=FakeTransport(peername=peername))
    protocol.data_received(HANDSHAKE)
    protocol.connection_lost(None)
    assert log.messages == [
        prefix + "HTTP connection made",
        prefix + "Upgrading to WebSocket",
        prefix + "HTTP connection lost",
    ]
    assert {record.levelno for record in log.records} == {TRACE_LOG_LEVEL}


def test_default_headers_are_those_of_the_moment(protocol_class: Any) -> None:
    protocol = connect(protocol_class, Answer())
    for value in (b"1", b"1", b"2"):
        if protocol.server_state.default_headers != [(b"date", value)]:
            protocol.server_state.default_headers = [(b"date", value)]
        protocol.data_received(GET)
        run(protocol)
    dates = [response.headers["date"] for response in read_responses(protocol.transport.buffer)]
    assert dates == ["1", "1", "2"]
