"""A master on a fake host: its workers are objects that speak through the real channel and the real scoreboard."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.fakes.host import FakeChild, FakeHost
from tests.supervisor.plans import plan_of
from uvicorn._ipc.channel import Kind, Sender
from uvicorn._ipc.scoreboard import Cell
from uvicorn._ipc.start import WorkerStart
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.master import Master
from uvicorn.supervisor.plan import Plan
from uvicorn.supervisor.signals import events_of
from uvicorn.supervisor.upgrade import Handover


class FakeSignals:
    """A source of signals that touches no handler."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.installed = False
        self.closed = False
        self.was_put_back = False

    def send(self, *numbers: signal.Signals) -> None:
        os.write(self._writer, bytes(numbers))

    def install(self) -> None:
        self.installed = True

    def restore(self) -> None:
        self.installed = False

    def fileno(self) -> int:
        return self._reader

    def read(self) -> tuple[list[Event], bool]:
        with contextlib.suppress(BlockingIOError):
            return events_of(os.read(self._reader, 4096))
        return [], False

    def put_back(self) -> None:
        self.was_put_back = True

    def close(self) -> None:
        self.closed = True
        os.close(self._reader)
        os.close(self._writer)


class FakeWorker:
    """What runs in a fake process: by default it becomes ready in 0.1 s, and when it is told to, it leaves in 0.1 s."""

    def __init__(self, rig: Rig, child: FakeChild, start: WorkerStart) -> None:
        self.rig = rig
        self.child = child
        self.start = start
        self.channel = start.sender.sock.dup()  # as a forked child has it
        self.sender = Sender(self.channel)
        self.ticks = True
        child.handlers[signal.SIGTERM] = lambda child: self.leave()
        child.handlers[signal.SIGUSR1] = lambda child: None
        child.handlers[signal.SIGQUIT] = lambda child: child.exit(0)

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.code is None

    def become_ready(self) -> None:
        if self.alive:
            self.start.row[Cell.READY] = 1
            self.start.row[Cell.ACCEPTING] = 1
            self.tick()
            self.sender.send(Kind.READY)

    def tick(self) -> None:
        if self.alive and self.ticks and not self.child.stopped and self.start.row[Cell.READY]:
            now = int(self.rig.host.time * 1_000_000)
            self.start.row[Cell.LOOP_TICK] = self.start.row[Cell.THREAD_TICK] = now

    def leave(self) -> None:
        self.sender.send(Kind.STOPPED_ACCEPTING)
        self.rig.host.later(0.1, lambda: self.child.exit(0))

    def told(self, number: int) -> int:
        return self.child.received.count(number)


class Rig:
    """A master and its world.

    Attributes:
        workers: All that were ever forked.
        on_worker: What a new worker does; by default it becomes ready soon.
        reloads: What each reading of the settings gives: a plan, or an error.
        titles: The process titles it has shown.
        log: The texts it has logged.
    """

    def __init__(self, plan: Plan | None = None, listeners: ListenerSet | None = None, **spec: float) -> None:
        self.host = FakeHost()
        self.host.on_fork = self._forked
        self.host.on_advance = self._advanced
        self.signals = FakeSignals()
        self.listeners = listeners or ListenerSet()
        self.workers: list[FakeWorker] = []
        self.on_worker: Callable[[FakeWorker], None] = lambda worker: self.later(0.1, worker.become_ready)
        self.plan = plan or plan_of(**spec)  # type: ignore[arg-type]
        self.reloads: list[Plan | BaseException] = []
        self.titles: list[str] = []
        self.log: list[str] = []
        self.master = Master(
            self.plan,
            lambda start: 0,
            self._reload,
            self.host,
            self.listeners,
            self.titles.append,
            self.signals,  # type: ignore[arg-type]
        )

    # --- driving -----------------------------------------------------------------------------

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.host.later(seconds, lambda: callback() and None)

    def send(self, seconds: float, *numbers: signal.Signals) -> None:
        """Send signals to the master after this time, at the same moment."""
        self.later(seconds, lambda: self.signals.send(*numbers))

    def run(self, stop_after: float | None = 10.0, handover: Handover | None = None) -> int:
        """Run until it ends; the exit code. It is told to stop after this time."""
        if stop_after is not None:
            self.send(stop_after, signal.SIGTERM)
        with self.logging():
            return self.master.run(handover)

    @contextmanager
    def logging(self) -> Iterator[None]:
        logger = logging.getLogger("uvicorn.error")
        handler = _Gather(self.log)
        before = logger.level, logger.disabled
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.disabled = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.disabled = before
            for worker in self.workers:
                worker.channel.close()

    # --- looking -----------------------------------------------------------------------------

    def logged(self, part: str) -> int:
        return sum(part in text for text in self.log)

    def alive(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.alive]

    def sockets(self) -> list[socket.socket]:
        return [listener.sock for listener in self.listeners.held.values()]

    # --- the world ---------------------------------------------------------------------------

    def _forked(self, child: FakeChild, main: Callable[[], int]) -> None:
        start = inspect.getclosurevars(main).nonlocals["start"]
        worker = FakeWorker(self, child, start)
        self.workers.append(worker)
        self.on_worker(worker)

    def _advanced(self) -> None:
        for worker in self.workers:
            worker.tick()

    def _reload(self) -> Plan:
        found = self.reloads.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


class _Gather(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
