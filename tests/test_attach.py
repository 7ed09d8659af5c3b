"""The event loop's own server, and the connections that are taken beside it where turns of the loop are long."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from tests.fakes.loop import FakeLoop
from uvicorn import _attach
from uvicorn._attach import ALONE_BATCH, LONG_TURN, TIME_FOR_ONE, Helper
from uvicorn._listening import ServerOpener, whole
from uvicorn.config import Config

LIMIT = 20  # seconds after which a test has hung


class Rig:
    """A helper of a server on a real socket, whose event loop is driven by hand, and whose clock stands still."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.loop = FakeLoop()
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=2 * ALONE_BATCH)
        self.sock.setblocking(False)
        self.clients: list[socket.socket] = []
        self.share = ALONE_BATCH
        self.helper = Helper(self.loop, asyncio.Protocol, lambda: self.share)  # type: ignore[arg-type]
        self.server = SimpleNamespace(sockets=[self.sock])
        self.helper.begin(self.server)
        self.helper.made()

    def connect(self, count: int) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.sock.getsockname()))

    def made_after(self, seconds: float) -> int:
        """The event loop's server takes a connection after so much time; how many are taken beside it."""
        before = len(self.loop.coroutines)
        self.clock.now += seconds
        assert isinstance(self.helper.made(), asyncio.Protocol)
        return len(self.loop.coroutines) - before

    def close(self) -> None:
        for coroutine in self.loop.coroutines:
            frame = coroutine.cr_frame
            frame.f_locals["sock"].close()
            coroutine.close()
        for each in (self.sock, *self.clients):
            each.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_attach, "time", SimpleNamespace(monotonic=lambda: clock.now))
    rig = Rig(clock)
    yield rig
    rig.close()


def test_in_short_turns_the_event_loops_server_takes_them_alone(rig: Rig) -> None:
    rig.connect(5)
    assert [rig.made_after(LONG_TURN * 0.9) for _ in range(5)] == [0] * 5


@pytest.mark.parametrize("seconds", [LONG_TURN * 1.1, 0.0103, 0.0121])
def test_after_a_long_turn_more_are_taken_by_its_length(rig: Rig, seconds: float) -> None:
    rig.connect(ALONE_BATCH)
    assert rig.made_after(seconds) == int(seconds / TIME_FOR_ONE)
    assert rig.made_after(LONG_TURN / 2) == 0


def test_after_any_time_it_is_no_more_than_a_batch(rig: Rig) -> None:
    rig.connect(ALONE_BATCH + 2)
    assert rig.made_after(10) == ALONE_BATCH
    assert rig.made_after(10) == 2


def test_where_none_waits_none_is_taken(rig: Rig) -> None:
    assert rig.made_after(10) == 0


def test_it_is_no_more_than_its_share(rig: Rig) -> None:
    rig.connect(9)
    rig.share = 4
    assert rig.made_after(10) == 4


def test_emptying_the_queue_takes_all(rig: Rig) -> None:
    rig.connect(ALONE_BATCH + 2)
    rig.helper.empty_queue()
    assert len(rig.loop.coroutines) == rig.helper.attaching == ALONE_BATCH + 2


def test_a_closed_helper_takes_nothing(rig: Rig) -> None:
    rig.connect(2)
    assert rig.helper.needed
    rig.helper.close()
    assert not rig.helper.needed
    assert rig.made_after(10) == 0


def test_of_a_server_that_has_closed_nothing_is_taken(rig: Rig) -> None:
    rig.connect(2)
    rig.server.sockets = []
    assert not rig.helper.needed
    assert rig.made_after(10) == 0


def test_all_sockets_of_the_server_are_looked_at(rig: Rig) -> None:
    rig.connect(2)
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()):
        other.setblocking(False)
        rig.server.sockets = [rig.sock, other]
        assert rig.made_after(10) == 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINVAL])
def test_what_ails_the_socket_is_left_to_the_event_loops_server(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(sock: socket.socket) -> Any:
        raise OSError(number, os.strerror(number))

    rig.connect(1)
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, "uvicorn.error"):
        patch.setattr(socket.socket, "accept", fail)
        assert rig.made_after(10) == 0
    assert not caplog.records
    assert not rig.loop.timers
    assert rig.made_after(10) == 1


class Counted(asyncio.Protocol):
    """Knows in which turn of the event loop each connection was there."""

    turn = 0
    made: list[int]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        type(self).made.append(type(self).turn)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_connections_do_not_wait_for_as_many_long_turns_as_there_are(new_loop: Callable[[], Any]) -> None:
    count = 40

    async def run() -> None:
        loop = asyncio.get_running_loop()
        Counted.turn, Counted.made = 0, []
        with contextlib.ExitStack() as stack:
            sock = socket.create_server(("127.0.0.1", 0), backlog=2 * count)
            clients = [
                stack.enter_context(socket.create_connection(sock.getsockname(), LIMIT)) for _ in range(count)
            ]
            server = await ServerOpener(loop, Config(_app), Counted).open(sock, share=whole)
            stack.callback(server.close)
            while len(Counted.made) < count:
                time.sleep(0.005)  # a turn that is long
                Counted.turn += 1
                await asyncio.sleep(0)
            assert Counted.turn < count / 2
            for client in clients:
                client.sendall(b"x")
                assert await loop.run_in_executor(None, client.recv, 1) == b"x"

    loop = new_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(run(), LIMIT))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError
