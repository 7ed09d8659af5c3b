"""Requests to a mold and what it answers, over a real pair of sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from uvicorn._ipc.mold import MAX_TEXT, Answer, ForkRequest, Kind, MasterEnd, MoldEnd, channel_pair

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="molds need Linux")

REQUEST = ForkRequest(wid=7, slot=2, generation=3, size=4, row=9, first=True)


@pytest.fixture
def ends() -> Iterator[tuple[MasterEnd, MoldEnd]]:
    ours, theirs = channel_pair()
    with ours, theirs:
        yield MasterEnd(ours), MoldEnd(theirs)


def test_a_request_comes_with_its_descriptors(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    reader, writer = os.pipe()
    master.ask(REQUEST, [reader, writer])
    found = mold.next_request()
    assert found is not None
    request, (got_reader, got_writer) = found
    assert request == REQUEST
    os.write(got_writer, b"x")
    assert os.read(reader, 1) == b"x"
    assert not os.get_inheritable(got_reader)
    for fd in (reader, writer, got_reader, got_writer):
        os.close(fd)


def test_requests_keep_their_bounds_and_their_order(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    for _ in range(3):
        master.ask(REQUEST, [0])
    for _ in range(3):
        found = mold.next_request()
        assert found is not None
        assert found[0] == REQUEST
        assert len(found[1]) == 1
        os.close(found[1][0])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(Kind.LOADED, number=5 * 2**30),
        Answer(Kind.FAILED, text="SyntaxError: é"),
        Answer(Kind.FORKED, 7, 4_000_000),
        Answer(Kind.NOT_FORKED, 7, 11),
    ],
)
def test_an_answer_comes_as_it_was_given(ends: tuple[MasterEnd, MoldEnd], answer: Answer) -> None:
    master, mold = ends
    assert master.receive() == ([], True)
    mold.say(answer)
    mold.say(answer)
    assert master.receive() == ([answer, answer], True)
    assert master.receive() == ([], True)


def test_a_long_text_is_cut(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    mold.say(Answer(Kind.FAILED, text="x" * 10_000))
    ((answer,), _) = master.receive()
    assert answer.text == "x" * MAX_TEXT


def test_what_was_said_last_is_heard_after_the_end(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    mold.say(Answer(Kind.FORKED, 7, 5))
    mold.sock.close()
    assert master.receive() == ([Answer(Kind.FORKED, 7, 5)], False)
    assert master.receive() == ([], False)
    with pytest.raises(OSError, match="Broken pipe"):
        master.ask(REQUEST, [0])


@pytest.mark.parametrize("packet", [b"x", b"\xff" + bytes(15)])
def test_what_is_no_answer_is_the_end_of_the_channel(ends: tuple[MasterEnd, MoldEnd], packet: bytes) -> None:
    master, mold = ends
    mold.sock.send(packet)
    assert master.receive() == ([], False)


def test_the_mold_hears_of_the_masters_end(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    master.sock.close()
    assert mold.next_request() is None
    with pytest.raises(OSError, match="Broken pipe"):
        mold.say(Answer(Kind.LOADED))


def test_what_is_no_request_is_the_end_for_the_mold(ends: tuple[MasterEnd, MoldEnd]) -> None:
    master, mold = ends
    socket.send_fds(master.sock, [b"GET"], [0])
    assert mold.next_request() is None
