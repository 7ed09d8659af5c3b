"""Response header fields: what may be written, byte by byte, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from uvicorn.protocols._fields import InvalidResponse, field, field_line

# RFC 9110 5.6.2.
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# RFC 9110 5.5: visible characters, obs-text, blank and tab.
IN_VALUE = frozenset({0x09, 0x20, *range(0x21, 0x7F), *range(0x80, 0x100)})


def test_field_line_is_name_colon_value() -> None:
    assert field_line(b"X-Name", b"a value") == b"X-Name: a value\r\n"


def test_field_line_takes_an_empty_value() -> None:
    assert field_line(b"x-name", b"") == b"x-name: \r\n"


PLACES = {"alone": (b"", b""), "last": (b"x", b""), "first": (b"", b"x"), "inside": (b"x", b"y")}


def written(name: bytes, value: bytes) -> bool:
    """Whether the field is written, and then as it was given."""
    try:
        line = field_line(name, value)
    except InvalidResponse:
        return False
    assert line == name + b": " + value + b"\r\n"
    return True


@pytest.mark.parametrize("place", PLACES)
def test_name_is_written_with_exactly_the_bytes_of_a_token(place: str) -> None:
    before, behind = PLACES[place]
    taken = {byte for byte in range(256) if written(before + bytes([byte]) + behind, b"v")}
    assert taken == TOKEN


@pytest.mark.parametrize("place", PLACES)
def test_value_is_written_with_every_byte_but_control_characters(place: str) -> None:
    before, behind = PLACES[place]
    taken = {byte for byte in range(256) if written(b"x", before + bytes([byte]) + behind)}
    assert taken == IN_VALUE


def test_refusal_names_the_field() -> None:
    with pytest.raises(InvalidResponse, match="Invalid response header name: b'x y'"):
        field_line(b"x y", b"v")
    with pytest.raises(InvalidResponse, match=r"Invalid value of the response header b'x': b'v\\r\\nw'"):
        field_line(b"x", b"v\r\nw")


def test_empty_name_is_refused() -> None:
    with pytest.raises(InvalidResponse, match="Invalid response header name: b''"):
        field_line(b"", b"v")


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"X", b"v"), ("X", "v"), ("X", b"v"), (b"X", "v"), (bytearray(b"X"), memoryview(b"v"))],
)
def test_text_and_bytes_by_another_name_are_taken(name: Any, value: Any) -> None:
    taken = field(name, value)
    assert taken == (b"X", b"v")
    assert [type(part) for part in taken] == [bytes, bytes]


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"x", None), (b"x", 1), (1, b"v"), (None, "v"), ("x", "é"), ("é", b"v"), (b"x", [118])],
)
def test_what_is_no_bytes_is_refused(name: Any, value: Any) -> None:
    with pytest.raises(InvalidResponse, match="must be bytes"):
        field(name, value)


def test_invalid_response_is_a_runtime_error() -> None:
    assert issubclass(InvalidResponse, RuntimeError)
