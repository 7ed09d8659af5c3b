"""Fragments become messages: joined whole, checked as they come."""

from __future__ import annotations

import pytest

from uvicorn.protocols.websockets._engine import InvalidData, MessageJoiner

TEXT = "aé€𝄞"


def test_binary_fragments_are_joined() -> None:
    joiner = MessageJoiner()
    joiner.start(False, b"a\xff")
    assert joiner.add(b"", False) is None
    assert joiner.add(b"b", False) is None
    assert joiner.add(b"c", True) == b"a\xffbc"


def test_one_message_leaves_nothing_to_the_next() -> None:
    joiner = MessageJoiner()
    joiner.start(False, b"a")
    assert joiner.add(b"b", True) == b"ab"
    joiner.start(True, b"c")
    assert joiner.add(b"d", True) == "cd"
    joiner.start(False, b"\xff")
    assert joiner.add(b"", True) == b"\xff"


@pytest.mark.parametrize("at", range(len(TEXT.encode()) + 1))
def test_text_may_be_split_at_any_byte(at: int) -> None:
    data = TEXT.encode()
    joiner = MessageJoiner()
    joiner.start(True, data[:at])
    assert joiner.add(data[at:], True) == TEXT


def test_text_may_come_byte_by_byte() -> None:
    joiner = MessageJoiner()
    joiner.start(True, b"")
    for byte in TEXT.encode():
        assert joiner.add(bytes([byte]), False) is None
    assert joiner.add(b"", True) == TEXT


def test_message_may_be_empty() -> None:
    joiner = MessageJoiner()
    joiner.start(True, b"")
    assert joiner.add(b"", True) == ""
    joiner.start(False, b"")
    assert joiner.add(b"", True) == b""


def test_invalid_first_fragment_is_an_error_at_once() -> None:
    with pytest.raises(InvalidData):
        MessageJoiner().start(True, b"\xff")


def test_invalid_later_fragment_is_an_error_at_once() -> None:
    joiner = MessageJoiner()
    joiner.start(True, b"\xe2")
    with pytest.raises(InvalidData):
        joiner.add(b"\x28", False)


def test_cut_code_point_at_the_end_is_an_error() -> None:
    joiner = MessageJoiner()
    joiner.start(True, b"a")
    with pytest.raises(InvalidData):
        joiner.add(b"\xe2\x82", True)


def test_memory_grows_with_the_bytes_and_not_with_the_fragments() -> None:
    joiner = MessageJoiner()
    joiner.start(True, b"")
    for _ in range(1000):
        joiner.add(b"", False)
        joiner.add("€".encode(), False)
    assert len(joiner._buffer) == 3000
