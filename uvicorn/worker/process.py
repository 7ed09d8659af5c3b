"""The first code in a worker process: its signals, its title, its end. Then the server runs, and its result is the exit
code.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from types import FrameType
from typing import Any

import psutil
import setproctitle

from uvicorn._application import report_failure
from uvicorn._compat import signal_at_parents_death
from uvicorn._ipc.channel import Kind
from uvicorn._ipc.scoreboard import Cell
from uvicorn._ipc.start import WorkerStart
from uvicorn._privileges import Identity
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import forget_application_modules, own_traceback
from uvicorn.server import Server
from uvicorn.worker.health import HealthThread
from uvicorn.worker.runtime import WorkerHooks, leave_as_orphan

# More than this of a worker's complaint is cut.
MAX_COMPLAINT = 500
# What an orphan's children get between SIGTERM and SIGKILL.
LEFTOVER_GRACE = 2.0


logger = logging.getLogger("uvicorn.error")


def main(start: WorkerStart, preloaded: Mapping[int, Any] | None = None) -> int:
    """Serve until told to stop; the exit code.

    Args:
        preloaded: Where a mold has loaded the application already, the signal handlers that its import has set.
    """
    owner = getattr(start.target, "__self__", None)
    server = owner if isinstance(owner, Server) else None
    hooks = WorkerHooks(start, setproctitle.setproctitle)
    hooks.show("starting")
    if preloaded is None:
        forget_exit_handlers()
    health = HealthThread(
        start.row, start.sender, start.healthcheck, lambda: leave_as_orphan(hooks, server), server
    )
    leaving = Leaving(server)
    _set_up_process(start, leaving, server, health, preloaded or {})
    health.start()
    complaint = Complaint()
    logger.addFilter(complaint)
    hooks.on_ready.append(lambda: logger.removeFilter(complaint))
    if start.first:
        speak_once = _SpeakOnce(start.failure_token)
        logger.addFilter(speak_once)
        hooks.on_ready.append(lambda: logger.removeFilter(speak_once))
    code = STARTUP_FAILURE
    try:
        if preloaded is None:
            forget_application_modules()
        code = _serve(start, server, hooks, leaving)
        if code == STARTUP_FAILURE and complaint.text:
            start.sender.send(Kind.FAILED, complaint.text)
    finally:
        # Told to leave once more, it would leave its exit handlers half done.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hooks.show("ending")
        run_exit_handlers(wait_for_threads=code != STARTUP_FAILURE)
        if hooks.orphaned:
            _end_children()
    return code


def _serve(start: WorkerStart, server: Server | None, hooks: WorkerHooks, leaving: Leaving) -> int:
    try:
        if not _step_down(start, server):
            return STARTUP_FAILURE
        if server is None:
            hooks.say_ready()
        else:
            hooks.attach(server)
            if not server.config.loaded:
                server.config.load()
            leaving.in_order = True
        start.target(start.sockets)
    except SystemExit as exc:
        return exit_code_of(exc)
    except BaseException as exc:
        if server is None or not server.started:
            report_failure(start.title, exc)
            return STARTUP_FAILURE
        logger.error("The server failed.", exc_info=(type(exc), exc, own_traceback(exc)))
        return 1
    if server is None or server.started or server.force_exit or leaving.told or start.row[Cell.DRAIN]:
        return 0
    return STARTUP_FAILURE


def exit_code_of(exc: SystemExit) -> int:
    """What the interpreter would exit with; a text, which it would print, goes to the log."""
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    logger.error("%s", exc.code)
    return 1


def _step_down(start: WorkerStart, server: Server | None) -> bool:
    """Read what only the master's user may read, then become whoever is to serve; False where that is not to be had.

    Nothing of the application runs before it. A worker of a mold is born that way.
    """
    if server is not None and not server.config.loaded:
        server.config.load_tls()
    return take_identity(start.identity, start.master_pid)


def take_identity(identity: Identity, master_pid: int) -> bool:
    """Become it; False, after a log line, where the system refuses."""
    try:
        identity.take()
    except OSError as exc:
        logger.error("The user and group to serve as cannot be had: %s.", exc.strerror or exc)
        return False
    if identity.changes_user:
        end_with_master(master_pid)  # once more: whoever changes its user loses that signal (prctl(2))
    return True


def end_with_master(master_pid: int) -> None:
    """Be told to end when the master does."""
    signal_at_parents_death(signal.SIGTERM)
    if os.getppid() != master_pid:
        raise SystemExit(0)  # it died before we could ask to be told


class Leaving:
    """SIGTERM outside of the time in which the server takes signals itself.

    An application's import is ended at once: it may hang. From then on an exception is no way to end: it may come at any
    place of the event loop's own beginning and end, and leave that half done, with a traceback. So the server is asked to
    stop, which it looks at before it does anything.

    Attributes:
        in_order: Whether the server is asked.
        told: Whether the signal has come.
    """

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self.in_order = False
        self.told = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.told = True
        if self._server is None or not self.in_order:
            raise SystemExit(0)
        self._server.should_exit = True


def _set_up_process(
    start: WorkerStart,
    leaving: Leaving,
    server: Server | None,
    health: HealthThread,
    preloaded: Mapping[int, Any],
) -> None:
    # Written by C code, without the GIL: also where Python cannot run any more.
    faulthandler.enable(file=2, all_threads=True)
    signal.signal(signal.SIGTERM, leaving)
    signal.signal(signal.SIGQUIT, lambda number, frame: _hurry(server))
    signal.signal(signal.SIGUSR1, lambda number, frame: health.reopen_soon())
    for number, handler in preloaded.items():
        signal.signal(number, handler)  # as if it had been imported here
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_master(start.master_pid)


def forget_exit_handlers() -> None:
    """What the master has registered is not ours to run, except for what the standard library does in any process."""
    atexit._clear()  # noqa: SLF001
    atexit.register(logging.shutdown)
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None:  # else it registers itself when it is imported
        atexit.register(multiprocessing_util._exit_function)  # noqa: SLF001


def _hurry(server: Server | None) -> None:
    """SIGQUIT from the master: stop waiting for requests in flight."""
    if server is None:
        raise SystemExit(0)
    server.force_exit = True
    server.should_exit = True


def run_exit_handlers(wait_for_threads: bool) -> None:
    """What the interpreter does at its end, which a forked child never reaches.

    Args:
        wait_for_threads: False after a failed start: a thread that the application has begun before it failed may run
            for ever, and what has failed would not be known until the start's deadline.
    """
    if wait_for_threads:
        with contextlib.suppress(Exception):
            threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - waits for the application's threads
    atexit._run_exitfuncs()  # noqa: SLF001


class Complaint(logging.Filter):
    """Keeps, in one line, the first error of a start: the master tells it to those who wait for the outcome.

    Attributes:
        text: That line; "" as long as there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and not self.text:
            exc = record.exc_info[1] if record.exc_info else None
            text = f"{type(exc).__name__}: {exc}" if exc is not None else record.getMessage()
            # Of a traceback that comes as text the last line says what it is; of an exception's text the first.
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                self.text = lines[0 if exc is not None else -1][:MAX_COMPLAINT]
        return True


def _end_children() -> None:
    """What the master would do: end what the application has left in our group. It may hold the listening sockets, and
    then the next master could not have the address."""
    children = psutil.Process().children(recursive=True)
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGTERM)  # which we ignore by now
    _, alive = psutil.wait_procs(children, timeout=LEFTOVER_GRACE)
    for process in alive:
        process.kill()


class _SpeakOnce(logging.Filter):
    """While no worker has ever been ready, all of them fail alike: one of them says why, for all.

    Args:
        token: A descriptor with one byte in it; whoever reads it may speak.
    """

    def __init__(self, token: int) -> None:
        super().__init__()
        self._token = token
        self._may_speak: bool | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR or self._token < 0:
            return True
        # Whoever has the token says it to its end: the master may want it to leave because a sibling has failed.
        with _sigterm_waits():
            if self._may_speak is None:
                try:
                    self._may_speak = bool(os.read(self._token, 1))
                except OSError:
                    self._may_speak = False
            if self._may_speak:
                logging.getLogger(record.name).callHandlers(record)
        return False


@contextlib.contextmanager
def _sigterm_waits() -> Generator[None, None, None]:
    """A SIGTERM that comes within takes effect at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if came:
            signal.raise_signal(signal.SIGTERM)
