"""The accept gate: who takes a connection on a socket that several workers share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from tests.fakes.loop import FakeLoop
from uvicorn._attach import ALONE_BATCH, Helper
from uvicorn._ipc.scoreboard import Cell, Row, Scoreboard, microseconds
from uvicorn._kernel import SHORTAGE_PAUSE
from uvicorn.protocols._state import ServerState
from uvicorn.worker import accept
from uvicorn.worker.accept import (
    CHURN_LEAST,
    FAR_MORE,
    MAX_STEPS_BACK,
    STALE,
    STEP_BACK,
    GatedAcceptor,
)

NOW = microseconds()
# The first bytes of a TLS record with a ClientHello.
HELLO_BEGINNING = bytes.fromhex("16030100c8010000c40303")
LIMIT = 20  # seconds after which a test has hung


class Listening(socket.socket):
    """A listening socket of which the next calls of accept() can be told to fail."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        super().__init__(family)
        self.errors: list[int] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


class GateLoop(FakeLoop):
    """A loop whose readers are called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def waiting_timers(self) -> list[float]:
        return [timer.delay for timer in self.timers if not timer.cancelled]


class Rig:
    """A gate on a real socket in a loop that is driven by hand; connections that it takes stay in "attaching"."""

    def __init__(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> None:
        self.loop = GateLoop()
        self.sock = Listening(family)
        self.sock.bind(address)
        self.sock.listen(200)
        self.state = ServerState()
        self.board = Scoreboard()
        self.row = self.board.take()
        self.row[Cell.ACCEPTING] = 1
        self.row[Cell.LOOP_TICK] = NOW
        self.clients: list[socket.socket] = []
        self.gate = GatedAcceptor(
            self.loop,  # type: ignore[arg-type]
            self.sock,
            asyncio.Protocol,
            None,
            1.0,
            self.open_server,
            self.state,
            self.row,
            self.board,
        )

    async def open_server(self, sock: socket.socket, factory: Any, share: Any) -> Any:
        raise NotImplementedError("the event loop's own server is tested on real loops")

    def sibling(self, connections: int, age: int = 0, accepting: int = 1) -> Row:
        """Another worker; its event loop has ticked this many microseconds ago."""
        row = self.board.take()
        row[Cell.CONNECTIONS] = connections
        row[Cell.ACCEPTING] = accepting
        row[Cell.LOOP_TICK] = NOW - age
        return row

    def has(self, connections: int) -> None:
        """This worker has so many connections."""
        self.state.connections = set(range(connections))
        self.gate.connection_lost()

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            client = socket.socket(self.sock.family)
            client.connect(self.sock.getsockname())
            self.clients.append(client)

    @property
    def listens(self) -> bool:
        return self.sock.fileno() in self.loop.readers

    @property
    def taken(self) -> int:
        """How many connections it has taken so far."""
        return len(self.loop.coroutines)

    def wake(self) -> int:
        """What the event loop does when the socket is readable; return how many connections were taken."""
        before = self.taken
        self.loop.readers[self.sock.fileno()]()
        return self.taken - before

    def close(self) -> None:
        for coroutine in self.loop.coroutines:
            frame = coroutine.cr_frame
            frame.f_locals["sock"].close()
            coroutine.close()
        for each in (self.sock, *self.clients):
            each.close()
        os.close(self.board.fd)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """For the gate, no time passes."""
    monkeypatch.setattr(accept, "microseconds", lambda: NOW)
    rig = Rig()
    yield rig
    rig.close()


# --- who takes it ------------------------------------------------------------------------------


def test_among_equals_one_connection_is_taken_at_a_time(rig: Rig) -> None:
    rig.sibling(0)
    rig.connect(3)
    assert rig.wake() == 1
    assert rig.wake() == 1


@pytest.mark.parametrize(
    ("siblings", "waiting", "takes"), [(1, 9, 2), (2, 33, 5), (3, 2, 1), (0, 190, ALONE_BATCH), (1, 190, 47)]
)
def test_after_a_long_turn_a_worker_takes_its_share_of_those_that_wait(
    rig: Rig, siblings: int, waiting: int, takes: int
) -> None:
    for _ in range(siblings):
        rig.sibling(200)
    rig.connect(waiting)
    assert rig.wake() == takes
    if siblings:
        assert rig.wake() == 1  # at once


def test_where_the_kernel_does_not_tell_how_many_wait_one_is_taken(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "accept_queue", lambda sock: None)
    rig.sibling(100)
    rig.connect(9)
    assert rig.wake() == 1


def test_a_worker_alone_takes_all_that_there_are(rig: Rig) -> None:
    rig.has(1000)
    rig.connect(5)
    assert rig.wake() == 5


def test_a_worker_alone_takes_no_more_than_a_batch_at_once(rig: Rig) -> None:
    rig.connect(ALONE_BATCH + 2)
    assert rig.wake() == ALONE_BATCH
    assert rig.wake() == 2


@pytest.mark.parametrize(
    ("own", "sibling", "takes"),
    [
        (0, 0, True),
        (1, 0, True),
        (2, 0, False),
        (0, 50, True),
        (8, 7, True),
        (9, 7, False),
        (9, 8, True),
        (10, 8, False),
        (18, 16, True),  # an eighth more is no reason
        (19, 16, False),
        (115, 100, False),
        (112, 100, True),
    ],
)
def test_a_worker_with_clearly_more_connections_steps_back(
    rig: Rig, own: int, sibling: int, takes: bool
) -> None:
    rig.sibling(sibling)
    rig.has(own)
    rig.connect()
    assert rig.wake() == takes
    assert rig.listens == takes


def test_the_least_loaded_sibling_counts(rig: Rig) -> None:
    for connections in (50, 0, 50):
        rig.sibling(connections)
    rig.has(5)
    rig.connect()
    assert rig.wake() == 0


def test_stepping_back_is_for_a_moment(rig: Rig) -> None:
    rig.sibling(0)
    rig.has(5)
    rig.connect()
    rig.wake()
    assert not rig.listens
    assert rig.loop.waiting_timers() == [STEP_BACK]
    rig.loop.run_timers(STEP_BACK)
    assert rig.listens


def test_nobody_steps_back_for_ever(rig: Rig) -> None:
    rig.sibling(0)
    rig.has(5)
    rig.connect(2)
    for _ in range(2):  # the count begins anew with each connection that is taken
        for _ in range(MAX_STEPS_BACK):
            assert rig.wake() == 0
            rig.loop.run_timers(STEP_BACK)
        assert rig.wake() == 1


@pytest.mark.parametrize(("age", "waits"), [(0, True), (STALE - 1, True), (STALE, False)])
def test_a_sibling_whose_event_loop_stands_still_is_not_waited_for(rig: Rig, age: int, waits: bool) -> None:
    rig.sibling(0, age)
    rig.sibling(10)
    rig.has(8)
    rig.connect()
    assert rig.wake() == (not waits)


def test_a_sibling_that_does_not_accept_is_not_waited_for(rig: Rig) -> None:
    rig.sibling(0, accepting=0)
    rig.sibling(10)
    rig.has(8)
    rig.connect()
    assert rig.wake() == 1


def test_a_sibling_that_is_gone_is_not_waited_for(rig: Rig) -> None:
    gone = rig.sibling(0)
    rig.sibling(10)
    rig.board.release(gone)
    rig.has(8)
    rig.connect()
    assert rig.wake() == 1


def test_with_nobody_left_but_siblings_that_stand_still_it_takes_all(rig: Rig) -> None:
    rig.sibling(0, STALE)
    rig.connect(3)
    assert rig.wake() == 3


def test_an_event_loop_that_has_stood_still_does_not_make_its_worker_alone(rig: Rig) -> None:
    # Readers run before the timer that ticks.
    rig.sibling(0)
    rig.row[Cell.LOOP_TICK] = NOW - STALE
    rig.connect(3)
    assert rig.wake() == 1


def test_a_worker_that_is_about_to_accept_is_not_alone(rig: Rig) -> None:
    rig.sibling(0)
    rig.row[Cell.ACCEPTING] = 0
    rig.connect(3)
    assert rig.wake() == 1


def test_connections_that_are_being_set_up_count(rig: Rig) -> None:
    rig.sibling(0)
    rig.connect(3)
    assert [rig.wake() for _ in range(3)] == [1, 1, 0]


def test_siblings_see_a_connection_as_soon_as_it_is_taken(rig: Rig) -> None:
    rig.has(3)
    rig.connect()
    rig.wake()
    assert rig.row[Cell.CONNECTIONS] == 4


def test_siblings_see_a_connection_go(rig: Rig) -> None:
    rig.has(3)
    rig.state.counter = rig.gate
    rig.state.drop_connection(0)
    assert rig.row[Cell.CONNECTIONS] == 2


def test_a_wake_up_for_nothing_is_nothing(rig: Rig) -> None:
    rig.sibling(0)
    assert rig.wake() == 0
    assert rig.listens


# --- what a connection is like -----------------------------------------------------------------


def taken_socket(rig: Rig) -> socket.socket:
    found: socket.socket = rig.loop.coroutines[0].cr_frame.f_locals["sock"]
    return found


def test_a_tcp_connection_does_not_block_and_does_not_delay(rig: Rig) -> None:
    rig.connect()
    rig.wake()
    assert taken_socket(rig).getblocking() is False
    assert taken_socket(rig).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs UNIX sockets")
def test_connections_of_a_unix_socket_are_taken(tmp_path: Path) -> None:
    rig = Rig(socket.AF_UNIX, str(tmp_path / "socket"))
    try:
        rig.connect()
        assert rig.wake() == 1
        assert taken_socket(rig).family == socket.AF_UNIX
    finally:
        rig.close()


# --- when accept() fails -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_shortage_pauses_accepting(rig: Rig, error_log: list[logging.LogRecord], number: int) -> None:
    rig.connect()
    rig.sock.errors = [number]
    assert rig.wake() == 0
    assert not rig.listens
    assert rig.loop.waiting_timers() == [SHORTAGE_PAUSE]
    rig.loop.run_timers(SHORTAGE_PAUSE)
    assert rig.wake() == 1
    assert [(each.levelname, each.getMessage()) for each in error_log] == [
        ("ERROR", f"Cannot accept: {os.strerror(number)}. Trying again every 0.2 s.")
    ]


def test_a_shortage_is_logged_once_however_long_it_lasts(
    rig: Rig, error_log: list[logging.LogRecord]
) -> None:
    rig.connect(2)
    rig.sock.errors = [errno.EMFILE] * 5
    for _ in range(5):
        rig.wake()
        rig.loop.run_timers(SHORTAGE_PAUSE)
    assert len(error_log) == 1


def test_the_next_shortage_is_logged_again(rig: Rig, error_log: list[logging.LogRecord]) -> None:
    rig.sibling(0)
    rig.connect()
    rig.sock.errors = [errno.EMFILE]
    rig.wake()
    rig.loop.run_timers(SHORTAGE_PAUSE)
    assert rig.wake() == 1
    rig.sock.errors = [errno.EMFILE]
    rig.wake()
    assert len(error_log) == 2


def test_a_connection_that_is_gone_again_does_not_hide_those_behind_it(rig: Rig) -> None:
    rig.connect(2)
    rig.sock.errors = [errno.ECONNABORTED]
    assert rig.wake() == 2


@pytest.mark.parametrize("number", [errno.EPROTO, errno.EPERM, errno.ENETUNREACH])
def test_an_error_of_one_connection_is_its_own(
    rig: Rig, error_log: list[logging.LogRecord], number: int
) -> None:
    rig.connect()
    rig.sock.errors = [number]
    assert rig.wake() == 0
    assert rig.listens
    assert rig.wake() == 1
    assert error_log == []


def test_a_socket_that_was_shut_down_is_not_looked_at_any_more(rig: Rig) -> None:
    rig.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="Invalid argument"):
        rig.sock.accept()
    rig.wake()
    assert not rig.listens
    assert rig.loop.waiting_timers() == []


# --- closing -----------------------------------------------------------------------------------


def test_an_open_gate_shows_its_socket(rig: Rig) -> None:
    assert rig.gate.sockets == (rig.sock,)


def test_a_closed_gate_takes_nothing_and_shows_no_socket(rig: Rig) -> None:
    rig.gate.close()
    assert not rig.listens
    assert rig.gate.sockets == ()
    rig.gate.close()  # once more is nothing


def test_closing_leaves_the_socket_itself_to_its_owner(rig: Rig) -> None:
    rig.gate.close()
    rig.connect()
    rig.sock.accept()[0].close()


def test_a_gate_that_was_closed_while_it_stepped_back_stays_closed(rig: Rig) -> None:
    rig.sibling(0)
    rig.has(5)
    rig.connect()
    rig.wake()
    (timer,) = rig.loop.timers
    rig.gate.close()
    assert timer.cancelled
    timer.callback()  # it was due already
    assert not rig.listens


def test_a_shortage_after_closing_does_not_open_it_again(rig: Rig) -> None:
    rig.gate.close()
    rig.sock.errors = [errno.EMFILE]
    rig.gate.empty_queue()
    assert rig.loop.waiting_timers() == []


def test_emptying_the_queue_takes_all_whatever_the_siblings_have(rig: Rig) -> None:
    rig.sibling(0)
    rig.has(50)
    rig.connect(5)
    rig.gate.empty_queue()
    assert rig.taken == 5


def test_emptying_the_queue_ends_with_a_shortage(rig: Rig) -> None:
    rig.connect(3)
    rig.sock.errors = [errno.EMFILE]
    rig.gate.empty_queue()
    assert rig.taken == 0


# --- in a real event loop ----------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a coroutine in each kind of event loop."""
    factory = asyncio.SelectorEventLoop if request.param == "asyncio" else uvloop.new_event_loop

    def run(main: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT):
                await main

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    return run


Run = Callable[[Any], None]


class Echo(asyncio.Protocol):
    def __init__(self, state: ServerState) -> None:
        self.state = state

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.state.add_connection(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.drop_connection(self)


class Open:
    """A gate in the running loop, next to a sibling without connections."""

    def __init__(
        self,
        factory: Callable[[], Any] | None = None,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = LIMIT,
    ) -> None:
        self.state = ServerState()
        self.board = Scoreboard()
        self.row = self.board.take()
        for row in (self.row, self.board.take()):
            row[Cell.ACCEPTING] = 1
            row[Cell.LOOP_TICK] = microseconds()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.gate = GatedAcceptor(
            asyncio.get_running_loop(),
            self.sock,
            factory or (lambda: Echo(self.state)),
            tls,
            handshake_timeout,
            self.open_server,
            self.state,
            self.row,
            self.board,
        )
        self.state.counter = self.gate
        self.own_servers: list[Any] = []

    async def open_server(self, sock: socket.socket, factory: Any, share: Any) -> Any:
        loop = asyncio.get_running_loop()
        self.helper = Helper(loop, factory, share)
        server = await loop.create_server(self.helper.made, sock=sock)
        self.helper.begin(server)
        self.own_servers.append(server)
        return server

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.sock.getsockname()
        return await asyncio.open_connection(host, port, **options)

    async def shows(self, connections: int) -> None:
        """Wait until the scoreboard shows so many connections."""
        while self.row[Cell.CONNECTIONS] != connections:  # a hang is ended by the limit
            await asyncio.sleep(0)

    def close(self) -> None:
        self.gate.close()
        self.sock.close()
        os.close(self.board.fd)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def test_connections_are_served_however_many(run: Run) -> None:
    async def main() -> None:
        gate = Open()
        writers = []
        for count in range(1, 9):
            reader, writer = await gate.connect()
            writers.append(writer)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            await gate.shows(count)
        for writer in writers:
            await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())


def test_a_closed_gate_waits_for_those_that_are_being_set_up(run: Run) -> None:
    async def main() -> None:
        gate = Open()
        # Connected without a turn of the event loop.
        with socket.create_connection(gate.sock.getsockname(), timeout=LIMIT):
            gate.gate.empty_queue()
            gate.gate.close()
            assert not gate.state.connections
            await gate.gate.wait_closed()
            assert len(gate.state.connections) == 1
            await gate.gate.wait_closed()  # nobody is left to wait for
        await gate.shows(0)
        gate.close()

    run(main())


def test_a_socket_that_was_shut_down_leaves_its_connections_alone(run: Run) -> None:
    async def main() -> None:
        gate = Open()
        reader, writer = await gate.connect()
        await gate.shows(1)
        gate.sock.shutdown(socket.SHUT_RDWR)
        for text in (b"still", b"there"):
            writer.write(text)
            assert await reader.readexactly(5) == text
        await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())


# --- churn: the event loop's own server accepts --------------------------------------------------


async def served(gate: Open, count: int = 1) -> list[asyncio.StreamWriter]:
    """Connections that have been answered."""
    writers = []
    for _ in range(count):
        reader, writer = await gate.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writers.append(writer)
    return writers


async def in_churn() -> Open:
    """A gate that has given way to the event loop's own server."""
    gate = Open()
    gate.gate.look(CHURN_LEAST)
    while not gate.own_servers:  # a hang is ended by the limit
        await asyncio.sleep(0)
    return gate


def accepts(gate: Open) -> bool:
    """Whether the event loop's own server is there."""
    return bool(gate.own_servers) and gate.own_servers[-1].is_serving()


def test_in_churn_the_event_loops_own_server_accepts(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        gate.gate.look(CHURN_LEAST)  # goes on
        assert len(gate.own_servers) == 1
        writers = await served(gate, 3)
        await gate.shows(3)
        for writer in writers:
            await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())


@pytest.mark.parametrize(
    ("ended", "connections"), [(CHURN_LEAST - 1, 0), (CHURN_LEAST, CHURN_LEAST // 4 + 1)]
)
def test_few_that_end_or_many_that_stay_are_no_churn(rig: Rig, ended: int, connections: int) -> None:
    rig.state.connections.update(range(connections))
    rig.gate.look(ended)
    assert rig.gate._opening is None
    rig.state.connections.clear()


def test_when_it_is_calm_again_the_gate_accepts(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        gate.gate.look(0)
        while accepts(gate):  # a hang is ended by the limit
            await asyncio.sleep(0)
        for writer in await served(gate, 2):
            await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())


def test_far_more_connections_than_a_sibling_has_bring_the_gate_back(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        writers = await served(gate, FAR_MORE)
        assert accepts(gate)
        writers += await served(gate, 1)
        while accepts(gate):  # a hang is ended by the limit
            await asyncio.sleep(0)
        writers += await served(gate, 1)
        await gate.shows(FAR_MORE + 2)
        for writer in writers:
            await close(writer)
        gate.close()

    run(main())


def test_in_churn_what_is_taken_along_is_the_workers_share(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(socket.create_connection(gate.sock.getsockname(), LIMIT))
            gate.helper.made()
            assert gate.helper.attaching == 3
            while len(gate.state.connections) < 12:  # a hang is ended by the limit
                await asyncio.sleep(0)
        await gate.shows(0)
        gate.close()

    run(main())


def test_what_the_own_server_has_accepted_is_set_up_though_the_gate_comes_back(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        connecting = [asyncio.create_task(gate.connect()) for _ in range(5)]
        for turn in range(8):
            if turn == 4:
                gate.gate.look(0)
            await asyncio.sleep(0)
        for reader, writer in await asyncio.gather(*connecting):
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())


def test_the_own_servers_socket_is_shown_too(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        assert len(gate.gate.sockets) == 2
        gate.gate.look(0)
        assert gate.gate.sockets == (gate.sock,)
        gate.close()
        while accepts(gate):  # a hang is ended by the limit
            await asyncio.sleep(0)

    run(main())


def test_a_gate_that_is_closed_closes_the_event_loops_own_server(run: Run) -> None:
    async def main() -> None:
        gate = await in_churn()
        gate.gate.close()
        assert not accepts(gate)
        gate.close()

    run(main())


def test_a_gate_that_is_closed_in_between_opens_none(run: Run) -> None:
    async def main() -> None:
        gate = Open()
        gate.gate.look(CHURN_LEAST)
        gate.gate.close()
        while not gate.own_servers:  # a hang is ended by the limit
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not accepts(gate)
        gate.close()

    run(main())


def test_without_descriptors_the_gate_goes_on(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        gate = Open()

        async def fails(sock: socket.socket, factory: Any, share: Any) -> Any:
            sock.close()
            raise OSError(errno.EMFILE, "Too many open files")

        gate.gate._open_server = fails
        gate.gate.look(CHURN_LEAST)
        for writer in await served(gate):
            await close(writer)
        assert "Accepting goes on as before: Too many open files" in caplog.text
        gate.close()

    run(main())


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and a client's."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)
    return server, client


def test_tls_is_spoken_where_there_is_a_context(
    run: Run, tls: tuple[ssl.SSLContext, ssl.SSLContext], error_log: list[logging.LogRecord]
) -> None:
    server, client = tls

    async def main() -> None:
        gate = Open(tls=server)
        reader, writer = await gate.connect(ssl=client, server_hostname="localhost")
        writer.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())
    assert error_log == []


def test_what_is_no_tls_is_logged_once_and_closed(
    run: Run, tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        gate = Open(tls=tls[0])
        reader, writer = await gate.connect()
        await gate.shows(1)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        await gate.shows(0)
        await close(writer)
        gate.close()

    run(main())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("uvicorn.error", "INFO")
    assert re.fullmatch(
        r"TLS handshake with 127\.0\.0\.1:\d+ failed: a plain HTTP request came in place of TLS\.",
        record.getMessage(),
    )


@pytest.mark.parametrize("sent", [b"", HELLO_BEGINNING])
def test_a_client_that_leaves_in_the_handshake_is_logged_once_if_it_has_said_anything(
    sent: bytes, run: Run, tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        gate = Open(tls=tls[0])
        _, writer = await gate.connect()
        await gate.shows(1)
        writer.write(sent)
        await close(writer)
        await gate.shows(0)
        gate.close()

    run(main())
    said = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    if not sent and sys.platform == "linux":
        assert said == []  # monitoring looks whether the port is open
    else:
        ((name, level, message),) = said
        assert (name, level) == ("uvicorn.error", "INFO")
        assert re.fullmatch(r"TLS handshake with 127\.0\.0\.1:\d+ failed: the client has gone\.", message)


def test_a_handshake_has_a_deadline(
    run: Run, tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        gate = Open(tls=tls[0], handshake_timeout=0.05)
        reader, writer = await gate.connect()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gate.shows(0)
        await close(writer)
        gate.close()

    run(main())
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("uvicorn.error", "INFO")


def test_a_protocol_that_cannot_be_made_is_an_error_and_the_connection_is_closed(
    run: Run, error_log: list[logging.LogRecord]
) -> None:
    def factory() -> Any:
        raise ZeroDivisionError("our fault")

    async def main() -> None:
        gate = Open(factory)
        reader, writer = await gate.connect()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gate.shows(0)
        await close(writer)
        gate.close()

    run(main())
    (record,) = error_log
    assert (record.levelname, record.getMessage()) == ("ERROR", "A connection could not be set up.")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_connection_that_the_system_does_not_let_us_have_is_closed_and_logged(
    run: Run, error_log: list[logging.LogRecord]
) -> None:
    def factory() -> Any:
        raise OSError(errno.EIO, "broken")

    async def main() -> None:
        gate = Open(factory)
        reader, writer = await gate.connect()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await gate.shows(0)
        await close(writer)
        gate.close()

    run(main())
    (record,) = error_log
    assert record.levelname == "INFO"
    assert re.fullmatch(
        r"A connection from 127\.0\.0\.1:\d+ could not be set up: \[Errno 5\] broken", record.getMessage()
    )
