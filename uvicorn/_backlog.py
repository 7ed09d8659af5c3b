"""How many connections wait to be accepted on a socket: asked of the kernel, which answers at once. Linux alone tells."""

from __future__ import annotations

import os
import socket
import struct
import sys

# <linux/tcp.h>: of a listening socket `tcpi_unacked` is the length of its accept queue, and `tcpi_sacked` its limit.
_TCP_LISTEN = 10
_TCP_INFO = struct.Struct("=B23x2I")

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>: the same of one UNIX socket, known by its inode.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = 0xFFFFFFFF
_MESSAGE = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBxxIIIII")
_ANSWER = struct.Struct("=BBBxIII")
_ATTRIBUTE = struct.Struct("=HH")


def accept_queue(sock: socket.socket) -> tuple[int, int] | None:
    """How many connections wait on a listening socket, and how many may; None where the kernel does not say."""
    if not sys.platform.startswith("linux"):
        return None  # pragma: no cover - not on Linux
    try:
        if sock.family == socket.AF_UNIX:
            return _unix_queue(os.fstat(sock.fileno()).st_ino)
        state, waiting, limit = _TCP_INFO.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        )
    except (OSError, struct.error):
        return None
    return (waiting, limit) if state == _TCP_LISTEN else None


def _unix_queue(inode: int) -> tuple[int, int] | None:
    request = _REQUEST.pack(
        socket.AF_UNIX, 0, _ANY_STATE, inode & 0xFFFFFFFF, _UDIAG_SHOW_RQLEN, _NO_COOKIE, _NO_COOKIE
    )
    head = _MESSAGE.pack(_MESSAGE.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(head + request, (0, 0))
        # The kernel has answered when sending returns.
        data = kernel.recv(4096)
    _, kind, *_ = _MESSAGE.unpack_from(data)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None  # an error: it does not know, or does not tell
    at = _MESSAGE.size + _ANSWER.size
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _UNIX_DIAG_RQLEN:
            waiting, limit = struct.unpack_from("=II", data, at + _ATTRIBUTE.size)
            return waiting, limit
        at += max(4, (size + 3) & ~3)
    return None
