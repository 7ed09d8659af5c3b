"""WebSocket by wsproto: a thin engine, and the documented class."""

from __future__ import annotations

from typing import Any, ClassVar

from wsproto import events as wsproto_events
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets._engine import Closed, Event, MessageJoiner, Pong

MESSAGE_TOO_BIG = 1009


class WSProtoEngine:
    """Frames by `wsproto.connection.Connection`."""

    __slots__ = ("_connection", "_failed", "_joiner", "_max_size", "_open", "_out", "_size", "extensions")

    def __init__(self, max_size: int, deflate: bool, offers: str) -> None:
        self._max_size = max_size
        self._joiner = MessageJoiner()
        self._open = False  # a message has begun
        self._size = 0
        self._failed = False
        self._out: list[bytes] = []
        self.extensions: str | None = None
        agreed = self._negotiate(offers) if deflate and offers else None
        self._connection = Connection(ConnectionType.SERVER, extensions=[agreed] if agreed else [])

    def _negotiate(self, offers: str) -> PerMessageDeflate | None:
        for offer in offers.split(","):
            if offer.split(";")[0].strip() != PerMessageDeflate.name:
                continue
            extension = PerMessageDeflate()
            accepted = extension.accept(offer)
            if accepted is None or accepted is False:
                continue
            parameters = f"; {accepted}" if isinstance(accepted, str) and accepted else ""
            self.extensions = PerMessageDeflate.name + parameters
            return extension
        return None

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._failed:
            return events
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, wsproto_events.Message):
                    if not self._take(event, events):
                        self._fail(
                            MESSAGE_TOO_BIG, f"message exceeds limit of {self._max_size} bytes", events
                        )
                        break
                elif isinstance(event, wsproto_events.Ping):
                    self._out.append(self._connection.send(event.response()))
                elif isinstance(event, wsproto_events.Pong):
                    events.append(Pong(bytes(event.payload)))
                elif isinstance(event, wsproto_events.CloseConnection):
                    self._take_close(event, events)
        except RemoteProtocolError as exc:
            hint = exc.event_hint
            code = int(hint.code) if isinstance(hint, wsproto_events.CloseConnection) else 1002
            self._fail(code, str(exc)[:100], events)
        return events

    def _take(self, event: wsproto_events.Message[Any], events: list[Event]) -> bool:
        """Take a piece of a message; False where it grows too large."""
        is_text = isinstance(event, wsproto_events.TextMessage)
        data: bytes = event.data.encode("utf-8") if is_text else bytes(event.data)
        self._size += len(data)
        if self._size > self._max_size:
            return False
        if event.message_finished and not self._open:
            events.append(event.data if is_text else data)
            self._size = 0
            return True
        if not self._open:
            self._joiner.start(is_text, data)
            self._open = True
            return True
        message = self._joiner.add(data, event.message_finished)
        if message is not None:
            events.append(message)
            self._open = False
            self._size = 0
        return True

    def _take_close(self, event: wsproto_events.CloseConnection, events: list[Event]) -> None:
        try:
            self._out.append(self._connection.send(event.response()))
        except LocalProtocolError:
            pass  # we have sent ours before: this is the answer to it
        events.append(Closed(int(event.code), event.reason or ""))

    def _fail(self, code: int, reason: str, events: list[Event]) -> None:
        self._failed = True
        try:
            self._out.append(self._connection.send(wsproto_events.CloseConnection(code=code, reason=reason)))
        except LocalProtocolError:
            pass  # a close frame has been sent already
        events.append(Closed(code, reason, True))

    def send_text(self, text: str) -> None:
        self._out.append(self._connection.send(wsproto_events.TextMessage(data=text)))

    def send_bytes(self, data: bytes) -> None:
        self._out.append(self._connection.send(wsproto_events.BytesMessage(data=data)))

    def ping(self, payload: bytes) -> None:
        self._out.append(self._connection.send(wsproto_events.Ping(payload=payload)))

    def close(self, code: int, reason: str) -> None:
        self._out.append(
            self._connection.send(wsproto_events.CloseConnection(code=code, reason=reason or None))
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
