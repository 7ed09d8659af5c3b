"""An operating system for the master: a clock that is moved by waiting, and processes that do as they are told."""

from __future__ import annotations

import heapq
import itertools
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from uvicorn.supervisor.host import ChildExit

# What these do to a process that does not care is nothing.
_HARMLESS = frozenset((0, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT))

Handler = Callable[["FakeChild"], None]


def ignore(child: FakeChild) -> None:
    """A handler that does nothing."""


class FakeChild:
    """A process.

    Attributes:
        received: The signals that it was sent.
        handlers: What it does on a signal; without one it dies of it, if processes do.
        companions: How many other processes there are in its process group.
        stubborn: Whether those ignore everything but SIGKILL.
        code: Its exit code; None while it runs.
        stopped: Whether somebody has stopped it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.received: list[int] = []
        self.handlers: dict[int, Handler] = {}
        self.companions = 0
        self.stubborn = False
        self.code: int | None = None
        self.stopped = False
        self._pending: list[int] = []

    def exit(self, code: int) -> None:
        if self.code is None:
            self.code = code

    def deliver(self, number: int) -> None:
        self.received.append(number)
        if self.code is not None:
            return
        if number == signal.SIGSTOP:
            self.stopped = True
        elif number == signal.SIGCONT:
            self.stopped = False
            pending, self._pending = self._pending, []
            for each in pending:
                self._act(each)
        elif self.stopped and number != signal.SIGKILL:
            self._pending.append(number)
        else:
            self._act(number)

    def _act(self, number: int) -> None:
        handler = self.handlers.get(number) if number != signal.SIGKILL else None
        if self.code is not None:
            return
        if handler is not None:
            handler(self)
        elif number not in _HARMLESS:
            self.exit(-number)

    def deliver_to_companions(self, number: int) -> None:
        if number == signal.SIGKILL or (not self.stubborn and number not in _HARMLESS):
            self.companions = 0


class Replaced(BaseException):
    """The process has become another program: nothing of the old one runs any more."""


class FakeHost:
    """Implements `uvicorn.supervisor.host.Host`.

    Attributes:
        time: The clock.
        children: All processes that have not been reaped, by pid.
        groups: All processes ever started, by pid: their process groups may outlive them.
        on_fork: Called with a new process and what is to run in it.
        on_start: Called with a process that was started as another program.
        fork_error, start_error, exec_error: What goes wrong.
        programs: The command lines and environments of programs started.
        execs: The same of programs become, with the descriptors kept.
        strangers: The pids that are those of processes that are no children of ours.
        kills: How many processes were killed for lack of memory.
        headroom: Whether there is memory for one more worker.
        adopts: Whether orphans can be adopted.
        on_exec: Called with what the process becomes.
        on_advance: Called whenever time has passed.
        waits: The time-outs of all waits.
        end: When it is too late for whatever was to happen.
    """

    def __init__(self) -> None:
        self.time = 1000.0
        self.children: dict[int, FakeChild] = {}
        self.groups: dict[int, FakeChild] = {}
        self.on_fork: Callable[[FakeChild, Callable[[], int]], None] = lambda child, main: None
        self.on_start: Callable[[FakeChild], None] = lambda child: None
        self.fork_error: OSError | None = None
        self.start_error: OSError | None = None
        self.exec_error: OSError | None = None
        self.programs: list[tuple[list[str], dict[str, str]]] = []
        self.execs: list[tuple[list[str], dict[str, str], list[int]]] = []
        self.strangers: set[int] = set()
        self.kills = 0
        self.headroom = True
        self.adopts = True
        self.on_exec: Callable[[Mapping[str, str], Sequence[int]], None] = lambda environ, fds: None
        self.on_advance: Callable[[], None] = lambda: None
        self.waits: list[float | None] = []
        self.end = self.time + 3600
        self._pids = itertools.count(50_000)
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Let something happen while the master waits."""
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), callback))

    def _new_child(self) -> FakeChild:
        child = FakeChild(next(self._pids))
        self.children[child.pid] = self.groups[child.pid] = child
        return child

    # --- the host ----------------------------------------------------------------------------

    def now(self) -> float:
        return self.time

    def random(self) -> float:
        return 0.5

    def fork(self, child: Callable[[], int]) -> int:
        if self.fork_error is not None:
            raise self.fork_error
        fake = self._new_child()
        self.on_fork(fake, child)
        return fake.pid

    def adopts_orphans(self) -> bool:
        return self.adopts

    def start_program(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        if self.start_error is not None:
            raise self.start_error
        self.programs.append((list(argv), dict(environ)))
        fake = self._new_child()
        self.on_start(fake)
        return fake.pid

    def exec_program(
        self, argv: Sequence[str], environ: Mapping[str, str], keep_fds: Sequence[int]
    ) -> NoReturn:
        if self.exec_error is not None:
            raise self.exec_error
        self.execs.append((list(argv), dict(environ), list(keep_fds)))
        self.on_exec(environ, keep_fds)
        raise Replaced

    def signal(self, pid: int, number: int) -> None:
        assert pid in self.children, f"signal {number} to {pid}, which is no child of ours (any more)"
        self.children[pid].deliver(number)

    def signal_group(self, pid: int, number: int) -> bool:
        assert pid in self.groups, f"signal {number} to the group of {pid}, which never was"
        assert pid not in self.strangers, f"signal {number} to the group of {pid}, which is somebody else's"
        group = self.groups[pid]
        found = pid in self.children or group.companions > 0
        if pid in self.children:
            group.deliver(number)
        group.deliver_to_companions(number)
        return found

    def has_process(self, pid: int) -> bool:
        return pid in self.children or pid in self.strangers

    def reap(self) -> list[ChildExit]:
        gone = [
            ChildExit(child.pid, child.code) for child in self.children.values() if child.code is not None
        ]
        for each in gone:
            del self.children[each.pid]
        return gone

    def is_stopped(self, pid: int) -> bool:
        return pid in self.children and self.children[pid].stopped

    def oom_kills(self) -> int:
        return self.kills

    def has_headroom(self, need: int) -> bool:
        return self.headroom

    def wait(self, fds: Sequence[int], timeout: float | None) -> list[int]:
        """As the real one: until something is readable, a child has ended, or the time is over."""
        self.waits.append(timeout)
        end = float("inf") if timeout is None else self.time + timeout
        while True:
            readable, _, _ = select.select(fds, [], [], 0)
            if readable or any(child.code is not None for child in self.children.values()):
                return [fd for fd in fds if fd in readable]
            if self._timers and self._timers[0][0] <= end:
                at, _, callback = heapq.heappop(self._timers)
                self._advance(max(self.time, at))
                callback()
                continue
            assert end != float("inf"), "nothing will ever happen"
            self._advance(end)
            return []

    def _advance(self, time: float) -> None:
        assert time < self.end, "too late"
        self.time = time
        self.on_advance()
