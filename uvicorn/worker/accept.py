"""Accepting on a socket that several workers share, so that connections spread evenly.

Every worker is woken for every connection, and whoever is fastest would take it: busy workers get less, idle ones too
much, and with long-lived connections it stays that way. So before a worker accepts it looks at the scoreboard: one that
has clearly more connections than the least loaded of its siblings steps back for a moment. With 8 workers and 64
connections the busiest has 1.12 times its share this way, against 2 to 5 times without.

One connection is taken at a time, until requests make the turns of the event loop long: then a worker takes a share of
all that wait, or the last of them would wait for as many turns as there are before it.

Where connections come and go by the hundred there is nothing to spread, and the gate would only cost: accepting here
takes twice as long as in the event loop's own server. So each second a look is taken, and as long as many more
connections end than there are, the event loop's server accepts, until one worker has far more than another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn._attach import ALONE_BATCH, LONG_TURN, SETTING_UP, Acceptor
from uvicorn._backlog import accept_queue
from uvicorn._ipc.scoreboard import Cell, Row, Scoreboard, microseconds
from uvicorn.protocols._state import ServerState

# How long a worker steps back, in seconds, and how often in a row before it accepts all the same: a sibling that is
# stuck must not keep a connection waiting.
STEP_BACK = 0.001
MAX_STEPS_BACK = 4
# A sibling whose event loop has not ticked for this long, in microseconds, is not waited for.
STALE = 2_500_000
# It is churn where this many times more connections have ended within a second than there are, and this many at least.
CHURN_RATIO = 4
CHURN_LEAST = 100
# Twice as many connections as a sibling and this many more are too many all the same: some of them stay.
FAR_MORE = 32

logger = logging.getLogger("uvicorn.error")

OpenServer = Callable[[socket.socket, Callable[[], Any], Callable[[], int]], Coroutine[Any, Any, Any]]


class GatedAcceptor(Acceptor):
    """Accepts on one shared socket.

    Args:
        loop: The event loop.
        sock: The listening socket.
        factory: Makes the protocol of a connection.
        tls: The TLS context, or None.
        handshake_timeout: Seconds for the TLS handshake.
        open_server: Makes the event loop's own server on a socket, with a factory, and with what tells how many of the
            connections that wait it may take at once.
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
        self._open_server = open_server
        self._own_server: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._state = state
        self._row = row
        self._scoreboard = scoreboard
        self._steps_back = 0
        self._taken_at = 0
        super().__init__(loop, sock, factory, tls, handshake_timeout)

    def close(self) -> None:
        if not self._closed:
            self._close_own_server()
        super().close()

    @property
    def sockets(self) -> tuple[Any, ...]:
        return (*super().sockets, *(self._own_server.sockets if self._own_server is not None else ()))

    def connection_lost(self) -> None:
        """One of the server's connections has gone."""
        self._row[Cell.CONNECTIONS] = self._load()

    def _attached_one(self) -> None:
        self.connection_lost()

    # --- without the gate --------------------------------------------------------------------

    def look(self, ended: float) -> None:
        """Is it churn, with this many connections ended in a second?"""
        # A handshake costs a hundred times what accepting does: with TLS there is nothing to gain.
        churn = not self._tls and ended >= CHURN_LEAST and ended >= CHURN_RATIO * self._load()
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
            server = await self._open_server(self._sock.dup(), self._made_without_gate, self._share)
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
            siblings = self._siblings()
            if siblings and load > 2 * min(siblings) + FAR_MORE:
                self._loop.call_soon(self._back_to_the_gate)
        return self._factory()

    def _back_to_the_gate(self) -> None:
        server, self._own_server = self._own_server, None
        if server is not None:
            for sock in server.sockets:
                self._loop.remove_reader(sock.fileno())
            self._loop.call_soon(self._close_later, server, SETTING_UP)
            self._resume()

    def _close_later(self, server: Any, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._close_later, server, turns - 1)
        else:
            server.close()

    def _close_own_server(self) -> None:
        server, self._own_server = self._own_server, None
        if server is not None:
            server.close()

    # --- the gate ----------------------------------------------------------------------------

    def _readable(self) -> None:
        siblings = self._siblings()
        if not siblings:
            super()._readable()
            return
        least = min(siblings)
        if self._load() > least + max(1, least // 8) and self._steps_back < MAX_STEPS_BACK:
            self._steps_back += 1
            self._pause(STEP_BACK)
            return
        self._steps_back = 0
        before, self._taken_at = self._taken_at, microseconds()
        self._take(self._sock, self._share() if self._taken_at - before > LONG_TURN * 1e6 else 1)

    def _share(self) -> int:
        """Half of this worker's part of those that wait; one where the kernel does not tell how many.

        Half, because its siblings look as well: who takes all that would be its part has too many when they have theirs.
        """
        waiting, _ = accept_queue(self._sock) or (1, 0)
        accepting = len(self._siblings()) + 1
        return max(1, min(ALONE_BATCH, waiting // (2 * accepting)))

    def _load(self) -> int:
        return len(self._state.connections) + len(self._attaching)

    def _siblings(self) -> list[int]:
        """How many connections each accepting sibling has.

        This worker's own row is left out: its tick is old when the event loop has stood still, and whether it
        accepts yet is written last. Neither makes it alone.
        """
        now = microseconds()
        accepting = self._scoreboard.column(Cell.ACCEPTING)
        ticks = self._scoreboard.column(Cell.LOOP_TICK)
        counts = self._scoreboard.column(Cell.CONNECTIONS)
        own = self._row.index
        return [
            count
            for index, (takes, tick, count) in enumerate(zip(accepting, ticks, counts, strict=False))
            if takes and now - tick < STALE and index not in (0, own)
        ]
