"""A listening socket, and who may unlink its file: one that was opened here is ours, and its file goes when it closes.

An inherited one belongs to whoever passed it in and is only closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field

from uvicorn._addresses import Address, BindError
from uvicorn._closing import close_quietly

HAS_UNIX = hasattr(socket, "AF_UNIX")


@dataclass(slots=True)
class Listener:
    """One listening socket.

    Attributes:
        sock: The socket.
        address: The address it was asked for under.
        ours: Whether it was opened here; else it was passed in.
        inode: Of the socket's file, where we have made one.
    """

    sock: socket.socket
    address: Address
    ours: bool
    inode: tuple[int, int] | None = field(default=None)

    def close(self) -> None:
        """Close, and remove the socket's file where it is still the one that we have made."""
        close_quietly(self.sock)
        self.unlink()

    def unlink(self) -> None:
        if self.inode is not None:
            remove_socket_file(self.address.name, self.inode)
            self.inode = None

    def stop_accepting(self) -> None:
        """Refuse connections from now on, whoever else still holds a copy of the socket.

        shutdown(2) works on the socket itself, not on our descriptor of it: copies in forgotten children of a
        worker no longer keep the port. An inherited socket is its owner's to stop.
        """
        if self.ours:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.close()


def inode_of(path: str) -> tuple[int, int] | None:
    """Device and inode of a file, if there is one."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_socket_file(path: str, inode: tuple[int, int]) -> None:
    """Remove a socket's file if it is still the one with this device and inode."""
    if inode_of(path) == inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


def adopt_fd(fd: int) -> socket.socket:
    """The stream socket behind an inherited descriptor, family and all read from it.

    Raises:
        BindError: There is none.
    """
    try:
        copy = os.dup(fd)
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            close_quietly(copy)
            raise
    except OSError as exc:
        raise BindError(f"file descriptor {fd} is no socket: {exc.strerror}.") from exc
    if sock.type != socket.SOCK_STREAM:
        close_quietly(sock)
        raise BindError(f"file descriptor {fd} is a socket, but not a stream socket.")
    sock.set_inheritable(True)
    return sock


def url_of(sock: socket.socket, is_ssl: bool) -> str:
    """Where clients reach the socket, for people: an URL, or "unix socket PATH"."""
    if HAS_UNIX and sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        if isinstance(name, bytes):
            name = "@" + name[1:].decode(errors="replace")
        return f"unix socket {name}"
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if is_ssl else 'http'}://{host}:{port}"
