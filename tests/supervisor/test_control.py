"""The master's end of the control process, on a fake host: started, started again, told, heard, handed over."""

from __future__ import annotations

import errno
import inspect
import itertools
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.host import FakeChild
from tests.supervisor.plans import plan_of
from tests.supervisor.rig import Rig
from uvicorn._addresses import Address, BindError
from uvicorn._ipc.channel import Kind, channel_pair
from uvicorn._ipc.control import (
    RESTART_REASONS,
    Answer,
    Command,
    ControlEnd,
    ControlStart,
    MasterEnd,
    Snapshot,
    Verb,
)
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn._privileges import UNCHANGED
from uvicorn.supervisor import events, settle, stages
from uvicorn.supervisor.control import EVENTS_KEPT, ControlPost, event_of
from uvicorn.supervisor.host import ChildExit
from uvicorn.supervisor.plan import ControlPlan
from uvicorn.supervisor.upgrade import HandedControl
from uvicorn.worker import limits, runtime

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs processes and UNIX sockets")

ADMIN = Address("tcp", host="127.0.0.1", port=0)


class FakeControl:
    """A control process: what it was started with, and its end of the channel.

    Attributes:
        ticks: Whether its event loop turns.
    """

    def __init__(self, child: FakeChild, start: ControlStart) -> None:
        self.child = child
        self.ticks = True
        self.start = start
        self.channel = start.channel.dup()
        self.end = ControlEnd(self.channel)
        self.heard: list[Snapshot | Answer] = []
        child.handlers[signal.SIGTERM] = lambda child: child.exit(0)
        child.handlers[signal.SIGUSR1] = lambda child: None

    def tick(self) -> None:
        if self.ticks and self.child.code is None and not self.child.stopped:
            self.start.scoreboard.own[Cell.CONTROL_TICK] += 1

    def listen(self) -> None:
        found, _ = self.end.receive()
        self.heard += found

    def ask(self, verb: Verb, number: int, argument: int = 0) -> None:
        self.end.send(Command(verb, number, argument))

    @property
    def snapshot(self) -> Snapshot:
        return [each for each in self.heard if isinstance(each, Snapshot)][-1]

    @property
    def answers(self) -> dict[int, tuple[bool, str]]:
        return {each.number: (each.ok, each.text) for each in self.heard if isinstance(each, Answer)}


class ControlRig(Rig):
    """A master with a control process.

    Attributes:
        controls: All that were ever forked.
        slow_start: Whether their event loops do not turn yet.
    """

    def __init__(self, path: Path | None, admin: Address | None = None, **spec: float) -> None:
        address = Address("unix", name=str(path)) if path is not None else None
        super().__init__(replace(plan_of(**spec), control=ControlPlan(address, admin)))  # type: ignore[arg-type]
        self.controls: list[FakeControl] = []
        self.slow_start = False
        self.master._control = ControlPost(self.plan.control, lambda start: 0, self.host, "app:app")
        self.listening = True

    def _forked(self, child: FakeChild, main: Callable[[], int]) -> None:
        start = inspect.getclosurevars(main).nonlocals["start"]
        if isinstance(start, ControlStart):
            self.controls.append(FakeControl(child, start))
            self.controls[-1].ticks = not self.slow_start
        else:
            super()._forked(child, main)

    def _advanced(self) -> None:
        super()._advanced()
        for control in self.controls:
            control.tick()
            if self.listening:
                control.listen()

    def run_to_the_end(self, stop_after: float | None = 10.0) -> int:
        try:
            return self.run(stop_after)
        finally:
            for control in self.controls:
                control.channel.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ControlRig]:
    return ControlRig(tmp_path / "c.sock")


def test_it_is_started_beside_the_workers_and_is_none_of_them(rig: ControlRig, tmp_path: Path) -> None:
    modes: list[int] = []
    rig.later(1, lambda: modes.append(stat.S_IMODE((tmp_path / "c.sock").stat().st_mode)))
    assert rig.run_to_the_end() == 0
    (control,) = rig.controls
    assert len(rig.workers) == 2
    assert all(worker.start.watched for worker in rig.workers)
    assert modes == [0o600]
    assert control.start.owner == os.geteuid()
    assert control.start.master_pid == os.getpid()
    assert control.start.scoreboard is rig.master.scoreboard
    assert not control.start.read_only
    assert control.start.control is not None
    assert control.start.admin == []
    assert control.child.received == [signal.SIGTERM]
    assert rig.logged(f"Control process [{control.child.pid}] answers on unix socket {tmp_path}/c.sock") == 1
    assert not (tmp_path / "c.sock").exists()


def test_without_a_wish_there_is_none() -> None:
    rig = ControlRig(None)
    rig.master._control = ControlPost(None, lambda start: 0, rig.host, "app:app")
    assert rig.run() == 0
    assert rig.controls == []
    assert not any(worker.start.watched for worker in rig.workers)


def test_one_that_dies_is_started_again_later_each_time(rig: ControlRig) -> None:
    times: list[float] = []

    def die() -> None:
        if rig.controls and rig.controls[-1].child.code is None and len(times) < 4:
            times.append(rig.host.time)
            rig.controls[-1].child.exit(-9)
        rig.later(0.01, die)

    rig.later(0.01, die)
    assert rig.run_to_the_end(20) == 0
    delays = [after - before for before, after in itertools.pairwise(times)]
    assert [round(delay, 1) for delay in delays] == [0.5, 1.0, 2.0]
    assert len(rig.controls) == 5
    assert len(rig.workers) == 2
    assert rig.logged("workers are not affected") == 4


def test_without_descriptors_for_its_channel_it_is_started_later(
    rig: ControlRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([OSError(errno.EMFILE, "Too many open files")] * 2)

    def pair() -> tuple[socket.socket, socket.socket]:
        for refusal in refusals:
            raise refusal
        return channel_pair()

    monkeypatch.setattr("uvicorn.supervisor.control.channel_pair", pair)
    assert rig.run_to_the_end() == 0
    assert len(rig.controls) == 1
    assert rig.logged("The control process could not be started: Too many open files. Next start in") == 2


def test_one_that_has_lived_long_begins_anew(rig: ControlRig) -> None:
    for at in (1, 100):
        rig.later(at, lambda: rig.controls[-1].child.exit(1))
    assert rig.run_to_the_end(110) == 0
    assert rig.logged("Next start in 0.5 s") == 2


def test_one_that_somebody_has_stopped_is_replaced(rig: ControlRig) -> None:
    rig.later(30, lambda: rig.controls[0].child.deliver(signal.SIGSTOP))
    assert rig.run_to_the_end(60) == 0
    first, second = rig.controls
    assert first.child.received == [signal.SIGSTOP, signal.SIGKILL]
    assert second.child.received == [signal.SIGTERM]
    assert rig.logged(f"[{first.child.pid}] gives no sign of life for 10 s (somebody has stopped it)") == 1
    assert rig.logged("killed for its silence. Next start in 0.5 s") == 1


def test_one_that_is_stuck_is_replaced(rig: ControlRig) -> None:
    rig.later(30, lambda: setattr(rig.controls[0], "ticks", False))
    assert rig.run_to_the_end(60) == 0
    assert rig.controls[0].child.received == [signal.SIGKILL]
    assert rig.logged("(it is stuck)") == 1


def test_one_that_takes_its_time_to_begin_is_left_alone(rig: ControlRig) -> None:
    rig.slow_start = True
    rig.later(25, lambda: setattr(rig.controls[0], "ticks", True))
    assert rig.run_to_the_end(60) == 0
    assert len(rig.controls) == 1


def test_a_master_that_was_late_itself_blames_nobody(rig: ControlRig) -> None:
    def sleep() -> None:
        rig.host.time += 3600

    rig.later(30, sleep)
    assert rig.run_to_the_end(60) == 0
    assert len(rig.controls) == 1


def test_a_socket_file_that_was_removed_is_made_again(rig: ControlRig, tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    found: list[bool] = []
    rig.later(3, path.unlink)
    rig.later(6, lambda: found.append(path.is_socket()))
    assert rig.run_to_the_end() == 0
    assert found == [True]
    first, second = rig.controls
    assert first.child.received == [signal.SIGTERM]
    assert second.start.control is not None
    assert rig.logged(f"{path} is opened again") == 1
    assert rig.logged("Next start") == 0
    assert not path.exists()


def test_where_it_cannot_be_made_again_that_is_said_once(tmp_path: Path) -> None:
    directory = tmp_path / "runtime"
    directory.mkdir()
    rig = ControlRig(directory / "c.sock")

    def clean() -> None:
        (directory / "c.sock").unlink()
        directory.rmdir()

    rig.later(3, clean)
    assert rig.run_to_the_end() == 0
    assert rig.logged("The control socket's file is gone, and cannot be made again") == 1
    assert len(rig.controls) == 1


def test_a_file_that_is_somebody_elses_by_now_is_left_alone(rig: ControlRig, tmp_path: Path) -> None:
    def replace_it() -> None:
        (tmp_path / "c.sock").unlink()
        (tmp_path / "c.sock").write_text("mine")

    rig.later(3, replace_it)
    assert rig.run_to_the_end() == 0
    assert (tmp_path / "c.sock").read_text() == "mine"
    assert len(rig.controls) == 1


def test_a_fork_that_fails_is_tried_again(rig: ControlRig) -> None:
    def shortage(error: OSError | None) -> None:
        rig.host.fork_error = error

    rig.later(1, lambda: shortage(BlockingIOError(11, "Resource temporarily unavailable")))
    rig.later(1.1, lambda: rig.controls[0].child.exit(1))
    rig.later(2, lambda: shortage(None))
    assert rig.run_to_the_end(20) == 0
    assert len(rig.controls) == 2
    assert rig.logged("The control process could not be started: Resource temporarily unavailable.") == 1


def test_it_is_told_what_only_the_master_knows(rig: ControlRig) -> None:
    rig.later(3, lambda: rig.workers[0].child.exit(1))
    assert rig.run_to_the_end() == 0
    snapshots = [each for each in rig.controls[0].heard if isinstance(each, Snapshot)]
    assert not snapshots[0].ever_ready
    served = next(each for each in reversed(snapshots) if each.phase == "running")
    assert (served.title, served.generation, served.wanted, served.pid) == ("app:app", 1, 2, os.getpid())
    assert [(worker.id, worker.stage) for worker in served.workers] == [(2, "ready"), (1, "ready")]
    assert served.restarts == {"died": 1}
    assert any("died: exit code 1" in event.text for event in served.events)
    assert snapshots[-1].phase == "stopping"
    assert len(snapshots) < 30  # told of changes, not of every turn


def test_of_the_log_the_last_lines_are_kept(rig: ControlRig) -> None:
    for i in range(EVENTS_KEPT + 10):
        rig.later(2, lambda i=i: rig.master._control.note(f"line {i} " + "x" * 1000, 20))
    rig.run_to_the_end()
    last = rig.controls[0].snapshot.events
    assert len(last) == EVENTS_KEPT
    assert all(len(event.text) <= 500 for event in last)
    assert [event.number for event in last] == list(range(last[0].number, last[0].number + EVENTS_KEPT))


def test_commands_are_answered_with_what_has_happened(rig: ControlRig) -> None:
    rig.reloads = [plan_of(size=3)]
    rig.later(1, lambda: rig.controls[0].ask(Verb.SCALE, 1, 3))
    rig.later(3, lambda: rig.controls[0].ask(Verb.RESTART, 2, 1))
    rig.later(5, lambda: rig.controls[0].ask(Verb.RELOAD, 3))
    rig.later(7, lambda: rig.controls[0].ask(Verb.DUMP, 4, 9))
    rig.later(7, lambda: rig.controls[0].ask(Verb.REOPEN_LOGS, 5))
    rig.later(7.5, lambda: [worker.sender.send(Kind.REOPENED) for worker in rig.alive()] and None)
    rig.later(8, lambda: rig.controls[0].ask(Verb.STOP, 6))
    assert rig.run_to_the_end(stop_after=None) == 0
    control = rig.controls[0]
    assert {number: ok for number, (ok, _) in control.answers.items()} == {
        1: True,
        2: True,
        3: True,
        4: False,
        5: True,
        6: True,
    }
    assert control.answers[3][1] == "Reload complete: generation 2 serves with 3 worker(s)."
    assert control.child.received == [signal.SIGUSR1, signal.SIGTERM]


def test_a_worker_is_asked_where_it_is(rig: ControlRig) -> None:
    got: list[bytes] = []
    rig.later(1, lambda: rig.controls[0].ask(Verb.DUMP, 4, 2))
    rig.later(2, lambda: got.append(rig.workers[1].channel.recv(9)))
    rig.later(2.1, lambda: rig.workers[1].sender.send(Kind.ANSWER, "line 7") and None)
    rig.run_to_the_end()
    assert got == [b"?"]
    assert rig.controls[0].answers == {4: (True, "line 7")}


def test_one_that_does_not_read_is_not_waited_for(rig: ControlRig) -> None:
    rig.listening = False
    rig.reloads = [plan_of() for _ in range(200)]
    for i in range(200):
        rig.send(1 + i, signal.SIGHUP)
    rig.later(205, lambda: setattr(rig, "listening", True))
    assert rig.run_to_the_end(210) == 0
    assert rig.logged("Reload complete") == 200
    running = [
        each for each in rig.controls[0].heard if isinstance(each, Snapshot) and each.phase == "running"
    ]
    assert running[-1].generation == 201


def test_what_is_no_command_closes_the_channel_and_nothing_else(rig: ControlRig) -> None:
    rig.later(1, lambda: rig.controls[0].channel.send(b"GET / HTTP/1.1\r\n") and None)
    assert rig.run_to_the_end() == 0
    assert (len(rig.workers), len(rig.controls)) == (2, 1)


def test_one_that_does_not_leave_is_killed(rig: ControlRig) -> None:
    rig.later(1, lambda: rig.controls[0].child.handlers.update({signal.SIGTERM: lambda child: None}))
    before = rig.host.time
    assert rig.run_to_the_end(2) == 0
    assert rig.controls[0].child.received == [signal.SIGTERM, signal.SIGKILL]
    assert rig.host.time - before < 7


# --- sockets -----------------------------------------------------------------------------------


def post(plan: ControlPlan, rig: Rig) -> ControlPost:
    return ControlPost(plan, lambda start: 0, rig.host, "app:app")


def test_without_the_control_socket_the_service_starts(tmp_path: Path) -> None:
    rig = ControlRig(tmp_path / "not" / "there")
    assert rig.run_to_the_end() == 0
    assert rig.logged("No control socket: cannot bind to unix:") == 1
    assert rig.controls == []


def test_without_the_admin_address_it_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rig = ControlRig(None, Address("tcp", host="127.0.0.1", port=other.getsockname()[1]))
        with pytest.raises(BindError, match="address already in use"):
            rig.run()
    assert rig.workers == []


def test_after_an_upgrade_an_address_that_is_taken_stops_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rig = Rig()
        taken = post(ControlPlan(None, Address("tcp", host="127.0.0.1", port=other.getsockname()[1])), rig)
        with rig.logging():
            taken.open(HandedControl())
        assert rig.logged("No admin address: cannot bind to") == 1
        assert taken.deadline() == float("inf")
    rig.signals.close()


def test_answers_are_sent_before_the_next_program_takes_over() -> None:
    rig = Rig()
    old = post(ControlPlan(None, ADMIN), rig)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        old._end = MasterEnd(ours)
        old.answer(7, False, "An upgrade begins.")
        old.hand()
        assert ControlEnd(theirs).receive() == ([Answer(7, False, "An upgrade begins.")], True)
    rig.signals.close()


def test_a_channel_in_the_middle_of_a_message_is_not_handed_over() -> None:
    rig = Rig()
    old = post(ControlPlan(None, ADMIN), rig)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        old._end = MasterEnd(ours)
        assert old.hand().channel_fd == ours.fileno()
        while not old._end.is_torn:  # nobody reads
            old.answer(7, False, "x" * 10_000)
            old._end.flush()
        assert old.hand().channel_fd == -1
    rig.signals.close()


def test_what_is_handed_over_goes_on(tmp_path: Path) -> None:
    rig = Rig()
    path = Address("unix", name=str(tmp_path / "c.sock"))
    old = post(ControlPlan(path, ADMIN), rig)
    old.open()
    old.note("before", 20)
    handed = old.hand()
    inode = os.stat(path.name).st_ino
    rig.host.time += 100
    copies = [{**each, "fd": os.dup(each["fd"])} for each in handed.listeners]
    new = post(ControlPlan(path, None), rig)
    new.take(replace(handed, listeners=copies))
    new.open(taken=True)
    new.note("after", 20)
    again = new.hand()
    assert [(event["number"], event["text"]) for event in again.events] == [(1, "before"), (2, "after")]
    assert again.since == handed.since
    assert [each["address"]["kind"] for each in again.listeners] == [
        "unix"
    ]  # the other is not wanted any more
    assert os.stat(path.name).st_ino == inode
    new.end()
    assert not os.path.exists(path.name)
    old.end()
    rig.signals.close()


def test_the_old_process_stays_until_it_has_told_the_outcome(tmp_path: Path) -> None:
    rig = ControlRig(tmp_path / "c.sock")
    control = rig.master._control
    old = rig.host._new_child()
    old.handlers[signal.SIGTERM] = lambda child: child.exit(0)
    control.take(HandedControl(pid=old.pid))
    control.open(taken=True)
    board = Scoreboard()
    state = rig.master._machine.state
    state.rolling = True
    control.work(state, board, lambda: None, UNCHANGED)
    assert old.received == []
    state.rolling = False
    control.work(state, board, lambda: None, UNCHANGED)
    assert old.received == [signal.SIGTERM]
    assert len(rig.controls) == 1
    assert control.reaped(ChildExit(old.pid, 0))
    control.work(state, board, lambda: None, UNCHANGED)
    assert len(rig.controls) == 1
    assert not control.reaped(ChildExit(1, 0))
    os.close(board.fd)
    control.end()
    rig.controls[0].channel.close()
    rig.signals.close()


def test_every_verb_is_an_event() -> None:
    found = [event_of(Command(verb, 7, 3)) for verb in Verb]
    assert found == [
        events.ReloadRequested(7),
        events.ResizeRequested(3, 7),
        events.RestartRequested(3, 7),
        events.DumpRequested(3, 7),
        events.ReopenRequested(7),
        events.UpgradeRequested(7),
        events.StopRequested("STOP", 7),
    ]


def test_every_reason_that_is_counted_has_its_name() -> None:
    """Whoever counts a new one names it in `RESTART_REASONS`, so that its metric is there before it first happens."""
    counted: set[str] = set()
    for module in (settle, stages):
        text = inspect.getsource(module)
        for call in re.findall(r"ledger\.count\((.*)\)\n", text):
            counted |= set(re.findall(r'"([a-z_]+)"', call))
    counted |= set(re.findall(r'"([a-z_]+)"', inspect.getsource(settle._why_replaced)))
    counted |= set(re.findall(r'f"(limit_[a-z_]+): ', inspect.getsource(limits) + inspect.getsource(runtime)))
    assert counted == set(RESTART_REASONS)
