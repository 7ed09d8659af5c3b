"""WebSocket by the websockets library's sans-I/O layer: a thin engine, and the documented class.

By far the most frequent frame is a whole message of its own. That one is read and written here (0.4 us for 16 bytes,
against 4 us); whatever else comes, and whatever is wrong, is the library's to judge, frame by frame.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from websockets.extensions import Extension
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.typing import ExtensionName

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - installed without its C extension
    from websockets.utils import apply_mask

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets._deflate import NAME, Deflate
from uvicorn.protocols.websockets._engine import (
    Closed,
    Event,
    InvalidData,
    MessageJoiner,
    MessageTooBig,
    Pong,
)

# The largest payload of a control frame (RFC 6455 5.5).
_CONTROL_SIZE = 125
# The first byte of a message that is one frame (RFC 6455 5.2): as it is, or compressed (RFC 7692 6).
_TEXT, _BINARY = 0x81, 0x82
_COMPRESSED = 0x40
_WHOLE = frozenset((_TEXT, _BINARY))
_WHOLE_COMPRESSED = _WHOLE | {_TEXT | _COMPRESSED, _BINARY | _COMPRESSED}
_CLOSE = 0x88
# A last fragment without content, masked.
_LAST_FRAGMENT = b"\x80\x80\0\0\0\0"
# How large a masked frame's header is, by the seven bits of its second byte.
_HEADER_SIZES = [6] * 126 + [8, 14]
_SHORT, _LONGER, _LONGEST = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
# From this size on a copy costs more than a view.
_LARGE = 4096


class _Marks(Extension):
    """Takes the mark of compressed messages, for which the library has to have an extension, and does no more.

    Attributes:
        compressed: Whether the message that has begun last is compressed.
    """

    name = ExtensionName(NAME)

    def __init__(self) -> None:
        self.compressed = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self.compressed = frame.rsv1
            frame.rsv1 = False  # anywhere else the library refuses it (RFC 7692 6.1)
        return frame

    def encode(self, frame: Frame) -> Frame:
        return frame  # messages do not go out through the library


class WebSocketsEngine:
    """Frames by `websockets.protocol.Protocol`."""

    __slots__ = (
        "_between",
        "_deflate",
        "_flaw",
        "_fragmented",
        "_joiner",
        "_marks",
        "_max_size",
        "_out",
        "_over",
        "_passing",
        "_protocol",
        "_size",
        "_started",
        "_whole",
        "missing",
    )

    def __init__(self, max_size: int, deflate: Deflate | None) -> None:
        self._max_size = max_size
        self._deflate = deflate
        self._marks = _Marks()
        # The first bytes of what is read here. Between the fragments of a message nothing is.
        self._whole = _WHOLE if deflate is None else _WHOLE_COMPRESSED
        self._size = 0  # of the message so far
        self._joiner = MessageJoiner()
        self._over = False
        self._out: list[bytes] = []
        self._started = bytearray()  # a frame that has come in part
        self._fragmented = False  # between the fragments of a message
        self._passing = 0  # this much more of a frame is the library's
        self._between = True  # all that has come so far were whole frames, of whole messages
        self._flaw: InvalidData | MessageTooBig | None = None  # of a message that is to be given again
        self.missing = 0
        # The library holds every frame against what is left of the limit, control frames too, and on the wire, where
        # compression may have made it a little larger than it is. The message itself is measured in `_take_data`.
        excess = _CONTROL_SIZE if deflate is None else max_size // 100 + 1024
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size + excess)
        if deflate is not None:
            self._protocol.extensions = [self._marks]

    def receive(self, data: bytes | bytearray) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        if self._started:
            self._started += data
            self.missing -= len(data)
            if self.missing > 0:
                return events
            data, self._started = self._started, bytearray()
        self.missing = 0
        try:
            if self._flaw is not None:
                raise self._flaw
            self._read_frames(data, events)
        except InvalidData as exc:
            self._fail(CloseCode.INVALID_DATA, str(exc)[:100], events)
        except MessageTooBig:
            reason = f"message exceeds limit of {self._max_size} bytes"
            self._fail(CloseCode.MESSAGE_TOO_BIG, reason, events)
        self._between = not (self._over or self._started or self._passing or self._fragmented)
        return events

    def receive_message(self, data: bytes) -> str | bytes | None:
        size = len(data)
        # A frame of this size has a header of this size, unless its length is written longer than it must be.
        if size < 132:
            start = 6
            right = size > 5 and data[1] == size + 122
        elif size < 65544:
            start = 8
            right = data[1] == 0xFE and data[2] << 8 | data[3] == size - 8
        else:
            start = 14
            right = data[1] == 0xFF and int.from_bytes(data[2:10], "big") == size - 14
        if (
            not right
            or not self._between
            or size - start > self._max_size
            or (first := data[0]) not in self._whole
        ):
            return None
        masked = data[start:] if size < _LARGE else memoryview(data)[start:]
        content = apply_mask(masked, data[start - 4 : start])
        try:
            if first == _TEXT:
                return content.decode()
            return content if first == _BINARY else self._message(first, content)
        except UnicodeDecodeError:
            return None
        except (InvalidData, MessageTooBig) as exc:
            self._flaw = exc  # it cannot be inflated a second time
            return None

    def _read_frames(self, data: bytes | bytearray, events: list[Event]) -> None:
        """Read whole frames; keep the beginning of one that is not complete."""
        at, end = 0, len(data)
        if self._passing:
            at = min(self._passing, end)
            self._passing -= at
            self._ask_library(data[:at], events)
        while at < end and not self._over:
            size = _frame_size(data, at, end)
            first = data[at]
            if size and first in self._whole and not self._fragmented and data[at + 1] & 0x80:
                start = at + _HEADER_SIZES[data[at + 1] & 0x7F]
                if size - (start - at) <= self._max_size:
                    if at + size > end:
                        self._started += data[at:]
                        self.missing = at + size - end
                        return
                    at += size
                    masked = data[start:at] if size < _LARGE else memoryview(data)[start:at]
                    events.append(self._message(first, apply_mask(masked, data[start - 4 : start])))
                    continue
            if not size:  # of the frame's header only a part has come
                self._started += data[at:]
                self.missing = 1
                return
            here = min(at + size, end)
            self._passing = at + size - here
            self._hand_on(first, data[at:here], events)
            at = here

    def _message(self, first: int, content: bytes) -> str | bytes:
        """A message that is one frame."""
        if first & _COMPRESSED:
            assert self._deflate is not None
            content = self._deflate.decompress(content, True, self._max_size)
        return _text(content) if first & 0x0F == Opcode.TEXT else content

    def _hand_on(self, first: int, data: bytes | bytearray, events: list[Event]) -> None:
        """Give the library the beginning of a frame, or all of it."""
        if first & 0x08 == 0:
            self._fragmented = not first & 0x80
        elif first == _CLOSE and self._fragmented:
            # RFC 6455 5.4 lets a close come between fragments; the library takes it for a mistake. So the message,
            # which nobody gets, is completed for it.
            self._fragmented = False
            self._protocol.receive_data(_LAST_FRAGMENT)
            self._protocol.events_received()
        self._ask_library(data, events)

    def _ask_library(self, data: bytes | bytearray, events: list[Event]) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        self._out += protocol.data_to_send()
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            self._take(frame, events)
        if protocol.parser_exc is not None and not self._over:
            # The library has found it, and has sent its close frame unless there was one before.
            sent = protocol.close_sent
            assert sent is not None
            self._end(sent.code, sent.reason, events)

    def _fail(self, code: CloseCode, reason: str, events: list[Event]) -> None:
        self._protocol.fail(code, reason)
        self._out += self._protocol.data_to_send()
        self._end(code, reason, events)

    def _end(self, code: int, reason: str, events: list[Event]) -> None:
        self._over = True
        events.append(Closed(int(code), reason))

    def _take(self, frame: Frame, events: list[Event]) -> None:
        opcode = frame.opcode
        if opcode in DATA_OPCODES:
            message = self._take_data(opcode, bytes(frame.data), frame.fin)
            if message is not None:
                events.append(message)
        elif opcode is Opcode.PONG:
            events.append(Pong(bytes(frame.data)))
        elif opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            assert received is not None
            self._end(received.code, received.reason, events)

    def _take_data(self, opcode: Opcode, data: bytes, final: bool) -> str | bytes | None:
        """A frame of a message; the message where it is complete."""
        room = self._max_size - self._size
        if self._marks.compressed:
            assert self._deflate is not None
            data = self._deflate.decompress(data, final, room)
        elif len(data) > room:
            raise MessageTooBig
        self._size = 0 if final else self._size + len(data)
        if opcode is Opcode.CONT:
            return self._joiner.add(data, final)
        if not final:
            self._joiner.start(opcode is Opcode.TEXT, data)
            return None
        return data if opcode is Opcode.BINARY else _text(data)

    def text(self, text: str) -> bytes:
        data = text.encode()
        deflate = self._deflate
        if deflate is not None:
            return _header(_TEXT | _COMPRESSED, len(data := deflate.compress(data))) + data
        size = len(data)
        return (_SHORT_TEXTS[size] if size < 126 else _header(_TEXT, size)) + data

    def binary(self, data: bytes) -> bytes:
        first = _BINARY
        if self._deflate is not None:
            data = self._deflate.compress(data)
            first |= _COMPRESSED
        return _header(first, len(data)) + data

    def ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)
        self._out += self._protocol.data_to_send()

    def close(self, code: int, reason: str) -> None:
        if code == CloseCode.NO_STATUS_RCVD:
            self._protocol.send_close()
        else:
            self._protocol.send_close(code, reason)
        self._out += self._protocol.data_to_send()

    def output(self) -> bytes:
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)


def _header(first: int, size: int) -> bytes:
    """What stands before so many bytes of a message (RFC 6455 5.2)."""
    if size < 126:
        return _SHORT.pack(first, size)
    if size < 65536:
        return _LONGER.pack(first, 126, size)
    return _LONGEST.pack(first, 127, size)


# Looked up, because most messages of applications are small texts.
_SHORT_TEXTS = [_header(_TEXT, size) for size in range(126)]


def _frame_size(data: bytes | bytearray, at: int, end: int) -> int:
    """The size of the frame that begins there (RFC 6455 5.2); 0 where its header is not complete."""
    if end - at < 2:
        return 0
    second = data[at + 1]
    length = second & 0x7F
    header = _HEADER_SIZES[length] - (0 if second & 0x80 else 4)
    if end - at < header:
        return 0
    if length == 126:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
    elif length == 127:
        length = int.from_bytes(data[at + 2 : at + 10], "big")
    return header + length


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidData(str(exc)) from None


class WebSocketsSansIOProtocol(WebSocketConnection):
    """WebSocket by the websockets library, under its documented sans-I/O name."""

    __slots__ = ()

    engine_class: ClassVar[Any] = WebSocketsEngine
