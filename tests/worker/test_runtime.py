"""A worker's hooks: what the server asks of them, what they tell the master, and the scoreboard."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.fakes.loop import FakeLoop
from tests.worker.starts import Started
from uvicorn._ipc.channel import Kind, Message
from uvicorn._ipc.scoreboard import DURATION_CELLS, RESPONSES, Cell, Drain, microseconds
from uvicorn._listening import ServerOpener
from uvicorn.config import Config
from uvicorn.protocols._state import DURATIONS
from uvicorn.server import TICK, Server
from uvicorn.supervisor.host import PosixHost
from uvicorn.worker import runtime
from uvicorn.worker.accept import GatedAcceptor
from uvicorn.worker.runtime import COUNT_DELAY, WorkerHooks, leave_as_orphan

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork()"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

MIB = 2**20
MEMORY_PERIOD = 10.0  # the default
NOBODY = 2**22 + 1  # above the largest process id there is


class Worker:
    """Hooks with a server that does not run."""

    def __init__(self, settings: dict[str, Any] | None = None, **start: Any) -> None:
        self.started = Started(**start)
        self.row = self.started.row
        self.titles: list[str] = []
        self.hooks = WorkerHooks(self.started.start, self.titles.append)
        given = {"log_config": None, "tune_gc": False, **(settings or {})}
        self.server = Server(Config("no:app", **given))
        self.hooks.attach(self.server)

    def start(self) -> float:
        """The server has started; return when that was."""
        self.hooks.started(self.server)
        self.started.told()
        return time.monotonic()

    def tick(self, now: float) -> list[Message]:
        """A tick at that time; return what it has said."""
        self.hooks.tick(self.server, now)
        return self.started.told()

    def close(self) -> None:
        self.started.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Worker] = []

    def make(settings: dict[str, Any] | None = None, **start: Any) -> Worker:
        made.append(Worker(settings, **start))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- what the master wants ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drain", "final", "empties_queue"),
    [
        (Drain.NO, False, False),
        (Drain.RECYCLE, False, False),
        (Drain.MOVE, False, True),
        (Drain.FINAL, True, True),
    ],
)
def test_the_master_says_how_to_leave(worker: Worker, drain: Drain, final: bool, empties_queue: bool) -> None:
    worker.row[Cell.DRAIN] = drain
    assert worker.hooks.final() is final
    assert worker.hooks.empties_queue() is empties_queue


def test_an_orphan_leaves_as_the_last_one(make: Any) -> None:
    worker = make(master_pid=NOBODY)
    assert worker.hooks.orphaned
    assert worker.hooks.final()
    assert worker.hooks.empties_queue()


def test_the_end_of_the_channel_makes_an_orphan_before_the_kernel_does(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.os, "kill", lambda pid, number: None)
    worker = make()
    leave_as_orphan(worker.hooks, None)
    assert worker.hooks.orphaned
    assert worker.hooks.final()


def test_a_worker_with_its_master_is_no_orphan(worker: Worker) -> None:
    assert not worker.hooks.orphaned


def test_a_worker_leaves_at_once_whatever_the_delay_is(make: Any) -> None:
    worker = make({"shutdown_delay": 30})
    assert worker.hooks.shutdown_delay(worker.server) == 0


@pytest.mark.parametrize(("healthcheck", "period"), [(5, TICK), (2, 0.5), (0.4, 0.1)])
def test_the_ticker_is_four_times_as_fast_as_the_health_check(
    make: Any, healthcheck: float, period: float
) -> None:
    assert make(healthcheck=healthcheck).hooks.shortest_period() == pytest.approx(period)


# --- who accepts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "reuse_port", "family", "gated"),
    [
        (4, False, socket.AF_INET, True),
        (4, False, socket.AF_UNIX, True),
        (1, False, socket.AF_INET, False),  # nobody else accepts
        (4, True, socket.AF_INET, False),  # each has a socket of its own
        (4, True, socket.AF_INET6, False),
        (4, True, socket.AF_UNIX, True),  # which there is not for UNIX sockets
    ],
)
def test_there_is_a_gate_where_a_socket_is_shared(
    make: Any, size: int, reuse_port: bool, family: int, gated: bool
) -> None:
    worker = make(size=size, reuse_port=reuse_port)
    worker.server.config.ssl = None

    async def main() -> None:
        worker.server._loop = asyncio.get_running_loop()
        with socket.socket(family) as sock:
            open_server = ServerOpener(
                asyncio.get_running_loop(), worker.server.config, asyncio.Protocol
            ).open
            acceptor = worker.hooks.acceptor(worker.server, sock, asyncio.Protocol, open_server)
            assert isinstance(acceptor, GatedAcceptor) == gated
            assert worker.server.server_state.counter is (worker.hooks if gated else None)
            if acceptor is not None:
                assert acceptor.sockets == (sock,)
                acceptor.close()

    asyncio.run(main())


def test_gates_are_told_how_many_connections_end_in_a_second(worker: Worker) -> None:
    class Gate:
        looks: list[float] = []
        lost = 0

        def look(self, ended: float) -> None:
            self.looks.append(ended)

        def connection_lost(self) -> None:
            self.lost += 1

    gate: Any = Gate()
    worker.hooks._gates = [gate]
    worker.tick(100.0)
    for _ in range(30):
        worker.hooks.connection_lost()
    worker.tick(100.1)  # too soon to tell
    worker.tick(102.0)
    worker.tick(103.0)
    assert gate.looks[1:] == [15.0, 0.0]
    assert gate.lost == 30


# --- what the master is told -------------------------------------------------------------------


def test_a_worker_that_has_started_accepts_and_is_ready(worker: Worker) -> None:
    before = microseconds()
    worker.hooks.started(worker.server)
    assert worker.row[Cell.ACCEPTING] == 1
    for cell in (Cell.LOOP_TICK, Cell.THREAD_TICK, Cell.READY):
        assert before <= worker.row[cell] <= microseconds()
    assert worker.started.told() == [Message(Kind.READY)]


def test_the_row_is_complete_when_the_master_hears_that_it_is_ready(worker: Worker) -> None:
    seen: list[bool] = []
    worker.hooks.on_ready.append(
        lambda: seen.append(all(map(worker.row.__getitem__, (Cell.LOOP_TICK, Cell.READY))))
    )
    worker.hooks.on_ready.append(lambda: seen.append(worker.started.told() == []))
    worker.hooks.say_ready()
    assert seen == [True, True]


def test_the_title_says_what_the_worker_does(worker: Worker) -> None:
    worker.hooks.show("starting")
    worker.hooks.started(worker.server)
    worker.hooks.stopped_accepting(worker.server)
    assert worker.titles == [
        "uvicorn: worker 2 app:app gen=3 starting",
        "uvicorn: worker 2 app:app gen=3 ready",
        "uvicorn: worker 2 app:app gen=3 draining",
    ]


def test_a_worker_that_has_closed_its_sockets_says_so(worker: Worker) -> None:
    worker.start()
    worker.hooks.stopped_accepting(worker.server)
    assert worker.row[Cell.ACCEPTING] == 0
    assert worker.started.told() == [Message(Kind.STOPPED_ACCEPTING)]


def test_the_request_limit_asks_for_a_successor_and_serves_on(
    worker: Worker, error_log: list[logging.LogRecord]
) -> None:
    worker.hooks.request_limit_reached(worker.server, 100)
    assert worker.started.told() == [Message(Kind.RECYCLE, "limit_max_requests: 100 requests answered")]
    assert not worker.server.should_exit
    assert [(each.levelname, each.getMessage()) for each in error_log] == [
        ("WARNING", "Maximum request limit of 100 exceeded. Terminating process.")
    ]


# --- ticks -------------------------------------------------------------------------------------


def count(worker: Worker) -> None:
    state = worker.server.server_state
    state.connections = {1, 2, 3}
    state.tasks = {1, 2}  # type: ignore[arg-type]
    state.total_requests = 50


def counters(worker: Worker) -> list[int]:
    return [worker.row[cell] for cell in (Cell.CONNECTIONS, Cell.IN_FLIGHT, Cell.REQUESTS)]


def test_a_tick_stamps_the_event_loop_and_nothing_else(worker: Worker) -> None:
    before = microseconds()
    worker.hooks.tick(worker.server, 0.0)
    assert before <= worker.row[Cell.LOOP_TICK] <= microseconds()
    assert worker.row[Cell.THREAD_TICK] == 0


def test_a_tick_carries_the_counters_over(worker: Worker) -> None:
    worker.start()
    count(worker)
    worker.hooks.tick(worker.server, 0.0)
    assert counters(worker) == [3, 2, 50]


def test_the_counters_are_carried_over_at_the_end_too(worker: Worker) -> None:
    count(worker)
    worker.hooks.finished(worker.server)
    assert counters(worker) == [3, 2, 50]


def test_durations_and_bytes_are_carried_over(worker: Worker) -> None:
    state = worker.server.server_state
    assert state.measured
    count(worker)
    state.handshakes = 4
    state.slow = [0, 3, *([0] * (len(DURATIONS) - 2)), 2]
    state.seconds, state.bytes_in, state.bytes_out = 1.5, 1000, 2000
    worker.hooks.finished(worker.server)
    counts = [worker.row[cell] for cell in DURATION_CELLS]
    # HTTP requests are in exactly one bucket each.
    assert counts == [41, 3, *([0] * (len(DURATIONS) - 2)), 2]
    assert [worker.row[cell] for cell in (Cell.DURATION, Cell.BYTES_IN, Cell.BYTES_OUT)] == [
        1_500_000,
        1000,
        2000,
    ]


def test_there_is_a_cell_for_every_bucket() -> None:
    assert len(DURATION_CELLS) == len(DURATIONS) + 1


def test_what_was_counted_is_seen_soon_and_not_only_with_the_tick(worker: Worker) -> None:
    """A worker that is killed takes little with it."""
    loop = worker.server._loop = FakeLoop()  # type: ignore[assignment]
    state = worker.server.server_state
    count(worker)
    state.unsettle()
    assert counters(worker) == [0, 0, 0]
    loop.run_timers(COUNT_DELAY)
    assert counters(worker) == [3, 2, 50]
    assert state.settled  # whatever comes next is told again


def test_an_interrupt_does_not_hurry_a_worker_that_its_master_has_told_to_leave(worker: Worker) -> None:
    worker.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        worker.server.handle_exit(number, None)
    assert worker.server.should_exit
    assert not worker.server.force_exit


def test_responses_are_counted_where_they_outlive_the_worker(make: Any) -> None:
    worker = make(watched=True)
    worker.start()
    worker.server.server_state.on_unsettled = lambda: None
    for status in (200, 204, 302, 404, 503, 101, 999):
        worker.server.server_state.refused(status, 0)
    counted = [worker.row[cell] for cell in (Cell.RESPONSES_OTHER, *RESPONSES)]
    assert counted == [1, 1, 2, 1, 1, 1]


def test_where_nobody_can_look_nothing_is_measured(make: Any) -> None:
    worker = make(watched=False)
    state = worker.server.server_state
    assert not state.measured
    assert not state.settled
    count(worker)
    worker.tick(worker.start())
    assert counters(worker) == [3, 2, 50]
    assert all(worker.row[cell] == 0 for cell in DURATION_CELLS)


def test_a_tick_without_limits_says_nothing(worker: Worker) -> None:
    assert worker.tick(worker.start() + 1e9) == []


def test_a_worker_that_is_too_old_asks_for_a_successor_once(make: Any) -> None:
    worker = make({"limit_worker_lifetime": 60})
    now = worker.start()
    assert worker.tick(now + 59) == []
    assert worker.tick(now + 61) == [Message(Kind.RECYCLE, "limit_worker_lifetime: older than 60 s")]
    assert worker.tick(now + 62) == []


def test_the_lifetime_has_a_jitter_of_its_own_for_each_worker(make: Any) -> None:
    lifetimes = set()
    for _ in range(5):
        worker = make({"limit_worker_lifetime": 60, "limit_worker_lifetime_jitter": 20})
        now = worker.start()
        assert worker.tick(now + 59) == []
        (message,) = worker.tick(now + 81)
        lifetimes.add(message.text)
    assert len(lifetimes) > 1


def test_a_worker_that_drains_does_not_ask_any_more(make: Any) -> None:
    worker = make({"limit_worker_lifetime": 60})
    now = worker.start()
    worker.server.server_state.draining = True
    assert worker.tick(now + 61) == []


class Memory:
    """The process uses this much."""

    rss = pss = uss = 0

    def __call__(self) -> int:
        return self.rss

    def memory_full_info(self) -> Memory:
        return self


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(runtime, "resident_memory", memory)
    monkeypatch.setattr(psutil, "Process", lambda: memory)
    return memory


def test_a_worker_that_stays_too_large_asks_for_a_successor(make: Any, memory: Memory) -> None:
    worker = make({"limit_worker_memory": 100 * MIB})
    now = worker.start()
    said = []
    for size in (90, 120, 120, 120):
        now += MEMORY_PERIOD + 1
        memory.rss = size * MIB
        said += worker.tick(now)
        said += worker.tick(now + 1)  # between two samples nobody looks
    assert said == [Message(Kind.RECYCLE, "limit_worker_memory: 120 MiB rss, above 100 MiB 3 times in a row")]


def test_a_memory_limit_that_a_fresh_worker_exceeds_is_told_once_and_not_applied(
    make: Any, memory: Memory
) -> None:
    memory.rss = 120 * MIB
    worker = make({"limit_worker_memory": 100 * MIB})
    worker.hooks.started(worker.server)
    told = worker.started.told()
    assert [message.kind for message in told] == [Kind.OVER_LIMIT, Kind.READY]
    assert told[0].text.startswith("limit_worker_memory: 120 MiB rss, above 100 MiB, already when it starts")
    now = time.monotonic()
    for _ in range(10):
        now += MEMORY_PERIOD + 1
        assert worker.tick(now) == []


def test_the_memory_limit_has_a_jitter_of_its_own_for_each_worker(make: Any, memory: Memory) -> None:
    found = set()
    for _ in range(20):
        worker = make({"limit_worker_memory": 100 * MIB, "limit_worker_memory_jitter": 50 * MIB})
        worker.start()
        found.add(worker.hooks._limits._memory)
    assert len(found) > 1
    assert all(100 * MIB <= each <= 150 * MIB for each in found)


def test_shared_pages_count_in_part_where_that_is_wanted(make: Any, memory: Memory) -> None:
    memory.rss, memory.pss = 150 * MIB, 50 * MIB
    worker = make({"limit_worker_memory": 100 * MIB, "worker_memory_measure": "pss"})
    now = worker.start()
    memory.pss = 120 * MIB
    said = []
    for _ in range(3):
        now += MEMORY_PERIOD + 1
        said += worker.tick(now)
    assert said == [Message(Kind.RECYCLE, "limit_worker_memory: 120 MiB pss, above 100 MiB 3 times in a row")]


# --- orphans -----------------------------------------------------------------------------------


class Telling(Server):
    """Writes into a pipe when it is told to stop."""

    def __init__(self, fd: int, **settings: Any) -> None:
        self.fd = -1
        super().__init__(Config("no:app", log_config=None, **settings))
        self.fd = fd

    def _wake_soon(self) -> None:
        os.write(self.fd, b"told to stop")


def test_an_orphan_is_told_to_drain_and_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "ORPHAN_MARGIN", 0.01)
    reader, writer = os.pipe()
    server = Telling(writer, timeout_graceful_shutdown=0, timeout_lifespan_shutdown=0)

    def child() -> int:
        leave_as_orphan(Worker().hooks, server)
        return 0

    pid = PosixHost().fork(child)
    _, status = os.waitpid(pid, 0)
    os.close(writer)
    assert os.read(reader, 100) == b"told to stop"
    os.close(reader)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_an_orphan_that_is_no_server_gets_sigterm() -> None:
    def child() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        leave_as_orphan(Worker().hooks, None)
        signal.pause()
        return 0

    _, status = os.waitpid(PosixHost().fork(child), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
