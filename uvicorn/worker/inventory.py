"""What importing an application has left behind that a fork does not copy, or that all workers would share.

A fork copies the calling thread alone, but open sockets and event loops for everybody; and child processes stay the mold's.
Each kind is told in one line, by name, with what to do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil

from uvicorn._forks import fork

# Of what is left in large numbers so many are named.
MAX_NAMES = 10

ADVICE = "Do it in the application's lifespan startup, which runs in every worker."


class Inventory:
    """Made before the import; asked afterwards.

    Args:
        proc: This process in /proc, where the system has it.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._sockets_before = set(self._sockets().values())

    def left_behind(self) -> list[str]:
        """Lines for the log."""
        gc.collect()  # what nobody has any more is closed by that
        lines = []
        if threads := self._threads():
            lines.append(
                f"Importing the application has left threads behind: {_named(threads)}. They do not run in any worker, "
                f"and a lock that one of them holds in the moment of a fork stays locked there. {ADVICE}"
            )
        loops = _event_loops()
        if loops:
            lines.append(
                f"Importing the application has left event loops behind: {_named(loops)}. Workers that use one would share "
                f"its descriptors. {ADVICE}"
            )
        # An event loop's own are told with it.
        if sockets := self._new_sockets(unnamed=not loops):
            lines.append(
                f"Importing the application has left connections behind: {_named(sockets)}. All workers share them, and "
                f"would read each other's answers. {ADVICE}"
            )
        if children := _children():
            lines.append(
                f"Importing the application has left processes behind: {_named(children)}. They are no worker's children, "
                f"and end with the mold, at the latest after a reload. {ADVICE}"
            )
        return lines

    # --- threads -----------------------------------------------------------------------------

    def _threads(self) -> list[str]:
        own = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        # The main thread's number is the process's; what `threading` knows of it dates from before the fork.
        known = {os.getpid(), *(thread.native_id for thread in own)}
        names = [f"{thread.name!r}" for thread in own]
        return names + [
            f"{name!r} (of a C library)" for tid, name in self._tasks().items() if tid not in known
        ]

    def _tasks(self) -> dict[int, str]:
        """Threads that stay over a fork, by their numbers. Libraries such as OpenBLAS end theirs before it and begin new
        ones when they need them: so the look is taken after a fork that does nothing."""
        with contextlib.suppress(OSError):
            os.waitpid(fork(lambda: 0, own_group=False), 0)
        found = {}
        with contextlib.suppress(OSError):
            for task in (self._proc / "task").iterdir():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    found[int(task.name)] = (task / "comm").read_text().strip()
        return found

    # --- sockets -----------------------------------------------------------------------------

    def _sockets(self) -> dict[int, str]:
        """Descriptors of sockets, and what the kernel calls each."""
        found = {}
        with contextlib.suppress(OSError):
            for entry in (self._proc / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(entry)
                    if target.startswith("socket:"):
                        found[int(entry.name)] = target
        return found

    def _new_sockets(self, unnamed: bool) -> list[str]:
        new = {name: fd for fd, name in sorted(self._sockets().items()) if name not in self._sockets_before}
        found = [described(fd) for fd in new.values()]
        return [text for text in found if unnamed or not text.startswith("unnamed")]


def described(fd: int) -> str:
    """A socket for people: from where to where."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        here, there = _address(sock.getsockname()), ""
        with contextlib.suppress(OSError):
            there = _address(sock.getpeername())
        kind = (
            "UDP "
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_DGRAM
            else ""
        )
        if not here and not there:
            return f"unnamed socket (descriptor {fd})"
        if there:
            return f"{kind}{here or 'unnamed'} → {there}"
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return f"{here} (listening)" if listens else f"{kind}{here}"
    return f"socket (descriptor {fd})"


def _address(name: object) -> str:
    if isinstance(name, tuple) and len(name) >= 2 and isinstance(name[0], str):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(name[0].partition("%")[0]).version == 6:
                return f"[{name[0]}]:{name[1]}"
        return f"{name[0]}:{name[1]}"
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace").replace("\0", "@", 1)
    return str(name) if name else ""


# --- loops and processes -----------------------------------------------------------------------


def _event_loops() -> list[str]:
    # By type: `isinstance` would ask objects that only stand for another one, and those may do anything.
    loops = [each for each in gc.get_objects() if issubclass(type(each), asyncio.AbstractEventLoop)]
    return [f"{type(loop).__module__}.{type(loop).__name__}" for loop in loops if not loop.is_closed()]


def _children() -> list[str]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{child.name()} (pid {child.pid})")
    return found


def _named(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
