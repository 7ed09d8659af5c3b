"""What the kernel tells of connections, and what it has left for them."""

from __future__ import annotations

import errno
import os
import socket
import sys

if sys.platform != "win32":
    import fcntl
    import termios

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# What accept(2) says where there are no descriptors or no memory for a connection; then accepting pauses for this long,
# in seconds: what is queued stays readable, and would be tried again and again.
SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
SHORTAGE_PAUSE = 0.2
# The part of a process's descriptors that may be connections: the application has files and connections of its own.
CONNECTION_SHARE = 0.9


def received_bytes(fd: int) -> int | None:
    """How many bytes have come on a TCP connection; None where the system does not tell."""
    return _from_tcp_info(fd, 128)


def acknowledged_bytes(fd: int) -> int | None:
    """How many of the bytes sent on a TCP connection have arrived; None where the system does not tell."""
    return _from_tcp_info(fd, 120)


def queued_bytes(fd: int) -> int:
    """How many bytes the kernel holds for the peer of a connection; 0 as well where it does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        # SIOCOUTQ of tcp(7) and unix(7), which is this number.
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _from_tcp_info(fd: int, offset: int) -> int | None:
    """A number out of Linux' struct tcp_info (linux/tcp.h), where there is one and the kernel has it."""
    if sys.platform != "linux":
        return None
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    except OSError:
        return None
    return int.from_bytes(info[offset : offset + 8], sys.byteorder) if len(info) >= offset + 8 else None


def connections_at_most() -> int:
    """How many connections leave the application descriptors of its own."""
    if resource is None:
        return sys.maxsize
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, int(limit * CONNECTION_SHARE))
