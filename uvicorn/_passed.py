"""The sockets that systemd has passed in, by name or address (sd_listen_fds(3)). Each is given away once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from uvicorn._addresses import Address, BindError
from uvicorn._closing import close_quietly
from uvicorn._listener import HAS_UNIX, Listener, adopt_fd

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
        close_quietly(each.fd)
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
