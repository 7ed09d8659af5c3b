"""Who may connect to the control socket: the master's own user, and root.

The rights of the socket's file (0600) keep everybody else out already. This is the second lock: of a file whose rights
somebody has widened, or of a directory that was mounted elsewhere. The kernel says who the peer is; it is asked before a
byte of the peer's is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from uvicorn._kernel import SHORTAGE, SHORTAGE_PAUSE

# <sys/un.h> of macOS: struct xucred begins with a version and the user.
_LOCAL_PEERCRED = 1
_XUCRED = 76
# So many connections are taken in one turn of the event loop.
BATCH = 16
# So many that are refused at a time are told why, and get this many seconds to hear it.
MAX_REFUSALS = 16
REFUSAL_TIME = 1.0

# Where the application finds the peer's user in the scope's state.
PEER = "uvicorn.control.peer"


def peer_uid(sock: socket.socket) -> int | None:
    """The user on the other side of a UNIX connection; None where the system does not say."""
    try:
        if hasattr(socket, "SO_PEERCRED"):
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", data)[1])
        if sys.platform == "darwin":  # pragma: no cover - macOS only
            return int(struct.unpack_from("2I", sock.getsockopt(0, _LOCAL_PEERCRED, _XUCRED))[1])
    except OSError:
        pass
    return None


def refusal(uid: int | None) -> bytes:
    """The answer for a peer that may not command."""
    who = "an unknown user" if uid is None else f"user {uid}"
    text = f"The control socket answers its owner and root, not {who}."
    body = json.dumps({"ok": False, "text": text}).encode()
    head = (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d"
    )
    return b"%b\r\n\r\n%b" % (head % len(body), body)


class PeerAcceptor:
    """Accepts on the control socket; has the face of an asyncio server.

    Args:
        loop: The event loop.
        sock: The listening socket.
        factory: Makes the protocol of a connection.
        owner: The user that may connect besides root.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[..., Any],
        owner: int,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._factory = factory
        self._allowed = {0, owner}
        self._attaching: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        sock.setblocking(False)
        self._resume()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return () if self._closed else (self._sock,)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._sock.fileno())

    def _resume(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                sock, _ = self._sock.accept()
            except OSError as exc:
                if exc.errno in SHORTAGE:
                    # What is queued stays readable: without a pause this would turn the loop as fast as it can.
                    self._loop.remove_reader(self._sock.fileno())
                    self._timer = self._loop.call_later(SHORTAGE_PAUSE, self._resume)
                return
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        uid = peer_uid(sock)
        if uid in self._allowed:
            factory = functools.partial(self._factory, app_state={PEER: uid})
            task = self._loop.create_task(self._attach(factory, sock))
        elif len(self._attaching) < MAX_REFUSALS:
            task = self._loop.create_task(self._refuse(uid, sock))
        else:
            sock.close()
            return
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def _refuse(self, uid: int | None, sock: socket.socket) -> None:
        """Say why. What it sends is thrown away: closed with something unread, the answer would be lost."""
        with sock, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(REFUSAL_TIME):
                await self._loop.sock_sendall(sock, refusal(uid))
                sock.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(sock, 4096):
                    pass

    async def _attach(self, factory: Callable[[], Any], sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, sock)
        except OSError:
            sock.close()
