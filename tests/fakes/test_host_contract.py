"""What every host has to do: the same tests on the fake one and on the real one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.host import FakeChild, FakeHost, ignore
from uvicorn.supervisor.host import ChildExit, Host, PosixHost

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork()"),
    # What is forked here has nothing to do with the threads of the test runner.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class FakeWorld:
    """Starts processes on the fake host."""

    host: Host

    def __init__(self) -> None:
        self.host = self.fake = FakeHost()

    def _start(self, behaviour: Callable[[FakeChild], None]) -> int:
        self.fake.on_fork = lambda child, main: behaviour(child)
        return self.fake.fork(lambda: 0)

    def exits(self, code: int) -> int:
        return self._start(lambda child: child.exit(code))

    def waits(self) -> int:
        return self._start(lambda child: None)

    def ignores_term(self) -> int:
        return self._start(lambda child: child.handlers.update({signal.SIGTERM: ignore}))

    def leaves_a_child_behind(self) -> int:
        def behave(child: FakeChild) -> None:
            child.companions = 1
            child.exit(0)

        return self._start(behave)

    def program(self, code: int) -> int:
        self.fake.on_start = lambda child: child.exit(code)
        return self.host.start_program(["/bin/sh", "-c", f"exit {code}"], {})

    def wait_ended(self, pid: int) -> None:
        assert self.fake.children[pid].code is not None

    def wait_stopped(self, pid: int) -> None:
        assert self.fake.children[pid].stopped


class RealWorld:
    """Starts real processes."""

    host: Host

    def __init__(self) -> None:
        self.host = PosixHost()
        self.pids: list[int] = []

    def _start(self, child: Callable[[], int]) -> int:
        pid = self.host.fork(child)
        self.pids.append(pid)
        return pid

    def exits(self, code: int) -> int:
        return self._start(lambda: code)

    def waits(self) -> int:
        return self._start(_pause)

    def ignores_term(self) -> int:
        reader, writer = os.pipe()

        def child() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"!")
            return _pause()

        pid = self._start(child)
        os.read(reader, 1)
        os.close(reader)
        os.close(writer)
        return pid

    def leaves_a_child_behind(self) -> int:
        def child() -> int:
            if os.fork() == 0:
                _pause()
            return 0

        return self._start(child)

    def program(self, code: int) -> int:
        pid = self.host.start_program(["/bin/sh", "-c", f"exit {code}"], {})
        self.pids.append(pid)
        return pid

    def wait_ended(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def wait_stopped(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)

    def end(self) -> None:
        for pid in self.pids:
            self.host.signal_group(pid, signal.SIGKILL)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def _pause() -> int:
    """Be there until a signal ends it."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:
        signal.pause()


World = FakeWorld | RealWorld


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    real = RealWorld()
    yield real
    real.end()


def ended(world: World, pid: int) -> list[ChildExit]:
    world.wait_ended(pid)
    return world.host.reap()


def test_the_clock_never_goes_back(world: World) -> None:
    first = world.host.now()
    assert world.host.now() >= first


def test_random_numbers_are_between_0_and_1(world: World) -> None:
    assert all(0 <= world.host.random() < 1 for _ in range(100))


def test_without_children_there_is_nothing_to_reap(world: World) -> None:
    assert world.host.reap() == []


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_a_child_is_reaped_once_with_its_exit_code(world: World, code: int) -> None:
    pid = world.exits(code)
    assert ended(world, pid) == [ChildExit(pid, code)]
    assert world.host.reap() == []


def test_a_child_that_runs_is_not_reaped(world: World) -> None:
    world.waits()
    assert world.host.reap() == []


def test_all_children_that_have_ended_are_reaped(world: World) -> None:
    first, second = world.exits(1), world.exits(2)
    world.wait_ended(first)
    world.wait_ended(second)
    assert sorted(world.host.reap(), key=lambda gone: gone.code) == [
        ChildExit(first, 1),
        ChildExit(second, 2),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_child_that_is_killed_is_reaped_with_minus_the_signal(world: World, number: signal.Signals) -> None:
    pid = world.waits()
    world.host.signal(pid, number)
    assert ended(world, pid) == [ChildExit(pid, -number)]


def test_a_signal_to_a_child_that_has_ended_does_nothing(world: World) -> None:
    pid = world.exits(3)
    world.wait_ended(pid)
    world.host.signal(pid, signal.SIGKILL)
    assert world.host.reap() == [ChildExit(pid, 3)]


def test_a_child_can_ignore_a_signal_but_not_sigkill(world: World) -> None:
    pid = world.ignores_term()
    world.host.signal(pid, signal.SIGTERM)
    world.host.signal(pid, signal.SIGKILL)
    assert ended(world, pid) == [ChildExit(pid, -signal.SIGKILL)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by /proc")
def test_a_stopped_child_is_seen_and_goes_on(world: World) -> None:
    pid = world.waits()
    assert not world.host.is_stopped(pid)
    world.host.signal(pid, signal.SIGSTOP)
    world.wait_stopped(pid)
    assert world.host.is_stopped(pid)
    world.host.signal(pid, signal.SIGTERM)
    world.host.signal(pid, signal.SIGCONT)
    assert ended(world, pid) == [ChildExit(pid, -signal.SIGTERM)]


def test_a_stopped_child_can_be_killed(world: World) -> None:
    pid = world.waits()
    world.host.signal(pid, signal.SIGSTOP)
    world.wait_stopped(pid)
    world.host.signal(pid, signal.SIGKILL)
    assert ended(world, pid) == [ChildExit(pid, -signal.SIGKILL)]


def test_a_process_is_there_until_it_is_reaped(world: World) -> None:
    pid = world.exits(0)
    world.wait_ended(pid)
    assert world.host.has_process(pid)
    world.host.reap()
    assert not world.host.has_process(pid)


def test_a_child_that_was_reaped_is_not_stopped(world: World) -> None:
    pid = world.exits(0)
    ended(world, pid)
    assert not world.host.is_stopped(pid)


def test_a_child_has_a_process_group_of_its_own(world: World) -> None:
    pid = world.waits()
    assert world.host.signal_group(pid, signal.SIGKILL)
    assert ended(world, pid) == [ChildExit(pid, -signal.SIGKILL)]


def test_a_group_is_gone_with_its_last_process(world: World) -> None:
    pid = world.exits(0)
    ended(world, pid)
    assert not world.host.signal_group(pid, signal.SIGTERM)
    assert not world.host.signal_group(pid, 0)


def test_a_group_outlives_the_child_that_leads_it(world: World) -> None:
    pid = world.leaves_a_child_behind()
    ended(world, pid)
    assert world.host.signal_group(pid, 0)
    assert world.host.signal_group(pid, signal.SIGKILL)


def test_a_program_is_started_and_reaped(world: World) -> None:
    pid = world.program(7)
    assert ended(world, pid) == [ChildExit(pid, 7)]


def test_wait_returns_what_is_readable(world: World) -> None:
    reader, writer = os.pipe()
    other_reader, other_writer = os.pipe()
    os.write(writer, b"!")
    try:
        assert world.host.wait([other_reader, reader], 60) == [reader]
        assert world.host.wait([other_reader], 0.001) == []
        os.close(other_writer)
        assert world.host.wait([other_reader], 60) == [other_reader]  # the end of the file
    finally:
        for fd in (reader, writer, other_reader):
            os.close(fd)


def test_wait_lets_the_time_pass(world: World) -> None:
    before = world.host.now()
    assert world.host.wait([], 0.002) == []
    assert world.host.now() >= before + 0.002


def test_memory_is_told(world: World) -> None:
    assert world.host.oom_kills() >= 0
    assert world.host.has_headroom(0) in (True, False)
