"""The channel to the control process: fixed commands, snapshots and answers, and a reader that does not read."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn._ipc.control import (
    MAX_ANSWERS,
    Answer,
    Command,
    ControlEnd,
    Happening,
    MasterEnd,
    Outcome,
    Queue,
    Snapshot,
    Verb,
    WorkerView,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")

SNAPSHOT = Snapshot(
    pid=10,
    title="app:app",
    started_at=1.5,
    phase="running",
    generation=3,
    wanted=2,
    ever_ready=True,
    paused=False,
    reloading=True,
    workers=[
        WorkerView(1, 7, 41, 3, "ready", 2.0, 2.5, "", 4),
        WorkerView(2, 8, 42, 3, "starting", 2.0, None, "x", 5),
    ],
    restarts={"died": 3},
    outcomes={"reload": Outcome(1, 2, False, "broken: ü", 9.0)},
    events=[Happening(1, 2.0, 20, 'line 1\n"line" 2 \ud800')],
    queues=[Queue("127.0.0.1:8000", 3, 2048)],
)


@pytest.fixture
def ends() -> Iterator[tuple[MasterEnd, ControlEnd]]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        yield MasterEnd(ours), ControlEnd(theirs)


@given(
    st.lists(
        st.builds(
            Command, st.sampled_from(Verb), st.integers(1, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)
        ),
        max_size=20,
    ),
    st.integers(1, 40),
)
def test_commands_arrive_as_they_were_sent_however_they_are_cut(commands: list[Command], size: int) -> None:
    ours, theirs = socket.socketpair()
    middle, there = socket.socketpair()
    with ours, theirs, middle, there:
        for sock in (ours, theirs, middle, there):
            sock.setblocking(False)
        sender = ControlEnd(middle)
        assert all(sender.send(command) for command in commands)
        data = there.recv(65536) if commands else b""
        master = MasterEnd(ours)
        found: list[Command] = []
        for start in range(0, len(data), size):
            theirs.send(data[start : start + size])
            some, is_open = master.receive()
            assert is_open
            found += some
        assert found == commands


def test_a_snapshot_and_answers_arrive_as_they_were_sent(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    master.answer(Answer(4, True, "fine"))
    master.publish(SNAPSHOT)
    master.flush()
    found, is_open = control.receive()
    event = replace(SNAPSHOT.events[0], text=found[0].events[0].text)  # type: ignore[union-attr]
    # The state is seen before the answer that tells of it.
    assert found == [replace(SNAPSHOT, events=[event]), Answer(4, True, "fine")]
    assert is_open
    assert control.receive() == ([], True)


def test_what_is_no_command_is_the_end(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    control.send(Command(Verb.STOP, 1))
    control.sock.send(b"GET / HTTP/1.1\r\n")
    assert master.receive() == ([Command(Verb.STOP, 1)], False)


def test_each_side_sees_that_the_other_is_gone(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    assert master.receive() == ([], True)
    control.sock.close()
    assert master.receive() == ([], False)
    master.answer(Answer(1, True, "nobody hears it"))
    master.flush()


def test_who_does_not_read_gets_the_newest_snapshot_later_and_nobody_waits(
    ends: tuple[MasterEnd, ControlEnd],
) -> None:
    master, control = ends
    for i in range(1, 300):
        master.publish(replace(SNAPSHOT, generation=i, restarts={str(n): n for n in range(300)}))
        master.flush()
    seen: list[int] = []
    for _ in range(50):
        found, is_open = control.receive()
        assert is_open
        seen += [each.generation for each in found if isinstance(each, Snapshot)]
        master.flush()
    assert seen[-1] == 299
    assert len(seen) < 30


def test_of_answers_that_nobody_reads_the_newest_are_kept(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    for i in range(1, 2001):
        master.answer(Answer(i, True, "x" * 100))
        if i < 100:
            master.flush()
    assert len(master._answers) == MAX_ANSWERS
    found: list[int] = []
    for _ in range(100):
        some, _ = control.receive()
        found += [each.number for each in some if isinstance(each, Answer)]
        master.flush()
    assert found[-1] == 2000


def test_a_frame_that_is_too_large_is_the_end(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    master.sock.send(b"\1\0\0\0\xff\xff\xff\xff")
    assert control.receive() == ([], False)


def test_a_frame_that_is_no_json_is_the_end(ends: tuple[MasterEnd, ControlEnd]) -> None:
    master, control = ends
    master.sock.send(b"\2\0\0\0\0\0\0\3{x}")
    assert control.receive() == ([], False)


def test_a_message_that_does_not_fit_is_torn_until_its_rest_is_sent(
    ends: tuple[MasterEnd, ControlEnd],
) -> None:
    master, control = ends
    while not master.is_torn:  # a full buffer takes no more
        master.publish(replace(SNAPSHOT, restarts={str(n): n for n in range(300)}))
        master.flush()
    while master.is_torn:
        _found, is_open = control.receive()
        assert is_open
        master.flush()
