"""Listening sockets: what a bind address means, opening and adopting, and who may unlink a socket file.

An address is one of HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N and systemd:NAME (systemd:NAME:2 is the second of several
with this name). A socket that was opened here is ours: its file is removed when it closes. An inherited one belongs to
whoever passed it in and is only closed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Literal

if sys.platform != "win32":
    import fcntl
    import termios

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# sd_listen_fds(3): the first inherited descriptor.
SYSTEMD_FIRST_FD = 3
# What systemd tells the process that it starts, and nobody else: sd_listen_fds(3), sd_notify(3),
# sd_watchdog_enabled(3), systemd.exec(5).
ACTIVATION_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
# The passed sockets that the program before an upgrade served on, as bind addresses, one in a line.
HANDED_BINDS = "UVICORN_HANDOVER_BINDS"
# Names of sockets that are no socket unit's: those that a master has put into the file descriptor store, and, while
# addresses are being opened, those that have been taken.
STORED = "uvicorn/"
_TAKEN = "uvicorn/taken/"

_BRACKETED = re.compile(r"\[([^\]]*)\]:([0-9]+)\Z")
_HOST_PORT = re.compile(r"([^:/]*):([0-9]+)\Z")
_SYSTEMD = re.compile(r"systemd:([^:]+)(?::([1-9][0-9]*))?\Z")

# What accept(2) says where there are no descriptors or no memory for a connection; then accepting pauses for this long,
# in seconds: what is queued stays readable, and would be tried again and again.
SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
SHORTAGE_PAUSE = 0.2

# The part of a process's descriptors that may be connections: the application has files and connections of its own.
CONNECTION_SHARE = 0.9

HAS_UNIX = hasattr(socket, "AF_UNIX")


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


class BindError(Exception):
    """A listening socket cannot be had; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """One bind address, taken apart.

    Attributes:
        kind: What it is.
        host, port: For "tcp".
        name: The path of "unix" (a leading @ means the abstract namespace), the name of "systemd".
        fd: For "fd".
        index: For "systemd": which of several sockets with this name, from 1; 0 for the only one.
        only_v6: For "tcp" on all IPv6 addresses: leave IPv4 to another socket; see `shared_with_ipv4`.
    """

    kind: Literal["tcp", "unix", "fd", "systemd"]
    host: str = ""
    port: int = 0
    name: str = ""
    fd: int = -1
    index: int = 0
    only_v6: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.kind == "tcp":
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        return f"{self.kind}:{self.name}:{self.index}" if self.index else f"{self.kind}:{self.name}"


def parse_bind(text: str) -> Address:
    """The address that a bind text means.

    Raises:
        ValueError: It means none.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//") if text.startswith("unix:///") else text[5:]
        if path:
            return Address("unix", name=path)
    elif text.startswith("systemd:"):
        if match := _SYSTEMD.match(text):
            return Address("systemd", name=match[1], index=int(match[2] or 0))
    elif text.startswith("fd://"):
        if text[5:].isdecimal():
            return Address("fd", fd=int(text[5:]))
    else:
        match = _BRACKETED.match(text) or _HOST_PORT.match(text)
        if match and int(match[2]) <= 65535:
            return Address("tcp", host=match[1], port=int(match[2]))
    raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME.")


def shared_with_ipv4(addresses: Iterable[Address]) -> list[Address]:
    """The addresses, each once, with [::] for IPv6 alone where another one has its port for IPv4.

    By itself [::] takes IPv4 as well, which most who write it mean, and then nobody else can have the port.
    """
    addresses = list(dict.fromkeys(addresses))
    ipv4 = {each.port for each in addresses if each.kind == "tcp" and ":" not in each.host}
    return [
        replace(each, only_v6=True) if _is_all_of_ipv6(each) and each.port in ipv4 else each
        for each in addresses
    ]


def _is_all_of_ipv6(address: Address) -> bool:
    return address.kind == "tcp" and ":" in address.host and not address.host.strip("0:")


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
        self.sock.close()
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
    sock = socket.socket(_family_of(address.host), socket.SOCK_STREAM)
    try:
        if _is_all_of_ipv6(address):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.only_v6)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.host, address.port))
    except OSError as exc:
        sock.close()
        raise BindError(f"cannot bind to {address}: {explain(exc, address.port)}") from exc
    sock.set_inheritable(True)
    return Listener(sock, address, ours=True)


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
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The file appears with its final rights: with a umask of its own there is no moment in which others apply.
    previous = os.umask(0o777 & ~mode) if mode is not None else None
    try:
        sock.bind(path)
    except OSError as exc:
        sock.close()
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
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass  # nobody listens: left behind by a server that was killed
        except OSError as exc:
            raise BindError(f"cannot bind to unix:{path}: {explain(exc)}") from exc
        else:
            raise BindError(f"cannot bind to unix:{path}: in use by a running server.")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return stat.S_IMODE(found.st_mode)


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
            os.close(copy)
            raise
    except OSError as exc:
        raise BindError(f"file descriptor {fd} is no socket: {exc.strerror}.") from exc
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise BindError(f"file descriptor {fd} is a socket, but not a stream socket.")
    sock.set_inheritable(True)
    return sock


# --- sockets that systemd passes in ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """One socket that systemd has passed to this process.

    Attributes:
        name: Its FileDescriptorName=, by default that of the socket unit.
        taken: Whether somebody serves on it already.
    """

    name: str
    fd: int
    taken: bool = False


def passed_sockets(environ: Mapping[str, str]) -> list[PassedSocket]:
    """The sockets that systemd has passed to this process, in order (sd_listen_fds_with_names(3))."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (int(count) - len(names))
    return [
        PassedSocket(name.removeprefix(_TAKEN) or "unknown", SYSTEMD_FIRST_FD + i, name.startswith(_TAKEN))
        for i, name in enumerate(names[: int(count)])
    ]


def passed_binds(environ: Mapping[str, str]) -> list[str]:
    """The bind addresses of all passed sockets, for a server that was told no address.

    Raises:
        BindError: What systemd says that it has passed is not there.
    """
    if HANDED_BINDS in environ:
        return environ[HANDED_BINDS].splitlines()
    passed = passed_sockets(environ)
    for each in passed:
        if not _is_socket(each.fd):
            raise BindError(
                f"LISTEN_FDS says that {len(passed)} sockets were passed in, but file descriptor {each.fd} is no "
                "socket; start the server by systemd, or without LISTEN_FDS and LISTEN_PID."
            )
    names = [each.name for each in passed if not each.name.startswith(STORED)]
    binds = []
    for i, name in enumerate(names):
        index = names[: i + 1].count(name) if names.count(name) > 1 else 0
        binds.append(str(Address("systemd", name=name, index=index)))
    return binds


def take_passed(address: Address, environ: MutableMapping[str, str]) -> Listener | None:
    """The passed socket that is meant by the address, by its name or its own address; None where there is none.

    Each is given away once: that it has been is noted in the environment, beside what systemd says of it.
    """
    passed = passed_sockets(environ)
    for i, each in enumerate(passed):
        if each.taken or each.name.startswith(STORED) or not _is_meant(address, i, passed):
            continue
        return Listener(take_passed_fd(each.fd, environ), address, ours=False)
    return None


def take_passed_fd(fd: int, environ: MutableMapping[str, str]) -> socket.socket:
    """The passed socket with this descriptor.

    Raises:
        BindError: It is none that can be listened on.
    """
    sock = adopt_fd(fd)
    environ["LISTEN_FDNAMES"] = ":".join(
        f"{_TAKEN}{each.name}" if each.taken or each.fd == fd else each.name
        for each in passed_sockets(environ)
    )
    return sock


def release_passed(environ: MutableMapping[str, str]) -> list[str]:
    """Every address is open: close the descriptors that systemd has passed, and forget them.

    What is served on has a copy of its own; a descriptor is closed, a socket is never shut down.

    Returns:
        Those that nobody serves on, in words.
    """
    unused = []
    for each in passed_sockets(environ):
        if not _is_socket(each.fd):
            continue
        if not each.taken and not each.name.startswith(STORED):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(each.fd)) as sock:
                unused.append(f"{each.name} ({sock.getsockname()!r})")
        os.close(each.fd)
    forget_systemd(environ)
    return unused


def forget_systemd(environ: MutableMapping[str, str]) -> None:
    """Take systemd's variables out of the environment: what they say is for us, not for our children."""
    for name in (*ACTIVATION_VARIABLES, *NOTIFY_VARIABLES, HANDED_BINDS):
        environ.pop(name, None)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def _is_meant(address: Address, place: int, passed: list[PassedSocket]) -> bool:
    """Whether an address means the passed socket at this place."""
    each = passed[place]
    if address.kind == "fd":
        return each.fd == address.fd
    if address.kind == "systemd":
        same = [i for i, other in enumerate(passed) if other.name == address.name]
        return same[address.index - 1 : address.index] == [place] if address.index else same == [place]
    try:
        with socket.socket(fileno=os.dup(each.fd)) as sock:
            return _is_bound_to(sock, address)
    except OSError:
        return False


def _is_bound_to(sock: socket.socket, address: Address) -> bool:
    bound = sock.getsockname()
    if HAS_UNIX and sock.family == socket.AF_UNIX:
        path = "@" + bound[1:].decode(errors="replace") if isinstance(bound, bytes) else bound
        return address.kind == "unix" and path == address.name
    if address.kind != "tcp" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if not address.port or bound[1] != address.port:
        return False
    everywhere = ("", "0.0.0.0", "::")  # noqa: S104 - to compare with, not to bind to
    if address.host in everywhere:
        return bound[0] in everywhere
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return bound[0] in {info[4][0] for info in found}


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


def connections_at_most() -> int:
    """How many connections leave the application descriptors of its own."""
    if resource is None:
        return sys.maxsize
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, int(limit * CONNECTION_SHARE))
