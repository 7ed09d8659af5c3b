"""Accepting on a socket that several workers share, so that connections spread evenly.

Every worker is woken for every connection, and whoever is fastest would take it: busy workers get less, idle ones too
much, and with long-lived connections it stays that way. So before a worker accepts it looks at the scoreboard: one that
has clearly more connections than the least loaded of its siblings steps back for a moment. With 8 workers and 64
connections the busiest has 1.12 times its share this way, against 2 to 5 times without.

Where connections come and go by the hundred there is nothing to spread, and the gate would only cost: accepting here
takes twice as long as in the event loop's own server. So each second a look is taken, and as long as many more
connections end than there are, the event loop's server accepts, until one worker has far more than another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn._ipc.scoreboard import Cell, Row, Scoreboard, microseconds
from uvicorn._sockets import SHORTAGE, SHORTAGE_PAUSE
from uvicorn.protocols._state import ServerState

# How long a worker steps back, in seconds, and how often in a row before it accepts all the same: a sibling that is
# stuck must not keep a connection waiting.
STEP_BACK = 0.001
MAX_STEPS_BACK = 4
# A sibling whose event loop has not ticked for this long, in microseconds, is not waited for.
STALE = 2_500_000
# How many connections one wake-up takes where nobody else could.
ALONE_BATCH = 64
# It is churn where this many times more connections have ended within a second than there are, and this many at least.
CHURN_RATIO = 4
CHURN_LEAST = 100
# Twice as many connections as a sibling and this many more are too many all the same: some of them stay.
FAR_MORE = 32

logger = logging.getLogger("uvicorn.error")

OpenServer = Callable[[socket.socket, Callable[[], Any]], Coroutine[Any, Any, Any]]


class GatedAcceptor:
    """Accepts on one shared socket; has the face of an asyncio server.

    Args:
        loop: The event loop.
        sock: The listening socket.
        factory: Makes the protocol of a connection.
        tls: The TLS context, or None.
        handshake_timeout: Seconds for the TLS handshake.
        open_server: Makes the event loop's own server on a socket, with a factory.
        state: The server's state: what is connected.
        row: This worker's row.
        scoreboard: All rows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], Any],
        tls: ssl.SSLContext | None,
        handshake_timeout: float,
        open_server: OpenServer,
        state: ServerState,
        row: Row,
        scoreboard: Scoreboard,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._factory = factory
        self._tls: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": handshake_timeout} if tls else {}
        self._open_server = open_server
        self._own_server: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._state = state
        self._row = row
        self._scoreboard = scoreboard
        self._attaching: set[asyncio.Task[None]] = set()
        self._steps_back = 0
        self._timer: asyncio.TimerHandle | None = None
        self._short = False
        self._closed = False
        self._is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return () if self._closed else (self._sock,)

    def close(self) -> None:
        """Accept no more. Those that are being attached are not affected."""
        if not self._closed:
            self._closed = True
            self._close_own_server()
            self._pause()

    @property
    def attaching(self) -> int:
        """How many connections have been accepted and are not set up yet."""
        return len(self._attaching)

    async def wait_closed(self) -> None:
        if self._attaching:
            await asyncio.wait(self._attaching)

    def empty_queue(self) -> None:
        """Take all connections that the kernel has taken for us."""
        while self._accept():
            pass

    def connection_lost(self) -> None:
        """One of the server's connections has gone."""
        self._row[Cell.CONNECTIONS] = self._load()

    # --- without the gate --------------------------------------------------------------------

    def look(self, ended: float) -> None:
        """Is it churn, with this many connections ended in a second?"""
        churn = ended >= CHURN_LEAST and ended >= CHURN_RATIO * self._load()
        if self._closed or churn == (self._own_server is not None or self._opening is not None):
            return
        if churn:
            self._pause()
            self._opening = self._loop.create_task(self._open_own_server())
        else:
            self._back_to_the_gate()

    async def _open_own_server(self) -> None:
        try:
            # On a copy of the socket: a server closes the one that it is given.
            server = await self._open_server(self._sock.dup(), self._made_without_gate)
        except OSError as exc:
            logger.warning("Accepting goes on as before: %s", exc.strerror or exc)
            self._resume()
            return
        finally:
            self._opening = None
        self._own_server = server
        if self._closed:
            self._close_own_server()

    def _made_without_gate(self) -> Any:
        """The event loop's server has accepted."""
        load = self._load() + 1
        self._row[Cell.CONNECTIONS] = load
        if load > FAR_MORE:
            siblings = self._least_loaded()
            if siblings is not None and load > 2 * siblings + FAR_MORE:
                self._loop.call_soon(self._back_to_the_gate)
        return self._factory()

    def _back_to_the_gate(self) -> None:
        if self._own_server is not None:
            self._close_own_server()
            self._resume()

    def _close_own_server(self) -> None:
        server, self._own_server = self._own_server, None
        if server is not None:
            server.close()

    # --- the gate ----------------------------------------------------------------------------

    def _readable(self) -> None:
        siblings = self._least_loaded()
        if siblings is None:
            for _ in range(ALONE_BATCH):
                if not self._accept():
                    return
            return
        if self._load() > siblings + max(1, siblings // 8) and self._steps_back < MAX_STEPS_BACK:
            self._steps_back += 1
            self._pause(STEP_BACK)
            return
        self._steps_back = 0
        self._accept()

    def _load(self) -> int:
        return len(self._state.connections) + len(self._attaching)

    def _least_loaded(self) -> int | None:
        """The fewest connections that any accepting sibling has; None where there is none.

        This worker's own row is left out: its tick is old when the event loop has stood still, and whether it
        accepts yet is written last. Neither makes it alone.
        """
        now = microseconds()
        accepting = self._scoreboard.column(Cell.ACCEPTING)
        ticks = self._scoreboard.column(Cell.LOOP_TICK)
        counts = self._scoreboard.column(Cell.CONNECTIONS)
        own = self._row.index
        return min(
            (
                count
                for index, (takes, tick, count) in enumerate(zip(accepting, ticks, counts, strict=False))
                if takes and now - tick < STALE and index not in (0, own)
            ),
            default=None,
        )

    def _pause(self, seconds: float | None = None) -> None:
        """Do not look at the socket, for a time or for good."""
        self._loop.remove_reader(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if not self._closed:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    # --- accepting ---------------------------------------------------------------------------

    def _accept(self) -> bool:
        """Take one connection; False where there is none to take."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True  # it has gone again; there may be more
        except OSError as exc:
            if exc.errno in SHORTAGE:
                self._in_shortage(exc)
            elif exc.errno == errno.EINVAL:
                self._pause()  # the master has shut the socket down: nothing comes any more
            return False
        self._short = False
        sock.setblocking(False)
        if self._is_tcp:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._attach(sock))
        self._attaching.add(task)
        task.add_done_callback(self._attached)
        self._row[Cell.CONNECTIONS] = self._load()
        return True

    async def _attach(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock, **self._tls)
        except (TimeoutError, OSError) as exc:
            # ssl.SSLError is an OSError: what came was no TLS, or not ours.
            logger.info("A connection could not be set up: %s", exc or type(exc).__name__)
            sock.close()
        except BaseException:
            sock.close()
            raise

    def _attached(self, task: asyncio.Task[None]) -> None:
        self._attaching.discard(task)
        self.connection_lost()
        if not task.cancelled() and task.exception() is not None:
            logger.error("A connection could not be set up.", exc_info=task.exception())

    def _in_shortage(self, exc: OSError) -> None:
        if not self._short:
            self._short = True
            logger.error("Cannot accept: %s. Trying again every %s s.", exc.strerror, SHORTAGE_PAUSE)
        if not self._closed:
            self._pause(SHORTAGE_PAUSE)
