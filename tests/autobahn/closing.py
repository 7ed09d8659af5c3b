"""Group 7: close frames, their codes and reasons, and what comes behind them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.autobahn.case import EMPTY, INVALID_DATA, NORMAL, PROTOCOL_ERROR, Case, Frame, Message, Raw, echoed
from tests.autobahn.utf8 import EDITED, GREEK, SURROGATE
from tests.protocols.websockets.frames import CLOSE, CONT, PING, TEXT, close_frame, frame

HELLO = b"Hello World!"
# RFC 6455 7.4, and what the IANA registry has taken up since.
VALID = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
REGISTERED = (1012, 1013, 1014)
INVALID = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
RESERVED = (1015, 1017, 1999)
UNDEFINED = (5000, 65535)


def answered(number: str, *steps: Frame | Message | Raw, codes: tuple[int, ...] = (NORMAL,)) -> Case:
    """The client closes somewhere in it, and nothing but the answer to that comes back."""
    return Case(number, steps, closes=True, codes=codes)


def refused(number: str, close: bytes, codes: tuple[int, ...] = (PROTOCOL_ERROR,)) -> Case:
    """A close frame that is none."""
    return Case(number, (Raw(close),), closes=True, codes=codes, clean=False)


def cases() -> Iterator[Case]:
    close = Raw(close_frame(NORMAL))
    yield echoed("7.1.1", Message(TEXT, HELLO))
    yield answered("7.1.2", close, Frame(CLOSE))
    yield answered("7.1.3", close, Frame(PING))
    yield answered("7.1.4", close, Frame(TEXT, HELLO))
    yield answered("7.1.5", Frame(TEXT, b"fragment1", final=False), close, Frame(CONT, b"fragment2"))
    large, small = Message(TEXT, b"BAsd7&jh23", 262144), Message(TEXT, HELLO)
    yield Case("7.1.6", (large, small, close, Frame(PING)), closes=True, informational=True)
    yield answered("7.3.1", Frame(CLOSE), codes=(EMPTY, NORMAL))
    yield refused("7.3.2", frame(CLOSE, b"a"))
    yield answered("7.3.3", close)
    yield answered("7.3.4", Raw(close_frame(NORMAL, HELLO)))
    yield answered("7.3.5", Raw(close_frame(NORMAL, b"*" * 123)))
    yield refused("7.3.6", close_frame(NORMAL, b"*" * 124))
    wrong = close_frame(NORMAL, GREEK + SURROGATE + EDITED)
    yield refused("7.5.1", wrong, (PROTOCOL_ERROR, INVALID_DATA))
    for i, code in enumerate(VALID, 1):
        yield answered(f"7.7.{i}", Raw(close_frame(code)), codes=(NORMAL, code))
    for i, code in enumerate(REGISTERED, 1):  # which who goes by the RFC alone does not know
        case = answered(f"7.14.{i}", Raw(close_frame(code)), codes=(NORMAL, code))
        yield case._replace(tolerated=(PROTOCOL_ERROR,))
    for group, codes in ((9, INVALID), (15, RESERVED)):
        for i, code in enumerate(codes, 1):
            yield refused(f"7.{group}.{i}", close_frame(code))
    for i, code in enumerate(UNDEFINED, 1):
        found = (NORMAL, code, PROTOCOL_ERROR)
        yield refused(f"7.13.{i}", close_frame(code), found)._replace(informational=True)
