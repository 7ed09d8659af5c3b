"""WebSocket by wsproto: a thin engine, and the documented class."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from wsproto import events as wsproto_events
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.utilities import LocalProtocolError

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets._engine import Closed, Event, MessageJoiner, Pong
from uvicorn.protocols.websockets._handshake import Offers

_NO_BITS = RsvBits(False, False, False)
# What a window may be in an offer (RFC 7692 7.1.2): no leading zeros.
_WINDOWS = frozenset(map(str, range(8, 16)))
_WINDOW_PARAMETERS = ("server_max_window_bits", "client_max_window_bits")
_FLAG_PARAMETERS = ("server_no_context_takeover", "client_no_context_takeover")


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


class _Deflate(PerMessageDeflate):
    """The library's compression, for which a control frame between two fragments ends the message."""

    _in_control = False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._in_control = opcode.iscontrol()
        if self._in_control:
            return _NO_BITS
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        return data if self._in_control else super().frame_inbound_payload_data(proto, data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        return None if self._in_control else super().frame_inbound_complete(proto, fin)


def _deflate(params: list[tuple[str, str | None]]) -> tuple[_Deflate, str] | None:
    """Compression as an offer wants it, and the answer to the offer; None where it has to be declined."""
    names = [name for name, _ in params]
    if len(set(names)) != len(names) or not all(_valid(name, value) for name, value in params):
        return None  # RFC 7692 7.1
    extension = _Deflate()
    offer = [PerMessageDeflate.name, *(f"{name}={value}" if value else name for name, value in params)]
    answer = extension.accept("; ".join(offer))
    if answer is None:
        return None  # a window that zlib does not have
    assert isinstance(answer, str)
    return extension, f"{PerMessageDeflate.name}; {answer}" if answer else PerMessageDeflate.name


def _valid(name: str, value: str | None) -> bool:
    if name in _FLAG_PARAMETERS:
        return value is None
    return name in _WINDOW_PARAMETERS and (
        value in _WINDOWS or (value is None and name == "client_max_window_bits")
    )


class WSProtoEngine:
    """Frames by `wsproto.connection.Connection`."""

    __slots__ = ("_connection", "_joiner", "_limit", "_max_size", "_open", "_out", "_over", "extensions")

    missing = 0  # wsproto passes messages on in pieces, as they come

    def __init__(self, max_size: int, deflate: bool, offers: Offers) -> None:
        self._max_size = max_size
        self._joiner = MessageJoiner()
        self._open = False  # a message has begun
        self._over = False
        self._out: list[bytes] = []
        self.extensions: str | None = None
        agreed = self._negotiate(offers) if deflate else None
        # Compression may make a message a little larger on the wire; the message itself is measured in `_take`.
        self._limit = _SizeLimit(max_size + (max_size // 100 + 1024 if agreed else 0))
        extensions: list[Extension] = [self._limit, agreed] if agreed else [self._limit]
        self._connection = Connection(ConnectionType.SERVER, extensions)

    def _negotiate(self, offers: Offers) -> PerMessageDeflate | None:
        for name, params in offers:
            agreed = _deflate(params) if name == PerMessageDeflate.name else None
            if agreed is not None:  # else another offer may do (RFC 7692 5)
                self.extensions = agreed[1]
                return agreed[0]
        return None

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
            elif self._limit.exceeded:
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

    def send_text(self, text: str) -> None:
        self._out.append(self._connection.send(wsproto_events.TextMessage(data=text)))

    def send_bytes(self, data: bytes) -> None:
        self._out.append(self._connection.send(wsproto_events.BytesMessage(data=data)))

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
