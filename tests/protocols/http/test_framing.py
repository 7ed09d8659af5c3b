"""How a response is written: its head byte for byte, and what ends its body."""

from __future__ import annotations

import http
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.protocols._fields import InvalidResponse
from uvicorn.protocols.http._framing import (
    _CACHED_LINE_LENGTH,
    _CACHED_LINES,
    CHUNKED,
    CLOSE,
    LAST_CHUNK,
    LENGTH,
    NONE,
    ResponseFramer,
)

DEFAULT = b"date: now\r\nserver: uvicorn\r\n"
Fields = list[tuple[bytes, bytes]]


def frame(
    *headers: Any,
    status: Any = 200,
    is_head: bool = False,
    modern: bool = True,
    keep_alive: bool = True,
    framer: ResponseFramer | None = None,
    default: bytes = b"",
) -> tuple[bytes, int, int, bool]:
    framer = framer or ResponseFramer()
    return framer.head(status, headers, default, is_head, modern, keep_alive)


def lines_of(head: bytes) -> list[bytes]:
    """The lines behind the status line."""
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")[1:]


# --- the head, byte for byte ------------------------------------------------------------------


def test_head_is_status_line_own_headers_then_the_applications_in_order() -> None:
    head, mode, length, keep_alive = frame(
        (b"X-B", b"2"), (b"Content-Length", b"5"), (b"X-A", b"1"), (b"X-B", b"3"), default=DEFAULT
    )
    assert head == (
        b"HTTP/1.1 200 OK\r\ndate: now\r\nserver: uvicorn\r\n"
        b"x-b: 2\r\ncontent-length: 5\r\nx-a: 1\r\nx-b: 3\r\n\r\n"
    )
    assert (mode, length, keep_alive) == (LENGTH, 5, True)


def test_head_in_title_case_keeps_the_applications_case() -> None:
    head, *_ = frame((b"X-b", b"2"), (b"Content-length", b"5"), framer=ResponseFramer(title_case=True))
    assert head == b"HTTP/1.1 200 OK\r\nX-b: 2\r\nContent-length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("title_case", "line"), [(False, b"transfer-encoding: chunked"), (True, b"Transfer-Encoding: chunked")]
)
def test_own_lines_have_the_case_of_the_implementation(title_case: bool, line: bytes) -> None:
    head, *_ = frame(framer=ResponseFramer(title_case))
    assert lines_of(head) == [line]
    head, *_ = frame((b"content-length", b"0"), keep_alive=False, framer=ResponseFramer(title_case))
    assert lines_of(head)[1] == (b"Connection: close" if title_case else b"connection: close")
    head, *_ = frame((b"content-length", b"0"), modern=False, framer=ResponseFramer(title_case))
    assert lines_of(head)[1] == (b"Connection: keep-alive" if title_case else b"connection: keep-alive")


def test_status_line_has_the_phrase_where_there_is_one() -> None:
    phrases = {status.value: status.phrase for status in http.HTTPStatus}
    for status in range(200, 1000):
        head, *_ = frame(status=status)
        assert head.startswith(f"HTTP/1.1 {status} {phrases.get(status, '')}\r\n".encode())


def test_status_may_be_an_enumeration() -> None:
    head, mode, *_ = frame(status=http.HTTPStatus.NO_CONTENT)
    assert head == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert mode == NONE


@pytest.mark.parametrize(
    "headers", [(), ((b"content-length", b"5"),), ((b"x-a", b"1"), (b"Content-Length", b"0"))]
)
def test_205_says_that_it_has_no_content(headers: Any) -> None:
    head, mode, length, keep_alive = frame(*headers, status=205)
    assert lines_of(head) == [*(b"x-a: 1" for name, _ in headers if name == b"x-a"), b"content-length: 0"]
    assert (mode, length, keep_alive) == (NONE, 0, True)
    head, *_ = frame(*headers, status=205, framer=ResponseFramer(title_case=True))
    assert lines_of(head)[-1] == b"Content-Length: 0"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, bytes.decode])
@pytest.mark.parametrize("title_case", [False, True])
def test_names_and_values_are_whatever_holds_bytes_and_text(make: Any, title_case: bool) -> None:
    fields = [(b"X-A", b"1"), (b"Content-Length", b"5"), (b"Connection", b"close"), (b"X-A", b"1")]
    plain = frame(*fields, framer=ResponseFramer(title_case))
    framer = ResponseFramer(title_case)
    for _ in range(2):  # the second time from the cache
        assert frame(*((make(name), make(value)) for name, value in fields), framer=framer) == plain
    assert frame(*((make(name), value) for name, value in fields), framer=framer) == plain
    assert frame(*((name, make(value)) for name, value in fields), framer=framer) == plain


def test_a_field_is_not_changed_by_what_becomes_of_its_buffer() -> None:
    framer, value = ResponseFramer(), bytearray(b"1")
    frame((b"x", memoryview(value)), framer=framer)
    value[0] = ord("2")
    assert lines_of(frame((b"x", b"1"), framer=framer)[0])[0] == b"x: 1"
    assert lines_of(frame((b"x", memoryview(value)), framer=framer)[0])[0] == b"x: 2"


class OddStatus(int):
    """A number that does not compare as one."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def test_status_may_be_of_a_class_of_its_own() -> None:
    head, *_ = frame(status=OddStatus(404))
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, "200", None, True, b"200"])
def test_impossible_status_is_refused(status: Any) -> None:
    with pytest.raises(InvalidResponse, match="Invalid status code of the response"):
        frame(status=status)


@pytest.mark.parametrize("make", [list, tuple, iter, set])
def test_headers_may_be_any_iterable(make: Any) -> None:
    head, *_ = ResponseFramer().head(200, make([(b"content-length", b"0")]), b"", False, True, True)
    assert lines_of(head) == [b"content-length: 0"]


def test_header_pairs_may_be_lists() -> None:
    head, *_ = frame([b"x-a", b"1"], [b"content-length", b"0"])
    assert lines_of(head) == [b"x-a: 1", b"content-length: 0"]


# --- what ends the body -----------------------------------------------------------------------

LENGTH_5 = (b"content-length", b"5")
TE = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "changes", "lines", "mode"),
    [
        ([LENGTH_5], {}, [b"content-length: 5"], LENGTH),
        ([], {}, [b"transfer-encoding: chunked"], CHUNKED),
        ([TE], {}, [b"transfer-encoding: chunked"], CHUNKED),
        # RFC 9112 6.2: never both.
        ([TE, LENGTH_5], {}, [b"transfer-encoding: chunked"], CHUNKED),
        ([LENGTH_5, TE], {}, [b"transfer-encoding: chunked"], CHUNKED),
        ([TE, TE], {}, [b"transfer-encoding: chunked"], CHUNKED),
        # RFC 9112 6.1: not to HTTP/1.0.
        ([], {"modern": False}, [b"connection: close"], CLOSE),
        ([TE, LENGTH_5], {"modern": False}, [b"connection: close"], CLOSE),
        ([LENGTH_5], {"modern": False}, [b"content-length: 5", b"connection: keep-alive"], LENGTH),
        # RFC 9110 8.6, 15.3.5: nothing about a body in 204; in 304 and for HEAD a length tells of what is not there.
        ([], {"status": 204}, [], NONE),
        ([LENGTH_5], {"status": 204}, [], NONE),
        ([TE], {"status": 204}, [], NONE),
        ([LENGTH_5], {"status": 204, "is_head": True}, [], NONE),
        ([LENGTH_5], {"status": 304}, [b"content-length: 5"], NONE),
        ([TE], {"status": 304}, [], NONE),
        ([LENGTH_5], {"is_head": True}, [b"content-length: 5"], NONE),
        ([], {"is_head": True}, [], NONE),
        ([TE], {"is_head": True}, [], NONE),
        # A body that is not there needs no close to end it.
        ([], {"is_head": True, "modern": False}, [b"connection: keep-alive"], NONE),
    ],
)
def test_framing_is_decided_once(
    headers: Fields, changes: dict[str, Any], lines: list[bytes], mode: int
) -> None:
    head, decided, length, keep_alive = frame(*headers, **changes)
    assert lines_of(head) == lines
    assert decided == mode
    assert length == (5 if mode == LENGTH else 0)
    assert keep_alive is (mode != CLOSE)


@pytest.mark.parametrize(
    "value", [b"gzip", b"", b"chunked, gzip", b"gzip, chunked", b"identity", b"chunkedx"]
)
def test_other_transfer_encoding_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidResponse, match="The server cannot send Transfer-Encoding"):
        frame((b"Transfer-Encoding", value))


def test_transfer_encoding_has_no_case() -> None:
    head, mode, *_ = frame((b"Transfer-Encoding", b" Chunked "))
    assert lines_of(head) == [b"transfer-encoding: chunked"]
    assert mode == CHUNKED


@pytest.mark.parametrize(
    "value",
    [b"", b"-5", b"+5", b"5.0", b"five", b"5, 5", b" 5", b"5 ", b"0x5", b"9" * 19, "five", "５".encode()],
)
def test_content_length_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidResponse, match="Invalid Content-Length of the response"):
        frame((b"content-length", value))


def test_equal_content_lengths_are_one() -> None:
    head, mode, length, _ = frame((b"content-length", b"5"), (b"Content-Length", b"05"))
    assert lines_of(head) == [b"content-length: 5"]
    assert (mode, length) == (LENGTH, 5)


def test_different_content_lengths_are_refused() -> None:
    with pytest.raises(InvalidResponse, match="two different Content-Length headers"):
        frame((b"content-length", b"5"), (b"content-length", b"6"))


def test_content_length_of_zero_is_one() -> None:
    _, mode, length, keep_alive = frame((b"content-length", b"0"))
    assert (mode, length, keep_alive) == (LENGTH, 0, True)


# --- whether the connection goes on -----------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "changes", "lines", "goes_on"),
    [
        ([], {}, [], True),
        ([], {"keep_alive": False}, [b"connection: close"], False),
        ([b"close"], {}, [b"connection: close"], False),
        ([b"Close"], {}, [b"connection: Close"], False),
        ([b"foo, close"], {}, [b"connection: foo, close"], False),
        ([b"close"], {"keep_alive": False}, [b"connection: close"], False),
        ([b"keep-alive"], {}, [b"connection: keep-alive"], True),
        ([b"keep-alive"], {"keep_alive": False}, [b"connection: close"], False),
        ([b"keep-alive", b"keep-alive"], {"keep_alive": False}, [b"connection: close"], False),
        ([b"keep-alive", b"close"], {}, [b"connection: close"], False),
        ([b"close", b"keep-alive"], {}, [b"connection: close"], False),
        ([b"foo"], {}, [b"connection: foo"], True),
        ([], {"modern": False}, [b"connection: keep-alive"], True),
        ([], {"modern": False, "keep_alive": False}, [b"connection: close"], False),
        ([b"keep-alive"], {"modern": False}, [b"connection: keep-alive"], True),
        ([b"close"], {"modern": False}, [b"connection: close"], False),
    ],
)
def test_connection_says_what_happens(
    connection: list[bytes], changes: dict[str, Any], lines: list[bytes], goes_on: bool
) -> None:
    head, _, _, keep_alive = frame(LENGTH_5, *((b"connection", value) for value in connection), **changes)
    assert lines_of(head) == [b"content-length: 5", *lines]
    assert keep_alive is goes_on


# --- fields that cannot be written ------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"x\r\n", b"a"),
        (b"", b"a"),
        (b"content-length\r\n", b"5"),
        (b"transfer-encoding ", b"chunked"),
        (b"connection", b"close\r\nx: y"),
        (b"transfer-encoding", b"chunked\r\n"),
        ("x", "a\nb"),
        ("x y", "a"),
        ("x", "\xe9"),
        (b"x", 1),
    ],
)
def test_field_that_would_split_the_response_is_refused(header: Any) -> None:
    framer = ResponseFramer()
    for _ in range(2):  # a refusal is not remembered as a line
        with pytest.raises(InvalidResponse):
            frame(LENGTH_5, header, framer=framer)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"Content-Length", b"Connection", b"X", b"Transfer-Encoding"])),
            st.one_of(st.binary(max_size=8), st.sampled_from([b"5", b"close", b"chunked", b"keep-alive"])),
        ),
        max_size=5,
    ),
    st.sampled_from([200, 204, 304, 404, 599]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_head_is_one_head_whatever_the_application_sends(
    headers: Fields, status: int, is_head: bool, modern: bool, keep_alive: bool, title_case: bool
) -> None:
    framer = ResponseFramer(title_case)
    try:
        result = framer.head(status, headers, b"", is_head, modern, keep_alive)
    except InvalidResponse:
        return
    # With a warm cache it is the same.
    assert framer.head(status, headers, b"", is_head, modern, keep_alive) == result
    head, mode, length, goes_on = result
    fields = [line.partition(b": ") for line in lines_of(head)]
    names = [name.lower() for name, _, _ in fields]
    assert all(names)
    assert not any(byte in line for line in lines_of(head) for byte in (b"\r", b"\n", b"\0"))
    assert names.count(b"content-length") <= 1
    assert (b"transfer-encoding" in names) == (mode == CHUNKED)
    assert not (b"transfer-encoding" in names and b"content-length" in names)
    assert not (mode == CHUNKED and not modern)
    assert not (goes_on and mode == CLOSE)
    assert not (goes_on and not keep_alive)
    options = b",".join(value for name, _, value in fields if name.lower() == b"connection").lower()
    assert (b"close" in [option.strip() for option in options.split(b",")]) == (not goes_on)
    if mode == LENGTH:
        assert (b"content-length", b"%d" % length) in [
            (name.lower(), b"%d" % int(value))
            for name, _, value in fields
            if name.lower() == b"content-length"
        ]
    if is_head or status in (204, 304):
        assert mode == NONE


# --- the cache --------------------------------------------------------------------------------


def test_cache_keeps_lines_by_name_and_value() -> None:
    framer = ResponseFramer()
    for name, value in ((b"X-A", b"1"), (b"x-a", b"1"), (b"X-A", b"2"), (b"X-A", b"1")):
        head, *_ = frame((name, value), LENGTH_5, framer=framer)
        assert lines_of(head)[0] == b"x-a: " + value


def test_cache_is_bounded_in_number() -> None:
    framer = ResponseFramer()
    for number in range(_CACHED_LINES + 100):
        value = b"%d" % number
        head, *_ = frame((b"x-request-id", value), LENGTH_5, framer=framer)
        assert lines_of(head)[0] == b"x-request-id: " + value
    assert len(framer._lines) == _CACHED_LINES


def test_cache_keeps_no_long_lines_and_nothing_that_frames() -> None:
    framer = ResponseFramer()
    frame((b"x", b"v" * _CACHED_LINE_LENGTH), LENGTH_5, (b"connection", b"close"), framer=framer)
    frame(TE, framer=framer)
    assert framer._lines == {}


def test_last_chunk() -> None:
    assert LAST_CHUNK == b"0\r\n\r\n"


# After so many of one kind a response is compared with the last one.
AGAIN = 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, http.HTTPStatus.OK, 404, 204, True, -200]),
            st.sampled_from(
                [
                    [],
                    [(b"x", b"1")],
                    [(b"x", b"2")],
                    [(b"x", b"1"), LENGTH_5],
                    [[b"x", b"1"]],
                    ((b"x", b"1"),),
                    [(b"x", bytearray(b"1"))],
                    [(b"x", b"1"), (b"connection", b"close")],
                    [(b"x", b"1\r\n")],
                ]
            ),
            st.sampled_from([b"", b"date: 1\r\n"]),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        max_size=6,
    ),
    st.sampled_from([1, 2, AGAIN]),
)
def test_what_has_come_before_changes_no_head(asked: list[Any], times: int) -> None:
    framer = ResponseFramer()
    for arguments in asked:
        try:
            expected = ResponseFramer().head(*arguments)
        except (InvalidResponse, TypeError) as exc:
            with pytest.raises(type(exc)):
                framer.head(*arguments)
            continue
        assert [framer.head(*arguments) for _ in range(times)] == [expected] * times


@pytest.mark.parametrize("again", range(AGAIN + 1))
def test_no_headers_at_all_are_a_mistake_whatever_has_come_before(again: int) -> None:
    framer = ResponseFramer()
    for headers in [[LENGTH_5]] * AGAIN + [[LENGTH_5, (b"set-cookie", b"secret")]] * again:
        framer.head(200, list(headers), b"", False, True, True)
    with pytest.raises(TypeError):
        framer.head(200, None, b"", False, True, True)  # type: ignore[arg-type]


def test_headers_that_change_in_place_are_seen() -> None:
    framer, headers = ResponseFramer(), [(b"x", b"1")]
    for _ in range(AGAIN):
        before = framer.head(200, headers, b"", False, True, True)
    headers[0] = (b"x", b"2")
    assert b"x: 2" in framer.head(200, headers, b"", False, True, True)[0]
    assert b"x: 1" in before[0]


@pytest.mark.parametrize("keep_alive", [True, False])
def test_heads_are_looked_up_with_the_lines_of_the_server_as_they_are_now(keep_alive: bool) -> None:
    framer = ResponseFramer()
    headers = [(b"content-length", b"1")]
    for lines in (b"date: 1\r\n", b"date: 2\r\n"):
        heads = [framer.head(200, headers, lines, False, True, keep_alive) for _ in range(AGAIN)]
        assert heads == [ResponseFramer().head(200, headers, lines, False, True, keep_alive)] * AGAIN
    for _ in range(2):
        kept, closed = (framer.head(200, headers, b"", False, True, alive) for alive in (True, False))
        assert (kept[3], closed[3]) == (True, False)
        assert b"close" in closed[0]
        assert b"close" not in kept[0]


@pytest.mark.parametrize("status", [-200, None, "200", []])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_no_status_is_taken_for_a_known_one(status: Any, keep_alive: bool) -> None:
    framer = ResponseFramer()
    for alive in (True, False):
        for _ in range(AGAIN):
            framer.head(200, [], b"", False, True, alive)
    with pytest.raises((InvalidResponse, TypeError)):
        framer.head(status, [], b"", False, True, keep_alive)
