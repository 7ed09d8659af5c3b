"""The master's loop on a fake host: every action is performed, and what comes of it is fed back."""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.host import FakeChild, Replaced, ignore
from tests.supervisor.plans import LOCAL, Told, is_open, plan_of
from tests.supervisor.rig import FakeWorker, Rig
from uvicorn._addresses import Address, BindError
from uvicorn._ipc.channel import Kind
from uvicorn._ipc.scoreboard import Cell, Drain
from uvicorn.supervisor import upgrade
from uvicorn.supervisor.control import ControlPost
from uvicorn.supervisor.listeners import Key, ListenerSet
from uvicorn.supervisor.plan import ControlPlan, PlanRejected
from uvicorn.supervisor.upgrade import HANDOVER_FD, TRIAL, Handover

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs processes and UNIX sockets")

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="sockets are steered on Linux only"
)

HUP, TERM, USR1, USR2 = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2
TTIN, TTOU, WINCH = signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH


# --- start and end -----------------------------------------------------------------------------


def test_sockets_are_announced_before_the_master_and_the_master_before_its_workers() -> None:
    rig = Rig()

    def announce(sock: socket.socket) -> None:
        assert rig.signals.installed
        rig.log.append(f"announced {sock.getsockname()[0]}")

    rig.plan = replace(rig.plan, announce=announce)
    rig.master._plans = {1: rig.plan}
    assert rig.run() == 0
    assert rig.log[:2] == ["announced 127.0.0.1", f"Started parent process [{os.getpid()}]"]
    assert rig.log[2].startswith("worker=1 gen=1 pid=")
    assert len(rig.workers) == 2


def test_a_stop_ends_in_order_and_the_last_line_says_so() -> None:
    rig = Rig()
    assert rig.run() == 0
    first, second = rig.workers
    assert [worker.child.received for worker in rig.workers] == [[TERM], [TERM]]
    assert rig.log[-1] == f"Stopping parent process [{os.getpid()}]"
    for worker in (first, second):
        assert rig.logged(f"Terminated child process [{worker.pid}]") == 1
        assert rig.logged(f"Waiting for child process [{worker.pid}]") == 1
    assert not rig.signals.installed
    assert rig.signals.closed


def test_nothing_stays_open() -> None:
    rig = Rig()
    rig.later(5, lambda: rig.workers[0].child.exit(1))
    listening: list[socket.socket] = []
    rig.later(6, lambda: listening.extend(rig.sockets()))
    channels: list[bytes] = []

    def look_at_channels() -> None:
        channels.extend(worker.channel.recv(1) for worker in rig.workers if not worker.alive)

    rig.later(6, look_at_channels)
    rig.run()
    assert channels == [b""]  # the master has closed its end of the dead one's
    assert listening
    assert not any(is_open(sock) for sock in listening)
    assert rig.master.scoreboard.column(Cell.PID) == [1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(rig.master._failure_token)


def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rig = Rig(plan_of(Address("tcp", host="127.0.0.1", port=other.getsockname()[1])))
        with pytest.raises(BindError, match="address already in use"):
            rig.run()
    assert rig.workers == []
    assert not rig.signals.installed
    assert rig.signals.closed


def test_signals_that_were_blocked_before_are_taken_in_the_loop() -> None:
    rig = Rig()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {USR2})
    try:
        rig.run()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (0, 3), (-9, 3)])
def test_a_first_start_that_fails_ends_the_master_with_code_3(code: int, exit_code: int) -> None:
    rig = Rig()
    rig.on_worker = lambda worker: rig.later(0.5, lambda: worker.child.exit(code))
    assert rig.run(stop_after=None) == exit_code
    assert rig.log[-1] == f"Stopping parent process [{os.getpid()}]"


def test_a_crash_loop_ends_the_master_with_code_70() -> None:
    rig = Rig(size=1, limit_restarts=3)

    def die_soon(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        rig.later(0.2, lambda: worker.child.exit(9))

    rig.on_worker = die_soon
    assert rig.run(stop_after=None) == 70


def test_an_error_of_our_own_still_restores_the_signals_and_closes_the_sockets() -> None:
    rig = Rig()
    rig.host.end = rig.host.time + 5
    with pytest.raises(AssertionError, match="too late"):
        rig.run(stop_after=None)
    assert not rig.signals.installed
    assert rig.listeners.held == {}


# --- what a worker is started with -------------------------------------------------------------


def test_a_worker_gets_what_it_needs() -> None:
    rig = Rig(size=2, healthcheck=7)
    looked: list[object] = []

    def look(worker: FakeWorker) -> None:
        start = worker.start
        looked.append((start.wid, start.slot, start.generation, start.size, start.healthcheck, start.first))
        assert start.sockets == rig.sockets()
        assert start.target is rig.plan.target
        assert (start.master_pid, start.title, start.reuse_port) == (os.getpid(), "app:app", False)
        assert start.row[Cell.GENERATION] == 1
        assert start.scoreboard is rig.master.scoreboard
        rig.later(0.1, worker.become_ready)

    rig.on_worker = look
    rig.later(5, lambda: rig.workers[0].child.exit(1))
    rig.run()
    assert looked == [(1, 1, 1, 2, 7, True), (2, 2, 1, 2, 7, True), (3, 1, 1, 2, 7, False)]
    assert len({worker.start.row.index for worker in rig.workers[:2]}) == 2


def test_its_pid_is_in_its_row() -> None:
    rig = Rig()
    pids: list[tuple[int, int]] = []
    rig.later(1, lambda: pids.extend((worker.start.row[Cell.PID], worker.pid) for worker in rig.workers))
    rig.run()
    assert all(in_row == pid for in_row, pid in pids)
    assert len(pids) == 2


def test_the_failure_token_can_be_taken_once() -> None:
    rig = Rig()
    taken: list[bytes] = []

    def take() -> None:
        for worker in rig.workers:
            try:
                taken.append(os.read(worker.start.failure_token, 1))
            except BlockingIOError:
                taken.append(b"nothing")

    rig.later(1, take)
    rig.run()
    assert taken == [b"!", b""]


def test_a_worker_that_was_added_knows_how_many_there_are() -> None:
    rig = Rig(size=1)
    rig.send(1, TTIN)
    rig.run()
    assert [worker.start.size for worker in rig.workers] == [1, 2]


# --- what a worker says ------------------------------------------------------------------------


def test_a_worker_is_ready_when_it_says_so() -> None:
    rig = Rig(size=1)
    rig.on_worker = lambda worker: rig.later(20, worker.become_ready)
    rig.run(stop_after=30)
    assert rig.logged(f"worker=1 gen=1 pid={rig.workers[0].pid} ready after 20.00 s") == 1


def test_a_worker_that_asks_gets_a_successor() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.workers[0].sender.send(Kind.RECYCLE, "limit_max_requests: 9 requests answered"))
    rig.run()
    assert len(rig.workers) == 2
    assert rig.logged("is to be replaced: limit_max_requests: 9 requests answered") == 1
    assert rig.logged(f"Child process [{rig.workers[0].pid}] ended: exit code 0") == 1


def test_listeners_close_when_all_workers_have_stopped_accepting() -> None:
    rig = Rig()
    open_at: list[tuple[float, bool]] = []

    def look() -> None:
        open_at.append((round(rig.host.time - 1000, 1), bool(rig.listeners.held)))

    def leave_slowly(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = lambda child: (
            rig.later(0.2, lambda: worker.sender.send(Kind.STOPPED_ACCEPTING)),
            rig.later(5, lambda: child.exit(0)),
        )  # type: ignore[func-returns-value]

    rig.on_worker = leave_slowly
    for at in (10.1, 10.3):
        rig.later(at, look)
    rig.run()
    assert open_at == [(10.1, True), (10.3, False)]


def test_a_report_goes_to_the_log_with_the_workers_name() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.workers[0].sender.send(Kind.REPORT, "stuck in\n  line 7"))
    rig.run()
    assert rig.logged(f"Report of worker=1 gen=1 pid={rig.workers[0].pid}:\nstuck in\n  line 7") == 1


def test_why_a_start_has_failed_is_kept_for_those_who_wait_and_not_logged_again() -> None:
    rig = Rig(size=1)

    def fail(worker: FakeWorker) -> None:
        worker.sender.send(Kind.FAILED, "SyntaxError: invalid syntax (app.py, line 1)")
        rig.later(0.1, lambda: worker.child.exit(3))

    rig.on_worker = fail
    assert rig.run(stop_after=None) == 3
    assert rig.logged("No worker could start: exit code 3") == 1
    assert rig.logged("SyntaxError") == 0


def test_what_is_no_message_closes_the_channel_and_nothing_else() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.workers[0].channel.send(b"GET / HTTP/1.1\r\n\r\n"))
    assert rig.run(stop_after=5) == 0
    assert len(rig.workers) == 1
    assert rig.workers[0].told(TERM) == 1


def test_a_channel_that_a_living_worker_has_closed_does_not_keep_the_master_busy() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.workers[0].channel.shutdown(socket.SHUT_RDWR))
    rig.run(stop_after=20)
    assert len(rig.host.waits) < 50


def test_what_a_worker_said_last_is_heard_before_its_end_is_judged() -> None:
    rig = Rig(size=1)

    def ready_and_gone(worker: FakeWorker) -> None:
        if len(rig.workers) == 1:
            rig.later(0.1, lambda: (worker.become_ready(), worker.child.exit(9)))
        else:
            rig.later(0.1, worker.become_ready)

    rig.on_worker = ready_and_gone
    assert rig.run() == 0
    assert rig.logged(f"Child process [{rig.workers[0].pid}] died: exit code 9") == 1


# --- a worker ends -----------------------------------------------------------------------------


def test_its_end_is_logged_with_how_many_requests_it_has_answered() -> None:
    rig = Rig(size=1)

    def die() -> None:
        rig.workers[0].start.row[Cell.REQUESTS] = 4321
        rig.workers[0].child.exit(-11)

    rig.later(5, die)
    rig.run()
    pid = rig.workers[0].pid
    assert (
        f"Child process [{pid}] died: killed by SIGSEGV (worker=1 gen=1 age=4.9 s requests=4321)" in rig.log
    )


@pytest.mark.parametrize(
    ("kills", "words"),
    [(0, "killed by SIGKILL (perhaps out of memory)"), (1, "killed by the kernel: out of memory")],
)
def test_out_of_memory_is_told_where_the_kernel_says_so(kills: int, words: str) -> None:
    rig = Rig(size=1)
    rig.host.kills = 7  # before the master was started

    def die() -> None:
        rig.host.kills += kills
        rig.workers[0].child.exit(-9)

    rig.later(1, die)
    rig.later(5, lambda: rig.workers[1].child.exit(-9))
    rig.run()
    assert rig.logged(f"Child process [{rig.workers[0].pid}] died: {words} (") == 1
    second = rig.workers[1].pid
    assert rig.logged(f"Child process [{second}] died: killed by SIGKILL (perhaps out of memory) (") == 1


def test_its_row_is_free_for_the_next_one() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.workers[0].child.exit(1))
    rig.run()
    assert rig.workers[0].start.row.index == rig.workers[1].start.row.index == 1


def test_children_of_others_are_reaped_in_silence() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: rig.host._new_child().exit(3))
    rig.run(stop_after=5)
    assert rig.host.children == {}
    assert not rig.logged("exit code 3")


def test_no_process_that_was_reaped_is_sent_a_signal() -> None:
    rig = Rig(size=3)

    def all_at_once() -> None:
        for worker in rig.workers[:2]:
            worker.child.exit(-9)
        rig.signals.send(USR1, TERM, TERM)  # comes first, when the master does not know yet that two are gone

    rig.later(5, all_at_once)
    assert rig.run(stop_after=None) == 0  # the fake host asserts it
    assert [worker.child.received for worker in rig.workers[:2]] == [[], []]


def test_a_silent_worker_that_has_just_been_reaped_is_not_looked_at() -> None:
    rig = Rig(size=1)
    rig.later(1, lambda: setattr(rig.workers[0], "ticks", False))

    def gone_as_it_is_asked() -> None:
        rig.workers[0].child.exit(-9)

    rig.later(5.999, gone_as_it_is_asked)
    assert rig.run() == 0
    assert not rig.logged("stopped by somebody")


# --- what a worker leaves behind ---------------------------------------------------------------


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_a_worker_leaves_behind_is_terminated_and_then_killed(stubborn: bool) -> None:
    rig = Rig(size=1)

    def die() -> None:
        child = rig.workers[0].child
        child.companions, child.stubborn = 2, stubborn
        child.exit(1)

    rig.later(1, die)
    left: list[int] = []
    for at in (2.9, 3.2):
        rig.later(at, lambda: left.append(rig.workers[0].child.companions))
    rig.run()
    assert left == ([2, 0] if stubborn else [0, 0])
    pid = rig.workers[0].pid
    assert rig.logged(f"Child process [{pid}] has left processes behind: terminated.") == 1


def test_a_group_that_is_somebody_elses_by_now_is_not_killed() -> None:
    rig = Rig(size=1)

    def die() -> None:
        child = rig.workers[0].child
        child.companions, child.stubborn = 1, True
        child.exit(1)

    def reuse() -> None:
        rig.workers[0].child.companions = 0
        rig.host.strangers.add(rig.workers[0].pid)

    rig.later(1, die)
    rig.later(2, reuse)
    assert rig.run() == 0  # the fake host asserts it
    assert rig.logged("has left processes behind: terminated.") == 1


def test_what_is_left_behind_at_the_end_ends_before_the_master() -> None:
    rig = Rig(size=1)

    def leave(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.companions, worker.child.stubborn = 1, True

    rig.on_worker = leave
    began = rig.host.time
    assert rig.run() == 0
    assert rig.workers[0].child.companions == 0
    assert 12.1 < rig.host.time - began < 12.3


def test_nothing_is_waited_for_when_nothing_is_left_behind() -> None:
    rig = Rig(size=1)
    rig.on_worker = lambda worker: (
        rig.later(0.1, worker.become_ready),
        setattr(worker.child, "companions", 1),
    )
    began = rig.host.time
    rig.run()
    assert rig.host.time - began == pytest.approx(10.1)


def test_another_stop_ends_the_wait_for_what_is_left_behind() -> None:
    rig = Rig(size=1)

    def leave(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.companions, worker.child.stubborn = 1, True

    rig.on_worker = leave
    rig.send(10.5, USR1)
    rig.send(11, TERM)
    began = rig.host.time
    rig.run()
    assert rig.workers[0].child.companions == 0
    assert rig.host.time - began == pytest.approx(11)


# --- signals to workers ------------------------------------------------------------------------


def test_a_worker_that_does_not_finish_is_aborted_and_killed_with_its_group() -> None:
    rig = Rig(size=1, drain=5)

    def stubborn(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.companions, worker.child.stubborn = 1, True
        worker.child.handlers = {TERM: ignore, signal.SIGABRT: ignore}

    rig.on_worker = stubborn
    assert rig.run() == 0
    worker = rig.workers[0]
    assert worker.child.received == [TERM, signal.SIGABRT, signal.SIGKILL, signal.SIGKILL]
    assert worker.child.companions == 0
    assert rig.logged("killed by SIGKILL by the master") == 1


def test_a_second_stop_sends_sigquit() -> None:
    rig = Rig(size=1)

    def slow(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = ignore

    rig.on_worker = slow
    rig.send(11, TERM)
    assert rig.run() == 0
    assert rig.workers[0].child.received == [TERM, signal.SIGQUIT]


def test_usr1_reopens_the_logs_of_the_master_and_of_all_workers(tmp_path: Path) -> None:
    rig = Rig()
    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    logging.getLogger("uvicorn.error").addHandler(handler)

    def rotate() -> None:
        path.rename(tmp_path / "log.1")
        rig.signals.send(USR1)

    heard: list[bytes] = []
    rig.later(1, rotate)
    rig.later(2, lambda: heard.extend(worker.channel.recv(9) for worker in rig.workers))
    try:
        rig.run()
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
        handler.close()
    assert heard == [b"r", b"r"]
    assert "Stopping parent process" in path.read_text()


def test_a_log_file_that_cannot_be_reopened_is_an_error_and_no_end(tmp_path: Path) -> None:
    rig = Rig()
    directory = tmp_path / "logs"
    directory.mkdir()
    handler = logging.FileHandler(directory / "log")
    logging.getLogger("uvicorn.error").addHandler(handler)
    rig.later(1, lambda: directory.rename(tmp_path / "moved"))
    heard: list[bytes] = []
    rig.send(1.5, USR1)
    rig.later(2, lambda: heard.extend(worker.channel.recv(9) for worker in rig.workers))
    try:
        assert rig.run() == 0
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
        handler.close()
    assert rig.logged("A log file cannot be reopened: [Errno 2] No such file or directory") == 1
    assert rig.logged("/logs/log' (the master).") == 1
    assert heard == [b"r", b"r"]


def test_a_worker_answers_that_its_log_files_are_reopened_and_one_without_a_channel_is_signalled() -> None:
    rig = Rig(size=2)
    rig.later(0.5, lambda: rig.workers[1].channel.shutdown(socket.SHUT_RDWR))
    rig.send(1, USR1)
    rig.later(2, lambda: rig.log.append("not yet"))
    rig.later(3, lambda: rig.workers[0].sender.send(Kind.REOPENED))
    assert rig.run() == 0
    done = "Master and workers have reopened their log files."
    assert rig.log.index("not yet") < rig.log.index(done)
    assert rig.workers[1].told(USR1) == 1


# --- health ------------------------------------------------------------------------------------


def test_a_worker_whose_process_is_silent_is_replaced() -> None:
    rig = Rig()
    rig.later(2, lambda: setattr(rig.workers[0], "ticks", False))
    rig.run()
    assert rig.workers[0].child.received == [signal.SIGABRT]
    assert len(rig.workers) == 3


def test_a_worker_whose_event_loop_stands_still_is_stalled() -> None:
    rig = Rig(stall=4)

    def stand_still() -> None:
        worker = rig.workers[0]
        worker.ticks = False
        row = worker.start.row
        for i in range(20):
            rig.later(
                i * 0.5, lambda: worker.alive and row.__setitem__(Cell.THREAD_TICK, int(rig.host.time * 1e6))
            )

    rig.later(1, stand_still)
    rig.run()
    assert rig.logged("is stalled: its event loop has not run for") == 1
    assert rig.logged("event loop stalled for 4 s") == 1


def test_a_process_that_somebody_has_stopped_is_left_alone() -> None:
    rig = Rig()
    rig.later(1, lambda: rig.workers[0].child.deliver(signal.SIGSTOP))
    rig.later(60, lambda: rig.workers[0].child.deliver(signal.SIGCONT))
    rig.run(stop_after=70)
    assert len(rig.workers) == 2
    assert rig.logged("is stopped by somebody") == 1


def test_a_worker_that_is_not_ready_is_not_measured() -> None:
    rig = Rig(size=1)
    rig.on_worker = lambda worker: rig.later(100, worker.become_ready)
    assert rig.run(stop_after=110) == 0
    assert len(rig.workers) == 1


def test_a_master_that_was_stopped_blames_nobody() -> None:
    rig = Rig()

    def stand_still() -> None:
        rig.host.time += 600  # and no worker has ticked meanwhile

    rig.later(2, stand_still)
    rig.run()
    assert len(rig.workers) == 2


def test_without_headroom_a_worker_goes_before_its_successor_comes() -> None:
    rig = Rig(size=1)
    rig.host.headroom = False
    order: list[str] = []

    def watched(worker: FakeWorker) -> None:
        order.append(f"start of {len(rig.workers)}")
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = lambda child: (order.append("end"), child.exit(0))  # type: ignore[func-returns-value]

    rig.on_worker = watched
    rig.later(2, lambda: rig.workers[0].sender.send(Kind.RECYCLE, "old"))
    rig.run()
    assert order == ["start of 1", "end", "start of 2", "end"]


# --- no process --------------------------------------------------------------------------------


def open_descriptors() -> int:
    """How many this process has, without those that only wait to be collected."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def test_a_fork_that_fails_is_tried_again_and_leaves_nothing_behind() -> None:
    rig = Rig(size=2)

    def shortage(error: OSError | None) -> None:
        rig.host.fork_error = error

    rig.later(1, lambda: shortage(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")))
    rig.later(1.1, lambda: rig.workers[1].child.exit(-9))
    rows: list[list[int]] = []
    rig.later(3, lambda: rows.append(rig.master.scoreboard.column(Cell.PID)))
    rig.later(4, lambda: shortage(None))
    fds: list[int] = []
    for at in (1.05, 3):
        rig.later(at, lambda: fds.append(open_descriptors()))
    assert rig.run(stop_after=20) == 0
    text = "No process could be made for worker=2: Resource temporarily unavailable. Next try in 0.5 s."
    assert rig.log.count(text) == 1
    assert rows == [[2, rig.workers[0].pid]]
    assert fds[1] == fds[0] - 1  # our end of the dead one's channel
    assert len(rig.workers) == 3


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_descriptors_a_start_is_tried_again(descriptors: None) -> None:
    rig = Rig(size=2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))

    def use_up() -> None:
        rig.workers[1].child.exit(-9)
        allow(0)  # whatever is open stays open

    rig.later(1, use_up)
    rig.later(1.2, lambda: allow(256))
    assert rig.run() == 0
    assert (
        rig.logged("No process could be made for worker=2: [Errno 24] Too many open files. Next try in") == 1
    )
    assert len(rig.workers) == 3


# --- reload ------------------------------------------------------------------------------------


def test_hup_rolls_all_workers() -> None:
    rig = Rig(size=2)
    rig.reloads = [replace(rig.plan, title="new:app")]
    rig.send(1, HUP)
    assert rig.run() == 0
    assert [worker.start.generation for worker in rig.workers] == [1, 1, 2, 2]
    assert rig.workers[2].start.title == "new:app"
    assert rig.logged("Reload complete: generation 2 serves with 2 worker(s).") == 1
    assert rig.master.plan.title == "new:app"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PlanRejected("a.yaml:1: x: no such setting"), "a.yaml:1: x: no such setting"),
        (BindError("cannot bind to 127.0.0.1:1: no."), "cannot bind to 127.0.0.1:1: no"),
        (
            FileNotFoundError(2, "No such file or directory"),
            "FileNotFoundError: [Errno 2] No such file or directory",
        ),
        (KeyError("workers"), "KeyError: 'workers'"),
    ],
)
def test_settings_that_cannot_be_used_change_nothing(error: Exception, words: str) -> None:
    told = Told()
    rig = Rig(plan_of(told=told))
    rig.reloads = [error]
    rig.send(1, HUP)
    assert rig.run() == 0
    assert len(rig.workers) == 2
    text = f"Reload failed, the settings cannot be used: {words}. Generation 1 goes on unchanged."
    assert text in rig.log
    assert told.applied >= 1  # the log is as it was before it is written to


@pytest.mark.parametrize("rejected", [True, False])
def test_a_log_configuration_that_cannot_be_read_again_is_an_error_and_no_end(rejected: bool) -> None:
    def apply() -> None:
        raise ValueError("not JSON any more")

    rig = Rig(replace(plan_of(size=1), apply=apply))
    rig.reloads = [PlanRejected("broken") if rejected else plan_of(size=1)]
    rig.later(1, lambda: setattr(rig, "on_worker", lambda worker: worker.child.exit(3)))
    rig.send(1, HUP)
    assert rig.run() == 0
    assert rig.logged("Reload failed") == 1
    assert rig.logged("The logging configuration cannot be read again: ValueError: not JSON any more") >= 1


def test_an_address_that_is_taken_changes_nothing() -> None:
    rig = Rig()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("tcp", host="127.0.0.1", port=other.getsockname()[1])
        rig.reloads = [plan_of(LOCAL, Address("tcp", host="127.0.0.1", port=0), taken)]
        rig.send(1, HUP)
        held: list[list[Key]] = []
        rig.later(5, lambda: held.append(list(rig.listeners.held)))
        assert rig.run() == 0
    assert held == [[Key(LOCAL)]]
    assert rig.logged("address already in use") == 1
    assert len(rig.workers) == 2


def test_changed_binds_open_before_the_canary_and_the_old_ones_close_when_it_is_ready(tmp_path: Path) -> None:
    old = Address("unix", name=str(tmp_path / "old.sock"))
    new = Address("unix", name=str(tmp_path / "new.sock"))
    rig = Rig(plan_of(LOCAL, old, size=1))
    rig.reloads = [plan_of(LOCAL, new, size=1)]
    rig.send(1, HUP)
    held: list[list[Key]] = []
    for at in (1.05, 2):
        rig.later(at, lambda: held.append(list(rig.listeners.held)))
    assert rig.run() == 0
    assert held == [[Key(LOCAL), Key(old), Key(new)], [Key(LOCAL), Key(new)]]
    assert len(rig.workers[1].start.sockets) == 2


def test_a_reload_that_is_abandoned_closes_what_only_it_has(tmp_path: Path) -> None:
    told = Told()
    new = Address("unix", name=str(tmp_path / "new.sock"))
    rig = Rig(plan_of(size=1, told=told))
    rig.reloads = [plan_of(LOCAL, new, size=1)]
    rig.later(1, lambda: setattr(rig, "on_worker", lambda worker: worker.child.exit(3)))
    rig.send(1, HUP)
    held: list[list[Key]] = []
    rig.later(5, lambda: held.append(list(rig.listeners.held)))
    assert rig.run() == 0
    assert held == [[Key(LOCAL)]]
    assert not (tmp_path / "new.sock").exists()
    assert told.applied == 1
    assert rig.logged("Reload failed, its first worker did not start: exit code 3") == 1


def test_a_hup_during_a_reload_starts_over() -> None:
    rig = Rig(size=1)
    rig.reloads = [plan_of(size=1, title="second"), plan_of(size=1, title="third")]
    rig.on_worker = lambda worker: rig.later(0.1 if len(rig.workers) != 2 else 100, worker.become_ready)
    rig.send(1, HUP)
    rig.send(2, HUP)
    assert rig.run() == 0
    assert [worker.start.title for worker in rig.workers] == ["app:app", "second", "third"]
    assert rig.workers[1].child.received == [TERM]


# --- how a worker is told to leave -------------------------------------------------------------


def drain_modes(rig: Rig) -> list[Drain]:
    """How each worker was told to leave first."""
    modes: dict[int, Drain] = {}

    def note(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)

        def on_term(child: object) -> None:
            modes.setdefault(worker.start.wid, Drain(worker.start.row[Cell.DRAIN]))
            worker.leave()

        worker.child.handlers[TERM] = on_term

    rig.on_worker = note
    assert rig.run() == 0
    return [modes[wid] for wid in sorted(modes)]


def test_at_the_end_of_the_service_everybody_leaves_for_good() -> None:
    assert drain_modes(Rig(size=2)) == [Drain.FINAL, Drain.FINAL]


def test_with_siblings_the_accept_queue_is_left_to_them() -> None:
    rig = Rig(size=2)
    rig.send(1, TTOU)
    assert drain_modes(rig) == [Drain.FINAL, Drain.RECYCLE]


def test_on_a_socket_that_nobody_else_will_have_the_queue_is_emptied(tmp_path: Path) -> None:
    rig = Rig(plan_of(LOCAL, Address("unix", name=str(tmp_path / "old.sock")), size=1))
    rig.reloads = [plan_of(size=1)]
    rig.send(1, HUP)
    assert drain_modes(rig) == [Drain.MOVE, Drain.FINAL]


@on_linux
def test_with_a_socket_of_its_own_the_queue_is_emptied_only_where_the_slot_is_given_up() -> None:
    rig = Rig(plan_of(size=2, reuse_port=True))
    rig.send(1, TTOU)
    rig.later(2, lambda: rig.workers[0].sender.send(Kind.RECYCLE, "old"))
    assert drain_modes(rig) == [Drain.RECYCLE, Drain.MOVE, Drain.FINAL]


def test_in_a_pause_the_queue_waits_for_the_workers_to_come_back() -> None:
    rig = Rig(size=1)
    rig.reloads = [rig.plan]
    rig.send(1, WINCH)
    rig.send(2, HUP)
    modes = drain_modes(rig)
    assert modes[0] is Drain.RECYCLE


def test_who_drains_already_hears_of_the_end_of_the_service() -> None:
    rig = Rig(size=2)
    final: list[int] = []

    def slow(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = lambda child: rig.later(20, lambda: child.exit(0))
        rig.later(11, lambda: final.append(worker.start.row[Cell.DRAIN]))

    rig.on_worker = slow
    rig.send(1, TTOU)
    assert rig.run() == 0
    assert final == [Drain.FINAL, Drain.FINAL]
    assert [worker.told(TERM) for worker in rig.workers] == [1, 2]


@on_linux
def test_reuse_port_cannot_change_on_an_address_that_stays() -> None:
    rig = Rig(size=1)
    rig.reloads = [plan_of(size=1, reuse_port=True)]
    rig.send(1, HUP)
    assert rig.run() == 0
    assert (
        rig.logged(
            "Reload failed, the settings cannot be used: reuse_port: cannot be changed while 127.0.0.1:0 stays in use; "
            "start the service anew. Generation 1 goes on unchanged."
        )
        == 1
    )


def test_a_reload_says_that_control_stays_as_it_was(tmp_path: Path) -> None:
    rig = Rig(size=1)
    changed = replace(rig.plan, control=ControlPlan(Address("unix", name=str(tmp_path / "c")), None))
    rig.reloads = [changed, changed, rig.plan]
    for at in (1, 3, 5):
        rig.send(at, HUP)
    assert rig.run() == 0
    assert rig.logged("control_socket, control_read_only and admin stay as they were") == 2
    assert rig.logged("Reload complete") == 3


# --- sockets for each slot ---------------------------------------------------------------------


def goes_to(sockets: Sequence[socket.socket]) -> list[int]:
    """Which of the sockets get connections. Fewer than `plan_of`'s backlog: all may go to one."""
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(9)]
    got = []
    for i, sock in enumerate(sockets):
        sock.setblocking(False)
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            got.append(i)
    for client in clients:
        client.close()
    return sorted(set(got))


@on_linux
def test_new_connections_go_only_to_slots_with_a_ready_worker() -> None:
    rig = Rig(plan_of(size=3, reuse_port=True))
    rig.on_worker = lambda worker: rig.later(0.1 if worker.start.slot == 2 else 5, worker.become_ready)
    got: list[list[int]] = []
    rig.later(1, lambda: got.append(goes_to(rig.sockets())))
    rig.later(7, lambda: rig.workers[1].child.exit(1))
    rig.later(7.05, lambda: got.append(goes_to(rig.sockets())))
    assert rig.run() == 0
    assert got[0] == [1]
    assert 1 not in got[1]
    assert [worker.start.sockets for worker in rig.workers[:3]] != [rig.workers[0].start.sockets] * 3


@on_linux
def test_an_address_that_comes_back_is_steered_anew() -> None:
    other = Address("tcp", host="127.0.0.2", port=0)
    rig = Rig(plan_of(other, size=2, reuse_port=True))
    rig.reloads = [plan_of(LOCAL, size=2, reuse_port=True), rig.plan]
    rig.send(1, HUP)
    rig.send(5, HUP)
    got: list[list[int]] = []

    def lose_the_first() -> None:
        next(worker for worker in rig.alive() if worker.start.slot == 1).child.exit(1)

    rig.later(9, lose_the_first)
    rig.later(9.05, lambda: got.append(goes_to(rig.sockets())))
    assert rig.run(stop_after=15) == 0
    assert got == [[1]]


@on_linux
def test_a_worker_that_is_added_gets_a_socket_of_its_own() -> None:
    rig = Rig(plan_of(size=1, reuse_port=True))
    rig.send(1, TTIN)
    assert rig.run() == 0
    first, second = (worker.start for worker in rig.workers)
    assert first.sockets != second.sockets
    assert first.reuse_port


# --- the title ---------------------------------------------------------------------------------


def test_the_title_tells_how_the_service_is() -> None:
    rig = Rig(size=2)
    rig.reloads = [rig.plan]
    rig.send(1, HUP)
    rig.run()
    assert rig.titles == [
        "uvicorn: master app:app gen=1 ready=0/2",
        "uvicorn: master app:app gen=1 ready=1/2",
        "uvicorn: master app:app gen=1 ready=2/2",
        "uvicorn: master app:app gen=1 ready=2/2 reloading",
        "uvicorn: master app:app gen=2 ready=2/2 reloading",
        "uvicorn: master app:app gen=2 ready=2/2",
        "uvicorn: master app:app gen=2 ready=0/2 stopping",
        "uvicorn: master app:app gen=2 ready=0/2 exited",
    ]


def test_a_title_that_cannot_be_set_is_no_matter() -> None:
    rig = Rig(size=1)

    def fails(title: str) -> None:
        raise RuntimeError(title)

    rig.master._set_title = fails
    assert rig.run() == 0


# --- upgrade -----------------------------------------------------------------------------------


def test_usr2_runs_a_trial_of_the_same_command() -> None:
    rig = Rig(size=1)
    rig.host.on_start = lambda child: rig.later(0.5, lambda: child.exit(3))
    rig.send(1, USR2)
    assert rig.run() == 0
    ((command, environ),) = rig.host.programs
    assert command == upgrade.own_command()
    assert environ == {**os.environ, TRIAL: str(upgrade.VERSION)}
    assert (
        rig.logged("Upgrade failed: the new program does not start (exit code 3). Nothing has changed.") == 1
    )


def test_a_trial_that_cannot_be_started_changes_nothing() -> None:
    rig = Rig(size=1)
    rig.host.start_error = FileNotFoundError(2, "No such file or directory")
    rig.send(1, USR2)
    assert rig.run() == 0
    assert (
        rig.logged("Upgrade failed: the trial could not be started: No such file or directory. Nothing") == 1
    )


def test_a_trial_that_takes_too_long_is_killed_with_its_group() -> None:
    rig = Rig(size=1, startup=3)
    trials: list[int] = []

    def hang(child: object) -> None:
        child.companions = 1  # type: ignore[attr-defined]
        trials.append(child.pid)  # type: ignore[attr-defined]

    rig.host.on_start = hang
    rig.send(1, USR2)
    assert rig.run() == 0
    assert rig.host.groups[trials[0]].received == [signal.SIGKILL]
    assert rig.host.groups[trials[0]].companions == 0
    assert rig.host.execs == []


def test_a_trial_that_has_ended_in_the_moment_of_the_stop_is_not_killed() -> None:
    rig = Rig(size=1)

    def end(child: object) -> None:
        rig.later(1, lambda: (child.exit(0), rig.signals.send(TERM)))  # type: ignore[attr-defined]

    rig.host.on_start = end
    rig.send(1, USR2)
    assert rig.run(stop_after=None) == 0
    assert rig.host.execs == []


@pytest.mark.parametrize("what", ["take_listeners", "take_worker"])
def test_a_handover_that_cannot_be_taken_is_handed_on(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(size=2)
    rig.send(1, USR2)
    handed: list[upgrade.Handover] = []

    def hear(environ: Mapping[str, str], fds: Sequence[int]) -> None:
        handover = upgrade.read({HANDOVER_FD: str(os.dup(int(environ[HANDOVER_FD])))})
        assert handover is not None
        for fd in fds:
            os.fstat(fd)
        assert sorted(fds) == sorted([int(environ[HANDOVER_FD]), *handover.descriptors()])
        handed.append(handover)

    def refuse(*arguments: object) -> None:
        rig.host.on_exec = hear
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(upgrade, what, refuse)
    monkeypatch.setattr(upgrade, "RETRY_AFTER", 0.0)
    upgraded(rig)
    (handover,) = handed
    assert [worker.pid for worker in handover.workers] == [worker.pid for worker in rig.workers]
    assert all(worker.child.code is None for worker in rig.workers)
    assert [worker.child.received for worker in rig.workers] == [[], []]
    text = (
        f"Taking over has failed: {os.strerror(errno.ENOBUFS)}. The workers of the program before serve on."
    )
    assert rig.logged(text) == 1


def test_a_control_process_that_cannot_be_had_after_an_upgrade_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(size=1)
    rig.send(1, USR2)
    opened = ControlPost.open

    def refuse(post: ControlPost, taken: bool = False) -> None:
        if taken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        opened(post)

    monkeypatch.setattr(ControlPost, "open", refuse)
    upgraded(rig)
    assert rig.logged(f"The control process cannot be had: {os.strerror(errno.EIO)}.") == 1
    assert rig.logged("Took over 1 worker process(es) from the program before.") == 1


def test_an_exec_that_fails_changes_nothing() -> None:
    rig = Rig(size=1)
    rig.host.on_start = lambda child: child.exit(0)
    rig.host.exec_error = PermissionError(13, "Permission denied")
    rig.send(1, USR2)
    fds: list[int] = []
    for at in (0.9, 2):
        rig.later(at, lambda: fds.append(open_descriptors()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert rig.run() == 0
    assert (
        rig.logged("Upgrade failed: the new program could not be started: Permission denied. Nothing has")
        == 1
    )
    assert fds[0] == fds[1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def upgraded(
    rig: Rig,
    plan: object = None,
    stop_after: float = 10.0,
    trial: Callable[[FakeChild], None] = lambda child: child.exit(0),
) -> Rig:
    """Let the rig be upgraded, and run its next program in its place; that one's rig."""
    successors: list[Rig] = []

    def become(environ: Mapping[str, str], fds: Sequence[int]) -> None:
        handover = upgrade.read({HANDOVER_FD: str(os.dup(int(environ[HANDOVER_FD])))})
        assert handover is not None
        assert sorted(fds) == sorted([int(environ[HANDOVER_FD]), *handover.descriptors()])
        successor = Rig(plan or rig.plan)  # type: ignore[arg-type]
        successors.append(successor)
        successor.host = rig.host
        successor.master._host = successor.master._leftovers._host = successor.master._control._host = (
            rig.host
        )
        rig.host.on_fork = successor._forked
        rig.host.on_exec = lambda environ, fds: None
        advanced = rig._advanced
        rig.host.on_advance = lambda: (advanced(), successor._advanced())  # type: ignore[func-returns-value]
        # Taken over by the same process, where the descriptors have owners already.
        copies = {fd: os.dup(fd) for fd in handover.descriptors()}
        moved = replace(
            handover,
            scoreboard_fd=copies[handover.scoreboard_fd],
            workers=[
                replace(
                    worker,
                    channel_fd=copies.get(worker.channel_fd, -1),
                    listener_fds=[copies.get(fd, -1) for fd in worker.listener_fds],
                )
                for worker in handover.workers
            ],
            listeners=[replace(listener, fd=copies[listener.fd]) for listener in handover.listeners],
        )
        successor.workers = list(rig.workers)
        for worker in rig.workers:
            worker.rig = successor
        assert successor.run(stop_after, moved) == 0

    rig.host.on_start = trial
    rig.host.on_exec = become
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with pytest.raises(Replaced):
            rig.run(stop_after=None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return successors[0]


def test_after_an_upgrade_the_workers_are_adopted_and_rolled() -> None:
    rig = Rig(size=2)
    rig.send(1, USR2)
    successor = upgraded(rig)
    assert [worker.start.generation for worker in successor.workers] == [1, 1, 2, 2]
    assert successor.log[:2] == [
        f"Started parent process [{os.getpid()}]",
        "Took over 2 worker process(es) from the program before.",
    ]
    assert successor.logged("Reload complete: generation 2 serves with 2 worker(s).") == 1
    for old in rig.workers:
        assert successor.logged(f"Child process [{old.pid}] ended: exit code 0") == 1
    assert [worker.start.wid for worker in successor.workers] == [1, 2, 3, 4]
    assert [worker.start.row.index for worker in successor.workers] == [1, 2, 3, 4]


def test_a_worker_that_ends_in_the_turn_of_the_exec_is_not_handed_over() -> None:
    # It is reaped already: the next program would wait for its end for ever.
    rig = Rig(size=1)
    rig.send(1, USR2)
    rig.send(1.2, TTIN)  # its process is younger than the trial's, and is reaped after it

    def end_both(child: FakeChild) -> None:
        rig.later(0.5, lambda: (child.exit(0), rig.workers[1].child.exit(1)))  # type: ignore[func-returns-value]

    successor = upgraded(rig, trial=end_both)
    assert rig.signals.was_put_back
    assert rig.logged(f"Child process [{rig.workers[1].pid}] died: exit code 1") == 1
    assert successor.logged("Took over 2 worker process(es)") == 1  # one of them its replacement
    assert successor.logged("Reload complete: generation 2 serves with 1 worker(s).") == 1


def test_half_a_message_is_handed_over_with_its_channel() -> None:
    rig = Rig(size=1)
    frame = b"\x04\x00\x00\x05where"
    rig.later(0.5, lambda: rig.workers[0].channel.send(frame[:6]))
    rig.later(1.05, lambda: rig.workers[0].channel.send(frame[6:]))
    rig.send(1, USR2)
    successor = upgraded(rig)
    assert successor.logged("Report of worker=1") == 1
    assert successor.logged("where") == 1


def test_after_an_upgrade_the_sockets_are_the_same_and_not_announced_again() -> None:
    rig = Rig(size=1)
    addresses: list[object] = []
    rig.later(0.5, lambda: addresses.append(rig.sockets()[0].getsockname()))
    rig.send(1, USR2)
    told = Told()
    successor = upgraded(rig, replace(rig.plan, announce=told.announced.append))
    assert told.announced == []
    assert successor.workers[1].start.sockets[0] is not rig.workers[0].start.sockets[0]
    assert not successor.workers[1].start.first or successor.workers[1].start.failure_token == -1


def test_after_an_upgrade_with_changed_binds_the_old_workers_empty_their_queues(tmp_path: Path) -> None:
    old = Address("unix", name=str(tmp_path / "old.sock"))
    rig = Rig(plan_of(LOCAL, old, size=1))
    modes: list[int] = []

    def note(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = lambda child: (
            modes.append(worker.start.row[Cell.DRAIN]),
            worker.leave(),
        )  # type: ignore[func-returns-value]

    rig.on_worker = note
    rig.send(1, USR2)
    upgraded(rig, plan_of(size=1))
    assert modes == [Drain.MOVE]


def test_after_an_upgrade_to_an_address_that_is_taken_the_service_goes_on_where_it_was() -> None:
    rig = Rig(size=1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("tcp", host="127.0.0.1", port=other.getsockname()[1])
        rig.send(1, USR2)
        successor = upgraded(rig, plan_of(taken, size=1))
    assert successor.logged("address already in use") == 1
    assert successor.logged("The addresses of the program before stay in use; SIGHUP tries again.") == 1
    assert successor.logged("Reload complete: generation 2 serves with 1 worker(s).") == 1
    assert successor.master.plan.addresses == (LOCAL,)
    assert len(successor.workers[1].start.sockets) == 1


def test_after_an_upgrade_with_the_same_binds_the_queue_is_left_to_the_new_workers() -> None:
    rig = Rig(size=1)
    modes: list[int] = []

    def note(worker: FakeWorker) -> None:
        rig.later(0.1, worker.become_ready)
        worker.child.handlers[TERM] = lambda child: (
            modes.append(worker.start.row[Cell.DRAIN]),
            worker.leave(),
        )  # type: ignore[func-returns-value]

    rig.on_worker = note
    rig.send(1, USR2)
    upgraded(rig)
    assert modes == [Drain.RECYCLE]


def test_a_worker_whose_channel_was_closed_is_adopted_without_one() -> None:
    rig = Rig(size=1)
    rig.later(0.5, lambda: rig.workers[0].channel.shutdown(socket.SHUT_RDWR))
    rig.send(1, USR2)
    successor = upgraded(rig)
    assert len(successor.workers) == 2


def test_an_upgrade_that_finds_no_workers_starts_them() -> None:
    rig = Rig(size=1)
    rig.master._prepare(None)
    scoreboard = os.dup(rig.master.scoreboard.fd)
    rig.listeners.stop()
    os.close(rig.master._failure_token)
    successor = Rig(size=1)
    assert successor.run(handover=Handover(4, 1, scoreboard)) == 0
    assert [worker.start.generation for worker in successor.workers] == [5]
    rig.signals.close()


def test_listeners_that_were_given_are_held() -> None:
    listeners = ListenerSet()
    listeners.open(plan_of())
    sock = listeners.held[Key(LOCAL)].sock
    rig = Rig(size=1, listeners=listeners)
    assert rig.run() == 0
    assert rig.workers[0].start.sockets == [sock]
    assert not is_open(sock)
