"""Header sections that come again are not parsed again, and nobody can tell."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.http.harness import (
    GET,
    IMPLEMENTATIONS,
    Answer,
    StrictTransport,
    TaskLoop,
    connect,
    request,
    settle,
)
from uvicorn.config import Config
from uvicorn.protocols._state import ServerState
from uvicorn.protocols.http._repeats import (
    MAX_BODY,
    MAX_LINE,
    MAX_SECTION,
    MAX_SHARED,
    PATIENCE,
    Sections,
    learn,
    method_and_path,
    request_line,
)
from uvicorn.protocols.http._varying import TRIES

HOST = ((b"host", b"example.org"),)
LIMIT = 65536


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", ("GET", "/", b"/", b"", False)),
        (b"HEAD /a%20b?q=%20 HTTP/1.1", ("HEAD", "/a b", b"/a%20b", b"q=%20", True)),
        (b"POST /x?a?b HTTP/1.1", ("POST", "/x", b"/x", b"a?b", False)),
        (b"GET /? HTTP/1.1", ("GET", "/", b"/", b"", False)),
    ],
)
def test_plain_request_lines(line: bytes, expected: object) -> None:
    assert request_line(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.1\n",
        b"GET  / HTTP/1.1",
        b"GET /#a HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET http://example.org/ HTTP/1.1",
        b"get / HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"GET /a HTTP/1.1\r\nX: y",
        b"\r\nGET / HTTP/1.1",
        b"GET /a? HTTP/1.0",
        b"GET /a?HTTP/1.1",
        b"GET /a?",
        b"GET /a?b c HTTP/1.1",
        b"GET /a?b# HTTP/1.1",
        b"GET /a?\xc3 HTTP/1.1",
        b"GET /a?b\r HTTP/1.1",
        b"GET /a HTTP/1.1? HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"? HTTP/1.1",
        b" HTTP/1.1",
    ],
)
def test_other_request_lines_are_left_to_the_parser(line: bytes) -> None:
    assert request_line(line) is None


def test_a_section_is_known_by_its_bytes() -> None:
    section = learn(GET, HOST, LIMIT)
    assert section is not None
    assert GET == b"GET / HTTP/1.1" + section.raw
    assert (section.size, section.longest_line, section.forwarded) == (len(section.raw), MAX_LINE, False)


def with_fields(*more: tuple[str, str], body: bytes = b"") -> tuple[bytes, Any]:
    """A request with more fields, and all of its fields as a parser finds them."""
    data = request("GET / HTTP/1.1", *(f"{name}: {value}" for name, value in more)) + body
    return data, (*HOST, *((name.encode(), value.encode()) for name, value in more))


def test_a_section_leaves_room_for_the_line_within_the_limit() -> None:
    section = learn(GET, HOST, len(GET))
    assert section is not None
    assert section.longest_line == len("GET / HTTP/1.1")


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"x-forwarded-proto"])
def test_a_section_tells_that_a_proxy_speaks_in_it(name: bytes) -> None:
    section = learn(request("GET / HTTP/1.1", f"{name.decode()}: x"), (*HOST, (name, b"x")), LIMIT)
    assert section is not None
    assert section.forwarded


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (GET + GET, HOST),
        (GET + b"x", HOST),
        (b"\r\n" + GET, HOST),
        with_fields(("x", "a" * MAX_SECTION)),
        with_fields(("content-length", "1")),
        with_fields(("content-length", "1"), body=b"ab"),
        with_fields(("content-length", f"{MAX_BODY + 1}"), body=bytes(MAX_BODY + 1)),
        with_fields(("transfer-encoding", "chunked")),
        with_fields(("expect", "100-continue")),
        with_fields(("upgrade", "x")),
        with_fields(("connection", "close, x")),
        with_fields(("connection", "keep-alive, x")),
        # Fields that are not those of the section.
        (GET, ()),
        (GET, (*HOST, (b"x", b"1"))),
        (GET, ((b"x", b"GET / HTTP/1.1"), *HOST)),
        (GET, ((b"host", b"example.com"),)),
        (request("GET / HTTP/1.1", "A: 1", " 2"), (*HOST, (b"a", b"1 2"))),
        (request("GET / HTTP/1.1", "A: 1", " 2"), (*HOST, (b"a", b"1"), (b"", b"2"))),
    ],
)
def test_what_says_more_than_fields_is_not_learnt(data: bytes, fields: Any) -> None:
    assert learn(data, fields, LIMIT) is None


def test_fields_may_be_written_in_any_way() -> None:
    data = request("GET / HTTP/1.1", "X-A:1", "X-B: \t2\t ", "x-C:")
    section = learn(data, (*HOST, (b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"")), LIMIT)
    assert section is not None


@pytest.mark.parametrize(("length", "more"), [(MAX_LINE, 1), (MAX_LINE + 1, 0)])
def test_a_long_line_is_not_kept(length: int, more: int) -> None:
    line = "GET /" + "l" * (length - len("GET / HTTP/1.1")) + " HTTP/1.1"
    method_and_path.cache_clear()
    assert (learn(request(line), HOST, LIMIT) is not None) == more
    assert method_and_path.cache_info().currsize == more


def test_queries_are_kept_nowhere() -> None:
    method_and_path.cache_clear()
    for i in range(10):
        assert request_line(b"GET /a?%d HTTP/1.1" % i) == ("GET", "/a", b"/a", b"%d" % i, False)
    assert method_and_path.cache_info().currsize == 1


@pytest.mark.parametrize(
    ("options", "keep_alive"),
    [(("Keep-Alive",), True), (("close",), False), (("Close", "keep-alive"), False)],
)
def test_a_section_tells_whether_the_connection_goes_on(options: tuple[str, ...], keep_alive: bool) -> None:
    section = learn(*with_fields(*(("connection", option) for option in options)), LIMIT)
    assert section is not None
    assert section.keep_alive == keep_alive


@pytest.mark.parametrize("body", [b"", b"x", b"\r\n\r\n", bytes(MAX_BODY)])
def test_a_body_belongs_to_its_section(body: bytes) -> None:
    data = request("POST / HTTP/1.1", f"Content-Length: {len(body)}")
    section = learn(data + body, (*HOST, (b"content-length", b"%d" % len(body))), LIMIT)
    assert section is not None
    assert data == b"POST / HTTP/1.1" + section.raw
    assert (section.length, section.size) == (len(body), len(section.raw) + len(body))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bodies_of_a_known_section(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    ordinary = IMPLEMENTATIONS[implementation].on_head

    def on_head(self: Any, *args: Any) -> bool:
        parsed.append(args[1])
        return ordinary(self, *args)

    monkeypatch.setattr(IMPLEMENTATIONS[implementation], "on_head", on_head)
    app = Answer()
    received = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await app(scope, receive, send)

    head = request("POST / HTTP/1.1", "Content-Length: 3")
    other = request("GET / HTTP/1.1", "Content-Length: 0", "X: yz")
    assert len(head) + 3 != len(other)
    whole = [head + b"abc", head + b"def", head + b"ghi", head + b"\r\n\r", other, head + b"jkl"]

    async def go() -> None:
        protocol = connect(IMPLEMENTATIONS[implementation], reading, loop=TaskLoop())
        for data in whole:
            protocol.data_received(data)
            await settle()
        # What comes in pieces, or with another request behind it, is left to the parser.
        for data in (head + b"m", b"no", head + b"pqr" + other):
            protocol.data_received(data)
            for _ in range(5):
                await settle()

    asyncio.run(go())
    bodies = [b"abc", b"def", b"ghi", b"\r\n\r", b"", b"jkl", b"m", b"pqr", b""]
    assert received == [{"type": "http.request", "body": body, "more_body": body == b"m"} for body in bodies]
    assert len(parsed) == len(bodies) - 3


def feed(implementation: str, requests: list[bytes], learns: bool) -> tuple[Any, Any, Answer]:
    app = Answer()

    async def go() -> Any:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop())
        if not learns:
            protocol._last_section = -1
        for data in requests:
            protocol.data_received(data)
            await settle()
        return protocol

    protocol = asyncio.run(go())
    return protocol, protocol.transport, app


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_third_request_is_not_parsed(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    ordinary = IMPLEMENTATIONS[implementation].on_head

    def on_head(self: Any, *args: Any) -> bool:
        parsed.append(args[1])
        return ordinary(self, *args)

    monkeypatch.setattr(IMPLEMENTATIONS[implementation], "on_head", on_head)
    lines = ["/a", "/b", "/c", "/d?e=f"]
    _, _, app = feed(implementation, [request(f"GET {line} HTTP/1.1", "A: b") for line in lines], True)
    assert parsed == [b"/a", b"/b"]
    assert [scope["raw_path"] for scope in app.scopes] == [b"/a", b"/b", b"/c", b"/d"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("lines", "learns"),
    [
        ([f"X: {i}" for i in range(PATIENCE - 2)], True),
        ([f"X-Forwarded-For: {i}" for i in range(PATIENCE + TRIES)], False),
        ([f"X-Forwarded-For: {'a' * i}" for i in range(PATIENCE + TRIES)], False),
        # What is recognised now and then is worth another try.
        ([f"X: {i // 3}" for i in range(PATIENCE * 6)], True),
    ],
)
def test_a_connection_whose_heads_never_repeat_learns_no_more(
    implementation: str, lines: list[str], learns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    ordinary = IMPLEMENTATIONS[implementation].on_head
    monkeypatch.setattr(
        IMPLEMENTATIONS[implementation],
        "on_head",
        lambda self, *args: parsed.append(args) or ordinary(self, *args),
    )
    unlike = [request("GET / HTTP/1.1", line) for line in lines]
    protocol, transport, app = feed(implementation, [*unlike, GET, GET], True)
    before = len(parsed)
    asyncio.run(feed_more(protocol, [GET, GET]))
    assert (len(parsed) == before) == learns
    assert (protocol._repeated is not None) == learns
    assert len(app.scopes) == len(unlike) + 4
    assert transport.buffer.count(b"HTTP/1.1 200") == len(unlike) + 4


async def feed_more(protocol: Any, requests: list[bytes]) -> None:
    for data in requests:
        protocol.data_received(data)
        await settle()


def of_connections(
    implementation: str, requests: list[list[bytes]], shares: bool = True, waits: bool = True
) -> tuple[Answer, list[Any]]:
    """Connections of one server, one after the other: what the application saw, and the transports."""
    app = Answer()
    config = Config(app, log_config=None, proxy_headers=False, ws="none", lifespan="off", access_log=False)
    state = ServerState()

    async def go() -> list[Any]:
        loop = TaskLoop()
        protocols = []
        for parts in requests:
            protocol: Any = IMPLEMENTATIONS[implementation](
                config=config, server_state=state, app_state={}, _loop=loop
            )
            protocol.connection_made(StrictTransport())
            if not shares:
                protocol._last_section = -1
            for data in parts:
                protocol.data_received(data)
                if waits:
                    await settle()
            await settle()
            protocols.append(protocol)
        return [protocol.transport for protocol in protocols]

    return app, asyncio.run(go())


@pytest.mark.parametrize("options", [(), ("Connection: close",)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_third_connection_has_no_parser(
    implementation: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    protocol_class = IMPLEMENTATIONS[implementation]
    codec_class = protocol_class.codec_class

    def codec(connection: Any) -> Any:
        made.append(connection)
        return codec_class(connection)

    monkeypatch.setattr(protocol_class, "codec_class", staticmethod(codec))
    lines = ["/a", "/b", "/c", "/d?e=f"]
    app, transports = of_connections(
        implementation, [[request(f"GET {line} HTTP/1.1", *options)] for line in lines]
    )
    assert len(made) == 2
    assert [scope["raw_path"] for scope in app.scopes] == [b"/a", b"/b", b"/c", b"/d"]
    assert [transport.closed for transport in transports] == [bool(options)] * 4
    assert len({bytes(transport.buffer) for transport in transports}) == 1


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("behind", [GET, b"\0\r\n\r\n"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nothing_is_looked_at_behind_a_known_request_that_closes(
    implementation: str, behind: bytes, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    closing = request("GET /a HTTP/1.1", "Connection: close")
    app, transports = of_connections(implementation, [[closing], [closing], [closing, behind]], waits=waits)
    assert len(app.scopes) == 3
    assert transports[2].buffer == transports[0].buffer
    assert not caplog.records


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_closes_is_not_taken_for_what_does_not(implementation: str) -> None:
    closing = request("GET /a HTTP/1.1", "Connection: close")
    _, transports = of_connections(implementation, [[closing], [closing], [GET], [GET], [GET], [closing]])
    assert [transport.closed for transport in transports] == [True, True, False, False, False, True]


def test_few_sections_are_shared() -> None:
    sections = Sections()
    first = request("GET / HTTP/1.1", "X: 0")
    for i in range(2 * MAX_SHARED):
        data = request("GET / HTTP/1.1", f"X: {i}")
        assert sections.known(data) is None
        section = learn(data, (*HOST, (b"x", b"%d" % i)), LIMIT)
        assert section is not None
        assert not sections.has_come(section.raw)
        assert sections.has_come(section.raw)
        sections.share(section)
        assert sections.known(data) is section
    assert sections.known(first) is None
    assert not sections.has_come(first)
    assert not sections.has_come(bytes(MAX_SECTION + 1))
    assert not sections.has_come(bytes(MAX_SECTION + 1))


# So often a request comes until it is known as a whole, and once more.
WHOLE = 5


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize("line", ["GET /a%20b?c=d HTTP/1.1", "HEAD / HTTP/1.1"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_the_application_changes_is_not_seen_by_the_next(
    implementation: str, line: str, root_path: str
) -> None:
    app, seen = Answer(), []

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        seen.append(copy.deepcopy(scope))
        scope["headers"].clear()
        scope["asgi"]["version"] = scope["path"] = "changed"
        scope["state"]["more"] = 1
        del scope["client"]
        await app(scope, receive, send)

    async def go() -> Any:
        protocol = connect(
            IMPLEMENTATIONS[implementation],
            changing,
            loop=TaskLoop(),
            root_path=root_path,
            app_state={"a": 1},
        )
        for _ in range(WHOLE):
            protocol.data_received(request(line))
            await settle()
        return protocol

    protocol = asyncio.run(go())
    assert protocol._repeated.request == request(line)
    assert len(seen) == WHOLE
    assert all(scope == seen[0] and list(scope) == list(seen[0]) for scope in seen)
    answers = protocol.transport.buffer.count(b"HTTP/1.1 200")
    assert answers == WHOLE
    assert protocol.transport.buffer.count(b"\r\n\r\nok") == (0 if line.startswith("HEAD") else WHOLE)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_of_a_known_request_nothing_is_kept_that_is_a_connections(implementation: str) -> None:
    app = Answer()
    config = Config(app, log_config=None, ws="none", lifespan="off", access_log=False)
    state = ServerState()

    async def go() -> Any:
        loop = TaskLoop()
        for peer, app_state, times in ((("127.0.0.1", 1), {"a": 1}, WHOLE), (("10.0.0.1", 7), {"b": 2}, 1)):
            protocol: Any = IMPLEMENTATIONS[implementation](
                config=config, server_state=state, app_state=app_state, _loop=loop
            )
            protocol.connection_made(StrictTransport(peername=peer))
            await feed_more(protocol, [GET] * times)
        return protocol

    protocol = asyncio.run(go())
    assert protocol._codec is None  # it was known from the beginning
    kept = protocol._repeated.scope
    assert [kept[name] for name in ("asgi", "server", "client", "scheme", "headers", "state")] == [None] * 6
    assert app.scopes[-1]["client"] == ("10.0.0.1", 7)
    assert app.scopes[-1]["state"] == {"b": 2}


@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize(
    "begun", [b"GET /private HTTP/1.1\r\nX: ", b"P", b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"]
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_follows_the_begin_of_a_request_is_no_known_request(
    implementation: str, begun: bytes, in_flight: bool
) -> None:
    def parts(learns: bool) -> tuple[Any, Answer]:
        app = Answer()

        async def go() -> Any:
            protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop())
            if not learns:
                protocol._last_section = -1
            for _ in range(WHOLE):
                protocol.data_received(GET)
                await settle()
            assert (protocol._repeated is not None) == learns
            if in_flight:
                protocol.data_received(GET)
                protocol.data_received(begun)
            else:
                protocol.data_received(GET + begun)
            await settle()
            for _ in range(3):
                if not protocol.transport.closed:
                    protocol.data_received(GET)
                    await settle()
            return protocol.transport

        return asyncio.run(go()), app

    (seen, app), (parsed, other) = parts(True), parts(False)
    assert app.scopes == other.scopes
    assert bytes(seen.buffer) == bytes(parsed.buffer)
    assert seen.closed == parsed.closed


@pytest.mark.parametrize("times", [1, 3, WHOLE])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_bytes_are_no_request(implementation: str, times: int) -> None:
    _, transport, app = feed(implementation, [*[GET] * times, b"", GET], True)
    assert len(app.scopes) == times + 1
    assert not transport.closed


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_lines_that_take_turns_are_each_answered(implementation: str) -> None:
    lines = ["/a", "/a", "/a", "/b", "/a", "/b", "/b", "/b", "/a", "/b?", "/a?", "/a?", "/a?", "/a"]
    _, _, app = feed(implementation, [request(f"GET {line} HTTP/1.1") for line in lines], True)
    assert [scope["raw_path"].decode() for scope in app.scopes] == [line.rstrip("?") for line in lines]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_request_that_closes_is_known_as_a_whole(implementation: str) -> None:
    closing = request("GET /a HTTP/1.1", "Connection: close")
    app, transports = of_connections(implementation, [[closing]] * WHOLE + [[closing, closing]] * 2)
    assert len(app.scopes) == WHOLE + 2
    assert all(transport.closed for transport in transports)
    assert len({bytes(transport.buffer) for transport in transports}) == 1


LINES = st.one_of(
    st.sampled_from(
        [
            b"GET / HTTP/1.1",
            b"GET /a?b HTTP/1.1",
            b"HEAD /x HTTP/1.1",
            b"GET / HTTP/1.0",
            b"OPTIONS * HTTP/1.1",
            b"GET http://other/ HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: second",
            b"GET / HTTP/1.1\r\nContent-Length: 3",
            b"GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1",
            b"",
        ]
    ),
    st.text('/?#% ab\r\n"<', max_size=12).map(lambda text: f"GET /{text} HTTP/1.1".encode()),
)
SECTIONS = st.sampled_from(
    [
        b"\r\nHost: a\r\n\r\n",
        b"\r\nHost: a\r\nConnection: keep-alive\r\nX: y\r\n\r\n",
        b"\r\nHOST:a\r\nx:\r\n\r\n",
        b"\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\nabcd",
    ]
)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=150, deadline=None)
@given(section=SECTIONS, lines=st.lists(LINES, min_size=1, max_size=3))
def test_known_or_not_the_answer_is_the_same(implementation: str, section: bytes, lines: list[bytes]) -> None:
    requests = [
        b"GET /1 HTTP/1.1" + section,
        b"GET /2 HTTP/1.1" + section,
        *(line + section for line in lines),
    ]
    _, seen, app = feed(implementation, requests, True)
    _, parsed, other = feed(implementation, requests, False)
    assert app.scopes == other.scopes
    assert bytes(seen.buffer) == bytes(parsed.buffer)
    assert seen.closed == parsed.closed


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=100, deadline=None)
@given(
    section=st.one_of(SECTIONS, st.just(b"\r\nHost: a\r\nConnection: close\r\n\r\n")),
    lines=st.lists(LINES, min_size=1, max_size=3),
    rest=st.sampled_from([[], [GET], [b"\0\r\n\r\n"]]),
    waits=st.booleans(),
)
def test_shared_or_not_the_answer_is_the_same(
    implementation: str, section: bytes, lines: list[bytes], rest: list[bytes], waits: bool
) -> None:
    first = [b"GET /1 HTTP/1.1" + section]
    requests = [first, first, *([line + section, *rest] for line in lines)]
    app, seen = of_connections(implementation, requests, waits=waits)
    other, parsed = of_connections(implementation, requests, shares=False, waits=waits)
    assert app.scopes == other.scopes
    assert [bytes(each.buffer) for each in seen] == [bytes(each.buffer) for each in parsed]
    assert [each.closed for each in seen] == [each.closed for each in parsed]
