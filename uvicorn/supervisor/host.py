"""The seam to the operating system: everything the master does to processes, and the clock.

`Host` says what there is, `PosixHost` does it. Tests put another host in its place; the same contract tests run on
both.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from uvicorn._compat import adopt_orphans
from uvicorn._forks import fork
from uvicorn._kernel import SHORTAGE_PAUSE
from uvicorn.supervisor.cgroup import MemoryGroup


@dataclass(frozen=True, slots=True)
class ChildExit:
    """A reaped child: exit code, or minus the signal's number."""

    pid: int
    code: int


class Host(Protocol):
    """What the master needs of a system."""

    def now(self) -> float:
        """Monotonic seconds."""

    def random(self) -> float:
        """A number between 0 and 1."""

    def fork(self, child: Callable[[], int]) -> int:
        """Run `child` in a new process, in a process group of its own; its result is the exit code.

        Raises:
            OSError: No process could be made.
        """

    def adopts_orphans(self) -> bool:
        """See to it that descendants whose parent ends become our children; False where the system cannot do that."""

    def start_program(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        """Start another program; return its pid.

        Raises:
            OSError: It could not be started.
        """

    def exec_program(
        self, argv: Sequence[str], environ: Mapping[str, str], keep_fds: Sequence[int]
    ) -> NoReturn:
        """Become another program, with these descriptors open.

        Raises:
            OSError: It could not be done.
        """

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a child that has not been reaped."""

    def signal_group(self, pid: int, number: int) -> bool:
        """Send a signal to a child's process group; False where there is nobody in it."""

    def has_process(self, pid: int) -> bool:
        """Whether there is a process of this number, also one that has not been reaped or is nobody of ours."""

    def reap(self) -> list[ChildExit]:
        """All children that have ended since the last call."""

    def is_stopped(self, pid: int) -> bool:
        """Whether somebody has stopped the process."""

    def oom_kills(self) -> int:
        """How many processes of our cgroup the kernel has killed for lack of memory so far."""

    def has_headroom(self, need: int) -> bool:
        """Whether the cgroup has memory for one more worker, of so many bytes."""

    def wait(self, fds: Sequence[int], timeout: float | None) -> list[int]:
        """Wait until one of the descriptors is readable, or for the time; return those that are."""


class PosixHost:
    """The real one."""

    def __init__(self, memory: MemoryGroup | None = None) -> None:
        self._memory = memory or MemoryGroup()

    def now(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return int.from_bytes(os.urandom(4), "big") / 2**32

    def fork(self, child: Callable[[], int]) -> int:
        return fork(child)

    def adopts_orphans(self) -> bool:
        return adopt_orphans()

    def start_program(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        return os.posix_spawn(argv[0], list(argv), dict(environ), setpgroup=0, setsigmask=())

    def exec_program(
        self, argv: Sequence[str], environ: Mapping[str, str], keep_fds: Sequence[int]
    ) -> NoReturn:
        inheritable = {fd: os.get_inheritable(fd) for fd in keep_fds}
        for fd in keep_fds:
            os.set_inheritable(fd, True)
        try:
            os.execve(argv[0], list(argv), dict(environ))  # noqa: S606 - our own command line
        finally:
            for fd, before in inheritable.items():
                os.set_inheritable(fd, before)

    def signal(self, pid: int, number: int) -> None:
        # One that has become somebody else's may not be signalled (kill(2)): as if it did not listen.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)

    def signal_group(self, pid: int, number: int) -> bool:
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def has_process(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def reap(self) -> list[ChildExit]:
        gone: list[ChildExit] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return gone
            if pid == 0:
                return gone
            gone.append(ChildExit(pid, os.waitstatus_to_exitcode(status)))

    def is_stopped(self, pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return False
        # The name in brackets may hold anything; the state follows the last bracket (proc(5)).
        return stat[stat.rindex(b")") + 2 :][:1] in (b"T", b"t")

    def oom_kills(self) -> int:
        return self._memory.oom_kills()

    def has_headroom(self, need: int) -> bool:
        return self._memory.has_room(need)

    def wait(self, fds: Sequence[int], timeout: float | None) -> list[int]:
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        # Rounded up: to wake up a fraction too early would be to wake up twice.
        milliseconds = None if timeout is None else max(0, int(timeout * 1000) + 1)
        try:
            return [fd for fd, _ in poll.poll(milliseconds)]
        except OSError:
            # The system has no memory for it. No descriptor of the master's ever blocks: after a moment it looks at all.
            select.select((), (), (), SHORTAGE_PAUSE if timeout is None else min(timeout, SHORTAGE_PAUSE))
            return list(fds)
