"""Workers that a mold is asked for: what it gets, and what becomes of its answers. The mold is played by the test."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.host import FakeChild, FakeHost
from tests.supervisor.plans import plan_of
from uvicorn._ipc.channel import channel_pair
from uvicorn._ipc.mold import Answer, ForkRequest, Kind, MoldEnd
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn.supervisor import actions, events
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.links import Link
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.spawner import WINDOW, Spawner

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="molds need Linux")


class World:
    """A spawner with one mold."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.host.on_fork = self._forked
        self.links: dict[int, Link] = {}
        self.listeners = ListenerSet()
        self.plan = plan_of(size=2)
        self.scoreboard = Scoreboard()
        self.spawner = Spawner(
            self.host,
            lambda start: 0,
            lambda start: 0,
            self.scoreboard,
            -1,
            self.links,
            lambda sockets: None,
            watched=True,
        )
        self.event = self.spawner.spawn_mold(actions.SpawnMold(1, 1), self.plan)

    def _forked(self, child: FakeChild, main: Callable[[], int]) -> None:
        start = inspect.getclosurevars(main).nonlocals["mold_start"]
        self.start = start
        self.end = MoldEnd(start.channel.dup())
        self.end.sock.settimeout(5)

    def ask(self, wid: int, slot: int = 1) -> list[Event]:
        return self.spawner.spawn(actions.Spawn(wid, slot, 1, mid=1), self.plan, self.listeners, 2, False)

    def asked(self) -> tuple[ForkRequest, list[int]]:
        found = self.end.next_request()
        assert found is not None
        return found

    def answer(self, kind: Kind, wid: int = 0, number: int = 0) -> list[Event]:
        self.end.say(Answer(kind, wid, number))
        return self.spawner.hear()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.listeners.stop()
    world.end.sock.close()
    for mid in list(world.spawner._molds):
        world.spawner.forget_mold(mid)
    for link in world.links.values():
        assert link.receiver is not None
        link.receiver.sock.close()


def test_a_mold_is_a_child_of_the_master(world: World) -> None:
    assert world.event == events.MoldSpawned(1, 50_000)
    assert world.spawner.mold_pids() == [50_000]
    assert len(world.spawner.mold_fds()) == 1


def test_workers_of_a_mold_are_watched_as_others_are(world: World) -> None:
    assert world.start.watched


def test_a_request_names_the_worker_and_brings_its_channel_and_its_sockets(world: World) -> None:
    assert world.ask(7, slot=2) == []
    request, fds = world.asked()
    row = world.links[7].row
    assert request == ForkRequest(7, 2, 1, 2, row.index, False)
    channel, *sockets = (socket.socket(fileno=fd) for fd in fds)
    try:
        ours = world.links[7].receiver
        assert ours is not None
        channel.send(b"x")
        assert ours.sock.recv(1) == b"x"
        held = [each.sock.getsockname() for each in world.listeners.held.values()]
        assert [sock.getsockname() for sock in sockets] == held
    finally:
        for sock in (channel, *sockets):
            sock.close()
    # Nobody but the worker has the other end now.
    assert ours.sock.recv(1) == b""


class Complaining(socket.socket):
    """A socket whose close(2) tells an error, and has closed it."""

    def close(self) -> None:
        super().close()
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_copy_that_tells_an_error_as_it_is_closed_stops_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = channel_pair()
    monkeypatch.setattr(
        "uvicorn.supervisor.spawner.channel_pair", lambda: (ours, Complaining(fileno=theirs.detach()))
    )
    assert world.ask(7) == []
    _, fds = world.asked()
    for fd in fds:
        os.close(fd)
    assert world.answer(Kind.FORKED, 7, 4711) == [events.Spawned(7, 4711)]


def test_a_worker_is_there_when_its_pid_is_told(world: World) -> None:
    world.ask(7)
    assert world.links[7].pid == 0
    assert world.answer(Kind.FORKED, 7, 4711) == [events.Spawned(7, 4711)]
    assert world.links[7].pid == world.links[7].row[Cell.PID] == 4711
    assert world.answer(Kind.FORKED, 7, 4711) == []


def test_a_worker_that_was_given_up_meanwhile_is_not_known(world: World) -> None:
    assert world.answer(Kind.FORKED, 99, 4711) == []
    assert world.answer(Kind.NOT_FORKED, 99, 0) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.EAGAIN, os.strerror(errno.EAGAIN)), (0, "the mold's fork did not come back")],
)
def test_a_worker_that_could_not_be_forked_leaves_nothing(world: World, number: int, text: str) -> None:
    world.ask(7)
    row = world.links[7].row.index
    assert world.answer(Kind.NOT_FORKED, 7, number) == [events.SpawnFailed(7, text)]
    assert world.links == {}
    assert world.scoreboard.take().index == row


def test_what_the_mold_says_of_itself_is_told(world: World) -> None:
    assert world.answer(Kind.LOADED, number=5) == [events.MoldLoaded(1, 5)]
    world.end.say(Answer(Kind.FAILED, text="SyntaxError"))
    assert world.spawner.hear() == [events.MoldComplained(1, "SyntaxError")]


def test_so_many_requests_wait_for_the_first_to_be_answered(world: World) -> None:
    for wid in range(1, WINDOW + 4):
        world.ask(wid)
    for _ in range(WINDOW):
        _, fds = world.asked()
        for fd in fds:
            os.close(fd)
    world.end.sock.setblocking(False)
    assert world.end.next_request() is None
    world.answer(Kind.FORKED, 1, 4711)
    request, fds = world.asked()
    assert request.wid == WINDOW + 1
    for fd in fds:
        os.close(fd)


def test_a_mold_that_has_gone_cannot_be_asked(world: World) -> None:
    world.end.sock.close()
    (event,) = world.ask(7)
    assert isinstance(event, events.SpawnFailed)
    assert world.links == {}
    assert world.spawner.hear() == []
    assert world.spawner.mold_fds() == []


def test_what_a_mold_was_not_asked_for_yet_is_dropped_with_it(world: World) -> None:
    for wid in range(1, WINDOW + 2):
        world.ask(wid)
    receiver = world.links[WINDOW + 1].receiver
    assert receiver is not None
    world.spawner.drop(1)
    assert receiver.sock.recv(1) == b""


def test_it_is_killed_with_its_group_unless_it_was_just_reaped(world: World) -> None:
    child = world.host.children[50_000]
    child.companions, child.stubborn = 1, True
    world.spawner.signal_mold(1, signal.SIGKILL, [50_000])
    assert child.received == []
    world.spawner.signal_mold(1, signal.SIGKILL, [])
    assert child.received[0] == signal.SIGKILL
    assert child.companions == 0


def test_its_log_files_are_opened_again_unless_it_was_just_reaped(world: World) -> None:
    child = world.host.children[50_000]
    child.handlers[signal.SIGUSR1] = lambda child: None
    world.spawner.reopen_logs([50_000])
    assert child.received == []
    world.spawner.reopen_logs([])
    assert child.received == [signal.SIGUSR1]


def test_where_orphans_cannot_be_adopted_there_is_no_mold(world: World) -> None:
    world.host.adopts = False
    event = world.spawner.spawn_mold(actions.SpawnMold(2, 1), world.plan)
    assert isinstance(event, events.MoldSpawnFailed)
    assert "this system does not let the master adopt" in event.error


def test_without_a_process_there_is_no_mold(world: World) -> None:
    world.host.fork_error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    event = world.spawner.spawn_mold(actions.SpawnMold(2, 1), world.plan)
    assert event == events.MoldSpawnFailed(2, "Resource temporarily unavailable")
