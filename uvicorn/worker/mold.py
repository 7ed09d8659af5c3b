"""A mold: imports the application once, and forks the workers, which share its memory.

It is the master's child and serves nothing. It has no thread and no event loop of ours, and holds no listening socket: what a
worker needs comes with the request for it. It forks twice, and the process in between ends at once:

    mold ──fork──► in between ──fork──► worker      the one in between tells the master the worker's pid, and ends
    master ◄──────────────────────────── worker     so the kernel gives the worker to the master, which has asked for orphans

From then on a worker is what any other is: a child of the master, with a channel, a row and a process group of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import logging
import os
import signal
import socket
from collections.abc import Mapping
from types import FrameType
from typing import Any

import setproctitle

from uvicorn._application import report_failure
from uvicorn._compat import resident_memory, wait_while_child_of
from uvicorn._forks import flush_output, fork
from uvicorn._ipc.channel import Sender
from uvicorn._ipc.mold import Answer, ForkRequest, Kind, MoldEnd, MoldStart
from uvicorn._ipc.start import WorkerStart
from uvicorn._logconfig import reopen_or_complain
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import forget_application_modules
from uvicorn.server import Server
from uvicorn.worker import process
from uvicorn.worker.inventory import Inventory

logger = logging.getLogger("uvicorn.error")

Handlers = dict[int, Any]


def main(start: MoldStart) -> int:
    """Load the application, and fork workers until the master wants no more; the exit code."""
    end = MoldEnd(start.channel)
    _show(start, "loading")
    own_handlers = _set_up_process(start)
    owner = getattr(start.target, "__self__", None)
    complaint = process.Complaint()
    logger.addFilter(complaint)
    inventory = Inventory()
    code = _load(owner if isinstance(owner, Server) else None, start)
    logger.removeFilter(complaint)
    if code is not None:
        with contextlib.suppress(OSError):
            end.say(Answer(Kind.FAILED, text=complaint.text))
        # Nobody else will: what reports errors to somewhere else does it here.
        process.run_exit_handlers(wait_for_threads=False)
        return code
    for text in inventory.left_behind():
        logger.warning("%s", text)
    handlers = _take_back(own_handlers)
    _answer_in_advance()
    # Nothing that exists now is ever looked at by a garbage collection, which would write to its pages; and none takes
    # place between two forks.
    collects = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    flush_output()
    _show(start, "ready")
    try:
        end.say(Answer(Kind.LOADED, number=resident_memory()))
        while (asked := end.next_request()) is not None:
            _fork_worker(start, end, *asked, functools.partial(_serve, handlers=handlers, collects=collects))
    except OSError as exc:
        logger.info("The mold ends: %s", exc)  # the master has gone
    return 0


def _show(start: MoldStart, state: str) -> None:
    setproctitle.setproctitle(f"uvicorn: mold {start.title} gen={start.generation} {state}")


def _load(server: Server | None, start: MoldStart) -> int | None:
    """Import the application, and make it where it is a factory; the exit code where that cannot be done.

    Before that it becomes whoever is to serve: workers are forked from it as they are to be.
    """
    try:
        if server is not None:
            server.config.load_tls()
        if not process.take_identity(start.identity, start.master_pid):
            return STARTUP_FAILURE
        forget_application_modules()
        if server is not None:
            server.config.load()
            server.config.get_loop_factory()
    except SystemExit as exc:
        return process.exit_code_of(exc)
    except BaseException as exc:  # noqa: BLE001 - the application may raise anything
        report_failure(start.title, exc)
        return STARTUP_FAILURE
    return None


def _answer_in_advance() -> None:
    """Ask here what `logging` asks in every worker's first line: whether a line's one argument is a mapping.

    The first time that a type is asked about, all classes of mappings are gone through, the application's included. That
    writes to 0.5 MB of pages, of which each worker would have copies. The answer is remembered.
    """
    for argument in (0, 0.0, ""):
        with contextlib.suppress(Exception):  # of an application's own way to answer
            isinstance(argument, Mapping)


# --- signals -----------------------------------------------------------------------------------


def _set_up_process(start: MoldStart) -> Handlers:
    """TERM and QUIT end it at once, whatever it does: it has nothing to finish."""
    process.forget_exit_handlers()
    faulthandler.enable(file=2, all_threads=True)
    own: Handlers = {signal.SIGTERM: signal.SIG_DFL, signal.SIGQUIT: signal.SIG_DFL, signal.SIGUSR1: _reopen}
    for number, handler in own.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    process.end_with_master(start.master_pid)
    return own


def _reopen(number: int, frame: FrameType | None) -> None:
    """Workers that are forked from now on write where this process does."""
    reopen_or_complain()


def _take_back(own: Handlers) -> Handlers:
    """Put our handlers back in the place of those that the application's import has set; those are its workers'."""
    changed = {}
    for number, handler in own.items():
        current = signal.getsignal(number)
        if current != handler:
            changed[number] = current
            signal.signal(number, handler)
    return changed


# --- forking -----------------------------------------------------------------------------------


def _fork_worker(start: MoldStart, end: MoldEnd, request: ForkRequest, fds: list[int], serve: Any) -> None:
    between = functools.partial(_between, start, end, request, fds, serve)
    try:
        pid = fork(between, own_group=False)
    except OSError as exc:
        end.say(Answer(Kind.NOT_FORKED, request.wid, exc.errno or 0))
        return
    finally:
        for fd in fds:
            os.close(fd)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # the application has said that it does not want to know of its children's ends
        return
    if status != 0:
        end.say(Answer(Kind.NOT_FORKED, request.wid))


def _between(start: MoldStart, end: MoldEnd, request: ForkRequest, fds: list[int], serve: Any) -> int:
    """The process in between. It stays in the mold's process group, and is ended with it where it does not end itself."""
    own = os.getpid()

    def worker() -> int:
        end.sock.close()
        wait_while_child_of(own)
        channel, *sockets = (socket.socket(fileno=fd) for fd in fds)
        channel.setblocking(False)
        if os.getppid() != start.master_pid or _has_ended(channel):
            return 0  # the master is gone, or has given this start up
        return int(serve(_worker_start(start, request, channel, sockets)))

    try:
        answer = Answer(Kind.FORKED, request.wid, fork(worker))
    except OSError as exc:
        answer = Answer(Kind.NOT_FORKED, request.wid, exc.errno or 0)
    with contextlib.suppress(OSError):  # the master is gone: the worker finds out
        end.say(answer)
    return 0


def _has_ended(channel: socket.socket) -> bool:
    try:
        return not channel.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _serve(start: WorkerStart, handlers: Handlers, collects: bool) -> int:
    if collects:
        gc.enable()
    return process.main(start, handlers)


def _worker_start(
    start: MoldStart, request: ForkRequest, channel: socket.socket, sockets: list[socket.socket]
) -> WorkerStart:
    return WorkerStart(
        wid=request.wid,
        slot=request.slot,
        generation=request.generation,
        size=request.size,
        row=start.scoreboard.row(request.row),
        scoreboard=start.scoreboard,
        sender=Sender(channel),
        sockets=sockets,
        reuse_port=start.reuse_port,
        target=start.target,
        master_pid=start.master_pid,
        title=start.title,
        healthcheck=start.healthcheck,
        watched=start.watched,
        first=request.first,
        failure_token=start.failure_token,
    )
