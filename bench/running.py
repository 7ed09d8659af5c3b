"""A server of one contender while a `with` block runs: its processes, what they have used, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from bench.contenders import APPS, Contender, Launch

PATIENCE = 60.0
POLL = 0.002
READY = "bench: worker ready"


class CannotRun(Exception):
    """The contender has not come up, or has gone."""


@dataclass(frozen=True)
class Usage:
    """What a tree of processes has used so far: seconds of CPU, and context switches it asked for by waiting."""

    user: float
    system: float
    wakeups: int

    def __sub__(self, before: Usage) -> Usage:
        return Usage(self.user - before.user, self.system - before.system, self.wakeups - before.wakeups)

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Server:
    """A running contender.

    Args:
        contender: Which.
        app: The application's import string.
        options: More fields of its `Launch`.
    """

    def __init__(self, contender: Contender, app: str, **options: Any) -> None:
        self.contender = contender
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory()
        self.directory = Path(self._directory.name)
        self.log_path = self.directory / "log"
        if options.pop("access_log", False):
            options["access_log"] = self.directory / "access.log"
        self.launch = Launch(contender.python(), app, self.port, **options)
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_answer()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        command = self.contender.command(self.launch)
        with self.log_path.open("wb") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=environ(), stdout=log, stderr=log, start_new_session=True
            )

    def end(self) -> None:
        """Ask it to stop, and end whatever is left of its process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_answer(self) -> None:
        self._wait(lambda: answers(self.port, self.launch.tls is not None), "answer")

    def wait_workers(self, count: int) -> None:
        """Until so many workers have run the application's start-up."""
        self._wait(lambda: len(self.workers()) >= count, f"start-up of {count} workers")

    def workers(self) -> list[int]:
        """The processes that have run the application's start-up so far, those that have gone since among them."""
        return [
            int(line.split()[-1]) for line in self.log.splitlines() if READY in line and line[-1].isdigit()
        ]

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.exited() or time.monotonic() > deadline:
                raise CannotRun(f"{self.contender.title}: no {what}. Its log:\n{self.log[-3000:]}")
            time.sleep(POLL)

    def exited(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def wait_exit(self) -> None:
        assert self._process is not None
        self._process.wait(PATIENCE)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def tree(self) -> list[psutil.Process]:
        """The process that was started, and all below it."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise CannotRun(f"{self.contender.title} has gone. Its log:\n{self.log[-3000:]}") from None

    def usage(self) -> Usage:
        return usage(self.tree())

    def pss(self) -> int:
        """Memory of the tree, shared pages counted once."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.uss)  # only Linux knows whose shared pages are
        return total


def usage(tree: list[psutil.Process]) -> Usage:
    """With those that have ended and been waited for, so that a worker that is replaced still counts."""
    user = system = 0.0
    wakeups = 0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            user += times.user + times.children_user
            system += times.system + times.children_system
            wakeups += voluntary_switches(process.pid)
    return Usage(user, system, wakeups)


def ran(pid: int) -> float:
    """Seconds for which the threads that a process has now have run, to the nanosecond; `usage` knows hundredths."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def voluntary_switches(pid: int) -> int:
    """Of all threads: each is a time that one of them went to sleep and had to be woken."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int(
                    (task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]
                )
    return total


def environ() -> dict[str, str]:
    """A contender's environment: the applications can be imported, nothing of the caller's configuration is there."""
    configured = ("UVICORN_", "GRANIAN_", "GUNICORN_", "HYPERCORN_", "PYTHON", "WEB_CONCURRENCY", "FORWARDED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(configured)}
    # This server asks of root to say whom its workers run as; the others have no such question.
    root = {"UVICORN_USER": "root"} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
    return {**kept, **root, "PYTHONPATH": str(APPS)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def answers(port: int, tls: bool) -> bool:
    """Whether somebody answers there, with any status; with TLS, whether somebody accepts and does not close at once."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        if tls:
            return True
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.recv(100).startswith(b"HTTP/1.1 ")
    return False


@contextlib.contextmanager
def servers(
    contenders: list[Contender], app: str, failures: dict[str, str], **options: Any
) -> Iterator[list[Server]]:
    """All of them at the same time, so that their rounds can take turns. Who does not come up is left out, with the
    reason in `failures`."""
    with contextlib.ExitStack() as stack:
        running = []
        for contender in contenders:
            try:
                running.append(stack.enter_context(Server(contender, app, **options)))
            except CannotRun as exc:
                failures[contender.name] = str(exc)
        yield running
