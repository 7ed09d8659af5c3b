"""The master's end of the control process: forked, heard, told, and forked again when it dies.

It is no worker and is never counted as one: nothing that it does, or does not do, keeps the master from serving. Its
listening sockets are held here, so that whoever connects while it is replaced, after a crash or an upgrade, waits in
their queue instead of being refused. It decides nothing about workers: commands become events of the machine.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import assert_never

from uvicorn._addresses import Address, BindError
from uvicorn._closing import close_quietly
from uvicorn._ipc.channel import channel_pair
from uvicorn._ipc.control import (
    Answer,
    Command,
    ControlMain,
    ControlStart,
    Happening,
    MasterEnd,
    MoldView,
    Queue,
    Snapshot,
    Verb,
    WorkerView,
)
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn._listener import Listener, inode_of, url_of
from uvicorn._privileges import Identity
from uvicorn._sockets import open_listener, open_private
from uvicorn.supervisor import events, policy
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.host import ChildExit, Host
from uvicorn.supervisor.links import Link
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.plan import ControlPlan
from uvicorn.supervisor.pool import NEVER, Mold, Stage
from uvicorn.supervisor.queues import queues_of
from uvicorn.supervisor.signals import reset_in_child
from uvicorn.supervisor.state import State
from uvicorn.supervisor.upgrade import HandedControl

# So many of the last log lines are kept for those who look.
EVENTS_KEPT = 50
# What is longer is cut: a report belongs into the log.
MAX_EVENT = 500
BACKLOG = 64
# At the end of the service, from SIGTERM to SIGKILL.
END_GRACE = 3.0
# How often a look is taken at the process, the socket's file and the accept queues, in seconds.
LOOK_EVERY = 1.0
# A process whose event loop has not run for this long is replaced. It ticks once a second and never blocks; nothing is
# lost with it, and as long as it is there, whoever asks how the service is gets no answer.
SILENCE = 10.0
# A fresh one has so much more: on a machine that is overloaded, to be forked and to begin may take a while.
START_GRACE = 20.0

logger = logging.getLogger("uvicorn.error")


class ControlPost:
    """The control process as the master sees it; all of it does nothing where none is wanted.

    Args:
        plan: What was asked for, or None.
        main: What the process runs.
        host: The operating system.
        title: The application's name.
    """

    def __init__(self, plan: ControlPlan | None, main: ControlMain | None, host: Host, title: str) -> None:
        self._plan = plan if main is not None else None
        self._main = main
        self._host = host
        self._title = title
        self._listeners: dict[Address, Listener] = {}
        self._end: MasterEnd | None = None
        self._pid = 0
        self._leaving: set[int] = set()
        self._outdated = False
        self._failures = 0
        self._started_at = 0.0
        self._due = NEVER
        self._service_since = 0.0
        self._number = 0
        self._events: deque[Happening] = deque(maxlen=EVENTS_KEPT)
        self._published: Snapshot | None = None
        self._queues: list[Queue] = []
        self._queues_at = 0.0
        self._look_at = 0.0
        self._looked_at = 0.0
        self._silenced = 0
        self._tick = 0
        self._ticked_at = 0.0
        self._no_file = False

    @property
    def wanted(self) -> bool:
        """Whether there is to be a control process."""
        return self._plan is not None

    # --- sockets -----------------------------------------------------------------------------

    def open(self, taken: bool = False) -> None:
        """Open what is not there yet, and let the process be started.

        Args:
            taken: Whether it is after an upgrade.

        Raises:
            BindError: At the start of the service `admin` cannot be had. Without the control socket it starts all the
                same: that one may have been asked for by nobody but systemd's RUNTIME_DIRECTORY. After an upgrade
                workers serve already, and go on.
        """
        if not taken:
            self._service_since = self._host.now()
        plan = self._plan
        wanted = [address for address in (plan.socket, plan.admin) if address is not None] if plan else []
        for address in [each for each in self._listeners if each not in wanted]:
            self._listeners.pop(address).close()
        for address in wanted:
            if address not in self._listeners:
                self._open(address, may_fail=taken or address.kind == "unix")
        if self._listeners:
            self._due = 0.0

    def _open(self, address: Address, may_fail: bool) -> None:
        try:
            if address.kind == "unix":
                self._listeners[address] = open_private(address, BACKLOG)
            else:
                self._listeners[address] = open_listener(address, BACKLOG)
        except BindError as exc:
            if not may_fail:
                raise
            what = "No control socket" if address.kind == "unix" else "No admin address"
            logger.warning("%s: %s", what, exc)

    def take(self, handed: HandedControl) -> None:
        """What the program before has handed over becomes ours. Its process stays until it has told the outcome."""
        self._service_since = self._host.now()
        for each in handed.listeners:
            address = Address(**each["address"])
            sock = socket.socket(fileno=each["fd"])
            inode = (each["inode"][0], each["inode"][1]) if each["inode"] else None
            self._listeners[address] = Listener(sock, address, True, inode)
        self._events.extend(Happening(**each) for each in handed.events)
        if handed.since is not None:
            self._service_since = handed.since
        self._number = max((each.number for each in self._events), default=0)
        self._pid = handed.pid
        self._outdated = bool(handed.pid)
        if handed.channel_fd >= 0:
            os.set_inheritable(handed.channel_fd, False)
            self._end = MasterEnd(socket.socket(fileno=handed.channel_fd))

    def hand(self) -> HandedControl:
        channel = -1
        if self._end is not None:
            self._end.flush()  # what waits here is not handed over
            if not self._end.is_torn:  # else the next program would begin in the middle of a message
                channel = self._end.sock.fileno()
        return HandedControl(
            self._pid,
            channel,
            [
                {
                    "address": asdict(address),
                    "fd": listener.sock.fileno(),
                    "inode": list(listener.inode) if listener.inode else None,
                }
                for address, listener in self._listeners.items()
            ],
            [asdict(each) for each in self._events],
            self._service_since,
        )

    def close_in_child(self) -> None:
        """In a worker: none of this is its own."""
        if self._end is not None:
            close_quietly(self._end.sock)
        for listener in self._listeners.values():
            close_quietly(listener.sock)

    # --- the process -------------------------------------------------------------------------

    def fds(self) -> list[int]:
        return [self._end.sock.fileno()] if self._end is not None else []

    def deadline(self) -> float:
        """When `work` has something to do."""
        if not self._listeners:
            return NEVER
        return min(self._look_at, NEVER if self._pid else self._due)

    def work(
        self, state: State, scoreboard: Scoreboard, let_go: Callable[[], None], identity: Identity
    ) -> None:
        """Start the process where there is none and it is time.

        Args:
            identity: Whom it is to run as.
            let_go: Called in the new process: closes what is the master's.
        """
        if self._outdated and self._pid and not (state.rolling or state.reload is not None):
            # It has told the outcome of the upgrade; the next one is of the new program.
            self._leaving.add(self._pid)
            self._host.signal(self._pid, signal.SIGTERM)
            self._forget()
            self._due = 0.0
        if self._listeners and self._host.now() >= self._look_at:
            self._look(scoreboard)
        if not self._pid and self._listeners and self._host.now() >= self._due:
            self._spawn(scoreboard, let_go, identity)

    def _look(self, scoreboard: Scoreboard) -> None:
        """Is the process alive, and the socket's file where clients look for it?"""
        now = self._host.now()
        # A master that was late itself, because the machine slept or somebody stopped it, blames nobody.
        late = now - self._looked_at > 2 * LOOK_EVERY
        tick = scoreboard.own[Cell.CONTROL_TICK]
        if late or tick != self._tick or not self._pid:
            self._tick, self._ticked_at = tick, now
        elif now - self._ticked_at >= SILENCE:
            self._ticked_at = now
            why = "somebody has stopped it" if self._host.is_stopped(self._pid) else "it is stuck"
            self._say(
                f"Control process [{self._pid}] gives no sign of life for {SILENCE:g} s ({why}): killing it."
            )
            self._host.signal(self._pid, signal.SIGKILL)
            self._silenced = self._pid
        self._looked_at = now
        self._look_at = now + LOOK_EVERY
        for address, listener in list(self._listeners.items()):
            if listener.inode is not None and inode_of(address.name) is None:
                self._restore(address, listener)

    def _restore(self, address: Address, listener: Listener) -> None:
        """The socket's file has been removed, as cleaners of temporary directories do: open it anew.

        A file cannot be made again for a socket that exists, so there is a new socket, and a new process for it.
        """
        try:
            fresh = open_private(address, BACKLOG)
        except BindError as exc:
            if not self._no_file:  # said once: its directory may be gone for good
                self._no_file = True
                self._say(f"The control socket's file is gone, and cannot be made again: {exc}")
            return
        self._no_file = False
        close_quietly(listener.sock)
        self._listeners[address] = fresh
        self._say(f"The control socket's file was removed: {address.name} is opened again.")
        if self._pid:
            self._leaving.add(self._pid)
            self._host.signal(self._pid, signal.SIGTERM)
            self._forget()
        self._due = 0.0

    def _say(self, text: str) -> None:
        logger.warning("%s", text)
        self.note(text, logging.WARNING)

    def _spawn(self, scoreboard: Scoreboard, let_go: Callable[[], None], identity: Identity) -> None:
        assert self._plan is not None
        main = self._main
        assert main is not None
        self._started_at = self._host.now()
        try:
            where = " and ".join(url_of(each.sock, False) for each in self._listeners.values())
            ours, theirs = channel_pair()
        except OSError as exc:
            self._later(f"The control process could not be started: {exc.strerror or exc}.")
            return
        start = ControlStart(
            channel=theirs,
            scoreboard=scoreboard,
            control=next(
                (each.sock for each in self._listeners.values() if each.address.kind == "unix"), None
            ),
            admin=[each.sock for each in self._listeners.values() if each.address.kind != "unix"],
            read_only=self._plan.read_only,
            owner=os.geteuid(),
            master_pid=os.getpid(),
            title=self._title,
            identity=identity,
        )

        def child() -> int:
            reset_in_child()
            close_quietly(ours)
            let_go()
            for listener in self._listeners.values():
                listener.sock.set_inheritable(False)
            return main(start)

        try:
            self._pid = self._host.fork(child)
        except OSError as exc:
            close_quietly(ours)
            self._later(f"The control process could not be started: {exc.strerror or exc}.")
            return
        finally:
            close_quietly(theirs)
        self._outdated = False
        self._ticked_at = self._host.now() + START_GRACE
        self._end = MasterEnd(ours)
        self._published = None
        logger.info("Control process [%d] answers on %s", self._pid, where)

    def _later(self, why: str) -> None:
        """Try again after a while."""
        if self._host.now() - self._started_at >= policy.STABLE_AFTER:
            self._failures = 0
        self._failures += 1
        delay = policy.backoff(self._failures, self._host.random())
        self._due = self._host.now() + delay
        self._say(f"{why} Next start in {delay:.1f} s; workers are not affected.")

    def reaped(self, gone: ChildExit) -> bool:
        """A child has ended; whether it was ours."""
        if gone.pid in self._leaving:
            self._leaving.discard(gone.pid)
            return True
        if gone.pid != self._pid:
            return False
        pid = self._pid
        self._forget()
        how = "killed for its silence" if pid == self._silenced else policy.exit_in_words(gone.code)
        self._later(f"Control process [{pid}] ended: {how}.")
        return True

    def _forget(self) -> None:
        self._pid = 0
        if self._end is not None:
            self._end.flush()
            close_quietly(self._end.sock)
            self._end = None

    def reopen_logs(self) -> None:
        if self._pid:
            self._host.signal(self._pid, signal.SIGUSR1)

    def end(self) -> None:
        """The service has ended: the process leaves, the sockets close."""
        deadline = self._host.now() + END_GRACE
        living = {self._pid, *self._leaving} - {0}
        self._forget()
        for pid in living:
            self._host.signal(pid, signal.SIGTERM)
        while living:
            living -= {gone.pid for gone in self._host.reap()}
            left = deadline - self._host.now()
            if left <= 0:
                for pid in living:
                    self._host.signal(pid, signal.SIGKILL)
                break
            if living:
                self._host.wait([], min(left, 0.02))
        for listener in self._listeners.values():
            listener.stop_accepting()
        self._listeners = {}

    # --- what is said ------------------------------------------------------------------------

    def hear(self) -> list[Event]:
        """The commands that have come."""
        if self._end is None:
            return []
        commands, is_open = self._end.receive()
        if not is_open:
            close_quietly(self._end.sock)
            self._end = None
        return [event_of(command) for command in commands]

    def note(self, text: str, level: int) -> None:
        """The master has logged something."""
        self._number += 1
        self._events.append(Happening(self._number, self._host.now(), level, text[:MAX_EVENT]))

    def answer(self, number: int, ok: bool, text: str) -> None:
        if self._end is not None:
            self._end.answer(Answer(number, ok, text))

    def publish(self, state: State, links: Mapping[int, Link], listeners: ListenerSet) -> None:
        """Tell how things are, where they have changed, and send what has not gone before.

        Args:
            links: Where each worker's row of the scoreboard is known.
            listeners: Where workers are reached.
        """
        if self._end is None:
            return
        now = self._host.now()
        if self._published is None or now >= self._queues_at:
            self._queues_at = now + LOOK_EVERY
            self._queues = queues_of(listeners)
        snapshot = self._snapshot(state, links)
        if snapshot != self._published:
            self._published = snapshot
            self._end.publish(snapshot)
        self._end.flush()

    def _snapshot(self, state: State, links: Mapping[int, Link]) -> Snapshot:
        ledger = state.ledger
        return Snapshot(
            pid=os.getpid(),
            title=self._title,
            started_at=self._service_since,
            phase=state.phase.value,
            generation=state.generation,
            wanted=state.wanted,
            ever_ready=state.ever_ready,
            paused=state.paused,
            reloading=state.reload is not None or state.rolling,
            workers=[
                WorkerView(
                    worker.slot,
                    worker.wid,
                    worker.pid,
                    worker.generation,
                    worker.stage.value,
                    worker.since,
                    worker.ready_at,
                    worker.retiring,
                    links[worker.wid].row.index,
                )
                for worker in state.pool
                if worker.pid is not None and worker.wid in links
            ],
            molds=[
                MoldView(mold.pid, mold.generation, mold_state(mold), mold.since, mold.memory)
                for mold in state.pool.molds.values()
                if mold.pid is not None
            ],
            restarts=dict(ledger.reasons),
            outcomes={name: replace(outcome) for name, outcome in ledger.outcomes.items()},
            events=list(self._events),
            queues=self._queues,
        )


def mold_state(mold: Mold) -> str:
    """A mold's stage in words of its own."""
    words = {Stage.STARTING: "loading", Stage.DRAINING: "ending"}
    return words.get(mold.stage, mold.stage.value)


def event_of(command: Command) -> Event:
    """What a command means to the machine."""
    number, argument = command.number, command.argument
    match command.verb:
        case Verb.RELOAD:
            return events.ReloadRequested(number)
        case Verb.SCALE:
            return events.ResizeRequested(argument, number)
        case Verb.RESTART:
            return events.RestartRequested(argument, number)
        case Verb.DUMP:
            return events.DumpRequested(argument, number)
        case Verb.REOPEN_LOGS:
            return events.ReopenRequested(number)
        case Verb.UPGRADE:
            return events.UpgradeRequested(number)
        case Verb.STOP:
            return events.StopRequested("STOP", number)
        case _:
            assert_never(command.verb)
