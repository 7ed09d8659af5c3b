"""The channel: whole messages out of any pieces, no blocking on either side, and anything malformed is its end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uvicorn._ipc.channel import MAX_PAYLOAD, Kind, Message, Receiver, Sender, channel_pair

LIMIT = 20  # seconds after which a test has hung


class Channel:
    """Both ends, with as little room between them as the system allows."""

    def __init__(self) -> None:
        ours, theirs = channel_pair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.receiver, self.sender = Receiver(ours), Sender(theirs)

    def fill(self) -> int:
        """Send until something is dropped; return how many were taken."""
        taken = 0
        while self.sender.send(Kind.REPORT, "filling"):
            taken += 1
        return taken

    def close(self) -> None:
        self.receiver.sock.close()
        self.sender.sock.close()


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()


def frame(kind: int, payload: bytes = b"") -> bytes:
    """The format as it is documented: kind, a byte of padding, length in network order, payload."""
    return struct.pack("!BxH", kind, len(payload)) + payload


# --- whole messages ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_a_message_arrives_with_its_kind_and_text(channel: Channel, kind: Kind) -> None:
    assert channel.sender.send(kind, "zu früh")
    assert channel.receiver.receive() == ([Message(kind, "zu früh")], True)


def test_the_format_on_the_wire_is_fixed(channel: Channel) -> None:
    channel.sender.send(Kind.RECYCLE, "ab")
    assert channel.receiver.sock.recv(100) == b"\x02\x00\x00\x02ab"


def test_several_messages_arrive_in_order(channel: Channel) -> None:
    channel.sender.send(Kind.READY)
    channel.sender.send(Kind.RECYCLE, "why")
    channel.sender.send(Kind.STOPPED_ACCEPTING)
    expected = [Message(Kind.READY), Message(Kind.RECYCLE, "why"), Message(Kind.STOPPED_ACCEPTING)]
    assert channel.receiver.receive() == (expected, True)


def test_nothing_to_read_is_an_open_channel(channel: Channel) -> None:
    assert channel.receiver.receive() == ([], True)


@settings(max_examples=50)
@given(data=st.data())
def test_messages_come_whole_however_their_bytes_are_split(data: st.DataObject) -> None:
    messages = data.draw(
        st.lists(st.builds(Message, st.sampled_from(Kind), st.text(st.characters(codec="utf-8"))))
    )
    stream = b"".join(frame(each.kind, each.text.encode()) for each in messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    channel = Channel()
    try:
        found: list[Message] = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            channel.sender.sock.sendall(stream[start:end])
            got, is_open = channel.receiver.receive()
            found += got
            assert is_open
        assert found == messages
    finally:
        channel.close()


def test_a_message_comes_whole_byte_by_byte(channel: Channel) -> None:
    for byte in frame(Kind.REPORT, b"stuck")[:-1]:
        channel.sender.sock.send(bytes((byte,)))
        assert channel.receiver.receive() == ([], True)
    channel.sender.sock.send(b"k")
    assert channel.receiver.receive() == ([Message(Kind.REPORT, "stuck")], True)


# --- texts -------------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_cut(channel: Channel) -> None:
    channel.sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PAYLOAD)
    assert channel.sender.send(Kind.REPORT, "x" * (MAX_PAYLOAD + 1))
    # The header and the last bytes of the payload are more than is read at once.
    assert channel.receiver.receive() == ([], True)
    assert channel.receiver.receive() == ([Message(Kind.REPORT, "x" * MAX_PAYLOAD)], True)


def test_a_text_that_cannot_be_encoded_is_sent_all_the_same(channel: Channel) -> None:
    assert channel.sender.send(Kind.REPORT, "a\udce9b")
    assert channel.receiver.receive() == ([Message(Kind.REPORT, "a?b")], True)


def test_bytes_that_are_no_text_are_read_all_the_same(channel: Channel) -> None:
    channel.sender.sock.send(frame(Kind.REPORT, b"a\xffb"))
    assert channel.receiver.receive() == ([Message(Kind.REPORT, "a\ufffdb")], True)


# --- the end -----------------------------------------------------------------------------------


def test_the_end_of_the_file_is_the_end_of_the_channel(channel: Channel) -> None:
    channel.sender.sock.close()
    assert channel.receiver.receive() == ([], False)


def test_what_came_before_the_end_is_still_read(channel: Channel) -> None:
    channel.sender.send(Kind.STOPPED_ACCEPTING)
    channel.sender.sock.close()
    assert channel.receiver.receive() == ([Message(Kind.STOPPED_ACCEPTING)], True)
    assert channel.receiver.receive() == ([], False)


def test_half_a_message_before_the_end_is_no_message(channel: Channel) -> None:
    channel.sender.sock.send(frame(Kind.REPORT, b"cut short")[:-1])
    channel.sender.sock.close()
    assert channel.receiver.receive() == ([], True)
    assert channel.receiver.receive() == ([], False)


def test_a_broken_socket_is_the_end_of_the_channel(channel: Channel) -> None:
    channel.receiver.sock.close()
    assert channel.receiver.receive() == ([], False)


@pytest.mark.parametrize("kind", [0, max(Kind) + 1, 255])
def test_an_unknown_kind_is_the_end_of_the_channel(channel: Channel, kind: int) -> None:
    channel.sender.sock.send(frame(Kind.READY) + frame(kind) + frame(Kind.REPORT, b"after"))
    assert channel.receiver.receive() == ([Message(Kind.READY)], False)


def test_an_unknown_kind_is_not_waited_for(channel: Channel) -> None:
    channel.sender.sock.send(frame(77, b"x" * 1000)[:4])
    assert channel.receiver.receive() == ([], False)


# --- nobody blocks -----------------------------------------------------------------------------


def test_neither_end_blocks() -> None:
    for end in channel_pair():
        with end:
            assert end.getblocking() is False


def test_a_report_that_does_not_fit_is_dropped_and_said_so(channel: Channel) -> None:
    taken = channel.fill()
    assert taken
    assert not channel.sender.send(Kind.ANSWER)
    while channel.receiver.receive()[0]:
        channel.sender.flush()
    assert channel.sender.send(Kind.REPORT)
    assert channel.receiver.receive() == ([Message(Kind.REPORT)], True)


NEEDED = [kind for kind in Kind if kind not in (Kind.REPORT, Kind.ANSWER)]


def test_what_the_master_has_to_know_waits_for_room_in_order(channel: Channel) -> None:
    channel.fill()
    for kind in NEEDED:
        assert channel.sender.send(kind, kind.name)
    assert not channel.sender.send(Kind.REPORT)
    received: list[Message] = []
    while len(received) < len(NEEDED):
        received += [each for each in channel.receiver.receive()[0] if each.kind is not Kind.REPORT]
        channel.sender.flush()
    assert received == [Message(kind, kind.name) for kind in NEEDED]


def test_nobody_at_the_other_end_is_a_message_dropped(channel: Channel) -> None:
    channel.receiver.sock.close()
    assert not channel.sender.send(Kind.READY)


LONG = "a message that is longer than what fits " * 1000


def test_of_a_message_that_fits_in_part_the_rest_comes_first(channel: Channel) -> None:
    assert channel.sender.send(Kind.REPORT, LONG)
    received, _ = channel.receiver.receive()
    assert received == []  # only a part has fitted
    assert channel.sender.send(Kind.READY)
    while len(received) < 2:
        channel.sender.flush()
        received += channel.receiver.receive()[0]
    assert received == [Message(Kind.REPORT, LONG), Message(Kind.READY)]


def test_flush_sends_the_rest_as_it_fits(channel: Channel) -> None:
    assert channel.sender.send(Kind.REPORT, LONG)
    received, rounds = channel.receiver.receive()[0], 0
    while not received:
        channel.sender.flush()
        received += channel.receiver.receive()[0]
        rounds += 1
    assert received == [Message(Kind.REPORT, LONG)]
    assert rounds > 1
    channel.sender.flush()  # nothing is sent twice
    assert channel.receiver.receive() == ([], True)


def test_a_report_after_a_message_that_fits_in_part_is_dropped_whole(channel: Channel) -> None:
    assert channel.sender.send(Kind.REPORT, LONG)
    assert not channel.sender.send(Kind.REPORT, "another")
    received: list[Message] = []
    while not received:
        channel.sender.flush()
        received += channel.receiver.receive()[0]
    assert channel.receiver.receive() == ([], True)
    assert received == [Message(Kind.REPORT, LONG)]


class HalfTaken:
    """A socket that takes half of the first message, and something happens meanwhile."""

    def __init__(self) -> None:
        self.sent = b""
        self.meanwhile: Callable[[], None] | None = None

    def send(self, data: bytes) -> int:
        meanwhile, self.meanwhile = self.meanwhile, None
        taken = data if meanwhile is None else data[: len(data) // 2]
        self.sent += taken
        if meanwhile is not None:
            meanwhile()
        return len(taken)


def test_a_message_of_another_thread_waits_for_the_one_that_is_being_sent() -> None:
    sock = HalfTaken()
    sender = Sender(sock)  # type: ignore[arg-type]
    other = threading.Thread(target=sender.send, args=(Kind.READY,))

    def speak() -> None:
        other.start()
        other.join(0.05)  # in vain: it waits for us

    sock.meanwhile = speak
    assert sender.send(Kind.REPORT, "first")
    other.join(LIMIT)
    assert sock.sent == frame(Kind.REPORT, b"first") + frame(Kind.READY)
