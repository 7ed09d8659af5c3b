"""WebSocket by the websockets library's sans-I/O layer: a thin engine, and the documented class."""

from __future__ import annotations

from typing import Any, ClassVar

from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.headers import build_extension
from websockets.protocol import Protocol, Side, State

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets._engine import (
    Closed,
    Event,
    InvalidText,
    MessageJoiner,
    MessageTooBig,
    Pong,
)
from uvicorn.protocols.websockets._handshake import Offers

# The largest payload of a control frame (RFC 6455 5.5).
_CONTROL_SIZE = 125
# 4 KiB windows and a small state: what a server with many connections can afford (256 KiB each by default).
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)


class WebSocketsEngine:
    """Frames by `websockets.protocol.Protocol`."""

    __slots__ = ("_joiner", "_max_size", "_over", "_protocol", "_size", "extensions")

    def __init__(self, max_size: int, deflate: bool, offers: Offers) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN)
        self._max_size = max_size
        self._size = 0  # of the message so far
        self._joiner = MessageJoiner()
        self._over = False
        self.extensions: str | None = None
        if deflate:
            self._negotiate(offers)
        # The library holds every frame against what is left of the limit, control frames too, and on the wire, where
        # compression may have made it a little larger than it is. The message itself is measured in `_take_data`.
        excess = max_size // 100 + 1024 if self.extensions else _CONTROL_SIZE
        self._protocol.max_message_size = max_size + excess

    def _negotiate(self, offers: Offers) -> None:
        for name, params in offers:
            if name != _DEFLATE.name:
                continue
            try:
                agreed, extension = _DEFLATE.process_request_params(params, [])
            except NegotiationError:
                continue  # another offer may do (RFC 7692 5)
            self._protocol.extensions = [extension]
            self.extensions = build_extension([(_DEFLATE.name, agreed)])
            return

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        protocol = self._protocol
        protocol.receive_data(data)
        try:
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                self._take(frame, events)
        except InvalidText as exc:
            self._fail(CloseCode.INVALID_DATA, str(exc)[:100], events)
        except MessageTooBig as exc:
            self._fail(CloseCode.MESSAGE_TOO_BIG, str(exc), events)
        if protocol.parser_exc is not None and not self._over:
            # The library has found it, and has sent its close frame unless there was one before.
            sent = protocol.close_sent
            assert sent is not None
            self._end(sent.code, sent.reason, events)
        return events

    def _fail(self, code: CloseCode, reason: str, events: list[Event]) -> None:
        self._protocol.fail(code, reason)
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
