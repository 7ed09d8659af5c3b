"""Accepting on a listening socket by hand, and setting up what has been accepted.

An event loop's own server says nothing of a TLS handshake that fails, does not tell how many are going on, and leaves
them to themselves when the server stops. So TLS is accepted here; and so is whatever has to be accepted by choice
(`uvicorn.worker.accept`), or would have to wait for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from uvicorn._kernel import SHORTAGE, SHORTAGE_PAUSE, received_bytes

# How many connections one wake-up takes where nobody else could.
ALONE_BATCH = 64
# After so many seconds without a connection, who takes one looks for more: the event loop's turns are long, or there was
# none, and then to look costs nobody anything.
LONG_TURN = 0.001
# One more for each quarter of a millisecond. By hand a connection costs 20 us more than by the event loop's server; taken
# without measure, 256 clients with a connection for each request would keep each other's turns long, and pay that for all.
TIME_FOR_ONE = 0.00025
# So many turns of the event loop asyncio's server needs to set up what it has accepted; closed earlier, it drops it.
SETTING_UP = 3
# How long the event loop waits for a client's close_notify, in seconds. It would count while a slow client still takes
# its response, and cut that; the connections themselves see to it that nobody waits for nothing (`uvicorn.protocols`).
CLOSE_NOTIFY_LIMIT = 3600.0

logger = logging.getLogger("uvicorn.error")


class Attacher:
    """Takes connections from listening sockets, and sets them up.

    Args:
        loop: The event loop.
        factory: Makes the protocol of a connection.
        tls: The TLS context, or None.
        handshake_timeout: Seconds for the TLS handshake.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        tls: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        self._loop = loop
        self._factory = factory
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls,
                "ssl_handshake_timeout": handshake_timeout,
                "ssl_shutdown_timeout": CLOSE_NOTIFY_LIMIT,
            }
        self._attaching: set[asyncio.Task[None]] = set()
        self._end_timer: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """Accept no more. Those that are being attached are not affected."""
        self._closed = True

    @property
    def attaching(self) -> int:
        """How many connections have been accepted and are not set up yet."""
        return len(self._attaching)

    async def wait_closed(self) -> None:
        if self._attaching:
            await asyncio.wait(self._attaching)

    def end_attaching(self, seconds: float) -> None:
        """Those that are not set up after so much time are closed; the first time that is said holds."""
        if self._end_timer is None:
            self._end_timer = self._loop.call_later(seconds, self.abort_attaching)

    def abort_attaching(self) -> None:
        """Close those that are not set up yet."""
        for task in self._attaching:
            task.cancel()

    def _attached_one(self) -> None:
        """The number of those that are being attached has changed."""

    # --- accepting ---------------------------------------------------------------------------

    def _take(self, sock: socket.socket, most: float = math.inf) -> None:
        """Take what waits, so many at most."""
        while most > 0 and self._accept(sock):
            most -= 1

    def _accept(self, listening: socket.socket) -> bool:
        """Take one connection; False where there is none to take."""
        try:
            sock, peer = listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True  # it has gone again; there may be more
        except OSError as exc:
            self._cannot_accept(exc)
            return False
        self._could_accept()
        sock.setblocking(False)
        if listening.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._attach(sock, peer))
        self._attaching.add(task)
        task.add_done_callback(self._attached)
        self._attached_one()
        return True

    def _could_accept(self) -> None:
        """The kernel has given one."""

    def _cannot_accept(self, exc: OSError) -> None:
        """The kernel does not give what waits."""

    # --- setting up --------------------------------------------------------------------------

    async def _attach(self, sock: socket.socket, peer: Any) -> None:
        # The event loop closes the socket before it tells of a failure; a copy can still be asked what has come.
        witness: socket.socket | None = None
        try:
            if self._tls:
                witness = sock.dup()
            await self._loop.connect_accepted_socket(self._factory, sock, **self._tls)
        except (TimeoutError, OSError) as exc:
            # ssl.SSLError is an OSError: what came was no TLS, or not ours.
            sock.close()
            if witness is None:
                logger.info("A connection from %s could not be set up: %s", peer_text(peer), exc)
            elif isinstance(exc, _TOO_LATE) or _has_spoken(witness):
                # A client that connects and goes without a word is no news: monitoring does that all day.
                logger.info("TLS handshake with %s failed: %s", peer_text(peer), handshake_failure(exc))
        except BaseException:
            sock.close()
            raise
        finally:
            if witness is not None:
                witness.close()

    def _attached(self, task: asyncio.Task[None]) -> None:
        self._attaching.discard(task)
        self._attached_one()
        if not self._attaching and self._closed and self._end_timer is not None:
            self._end_timer.cancel()
        if not task.cancelled() and task.exception() is not None:
            logger.error("A connection could not be set up.", exc_info=task.exception())


class Acceptor(Attacher):
    """Accepts on one socket; has the face of an asyncio server.

    Args:
        loop: The event loop.
        sock: The listening socket.
        factory: Makes the protocol of a connection.
        tls: The TLS context, or None.
        handshake_timeout: Seconds for the TLS handshake.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], Any],
        tls: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        super().__init__(loop, factory, tls, handshake_timeout)
        self._sock = sock
        self._timer: asyncio.TimerHandle | None = None
        self._short = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def sockets(self) -> tuple[Any, ...]:
        return () if self._closed else (self._sock,)

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._pause()

    def empty_queue(self) -> None:
        """Take all connections that the kernel has taken for us."""
        self._take(self._sock)

    def _readable(self) -> None:
        self._take(self._sock, ALONE_BATCH)

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

    def _could_accept(self) -> None:
        self._short = False

    def _cannot_accept(self, exc: OSError) -> None:
        if exc.errno == errno.EINVAL:
            self._pause()  # the master has shut the socket down: nothing comes any more
        elif exc.errno in SHORTAGE:
            if not self._short:
                self._short = True
                logger.error("Cannot accept: %s. Trying again every %s s.", exc.strerror, SHORTAGE_PAUSE)
            if not self._closed:
                self._pause(SHORTAGE_PAUSE)


class Helper(Attacher):
    """Helps the event loop's own server to accept where requests take long.

    That server is the cheapest way. But uvloop's takes one connection in each turn of the loop, as libuv does since 1.45.
    Where 200 busy connections make a turn last for 20 ms, the last of 256 new ones would be looked at after 5 seconds. So
    who is taken after a long turn brings along those that wait behind it.

    Args:
        loop: The event loop.
        factory: Makes the protocol of a connection.
        share: How many of those that wait on a socket may be taken here: others may accept there as well.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        share: Callable[[], int],
    ) -> None:
        super().__init__(loop, factory, None, 0.0)
        self._share = share
        self._server: Any = None
        self._taken_at = 0.0

    def begin(self, server: Any) -> None:
        """The event loop's server, which has `made` for its factory."""
        self._server = server

    @property
    def needed(self) -> bool:
        """Whether its server accepts, or connections are being set up."""
        return bool(self._attaching) or (not self._closed and bool(self._server.sockets))

    def made(self) -> Any:
        """The protocol of a connection that the event loop's server has taken."""
        before, self._taken_at = self._taken_at, time.monotonic()
        passed = self._taken_at - before
        if passed > LONG_TURN:
            self._take_along(min(self._share(), int(passed / TIME_FOR_ONE)))
        return self._factory()

    def empty_queue(self) -> None:
        """Take all connections that the kernel has taken for us."""
        self._take_along(math.inf)

    def _take_along(self, most: float) -> None:
        if self._closed or self._server is None:
            return
        for face in self._server.sockets:
            # The event loop shows its sockets behind a face that only looks like one, and closes them when it likes.
            sock = socket.socket(fileno=face.fileno())
            try:
                self._take(sock, most)
            finally:
                sock.detach()


# What an event loop raises where the handshake's time is over.
_TOO_LATE = (ConnectionAbortedError, TimeoutError)


def _has_spoken(sock: socket.socket) -> bool:
    """Whether anything has come on the connection; the kernel counts its end as one byte."""
    received = received_bytes(sock.fileno())
    return received is None or received > 1


def peer_text(peer: Any) -> str:
    """An address as accept() gives it, for the log."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"{peer[0]}:{peer[1]}"
    return "a peer without address"


# What OpenSSL's reasons mean for who reads the log.
_REASONS = {
    "HTTP_REQUEST": "a plain HTTP request came in place of TLS.",
    "HTTPS_PROXY_REQUEST": "a proxy request came in place of TLS.",
    "WRONG_VERSION_NUMBER": "what came is no TLS.",
    "UNEXPECTED_MESSAGE": "what came is no TLS handshake.",
    "NO_SHARED_CIPHER": "client and server have no cipher in common.",
    "UNSUPPORTED_PROTOCOL": "the client speaks no TLS version that is served here.",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client gave no certificate.",
}


def handshake_failure(exc: BaseException) -> str:
    """What went wrong with a handshake, in one sentence. Nothing in it comes from the client."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted ({exc.verify_message})."
    if isinstance(exc, ssl.SSLEOFError):
        return "the client has gone."
    if isinstance(exc, ssl.SSLError):
        reason = exc.reason or "unknown reason"
        return _REASONS.get(reason, f"{reason.lower().replace('_', ' ')}.")
    if isinstance(exc, (ConnectionResetError, BrokenPipeError)):
        return "the client has gone."
    if isinstance(exc, _TOO_LATE):
        return "it was not complete in time."
    return f"{getattr(exc, 'strerror', None) or type(exc).__name__}."
