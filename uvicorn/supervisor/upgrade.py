"""The master's state across an exec: what the new program needs to go on where the old one stopped.

The process id stays, and with it the children, the sockets and the scoreboard; only the program changes. What the old
one knows travels as JSON in a file without a name, whose descriptor is in the environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from uvicorn._addresses import Address
from uvicorn._closing import close_quietly
from uvicorn._ipc.control import Outcome
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn._listener import Listener
from uvicorn._pidfile import PidFile
from uvicorn.supervisor import events
from uvicorn.supervisor.asked import Ledger
from uvicorn.supervisor.events import Event, PoolSpec
from uvicorn.supervisor.host import Host
from uvicorn.supervisor.listeners import Key, ListenerSet
from uvicorn.supervisor.pool import NEVER, Mold, Stage, Worker
from uvicorn.supervisor.state import MOLD_GRACE, State

# The environment variable with the descriptor, and the one that marks a trial.
HANDOVER_FD = "UVICORN_HANDOVER_FD"
TRIAL = "UVICORN_UPGRADE_TRIAL"

# Counted up when the content changes, or the layout of the scoreboard: a program that does not know the number adopts
# nothing. The trial is told it, so that such a program never takes over.
VERSION = 6

logger = logging.getLogger("uvicorn.error")

# A program that could not take over tries again after this many seconds.
RETRY_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class HandedWorker:
    """One worker as it is handed over.

    Attributes:
        spec: The settings it was started with.
        row: Its row of the scoreboard.
        channel_fd: Our end of its channel; -1 where it is closed.
        channel_rest: Half a message that was read from it, in hexadecimal digits.
        listener_fds: The listeners it accepts on; -1 for one that we have closed.
    """

    wid: int
    slot: int
    generation: int
    pid: int
    stage: str
    since: float
    deadline: float | None
    ready_at: float | None
    spec: PoolSpec
    row: int
    channel_fd: int
    listener_fds: list[int]
    channel_rest: str = ""


@dataclass(frozen=True, slots=True)
class HandedListener:
    """One listening socket as it is handed over."""

    address: dict[str, Any]
    slot: int
    fd: int
    ours: bool
    inode: list[int] | None


@dataclass(frozen=True, slots=True)
class HandedControl:
    """The control process as it is handed over.

    Attributes:
        pid: The process that runs, or 0.
        channel_fd: Our end of its channel, or -1.
        listeners: Address, descriptor and inode of each socket.
        events: The last log lines.
        since: When the service began; None where nobody says.
    """

    pid: int = 0
    channel_fd: int = -1
    listeners: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    since: float | None = None

    def descriptors(self) -> list[int]:
        own = [self.channel_fd] if self.channel_fd >= 0 else []
        return own + [each["fd"] for each in self.listeners]


@dataclass(frozen=True, slots=True)
class HandedPidFile:
    """The pid file and the descriptor that locks it."""

    path: str
    fd: int


@dataclass(frozen=True, slots=True)
class Handover:
    """All that is handed over.

    Attributes:
        generation: The last one that was used.
        size: How many workers were wanted.
        scoreboard_fd: The shared memory.
        control: The control process.
        molds: Their pids. They end with their channels: the next program needs one of its own.
        asked: Who waits for the outcome of this upgrade.
        reasons, outcomes: What there is to tell of restarts, reloads and upgrades before.
        pid_file: The pid file; None where there is none.
    """

    generation: int
    size: int
    scoreboard_fd: int
    workers: list[HandedWorker] = field(default_factory=list)
    listeners: list[HandedListener] = field(default_factory=list)
    control: HandedControl = field(default_factory=HandedControl)
    molds: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pid_file: HandedPidFile | None = None
    version: int = VERSION

    def descriptors(self) -> list[int]:
        """Everything that has to stay open."""
        return [
            self.scoreboard_fd,
            *(worker.channel_fd for worker in self.workers if worker.channel_fd >= 0),
            *(listener.fd for listener in self.listeners),
            *self.control.descriptors(),
            *([self.pid_file.fd] if self.pid_file is not None else []),
        ]

    def addresses(self) -> list[Address]:
        """Those of the listeners."""
        return [Address(**each.address) for each in self.listeners]

    def ledger(self) -> Ledger:
        """What was asked for and is still owed."""
        waiting = {"upgrade": list(self.asked)} if self.asked else {}
        return Ledger(waiting, reasons=self.reasons, outcomes=self.outcomes)


def hand_worker(
    worker: Worker, row: int, channel_fd: int, listener_fds: list[int], channel_rest: bytes = b""
) -> HandedWorker:
    assert worker.pid is not None
    deadline = None if worker.deadline == NEVER else worker.deadline
    return HandedWorker(
        worker.wid,
        worker.slot,
        worker.generation,
        worker.pid,
        worker.stage.value,
        worker.since,
        deadline,
        worker.ready_at,
        worker.spec,
        row,
        channel_fd,
        listener_fds,
        channel_rest.hex(),
    )


def take_worker(handed: HandedWorker) -> Worker:
    return Worker(
        wid=handed.wid,
        slot=handed.slot,
        generation=handed.generation,
        stage=Stage(handed.stage),
        since=handed.since,
        spec=handed.spec,
        deadline=NEVER if handed.deadline is None else handed.deadline,
        pid=handed.pid,
        ready_at=handed.ready_at,
    )


def take_molds(handover: Handover, now: float) -> list[Mold]:
    """The molds of the program before, on their way out."""
    spec = PoolSpec(handover.size, preload=True)
    return [
        Mold(mid, 0, Stage.DRAINING, now, spec, deadline=now + MOLD_GRACE, pid=pid)
        for mid, pid in enumerate(handover.molds, 1)
    ]


def hand_listeners(listeners: ListenerSet) -> list[HandedListener]:
    return [
        HandedListener(
            asdict(key.address),
            key.slot,
            listener.sock.fileno(),
            listener.ours,
            list(listener.inode) if listener.inode else None,
        )
        for key, listener in listeners.held.items()
    ]


def take_listeners(handed: list[HandedListener]) -> ListenerSet:
    taken = ListenerSet()
    for each in handed:
        address = Address(**each.address)
        sock = socket.socket(fileno=each.fd)
        inode = (each.inode[0], each.inode[1]) if each.inode else None
        taken.take(Key(address, each.slot), Listener(sock, address, each.ours, inode))
    return taken


def hand_over(
    state: State,
    scoreboard_fd: int,
    workers: list[HandedWorker],
    listeners: ListenerSet,
    control: HandedControl,
    pid_file: PidFile,
) -> Handover:
    """All of it, as it is now."""
    return Handover(
        generation=state.last_generation,
        size=state.size,
        scoreboard_fd=scoreboard_fd,
        workers=workers,
        listeners=hand_listeners(listeners),
        control=control,
        molds=[mold.pid for mold in state.pool.molds.values() if mold.pid is not None],
        asked=state.ledger.waiting.get("upgrade", []),
        reasons=state.ledger.reasons,
        outcomes=state.ledger.outcomes,
        pid_file=hand_pid_file(pid_file),
    )


def hand_pid_file(pid_file: PidFile) -> HandedPidFile | None:
    return HandedPidFile(pid_file.path, pid_file.fileno()) if pid_file.fileno() >= 0 else None


def write(handover: Handover) -> int:
    """Write it down; return the descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("uvicorn-handover")
    else:  # pragma: no cover - not on Linux
        import tempfile  # noqa: PLC0415 - and much else with it

        fd, path = tempfile.mkstemp(prefix="uvicorn-handover-")
        os.unlink(path)
    try:
        left = json.dumps(asdict(handover)).encode()
        while left:
            left = left[os.write(fd, left) :]
    except BaseException:
        close_quietly(fd)
        raise
    return fd


def take(environ: MutableMapping[str, str]) -> tuple[Handover | None, Scoreboard | None]:
    """What the environment hands over, and its shared memory, without which there is no going on.

    Raises:
        ValueError: Something is handed over, but not for this program.
        OSError: The memory cannot be had. Nothing is taken then: see `taking_over`.
    """
    text = environ.get(HANDOVER_FD, "")
    handover = read(environ, close=False)
    if handover is None:
        return None, None
    try:
        scoreboard = Scoreboard(handover.scoreboard_fd)
    except OSError:
        environ[HANDOVER_FD] = text
        raise
    close_quietly(int(text))
    return handover, scoreboard


def read(environ: MutableMapping[str, str], close: bool = True) -> Handover | None:
    """What the environment hands over, taken out of it; None where nothing is.

    Args:
        close: Whether its descriptor is closed.

    Raises:
        ValueError: Something is, but not for this program.
    """
    text = environ.pop(HANDOVER_FD, None)
    if text is None:
        return None
    try:
        fd = int(text)
        os.lseek(fd, 0, os.SEEK_SET)
        with os.fdopen(fd, "rb", closefd=close) as file:
            data = json.loads(file.read())
        if data["version"] != VERSION:
            raise ValueError(f"it has version {data['version']}, not {VERSION}")
        return _handover(data)
    except (OSError, ValueError, TypeError, LookupError) as exc:
        raise ValueError(f"the handover of the program before cannot be read: {exc}") from exc


def _handover(data: dict[str, Any]) -> Handover:
    workers = [HandedWorker(**{**worker, "spec": PoolSpec(**worker["spec"])}) for worker in data["workers"]]
    listeners = [HandedListener(**listener) for listener in data["listeners"]]
    return Handover(
        **{
            **data,
            "workers": workers,
            "listeners": listeners,
            "control": HandedControl(**data["control"]),
            "outcomes": {name: Outcome(**each) for name, each in data["outcomes"].items()},
            "pid_file": HandedPidFile(**data["pid_file"]) if data["pid_file"] else None,
        }
    )


def own_command() -> list[str]:
    """The command line of this process, to be run again."""
    return [sys.executable, *sys.orig_argv[1:]]


@contextlib.contextmanager
def taking_over() -> Generator[None, None, None]:
    """What a program does until it has taken over from the one before goes on in it.

    The trial has shown that it can be done; but since then a file may have been written in half, or the system be short of
    something. The workers serve on as long as this process is there, so that failing is no reason to end: the program starts
    again after a while, until it is done, or until somebody wants the service to stop.
    """
    environ = dict(os.environ)
    if HANDOVER_FD not in environ:
        yield
        return
    try:
        yield
    except BaseException:
        if HANDOVER_FD in os.environ and not told_to_stop(RETRY_AFTER):
            logger.warning(
                "Taking over has failed; the workers of the program before serve on. Trying again."
            )
            with contextlib.suppress(OSError):
                os.execve(sys.executable, own_command(), environ)  # noqa: S606 - our own command line
        raise


def told_to_stop(seconds: float) -> bool:
    """Wait so long; whether a signal has come meanwhile that ends the service. All are blocked in this program so far."""
    stops = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not signal.sigpending().isdisjoint(stops):
            return True
        select.select((), (), (), min(left, 0.1))
    return False


def start_trial(host: Host) -> Event:
    """Run the new program for a try."""
    try:
        return events.TrialStarted(host.start_program(own_command(), {**os.environ, TRIAL: str(VERSION)}))
    except OSError as exc:
        return events.TrialFailed(f"the trial could not be started: {exc.strerror or exc}")


def become_next(
    host: Host, environ: Mapping[str, str], keep: Sequence[int], put_back: Callable[[], None]
) -> Event:
    """Become the new program; what it says where that cannot be done.

    Args:
        keep: The descriptors that stay open, the handover's the first.
        put_back: Called when all signals are blocked: puts back those that have come and were not heard.
    """
    # Blocked signals stay blocked and pending over an exec; handlers do not survive it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    put_back()
    try:
        host.exec_program(own_command(), environ, keep)
    except OSError as exc:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        close_quietly(keep[0])
        return events.TrialFailed(f"the new program could not be started: {exc.strerror or exc}")
