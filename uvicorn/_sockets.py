"""Opening listening sockets: binding to an address, or taking the one that was passed in for it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass

from uvicorn._addresses import Address, BindError, is_all_of_ipv6
from uvicorn._closing import close_quietly
from uvicorn._listener import HAS_UNIX, Listener, adopt_fd, inode_of
from uvicorn._passed import STORED, passed_sockets, take_passed

# What 0.37.0 gives the file of a UNIX socket.
SOCKET_MODE = 0o666


@dataclass(frozen=True, slots=True)
class SocketRights:
    """What becomes of the file of a UNIX socket that is made here.

    Attributes:
        uid, gid: Whose it is; None for who makes it.
        mode: Who may connect; None for those of the file that was there before, else everybody.
    """

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


USUAL_RIGHTS = SocketRights()


def open_listener(
    address: Address,
    backlog: int,
    reuse_port: bool = False,
    environ: MutableMapping[str, str] = os.environ,
    rights: SocketRights = SocketRights(),
) -> Listener:
    """A listening, inheritable socket for the address: the one that systemd has passed in for it, or a new one.

    Raises:
        BindError: It cannot be had.
    """
    listener = bind_only(address, reuse_port, environ, rights)
    try:
        start_listening(listener.sock, backlog)
    except OSError as exc:
        listener.close()
        raise BindError(f"cannot listen on {address}: {explain(exc)}") from exc
    return listener


def open_private(address: Address, backlog: int) -> Listener:
    """As `open_listener`, for a UNIX socket that its owner alone may connect to, from its first moment.

    Raises:
        BindError: It cannot be had.
    """
    _make_room(address.name)
    sock = _bound_unix(address.name, 0o600, address)
    listener = Listener(sock, address, ours=True, inode=inode_of(address.name))
    try:
        start_listening(sock, backlog)
    except OSError as exc:
        listener.close()
        raise BindError(f"cannot listen on {address}: {explain(exc)}") from exc
    return listener


def start_listening(sock: socket.socket, backlog: int) -> None:
    """Listen, unless the socket that was passed in already does."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.listen(backlog)


def bind_only(
    address: Address,
    reuse_port: bool = False,
    environ: MutableMapping[str, str] = os.environ,
    rights: SocketRights = SocketRights(),
) -> Listener:
    """As `open_listener`, but the socket does not listen yet, unless it was passed in that way."""
    passed = take_passed(address, environ)
    if passed is not None:
        return passed
    if address.kind == "tcp":
        return _bind_tcp(address, reuse_port)
    if address.kind == "unix":
        return _bind_unix(address, rights)
    if address.kind == "fd":
        return Listener(adopt_fd(address.fd), address, ours=False)
    names = [each.name for each in passed_sockets(environ) if not each.name.startswith(STORED)]
    if address.name not in names:
        known = ", ".join(sorted(set(names))) or "none"
        raise BindError(f"systemd has passed no socket named {address.name!r} (it has passed: {known}).")
    # To serve on the first one alone would leave the clients of the others waiting.
    raise BindError(
        f"systemd has passed {names.count(address.name)} socket(s) named {address.name!r}: take each of them "
        f"({Address('systemd', name=address.name, index=1)} and so on), or give each a FileDescriptorName= of its own."
    )


def _bind_tcp(address: Address, reuse_port: bool) -> Listener:
    sock = _fresh(_family_of(address.host), address)
    try:
        if is_all_of_ipv6(address):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.only_v6)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.host, address.port))
    except OSError as exc:
        close_quietly(sock)
        raise BindError(f"cannot bind to {address}: {explain(exc, address.port)}") from exc
    sock.set_inheritable(True)
    return Listener(sock, address, ours=True)


def _fresh(family: socket.AddressFamily, address: Address) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise BindError(f"cannot bind to {address}: {explain(exc)}") from exc


def _family_of(host: str) -> socket.AddressFamily:
    """IPv4, unless the host is an address of IPv6 or a name that has none but such addresses."""
    if ":" in host:
        return socket.AF_INET6
    if host:
        try:
            families = {info[0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        except OSError:
            return socket.AF_INET  # binding says what is wrong
        if families == {socket.AF_INET6}:
            return socket.AF_INET6
    return socket.AF_INET


def _bind_unix(address: Address, rights: SocketRights) -> Listener:
    if not HAS_UNIX:  # pragma: no cover - Windows only
        raise BindError("this system has no UNIX domain sockets.")
    path = address.name
    if path.startswith("@"):
        return Listener(_bound_unix("\0" + path[1:], None, address), address, ours=True)
    before = _make_room(path)
    sock = _bound_unix(path, before if rights.mode is None else rights.mode, address)
    listener = Listener(sock, address, ours=True, inode=inode_of(path))
    if rights.uid is not None or rights.gid is not None:
        owner = [-1 if each is None else each for each in (rights.uid, rights.gid)]
        try:
            os.chown(path, *owner, follow_symlinks=False)
        except OSError as exc:
            listener.close()
            raise BindError(f"cannot give unix:{path} to another user: {explain(exc)}") from exc
    return listener


def _bound_unix(path: str, mode: int | None, address: Address) -> socket.socket:
    sock = _fresh(socket.AF_UNIX, address)
    # The file appears with its final rights: with a umask of its own there is no moment in which others apply.
    previous = os.umask(0o777 & ~mode) if mode is not None else None
    try:
        sock.bind(path)
    except OSError as exc:
        close_quietly(sock)
        raise BindError(f"cannot bind to {address}: {explain(exc)}") from exc
    finally:
        if previous is not None:
            os.umask(previous)
    sock.set_inheritable(True)
    return sock


def _make_room(path: str) -> int:
    """Remove a stale socket file; return the rights for the new one (those of the old one are kept).

    Raises:
        BindError: Something is there that is in use, or is no socket.
    """
    try:
        found = os.stat(path)
    except OSError:
        return SOCKET_MODE
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(
            f"cannot bind to unix:{path}: there is a file that is no socket; remove it or take another path."
        )
    probe = _fresh(socket.AF_UNIX, Address("unix", name=path))
    probe.settimeout(1)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        pass  # nobody listens: left behind by a server that was killed
    except OSError as exc:
        raise BindError(f"cannot bind to unix:{path}: {explain(exc)}") from exc
    else:
        raise BindError(f"cannot bind to unix:{path}: in use by a running server.")
    finally:
        close_quietly(probe)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return stat.S_IMODE(found.st_mode)


def explain(exc: OSError, port: int | None = None) -> str:
    """Why a bind failed, and what to do, in one sentence."""
    if exc.errno == errno.EADDRINUSE:
        return "address already in use; stop the server that uses it, or take another one."
    if exc.errno == errno.EACCES:
        return f"permission denied{privilege_hint(exc, port)}."
    if exc.errno == errno.EADDRNOTAVAIL:
        return "no interface of this machine has this address."
    if isinstance(exc, socket.gaierror):
        return f"the host name cannot be resolved ({exc.strerror})."
    return f"{(exc.strerror or str(exc)).lower()}."


def privilege_hint(exc: OSError, port: int | None) -> str:
    """What to do where a low port is refused; "" where that is not the reason."""
    if exc.errno != errno.EACCES or port is None or not 0 < port < 1024:
        return ""
    return (
        "; ports below 1024 need root, the capability CAP_NET_BIND_SERVICE, or a socket passed in by systemd"
    )
