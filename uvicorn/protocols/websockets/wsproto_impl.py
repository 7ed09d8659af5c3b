"""WebSocket by wsproto: a thin engine, and the documented class."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from wsproto import events as wsproto_events
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.utilities import LocalProtocolError

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

_NO_BITS = RsvBits(False, False, False)
_COMPRESSION_BIT = RsvBits(True, False, False)


class _SizeLimit(Extension):
    """Refuses a frame that is too large by its header, before any of it is read.

    The library has no such limit; extensions see every header.

    Attributes:
        so_far: The size of the message before this frame.
        exceeded: Whether it has refused one.
    """

    name = "size limit"

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.so_far = 0
        self.exceeded = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        raise NotImplementedError  # it is no matter of both sides

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if not opcode.iscontrol() and self.so_far + payload_length > self._limit:
            self.exceeded = True
            return CloseReason.MESSAGE_TOO_BIG
        return _NO_BITS


class _Compression(Extension):
    """Our compression, as the library asks for it: by header, piece and end of each frame.

    Attributes:
        exceeded: Whether a message was larger than the limit when it was inflated.
    """

    name = NAME

    def __init__(self, deflate: Deflate, limit: int) -> None:
        self._deflate = deflate
        self._limit = limit
        self._size = 0  # of the message so far
        self._open = False  # a message has begun
        self._compressed = False  # and is compressed
        self._control = False  # the frame is one of control
        self._begun = False  # the header was a message's first, of which nothing has come yet
        self._marked = False  # it has the mark of compression
        self.exceeded = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        raise NotImplementedError  # it has been agreed on before

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control:
            return _NO_BITS
        is_first = opcode is not Opcode.CONTINUATION
        # The library would see both only behind the content, which is not to be inflated then. RFC 7692 6.1: the mark
        # is the first fragment's.
        if is_first == self._open or (rsv.rsv1 and not is_first):
            return CloseReason.PROTOCOL_ERROR
        # Nothing else changes here: the library may ask several times for one header.
        self._begun, self._marked = is_first, rsv.rsv1
        return _COMPRESSION_BIT

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        if self._control:
            return data
        if self._begun:
            self._begun = False
            self._open, self._compressed, self._size = True, self._marked, 0
        return self._inflate(data, final=False) if self._compressed else data

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if self._control or not fin:
            return None
        self._open = False
        return self._inflate(b"", final=True) if self._compressed else None

    def _inflate(self, data: bytes, final: bool) -> bytes | CloseReason:
        try:
            content = self._deflate.decompress(data, final, self._limit - self._size)
        except InvalidData:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        except MessageTooBig:
            self.exceeded = True
            return CloseReason.MESSAGE_TOO_BIG
        self._size += len(content)
        return content

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol():
            return rsv, data
        return _COMPRESSION_BIT, self._deflate.compress(bytes(data))  # messages go out whole


class WSProtoEngine:
    """Frames by `wsproto.connection.Connection`."""

    __slots__ = ("_compression", "_connection", "_joiner", "_limit", "_max_size", "_open", "_out", "_over")

    missing = 0  # wsproto passes messages on in pieces, as they come

    def __init__(self, max_size: int, deflate: Deflate | None) -> None:
        self._max_size = max_size
        self._joiner = MessageJoiner()
        self._open = False  # a message has begun
        self._over = False
        self._out: list[bytes] = []
        # Compression may make a message a little larger on the wire; the message itself is measured where it is inflated.
        self._limit = _SizeLimit(max_size + (max_size // 100 + 1024 if deflate else 0))
        self._compression = None if deflate is None else _Compression(deflate, max_size)
        extensions: list[Extension] = [self._limit]
        if self._compression is not None:
            extensions.append(self._compression)
        self._connection = Connection(ConnectionType.SERVER, extensions)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, wsproto_events.Message):
                if not self._take(event, events):
                    self._fail(events)
                    break
            elif isinstance(event, wsproto_events.Ping):
                self._send(event.response())
            elif isinstance(event, wsproto_events.Pong):
                events.append(Pong(bytes(event.payload)))
            elif self._limit.exceeded or (self._compression is not None and self._compression.exceeded):
                self._fail(events)
            else:
                assert isinstance(event, wsproto_events.CloseConnection)
                # Of the peer, or of the library, which has found the peer's mistake.
                self._end(event.response(), events)
        return events

    def _take(self, event: wsproto_events.Message[Any], events: list[Event]) -> bool:
        """Take a piece of a message; False where it grows too large."""
        is_text = isinstance(event, wsproto_events.TextMessage)
        data: bytes = event.data.encode("utf-8") if is_text else bytes(event.data)
        self._limit.so_far += len(data)
        if self._limit.so_far > self._max_size:
            return False
        if event.message_finished:
            self._limit.so_far = 0
        if not self._open:
            if event.message_finished:
                events.append(event.data if is_text else data)
            else:
                self._joiner.start(is_text, data)
                self._open = True
            return True
        message = self._joiner.add(data, event.message_finished)
        if message is not None:
            events.append(message)
            self._open = False
        return True

    def _fail(self, events: list[Event]) -> None:
        reason = f"message exceeds limit of {self._max_size} bytes"
        self._end(wsproto_events.CloseConnection(CloseReason.MESSAGE_TOO_BIG, reason), events)

    def _end(self, close: wsproto_events.CloseConnection, events: list[Event]) -> None:
        self._over = True
        self._send(close)
        events.append(Closed(int(close.code), close.reason or ""))

    def _send(self, event: wsproto_events.Event) -> None:
        """An answer to the peer. After our own close frame the library sends none, and none is owed."""
        with contextlib.suppress(LocalProtocolError):
            self._out.append(self._connection.send(event))

    def receive_message(self, data: bytes) -> str | bytes | None:
        return None  # the library looks at every frame

    def text(self, text: str) -> bytes:
        return self._connection.send(wsproto_events.TextMessage(data=text))

    def binary(self, data: bytes) -> bytes:
        return self._connection.send(wsproto_events.BytesMessage(data=data))

    def ping(self, payload: bytes) -> None:
        self._out.append(self._connection.send(wsproto_events.Ping(payload=payload)))

    def close(self, code: int, reason: str) -> None:
        # The library knows 1005 only by its own name for it.
        known = CloseReason.NO_STATUS_RCVD if code == CloseReason.NO_STATUS_RCVD else code
        self._out.append(
            self._connection.send(wsproto_events.CloseConnection(code=known, reason=reason or None))
        )

    def output(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data


class WSProtocol(WebSocketConnection):
    """WebSocket by wsproto."""

    __slots__ = ()

    engine_class: ClassVar[Any] = WSProtoEngine
    explains_refusals: ClassVar[bool] = False
