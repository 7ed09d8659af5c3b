"""What a WebSocket library has to do for a connection, and what all engines do alike: joining fragments.

An engine owns the frames of one open connection. It is fed with bytes and returns events; what it wants to send besides
messages gathers in `output()`. It knows neither the transport nor ASGI nor time.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from uvicorn.protocols.websockets._deflate import Deflate

__all__ = [
    "Closed",
    "Engine",
    "Event",
    "InvalidData",
    "MessageJoiner",
    "MessageTooBig",
    "Pong",
]


class Pong(NamedTuple):
    """The peer answers a ping."""

    payload: bytes


class Closed(NamedTuple):
    """The connection is at its end, and this is its last event: the peer has closed it, or has broken the protocol."""

    code: int
    reason: str


# A text or binary message is itself.
Event = str | bytes | Pong | Closed


class Engine(Protocol):
    """One library's frames.

    Args:
        max_size: The largest message in bytes, inflated.
        deflate: The compression that was agreed on.

    Attributes:
        missing: How many bytes of a message's frame are still to come, where that is known; else 0. So many may be
            given at once.
    """

    missing: int

    def __init__(self, max_size: int, deflate: Deflate | None) -> None: ...

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Pings are answered and closes echoed in `output()`; after Closed comes nothing."""

    def receive_message(self, data: bytes) -> str | bytes | None:
        """The message that the bytes are: all of it, in one frame, and nothing else.

        None where they are anything else, or something is wrong with them: `receive` is to be given them.
        """

    def text(self, text: str) -> bytes:
        """A text message for the wire."""

    def binary(self, data: bytes) -> bytes:
        """A binary message for the wire."""

    def ping(self, payload: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def output(self) -> bytes:
        """What there is to send; empties it."""


class InvalidData(Exception):
    """A message is not what it says it is: its text is not UTF-8 (RFC 6455 8.1), or it is not compressed data."""


class MessageTooBig(Exception):
    """A message is larger than `ws_max_size`."""


class MessageJoiner:
    """Joins the fragments of a message, in linear time, and checks the UTF-8 of a text as it comes.

    The fragments become one buffer at once: kept apart, a message of one-byte fragments would take many times the
    memory that its size allows it.
    """

    __slots__ = ("_buffer", "_decoder")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None

    def start(self, is_text: bool, data: bytes) -> None:
        """The first of several fragments.

        Raises:
            InvalidData: A text is no UTF-8.
        """
        self._decoder = codecs.getincrementaldecoder("utf-8")() if is_text else None
        self._append(data, final=False)

    def add(self, data: bytes, final: bool) -> str | bytes | None:
        """One more fragment; the message where it was the last.

        Raises:
            InvalidData: A text is no UTF-8.
        """
        self._append(data, final)
        if not final:
            return None
        whole, self._buffer = self._buffer, bytearray()
        return bytes(whole) if self._decoder is None else whole.decode("utf-8")

    def _append(self, data: bytes, final: bool) -> None:
        if self._decoder is not None:
            try:
                self._decoder.decode(data, final)
            except UnicodeDecodeError as exc:
                raise InvalidData(str(exc)) from None
        self._buffer += data
