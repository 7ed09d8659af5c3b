"""The codec over h11: what it keeps, what it bounds, and what it refuses before h11 sees it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocols.http.harness import GET, Listener, request
from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.http.h11_impl import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE, MAX_METHOD, H11Codec

GET_EVENTS = [("head", b"GET", b"/", "1.1"), ("end",)]
CHUNKED = request("POST / HTTP/1.1", "Transfer-Encoding: chunked")


def codec_of(listener: Listener) -> Any:
    codec: Any = H11Codec(listener)  # type: ignore[arg-type]
    return codec


def fed(*packets: bytes, listener: Listener | None = None) -> Listener:
    listener = listener or Listener()
    codec = codec_of(listener)
    for packet in packets:
        codec.feed(packet)
    return listener


def refusal_of(*packets: bytes, listener: Listener | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        fed(*packets, listener=listener)
    return caught.value


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# --- what is told -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 1000])
def test_request_is_told_the_same_however_it_is_cut(size: int) -> None:
    data = request("POST /a?b HTTP/1.1", "X-A:  b\t ", "Content-Length: 5", body=b"hello") + GET
    listener = fed(*cut(data, size))
    assert listener.events == [("head", b"POST", b"/a?b", "1.1"), ("body", b"hello"), ("end",), *GET_EVENTS]
    assert listener.headers == [
        [(b"host", b"example.org"), (b"x-a", b"b"), (b"content-length", b"5")],
        [(b"host", b"example.org")],
    ]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_chunked_body_is_told_without_its_trailers(size: int) -> None:
    data = CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n" + GET
    listener = fed(*cut(data, size))
    assert listener.events == [("head", b"POST", b"/", "1.1"), ("body", b"hello"), ("end",), *GET_EVENTS]
    assert listener.headers[1] == [(b"host", b"example.org")]


def test_framing_fields_are_told_as_they_were_sent() -> None:
    listener = fed(
        request("POST / HTTP/1.1", "Transfer-Encoding: \tChunked", body=b"0\r\n\r\n")
        + request("POST / HTTP/1.1", "content-length:007 ", body=b"1234567")
    )
    assert listener.headers[0][1] == (b"transfer-encoding", b"Chunked")
    assert listener.headers[1][1] == (b"content-length", b"007")
    assert listener.events[-2:] == [("body", b"1234567"), ("end",)]


@pytest.mark.parametrize("lines", [b"\r\n", b"\n", b"\r\n\r\n\r\n", b"\r", b"\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_empty_lines_before_a_request_are_ignored(lines: bytes, size: int) -> None:
    assert fed(*cut(lines + GET + lines + GET, size)).events == GET_EVENTS * 2


def test_nothing_is_parsed_behind_a_request_that_closes() -> None:
    close = request("GET / HTTP/1.1", "Connection: close")
    for packets in ([close + GET], [close, GET], [close + b"garbage\r\n\r\n"], [close, b"garbage\r\n\r\n"]):
        assert fed(*packets).events == GET_EVENTS


def test_upgrade_gets_the_bytes_behind_the_head() -> None:
    listener = Listener()
    listener.takes = True
    codec = codec_of(listener)
    codec.feed(request("GET / HTTP/1.1", "Connection: upgrade", "Upgrade: foo") + b"rest")
    codec.feed(GET)
    assert listener.events == [GET_EVENTS[0], ("upgrade", b"rest")]


def test_requests_wait_while_the_pipeline_is_full() -> None:
    listener = Listener()
    codec = codec_of(listener)
    listener.pipeline_full = True
    codec.feed(GET + GET)
    codec.feed(GET[:10])
    codec.resume()
    assert listener.events == []
    listener.pipeline_full = False
    codec.resume()
    assert listener.events == GET_EVENTS * 2
    codec.feed(GET[10:])
    assert listener.events == GET_EVENTS * 3


def test_body_of_the_last_request_is_read_though_the_pipeline_is_full() -> None:
    listener = Listener()
    codec = codec_of(listener)
    codec.feed(request("POST / HTTP/1.1", "Content-Length: 5"))
    listener.pipeline_full = True
    codec.feed(b"hello" + GET)
    assert listener.events[1:] == [("body", b"hello"), ("end",)]


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_limit_of_the_head_is_exact_however_it_is_cut(size: int, before: bytes) -> None:
    line = b"GET / HTTP/1.1\r\nHost: example.org\r\nX: \r\n\r\n"
    for length, refused in ((2048, False), (2049, True)):
        head = line.replace(b"X: ", b"X: " + b"v" * (length - len(line)))
        packets = cut(before + head, size)
        if refused:
            assert refusal_of(*packets, listener=Listener(2048)).status == 431
        else:
            assert len(fed(*packets, listener=Listener(2048)).headers) == (2 if before else 1)


@pytest.mark.parametrize("size", [100, 100_000])
def test_target_beyond_the_limit_has_a_status_of_its_own(size: int) -> None:
    data = request("GET /" + "a" * 3000 + " HTTP/1.1")
    assert refusal_of(*cut(data, size), listener=Listener(2048)).status == 414


@pytest.mark.parametrize(
    ("own", "limit", "kept"),
    [
        (None, 131072, DEFAULT_MAX_INCOMPLETE_EVENT_SIZE),
        (100, 131072, 100),
        (50_000, 131072, 50_000),
        (50_000, 2048, 2048),
        (None, 2048, 2048),
    ],
)
def test_incomplete_head_is_kept_up_to_its_own_limit(own: int | None, limit: int, kept: int) -> None:
    start = b"GET /"
    fed(start, b"a" * (kept - len(start)), listener=Listener(limit, own))
    refused = refusal_of(start, b"a" * (kept - len(start) + 1), listener=Listener(limit, own))
    assert refused.status == (414 if kept == limit else 400)


def test_complete_head_may_be_larger_than_an_incomplete_one() -> None:
    data = request("GET / HTTP/1.1", "X: " + "v" * 70_000)
    assert fed(data).events == GET_EVENTS


def test_framing_is_bounded_and_data_pays_for_it() -> None:
    extension = b"1;" + b"a" * (FRAMING_ALLOWANCE - 1000) + b"\r\nx\r\n"
    fed(CHUNKED, extension)
    assert refusal_of(CHUNKED, extension, extension).status == 400
    assert refusal_of(CHUNKED, b"0\r\n" + b"A: b\r\n" * 4000).status == 400
    listener = fed(CHUNKED, *[b"1\r\nx\r\n" * 1000] * 50, b"0\r\n\r\n")
    assert listener.events[1:] == [("body", b"x" * 50_000), ("end",)]
    body = b"1;" + b"a" * 10_000 + b"\r\nx\r\n0\r\n\r\n"
    assert fed(*[CHUNKED, body] * 5).events.count(("end",)) == 5


def test_method_is_bounded() -> None:
    assert len(fed(request("M" * MAX_METHOD + " / HTTP/1.1")).headers) == 1
    assert refusal_of(request("M" * (MAX_METHOD + 1) + " / HTTP/1.1")).status == 501


# --- what is refused --------------------------------------------------------------------------


def test_head_holds_no_control_character_but_tabs_and_line_ends() -> None:
    statuses = {}
    for byte in range(256):
        statuses[byte] = 200
        try:
            fed(b"GET / HTTP/1.1\r\nHost: a\r\nX: b" + bytes([byte]) + b"c\r\n\r\n")
        except Refused as exc:
            statuses[byte] = exc.status
    taken = {0x09, *range(0x20, 0x7F), *range(0x80, 0x100)}
    assert statuses == {byte: 200 if byte in taken else 400 for byte in range(256)}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\ncontent-length: 5, 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_doubtful_head_is_refused(data: bytes) -> None:
    listener = Listener()
    assert refusal_of(data, listener=listener).status == 400
    assert listener.events == []
    assert refusal_of(*cut(data, 1)).status == 400


def test_framing_has_the_status_that_is_due() -> None:
    assert refusal_of(request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked")).status == 501
    assert refusal_of(request("POST / HTTP/1.1", "Content-Length: " + "9" * 30)).status == 413


def test_reason_of_a_refusal_is_short() -> None:
    refused = refusal_of(request("GET / HTTP/1.1", "X" * 50_000))
    assert len(refused.reason) <= 120


def test_refusal_of_the_connection_is_handed_on() -> None:
    listener = Listener()
    listener.error = Refused(417, "because")
    assert refusal_of(GET, listener=listener) is listener.error
