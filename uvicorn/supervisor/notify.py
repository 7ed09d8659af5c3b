"""The service manager's side of the master: the notify protocol of systemd and its file descriptor store.

What is said, and when, is decided in `notices.py`; here it is sent, as datagrams to $NOTIFY_SOCKET (sd_notify(3)).
Nothing here ever blocks or raises: the service does not depend on anybody listening. The first failure is a warning.
"""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from urllib.parse import quote, unquote

from uvicorn._addresses import Address, BindError, parse_bind
from uvicorn._closing import close_quietly
from uvicorn._listener import Listener, inode_of
from uvicorn._passed import HANDED_BINDS, NOTIFY_VARIABLES, STORED, passed_sockets, take_passed_fd
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.listeners import Key, ListenerSet, keys_for
from uvicorn.supervisor.notices import Notices
from uvicorn.supervisor.plan import Plan
from uvicorn.supervisor.pool import NEVER
from uvicorn.supervisor.state import State

# A name in the store may have so many characters (sd_pid_notify_with_fds(3)).
NAME_LENGTH = 255

logger = logging.getLogger("uvicorn.error")


class Notifier:
    """Sends datagrams to the service manager, if there is one.

    Args:
        path: $NOTIFY_SOCKET: a path, or a name with a leading @; "" where nobody listens.
    """

    def __init__(self, path: str = "") -> None:
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._path = path
        self._has_warned = False
        if path and not path.startswith(("/", "@")):
            self._address = ""
            self._warn("only UNIX domain sockets are known here")

    @property
    def is_wanted(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._address)

    def send(self, *lines: str, fds: Sequence[int] = ()) -> None:
        """Send lines as one datagram, with copies of descriptors; what cannot be sent at once is lost."""
        if not lines or not self._address:
            return
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendmsg(["\n".join(lines).encode("utf-8", "replace")], ancillary, 0, self._address)
        except (OSError, ValueError) as exc:
            self._warn(str(getattr(exc, "strerror", None) or exc))

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The service manager cannot be told what happens here (NOTIFY_SOCKET=%s: %s); serving on.",
                self._path,
                why,
            )


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """How often the service manager wants a sign of life of this process, in seconds (sd_watchdog_enabled(3))."""
    period = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID") not in (None, "", str(os.getpid())):
        return None
    return int(period) / 1_000_000 if period.isdecimal() and int(period) else None


def stored_name(key: Key) -> str:
    """What a listener is called in the store."""
    return f"{STORED}{key.slot}/{quote(str(key.address), safe='/[]@')}"


def has_stored(environ: Mapping[str, str]) -> bool:
    """Whether a master before has left sockets in the store."""
    return any(each.name.startswith(STORED) for each in passed_sockets(environ))


class ServiceManager:
    """Whoever has started the master, as the master sees it.

    Args:
        environ: What it has been started with; copied as far as the next program of an upgrade needs it.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = environ or {}
        self._environ = {name: environ[name] for name in NOTIFY_VARIABLES if name in environ}
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = watchdog_period(environ)
        self._notices = Notices(self._watchdog)
        capacity = environ.get("FDSTORE", "")
        self._capacity = int(capacity) if capacity.isdecimal() and self._notifier.is_wanted else 0
        self._stored: dict[str, socket.socket | None] = {}
        self._is_too_small = False

    def took_over(self) -> None:
        """This is the program after an upgrade: the service manager knows the service as reloading."""
        self._notices = Notices(self._watchdog, adopted=True)

    def after(self, now: float, state: State, decided: Sequence[Action]) -> None:
        """Tell what follows from an event."""
        if self._notifier.is_wanted:
            self._notifier.send(*self._notices.after(now, state, decided))

    def next_deadline(self) -> float:
        return self._notices.next_deadline() if self._notifier.is_wanted else NEVER

    def for_next_program(self, addresses: Iterable[Address]) -> dict[str, str]:
        """The variables that the program after an upgrade is started with, besides our own.

        Args:
            addresses: Those of the sockets that it gets.
        """
        binds = [str(address) for address in addresses if address.kind == "systemd"]
        return {**self._environ, HANDED_BINDS: "\n".join(binds)} if binds else dict(self._environ)

    # --- the file descriptor store -----------------------------------------------------------

    def take_stored(self, listeners: ListenerSet, plan: Plan, environ: MutableMapping[str, str]) -> None:
        """Take the sockets that a master before has left in the store, as far as the plan has their addresses.

        They come with what has been queued on them since. The others leave the store with the next `keep`.
        """
        wanted = {key for slot in range(1, plan.spec.size + 1) for key in keys_for(plan, slot)}
        for each in passed_sockets(environ):
            if not each.name.startswith(STORED) or each.taken:
                continue
            self._stored[each.name] = None
            slot, _, text = each.name.removeprefix(STORED).partition("/")
            try:
                address = parse_bind(unquote(text))
                key = Key(address, int(slot))
                if key not in wanted or key in listeners.held:
                    continue
                inode = inode_of(address.name) if address.kind == "unix" else None
                if address.kind == "unix" and inode is None and not address.name.startswith("@"):
                    continue  # its file is gone, and nobody would find it
                sock = take_passed_fd(each.fd, environ)
            except (ValueError, BindError) as exc:
                logger.warning("A stored socket (%s) cannot be used: %s", each.name, exc)
                continue
            listeners.take(key, Listener(sock, address, ours=True, inode=inode))
            self._stored[each.name] = sock
            logger.info("Took %s over from the service manager's store.", address)
            if key.slot <= 1:
                plan.announce(sock)

    def keep(self, listeners: ListenerSet) -> None:
        """Let the store hold what we hold, so that no queue is lost with this process.

        Sockets that were passed in are in safe hands already.
        """
        if not self._capacity:
            return
        held = {stored_name(key): each.sock for key, each in listeners.held.items() if each.ours}
        for name in [
            name for name, sock in self._stored.items() if sock is None or sock is not held.get(name)
        ]:
            self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={name}")
            del self._stored[name]
        for name, sock in held.items():
            if name in self._stored or len(name) > NAME_LENGTH:
                continue
            if len(self._stored) >= self._capacity:
                self._warn_of_capacity(len(held))
                break
            self._notifier.send("FDSTORE=1", f"FDNAME={name}", fds=[sock.fileno()])
            self._stored[name] = sock

    def _warn_of_capacity(self, count: int) -> None:
        if not self._is_too_small:
            self._is_too_small = True
            logger.warning(
                "The service manager's store has room for %d of %d sockets: the queues of the others are lost if this "
                "process crashes. Raise FileDescriptorStoreMax= in the unit.",
                self._capacity,
                count,
            )

    def leave(self, listeners: ListenerSet) -> None:
        """The master ends by a fault of its own: what the store has goes on queueing connections for the next one."""
        if self._capacity:
            for listener in listeners.held.values():
                close_quietly(listener.sock)
            listeners.held.clear()
