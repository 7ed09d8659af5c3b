"""What is read and written here, held to what the libraries read and write by themselves: any frames, cut anywhere.

Frames that are whole messages do not go through the websockets library, and no compression goes through either library's
own. So the same bytes go four ways: through each engine, through the websockets engine with its fast path closed, and
through each library with its own permessage-deflate. What comes of them, messages, answers and close codes, is the same but
for the differences that are named here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State
from wsproto import events as wsproto_events
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import PerMessageDeflate as WSProtoDeflate

from tests.protocols.websockets.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    RSV1,
    TEXT,
    close_frame,
    deflated,
    events_of,
    frame,
    read_frames,
)
from uvicorn.protocols.websockets._deflate import agree
from uvicorn.protocols.websockets._engine import Closed, Pong
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsEngine
from uvicorn.protocols.websockets.wsproto_impl import WSProtoEngine

LARGEST = 300
# Protocol error, invalid data, message too big.
FAILURES = {1002, 1007, 1009}
DEFLATE: Any = [("permessage-deflate", [])]


class Outcome(NamedTuple):
    """What comes of some bytes.

    Attributes:
        messages: The messages and pongs, in order.
        code: Of the end; None where it is none.
        answers: What is sent back: pongs, and the code of a close frame.
    """

    messages: list[Any]
    code: int | None
    answers: list[tuple[int, bytes]]


def cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(wire) + 1) for at in cuts), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges)]


def framewise(wire: bytes) -> list[bytes]:
    """Each frame in a packet of its own, as it comes from a client that waits for answers."""
    return cut(wire, list(accumulate(size for _, _, _, size in headers(wire))))


def shortened(sent: bytes) -> list[tuple[int, bytes]]:
    """Without the reasons, which are everybody's own words."""
    return [
        (each.opcode, each.payload[:2] if each.opcode == CLOSE else each.payload)
        for each in read_frames(sent)
    ]


def read_by(engine: Any, packets: list[bytes]) -> Outcome:
    messages: list[Any] = []
    code = None
    for packet in packets:
        for event in events_of(engine, packet):
            assert code is None, "an event behind the last"
            if isinstance(event, Closed):
                code = event.code
            else:
                messages.append(event)
    return Outcome(messages, code, shortened(engine.output()))


def with_fast_path(packets: list[bytes], deflate: bool, largest: int = LARGEST) -> Outcome:
    return read_by(WebSocketsEngine(largest, agree(DEFLATE) if deflate else None), packets)


def without_fast_path(packets: list[bytes], deflate: bool, largest: int = LARGEST) -> Outcome:
    engine = WebSocketsEngine(largest, agree(DEFLATE) if deflate else None)
    engine._whole = frozenset()
    return read_by(engine, packets)


def by_wsproto_engine(packets: list[bytes], deflate: bool, largest: int = LARGEST) -> Outcome:
    return read_by(WSProtoEngine(largest, agree(DEFLATE) if deflate else None), packets)


# --- the libraries alone ----------------------------------------------------------------------------


def by_websockets(packets: list[bytes], deflate: bool) -> Outcome:
    """The websockets library as it is; the text of a message is decoded as its own connections do."""
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=None)
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    messages: list[Any] = []
    sent = b""
    decoder: Any = None
    buffer: list[Any] = []
    # Byte by byte, because the library reads on behind a text that only its reader finds to be none.
    for byte in b"".join(packets):
        protocol.receive_data(bytes((byte,)))
        sent += b"".join(protocol.data_to_send())
        for each in protocol.events_received():
            assert isinstance(each, LibraryFrame)
            if each.opcode is Opcode.PONG:
                messages.append(Pong(bytes(each.data)))
            elif each.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if each.opcode is not Opcode.CONT:
                    decoder = codecs.getincrementaldecoder("utf-8")() if each.opcode is Opcode.TEXT else None
                    buffer = []
                try:
                    buffer.append(
                        bytes(each.data) if decoder is None else decoder.decode(bytes(each.data), each.fin)
                    )
                except UnicodeDecodeError:
                    protocol.fail(1007)
                    sent += b"".join(protocol.data_to_send())
                    return Outcome(messages, 1007, shortened(sent))
                if each.fin:
                    messages.append((b"" if decoder is None else "").join(buffer))
    code = None
    if protocol.close_sent is not None:
        code = protocol.close_sent.code
    return Outcome(messages, code, shortened(sent))


def by_wsproto(packets: list[bytes], deflate: bool) -> Outcome:
    """wsproto as it is."""
    extension = WSProtoDeflate()
    if deflate:
        extension.accept("permessage-deflate; server_max_window_bits=15; client_max_window_bits=15")
    connection = Connection(ConnectionType.SERVER, [extension] if deflate else [])
    messages: list[Any] = []
    sent, parts = b"", []
    for packet in packets:
        connection.receive_data(packet)
        for event in connection.events():
            if isinstance(event, wsproto_events.Ping):
                sent += connection.send(event.response())
            elif isinstance(event, wsproto_events.Pong):
                messages.append(Pong(bytes(event.payload)))
            elif isinstance(event, wsproto_events.CloseConnection):
                sent += connection.send(event.response())
                return Outcome(messages, int(event.code), shortened(sent))
            else:
                assert isinstance(event, wsproto_events.Message)
                parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    messages.append(("" if isinstance(event.data, str) else b"").join(parts))
                    parts = []
    return Outcome(messages, None, shortened(sent))


# --- streams of frames ------------------------------------------------------------------------------

MASKS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(max_size=200).map(str.encode)
LENGTHS = st.sampled_from([0, 1, 124, 125, 126, 127, 128, 300])
CONTENTS = st.one_of(st.binary(max_size=200), TEXTS, LENGTHS.map(lambda size: b"x" * size))
CUTS = st.lists(st.integers(0, 2**20), max_size=10)


@st.composite
def messages_on_the_wire(draw: st.DrawFn, deflate: bool) -> bytes:
    """One good message: plain or compressed, in one frame or several, pings and pongs between."""
    is_text = draw(st.booleans())
    data = draw(TEXTS if is_text else CONTENTS)
    compressed = deflate and draw(st.booleans())
    if compressed:
        data = deflated(data)
    ends = [
        0,
        *sorted(at % (len(data) + 1) for at in draw(st.lists(st.integers(0, 1000), max_size=3))),
        len(data),
    ]
    wire = b""
    for i, (start, end) in enumerate(pairwise(ends)):
        wire += draw(st.sampled_from([b"", b"", frame(PING, b"p", mask=draw(MASKS)), frame(PONG, b"q")]))
        opcode = CONT if i else TEXT if is_text else BINARY
        rsv = RSV1 if compressed and not i else 0
        wire += frame(opcode, data[start:end], i == len(ends) - 2, rsv, draw(MASKS))
    return wire


# What may be wrong with a frame. Few have anything, or streams would end before what matters.
FLAWS: list[dict[str, Any]] = [
    {"rsv": RSV1}, {"rsv": 1}, {"rsv": 2}, {"mask": None}, {"length_bytes": 2}, {"length_bytes": 8},
    {"declared": LARGEST + 1, "length_bytes": 8}, {"declared": 2**62, "length_bytes": 8}, {"declared": 2**63, "length_bytes": 8},
]  # fmt: skip
SMALL = st.sampled_from([b"", b"a", "ä€𤭢".encode(), b"x" * 125, b"\xc3", b"\xa4"])
ANY = st.sampled_from([TEXT, BINARY, CONT] * 4 + [PING, PONG, CLOSE, 3, 11])
SELDOM = st.integers(0, 7).map(lambda number: number == 7)


@st.composite
def any_frame(draw: st.DrawFn, deflate: bool, opcode: int) -> bytes:
    """One frame, right or wrong in one respect."""
    data = draw(SMALL) if draw(st.booleans()) else draw(CONTENTS)
    how: dict[str, Any] = {"final": opcode >= CLOSE or draw(st.booleans())}
    if deflate and opcode in (TEXT, BINARY) and draw(st.booleans()):
        how["rsv"] = RSV1
        data = deflated(draw(st.sampled_from([data, b"\0" * LARGEST, b"\0" * (LARGEST + 1)])))
        if draw(SELDOM):
            data = data[:-2]
    if draw(SELDOM):
        how |= draw(st.sampled_from(FLAWS))
    return frame(opcode, data, **how)


CLOSES = st.one_of(
    st.tuples(
        st.sampled_from([1000, 1001, 1005, 1012, 1015, 3000, 4999, 5000, 0]),
        TEXTS.map(lambda text: text[:120]),
    ).map(lambda pair: close_frame(*pair)),
    st.just(close_frame()),
)


def good_streams(deflate: bool) -> st.SearchStrategy[bytes]:
    return st.lists(messages_on_the_wire(deflate), max_size=5).map(b"".join)


# Completes any frame that has only begun, so that it does not matter who finds a mistake before its end; and is one itself.
TAIL = b"x" * 3 * LARGEST


@st.composite
def any_streams(draw: st.DrawFn, deflate: bool) -> bytes:
    """Frames of which most are in their place, and a few are not."""
    wire = b""
    within = False  # a message
    for _ in range(draw(st.integers(0, 8))):
        opcode = draw(ANY) if draw(SELDOM) else CONT if within else draw(st.sampled_from([TEXT, BINARY]))
        piece = draw(any_frame(deflate, opcode))
        wire += piece
        if opcode < CLOSE:
            within = not piece[0] & 0x80
    return (
        wire
        + draw(st.sampled_from([b""] * 3 + [frame(PING, b"p")]))
        + draw(st.just(b"") | CLOSES | st.binary(max_size=20))
        + TAIL
    )


def headers(wire: bytes) -> Iterator[tuple[int, int, int, int]]:
    """First byte, declared length, in how many further bytes that is written, and size of each frame."""
    at = 0
    while len(wire) - at >= 10:
        form = wire[at + 1] & 0x7F
        size = {126: 2, 127: 8}.get(form, 0)
        length = int.from_bytes(wire[at + 2 : at + 2 + size], "big") if size else form
        whole = 2 + size + (4 if wire[at + 1] & 0x80 else 0) + length
        yield wire[at], length, size, whole
        at += whole


def is_minimal(wire: bytes) -> bool:
    """Whether every length is written as short as possible (RFC 6455 5.2)."""
    return all(length >= {2: 126, 8: 65536}.get(size, 0) for _, length, size, _ in headers(wire))


def closes_within_a_message(wire: bytes) -> bool:
    within = False
    for first, *_ in headers(wire):
        if within and first == 0x80 | CLOSE:
            return True
        if not first & 0x08:
            within = not first & 0x80
    return False


DEFLATES = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])


@DEFLATES
@hypothesis.given(data=st.data(), cuts=CUTS)
def test_fast_path_reads_what_the_library_reads(deflate: bool, data: st.DataObject, cuts: list[int]) -> None:
    wire = data.draw(any_streams(deflate))
    packets = framewise(wire) if data.draw(st.booleans()) else cut(wire, cuts)
    assert with_fast_path(packets, deflate) == without_fast_path(packets, deflate)


@DEFLATES
@hypothesis.given(data=st.data(), cuts=CUTS)
def test_good_streams_are_read_alike_by_all(deflate: bool, data: st.DataObject, cuts: list[int]) -> None:
    wire = data.draw(good_streams(deflate))
    packets = framewise(wire) if data.draw(st.booleans()) else cut(wire, cuts)
    outcome = with_fast_path(packets, deflate)
    assert outcome.code is None
    others = [without_fast_path, by_wsproto_engine, by_websockets]
    controls = outcome.answers or any(isinstance(message, Pong) for message in outcome.messages)
    if not (
        deflate and controls
    ):  # wsproto alone does not inflate what comes behind one between two fragments
        others.append(by_wsproto)
    for other in others:
        assert other(packets, deflate) == outcome, other.__name__


@DEFLATES
@hypothesis.given(data=st.data(), cuts=CUTS)
def test_engines_read_the_same(deflate: bool, data: st.DataObject, cuts: list[int]) -> None:
    wire = data.draw(any_streams(deflate))
    packets = cut(wire, cuts)
    hypothesis.assume(is_minimal(wire))  # wsproto refuses what is not, websockets reads it
    one, other = with_fast_path(packets, deflate), by_wsproto_engine(packets, deflate)
    if one.code != other.code and {one.code, other.code} <= FAILURES:  # one frame may have several mistakes
        assert (one.messages, one.answers[:-1]) == (other.messages, other.answers[:-1])
    else:
        assert one == other


@hypothesis.given(wire=any_streams(False), cuts=CUTS)
def test_websockets_alone_reads_the_same(wire: bytes, cuts: list[int]) -> None:
    hypothesis.assume(not closes_within_a_message(wire))  # which it takes for a mistake, against RFC 6455 5.4
    packets = cut(wire, cuts)
    assert with_fast_path(packets, False, 2**70) == by_websockets(packets, False)


@hypothesis.given(wire=any_streams(False), cuts=CUTS)
def test_wsproto_alone_reads_the_same(wire: bytes, cuts: list[int]) -> None:
    packets = cut(wire, cuts)
    assert by_wsproto_engine(packets, False, 2**70) == by_wsproto(packets, False)


# --- what is written --------------------------------------------------------------------------------

SENT = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300), LENGTHS.map(bytes)), max_size=6)
# What the client offers, and what the library makes of the answer: its own side, by the library's parameters.
NO_CONTEXT: Any = [
    ("permessage-deflate", [("server_no_context_takeover", None), ("server_max_window_bits", "9")])
]
OFFERS: list[tuple[Any, Any]] = [
    (None, None),
    (DEFLATE, (False, False, 12, 15)),
    (NO_CONTEXT, (True, False, 9, 15)),
]


@pytest.mark.parametrize(("offers", "parameters"), OFFERS, ids=["plain", "deflate", "no context"])
@pytest.mark.parametrize("engine_class", [WebSocketsEngine, WSProtoEngine])
@hypothesis.given(messages=SENT, cuts=CUTS)
def test_the_library_reads_what_is_written_here(
    engine_class: Any, offers: Any, parameters: Any, messages: list[Any], cuts: list[int]
) -> None:
    engine = engine_class(LARGEST, agree(offers) if offers else None)
    wire = b"".join(
        engine.text(message) if isinstance(message, str) else engine.binary(message) for message in messages
    )
    engine.close(1000, "")
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    if parameters is not None:
        client.extensions = [PerMessageDeflate(*parameters)]
    for packet in cut(wire + engine.output(), cuts):
        client.receive_data(packet)
    *got, end = client.events_received()
    assert end.opcode is Opcode.CLOSE
    read = [bytes(each.data).decode() if each.opcode is Opcode.TEXT else bytes(each.data) for each in got]
    assert read == messages
