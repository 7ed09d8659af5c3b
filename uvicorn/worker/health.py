"""The worker's two ticks, and the report of what it is stuck in.

The event loop's tick is written by the server's ticker. The thread's tick is written here, by a small thread that
needs nothing but the GIL for a moment: where it goes on and the loop's does not, the loop is blocked; where neither
goes on, the process is. The thread also waits on the master's channel, whose end means that the master is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn._ipc.channel import Kind, Sender, Wish, receive_what_came
from uvicorn._ipc.scoreboard import Cell, Row
from uvicorn._logconfig import reopen_or_complain
from uvicorn.protocols._access import client_text
from uvicorn.server import Server

# More of a report than this is of no use to anybody.
MAX_REPORT = 32_768
# Of a task that waits, the innermost frames: the outer ones are the framework's. A chain of more than so many is not
# followed to its end.
TASK_FRAMES = 5
MAX_FRAMES = 200


class HealthThread(threading.Thread):
    """Ticks, watches the event loop's tick, and watches the master and what it wants.

    Args:
        row: The worker's row.
        sender: Its end of the channel.
        healthcheck: Seconds after which a standing event loop is reported.
        on_orphaned: Called once when the master is gone.
        server: The server to report on; None where something else serves, which then has only this tick.
    """

    def __init__(
        self,
        row: Row,
        sender: Sender,
        healthcheck: float,
        on_orphaned: Callable[[], None],
        server: Server | None,
    ) -> None:
        super().__init__(name="uvicorn-health", daemon=True)
        self._row = row
        self._sender = sender
        self._healthcheck = healthcheck
        self._on_orphaned = on_orphaned
        self._server = server
        self._reported = False
        self._orphaned = False
        # For a signal handler, which may do no more than wake.
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def reopen_soon(self) -> None:
        """Open the log files again, in this thread: in the middle of the main thread's lines it must not be done."""
        with contextlib.suppress(OSError):
            os.write(self._wake, Wish.REOPEN.value)

    def run(self) -> None:
        period = min(1.0, self._healthcheck / 4)
        while True:
            self.beat()
            self.listen(period)

    def beat(self) -> None:
        """Tick, and look at the event loop's tick."""
        self._row.stamp(Cell.THREAD_TICK)
        if self._server is None:
            self._row.stamp(Cell.LOOP_TICK)
        else:
            self._heed_master(self._server)
            self._watch_loop(self._server)
        self._sender.flush()

    def listen(self, seconds: float) -> None:
        """Let time pass, listening for the end of the master."""
        if self._orphaned:
            time.sleep(seconds)  # noqa: TID251 - a thread's own pace: there is nothing left to wait on
            return
        poll = select.poll()
        poll.register(self._sender.sock.fileno(), select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        readable = [fd for fd, _ in poll.poll(seconds * 1000)]
        if self._woken in readable:
            os.read(self._woken, 64)
            reopen_or_complain()
        if self._sender.sock.fileno() in readable:
            self._heed(receive_what_came(self._sender.sock, 64))

    def _heed(self, wishes: bytes | None) -> None:
        """What the master asks for."""
        if wishes is None:
            return
        if not wishes:  # the end of the file
            self._orphaned = True
            self._on_orphaned()
            return
        if Wish.REOPEN.value in wishes:
            self._sender.send(Kind.REOPENED, reopen_or_complain())
        if Wish.REPORT.value in wishes:
            self._sender.send(Kind.ANSWER, self._report_now())

    def _report_now(self) -> str:
        """Where the process is at this moment, stuck or not."""
        if self._server is None:
            return "".join(_threads())[:MAX_REPORT].rstrip()
        late = time.monotonic() - self._row.seconds(Cell.LOOP_TICK)
        head = f"Process {os.getpid()}; its event loop has last ticked {late:.1f} s ago.\n"
        return stall_report(self._server, late, head)

    def _heed_master(self, server: Server) -> None:
        """What the master wants is in the row before it sends the signal, and the signal can get lost: what its handler
        raises during a start may be swallowed (by a destructor, by an `except` of the application), and an application
        may have put a handler of its own in its place."""
        if self._row[Cell.DRAIN] and not server.should_exit:
            server.should_exit = True

    def _watch_loop(self, server: Server) -> None:
        if not self._row[Cell.READY]:
            return
        late = time.monotonic() - self._row.seconds(Cell.LOOP_TICK)
        if late <= self._healthcheck:
            self._reported = False
        elif not self._reported:
            self._reported = True
            self._sender.send(Kind.REPORT, stall_report(server, late))
            # Last, since it may have to wait for whatever keeps the event loop waiting.
            server.flush_access_log()


def stall_report(server: Server, late: float, head: str = "") -> str:
    """Where the process is stuck: every thread's stack, the requests in flight, the event loop's tasks."""
    parts = [head or f"The event loop of process {os.getpid()} has not run for {late:.1f} s.\n"]
    for part in (_threads(), _requests(server), _tasks(server)):
        try:
            parts += part
        except Exception as exc:  # noqa: BLE001 - half a report is better than a thread that has ended
            parts.append(f"(The report is not complete: {type(exc).__name__}: {exc})\n")
    return "".join(parts)[:MAX_REPORT].rstrip()


def _threads() -> Iterable[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the only way to another thread's stack
        if ident != own:
            yield f"Thread {names.get(ident, ident)}:\n"
            yield "".join(traceback.format_stack(frame))


def _requests(server: Server) -> Iterable[str]:
    now = time.monotonic()
    lines = []
    for connection in list(server.server_state.connections):
        cycle = getattr(connection, "current", None) or getattr(connection, "session", None)
        if cycle is None:
            continue
        scope = cycle.scope
        client = scope.get("client")
        what = scope.get("method", "WebSocket")
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        peer = f" from {client_text(client)}" if client else ""
        age = f"for {now - cycle.started_at:.1f} s" if cycle.started_at else "not begun"
        lines.append(f"  {what} {path}{peer}, {age}\n")
    yield f"Requests in flight: {len(lines)}\n"
    yield from lines


def _tasks(server: Server) -> Iterable[str]:
    loop = server.loop
    if loop is None:
        return
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:  # they change while they are listed: then the loop runs again
        return
    yield f"Tasks: {len(tasks)}\n"
    for task in tasks:
        yield f"  {task.get_name()}\n"
        yield from _waits_at(task.get_coro())


def _waits_at(awaited: Any) -> Iterable[str]:
    """Where a task stands: its own frame, and those that it waits in. `Task.print_stack` knows only the first."""
    frames: list[str] = []
    while awaited is not None and len(frames) < MAX_FRAMES:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            break
        frames.append(
            f'    File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}\n'
        )
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    yield from frames[-TASK_FRAMES:]
