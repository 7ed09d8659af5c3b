"""Frames as a client writes them, and a reader for those of the server."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from uvicorn.protocols.websockets._engine import Engine, Event

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 4, 2, 1


def frame(
    opcode: int,
    payload: bytes = b"",
    final: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x01\x02\x03\x04",
    declared: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """One frame.

    Args:
        opcode, payload, final: What it says.
        rsv: Its reserved bits.
        mask: The masking key; None leaves it unmasked, which a client must not.
        declared: The length that it claims, where that is not the payload's.
        length_bytes: How its length is written (1, 2 or 8 bytes); by default as short as possible.
    """
    length = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 1 if length < 126 else 2 if length < 65536 else 8
    bit = 0x80 if mask is not None else 0
    head = bytes([(0x80 if final else 0) | rsv << 4 | opcode])
    if length_bytes == 1:
        head += bytes([bit | length])
    elif length_bytes == 2:
        head += bytes([bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    if mask is None:
        return head + payload
    return head + mask + masked_payload(payload, mask)


def masked_payload(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 5.3, by one large number: a test may send megabytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    """A close frame; without a code it is empty."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def deflated(data: bytes, window: int = 12) -> bytes:
    """One compressed message (RFC 7692 7.2.1)."""
    compressor = zlib.compressobj(wbits=-window)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def events_of(engine: Engine, data: bytes) -> list[Event]:
    """What an engine reads, given to it as a connection does whose application waits."""
    message = engine.receive_message(data)
    return engine.receive(data) if message is None else [message]


class Sent(NamedTuple):
    """A frame of the server."""

    opcode: int
    payload: bytes
    rsv: int = 0


def closed(code: int, reason: str = "") -> Sent:
    return Sent(CLOSE, struct.pack("!H", code) + reason.encode())


def read_frames(data: bytes) -> list[Sent]:
    """The server's frames: unmasked and whole."""
    frames = []
    while data:
        first, length = data[0], data[1]
        assert first & 0x80, "fragmented"
        assert not length & 0x80, "masked"
        at = 2
        if length == 126:
            (length,) = struct.unpack_from("!H", data, 2)
            at = 4
        elif length == 127:
            (length,) = struct.unpack_from("!Q", data, 2)
            at = 10
        assert len(data) >= at + length, "cut off"
        frames.append(Sent(first & 0x0F, data[at : at + length], first >> 4 & 7))
        data = data[at + length :]
    return frames
