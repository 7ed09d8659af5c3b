"""What a request head means, and which heads are refused with which status."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.protocols.http._head import (
    FORBIDDEN_TRAILERS,
    TOKEN,
    Head,
    Refused,
    check_framing,
    connection_options,
    content_length,
    examine,
    valid_host,
)

HOST = (b"host", b"example.org")
TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# RFC 3986 3.2.2: unreserved and sub-delims. A percent sign needs two digits behind it.
REG_NAME = frozenset(b"-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def look(
    *headers: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    version: str = "1.1",
    host: bool = True,
) -> Head:
    return examine(method, target, version, [HOST, *headers] if host else list(headers))


def status_of(*headers: tuple[bytes, bytes], **changes: Any) -> int:
    """The status that the head is refused with; 200 where it is not."""
    try:
        look(*headers, **changes)
    except Refused as exc:
        return exc.status
    return 200


def test_plainest_head() -> None:
    assert look() == Head(
        path=b"/", query=b"", keep_alive=True, expects_continue=False, upgrade=None, length=0, forwarded=False
    )
    assert isinstance(look(), Head)


def test_refusal_says_why() -> None:
    with pytest.raises(Refused, match="no Host header field") as caught:
        look(host=False)
    assert (caught.value.status, caught.value.reason) == (400, "no Host header field")


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0", "", "1.10", "01.1"])
def test_other_version_is_not_supported(version: str) -> None:
    assert status_of(version=version) == 505


# --- Host -------------------------------------------------------------------------------------


def test_http_1_1_needs_a_host() -> None:
    assert status_of(host=False) == 400
    assert status_of(host=False, version="1.0") == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("second", [b"example.org", b"example.com", b""])
def test_host_must_not_be_repeated(second: bytes, version: str) -> None:
    assert status_of((b"host", second), version=version) == 400


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_invalid_host_is_refused_in_every_version(version: str) -> None:
    assert status_of((b"host", b"a/b"), host=False, version=version) == 400


@pytest.mark.parametrize(("before", "behind"), [(b"", b""), (b"a", b""), (b"", b"a"), (b"a", b"b")])
def test_host_name_has_exactly_the_bytes_of_a_reg_name(before: bytes, behind: bytes) -> None:
    taken = {byte for byte in range(256) if valid_host(before + bytes([byte]) + behind)}
    # The colon begins a port, which may be empty, but has no letters.
    assert taken == (REG_NAME if behind else REG_NAME | {ord(":")})


def test_port_has_exactly_digits() -> None:
    assert {byte for byte in range(256) if valid_host(b"a:8" + bytes([byte]))} == set(b"0123456789")


def test_percent_needs_two_hexadecimal_digits() -> None:
    digits = set(b"0123456789abcdefABCDEF")
    assert {byte for byte in range(256) if valid_host(b"a%4" + bytes([byte]))} == digits
    assert {byte for byte in range(256) if valid_host(b"a%" + bytes([byte]) + b"4")} == digits
    assert not valid_host(b"a%")
    assert not valid_host(b"a%4")


def test_address_in_brackets_has_exactly_its_bytes() -> None:
    inside = {byte for byte in range(256) if valid_host(b"[::" + bytes([byte]) + b"]")}
    assert inside == set(b"0123456789abcdefABCDEF")


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        (b"", True),
        (b":80", True),
        (b"example.org", True),
        (b"example.org:", True),
        (b"example.org:0080", True),
        (b"[::1]", True),
        (b"[::ffff:192.0.2.1]:80", True),
        (b"[v1f.a:b~]", True),
        (b"[]", False),
        (b"[:::1]", False),
        (b"[1:2:3:4:5:6:7:8:9]", False),
        (b"[::1.2.3.256]", False),
        (b"[192.0.2.1]", False),
        (b"[abc]", False),
        (b"[::1", False),
        (b"::1", False),
        (b"[::1]a", False),
        (b"[::1]:a", False),
        (b"[v.a]", False),
        (b"[v1.]", False),
        (b"[fe80::1%25eth0]", False),
        (b"a:80:80", False),
        (b"a\n", False),
        (b"a:80\n", False),
        (b"\xc3\xa4", False),
        (b"user@a", False),
        (b"a b", False),
    ],
)
def test_host_forms(host: bytes, valid: bool) -> None:
    assert valid_host(host) is valid
    assert status_of((b"host", host), host=False) == (200 if valid else 400)


@pytest.mark.parametrize(("length", "status"), [(265, 200), (266, 400), (100_000, 400)])
def test_host_is_no_longer_than_a_name_can_be(length: int, status: int) -> None:
    assert status_of((b"host", b"a" * length), host=False) == status


# --- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a/b?c=d", b"/a/b", b"c=d"),
        (b"/a?", b"/a", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/%2F%00", b"/%2F%00", b""),
        (b"//a", b"//a", b""),
        (b"/*", b"/*", b""),
        (b"http://a", b"/", b""),
        (b"http://a/", b"/", b""),
        (b"HTTPS://a:1/b?c", b"/b", b"c"),
        (b"http://a?b", b"/", b"b"),
        (b"http://[::1]:80/b", b"/b", b""),
        (b"http://a//b?http://c/?", b"//b", b"http://c/?"),
    ],
)
def test_target_has_a_path_and_a_query(target: bytes, path: bytes, query: bytes) -> None:
    head = look(target=target)
    assert (head.path, head.query) == (path, query)


def test_origin_form_takes_every_byte_but_the_fragment() -> None:
    # Which bytes may come at all is the parser's matter; see the corpus.
    taken = {byte for byte in range(256) if status_of(target=b"/a" + bytes([byte])) == 200}
    assert taken == set(range(256)) - {ord("#")}


def test_target_begins_with_a_slash() -> None:
    taken = {byte for byte in range(256) if status_of(target=bytes([byte])) == 200}
    assert taken == {ord("/")}


def test_host_of_an_absolute_target_has_exactly_the_bytes_of_one() -> None:
    taken = {byte for byte in range(256) if status_of(target=b"http://a" + bytes([byte])) == 200}
    assert taken == REG_NAME | set(b":/?")


def test_host_of_an_absolute_target_goes_before_the_field() -> None:
    """RFC 9112 3.2.2: the field is ignored."""
    headers = [(b"x", b"1"), HOST, (b"y", b"2")]
    assert examine(b"GET", b"http://other.org:81/a?b", "1.1", headers)[:2] == (b"/a", b"b")
    assert headers == [(b"x", b"1"), (b"host", b"other.org:81"), (b"y", b"2")]


@pytest.mark.parametrize(
    "target",
    [
        b"", b"*", b"a", b"?a", b"a:80", b"/a#b", b"#", b"http:/a", b"http:///a", b"http://", b"http://?a",
        b"ftp://a/", b"http://u@a/", b"http://a/#b", b"http://a b/", b"xhttp://a/", b"http://" + b"a" * 266,
    ],
)  # fmt: skip
def test_other_target_is_refused(target: bytes) -> None:
    assert status_of(target=target) == 400


def test_asterisk_is_for_options() -> None:
    head = look(method=b"OPTIONS", target=b"*")
    assert (head.path, head.query) == (b"*", b"")
    assert status_of(method=b"OPTIONS", target=b"*?a") == 400


@pytest.mark.parametrize("target", [b"example.org:443", b"/", b"*", b"http://a/", b"#"])
def test_connect_is_not_implemented(target: bytes) -> None:
    assert status_of(method=b"CONNECT", target=target) == 501


# --- Content-Length ---------------------------------------------------------------------------


def test_content_length_has_exactly_digits() -> None:
    digits = set(b"0123456789")
    for before, behind in ((b"", b""), (b"1", b""), (b"", b"1"), (b"1", b"1")):
        taken = {
            byte
            for byte in range(256)
            if status_of((b"content-length", before + bytes([byte]) + behind)) == 200
        }
        assert taken == digits


@given(st.integers(0, 10**18 - 1), st.integers(0, 50))
def test_content_length_is_its_number(number: int, zeros: int) -> None:
    value = b"0" * zeros + str(number).encode()
    assert content_length(value) == number
    assert look((b"content-length", value)).length == number


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1,1", b"1.0", b"0x1", b"1_0", b" 1", "１".encode()])
def test_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(Refused) as caught:
        content_length(value)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [b"1" + b"0" * 18, b"9223372036854775808", b"9" * 5000])
def test_content_length_that_is_too_long_is_too_large(value: bytes) -> None:
    assert status_of((b"content-length", value)) == 413


@pytest.mark.parametrize("second", [b"5", b"6", b""])
def test_content_length_must_not_be_repeated(second: bytes) -> None:
    assert status_of((b"content-length", b"5"), (b"content-length", second)) == 400


# --- Transfer-Encoding ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_has_no_length(value: bytes) -> None:
    assert look((b"transfer-encoding", value)).length is None


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"gzip, chunked", 501),
        (b"identity,chunked", 501),
        (b"gzip , \tdeflate,Chunked", 501),
        (b"", 400),
        (b"identity", 400),
        (b"gzip", 400),
        (b"chunked, gzip", 400),
        (b"chunked, chunked", 400),
        (b"chunked,", 400),
        (b",chunked", 400),
        (b"gzip,,chunked", 400),
        (b"chunkedx", 400),
        (b"xchunked", 400),
        (b'"chunked"', 400),
        (b"chunked;q=1", 400),
        (b"gzip;q=1, chunked", 400),
        (b"chunked\n", 400),
        (b"\xa0chunked", 400),
        (b"chun ked", 400),
    ],
)
def test_other_coding_is_refused(value: bytes, status: int) -> None:
    assert status_of((b"transfer-encoding", value)) == status


@pytest.mark.parametrize(("before", "behind"), [(b"", b"chunked"), (b"chunked", b""), (b"chun", b"ked")])
def test_no_byte_may_stand_beside_chunked(before: bytes, behind: bytes) -> None:
    # Not even white space: the parser has removed what surrounds a value.
    taken = [
        byte
        for byte in range(256)
        if status_of((b"transfer-encoding", before + bytes([byte]) + behind)) == 200
    ]
    assert taken == []


def test_coding_before_chunked_is_a_token_or_malformed() -> None:
    unknown = {
        byte
        for byte in range(256)
        if status_of((b"transfer-encoding", b"x" + bytes([byte]) + b"y, chunked")) == 501
    }
    assert unknown == TCHAR | {ord(",")}


@pytest.mark.parametrize("first", [b"chunked", b"gzip"])
def test_transfer_encoding_must_not_be_repeated(first: bytes) -> None:
    assert status_of((b"transfer-encoding", first), (b"transfer-encoding", b"chunked")) == 400


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_framings_are_refused(version: str) -> None:
    fields = ((b"transfer-encoding", b"chunked"), (b"content-length", b"5"))
    assert status_of(*fields, version=version) == 400
    assert status_of(*reversed(fields), version=version) == 400


def test_http_1_0_has_no_transfer_encoding() -> None:
    assert status_of((b"transfer-encoding", b"chunked"), version="1.0") == 400


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-length", b"5")],
        [(b"transfer-encoding", b"chunked")],
    ],
)
def test_framing_alone_is_accepted(headers: list[tuple[bytes, bytes]]) -> None:
    check_framing(headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"5"), (b"content-length", b"5")], 400),
        ([(b"content-length", b"5, 5")], 400),
        ([(b"content-length", b"9" * 30)], 413),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 400),
        ([(b"transfer-encoding", b"identity")], 400),
        ([(b"transfer-encoding", b"gzip, chunked")], 501),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], 400),
    ],
)
def test_framing_alone_is_refused_as_in_a_whole_head(headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(Refused) as caught:
        check_framing(headers)
    assert caught.value.status == status == status_of(*headers)


def test_forbidden_trailers_are_those_of_framing_and_connection() -> None:
    assert {b"content-length", b"transfer-encoding", b"connection"} == FORBIDDEN_TRAILERS


# --- Connection, Upgrade ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"", set()),
        (b",, ,", set()),
        (b"close", {b"close"}),
        (b"Keep-Alive", {b"keep-alive"}),
        (b" close ,\tUpgrade\t", {b"close", b"upgrade"}),
        (b"close,close", {b"close"}),
        (b"close\xa0", {b"close\xa0"}),
    ],
)
def test_connection_options(value: bytes, options: set[bytes]) -> None:
    assert connection_options(value) == options


@pytest.mark.parametrize(
    ("version", "value", "keep_alive"),
    [
        ("1.1", None, True),
        ("1.1", b"keep-alive", True),
        ("1.1", b"close", False),
        ("1.1", b"CLOSE", False),
        ("1.1", b"closed", True),
        ("1.1", b"foo, close", False),
        ("1.1", b"keep-alive, close", False),
        ("1.1", b"", True),
        ("1.0", None, False),
        ("1.0", b"keep-alive", True),
        ("1.0", b"Keep-Alive, foo", True),
        ("1.0", b"close", False),
        ("1.0", b"keep-alive, close", False),
        ("1.0", b"foo", False),
    ],
)
def test_keep_alive(version: str, value: bytes | None, keep_alive: bool) -> None:
    fields = () if value is None else ((b"connection", value),)
    assert look(*fields, version=version).keep_alive is keep_alive


def test_lines_of_connection_are_one_list() -> None:
    fields = ((b"connection", b"foo"), (b"x", b"y"), (b"connection", b"close"), (b"connection", b"bar"))
    assert look(*fields).keep_alive is False


def test_long_connection_value_costs_no_more_than_its_first_part_and_closes() -> None:
    assert look((b"connection", b"x," * 127 + b"xx")).keep_alive is True
    assert look((b"connection", b"x," * 127 + b"close")).keep_alive is False
    assert look((b"connection", b"keep-alive," + b"x," * 5000)).keep_alive is False
    assert look((b"connection", b"upgrade," + b"x," * 5000), (b"upgrade", b"h2c")).upgrade == b"h2c"


@pytest.mark.parametrize(
    ("version", "connection", "value", "upgrade"),
    [
        ("1.1", b"upgrade", b"WebSocket", b"websocket"),
        ("1.1", b"keep-alive, Upgrade", b"h2c", b"h2c"),
        ("1.1", b"keep-alive", b"websocket", None),
        ("1.1", None, b"websocket", None),
        ("1.1", b"upgrade", b"", None),
        ("1.1", b"upgrade", None, None),
        ("1.0", b"upgrade", b"websocket", None),
    ],
)
def test_upgrade(version: str, connection: bytes | None, value: bytes | None, upgrade: bytes | None) -> None:
    fields = [
        (name, content)
        for name, content in ((b"connection", connection), (b"upgrade", value))
        if content is not None
    ]
    assert look(*fields, version=version).upgrade == upgrade


# --- Expect, and fields that may be repeated --------------------------------------------------


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
@pytest.mark.parametrize(("version", "expects"), [("1.1", True), ("1.0", False)])
def test_expectation_is_met_for_http_1_1_alone(value: bytes, version: str, expects: bool) -> None:
    assert look((b"expect", value), version=version).expects_continue is expects


@pytest.mark.parametrize("value", [b"", b"100-continue, x", b"200", b"100-continue;a"])
def test_other_expectation_fails(value: bytes) -> None:
    assert status_of((b"expect", value)) == 417


def test_expect_must_not_be_repeated() -> None:
    assert status_of((b"expect", b"100-continue"), (b"expect", b"100-continue")) == 400


def test_other_fields_may_be_repeated() -> None:
    assert status_of((b"cookie", b"a"), (b"cookie", b"a"), (b"x", b"1"), (b"x", b"2")) == 200


def test_token_has_exactly_its_bytes() -> None:
    assert {byte for byte in range(256) if TOKEN.match(bytes([byte]))} == TCHAR
    assert {byte for byte in range(256) if TOKEN.match(b"a" + bytes([byte]))} == TCHAR
    assert not TOKEN.match(b"")


@given(
    st.binary(max_size=20),
    st.binary(max_size=40),
    st.sampled_from(["1.0", "1.1"]),
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"x"]
            ),
            st.binary(max_size=30),
        ),
        max_size=6,
    ),
)
def test_no_head_brings_anything_but_an_answer_or_a_refusal(
    method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]
) -> None:
    status = 200
    try:
        head = examine(method, target, version, headers)
    except Refused as exc:
        status = exc.status
    else:
        assert head.length is None or head.length >= 0
        assert head.path == b"*" or head.path.startswith(b"/")
    assert status in {200, 400, 413, 417, 501}
