"""The codec over httptools: what stands around the parser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocols.http.harness import GET, Listener, request
from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.http.httptools_impl import SLICE, HttpToolsCodec

GET_EVENTS = [("head", b"GET", b"/", "1.1"), ("end",)]
CHUNKED = request("POST / HTTP/1.1", "Transfer-Encoding: chunked")


def codec_of(listener: Listener) -> Any:
    codec: Any = HttpToolsCodec(listener)  # type: ignore[arg-type]
    return codec


def fed(*packets: bytes, listener: Listener | None = None) -> Listener:
    listener = listener or Listener()
    codec = codec_of(listener)
    for packet in packets:
        codec.feed(packet)
    return listener


def status_of(*packets: bytes, limit: int = 131072) -> int:
    """The status that these packets are refused with; 200 where they are not."""
    try:
        fed(*packets, listener=Listener(limit))
    except Refused as exc:
        return exc.status
    return 200


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# --- what is told -----------------------------------------------------------------------------


def test_request_is_told_as_head_body_and_end() -> None:
    listener = fed(request("POST /a?b HTTP/1.1", "X-A:  b\t ", "Content-Length: 5", body=b"hello"))
    assert listener.events == [("head", b"POST", b"/a?b", "1.1"), ("body", b"hello"), ("end",)]
    assert listener.headers == [[(b"host", b"example.org"), (b"x-a", b"b"), (b"content-length", b"5")]]


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_behind_the_last_request_nothing_is_told_however_it_is_cut(size: int) -> None:
    class Last(Listener):
        """Knows of a reason to take a request for the last one that the parser does not know of."""

        def on_head(self, *head: Any) -> bool:
            taken = super().on_head(*head)
            self.client_goes_on = False
            return taken

    post = request("POST / HTTP/1.1", "Content-Length: 5", body=b"hello")
    assert fed(*cut(GET + post + b"no request", size), listener=Last()).events == GET_EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 1000])
def test_request_is_told_the_same_however_it_is_cut(size: int) -> None:
    data = request("POST /a HTTP/1.1", "X-A: b", "Content-Length: 5", body=b"hello") + GET
    assert fed(*cut(data, size)).events == [
        ("head", b"POST", b"/a", "1.1"),
        ("body", b"hello"),
        ("end",),
        *GET_EVENTS,
    ]


def test_trailers_are_no_headers() -> None:
    listener = fed(CHUNKED + b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n" + GET)
    assert listener.events == [("head", b"POST", b"/", "1.1"), ("body", b"x"), ("end",), *GET_EVENTS]
    assert listener.headers[1] == [(b"host", b"example.org")]


def test_nothing_is_parsed_behind_a_request_that_closes() -> None:
    close = request("GET / HTTP/1.1", "Connection: close")
    for packets in ([close + GET], [close, GET], [close + b"garbage"], [close, b"garbage" * 5000]):
        assert fed(*packets).events == GET_EVENTS


# --- many requests at once --------------------------------------------------------------------


def test_large_packet_is_parsed_in_slices_while_there_is_room() -> None:
    listener = Listener()
    codec = codec_of(listener)
    count = 4 * SLICE // len(GET)
    data = GET * count

    taken = len(GET_EVENTS) * (SLICE // len(GET))
    original = listener.on_head

    def full_after_the_first_slice(*args: Any) -> bool:
        listener.pipeline_full = True
        return original(*args)

    listener.on_head = full_after_the_first_slice  # type: ignore[method-assign]
    codec.feed(data)
    assert len(listener.events) == taken
    codec.feed(GET)  # waits behind what is kept
    codec.resume()  # still full
    assert len(listener.events) == taken
    listener.on_head = original  # type: ignore[method-assign]
    listener.pipeline_full = False
    codec.resume()
    assert listener.events == GET_EVENTS * (count + 1)
    codec.resume()
    assert len(listener.events) == len(GET_EVENTS) * (count + 1)


def test_body_is_not_sliced() -> None:
    listener = fed(request("POST / HTTP/1.1", "Content-Length: 100000"), b"x" * 100_000 + GET)
    assert listener.events[1:] == [("body", b"x" * 100_000), ("end",), *GET_EVENTS]


def test_kept_requests_behind_one_that_closes_are_dropped() -> None:
    data = GET * 500 + request("GET / HTTP/1.1", "Connection: close") + GET * 1000
    assert fed(data).events == GET_EVENTS * 501


# --- the size of a head -----------------------------------------------------------------------


def head_of(size: int) -> bytes:
    """A request whose target and header fields have this size."""
    fixed = len(b"/") + len(b"Host: example.org\r\n") + len(b"X: \r\n")
    return request("GET / HTTP/1.1", "X: " + "v" * (size - fixed))


@pytest.mark.parametrize("before", [b"", GET, GET + GET])
@pytest.mark.parametrize("size", [1, 100, 1500, SLICE, 100_000])
@pytest.mark.parametrize("limit", [1024, 20_000])
def test_limit_of_the_head_is_exact_however_it_is_cut(limit: int, size: int, before: bytes) -> None:
    assert status_of(*cut(before + head_of(limit), size), limit=limit) == 200
    assert status_of(*cut(before + head_of(limit + 1), size), limit=limit) == 431


@pytest.mark.parametrize("size", [100, 3000, 100_000])
def test_target_beyond_the_limit_has_a_status_of_its_own(size: int) -> None:
    data = request("GET /" + "a" * 3000 + " HTTP/1.1")
    assert status_of(*cut(data, size), limit=2048) == 414


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /", 414),
        (b"GET / HTTP/1.1\r\nX", 431),
        (b"GET / HTTP/1.1\r\nX: ", 431),
        (b"GET / HTTP/1.1\r\nA: b\r\nX: ", 431),
    ],
)
def test_head_without_an_end_is_not_kept_beyond_the_limit(start: bytes, status: int) -> None:
    packets = [b"a" * 512] * ((2048 + SLICE) // 512 + 1)
    assert status_of(start, *packets, limit=2048) == status


def test_head_without_an_end_is_not_kept_beyond_the_limit_in_one_packet() -> None:
    assert status_of(b"GET /" + b"a" * 200_000) == 414
    assert status_of(GET + b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000) == 431


def test_body_behind_a_head_does_not_count() -> None:
    listener = fed(
        request("POST / HTTP/1.1", "Content-Length: 100000") + b"x" * 50_000,
        b"x" * 50_000 + GET[:10],
        GET[10:],
        listener=Listener(1024),
    )
    assert listener.events[-2:] == GET_EVENTS


# --- the framing of a chunked body ------------------------------------------------------------


@pytest.mark.parametrize("limit", [1024, 131072])
def test_framing_is_bounded(limit: int) -> None:
    extension = b"1;" + b"a" * (FRAMING_ALLOWANCE - 1000) + b"\r\nx\r\n"
    assert status_of(CHUNKED, extension, limit=limit) == 200
    assert status_of(CHUNKED, extension, extension, limit=limit) == 400
    assert status_of(CHUNKED, b"0\r\n" + b"A: b\r\n" * 2000, b"A: b\r\n" * 2000, limit=limit) == 400


def test_data_pays_for_framing() -> None:
    # One-byte chunks have five bytes of framing each.
    listener = fed(CHUNKED, *[b"1\r\nx\r\n" * 1000] * 50, b"0\r\n\r\n")
    assert listener.events[1:] == [("body", b"x" * 50_000), ("end",)]


def test_allowance_is_for_each_body() -> None:
    body = b"1;" + b"a" * 10_000 + b"\r\nx\r\n0\r\n\r\n"
    listener = fed(*[CHUNKED, body] * 5)
    assert listener.events.count(("end",)) == 5


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"GET / RTSP/1.0", b"DESCRIBE / RTSP/1.0", b"SOURCE / ICE/1.0"])
def test_other_protocols_are_refused_however_they_are_cut(line: bytes) -> None:
    data = line + b"\r\nHost: example.org\r\n\r\n"
    for size in range(1, len(data) + 1):
        assert status_of(*cut(data, size)) == 400
    assert status_of(request("GET / HTTP/1.1"), data) == 400


def test_http_1_0_is_known_however_it_is_cut() -> None:
    old = request("GET /old HTTP/1.0", "Connection: keep-alive")
    data = GET + old + GET + old
    for first in range(len(data)):
        assert len(fed(data[:first], data[first:]).headers) == 4
        for second in range(first, min(first + 12, len(data))):
            assert len(fed(data[:first], data[first:second], data[second:]).headers) == 4
    assert len(fed(*cut(data, 1)).headers) == 4


def test_version_of_one_head_says_nothing_about_the_next() -> None:
    rtsp = b"GET / RTSP/1.0\r\n\r\n"
    for size in range(1, 40):
        old = request("GET / HTTP/1.0", "Connection: keep-alive")
        assert status_of(*cut(old, size), *cut(rtsp, size)) == 400


@pytest.mark.parametrize("first", ["GET /x HTTP/1.0", "GET /x HTTP/1.1"])
def test_what_a_head_says_in_several_packets_is_not_taken_for_the_next_ones_version(first: str) -> None:
    head = request(first, "Connection: keep-alive", "X-A: GET / HTTP/1.0")
    data = head + b"GET / RTSP/1.0\r\n\r\n"
    for start in range(1, len(head)):
        for end in range(start + 1, len(data)):
            assert status_of(data[:start], data[start:end], data[end:]) == 400


def test_the_end_of_a_trailer_is_not_taken_for_the_next_ones_version() -> None:
    data = CHUNKED + b"1\r\nx\r\n0\r\nX-A: GET / HTTP/1.0\r\n\r\nGET / RTSP/1.0\r\n\r\n"
    for size in range(1, len(data)):
        assert status_of(data[:size], data[size:]) == 400


def test_a_body_that_says_what_the_head_does_hides_no_good_request() -> None:
    old = request("POST / HTTP/1.0", "Connection: keep-alive", "Content-Length: 1", body=b"x")
    for size in range(1, 3 * len(old)):
        assert len(fed(*cut(3 * old, size)).headers) == 3


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("GET / HTTP/1.2"), 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (request("GET / HTTP/1.x"), 400),
        (request("G@T / HTTP/1.1"), 400),
    ],
)
def test_what_the_parser_refuses_gets_the_status_that_is_due(data: bytes, status: int) -> None:
    assert status_of(data) == status
    assert status_of(*cut(data, 1)) == status


def test_length_that_overflows_is_too_large() -> None:
    assert status_of(request("POST / HTTP/1.1", "Content-Length: " + "9" * 25)) == 413


# --- upgrades ---------------------------------------------------------------------------------

UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: foo")


def test_upgrade_that_is_taken_gets_the_bytes_behind_the_head() -> None:
    listener = Listener()
    listener.takes = True
    fed(request("GET / HTTP/1.1", *UPGRADE) + b"rest", listener=listener)
    assert listener.events == [GET_EVENTS[0], ("upgrade", b"rest")]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize(
    ("fields", "body", "events"),
    [
        ([], b"", []),
        (["Content-Length: 0"], b"", []),
        (["Content-Length: 5"], b"hello", [("body", b"hello")]),
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\nA: b\r\n\r\n", [("body", b"hello")]),
    ],
)
def test_upgrade_that_is_not_taken_is_an_ordinary_request(
    fields: list[str], body: bytes, events: list[Any], size: int
) -> None:
    data = request("GET / HTTP/1.1", *UPGRADE, *fields, body=body)
    listener = fed(*cut(data + data + GET, size))
    assert listener.events == [GET_EVENTS[0], *events, ("end",)] * 2 + GET_EVENTS
    assert (b"upgrade", b"foo") in listener.headers[0]


def test_upgrade_that_is_not_taken_may_close() -> None:
    data = request("GET / HTTP/1.1", "Connection: close", "Connection: Upgrade", "Upgrade: foo")
    assert fed(data + GET).events == GET_EVENTS
    assert fed(data, GET).events == GET_EVENTS


def test_large_packet_behind_an_upgrade_that_is_not_taken_is_parsed() -> None:
    body = request("POST / HTTP/1.1", *UPGRADE, "Content-Length: 100000") + b"x" * 100_000
    listener = fed(body + GET * 3)
    assert listener.events[1:] == [("body", b"x" * 100_000), ("end",), *GET_EVENTS * 3]


def test_refusal_behind_an_upgrade_that_is_not_taken_is_one() -> None:
    data = request("POST / HTTP/1.1", *UPGRADE, "Content-Length: 5", body=b"hello")
    assert status_of(data + b"GET / RTSP/1.0\r\n\r\n") == 400


# --- mistakes ---------------------------------------------------------------------------------


def test_bug_in_a_callback_does_not_pass_for_bad_input() -> None:
    listener = Listener()
    listener.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        fed(GET, listener=listener)


@pytest.mark.parametrize(
    "data",
    [
        request("POST / HTTP/1.1", "Transfer-Encoding: chunked\t"),
        CHUNKED + b"0\r\nConnection: close\r\n\r\n",
        b"GET / RTSP/1.0\r\n\r\n",
    ],
)
def test_refusal_is_one_while_another_exception_is_handled(data: bytes) -> None:
    codec = codec_of(Listener())
    try:
        raise KeyError("of somebody else")
    except KeyError:
        with pytest.raises(Refused):
            codec.feed(data)


def test_refusal_of_the_connection_is_handed_on() -> None:
    listener = Listener()
    listener.error = Refused(417, "because")
    with pytest.raises(Refused) as caught:
        fed(GET, listener=listener)
    assert caught.value is listener.error
