"""What a WebSocket library has to do for a connection, and what all engines do alike: joining fragments.

An engine owns the frames of one open connection. It is fed with bytes and returns events; what it wants to send
gathers in `output()`. It knows neither the transport nor ASGI nor time.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple, Protocol

from uvicorn.protocols.websockets._handshake import BadHandshake

__all__ = [
    "BadHandshake",
    "Closed",
    "Engine",
    "Event",
    "InvalidText",
    "MessageJoiner",
    "MessageTooBig",
    "Pong",
]


class Pong(NamedTuple):
    """The peer answers a ping."""

    payload: bytes


class Closed(NamedTuple):
    """The connection is at its end: the peer has closed it, or has broken the protocol (`failed`)."""

    code: int
    reason: str
    failed: bool = False


# A text or binary message is itself.
Event = str | bytes | Pong | Closed


class Engine(Protocol):
    """One library's frames.

    Args:
        max_size: The largest message in bytes, inflated.
        deflate: Whether to agree on compression where the client offers it.
        offers: The client's Sec-WebSocket-Extensions.

    Attributes:
        extensions: What goes into our Sec-WebSocket-Extensions.

    Raises:
        BadHandshake: The offers cannot be read.
    """

    extensions: str | None

    def __init__(self, max_size: int, deflate: bool, offers: str) -> None: ...

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Pings are answered and closes echoed in `output()`."""

    def send_text(self, text: str) -> None: ...

    def send_bytes(self, data: bytes) -> None: ...

    def ping(self, payload: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def output(self) -> bytes:
        """What there is to send; empties it."""


class InvalidText(Exception):
    """A text message is not UTF-8 (RFC 6455 8.1)."""


class MessageTooBig(Exception):
    """A message is larger than `ws_max_size`."""


class MessageJoiner:
    """Joins the fragments of a message, in linear time, and checks the UTF-8 of a text as it comes."""

    __slots__ = ("_decoder", "_parts", "_texts")

    def __init__(self) -> None:
        self._parts: bytearray | None = None
        self._texts: list[str] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None

    def start(self, is_text: bool, data: bytes) -> None:
        """The first of several fragments."""
        if is_text:
            self._decoder = codecs.getincrementaldecoder("utf-8")()
            self._texts = [self._decode(data, final=False)]
        else:
            self._parts = bytearray(data)

    def add(self, data: bytes, final: bool) -> str | bytes | None:
        """One more fragment; the message where it was the last."""
        if self._texts is not None:
            self._texts.append(self._decode(data, final))
            if final:
                text, self._texts = "".join(self._texts), None
                return text
        elif self._parts is not None:
            self._parts += data
            if final:
                whole, self._parts = bytes(self._parts), None
                return whole
        return None

    def _decode(self, data: bytes, final: bool) -> str:
        assert self._decoder is not None
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as exc:
            raise InvalidText(str(exc)) from None
