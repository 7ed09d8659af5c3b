"""The opening handshake: what is refused, what is read, and the bytes of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from uvicorn.protocols._fields import InvalidResponse
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._head import Refused
from uvicorn.protocols.websockets._handshake import BadHandshake, Handshake, RawRequestReader, accept_response

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 1.3, as is the answer to it
ANSWER = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


Headers = list[tuple[bytes, bytes]]


def fields(*more: tuple[bytes, bytes], key: bytes | None = KEY, version: bytes | None = b"13") -> Headers:
    headers = [(b"host", b"a"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    if key is not None:
        headers.append((b"sec-websocket-key", key))
    if version is not None:
        headers.append((b"sec-websocket-version", version))
    return [*headers, *more]


def refusal_of(headers: Headers) -> BadHandshake:
    with pytest.raises(BadHandshake) as caught:
        Handshake(headers)
    assert str(caught.value) == caught.value.text
    return caught.value


# --- the request ------------------------------------------------------------------------------


def test_plain_request_is_valid() -> None:
    handshake = Handshake(fields())
    assert handshake.key == KEY
    assert handshake.subprotocols == []
    assert handshake.extensions == []


def test_missing_key_is_refused() -> None:
    refused = refusal_of(fields(key=None))
    assert refused.text == "missing Sec-WebSocket-Key header"
    assert not refused.version


def test_two_keys_are_refused() -> None:
    refused = refusal_of(fields((b"sec-websocket-key", KEY)))
    assert refused.text == "invalid Sec-WebSocket-Key header: more than one"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"", ""),
        (b"short", "short"),
        (b"c2hvcnQ=", "c2hvcnQ="),
        (b"dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ"),
        (b"dGhlIHNhbXBsZSBub25jZQ==!", "dGhlIHNhbXBsZSBub25jZQ==!"),
        (b"AAAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAAAA="),
        (b"\x9b31m", "\\x9b31m"),  # C1 control bytes would reach the terminal of who reads the log
    ],
)
def test_key_that_is_not_16_bytes_is_refused(key: bytes, shown: str) -> None:
    assert refusal_of(fields(key=key)).text == f"invalid Sec-WebSocket-Key header: {shown}"


def test_missing_version_is_refused_as_wrong_version() -> None:
    refused = refusal_of(fields(version=None))
    assert refused.text == "missing Sec-WebSocket-Version header"
    assert refused.version


@pytest.mark.parametrize("version", [b"8", b"14", b"013", b"13, 8", b"\xff"])
def test_other_version_is_refused(version: bytes) -> None:
    refused = refusal_of(fields(version=version))
    shown = version.decode("ascii", "backslashreplace")
    assert refused.text == f"invalid Sec-WebSocket-Version header: {shown}"
    assert refused.version


def test_two_versions_are_refused() -> None:
    refused = refusal_of(fields((b"sec-websocket-version", b"8")))
    assert refused.text == "invalid Sec-WebSocket-Version header: 13,8"


def test_subprotocols_of_all_lines_come_in_order() -> None:
    handshake = Handshake(
        fields((b"sec-websocket-protocol", b"b ,a"), (b"sec-websocket-protocol", b"\tmqtt.v5"))
    )
    assert handshake.subprotocols == ["b", "a", "mqtt.v5"]


@pytest.mark.parametrize(
    ("value", "names"), [(b"a,,b", ["a", "b"]), (b"a,", ["a"]), (b" , a", ["a"]), (b",", []), (b"\t", [])]
)
def test_empty_subprotocols_mean_nothing(value: bytes, names: list[str]) -> None:
    assert Handshake(fields((b"sec-websocket-protocol", value))).subprotocols == names


@pytest.mark.parametrize("value", [b"a b", b'"a"', b"a;b", b"\xe4"])
def test_subprotocol_that_is_no_token_is_refused(value: bytes) -> None:
    refused = refusal_of(fields((b"sec-websocket-protocol", value)))
    shown = value.decode("ascii", "backslashreplace")
    assert refused.text == f"invalid Sec-WebSocket-Protocol header: {shown}"


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        (b"", []),
        (b" , ,", []),
        (b"a", [("a", [])]),
        (b"a,b", [("a", []), ("b", [])]),
        (b", a ,, b ,", [("a", []), ("b", [])]),
        (b"a;x;y=1, b", [("a", [("x", None), ("y", "1")]), ("b", [])]),
        (b"\ta ; x = 1 ", [("a", [("x", "1")])]),
        (b'a;x="1"', [("a", [("x", "1")])]),
        (b'a;x="1\\0"', [("a", [("x", "10")])]),
    ],
)
def test_extensions_are_read(value: bytes, offers: object) -> None:
    assert Handshake(fields((b"sec-websocket-extensions", value))).extensions == offers


def test_extensions_of_all_lines_come_in_order() -> None:
    handshake = Handshake(fields((b"sec-websocket-extensions", b"a;x"), (b"sec-websocket-extensions", b"b")))
    assert handshake.extensions == [("a", [("x", None)]), ("b", [])]


@pytest.mark.parametrize(
    "value", [b"a;", b";a", b"a=1", b"a b", b"a;x=", b'a;x=""', b'a;x="1', b'a;x="1 2"', b"a;,b", b"\xe4"]
)
def test_extensions_against_the_grammar_are_refused(value: bytes) -> None:
    # RFC 6455 9.1: such a request fails, whatever the extension means.
    refused = refusal_of(fields((b"sec-websocket-extensions", value)))
    shown = value.decode("ascii", "backslashreplace")
    assert refused.text == f"invalid Sec-WebSocket-Extensions header: {shown}"


# --- the answer -------------------------------------------------------------------------------


def test_answer_without_anything_is_the_four_lines() -> None:
    assert accept_response(Handshake(fields()), None, None, b"", []) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ANSWER + b"\r\n"
        b"\r\n"
    )


def test_answer_has_its_own_lines_then_the_servers_then_the_applications() -> None:
    answer = accept_response(
        Handshake(fields()),
        "permessage-deflate",
        "mqtt",
        b"date: now\r\nserver: uvicorn\r\n",
        [(b"X-A", b"1"), (b"server", b"a"), (b"server", b"b")],
    )
    assert answer == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ANSWER + b"\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n"
        b"date: now\r\n"
        b"server: uvicorn\r\n"
        b"X-A: 1\r\n"
        b"server: a\r\n"
        b"server: b\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        b"Upgrade",
        b"connection",
        b"Sec-WebSocket-Accept",
        b"sec-websocket-extensions",
        b"Content-Length",
        b"transfer-encoding",
    ],
)
def test_fields_of_the_handshake_are_not_the_applications(name: bytes) -> None:
    plain = accept_response(Handshake(fields()), None, None, b"", [])
    assert accept_response(Handshake(fields()), None, None, b"", [(name, b"x")]) == plain


@pytest.mark.parametrize(
    "header", [(b"x", b"1\r\nset-cookie: a=1"), (b"x", b"1\n"), (b"x y", b"1"), (b"", b"1"), ("x", "\xe9")]
)
def test_header_that_would_split_the_answer_is_an_error(header: Any) -> None:
    with pytest.raises(InvalidResponse):
        accept_response(Handshake(fields()), None, None, b"", [header])


def test_header_may_be_text() -> None:
    plain = accept_response(Handshake(fields()), None, None, b"", [(b"x", b"1")])
    assert accept_response(Handshake(fields()), None, None, b"", [("x", "1")]) == plain


def test_subprotocol_that_would_split_the_answer_is_an_error() -> None:
    with pytest.raises(InvalidResponse):
        accept_response(Handshake(fields()), None, "a\r\nb: c", b"", [])


# --- a request that comes as bytes --------------------------------------------------------------

RAW = (
    b"GET /x%20y?a=1 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"X-Name: \xc3\xa9 \r\n\r\n"
)


def check_read(request: UpgradeRequest | None) -> None:
    assert request is not None
    assert (request.method, request.path, request.query) == (b"GET", b"/x%20y", b"a=1")
    assert request.headers == [
        (b"host", b"a"),
        (b"upgrade", b"WebSocket"),
        (b"connection", b"keep-alive, Upgrade"),
        (b"x-name", b"\xc3\xa9"),
    ]
    assert request.rest == b"early"


def test_raw_request_is_read_whole() -> None:
    check_read(RawRequestReader().feed(RAW + b"early"))


def test_raw_request_is_read_byte_by_byte() -> None:
    reader = RawRequestReader()
    for i in range(len(RAW) - 1):
        assert reader.feed(RAW[i : i + 1]) is None
    check_read(reader.feed(RAW[-1:] + b"early"))


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),  # the head that never came
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (RAW.replace(b"WebSocket", b"h2c"), 400),
        (RAW.replace(b"GET", b"POST"), 400),
        (RAW.replace(b"Connection", b"Content-Length: 1\r\nConnection"), 400),
        (RAW.replace(b"1.1", b"1.0", 1), 400),
        (RAW.replace(b"Host: a\r\n", b""), 400),
        (RAW.replace(b"Connection", b"Content-Length: 1\r\nContent-Length: 2\r\nConnection"), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 131072, 431),
    ],
)
def test_raw_bytes_that_open_no_websocket_are_refused(raw: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        RawRequestReader().feed(raw)
    assert caught.value.status == status
