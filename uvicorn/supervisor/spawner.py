"""How workers and molds come about: forked by the master itself, or by a mold that was asked to.

What a worker needs is made here first, its row, its channel, its sockets; so nothing of it depends on who forks it. A mold
forks twice, and the process in between ends at once: the worker becomes a child of the master, which has the kernel give it
all orphans. It is known by its wid; its pid is told by the process in between, before the worker can have done anything.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from uvicorn._addresses import BindError
from uvicorn._closing import close_quietly
from uvicorn._ipc import mold as ipc
from uvicorn._ipc.channel import Receiver, Sender, channel_pair
from uvicorn._ipc.mold import ForkRequest, MasterEnd, MoldMain, MoldStart
from uvicorn._ipc.scoreboard import Cell, Row, Scoreboard
from uvicorn._ipc.start import WorkerMain, WorkerStart
from uvicorn.supervisor import actions, events
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.host import Host
from uvicorn.supervisor.links import Link
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.plan import Plan
from uvicorn.supervisor.signals import reset_in_child

# So many requests are sent to a mold before the first of them is answered: they always fit into its socket's buffer.
WINDOW = 16


@dataclass(slots=True)
class MoldLink:
    """One mold.

    Attributes:
        end: Our end of its channel; None where that is closed.
        waiting: Requests that it was not sent yet, each with the worker's end of its channel and its listening sockets.
        asked: How many it has been sent and not answered.
    """

    pid: int
    end: MasterEnd | None
    waiting: deque[tuple[ForkRequest, socket.socket, list[socket.socket]]] = field(default_factory=deque)
    asked: int = 0


class Spawner:
    """Makes processes.

    Args:
        host: The operating system.
        worker_main: What a worker process runs.
        mold_main: What a mold runs; None where there are none.
        scoreboard: All rows.
        failure_token: See `WorkerStart`.
        links: The workers; what is made here is entered there.
        let_go: Called in a new process with the sockets that it keeps: closes what is the master's.
        watched: See `WorkerStart`.
    """

    def __init__(
        self,
        host: Host,
        worker_main: WorkerMain,
        mold_main: MoldMain | None,
        scoreboard: Scoreboard,
        failure_token: int,
        links: dict[int, Link],
        let_go: Callable[[Sequence[socket.socket]], None],
        watched: bool,
    ) -> None:
        self._host = host
        self._worker_main = worker_main
        self._mold_main = mold_main
        self._scoreboard = scoreboard
        self._failure_token = failure_token
        self._links = links
        self._let_go = let_go
        self._watched = watched
        self._molds: dict[int, MoldLink] = {}

    # --- workers -----------------------------------------------------------------------------

    def spawn(
        self, action: actions.Spawn, plan: Plan, listeners: ListenerSet, size: int, first: bool
    ) -> list[Event]:
        """Make a worker.

        Args:
            size: How many workers there are to be.
            first: Whether none has ever been ready.

        Returns:
            What has come of it; nothing where a mold is asked, which answers later.
        """
        try:
            sockets = listeners.sockets(plan, action.slot)
            ours, theirs = channel_pair()
        except (BindError, OSError) as exc:
            return [events.SpawnFailed(action.wid, str(exc))]
        row = self._scoreboard.take()
        row[Cell.GENERATION] = action.generation
        link = Link(row, Receiver(ours), sockets, pid=0)
        if action.mid:
            self._links[action.wid] = link
            request = ForkRequest(action.wid, action.slot, action.generation, size, row.index, first)
            self._molds[action.mid].waiting.append((request, theirs, sockets))
            return self._pump(self._molds[action.mid])
        start = WorkerStart(
            wid=action.wid,
            slot=action.slot,
            generation=action.generation,
            size=size,
            row=row,
            scoreboard=self._scoreboard,
            sender=Sender(theirs),
            sockets=sockets,
            reuse_port=plan.reuse_port,
            target=plan.target,
            master_pid=os.getpid(),
            title=plan.title,
            healthcheck=plan.spec.healthcheck,
            watched=self._watched,
            first=first,
            failure_token=self._failure_token,
            identity=plan.identity,
        )

        def child() -> int:
            reset_in_child()
            close_quietly(ours)
            self._let_go(sockets)
            return self._worker_main(start)

        try:
            link.pid = self._host.fork(child)
        except OSError as exc:
            self._give_up(row, ours, theirs)
            return [events.SpawnFailed(action.wid, exc.strerror or str(exc))]
        close_quietly(theirs)
        self._links[action.wid] = link
        row[Cell.PID] = link.pid
        return [events.Spawned(action.wid, link.pid)]

    def _give_up(self, row: Row, *sockets: socket.socket) -> None:
        close_quietly(*sockets)
        self._scoreboard.release(row)

    # --- molds -------------------------------------------------------------------------------

    def spawn_mold(self, action: actions.SpawnMold, plan: Plan) -> Event:
        """Make a mold."""
        main = self._mold_main
        if main is None or not self._host.adopts_orphans():
            return events.MoldSpawnFailed(
                action.mid, "this system does not let the master adopt the workers that a mold forks"
            )
        try:
            ours, theirs = ipc.channel_pair()
        except OSError as exc:
            return events.MoldSpawnFailed(action.mid, exc.strerror or str(exc))
        mold_start = MoldStart(
            generation=action.generation,
            channel=theirs,
            scoreboard=self._scoreboard,
            reuse_port=plan.reuse_port,
            target=plan.target,
            master_pid=os.getpid(),
            title=plan.title,
            healthcheck=plan.spec.healthcheck,
            watched=self._watched,
            failure_token=self._failure_token,
            identity=plan.identity,
        )

        def child() -> int:
            reset_in_child()
            close_quietly(ours)
            self._let_go(())
            return main(mold_start)

        try:
            pid = self._host.fork(child)
        except OSError as exc:
            close_quietly(ours, theirs)
            return events.MoldSpawnFailed(action.mid, exc.strerror or str(exc))
        close_quietly(theirs)
        self._molds[action.mid] = MoldLink(pid, MasterEnd(ours))
        return events.MoldSpawned(action.mid, pid)

    def mold_pids(self) -> list[int]:
        return [mold.pid for mold in self._molds.values()]

    def mold_fds(self) -> list[int]:
        return [mold.end.sock.fileno() for mold in self._molds.values() if mold.end is not None]

    def take_mold(self, mid: int, pid: int) -> None:
        """A mold of the program before, which hears that its channel has ended."""
        self._molds[mid] = MoldLink(pid, None)

    def hear(self) -> list[Event]:
        """What the molds have said."""
        happened: list[Event] = []
        for mid, mold in self._molds.items():
            if mold.end is None:
                continue
            answers, is_open = mold.end.receive()
            if not is_open:
                self._close(mold)
            for answer in answers:
                happened += self._events_of(mid, mold, answer)
            happened += self._pump(mold)
        return happened

    def _events_of(self, mid: int, mold: MoldLink, answer: ipc.Answer) -> list[Event]:
        match answer.kind:
            case ipc.Kind.LOADED:
                return [events.MoldLoaded(mid, answer.number)]
            case ipc.Kind.FAILED:
                return [events.MoldComplained(mid, answer.text)]
            case ipc.Kind.FORKED:
                mold.asked -= 1
                return self._forked(answer.wid, answer.number)
            case ipc.Kind.NOT_FORKED:
                mold.asked -= 1
                error = os.strerror(answer.number) if answer.number else "the mold's fork did not come back"
                return self._not_forked(answer.wid, error)

    def _forked(self, wid: int, pid: int) -> list[Event]:
        link = self._links.get(wid)
        if link is None or link.pid:
            return []  # given up meanwhile: it finds its channel closed, and ends
        link.pid = link.row[Cell.PID] = pid
        return [events.Spawned(wid, pid)]

    def _not_forked(self, wid: int, error: str) -> list[Event]:
        link = self._links.get(wid)
        if link is None or link.pid:
            return []
        del self._links[wid]
        self._give_up(link.row, *([link.receiver.sock] if link.receiver is not None else ()))
        return [events.SpawnFailed(wid, error)]

    def _pump(self, mold: MoldLink) -> list[Event]:
        """Send what waits, as far as there is room for it."""
        happened: list[Event] = []
        while mold.end is not None and mold.waiting and mold.asked < WINDOW:
            request, theirs, sockets = mold.waiting.popleft()
            try:
                mold.end.ask(request, [theirs.fileno(), *(sock.fileno() for sock in sockets)])
                mold.asked += 1
            except OSError as exc:
                happened += self._not_forked(request.wid, exc.strerror or str(exc))
            close_quietly(theirs)
        return happened

    def signal_mold(self, mid: int, number: int, reaped: Collection[int]) -> None:
        """Tell a mold to end. It is asked for nothing any more."""
        self.drop(mid)
        pid = self._molds[mid].pid
        if pid in reaped:
            return
        if number == signal.SIGKILL:
            self._host.signal_group(pid, number)
        self._host.signal(pid, number)

    def drop(self, mid: int) -> None:
        """The mold is asked for nothing any more; what it has not been asked for yet was given up."""
        mold = self._molds[mid]
        for _, theirs, _ in mold.waiting:
            close_quietly(theirs)
        mold.waiting.clear()

    def forget_mold(self, mid: int) -> None:
        """It is gone."""
        self.drop(mid)
        self._close(self._molds.pop(mid))

    def _close(self, mold: MoldLink) -> None:
        if mold.end is not None:
            close_quietly(mold.end.sock)
            mold.end = None

    def close_in_child(self) -> None:
        """In a new process: none of this is its own."""
        for mold in self._molds.values():
            self._close(mold)
            for _, theirs, _ in mold.waiting:
                close_quietly(theirs)

    def reopen_logs(self, reaped: Collection[int]) -> None:
        """Workers that are forked later on write where the mold does."""
        for pid in set(self.mold_pids()) - set(reaped):
            self._host.signal(pid, signal.SIGUSR1)
