"""The control process: its signals, its title, one event loop with our own Server, its end.

It is free to crash: the master starts it again, and workers know nothing of it.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import setproctitle

from uvicorn._compat import signal_at_parents_death
from uvicorn._ipc.control import ControlEnd, ControlStart
from uvicorn._ipc.scoreboard import Cell
from uvicorn._logconfig import reopen_or_complain
from uvicorn.config import Config
from uvicorn.control.accept import PeerAcceptor
from uvicorn.control.app import ControlApp
from uvicorn.control.master import Master
from uvicorn.server import Server, ServerHooks

# What can be in flight at the end is an answer on its way out.
END_GRACE = 2
# A request has this many seconds to arrive.
REQUEST_TIME = 5
# More than this of a request's head is refused.
HEAD_LIMIT = 16 * 1024
# Far more than people and probes need, and no way to use this process up.
CONNECTIONS = 512

logger = logging.getLogger("uvicorn.error")


class ControlHooks(ServerHooks):
    """Lets the control socket be accepted on by somebody who looks at peers.

    Args:
        start: What the process was started with.
        on_end: Called when it is told to stop.
    """

    def __init__(self, start: ControlStart, on_end: Callable[[], None]) -> None:
        self._owner = start.owner
        self._own = start.scoreboard.own
        self._on_end = on_end

    def tick(self, server: Server, now: float) -> None:
        self._own.stamp(Cell.CONTROL_TICK)

    def stopped_accepting(self, server: Server) -> None:
        self._on_end()

    def empties_queue(self) -> bool:
        return False  # the master holds the sockets: whoever is queued is served by the next control process

    def acceptor(
        self,
        server: Server,
        sock: socket.socket,
        factory: Callable[[], Any],
        open_server: Callable[..., Any],
    ) -> Any | None:
        if sock.family != socket.AF_UNIX:
            return None
        assert server.loop is not None
        return PeerAcceptor(server.loop, sock, factory, self._owner)


def main(start: ControlStart) -> int:
    """Answer until told to stop, or until the master is gone; the exit code."""
    setproctitle.setproctitle(f"uvicorn: control {start.title}")
    # Before it asks for the signal below: whoever changes its user loses it (prctl(2)).
    start.identity.take()
    # Not in the handler itself, which may come in the middle of a line.
    signal.signal(signal.SIGUSR1, lambda number, frame: _thread.start_new_thread(reopen_or_complain, ()))
    signal_at_parents_death(signal.SIGTERM)
    server = _server(start)

    def leave(number: int, frame: FrameType | None) -> None:
        # No exception, which may come at any place of the event loop's own beginning and end.
        server.should_exit = True

    signal.signal(signal.SIGTERM, leave)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.getppid() != start.master_pid:
        return 0  # it died before we could ask to be told
    # Its own comings and goings are in the master's log.
    logger.setLevel(logging.WARNING)
    sockets = [*([start.control] if start.control is not None else []), *start.admin]
    server.run(sockets)
    return 0


def _server(start: ControlStart) -> Server:
    def gone() -> None:
        server.should_exit = True

    master = Master(ControlEnd(start.channel), start.scoreboard, gone)
    app = ControlApp(master, start.read_only)
    config = Config(
        app,
        log_config=None,
        access_log=False,
        interface="asgi3",
        lifespan="on",
        ws="none",
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        limit_request_head=HEAD_LIMIT,
        timeout_request_head=REQUEST_TIME,
        timeout_request_body=REQUEST_TIME,
        timeout_graceful_shutdown=END_GRACE,
    )
    server = Server(config)
    server.hooks = ControlHooks(start, app.ending.set)
    return server
