"""Header sections of which a few lines are others each time: the rest is not parsed again, and nobody can tell."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocols.http.harness import IMPLEMENTATIONS, Answer, TaskLoop, connect, settle
from uvicorn.protocols.http._repeats import MAX_LINE, MAX_SECTION, PATIENCE, learn
from uvicorn.protocols.http._varying import MAX_BETWEEN, TRIES, VaryingSection, compare

LIMIT = 65536
FIELDS = 100


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *lines, b""))


def section(*lines: bytes) -> Any:
    pairs = [line.partition(b":") for line in lines]
    learnt = learn(head(*lines), tuple((name.lower(), value.strip()) for name, _, value in pairs), LIMIT)
    assert learnt is not None
    return learnt


def varying(head_limit: int = LIMIT, fields_limit: int = FIELDS) -> VaryingSection:
    found = compare(
        section(b"Host: a", b"Id: 1", b"Accept: x"),
        section(b"Host: a", b"Id: 22", b"Accept: x"),
        head_limit,
        fields_limit,
    )
    assert found is not None
    return found


def fields(found: VaryingSection, data: bytes) -> Any:
    return found.fields(data, data.find(b"\r\n"))


def test_what_stands_around_the_lines_that_vary_is_known() -> None:
    found = varying()
    assert (found.front, found.back) == (b"\r\nHost: a\r\n", b"\r\nAccept: x\r\n\r\n")
    assert (found.keep_alive, found.forwarded) == (True, False)


@pytest.mark.parametrize(
    ("lines", "between"),
    [
        ([b"Id: 333"], [(b"id", b"333")]),
        ([b"Other: a b"], [(b"other", b"a b")]),
        ([b"A!#$%&'*+-.^_`|~9: ~"], [(b"a!#$%&'*+-.^_`|~9", b"~")]),
        ([b"B: 2", b"A: 1"], [(b"b", b"2"), (b"a", b"1")]),
        (
            [b"N%d: 0" % i for i in range(MAX_BETWEEN)],
            [(b"n%d" % i, b"0") for i in range(MAX_BETWEEN)],
        ),
    ],
)
def test_plain_lines_between_are_taken_in_their_order(lines: list[bytes], between: Any) -> None:
    found = fields(varying(), head(b"Host: a", *lines, b"Accept: x"))
    assert found == [(b"host", b"a"), *between, (b"accept", b"x")]


def by_llhttp(line: bytes) -> Any:
    class Found:
        def __init__(self) -> None:
            self.fields: list[tuple[bytes, bytes]] = []
            self.complete = 0

        def on_header(self, name: bytes, value: bytes) -> None:
            self.fields.append((name.lower(), value))

        def on_message_complete(self) -> None:
            self.complete += 1

    found = Found()
    httptools.HttpRequestParser(found).feed_data(head(b"Host: a", line))
    assert found.complete == 1
    return found.fields[1:]


def by_h11(line: bytes) -> Any:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head(b"Host: a", line))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return [(bytes(name), bytes(value)) for name, value in event.headers][1:]


def test_what_is_taken_both_parsers_read_alike() -> None:
    everything = [bytes([i]) for i in range(256)]
    values = [b"b: " + each for each in everything]
    values += [b"b: " + one + other for one in everything for other in everything]
    values += [b"b: x" + each + b"y" for each in everything]
    names = [name + b": x" for each in everything for name in (each, each + b"a", b"a" + each)]
    found = varying()
    taken = 0
    for line in names + values:
        seen = fields(found, head(b"Host: a", line, b"Accept: x"))
        if seen is not None:
            taken += 1
            assert by_llhttp(line) == by_h11(line) == seen[1:-1]
    assert taken > 9000


ODD = [
    b"",
    b"Id",
    b"Id:",
    b"Id: ",
    b"Id:1",
    b"Id:  1",
    b"Id: 1 ",
    b"Id: 1\t",
    b"Id: a\tb",
    b"Id:\t1",
    b"Id : 1",
    b" Id: 1",
    b": 1",
    b"I d: 1",
    b"Id: 1\n",
    b"Id: 1\nA: 2",
    b"Id: 1\rA: 2",
    b"Id: 1\r\n A: 2",
    b"Id: \x00",
    b"Id: \x7f",
    b"Id: \xc3\xa4",
    b"\xc3\xa4: 1",
    b"Id: 1\r\nid: 2",
    b"Id: 1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a",
    b"Host: a",
    b"host: b",
    b"Accept: y",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Upgrade: websocket",
    b"Connection: close",
    b"CONNECTION: keep-alive",
    b"Proxy-Connection: close",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Proto: https",
]


@pytest.mark.parametrize("line", ODD)
@pytest.mark.parametrize("beside", [[], [b"B: 1"]])
def test_anything_else_between_is_left_to_the_parser(line: bytes, beside: list[bytes]) -> None:
    found = varying()
    for lines in ([*beside, line], [line, *beside]):
        assert fields(found, head(b"Host: a", *lines, b"Accept: x")) is None


@pytest.mark.parametrize(
    "data",
    [
        head(b"Host: a", b"Accept: x"),
        head(b"Host: b", b"Id: 1", b"Accept: x"),
        head(b"Host: a", b"Id: 1", b"Accept: y"),
        head(b"Host: a", b"Id: 1", b"Accept: x") + b"body",
        head(b"Host: a", b"Id: 1", b"Accept: x")[:-2],
        head(b"Host: a", *(b"N%d: 0" % i for i in range(MAX_BETWEEN + 1)), b"Accept: x"),
        head(b"Host: a", b"Id: " + b"1" * (MAX_SECTION + MAX_LINE), b"Accept: x"),
    ],
)
def test_what_is_not_around_them_as_before_is_left_to_the_parser(data: bytes) -> None:
    assert fields(varying(), data) is None


def test_the_limits_of_a_head_hold() -> None:
    data = head(b"Host: a", b"Id: 12", b"Accept: x")
    assert fields(varying(head_limit=len(data)), data) is not None
    assert fields(varying(head_limit=len(data)), head(b"Host: a", b"Id: 123", b"Accept: x")) is None
    more = head(b"Host: a", b"Id: 1", b"B: 1", b"Accept: x")
    assert fields(varying(fields_limit=4), more) is not None
    assert fields(varying(fields_limit=3), more) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([b"Host: a", b"Id: 1"], [b"Host: b", b"Id: 1"]),
        ([b"Host: a"], [b"Host: a"]),
        ([b"Host: a", b"X-Forwarded-For: 1"], [b"Host: a", b"X-Forwarded-For: 2"]),
        ([b"Host: a", b"Connection: close"], [b"Host: a", b"Connection: keep-alive"]),
        ([b"Host: a", b"Cookie: 1", b"Cookie: 2"], [b"Host: a", b"Cookie: 1", b"Cookie: 3"]),
        ([b"Host: a", b"Id: 1"], [b"Host: a", b"Id:2"]),
    ],
)
def test_sections_that_differ_in_what_decides_have_nothing_in_common(one: Any, other: Any) -> None:
    assert compare(section(*one), section(*other), LIMIT, FIELDS) is None


def test_a_section_with_a_body_is_left_to_the_parser() -> None:
    def posted(number: int) -> Any:
        data = head(b"Host: a", b"Content-Length: 1", b"Id: %d" % number)
        pairs = ((b"host", b"a"), (b"content-length", b"1"), (b"id", b"%d" % number))
        return learn(data + b"x", pairs, LIMIT)

    assert posted(1).length == 1
    assert compare(posted(1), posted(2), LIMIT, FIELDS) is None


def test_a_section_with_folded_lines_is_left_to_the_parser() -> None:
    data = head(b"Host: a", b"A: 1", b" 2", b"Id: 1")
    assert learn(data, ((b"host", b"a"), (b"a", b"1 2"), (b"id", b"1")), LIMIT) is None


def feed(
    implementation: str, requests: list[bytes], learns: bool = True, waits: bool = True, **options: Any
) -> tuple[Any, Answer, list[bytes]]:
    """The connection, what the application saw, and the targets that have been parsed."""
    app = Answer()
    parsed = []

    class Watched(IMPLEMENTATIONS[implementation]):  # type: ignore[misc]
        __slots__ = ()

        def on_head(self, method: bytes, target: bytes, *args: Any) -> bool:
            parsed.append(target)
            return bool(super().on_head(method, target, *args))

    async def go() -> Any:
        protocol = connect(Watched, app, loop=TaskLoop(), **options)
        if not learns:
            protocol._last_section = -1
        for data in requests:
            protocol.data_received(data)
            if waits:
                await settle()
        await settle(30)
        return protocol

    return asyncio.run(go()), app, parsed


def numbered(count: int, *behind: bytes) -> list[bytes]:
    return [
        head(b"Host: a", b"Id: %d" % 10**i, b"Accept: x", *behind, first=b"GET /%d HTTP/1.1" % i)
        for i in range(count)
    ]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_heads_that_vary_are_parsed_until_it_is_known_where(implementation: str) -> None:
    protocol, app, parsed = feed(implementation, numbered(PATIENCE + 10))
    assert parsed == [b"/%d" % i for i in range(PATIENCE + 2)]
    assert [scope["path"] for scope in app.scopes] == [f"/{i}" for i in range(PATIENCE + 10)]
    assert [dict(scope["headers"])[b"id"] for scope in app.scopes] == [
        b"%d" % 10**i for i in range(PATIENCE + 10)
    ]
    assert protocol.transport.buffer.count(b"HTTP/1.1 200") == PATIENCE + 10


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_connection_gives_up_to_look_for_what_varies(implementation: str) -> None:
    unlike = [head(b"Host: h%d" % i, b"A: %d" % i) for i in range(PATIENCE + TRIES + 1)]
    protocol, app, parsed = feed(implementation, [*unlike, *numbered(PATIENCE + 10)])
    assert len(parsed) == len(app.scopes) == len(unlike) + PATIENCE + 10
    assert protocol._varying is protocol._repeated is None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_another_line_that_varies_is_found(implementation: str) -> None:
    first = numbered(PATIENCE + 3)
    second = [head(b"Host: a", b"Accept: x", b"Referer: /%d" % i) for i in range(10)]
    _, app, parsed = feed(implementation, [*first, *second])
    assert len(app.scopes) == len(first) + 10
    assert len(parsed) == PATIENCE + 2 + 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_is_of_use_now_and_then_is_kept(implementation: str) -> None:
    requests = numbered(PATIENCE + 2)
    hits = 3 * TRIES
    for i in range(hits):
        requests.append(head(b"Host: a", b"X-Forwarded-For: %d" % i, b"Accept: x"))
        requests.append(head(b"Host: a", b"Id: again%d" % i, b"Accept: x"))
    _, app, parsed = feed(implementation, requests)
    assert len(app.scopes) == len(requests)
    assert len(parsed) == len(requests) - hits


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_body_that_comes_later_is_waited_for(implementation: str) -> None:
    posts = [
        head(b"Host: a", b"Content-Length: 3", b"Id: %d" % i, first=b"POST / HTTP/1.1") for i in range(20)
    ]
    parts = [*(post + b"abc" for post in posts), posts[0], b"\r\n\r", head(b"Host: a")]
    protocol, app, _ = feed(implementation, parts)
    assert len(app.scopes) == len(posts) + 2
    assert protocol.transport.buffer.count(b"HTTP/1.1 200") == len(posts) + 2


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_proxy_is_believed_as_before(implementation: str) -> None:
    requests = [head(b"Host: a", b"X-Forwarded-For: 10.0.0.9", b"Id: %d" % i) for i in range(PATIENCE + 5)]
    _, app, parsed = feed(implementation, requests, proxy_headers=True, forwarded_allow_ips="*")
    assert len(parsed) < len(requests)
    assert {scope["client"][0] for scope in app.scopes} == {"10.0.0.9"}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_response_to_head_has_no_body(implementation: str) -> None:
    requests = [
        head(b"Host: a", b"Id: %d" % 10**i, first=b"HEAD /%d HTTP/1.1" % i) for i in range(PATIENCE + 5)
    ]
    seen, _, parsed = feed(implementation, requests)
    other, _, _ = feed(implementation, requests, learns=False)
    assert len(parsed) < len(requests)
    assert bytes(seen.transport.buffer) == bytes(other.transport.buffer)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_limit_of_fields_is_that_of_the_parser(implementation: str) -> None:
    more = head(b"Host: a", b"Id: 5", b"B: 1", b"Accept: x")
    _, app, _ = feed(implementation, [*numbered(PATIENCE + 4), more], limit_request_fields=4)
    assert len(app.scopes) == PATIENCE + 5
    protocol, app, _ = feed(implementation, [*numbered(PATIENCE + 4), more], limit_request_fields=3)
    assert len(app.scopes) == PATIENCE + 4
    assert b"HTTP/1.1 431" in protocol.transport.buffer


FIRST_LINES = st.sampled_from(
    [
        *[b"GET /plain?%d HTTP/1.1" % i for i in range(6)],
        b"GET / HTTP/1.1",
        b"GET /a%20b?c HTTP/1.1",
        b"HEAD /x HTTP/1.1",
        b"POST /x HTTP/1.1",
        b"GET / HTTP/1.0",
        b"OPTIONS * HTTP/1.1",
        b"GET http://other/ HTTP/1.1",
        b"GET /#a HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"GET / HTTP/1.1\r\nAccept: y",
        b"GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1",
        b"GET /" + b"l" * MAX_LINE + b" HTTP/1.1",
        b"",
    ]
)
BETWEEN = st.one_of(
    st.text('ab: ;="~', max_size=8).map(lambda value: f"Id: a{value}b".encode()),
    st.sampled_from(ODD),
    st.sampled_from([b"Id: 7", b'New: a, b;c="d"', b"N%d: 1" % 5, b"X_Y: 1"]),
    st.binary(max_size=12).map(lambda value: b"Id: " + value),
    st.text('aZ!:"(\t \r\n\x00-_', max_size=8).map(lambda name: name.encode() + b": 1"),
)
AROUND = st.sampled_from(
    [
        ([b"Host: a"], [b"Accept: x"]),
        ([], [b"HOST:a", b"x:"]),
        ([b"Host: a", b"Cookie: a", b"Cookie: b"], []),
        ([b"Host: a", b"Connection: keep-alive"], [b"X: y "]),
        ([b"Host: a"], [b"Content-Length: 0"]),
        ([b"Host: a", b"Content-Length: 3"], []),
        ([b"Host: a", b"X-Forwarded-For: 10.0.0.1"], [b"X: \xe4"]),
        ([b"Host: a"], [b"Proxy-Connection: keep-alive"]),
        ([b"Host: a"], [b"Upgrade: x", b"Connection: upgrade"]),
    ]
)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=300, deadline=None)
@given(
    around=AROUND,
    others=st.lists(st.tuples(FIRST_LINES, st.lists(BETWEEN, max_size=3)), min_size=1, max_size=3),
    rest=st.sampled_from([b"", b"", b"abc", head(b"Host: a")]),
    waits=st.booleans(),
)
@example(
    around=([b"Host: a"], [b"Accept: x"]),
    others=[
        (b"GET /plain?0 HTTP/1.1", [b"Proxy-Connection: close"]),
        (b"GET /plain?0 HTTP/1.1", [b"Id: ab"]),
    ],
    rest=b"",
    waits=True,
)
def test_known_or_not_the_answer_is_the_same(
    implementation: str, around: Any, others: Any, rest: bytes, waits: bool
) -> None:
    front, back = around
    body = b"abc" if b"Content-Length: 3" in front else b""
    requests = [head(*front, b"Id: %d" % 10**i, *back) + body for i in range(PATIENCE + 3)]
    requests += [head(*front, *between, *back, first=first) + body for first, between in others]
    requests[-1] += rest
    seen, app, _ = feed(implementation, requests, True, waits)
    parsed, other, _ = feed(implementation, requests, False, waits)
    assert app.scopes == other.scopes
    assert bytes(seen.transport.buffer) == bytes(parsed.transport.buffer)
    assert seen.transport.closed == parsed.transport.closed


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("behind", [b"", head(b"Host: a"), b"\0\r\n\r\n"])
def test_what_closes_closes(implementation: str, behind: bytes, caplog: pytest.LogCaptureFixture) -> None:
    one, other = (section(b"Host: a", b"Id: %d" % i, b"Connection: close") for i in range(2))
    known = compare(one, other, LIMIT, FIELDS)
    assert known is not None
    app = Answer()

    async def go() -> Any:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop())
        protocol._silent = False
        protocol._varying = known
        protocol.data_received(head(b"Host: a", b"Id: 5", b"Connection: close"))
        protocol.data_received(behind)
        await settle()
        return protocol

    protocol = asyncio.run(go())
    assert len(app.scopes) == 1
    assert protocol.transport.closed
    assert not caplog.records  # nothing behind it is looked at
    assert protocol.transport.buffer.count(b"HTTP/1.1 ") == 1
