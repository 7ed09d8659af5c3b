"""Groups 1 to 5 and 10: lengths, pings and pongs, reserved bits and opcodes, fragmentation."""

from __future__ import annotations

from collections.abc import Iterator

from tests.autobahn.case import Case, Event, Frame, Message, Wait, echoed, failing
from tests.protocols.websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT

LENGTHS = (0, 125, 126, 127, 128, 65535, 65536)
HELLO, BYTES = b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
GREETING = Event(TEXT, HELLO)


def lengths() -> Iterator[Case]:
    for kind, opcode, filler in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for i, length in enumerate(LENGTHS, 1):
            yield echoed(f"1.{kind}.{i}", Message(opcode, filler, length))
        yield echoed(f"1.{kind}.8", Message(opcode, filler, 65536, chop=997))


def pinged(number: str, *payloads: bytes, before: tuple[Frame, ...] = (), chop: int = 0) -> Case:
    pings = tuple(Frame(PING, payload, chop=chop) for payload in payloads)
    return Case(number, (*before, *pings), tuple(Event(PONG, payload) for payload in payloads))


def pings() -> Iterator[Case]:
    unasked = Frame(PONG, b"unsolicited pong payload")
    ten = [b"payload-%d" % i for i in range(10)]
    yield pinged("2.1", b"")
    yield pinged("2.2", HELLO)
    yield pinged("2.3", BYTES)
    yield pinged("2.4", b"\xfe" * 125)
    yield failing("2.5", Frame(PING, b"\xfe" * 126))
    yield pinged("2.6", b"\xfe" * 125, chop=1)
    yield Case("2.7", (Frame(PONG),))
    yield Case("2.8", (unasked,))
    yield pinged("2.9", b"ping payload", before=(unasked,))
    yield pinged("2.10", *ten)
    yield pinged("2.11", *ten, chop=1)


def reserved_bits() -> Iterator[Case]:
    yield failing("3.1", Frame(TEXT, HELLO, rsv=1))
    for number, rsv, chop in (("3.2", 2, 0), ("3.3", 3, 0), ("3.4", 4, 1)):
        steps = (
            Frame(TEXT, HELLO, chop=chop),
            Frame(TEXT, HELLO, rsv=rsv, chop=chop),
            Frame(PING, chop=chop),
        )
        yield failing(number, *steps, events=(GREETING,))
    yield failing("3.5", Frame(BINARY, BYTES, rsv=5))
    yield failing("3.6", Frame(PING, HELLO, rsv=6))
    yield failing("3.7", Frame(CLOSE, rsv=7))


def reserved_opcodes() -> Iterator[Case]:
    for kind, first in ((1, 3), (2, 11)):
        yield failing(f"4.{kind}.1", Frame(first))
        yield failing(f"4.{kind}.2", Frame(first + 1, b"reserved opcode payload"))
        for i, payload, chop in ((3, b"", 0), (4, HELLO, 0), (5, HELLO, 1)):
            reserved = Frame(first + i - 1, payload, chop=chop)
            steps = (Frame(TEXT, HELLO, chop=chop), reserved, Frame(PING, chop=chop))
            yield failing(f"4.{kind}.{i}", *steps, events=(GREETING,))


FIRST, SECOND = Frame(TEXT, b"fragment1", final=False), Frame(CONT, b"fragment2")
JOINED = Event(TEXT, b"fragment1fragment2")
MIDDLE_PING = Frame(PING, b"ping payload")


def fragmentation() -> Iterator[Case]:
    yield failing("5.1", Frame(PING, b"fragment1", final=False), SECOND)
    yield failing("5.2", Frame(PONG, b"fragment1", final=False), SECOND)
    # As it comes, frame by frame, byte by byte. Every frame is a packet of its own here, so the first two are the same.
    for i, chop in ((3, 0), (4, 0), (5, 1)):
        yield Case(f"5.{i}", (FIRST._replace(chop=chop), SECOND._replace(chop=chop)), (JOINED,))
    pong = Event(PONG, MIDDLE_PING.payload)
    for i, chop in ((6, 0), (7, 0), (8, 1)):
        steps = tuple(step._replace(chop=chop) for step in (FIRST, MIDDLE_PING, SECOND))
        yield Case(f"5.{i}", steps, (pong, JOINED))
    for first, final in ((9, True), (12, False)):
        for i, chop in enumerate((0, 0, 1), first):
            lone = Frame(CONT, b"non-continuation payload", final, chop=chop)
            yield failing(f"5.{i}", lone, Frame(TEXT, HELLO, chop=chop))
    late = (Frame(CONT, b"fragment3", final=False), Frame(TEXT, b"fragment4"))
    yield failing("5.15", FIRST, SECOND, *late, events=(JOINED,))
    for i, final in ((16, False), (17, True)):
        steps = (
            Frame(CONT, b"fragment1", final),
            Frame(TEXT, b"fragment2", False),
            Frame(CONT, b"fragment3"),
        )
        yield failing(f"5.{i}", *steps, *steps)
    yield failing("5.18", FIRST, Frame(TEXT, b"fragment2"))
    pieces = [Frame(CONT if i else TEXT, b"fragment%d" % (i + 1), i == 4) for i in range(5)]
    first, second = Frame(PING, b"pongme 1!"), Frame(PING, b"pongme 2!")
    answers = (Event(PONG, first.payload), Event(PONG, second.payload))
    whole = Event(TEXT, b"".join(piece.payload for piece in pieces))
    for number in ("5.19", "5.20"):  # the first ping is answered before the message is complete
        steps = (*pieces[:2], first, Wait(1), *pieces[2:4], second, pieces[4])
        yield Case(number, steps, (*answers, whole))


def cases() -> Iterator[Case]:
    yield from lengths()
    yield from pings()
    yield from reserved_bits()
    yield from reserved_opcodes()
    yield from fragmentation()
    yield echoed("10.1.1", Message(TEXT, b"*", 65536, fragment=1300))
