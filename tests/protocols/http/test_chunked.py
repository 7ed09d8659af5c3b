"""The chunked coding, read to the letter and cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.protocols.http._chunked import ChunkedReader
from uvicorn.protocols.http._head import Refused

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# What a field value and a quoted string may hold: no control character but the tab.
TEXT = frozenset({0x09, *range(0x20, 0x7F), *range(0x80, 0x100)})


def read(data: bytes, *cuts: int) -> tuple[bytes, bytes | None]:
    """The body in these bytes, given in pieces that end at these places; and what comes behind it."""
    reader = ChunkedReader()
    body, at = b"", 0
    for cut in (*sorted(cuts), len(data)):
        body += b"".join(reader.feed(data[at:cut]))
        at = cut
    return body, reader.rest


def accepted(data: bytes) -> bool:
    try:
        read(data)
    except Refused:
        return False
    return True


BODIES = {
    "empty": (b"0\r\n\r\n", b"", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    "two chunks and a rest": (b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nGET /", b"hello", b"GET /"),
    "upper case": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
    "leading zeros": (b"0005\r\nhello\r\n" + b"0" * 40 + b"\r\n\r\n", b"hello", b""),
    "line ends as data": (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", b""),
    "extensions": (b'1;a;b=c;d="e;\\""\r\nx\r\n0;a\r\n\r\n', b"x", b""),
    "trailers": (b"1\r\nx\r\n0\r\nA: b\r\nC:\r\nD: \xe4\t\r\n\r\nrest", b"x", b"rest"),
}


@pytest.mark.parametrize("name", BODIES)
def test_body_is_read_whole_and_cut_at_every_place(name: str) -> None:
    data, body, rest = BODIES[name]
    assert read(data) == (body, rest)
    assert read(data, *range(len(data))) == (body, rest)
    for cut in range(len(data)):
        assert read(data, cut) == (body, rest)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_any_body_is_read_however_it_is_cut(pieces: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\nrest"
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=8))
    assert read(sent, *cuts) == (b"".join(pieces), b"rest")


@given(st.binary(max_size=60), st.data())
def test_bytes_get_the_same_verdict_however_they_are_cut(noise: bytes, data: st.DataObject) -> None:
    sent = data.draw(st.sampled_from([b"", b"5\r\n", b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\n"])) + noise
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=8))
    try:
        whole = read(sent)
    except Refused:
        with pytest.raises(Refused):
            read(sent, *cuts)
    else:
        assert read(sent, *cuts) == whole


def test_incomplete_body_has_no_rest() -> None:
    data = BODIES["trailers"][0].removesuffix(b"rest")
    for cut in range(len(data)):
        assert read(data[:cut])[1] is None


def test_nothing_is_read_behind_the_end() -> None:
    reader = ChunkedReader()
    assert list(reader.feed(b"0\r\n\r\n")) == []
    assert reader.rest == b""
    assert list(reader.feed(b"5\r\nhello")) == []


def test_size_has_exactly_hexadecimal_digits() -> None:
    taken = {byte for byte in range(256) if accepted(bytes([byte]) + b"\r\n")}
    assert taken == set(b"0123456789abcdefABCDEF")


def test_size_is_followed_by_nothing_but_its_line_end_or_an_extension() -> None:
    taken = {byte for byte in range(256) if accepted(b"1" + bytes([byte]) + b"x\r\n")}
    assert taken == {ord(";")}
    assert {byte for byte in range(256) if accepted(b"1" + bytes([byte]) + b"\r\n")} == set(
        b"0123456789abcdefABCDEF"
    )


def test_size_has_at_most_64_bits() -> None:
    assert accepted(b"f" * 16 + b"\r\n")
    assert accepted(b"0" * 500 + b"f" * 16 + b"\r\n")
    assert not accepted(b"1" + b"0" * 16 + b"\r\n")


def test_extension_name_is_a_token() -> None:
    taken = {byte for byte in range(256) if accepted(b"1;a" + bytes([byte]) + b"b\r\n")}
    assert taken == TCHAR | set(b";=")


def test_extension_value_is_a_token_or_quoted() -> None:
    taken = {byte for byte in range(256) if accepted(b"1;a=b" + bytes([byte]) + b"c\r\n")}
    assert taken == TCHAR | set(b";")
    inside = {byte for byte in range(256) if accepted(b'1;a="b' + bytes([byte]) + b'c"\r\n')}
    assert inside == TEXT - {ord('"')}  # behind a backslash the c is quoted
    escaped = {byte for byte in range(256) if accepted(b'1;a="\\' + bytes([byte]) + b'"\r\n')}
    assert escaped == TEXT


def test_trailer_name_is_a_token() -> None:
    taken = {byte for byte in range(256) if accepted(b"0\r\na" + bytes([byte]) + b"b: c\r\n")}
    assert taken == TCHAR | {ord(":")}


def test_trailer_value_holds_no_control_character() -> None:
    taken = {byte for byte in range(256) if accepted(b"0\r\na: b" + bytes([byte]) + b"c\r\n")}
    assert taken == TEXT


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"CONNECTION"])
def test_trailer_that_frames_is_refused(name: bytes) -> None:
    assert not accepted(b"0\r\n" + name + b": 5\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"5\n", b"5\r5\r\n", b"5\r\r\n", b" 5\r\n", b"5 \r\n", b"5;\r\n", b"5;a;\r\n", b"5;a\n", b"5; a\r\n",
        b'5;a="b\r\n', b"5\r\nhelloX", b"5\r\nhello\n", b"5\r\nhello\rX", b"0\n", b"0\r\n\n", b"0\r\nA\r\n",
        b"0\r\nA : b\r\n", b"0\r\n: b\r\n", b"0\r\nA: b\n", b"0\r\nA: b\r\n c\r\n", b"0\r\nA: b\r\n\n", b"0\r\n\rX", b"5;a\rb",
    ],
)  # fmt: skip
def test_what_is_not_chunked_is_refused(data: bytes) -> None:
    for cuts in ((), range(len(data))):
        with pytest.raises(Refused) as caught:
            read(data, *cuts)
        assert caught.value.status == 400


def test_pieces_before_a_mistake_are_handed_on() -> None:
    reader = ChunkedReader()
    pieces = []
    with pytest.raises(Refused):
        pieces.extend(reader.feed(b"5\r\nhello\r\nxyz\r\n"))
    assert pieces == [b"hello"]
