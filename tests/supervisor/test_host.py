"""The real host, beyond what it has in common with the fake one."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from uvicorn.supervisor.host import ChildExit, PosixHost

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork()"),
    # What is forked here has nothing to do with the threads of the test runner.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def exit_code(child: Callable[[], int]) -> int:
    """What becomes of a child that runs this."""
    host = PosixHost()
    pid = host.fork(child)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (gone,) = host.reap()
    assert gone.pid == pid
    return gone.code


# --- fork --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "result"), [(256, 0), (259, 3), (-1, 255), (2**40 + 5, 5), (True, 1)])
def test_of_an_exit_code_the_last_eight_bits_count(code: int, result: int) -> None:
    assert exit_code(lambda: code) == result


@pytest.mark.parametrize(("code", "result"), [(None, 0), (0, 0), (4, 4), (-1, 255), ("a text", 1)])
def test_a_child_may_leave_by_system_exit(code: object, result: int) -> None:
    def child() -> int:
        raise SystemExit(code)

    assert exit_code(child) == result


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_a_child_that_raises_ends_with_code_1_and_nothing_of_the_master_runs_on(
    exception: type[BaseException],
) -> None:
    def child() -> int:
        raise exception("in the child")

    assert exit_code(child) == 1


def test_a_child_whose_result_is_no_number_ends_with_code_1() -> None:
    assert exit_code(lambda: None) == 1  # type: ignore[arg-type,return-value]


def test_no_signal_is_lost_before_the_child_has_handlers() -> None:
    def child() -> int:
        while signal.SIGTERM not in signal.sigpending():
            os.sched_yield()
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return 0

    host = PosixHost()
    pid = host.fork(child)
    host.signal(pid, signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert host.reap() == [ChildExit(pid, 7)]


def test_a_fork_leaves_the_masters_signal_mask_as_it_was() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        exit_code(lambda: 0)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_fork_that_fails_raises_and_leaves_the_masters_signal_mask_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fails)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="temporarily unavailable"):
        PosixHost().fork(lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


class Broken:
    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, Broken()])
def test_processes_are_made_also_where_there_is_no_output(
    stream: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert exit_code(lambda: 3) == 3


def test_what_is_buffered_is_written_once() -> None:
    script = (
        "import os, sys; from uvicorn.supervisor.host import PosixHost\n"
        "sys.stdout.write('before ')\n"
        "pid = PosixHost().fork(lambda: sys.stdout.write('child ') * 0)\n"
        "os.waitpid(pid, 0); print('after')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "before child after\n"


# --- other programs ----------------------------------------------------------------------------


def test_a_program_gets_its_environment_and_no_blocked_signals() -> None:
    script = (
        "import os, signal, sys\n"
        "blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "sys.exit(0 if os.environ.get('NAME') == 'value' and not blocked and os.getpgrp() == os.getpid() else 1)"
    )
    host = PosixHost()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        pid = host.start_program([sys.executable, "-c", script], {"NAME": "value"})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert host.reap() == [ChildExit(pid, 0)]


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        PosixHost().start_program(["/no/such/program"], {})
    with pytest.raises(OSError, match="No such file"):
        PosixHost().exec_program(["/no/such/program"], {}, [])


def test_an_exec_that_fails_leaves_descriptors_as_they_were() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        with pytest.raises(OSError, match="No such file"):
            PosixHost().exec_program(["/no/such/program"], {}, [reader, writer])
        assert [os.get_inheritable(fd) for fd in (reader, writer)] == [False, True]
    finally:
        os.close(reader)
        os.close(writer)


def test_an_exec_keeps_the_process_and_the_descriptors_that_it_is_told_to() -> None:
    reader, writer = os.pipe()
    other_reader, other_writer = os.pipe()
    script = (
        "import os, sys\n"
        "os.write(int(sys.argv[1]), str(os.getpid()).encode())\n"
        "try: os.fstat(int(sys.argv[2]))\n"
        "except OSError: sys.exit(9)"
    )
    command = [sys.executable, "-c", script, str(writer), str(other_writer)]
    host = PosixHost()
    pid = host.fork(lambda: host.exec_program(command, dict(os.environ), [writer]))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert host.reap() == [ChildExit(pid, 9)]
    assert os.read(reader, 100) == str(pid).encode()
    for fd in (reader, writer, other_reader, other_writer):
        os.close(fd)


# --- processes ---------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by /proc")
def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    """The name in brackets in /proc/PID/stat may look like what follows it."""
    ready = tmp_path / "ready"
    name = b") T (x) R 1"

    def child() -> int:
        Path("/proc/self/comm").write_bytes(name)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), signal.SIGSTOP)
        ready.touch()
        return 0

    host = PosixHost()
    pid = host.fork(child)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    assert host.is_stopped(pid)
    host.signal(pid, signal.SIGCONT)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not host.is_stopped(pid)  # ended, but not reaped
    assert host.reap() == [ChildExit(pid, 0)]
    assert ready.exists()


class _NoMemory:
    """A poll object of a system that has no memory for it."""

    def register(self, fd: int, events: int) -> None:
        pass

    def poll(self, timeout: int | None) -> list[tuple[int, int]]:
        raise OSError(errno.ENOMEM, "no memory")


def test_a_wait_that_the_system_has_no_memory_for_looks_at_everything_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(select, "poll", _NoMemory)
    began = time.monotonic()
    assert PosixHost().wait([3, 4], None) == [3, 4]
    assert PosixHost().wait([3, 4], 0.0) == [3, 4]
    assert 0.1 <= time.monotonic() - began < 10


def test_a_process_that_may_not_be_signalled_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    PosixHost().signal(1, signal.SIGTERM)
