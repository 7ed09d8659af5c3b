"""Both engines against the same frames, whole and byte by byte: events, answers, and where they have to agree."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.protocols.websockets.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Sent,
    close_frame,
    closed,
    deflated,
    events_of,
    frame,
    read_frames,
)
from uvicorn.protocols.websockets._deflate import agree
from uvicorn.protocols.websockets._engine import Closed, Engine, Pong
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsEngine
from uvicorn.protocols.websockets.wsproto_impl import WSProtoEngine

Make = Callable[..., Engine]

OFFER: Any = [("permessage-deflate", [("client_max_window_bits", None)])]
LIMIT = 1000


@pytest.fixture(params=[WebSocketsEngine, WSProtoEngine])
def make(request: pytest.FixtureRequest) -> Make:
    def made(max_size: int = LIMIT, offers: Any = ()) -> Engine:
        return request.param(max_size, agree(list(offers)))

    return made


def whole(engine: Engine, data: bytes) -> list[Any]:
    return engine.receive(data)


def bytewise(engine: Engine, data: bytes) -> list[Any]:
    return [event for i in range(len(data)) for event in engine.receive(data[i : i + 1])]


@pytest.fixture(params=[whole, bytewise, events_of])
def feed(request: pytest.FixtureRequest) -> Callable[[Engine, bytes], list[Any]]:
    """Gives bytes to an engine, in one piece or one by one, or as a message before anything else; returns the events."""
    return request.param  # type: ignore[no-any-return]


Feed = Callable[[Engine, bytes], list[Any]]


def failed(events: list[Any], engine: Engine, *codes: int) -> None:
    """Nothing was delivered, and the connection was failed with one of the codes, on both sides alike."""
    (event,) = events
    assert isinstance(event, Closed)
    assert event.code in codes
    (sent,) = read_frames(engine.output())
    assert sent.opcode == CLOSE
    assert int.from_bytes(sent.payload[:2], "big") == event.code
    assert sent.payload[2:].decode() == event.reason
    assert engine.receive(frame(TEXT, b"late") + frame(PING)) == []
    assert engine.output() == b""


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (frame(TEXT, "aé€𝄞".encode()), ["aé€𝄞"]),
        (frame(BINARY, b"\x00\xff"), [b"\x00\xff"]),
        (frame(TEXT), [""]),
        (frame(BINARY), [b""]),
        (frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"c"), ["a", b"b", "c"]),
        (frame(BINARY, b"a", mask=bytes(4)), [b"a"]),
        (frame(BINARY, b"x" * 125), [b"x" * 125]),
        (frame(BINARY, b"x" * 126), [b"x" * 126]),
        (frame(TEXT, b"a", final=False) + frame(CONT, b"b"), ["ab"]),
        (frame(TEXT, final=False) + frame(CONT), [""]),
        (frame(BINARY, final=False) + frame(CONT, final=False) + frame(CONT, b"a"), [b"a"]),
        (frame(TEXT, "é".encode()[:1], final=False) + frame(CONT, "é".encode()[1:]), ["é"]),
        (
            frame(BINARY, b"a", final=False)
            + frame(CONT, b"b", final=False)
            + frame(CONT, b"c")
            + frame(TEXT, b"d", final=False)
            + frame(CONT, b"e"),
            [b"abc", "de"],
        ),
    ],
)
def test_messages_are_delivered(make: Make, feed: Feed, wire: bytes, events: list[Any]) -> None:
    engine = make()
    received = feed(engine, wire)
    assert received == events
    assert [type(event) for event in received] == [type(event) for event in events]
    assert engine.output() == b""


def test_lengths_of_every_form_are_read(make: Make, feed: Feed) -> None:
    engine = make(max_size=70000)
    for size in (0, 125, 126, 65535, 65536):
        assert feed(engine, frame(BINARY, b"x" * size)) == [b"x" * size]


def test_many_empty_fragments_are_one_message(make: Make) -> None:
    engine = make()
    wire = frame(TEXT, b"a", final=False) + frame(CONT, final=False) * 20000 + frame(CONT, b"b")
    assert engine.receive(wire) == ["ab"]


# --- control frames -------------------------------------------------------------------------------


def test_ping_is_answered_with_its_payload(make: Make, feed: Feed) -> None:
    engine = make()
    assert feed(engine, frame(PING) + frame(PING, b"x" * 125)) == []
    assert read_frames(engine.output()) == [Sent(PONG, b""), Sent(PONG, b"x" * 125)]


def test_pong_is_an_event(make: Make, feed: Feed) -> None:
    engine = make()
    assert feed(engine, frame(PONG, b"\x01\xff") + frame(PONG)) == [Pong(b"\x01\xff"), Pong(b"")]
    assert engine.output() == b""


@pytest.mark.parametrize("offers", [(), OFFER], ids=["plain", "deflate"])
def test_control_frames_between_fragments_are_handled_at_once(make: Make, feed: Feed, offers: Any) -> None:
    engine = make(offers=offers)
    compressed = deflated(b"hello world " * 20)
    data, rsv = (compressed, RSV1) if offers else (b"hello world " * 20, 0)
    wire = (
        frame(TEXT, data[:5], final=False, rsv=rsv)
        + frame(PING, b"one")
        + frame(CONT, data[5:9], final=False)
        + frame(PONG, b"two")
        + frame(CONT, data[9:])
    )
    assert feed(engine, wire) == [Pong(b"two"), "hello world " * 20]
    assert read_frames(engine.output()) == [Sent(PONG, b"one")]


def test_control_frames_do_not_count_for_the_size_of_messages(make: Make, feed: Feed) -> None:
    engine = make(max_size=10)
    wire = (
        frame(PING, b"x" * 125)
        + frame(BINARY, b"x" * 10, final=False)
        + frame(PING, b"y" * 125)
        + frame(CONT)
        + frame(PONG, b"z" * 125)
    )
    assert feed(engine, wire) == [b"x" * 10, Pong(b"z" * 125)]
    assert read_frames(engine.output()) == [Sent(PONG, b"x" * 125), Sent(PONG, b"y" * 125)]


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999])
def test_valid_close_is_echoed(make: Make, feed: Feed, code: int) -> None:
    engine = make()
    assert feed(engine, close_frame(code, "ciao é".encode())) == [Closed(code, "ciao é")]
    assert read_frames(engine.output()) == [closed(code, "ciao é")]


def test_close_without_code_is_answered_without_one(make: Make, feed: Feed) -> None:
    engine = make()
    assert feed(engine, close_frame()) == [Closed(1005, "")]
    assert read_frames(engine.output()) == [Sent(CLOSE, b"")]


def test_messages_before_the_close_are_delivered_and_nothing_after_it(make: Make, feed: Feed) -> None:
    engine = make()
    wire = frame(TEXT, b"a") + close_frame(1000) + frame(TEXT, b"b") + frame(PING) + b"\xff\xff"
    assert feed(engine, wire) == ["a", Closed(1000, "")]
    assert read_frames(engine.output()) == [closed(1000)]
    assert engine.receive(frame(TEXT, b"c")) == []


@pytest.mark.parametrize("offers", [(), OFFER], ids=["plain", "deflate"])
@pytest.mark.parametrize(
    ("close", "event", "answer"),
    [
        (close_frame(1000), Closed(1000, ""), closed(1000)),
        (close_frame(4000, b"bye"), Closed(4000, "bye"), closed(4000, "bye")),
        (close_frame(), Closed(1005, ""), Sent(CLOSE, b"")),
    ],
)
def test_close_within_a_message_is_a_close_like_any_other(
    make: Make, feed: Feed, offers: Any, close: bytes, event: Closed, answer: Sent
) -> None:
    engine = make(offers=offers)
    data, rsv = (deflated(b"hello")[:2], RSV1) if offers else (b"a\xe2", 0)
    wire = frame(TEXT, data, final=False, rsv=rsv) + close + frame(CONT, b"b")
    assert feed(engine, wire) == [event]
    assert read_frames(engine.output()) == [answer]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_invalid_close_code_fails_the_connection(make: Make, feed: Feed, code: int) -> None:
    engine = make()
    failed(feed(engine, close_frame(code)), engine, 1002)


def test_close_with_half_a_code_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make()
    failed(feed(engine, frame(CLOSE, b"\x03")), engine, 1002)


def test_close_with_a_reason_that_is_not_utf8_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make()
    failed(feed(engine, close_frame(1000, b"\xff")), engine, 1007)


def test_own_close_waits_for_the_answer(make: Make, feed: Feed) -> None:
    engine = make()
    engine.close(4000, "bye")
    assert read_frames(engine.output()) == [closed(4000, "bye")]
    assert feed(engine, frame(TEXT, b"on its way") + close_frame(4000, b"bye")) == [
        "on its way",
        Closed(4000, "bye"),
    ]
    assert engine.output() == b""


def test_own_close_without_code_is_empty(make: Make) -> None:
    engine = make()
    engine.close(1005, "")
    assert read_frames(engine.output()) == [Sent(CLOSE, b"")]


@pytest.mark.parametrize("code", [1000, 1012, 1014, 3000])
def test_own_close_without_reason_has_the_code_alone(make: Make, code: int) -> None:
    engine = make()
    engine.close(code, "")
    assert read_frames(engine.output()) == [closed(code)]


def test_ping_after_own_close_breaks_nothing(make: Make, feed: Feed) -> None:
    engine = make()
    engine.close(1000, "")
    engine.output()
    assert feed(engine, frame(PING, b"x") + close_frame(1000)) == [Closed(1000, "")]
    # RFC 6455 5.5.2 asks for no pong once a close frame has gone; one is allowed.
    assert read_frames(engine.output()) in ([], [Sent(PONG, b"x")])


def test_mistake_after_own_close_ends_without_a_second_close_frame(make: Make, feed: Feed) -> None:
    engine = make()
    engine.close(1000, "")
    engine.output()
    (event,) = feed(engine, frame(0x3))
    assert isinstance(event, Closed)
    assert engine.output() == b""


# --- frames against the protocol ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(TEXT, b"a", mask=None), id="unmasked"),
        pytest.param(frame(PING, mask=None), id="unmasked ping"),
        pytest.param(frame(TEXT, b"a", rsv=RSV1), id="RSV1 without an extension"),
        pytest.param(frame(TEXT, b"a", rsv=RSV2), id="RSV2"),
        pytest.param(frame(TEXT, b"a", rsv=RSV3), id="RSV3"),
        pytest.param(frame(0x3, b"a"), id="reserved data opcode 3"),
        pytest.param(frame(0x7, b"a"), id="reserved data opcode 7"),
        pytest.param(frame(0xB, b"a"), id="reserved control opcode 11"),
        pytest.param(frame(0xF, b"a"), id="reserved control opcode 15"),
        pytest.param(frame(PING, b"a", final=False), id="fragmented ping"),
        pytest.param(frame(CLOSE, b"", final=False), id="fragmented close"),
        pytest.param(frame(PING, b"x" * 126), id="ping of 126 bytes"),
        pytest.param(frame(CLOSE, b"\x03\xe8" + b"x" * 124), id="close of 126 bytes"),
        pytest.param(frame(CONT, b"a"), id="continuation without a start"),
        pytest.param(frame(CONT, b"a", final=False), id="continuation without a start, more to come"),
        pytest.param(frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), id="start within a message"),
        pytest.param(frame(TEXT, b"a", final=False) + frame(BINARY, b"b"), id="another start"),
    ],
)
def test_frame_against_the_protocol_fails_the_connection(make: Make, feed: Feed, wire: bytes) -> None:
    engine = make()
    failed(feed(engine, wire), engine, 1002)


def test_length_with_the_top_bit_set_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make()
    failed(feed(engine, frame(BINARY, declared=1 << 63)), engine, 1002, 1009)


@pytest.mark.parametrize(("size", "length_bytes"), [(5, 2), (5, 8), (200, 8)])
def test_length_written_too_long_is_read_or_fails_the_connection(
    make: Make, feed: Feed, size: int, length_bytes: int
) -> None:
    engine = make()
    events = feed(engine, frame(BINARY, b"x" * size, length_bytes=length_bytes))
    if events != [b"x" * size]:
        failed(events, engine, 1002)


def test_messages_before_the_mistake_are_delivered(make: Make, feed: Feed) -> None:
    engine = make()
    events = feed(engine, frame(TEXT, b"a") + frame(PING, b"b") + frame(0x3) + frame(TEXT, b"c"))
    assert events[0] == "a"
    assert [type(event) for event in events[1:]] == [Closed]
    pong, close = read_frames(engine.output())
    assert pong == Sent(PONG, b"b")
    assert close.opcode == CLOSE


# --- text that is no UTF-8 ------------------------------------------------------------------------

INVALID = [
    pytest.param(b"a\xffb", id="no lead byte"),
    pytest.param(b"a\x80", id="continuation alone"),
    pytest.param(b"\xc0\xaf", id="overlong"),
    pytest.param(b"\xed\xa0\x80", id="surrogate"),
    pytest.param(b"\xf4\x90\x80\x80", id="above U+10FFFF"),
    pytest.param("a€".encode()[:-1], id="cut code point"),
]


@pytest.mark.parametrize("data", INVALID)
def test_invalid_text_fails_the_connection(make: Make, feed: Feed, data: bytes) -> None:
    engine = make()
    failed(feed(engine, frame(TEXT, data)), engine, 1007)


@pytest.mark.parametrize("data", INVALID)
def test_invalid_text_fails_the_connection_wherever_it_is_split(make: Make, feed: Feed, data: bytes) -> None:
    for at in range(len(data) + 1):
        engine = make()
        wire = frame(TEXT, data[:at], final=False) + frame(PONG)
        events = feed(engine, wire + frame(CONT, data[at:]))
        failed([event for event in events if event != Pong(b"")], engine, 1007)


def test_invalid_text_is_found_before_the_message_is_complete(make: Make, feed: Feed) -> None:
    engine = make()
    failed(feed(engine, frame(TEXT, b"a\xff", final=False)), engine, 1007)


def test_invalid_compressed_text_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make(offers=OFFER)
    failed(feed(engine, frame(TEXT, deflated(b"a\xff"), rsv=RSV1)), engine, 1007)


def test_binary_messages_need_no_utf8(make: Make, feed: Feed) -> None:
    engine = make()
    assert feed(engine, frame(BINARY, b"\xff", final=False) + frame(CONT, b"\xfe")) == [b"\xff\xfe"]


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("limit", [0, 1, 10, 125, 126, 1000, 20000])
def test_message_of_exactly_the_limit_passes(make: Make, feed: Feed, opcode: int, limit: int) -> None:
    data = b"x" * limit
    expected = data.decode() if opcode == TEXT else data
    assert feed(make(limit), frame(opcode, data)) == [expected]
    half = limit // 2
    fragments = frame(opcode, data[:half], final=False) + frame(CONT, data[half:], final=False) + frame(CONT)
    assert feed(make(limit), fragments) == [expected]


@pytest.mark.parametrize("limit", [0, 1, 10, 1000])
def test_one_byte_above_the_limit_is_too_big(make: Make, feed: Feed, limit: int) -> None:
    data = b"x" * (limit + 1)
    for wire in (
        frame(BINARY, data),
        frame(BINARY, data[:limit], final=False) + frame(CONT, data[limit:]),
        frame(BINARY, data[:limit], final=False) + frame(CONT, data[limit:], final=False),
    ):
        engine = make(limit)
        failed(feed(engine, wire), engine, 1009)


def test_limit_is_in_bytes_of_utf8(make: Make, feed: Feed) -> None:
    assert feed(make(3), frame(TEXT, "€".encode())) == ["€"]
    engine = make(2)
    failed(feed(engine, frame(TEXT, "€".encode())), engine, 1009)


@pytest.mark.parametrize("declared", [LIMIT + 2048, 1 << 20, 1 << 40])
@pytest.mark.parametrize("offers", [(), OFFER], ids=["plain", "deflate"])
def test_declared_size_is_refused_before_any_of_it_comes(
    make: Make, feed: Feed, offers: Any, declared: int
) -> None:
    engine = make(offers=offers)
    failed(feed(engine, frame(BINARY, declared=declared)), engine, 1009)
    engine = make(offers=offers)
    wire = frame(BINARY, b"x" * 900, final=False) + frame(CONT, declared=declared - 900)
    failed(feed(engine, wire), engine, 1009)


def test_each_message_has_the_whole_limit(make: Make, feed: Feed) -> None:
    engine = make(10)
    wire = frame(BINARY, b"x" * 10) + frame(BINARY, b"x" * 6, final=False) + frame(CONT, b"x" * 4)
    assert feed(engine, wire * 2) == [b"x" * 10] * 4


def noise(size: int) -> bytes:
    """Bytes that do not compress, the same every time."""
    state, out = 1, bytearray()
    for _ in range(size):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        out.append(state >> 56)
    return bytes(out)


@pytest.mark.parametrize("limit", [0, 1, 10, 1000, 20000])
@pytest.mark.parametrize("content", [noise, bytes], ids=["incompressible", "compressible"])
def test_compressed_message_of_exactly_the_limit_passes(
    make: Make, feed: Feed, content: Callable[[int], bytes], limit: int
) -> None:
    data = content(limit)
    wire = deflated(data)
    assert feed(make(limit, OFFER), frame(BINARY, wire, rsv=RSV1)) == [data]
    half = len(wire) // 2
    fragments = frame(BINARY, wire[:half], final=False, rsv=RSV1) + frame(CONT, wire[half:])
    assert feed(make(limit, OFFER), fragments) == [data]


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT, 1_000_000])
def test_inflated_size_above_the_limit_is_too_big(make: Make, feed: Feed, size: int) -> None:
    wire = deflated(bytes(size))
    assert len(wire) < LIMIT
    engine = make(offers=OFFER)
    failed(feed(engine, frame(BINARY, wire, rsv=RSV1)), engine, 1009)


def test_inflated_size_is_summed_over_fragments(make: Make, feed: Feed) -> None:
    compressor = zlib.compressobj(wbits=-12)
    parts = [compressor.compress(bytes(600)) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(2)]
    engine = make(offers=OFFER)
    wire = frame(BINARY, parts[0], final=False, rsv=RSV1) + frame(CONT, parts[1][:-4])
    failed(feed(engine, wire), engine, 1009)


# --- compression ------------------------------------------------------------------------------------


def test_plain_messages_pass_where_compression_is_agreed(make: Make, feed: Feed) -> None:
    engine = make(offers=OFFER)
    wire = frame(TEXT, b"plain") + frame(TEXT, deflated(b"packed"), rsv=RSV1) + frame(TEXT, b"plain")
    assert feed(engine, wire) == ["plain", "packed", "plain"]


def test_window_is_kept_between_messages(make: Make, feed: Feed) -> None:
    compressor = zlib.compressobj(wbits=-12)
    engine = make(offers=OFFER)
    for _ in range(3):
        data = compressor.compress(b"the same words") + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert feed(engine, frame(TEXT, data[:-4], rsv=RSV1)) == ["the same words"]


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_compressed_control_frame_fails_the_connection(make: Make, feed: Feed, opcode: int) -> None:
    engine = make(offers=OFFER)
    failed(feed(engine, frame(opcode, rsv=RSV1)), engine, 1002)


def test_compression_mark_on_a_continuation_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make(offers=OFFER)
    data = deflated(b"hello")
    wire = frame(TEXT, data[:3], final=False, rsv=RSV1) + frame(CONT, data[3:], rsv=RSV1)
    failed(feed(engine, wire), engine, 1002)


@pytest.mark.parametrize("rsv", [RSV2, RSV3, RSV1 | RSV2])
def test_other_reserved_bits_fail_the_connection_with_compression_too(
    make: Make, feed: Feed, rsv: int
) -> None:
    engine = make(offers=OFFER)
    failed(feed(engine, frame(TEXT, deflated(b"a"), rsv=rsv)), engine, 1002)


def test_corrupt_compressed_data_fails_the_connection(make: Make, feed: Feed) -> None:
    engine = make(offers=OFFER)
    failed(feed(engine, frame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1)), engine, 1007)


def test_message_that_ends_with_a_final_block_is_not_the_last(make: Make, feed: Feed) -> None:
    engine = make(offers=OFFER)
    final = frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1)  # RFC 7692 7.2.3.4
    wire = final + frame(TEXT, deflated(b"and on"), rsv=RSV1)
    assert feed(engine, wire * 2) == ["Hello", "and on"] * 2
    engine = make(offers=OFFER)
    flood = frame(BINARY, bytes.fromhex("f348cdc9c9070000") + bytes(100), rsv=RSV1)
    failed(feed(engine, flood), engine, 1007)


def test_mistakes_between_compressed_messages_are_no_compressed_data(make: Make, feed: Feed) -> None:
    start = frame(TEXT, deflated(b"hello")[:3], final=False, rsv=RSV1)
    for wire in (
        start + frame(TEXT, b"\xff\xff", rsv=RSV1),
        frame(TEXT, deflated(b"hello"), rsv=RSV1) + frame(CONT, b"\xff\xff"),
        frame(CONT, b"\xff\xff", rsv=RSV1),
    ):
        engine = make(offers=OFFER)
        events = feed(engine, wire)
        failed([event for event in events if event != "hello"], engine, 1002)


@pytest.mark.parametrize("content", ["", "hello", "é" * 300, b"", b"\x00\xff" * 400], ids=repr)
def test_what_is_sent_compressed_inflates_to_what_was_given(make: Make, content: str | bytes) -> None:
    engine = make(offers=OFFER)
    inflate = zlib.decompressobj(wbits=-15)
    for _ in range(2):
        (sent,) = read_frames(engine.text(content) if isinstance(content, str) else engine.binary(content))
        assert sent.rsv == RSV1
        assert sent.opcode == (TEXT if isinstance(content, str) else BINARY)
        data = inflate.decompress(sent.payload + b"\x00\x00\xff\xff")
        assert data == (content.encode() if isinstance(content, str) else content)


# --- sending ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "aé€𝄞", "x" * 126, "x" * 70000], ids=len)
def test_text_goes_out_in_one_frame(make: Make, text: str) -> None:
    engine = make()
    assert read_frames(engine.text(text)) == [Sent(TEXT, text.encode())]
    assert engine.output() == b""


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"x" * 126, b"x" * 70000], ids=len)
def test_bytes_go_out_in_one_frame(make: Make, data: bytes) -> None:
    engine = make()
    assert read_frames(engine.binary(data)) == [Sent(BINARY, data)]
    assert engine.output() == b""


def test_ping_goes_out_with_its_payload(make: Make) -> None:
    engine = make()
    engine.ping(b"\x00\x00\x00\x01")
    assert read_frames(engine.output()) == [Sent(PING, b"\x00\x00\x00\x01")]


def test_text_with_a_lone_surrogate_is_an_error_and_spoils_nothing(make: Make) -> None:
    engine = make()
    with pytest.raises(UnicodeEncodeError):
        engine.text("\ud800")
    assert read_frames(engine.text("a")) == [Sent(TEXT, b"a")]
    assert engine.output() == b""


# --- any frames, cut anywhere ---------------------------------------------------------------------

MESSAGES = st.lists(
    st.tuples(
        st.one_of(st.text(max_size=300), st.binary(max_size=300), st.integers(4000, 70000).map(bytes)),
        st.lists(st.integers(0, 300), max_size=3),  # where it is cut into fragments
        st.booleans(),  # whether a ping goes before each of them
    ),
    max_size=5,
)


@pytest.mark.parametrize("engine_class", [WebSocketsEngine, WSProtoEngine])
@hypothesis.given(
    messages=MESSAGES,
    cuts=st.lists(st.integers(0, 80000), max_size=8),
    mask=st.binary(min_size=4, max_size=4),
)
def test_messages_arrive_as_they_were_sent_wherever_the_bytes_are_cut(
    engine_class: Any, messages: Any, cuts: list[int], mask: bytes
) -> None:
    wire, expected, pings = b"", [], 0
    for content, fragments, pinged in messages:
        data = content.encode() if isinstance(content, str) else content
        ends = [0, *sorted(min(end, len(data)) for end in fragments), len(data)]
        pieces = [data[start:end] for start, end in pairwise(ends)]
        for i, piece in enumerate(pieces):
            if pinged:
                wire += frame(PING, b"?", mask=mask)
                pings += 1
            opcode = CONT if i else TEXT if isinstance(content, str) else BINARY
            wire += frame(opcode, piece, final=i == len(pieces) - 1, mask=mask)
        expected.append(content)
    engine: Engine = engine_class(100_000, None)
    got: list[Any] = []
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for start, end in pairwise(edges):
        got += engine.receive(wire[start:end])
    assert got == expected
    assert [sent.payload for sent in read_frames(engine.output())] == [b"?"] * pings
