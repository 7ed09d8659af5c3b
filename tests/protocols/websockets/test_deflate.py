"""Compression: which offers are met and how, and what comes out of what comes in."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from tests.protocols.websockets.frames import deflated
from uvicorn.protocols.websockets._deflate import Deflate, agree
from uvicorn.protocols.websockets._engine import InvalidData, MessageTooBig

NAME = "permessage-deflate"
LIMIT = 1000
# RFC 7692 7.2.3.4: "Hello" in a final block, and the byte that fills it up.
FINAL_HELLO = bytes.fromhex("f348cdc9c9070000")


def agreed(*params: tuple[str, str | None]) -> Deflate:
    deflate = agree([(NAME, list(params))])
    assert deflate is not None
    return deflate


# --- what is agreed on --------------------------------------------------------------------------


def test_without_an_offer_nothing_is_agreed() -> None:
    assert agree([]) is None
    assert agree([("x-other", [])]) is None


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ([], "server_max_window_bits=12"),
        ([("server_no_context_takeover", None)], "server_no_context_takeover; server_max_window_bits=12"),
        ([("client_no_context_takeover", None)], "client_no_context_takeover; server_max_window_bits=12"),
        ([("server_max_window_bits", "9")], "server_max_window_bits=9"),
        ([("server_max_window_bits", "10")], "server_max_window_bits=10"),
        ([("server_max_window_bits", "15")], "server_max_window_bits=12"),
        ([("client_max_window_bits", None)], "server_max_window_bits=12; client_max_window_bits=12"),
        ([("client_max_window_bits", "8")], "server_max_window_bits=12; client_max_window_bits=8"),
        ([("client_max_window_bits", "15")], "server_max_window_bits=12; client_max_window_bits=12"),
        (
            [
                ("client_max_window_bits", "10"),
                ("client_no_context_takeover", None),
                ("server_max_window_bits", "9"),
                ("server_no_context_takeover", None),
            ],
            (
                "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; "
                "client_max_window_bits=10"
            ),
        ),
    ],
    ids=str,
)
def test_offer_is_met_with_what_it_demands(params: Any, answer: str) -> None:
    deflate = agreed(*params)
    assert deflate.answer == f"{NAME}; {answer}"
    # And it works, over several messages, for a client that does what was agreed.
    window = max(9, int(dict(params).get("client_max_window_bits") or 12))
    theirs = zlib.decompressobj(wbits=-12)
    for _ in range(3):
        assert deflate.decompress(deflated(b"hello " * 50, window), True, LIMIT) == b"hello " * 50
        ours = deflate.compress(b"hello " * 50)
        assert theirs.decompress(ours + b"\x00\x00\xff\xff") == b"hello " * 50


@pytest.mark.parametrize(
    "params",
    [
        [("unknown", None)],
        [("unknown", "1")],
        [("server_no_context_takeover", "1")],
        [("client_no_context_takeover", "true")],
        [("server_no_context_takeover", None), ("server_no_context_takeover", None)],
        [("server_max_window_bits", None)],
        [("server_max_window_bits", "7")],
        [("server_max_window_bits", "8")],  # zlib cannot
        [("server_max_window_bits", "16")],
        [("server_max_window_bits", "010")],
        [("client_max_window_bits", "abc")],
        [("client_max_window_bits", "16")],
        [("client_max_window_bits", "10"), ("client_max_window_bits", "11")],
    ],
    ids=str,
)
def test_offer_that_cannot_be_met_is_declined_for_the_next(params: Any) -> None:
    assert agree([(NAME, params)]) is None
    deflate = agree([("x-other", []), (NAME, params), (NAME, [])])
    assert deflate is not None
    assert deflate.answer == f"{NAME}; server_max_window_bits=12"


# --- windows ------------------------------------------------------------------------------------


def test_window_goes_on_from_message_to_message() -> None:
    deflate = agreed()
    first, second = (deflate.compress(bytes(range(200))) for _ in range(2))
    assert len(second) < len(first) / 10
    compressor = zlib.compressobj(wbits=-15)
    for _ in range(3):
        data = compressor.compress(b"the same words") + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert deflate.decompress(data[:-4], True, LIMIT) == b"the same words"


def test_window_is_forgotten_where_the_client_wants_it() -> None:
    deflate = agreed(("server_no_context_takeover", None), ("client_no_context_takeover", None))
    assert deflate.compress(bytes(range(200))) == deflate.compress(bytes(range(200)))
    compressor = zlib.compressobj(wbits=-15)
    first, second = (
        (compressor.compress(bytes(range(200))) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)
    )
    assert deflate.decompress(first, True, LIMIT) == bytes(range(200))
    with pytest.raises(InvalidData):  # it looks back on what is forgotten
        deflate.decompress(second, True, LIMIT)


@pytest.mark.parametrize("bits", [9, 12])
def test_own_window_is_not_larger_than_agreed(bits: int) -> None:
    deflate = agreed(("server_max_window_bits", str(bits)))
    theirs = zlib.decompressobj(wbits=-bits)
    data = bytes(i * i % 251 for i in range(20000)) * 2
    assert theirs.decompress(deflate.compress(data) + b"\x00\x00\xff\xff") == data


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 999, 1000, 100_000])
def test_exactly_as_much_as_there_is_room_passes(room: int) -> None:
    deflate = agreed()
    assert deflate.decompress(deflated(bytes(room)), True, room) == bytes(room)
    with pytest.raises(MessageTooBig):
        deflate.decompress(deflated(bytes(room + 1)), True, room)


def test_no_more_is_inflated_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Watched:
        eof = False

        def __init__(self, wbits: int) -> None:
            self._inner = REAL(wbits=wbits)

        def decompress(self, data: bytes, limit: int) -> bytes:
            content: bytes = self._inner.decompress(data, limit)
            made.append(len(content))
            return content

    REAL = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(MessageTooBig):
        agreed().decompress(deflated(bytes(10_000_000)), True, LIMIT)
    assert made == [LIMIT + 1]


# --- final blocks ---------------------------------------------------------------------------------


def test_message_may_end_with_a_final_block_and_is_not_the_last() -> None:
    deflate = agreed()
    for _ in range(3):
        assert deflate.decompress(FINAL_HELLO, True, LIMIT) == b"Hello"
        assert deflate.decompress(deflated(b"and on"), True, LIMIT) == b"and on"


@pytest.mark.parametrize("at", range(len(FINAL_HELLO) + 1))
def test_final_block_may_be_split_anywhere(at: int) -> None:
    deflate = agreed()
    for _ in range(2):
        first = deflate.decompress(FINAL_HELLO[:at], False, LIMIT)
        assert first + deflate.decompress(FINAL_HELLO[at:], True, LIMIT) == b"Hello"


@pytest.mark.parametrize("behind", [FINAL_HELLO, b"\x00" * 6, b"\x03\x00" * 5000, b"\x01"])
def test_more_behind_a_final_block_is_refused(behind: bytes) -> None:
    with pytest.raises(InvalidData):
        agreed().decompress(FINAL_HELLO + behind, True, LIMIT)
    deflate = agreed()
    deflate.decompress(FINAL_HELLO, False, LIMIT)
    with pytest.raises(InvalidData):
        deflate.decompress(behind, False, LIMIT)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x06"])
def test_what_is_no_compressed_data_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidData):
        agreed().decompress(data, True, LIMIT)


def test_empty_message() -> None:
    deflate = agreed()
    assert deflate.compress(b"") == b"\x02\x00" or deflate.compress(b"") == b"\x00"
    assert deflate.decompress(b"\x00", True, LIMIT) == b""
    assert deflate.decompress(b"", True, LIMIT) == b""
