"""What a case is: what the client sends, and what it has to see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.protocols.websockets.frames import BINARY, CONT, PONG, RSV1, TEXT, frame

NORMAL, PROTOCOL_ERROR, INVALID_DATA = 1000, 1002, 1007
# A close frame without a code.
EMPTY = 1005
MASK = b"\x0a\xf5\x3c\xc3"


class Event(NamedTuple):
    """What the client receives: a message, or a pong."""

    opcode: int
    payload: bytes

    def __repr__(self) -> str:
        kind = {TEXT: "text", BINARY: "binary", PONG: "pong"}[self.opcode]
        shown = repr(self.payload) if len(self.payload) <= 40 else f"{len(self.payload)} bytes"
        return f"{kind} {shown}"


class Raw(NamedTuple):
    """Bytes as they are."""

    data: bytes

    def packets(self) -> Iterator[bytes]:
        yield self.data


class Frame(NamedTuple):
    """One frame. With `chop`, its bytes go out in pieces of this size."""

    opcode: int
    payload: bytes = b""
    final: bool = True
    rsv: int = 0
    chop: int = 0

    def packets(self) -> Iterator[bytes]:
        return chopped(frame(self.opcode, self.payload, self.final, self.rsv, MASK), self.chop)


class Message(NamedTuple):
    """One message.

    Attributes:
        opcode, pattern: What it is. The pattern is repeated up to `size`.
        size: In bytes; by default the pattern is all.
        fragment: How much one frame has; by default there is only one.
        chop: How much goes out at once.
    """

    opcode: int
    pattern: bytes
    size: int = -1
    fragment: int = 0
    chop: int = 0

    @property
    def payload(self) -> bytes:
        if self.size < 0:
            return self.pattern
        return (self.pattern * (self.size // len(self.pattern) + 1))[: self.size]

    @property
    def event(self) -> Event:
        """Its echo."""
        return Event(self.opcode, self.payload)

    def packets(self) -> Iterator[bytes]:
        return chopped(fragments(self.opcode, self.payload, self.fragment), self.chop)


class Wait(NamedTuple):
    """Go on when so many events have come, or it is over."""

    events: int


class Pause(NamedTuple):
    """Go on when it is over; else after a moment, because nothing says that the server has read something."""

    seconds: float = 0.2


class Echoes(NamedTuple):
    """Messages, each sent when the one before has come back.

    Attributes:
        opcode: Text or binary.
        source: What they are cut from, by its name in `sizes.SOURCES`.
        size: How large each is: in bytes, or characters of a text.
        fragment: How much of it one frame has; 0 for all.
    """

    opcode: int
    source: str
    size: int
    fragment: int = 0


Step = Raw | Frame | Message | Wait | Pause | Echoes


class Case(NamedTuple):
    """One case.

    Attributes:
        number: As in the testsuite.
        steps: What the client does. It closes with 1000 at the end, unless `closes` or `fails` say otherwise.
        events: What it has to receive.
        non_strict: What else is tolerated.
        fails: Whether the server has to find a mistake, and to end the connection by itself.
        closes: Whether there is a close frame among the steps.
        codes: What the server's close frame may say.
        tolerated: What it may say as well, though it is not what was wanted.
        clean: Whether it has to send one.
        quick: The step, by its index, before which a quick server has ended; later is tolerated.
        informational: It says how the server works, not whether it is right.
        offer: The Sec-WebSocket-Extensions of the client.
    """

    number: str
    steps: tuple[Step, ...]
    events: tuple[Event, ...] = ()
    non_strict: tuple[tuple[Event, ...], ...] = ()
    fails: bool = False
    closes: bool = False
    codes: tuple[int, ...] = (NORMAL,)
    tolerated: tuple[int, ...] = ()
    clean: bool = True
    quick: int = 0
    informational: bool = False
    offer: str = ""

    @property
    def group(self) -> int:
        return int(self.number.partition(".")[0])


def chopped(data: bytes, size: int) -> Iterator[bytes]:
    if not size:
        yield data
        return
    for at in range(0, len(data), size):
        yield data[at : at + size]


def fragments(opcode: int, data: bytes, size: int, compressed: bool = False) -> bytes:
    """A message in frames of this size, or in one."""
    rsv = RSV1 if compressed else 0
    if not size or len(data) <= size:
        return frame(opcode, data, True, rsv, MASK)
    last = (len(data) - 1) // size * size
    return b"".join(
        frame(opcode if at == 0 else CONT, data[at : at + size], at == last, 0 if at else rsv, MASK)
        for at in range(0, len(data), size)
    )


def echoed(number: str, *messages: Message) -> Case:
    """A case of messages, all of which come back."""
    return Case(number, messages, tuple(message.event for message in messages))


def failing(
    number: str, *steps: Step, code: int = PROTOCOL_ERROR, events: tuple[Event, ...] = (), quick: int = 0
) -> Case:
    """A case in which the server has to find a mistake. What came before may get lost with it."""
    return Case(
        number, steps, events, ((),) if events else (), fails=True, codes=(code,), clean=False, quick=quick
    )
