"""What somebody around a server is told and asked by it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.server import Server

# The ticker's usual period, in seconds.
TICK = 1.0

logger = logging.getLogger("uvicorn.error")


class ServerHooks:
    """What somebody around the server wants to know or decide. This one wants nothing.

    A worker under a master has hooks of its own (`uvicorn.worker.runtime`).
    """

    # Whether a second SIGINT stops the waiting for requests in flight. A terminal's Ctrl-C reaches a worker as well as its
    # master, which has told the worker to leave perhaps just before, and which alone knows that it was the first one.
    interrupt_hurries = True

    # Whether the whole service stops with this server: the accept queue is emptied and idle connections are closed.
    # Else siblings go on, and both are left alone.
    def final(self) -> bool:
        return True

    # Whether the listening sockets end here, so that what is queued on them would be lost.
    def empties_queue(self) -> bool:
        return self.final()

    # A server object for an inherited listening socket; None for the event loop's own, which `open_server` makes.
    def acceptor(
        self, server: Server, sock: socket.socket, factory: Callable[[], Any], open_server: Callable[..., Any]
    ) -> Any | None:
        return None

    # Whether nobody else accepts on inherited sockets for which there is no server object.
    def accepts_alone(self) -> bool:
        return False

    # What systemd has said of sockets that it has passed in.
    def passed(self) -> MutableMapping[str, str]:
        return os.environ

    def started(self, server: Server) -> None:
        """The server accepts connections."""

    def tick(self, server: Server, now: float) -> None:
        """The ticker has ticked."""

    def stopped_accepting(self, server: Server) -> None:
        """Its listening sockets are closed."""

    def finished(self, server: Server) -> None:
        """Nothing is in flight any more; the application's shutdown is over."""

    def shortest_period(self) -> float:
        """The ticker ticks at least this often, in seconds."""
        return TICK

    def request_limit_reached(self, server: Server, limit: int) -> None:
        """`limit_max_requests` requests have been answered."""
        logger.warning("Maximum request limit of %d exceeded. Terminating process.", limit)
        server.should_exit = True

    def shutdown_delay(self, server: Server) -> float:
        """How long to keep serving after the signal to stop."""
        return server.config.shutdown_delay
