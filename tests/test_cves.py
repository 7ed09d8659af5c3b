"""Published weaknesses of servers and parsers of this kind, each by its number: that they cannot happen here.

One line says what each was, in general words: it is history, and its programs have been mended. What is sent is the
attack as it was published, or the shortest request of its kind. Requests run on both HTTP implementations, in one packet
and byte by byte, messages of WebSockets on both engines.

Looked through: what is published of gunicorn, uvicorn, waitress, hypercorn, daphne, h11, httptools and llhttp, websockets,
wsproto, Werkzeug's server, Tornado, aiohttp's server, Twisted, eventlet, gevent, meinheld, and of Node.js, puma, Go and
HAProxy where it is about reading HTTP/1.1. Left out is what there is nothing of here: files that are served (CVE-2024-23334,
CVE-2023-28370), forms and multipart bodies (CVE-2023-25577, CVE-2023-46136, CVE-2024-30251, CVE-2025-47287, CVE-2026-31958),
cookies and parameters that are taken apart (CVE-2024-52804, CVE-2025-67726), compressed bodies (CVE-2025-69223), checking of
passwords (CVE-2021-33880), consoles for debugging (CVE-2024-34069), and HTTP/2's streams (CVE-2023-44487, whose preface is
refused below).
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
from typing import Any

import pytest

from tests.protocols.http.cases import Case, play
from tests.protocols.http.harness import (
    GET,
    IMPLEMENTATIONS,
    Answer,
    connect,
    read_responses,
    request,
    settle,
)
from tests.protocols.websockets.frames import BINARY, CLOSE, CONT, RSV1, deflated, frame
from tests.protocols.websockets.peer import Peer
from uvicorn._kernel import connections_at_most
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import AccessFormatter
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.middleware.wsgi import build_environ
from uvicorn.protocols._access import RecordAccessLog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

ENGINES = {"websockets": WebSocketsSansIOProtocol, "wsproto": WSProtocol}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.org\r\n\r\n"
LAST = b"0\r\n\r\n" + SMUGGLED


def post(*fields: str, body: bytes = b"", line: str = "POST / HTTP/1.1") -> bytes:
    return request(line, *fields, body=body)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


# --- requests that were understood in more than one way -----------------------------------------------

# number: (whose, what it was), then what is sent. Refused, closed, and nothing of it served.
REFUSED: dict[str, tuple[str, bytes]] = {
    # gunicorn, waitress, twisted, aiohttp, eventlet and other servers in Python
    "CVE-2019-16785": ("a bare LF ended a line", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\nhello"),
    "CVE-2019-16786": ("unknown codings before chunked", post("Transfer-Encoding: gzip, chunked", body=LAST)),
    "CVE-2019-16789": (
        "a vertical tab counted as white space around a coding",
        post("Content-Length: 5", "Transfer-Encoding: \x0bchunked", body=LAST),
    ),
    "CVE-2019-16792": ("two lengths became 0", post("Content-Length: 45", "Content-Length: 45", body=SMUGGLED)),
    "CVE-2020-10108": ("of two lengths the first counted", post("Content-Length: 0", "Content-Length: 45", body=SMUGGLED)),
    "CVE-2020-10109": (
        "a length beside chunked counted",
        post("Content-Length: 5", "Transfer-Encoding: chunked", body=LAST),
    ),
    "CVE-2022-24761-plus": ("int() took a sign", post("Content-Length: +5", body=b"hello")),
    "CVE-2022-24761-hex": ("int() took a prefix", chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    "CVE-2022-24801-underscore": ("int() took underscores", post("Content-Length: 4_5", body=SMUGGLED)),
    "CVE-2022-24801-minus": ("int() took a sign in chunk sizes", chunked(b"-0\r\n\r\n" + SMUGGLED)),
    "CVE-2022-24801-space": ("white space inside a chunk size", chunked(b"5 5\r\nhello\r\n0\r\n\r\n")),
    "CVE-2023-37276": ("a CR in a value ended the field", post("X-Abc: \rxTransfer-Encoding: chunked", body=b"1\r\nA\r\n" + LAST)),
    "CVE-2023-41419": ("a chunk's line was not read to the letter", chunked(b"5\nhello\r\n" + LAST)),
    "CVE-2023-47627-digits": ("int() took digits of other scripts", post("Content-Length: 4\xd9\xa5", body=SMUGGLED)),
    "CVE-2023-47627-name": ("a name with white space", post("Content-Length : 45", body=SMUGGLED)),
    "CVE-2023-47627-nul": ("NUL in a value", post("X-A: b\x00c")),
    "CVE-2023-47641": ("whatever contains chunked is chunked", post("Transfer-Encoding: chunked123", "Content-Length: 5", body=LAST)),
    "CVE-2023-49081": ("anything passed for a version", b"GET / HTTP/1.1\x0bX: y\r\nHost: a\r\n\r\n"),
    "CVE-2023-49082": ("anything passed for a method", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CVE-2024-1135": (
        "of several codings the first counted",
        post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Length: 5", body=LAST),
    ),
    "CVE-2024-6827": ("an invalid coding left the length in charge", post("Transfer-Encoding: chunked, x", "Content-Length: 5", body=LAST)),
    "CVE-2024-52304": ("a LF in a chunk extension", chunked(b"5;a\nhello\r\n" + LAST)),
    "CVE-2025-43859": ("anything passed for the line end behind chunk data", chunked(b"5\r\nhelloXX" + LAST)),
    "CVE-2025-53643": ("trailers were the next request", chunked(b"0\r\n" + SMUGGLED)),
    "CVE-2025-58068": ("trailers were the next request", chunked(b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
    "CVE-2025-69224": (
        "lower() made letters of others: a Kelvin sign a k",
        post("Transfer-Encoding: chun\xe2\x84\xaaed", "Content-Length: 5", body=LAST),
    ),
    "GHSA-753j-mpmx-qq6g": (
        "two equal lines of codings counted as none",
        post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=LAST),
    ),
    "GHSA-qppv-j76h-2rpx-minus": ("int() took a sign in a length", post("Content-Length: -0", body=SMUGGLED)),
    "GHSA-qppv-j76h-2rpx-underscore": ("int() took underscores in chunk sizes", chunked(b"0_0\r\n\r\n" + SMUGGLED)),
    "CVE-2020-7658": (
        "a coding and a length, of which the length counted",
        post("Content-Length: 50", "Transfer-Encoding: chunked", body=LAST),
    ),
    "CVE-2024-23829": ("names with white space behind them", b"GET / HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n"),
    # Node.js and llhttp
    "CVE-2018-7159": ("white space inside a length", post("Content-Length: 4 5", body=SMUGGLED)),
    "CVE-2019-15605": ("an invalid coding was passed over", post("Transfer-Encoding: chunkedchunked", "Content-Length: 5", body=LAST)),
    "CVE-2020-8287": (
        "of two lines of codings one counted",
        post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked-false", body=LAST),
    ),
    "CVE-2021-22959": ("white space before the colon", post("Content-Length : 5", body=b"hello")),
    "CVE-2021-22960": ("chunk extensions were not read", chunked(b"5;a\x00\nhello\r\n" + LAST)),
    "CVE-2022-32213": ("codings were not validated", post("Transfer-Encoding: chunkedx", body=LAST)),
    "CVE-2022-32214": ("a LF alone ended a header field", b"GET / HTTP/1.1\r\nHost: a\nDummy: x\r\n\r\n" + SMUGGLED),
    "CVE-2022-32215": ("a coding on a folded line", post("Transfer-Encoding: chunked", " , identity", body=LAST)),
    "CVE-2022-35256": ("a header without its CR", post("Transfer-Encoding: x\nX: chunked", body=LAST)),
    "CVE-2023-30589": ("a CR alone ended a header field", post("X: \rTransfer-Encoding: chunked", body=LAST)),
    "CVE-2024-27982": ("a blank before Content-Length", b"POST / HTTP/1.1\r\n Content-Length: 45\r\nHost: a\r\n\r\n" + SMUGGLED),
    "CVE-2025-23167": ("CR LF CR and any byte ended the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rX" + SMUGGLED),
    # puma, and servers and proxies in other languages
    "CVE-2021-41136": ("a LF in a value ended the field", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    "CVE-2022-24790": ("codings of several lines", post("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", body=LAST)),
    "CVE-2023-40175-trailer": ("trailers were not read to their end", chunked(b"0\r\nX: y\r\n" + SMUGGLED)),
    "CVE-2023-40175-length": ("an empty length was 0", post("Content-Length:", body=SMUGGLED)),
    "CVE-2021-21299": ("of two lines of codings the last counted", post("Transfer-Encoding: chunked", "Transfer-Encoding: x", body=LAST)),
    "CVE-2021-32714": ("a chunk size wrapped around", chunked(b"10000000000000000\r\n\r\n" + SMUGGLED)),
    "CVE-2021-32715": ("a sign in a length", post("Content-Length: +45", body=SMUGGLED)),
    "CVE-2023-40225": ("an empty length before a real one", post("Content-Length:", "Content-Length: 45", body=SMUGGLED)),
    "CVE-2025-22871": ("a LF alone ended a chunk's line", chunked(b"5\nhello\r\n" + LAST)),
    "CVE-2025-55315": ("a LF in a chunk extension ended its line", chunked(b"5;\nhello\r\n" + LAST)),
    "CVE-2025-58056": ("a LF in a chunk extension ended its line", chunked(b"0;a\n\r\n" + SMUGGLED)),
    "CVE-2019-18277": (
        "a vertical tab before a coding hid it",
        post("Content-Length: 5", "Transfer-Encoding:\x0bchunked", body=LAST),
    ),
    "CVE-2023-25725": (
        "an empty name ended the list of header fields",
        b"POST / HTTP/1.1\r\nHost: a\r\n: x\r\nContent-Length: 45\r\n\r\n" + SMUGGLED,
    ),
    "CVE-2023-44487": (
        "streams of HTTP/2 that are opened and reset: it is not spoken here",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + SMUGGLED,
    ),
    # hosts and addresses
    "CVE-2026-48710": ("a Host that is none went into URLs", b"GET / HTTP/1.1\r\nHost: a/../admin?x\r\n\r\n"),
    "CVE-2022-39348": ("markup in Host came back in an error page", b"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n"),
    "CVE-2026-44546": (
        "separators that a second parser took for line ends",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\x1cEvil: 1\x1dEvil: 2\x1eEvil: 3\x0bEvil: 4\x0cEvil: 5\r\n\r\n",
    ),
}  # fmt: skip


@pytest.fixture(params=IMPLEMENTATIONS)
def protocol_class(request: pytest.FixtureRequest) -> Any:
    return IMPLEMENTATIONS[request.param]


@pytest.mark.parametrize("run", ["whole", "answered in between"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("number", REFUSED)
def test_request_is_refused_and_nothing_of_it_is_served(number: str, implementation: str, run: str) -> None:
    _, data = REFUSED[number]
    answer, app, written = asyncio.run(
        play(IMPLEMENTATIONS[implementation], Case(data, {}, None, False, {}), run)
    )
    assert [status for status in answer.responses if status < 400] == []
    assert len(answer.responses) == 1
    assert answer.closed
    assert all(call.endswith(" cut") for call in answer.app)
    assert not any("smuggled" in scope["path"] for scope in app.scopes)
    body = written.partition(b"\r\n\r\n")[2]
    assert b"script" not in body


# What is served, and must be served as this and nothing else: calls of the application, in order.
SERVED: dict[str, tuple[str, bytes, list[str]]] = {
    "CVE-2019-15606": (
        "white space behind a value was part of it",
        post("Content-Length: 5 \t", body=b"hello"),
        ['POST / "hello"'],
    ),
    "CVE-2021-40346": (
        "a long name that an eight-bit length made Content-Length",
        request("GET / HTTP/1.1", "Content-Length0" + "a" * 255 + ":", "X: y") + SMUGGLED,
        ['GET / ""', 'GET /smuggled ""'],
    ),
    "CVE-2024-45614": (
        "names with underscores went over those with dashes",
        request("GET / HTTP/1.1", "Content_Length: 45", "Transfer_Encoding: chunked") + SMUGGLED,
        ['GET / ""', 'GET /smuggled ""'],
    ),
    "CVE-2020-28724": (
        "a path with two slashes was taken for a host; likewise CVE-2021-28861",
        request("GET //evil.example/%2f.. HTTP/1.1"),
        ['GET //evil.example/%2f.. ""'],
    ),
    "CVE-2022-29361": (
        "a body that the application had not read was the next request",
        request("GET /unread HTTP/1.1", "Content-Length: 45", body=SMUGGLED),
        ["GET /unread unread"],
    ),
    "CVE-2025-69225": (
        "digits of other scripts in Range",
        request("GET / HTTP/1.1", "Range: bytes=\xd9\xa0-\xd9\xa5"),
        ['GET / ""'],
    ),
    "CVE-2024-41671": (
        "pipelined requests were answered out of order; CVE-2023-46137 before",
        request("GET /a HTTP/1.1") + post("Content-Length: 5", body=b"hello") + request("GET /c HTTP/1.1"),
        ['GET /a ""', 'POST / "hello"', 'GET /c ""'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", ["whole", "answered in between"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("number", SERVED)
def test_request_is_what_it_says(number: str, implementation: str, run: str) -> None:
    _, data, calls = SERVED[number]
    answer, _, _ = asyncio.run(play(IMPLEMENTATIONS[implementation], Case(data, {}, None, False, {}), run))
    assert answer.app == calls
    assert answer.responses == [200] * len(calls)


# CVE-2024-49768 (waitress): a refused request was answered, and what came behind it was served all the same.
def test_cve_2024_49768_nothing_is_served_behind_a_refusal(protocol_class: Any) -> None:
    async def main() -> None:
        app = Answer()
        protocol = connect(protocol_class, app, now=1.0, loop=asyncio.get_running_loop())
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        protocol.data_received(SMUGGLED)
        await settle()
        assert app.scopes == []
        assert [response.status for response in read_responses(protocol.transport.buffer)] == [400]

    asyncio.run(main())


# --- what cost too much -------------------------------------------------------------------------------

# CVE-2020-5236 (waitress): a header made a regular expression backtrack, for ever. CVE-2025-69229 (aiohttp): many chunks,
# each of them expensive. CVE-2024-22019 (Node.js), CVE-2023-39326 (Go), CVE-2024-21647 (puma): chunk extensions without
# end, of which nothing reaches anybody.
COSTLY: dict[str, tuple[bytes, int]] = {
    "CVE-2020-5236": (request("GET / HTTP/1.1", "X:" + " \t" * 30000 + "y"), 200),
    "CVE-2020-5236-host": (b"GET / HTTP/1.1\r\nHost: " + b"a." * 120 + b"[\r\n\r\n", 400),
    "CVE-2018-12121": (request("GET / HTTP/1.1", "X: " + "y" * 8_000_000), 431),
    "CVE-2025-67725": (request("GET / HTTP/1.1", *["X: " + "y" * 490] * 250), 200),
    "CVE-2025-69229": (chunked(b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"), 200),
    "CVE-2024-22019": (chunked(b"5;" + b"x" * 1_000_000), 400),
    "CVE-2023-39326": (chunked(b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n" * 20_000), 400),
    "CVE-2024-21647": (chunked(b"0\r\n" + b"X: y\r\n" * 100_000), 400),
}  # fmt: skip


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("number", COSTLY)
def test_cost_is_bounded(number: str, implementation: str) -> None:
    data, status = COSTLY[number]
    began = time.process_time()
    settings = {"limit_request_head": 131072, "h11_max_incomplete_event_size": 131072}
    answer, _, _ = asyncio.run(
        play(IMPLEMENTATIONS[implementation], Case(data, {}, None, False, settings), "answered in between")
    )
    assert answer.responses == [status]
    # Linear: a tenth of it on an ordinary machine. What was published took minutes.
    assert time.process_time() - began < 20


# CVE-2007-6750 (slowloris), CVE-2018-12122 and CVE-2019-5737 (Node.js): heads that never end hold every connection. Tested with sockets in tests/e2e/test_limits.py.
def test_cve_2007_6750_a_head_that_never_ends_has_an_end(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = connect(protocol_class, Answer(), now=100.0, loop=asyncio.get_running_loop())
        protocol.data_received(b"GET / HTTP/1.1\r\n")
        for second in range(1, 60):
            protocol.server_state.now = 100.0 + second
            protocol.data_received(b"X: y\r\n")
            assert protocol.deadline == 160.0  # no byte moves it
        protocol.server_state.now = 160.0
        protocol.expire(160.0)
        assert b" 408 " in protocol.transport.buffer

    asyncio.run(main())


# CVE-2021-29509 and CVE-2019-16770 (puma): kept-alive connections held every thread. CVE-2024-49769 (waitress): half-open
# ones kept the loop busy. Here a connection is none of a thread's, and it has a limit that leaves descriptors.
def test_cve_2021_29509_connections_leave_descriptors() -> None:
    resource = pytest.importorskip("resource")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert soft == resource.RLIM_INFINITY or connections_at_most() < soft


# CVE-2024-37890 (ws): more header fields in a handshake than a limit allowed crashed the server.
def test_cve_2024_37890_too_many_fields_are_refused(protocol_class: Any) -> None:
    async def main() -> None:
        protocol = connect(
            protocol_class, Answer(), ws="websockets-sansio", now=1.0, loop=asyncio.get_running_loop()
        )
        fields = ["Upgrade: websocket", "Connection: Upgrade", *(f"X-{number}: y" for number in range(300))]
        protocol.data_received(request("GET / HTTP/1.1", *fields))
        assert [response.status for response in read_responses(protocol.transport.buffer)] == [431]

    asyncio.run(main())


# --- what an application sends, and what goes to the log ----------------------------------------------


# CVE-2020-7695 (uvicorn), CVE-2018-1000164 (gunicorn), CVE-2012-2374 (Tornado), CVE-2020-5247 and CVE-2020-5249 (puma): CR and LF in the fields of
# a response made a second one of it.
@pytest.mark.parametrize(
    "field",
    [
        (b"location", b"/\r\nSet-Cookie: a=b"),
        (b"location", b"/\nSet-Cookie: a=b"),
        (b"location", b"/\rSet-Cookie: a=b"),
        (b"x\r\nSet-Cookie", b"a=b"),
        (b"x", b"y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ],
)
def test_cve_2020_7695_response_is_not_split(protocol_class: Any, field: tuple[bytes, bytes]) -> None:
    async def main() -> None:
        app = Answer(headers=[(b"content-length", b"2"), field])
        protocol = connect(protocol_class, app, now=1.0, loop=asyncio.get_running_loop())
        protocol.data_received(GET)
        await settle()
        responses = read_responses(protocol.transport.buffer)
        assert [response.status for response in responses] == [500]
        assert "set-cookie" not in responses[0].headers

    asyncio.run(main())


# CVE-2025-67724 (Tornado): the text behind the status was the application's, and went out as it was.
@pytest.mark.parametrize("status", ["200 OK\r\nSet-Cookie: a=b", "200", b"200 OK", 200.5, True, None])
def test_cve_2025_67724_status_is_a_number(protocol_class: Any, status: Any) -> None:
    async def main() -> None:
        protocol = connect(protocol_class, Answer(status=status), now=1.0, loop=asyncio.get_running_loop())
        protocol.data_received(GET)
        await settle()
        responses = read_responses(protocol.transport.buffer)
        assert [response.status for response in responses] == [500]
        assert "set-cookie" not in responses[0].headers

    asyncio.run(main())


# CVE-2022-31015 (waitress): a connection that was lost while its response was written ended the server.
def test_cve_2022_31015_connection_that_is_lost_takes_nobody_along(protocol_class: Any) -> None:
    async def main() -> None:
        goes_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await goes_on.wait()
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        protocol = connect(protocol_class, app, now=1.0, loop=asyncio.get_running_loop())
        protocol.data_received(GET)
        await settle()
        protocol.transport.close()
        protocol.connection_lost(ConnectionResetError())
        goes_on.set()
        await settle()
        assert protocol.server_state.tasks == set()

    asyncio.run(main())


# CVE-2020-7695 once more: the same through what an application accepts a WebSocket with.
@pytest.mark.parametrize("engine", ENGINES)
def test_cve_2020_7695_handshake_is_not_split(engine: str) -> None:
    async def main() -> None:
        peer = Peer(ENGINES[engine])
        await peer.receive()
        with pytest.raises(RuntimeError):
            await peer.send("accept", headers=[(b"x", b"y\r\nSet-Cookie: a=b")])
        await peer.end()
        assert b"Set-Cookie" not in peer.transport.buffer

    asyncio.run(main())


# CVE-2020-7694 (uvicorn): the decoded path of a request wrote lines and terminal sequences into the access log.
def test_cve_2020_7694_access_log_is_not_written_by_clients(protocol_class: Any) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(AccessFormatter(LOGGING_CONFIG["formatters"]["access"]["fmt"], use_colors=True))
    logger = logging.getLogger("tests.cves.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler]

    async def main() -> None:
        protocol = connect(protocol_class, Answer(), now=1.0, loop=asyncio.get_running_loop())
        protocol.access = RecordAccessLog(logger)
        protocol.data_received(
            request("GET /a%0a%1b[2Jb%c2%9b?c=%0d%0aINFO:%20forged HTTP/1.1", "X-Forwarded-For: \x1b")
        )
        protocol.data_received(request("GET /a%0a%1b[2Jb%c2%9b?c=%0d%0aINFO:%20forged HTTP/1.1"))
        await settle()

    asyncio.run(main())
    # The formatter's own colours aside.
    text = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())
    assert text.count("\n") <= 1


# CVE-2025-47287 (Tornado), CVE-2025-69230 (aiohttp): each of many mistakes in one request wrote a line of its own.
def test_cve_2025_69230_a_request_writes_one_line_at_most(
    protocol_class: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        protocol = connect(protocol_class, Answer(), now=1.0, loop=asyncio.get_running_loop())
        protocol.data_received(request("GET / HTTP/1.1", *["Cookie: \xff=\xfe; a b=c"] * 200))
        await settle()
        assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
        protocol.data_received((b"\x01\x02bad\r\n" * 1000 + b"\r\n") * 50)
        await settle()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    assert len([record for record in caplog.records if record.name.startswith("uvicorn")]) == 1


# CVE-2024-45614 (puma) once more: in the environment of WSGI, dashes and underscores are the same.
def test_cve_2024_45614_underscores_do_not_reach_wsgi() -> None:
    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [
            (b"x-forwarded-for", b"10.0.0.1"),
            (b"x_forwarded_for", b"6.6.6.6"),
            (b"x_user", b"root"),
        ],
    }
    message: Any = {"type": "http.request"}
    environ = build_environ(scope, message, io.BytesIO())
    assert environ["HTTP_X_FORWARDED_FOR"] == "10.0.0.1"
    assert "HTTP_X_USER" not in environ


# And for the proxy's own fields.
def test_cve_2024_45614_underscores_are_no_proxys_fields() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))

    headers = [(b"x_forwarded_for", b"6.6.6.6"), (b"x_forwarded_proto", b"https")]
    scope: Any = {"type": "http", "client": ("127.0.0.1", 1), "scheme": "http", "headers": headers}
    nothing: Any = None
    asyncio.run(ProxyHeadersMiddleware(app, "127.0.0.1")(scope, nothing, nothing))
    assert seen == [(("127.0.0.1", 1), "http")]


# --- WebSockets ---------------------------------------------------------------------------------------

DEFLATE = [(b"sec-websocket-extensions", b"permessage-deflate")]


async def opened(engine: str, **options: Any) -> Peer:
    peer = Peer(ENGINES[engine], **options)
    await peer.accept()
    return peer


def close_code(peer: Peer) -> int:
    last = peer.frames()[-1]
    assert last.opcode == CLOSE
    return int.from_bytes(last.payload[:2], "big")


# CVE-2018-1000518 (websockets): a message was inflated without a bound; here the bound is for the sum of its fragments.
@pytest.mark.parametrize("fragments", [1, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_cve_2018_1000518_inflating_has_a_bound(engine: str, fragments: int) -> None:
    async def main() -> None:
        peer = await opened(engine, headers=DEFLATE, ws_max_size=100_000)
        data = deflated(b"\0" * 10_000_000)
        size = len(data) // fragments + 1
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for number, piece in enumerate(pieces):
            if not peer.transport.closed:
                first, last = number == 0, number == len(pieces) - 1
                peer.connection.data_received(
                    frame(BINARY if first else CONT, piece, last, rsv=RSV1 if first else 0)
                )
        assert close_code(peer) == 1009

    asyncio.run(main())


# CVE-2026-44545 (daphne), CVE-2021-21419 (eventlet): messages and frames of any size were gathered in memory.
@pytest.mark.parametrize("declared", [102_200, 2**40, 2**63 - 1])
@pytest.mark.parametrize("engine", ENGINES)
def test_cve_2026_44545_size_is_refused_when_it_is_declared(engine: str, declared: int) -> None:
    async def main() -> None:
        peer = await opened(engine, ws_max_size=100_000)
        peer.connection.data_received(frame(BINARY, b"x", declared=declared, length_bytes=8))
        assert close_code(peer) == 1009

    asyncio.run(main())


# CVE-2026-48779 (ws), CVE-2026-12151 (undici), CVE-2026-65623 (bandit): millions of tiny fragments, each kept or counted.
@pytest.mark.parametrize("engine", ENGINES)
def test_cve_2026_48779_fragments_cost_what_they_weigh(engine: str) -> None:
    async def main() -> None:
        peer = await opened(engine, ws_max_size=100_000)
        began = time.process_time()
        peer.connection.data_received(frame(BINARY, b"x", final=False))
        many = frame(CONT, b"x", final=False) * 1000
        for _ in range(99):
            peer.connection.data_received(many)
        assert not peer.transport.closed
        peer.connection.data_received(many)
        assert close_code(peer) == 1009
        assert time.process_time() - began < 20

    asyncio.run(main())


def test_every_number_is_one() -> None:
    numbers = [*REFUSED, *SERVED, *COSTLY]
    pattern = r"CVE-[0-9]{4}-[0-9]{4,}|GHSA(?:-[a-z0-9]{4}){3}"
    assert all(re.match(pattern, number) for number in numbers)
