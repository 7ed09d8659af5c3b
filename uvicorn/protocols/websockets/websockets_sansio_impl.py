"""WebSocket by the websockets library's sans-I/O layer: a thin engine, and the documented class."""

from __future__ import annotations

from typing import Any, ClassVar

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.protocol import Protocol, Side, State

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets._engine import (
    BadHandshake,
    Closed,
    Event,
    InvalidText,
    MessageJoiner,
    MessageTooBig,
    Pong,
)

# 4 KiB windows and a small state: what a server with many connections can afford (256 KiB each by default).
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


class WebSocketsEngine:
    """Frames by `websockets.protocol.Protocol`."""

    __slots__ = ("_failed", "_joiner", "_max_size", "_protocol", "_size", "extensions")

    def __init__(self, max_size: int, deflate: bool, offers: str) -> None:
        # The library compares the size on the wire, which compression may make a little larger than the message;
        # the message itself is measured in `_take`.
        wire_size = max_size + (max_size // 100 + 1024 if deflate and offers else 0)
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=wire_size)
        self._max_size = max_size
        self._size = 0  # of the message so far
        self._joiner = MessageJoiner()
        self._failed = False
        self.extensions: str | None = None
        if deflate and offers:
            self._negotiate(offers)

    def _negotiate(self, offers: str) -> None:
        try:
            parsed = parse_extension(offers)
        except InvalidHeader:
            raise BadHandshake(f"invalid Sec-WebSocket-Extensions header: {offers}") from None
        for name, params in parsed:
            if name != "permessage-deflate":
                continue
            try:
                agreed, extension = _DEFLATE.process_request_params(params, [])
            except NegotiationError:
                continue  # another offer may do (RFC 7692 5)
            self._protocol.extensions = [extension]
            self.extensions = build_extension([(_DEFLATE.name, agreed)])
            return

    def receive(self, data: bytes) -> list[Event]:
        if self._failed:
            return []
        protocol = self._protocol
        protocol.receive_data(data)
        events: list[Event] = []
        try:
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                self._take(frame, events)
        except InvalidText as exc:
            protocol.fail(CloseCode.INVALID_DATA, str(exc)[:100])
            self._failed = True
        except MessageTooBig as exc:
            protocol.fail(CloseCode.MESSAGE_TOO_BIG, str(exc))
            self._failed = True
        if protocol.parser_exc is not None:
            self._failed = True
        if self._failed:
            sent = protocol.close_sent
            events.append(Closed(int(sent.code), sent.reason, True) if sent else Closed(1006, "", True))
        return events

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
            events.append(Closed(int(received.code), received.reason))

    def _take_data(self, opcode: Opcode, data: bytes, final: bool) -> str | bytes | None:
        """A frame of a message; the message where it is complete."""
        self._size += len(data)
        if self._size > self._max_size:
            raise MessageTooBig(f"message exceeds limit of {self._max_size} bytes")
        if final:
            self._size = 0
        if opcode is Opcode.CONT:
            return self._joiner.add(data, final)
        if not final:
            self._joiner.start(opcode is Opcode.TEXT, data)
            return None
        if opcode is Opcode.BINARY:
            return data
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidText(str(exc)) from None

    def send_text(self, text: str) -> None:
        self._protocol.send_text(text.encode("utf-8"))

    def send_bytes(self, data: bytes) -> None:
        self._protocol.send_binary(data)

    def ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)

    def close(self, code: int, reason: str) -> None:
        if code == CloseCode.NO_STATUS_RCVD:
            self._protocol.send_close()
        else:
            self._protocol.send_close(code, reason)

    def output(self) -> bytes:
        return b"".join(self._protocol.data_to_send())


class WebSocketsSansIOProtocol(WebSocketConnection):
    """WebSocket by the websockets library, under its documented sans-I/O name."""

    __slots__ = ()

    engine_class: ClassVar[Any] = WebSocketsEngine
