"""A number that was a worker's, and is somebody else's by now: no signal may reach that one.

In a PID namespace, whose process 1 gives out the numbers (init.py). Only what has no process and no process group any more can
be taken, so the master is stopped at the moment that counts.
"""

from __future__ import annotations

import contextlib
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, PATIENCE, Service, wait_for
from tests.e2e.test_containers import NAMESPACE, in_namespace
from tests.inject.lives import usable

LEAVE_BEHIND = """
import signal

children = []

async def leave_behind(scope, receive, send):
    if not children:
        reader, writer = os.pipe()
        children.append(os.fork())
        if not children[0]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"!")
            while True:
                time.sleep(1000)
        os.read(reader, 1)
    await answer(send, f"{os.getpid()} {children[0]}".encode())

ROUTES["/leave-behind"] = leave_behind
"""


class Namespace(Service):
    """A service in a PID namespace, beside whoever takes its numbers."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(PATIENCE)
        self._said = ""
        (directory / "app.py").write_text(APP + LEAVE_BEHIND)
        through = (*NAMESPACE, sys.executable, "-m", "tests.e2e.init", str(theirs.fileno()))
        super().__init__(directory, *arguments, through=through, pass_fds=[theirs.fileno()])
        theirs.close()

    def __exit__(self, *failure: object) -> None:
        self._channel.close()
        super().__exit__(*failure)

    @property
    def master(self) -> psutil.Process:
        """As it is seen from outside."""
        self.wait_log("Started parent process")
        (init,) = psutil.Process(self.pid).children()
        return next(each for each in init.children() if "master" in " ".join(each.cmdline()))

    def outside(self, number: int) -> psutil.Process | None:
        """The process that has this number inside."""
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(OSError, psutil.Error):
                status = Path(f"/proc/{process.pid}/status").read_text()
                if re.search(rf"^NSpid:.*\t{number}$", status, re.MULTILINE):
                    return process
        return None

    def hear(self, pattern: str) -> None:
        """Wait until process 1 or a stranger has said it."""
        while not re.search(pattern, self._said):
            data = self._channel.recv(1000)
            assert data, f"{pattern!r} is never said: {self._said!r}"
            self._said += data.decode()

    def take(self, number: int) -> None:
        """Give the number to a stranger."""
        self._channel.send(f"take {number}\n".encode())
        self.hear(rf"taken {number}\n")

    def expect_untouched(self, number: int) -> None:
        """The stranger is there, and no signal has reached it."""
        if select.select([self._channel], [], [], 0)[0]:
            self._said += self._channel.recv(1000).decode()
        assert f"{number} got" not in self._said
        assert f"{number} ended" not in self._said
        assert self.outside(number) is not None


def state_of(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: state_of(process) == "T", "a master that stands still")


@contextlib.contextmanager
def stopped_when_it_has_reaped(process: psutil.Process) -> Iterator[None]:
    """The next time that the process asks for children that have ended, it is stopped behind that call."""
    strace = subprocess.Popen(
        [
            *("strace", "-q", "-p", str(process.pid), "-o", "/dev/null"),
            *("-e", "trace=wait4", "-e", "inject=wait4:signal=SIGSTOP:when=1"),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        tracer = re.compile(rf"TracerPid:\s+{strace.pid}\b")
        status = Path(f"/proc/{process.pid}/status")
        wait_for(lambda: strace.poll() is not None or tracer.search(status.read_text()), "strace")
        yield
    finally:
        strace.terminate()
        strace.wait()


needs_strace = pytest.mark.skipif(bool(usable()), reason=usable() or "strace is there")


@in_namespace
@needs_strace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_number_that_was_just_reaped_gets_no_signal(tmp_path: Path, number: signal.Signals) -> None:
    with Namespace(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        master = service.master
        victim = service.serving_pid()
        dead = service.outside(victim)
        assert dead is not None
        stop(master)
        dead.kill()
        # What it hears first is to be told to all workers, when one of them is reaped, and it does not know yet.
        master.send_signal(number)
        master.send_signal(signal.SIGINT)
        with stopped_when_it_has_reaped(master):
            master.send_signal(signal.SIGCONT)
            wait_for(lambda: not dead.is_running(), "a worker that is reaped")
            service.take(victim)
            wait_for(lambda: state_of(master) in "tT", "a master that stands still")
            master.send_signal(signal.SIGCONT)
            service.hear("left 0\n")
        service.expect_untouched(victim)


@in_namespace
def test_a_group_of_that_number_is_not_ended_for_what_was_left_behind_in_another(tmp_path: Path) -> None:
    with Namespace(tmp_path, "--port", "0", "--workers", "8") as service:
        service.wait_ready(8)
        master = service.master
        left: dict[int, int] = {}

        def found() -> bool:
            worker, child = map(int, service.request("/leave-behind").body.split())
            left[worker] = child
            return len(left) >= 4

        wait_for(found, "workers that have children")
        taken = 0
        for worker, child in list(left.items())[:3]:
            kill(service, worker)
            service.wait_log(rf"\[{worker}\] has left processes behind: terminated")
            stop(master)
            # On a machine that was too slow it was killed before the master was stopped: then the next one.
            if service.outside(child) is not None:
                kill(service, child)
                service.hear(rf"\b{child} ended -9\n")
                service.take(worker)
                taken = worker
                break
            master.send_signal(signal.SIGCONT)
        assert taken, "every one of them was ended within a moment"
        master.send_signal(signal.SIGCONT)
        # The time of the next one's child is over later than that of the group whose number is another's.
        last = next(each for each in reversed(left) if each != taken)
        kill(service, last)
        service.hear(rf"\b{left[last]} ended -9\n")
        service.expect_untouched(taken)
        master.terminate()
        service.hear("left 0\n")
        service.expect_untouched(taken)


def kill(service: Namespace, number: int) -> None:
    process = service.outside(number)
    assert process is not None
    process.kill()
