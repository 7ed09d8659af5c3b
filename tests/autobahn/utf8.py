"""Group 6: texts are UTF-8, however they are cut; and what is not is found, as soon as it can be.

The sequences are those of Markus Kuhn's UTF-8 decoder stress test.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.autobahn.case import INVALID_DATA, MASK, Case, Frame, Message, Pause, Raw, Wait, echoed, failing
from tests.protocols.websockets.frames import CONT, PING, TEXT, frame

# How long a server may take to find a mistake early, before it is said to find it late.
PATIENCE = 10.0

GREEK = "κ\u1f79σμε".encode()  # an omicron with oxia, which editors like to make one with tonos
ACCENTS = "Hello-µ@ßöäüàá-UTF-8!!".encode()
EDITED = b"edited"
SURROGATE, OUT_OF_RANGE = b"\xed\xa0\x80", b"\xf4\x90\x80\x80"

# Sequences of every section, with whether they are valid. The number is the case's second one.
_LONELY = [(0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD)]
_CUT = [
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80",
    b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf",
]  # fmt: skip
_NONCHARACTERS = [
    chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)
]  # fmt: skip
SECTIONS: dict[int, list[bytes]] = {
    5: [b"hello$world", "hello¢world".encode(), "hello€world".encode(), "hello𤭢world".encode(), GREEK],
    6: [GREEK[:end] for end in range(1, len(GREEK) + 1)],
    # The first and the last sequences of each length; beyond four bytes, and above U+10FFFF, there are none.
    7: [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
    8: [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
    9: [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
    10: [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    11: [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", OUT_OF_RANGE],
    # Continuation bytes without a beginning, beginnings without continuation, and both cut short.
    12: [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:n] for n in range(2, 7)), bytes(range(0x80, 0xBF))],
    13: [b"".join(bytes((byte, 0x20)) for byte in range(first, last)) for first, last in _LONELY],
    14: _CUT,
    15: [b"".join(_CUT)],
    16: [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    # Written longer than necessary: "/", the last of each length, NUL.
    17: [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"],
    18: [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"],
    19: [b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"],
    # Surrogates alone and in pairs.
    20: [SURROGATE, *(b"\xed" + pair for pair in (b"\xad\xbf", b"\xae\x80", b"\xaf\xbf", b"\xb0\x80", b"\xbe\x80", b"\xbf\xbf"))],
    21: [
        b"\xed" + high + b"\xed" + low
        for high in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf")
        for low in (b"\xb0\x80", b"\xbf\xbf")
    ],
    # Code points that are no characters, and special ones: UTF-8 all the same (RFC 3629).
    22: _NONCHARACTERS,
    23: [chr(point).encode() for point in range(0xFFF9, 0x10000)],
}  # fmt: skip


def valid(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def sequences() -> Iterator[Case]:
    for section, found in SECTIONS.items():
        for i, data in enumerate(found, 1):
            message = Message(TEXT, data)
            number = f"6.{section}.{i}"
            yield echoed(number, message) if valid(data) else failing(number, message, code=INVALID_DATA)


def fail_fast() -> Iterator[Case]:
    """The first part is valid, the second makes the text invalid; whoever is quick ends before the third."""
    whole = GREEK + OUT_OF_RANGE + EDITED
    parts = ((GREEK, OUT_OF_RANGE, EDITED), (whole[:12], whole[12:13], whole[13:]))
    for number, (first, second, third) in zip(("6.4.1", "6.4.2"), parts, strict=True):
        # The answer to a ping says that the first part has been read, and taken.
        start = (Frame(TEXT, first, final=False), Frame(PING), Wait(1))
        rest = (Frame(CONT, second, final=False), Pause(PATIENCE), Frame(CONT, third))
        pong = echoed("", Message(10, b"")).events
        yield failing(number, *start, *rest, code=INVALID_DATA, quick=5)._replace(events=pong, non_strict=())
    for number, (first, second, _) in zip(("6.4.3", "6.4.4"), parts, strict=True):
        # The same within one frame, of which the server may well see only the whole.
        wire = frame(TEXT, whole, mask=MASK)
        one = len(wire) - len(whole) + len(first)
        two = one + len(second)
        steps = (Raw(wire[:one]), Pause(), Raw(wire[one:two]), Pause(), Raw(wire[two:]))
        yield failing(number, *steps, code=INVALID_DATA, quick=4)


def splits() -> Iterator[Case]:
    """Every place where a text can be cut in two; valid, and not."""
    for i in range(1, len(ACCENTS)):
        steps = (Frame(TEXT, ACCENTS[:i], final=False), Frame(CONT, ACCENTS[i:]))
        yield Case(f"6.24.{i}", steps, (Message(TEXT, ACCENTS).event,))
    wrong = GREEK + SURROGATE + EDITED
    for i in range(1, len(wrong)):
        yield failing(
            f"6.25.{i}", Frame(TEXT, wrong[:i], final=False), Frame(CONT, wrong[i:]), code=INVALID_DATA
        )


def cases() -> Iterator[Case]:
    empty = (Frame(TEXT, final=False), Frame(CONT, final=False), Frame(CONT))
    middle = b"middle frame payload"
    yield echoed("6.1.1", Message(TEXT, b""))
    yield Case("6.1.2", empty, (Message(TEXT, b"").event,))
    steps = (empty[0], Frame(CONT, middle, final=False), empty[2])
    yield Case("6.1.3", steps, (Message(TEXT, middle).event,))
    yield echoed("6.2.1", Message(TEXT, ACCENTS))
    half = len("Hello-µ@ßöä".encode())
    steps = (Frame(TEXT, ACCENTS[:half], final=False), Frame(CONT, ACCENTS[half:]))
    yield Case("6.2.2", steps, (Message(TEXT, ACCENTS).event,))
    yield echoed("6.2.3", Message(TEXT, ACCENTS, fragment=1))
    yield echoed("6.2.4", Message(TEXT, GREEK, fragment=1))
    wrong = GREEK + SURROGATE + EDITED
    yield failing("6.3.1", Message(TEXT, wrong), code=INVALID_DATA)
    yield failing("6.3.2", Message(TEXT, wrong, fragment=1), code=INVALID_DATA)
    yield from fail_fast()
    yield from sequences()
    yield from splits()
