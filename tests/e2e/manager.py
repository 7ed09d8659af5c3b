"""A double of the service manager: the notify socket, what comes in on it, and the store for file descriptors."""

from __future__ import annotations

import array
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.e2e.harness import PATIENCE, POLL


class Manager:
    """Listens on a notify socket.

    Args:
        path: Where; with a leading @ in the abstract namespace.

    Attributes:
        messages: All datagrams so far, each as its lines.
        store: The descriptors that were stored and not removed, by name.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + self.path[1:] if self.path.startswith("@") else self.path)
        self.messages: list[dict[str, str]] = []
        self.at: list[float] = []
        self.store: dict[str, int] = {}

    def environ(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.path, **more}

    def receive(self, timeout: float) -> bool:
        """Take one datagram; whether there was one."""
        self.sock.settimeout(max(timeout, 0.001))
        try:
            data, ancillary, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(64))
        except TimeoutError:
            return False
        message = dict(line.split("=", 1) for line in data.decode().split("\n"))
        fds = array.array("i")
        for _, kind, content in ancillary:
            assert kind == socket.SCM_RIGHTS
            fds.frombytes(content)
        if "FDSTORE" in message:
            (self.store[message["FDNAME"]],) = fds
        elif "FDSTOREREMOVE" in message:
            os.close(self.store.pop(message["FDNAME"]))
        self.messages.append(message)
        self.at.append(time.monotonic())
        return True

    def wait(self, condition: Callable[[dict[str, str]], bool], what: str, start: int = 0) -> int:
        """Wait for a message; its place."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for i, message in enumerate(self.messages[start:], start):
                if condition(message):
                    return i
            assert time.monotonic() < deadline, f"no {what} among {self.messages[start:]}"
            self.receive(POLL)

    def wait_for(self, line: str, start: int = 0) -> int:
        """Wait for a line, from a place on; the place of its message."""
        name, _, value = line.partition("=")
        return self.wait(lambda message: message.get(name) == value, line, start)

    def drain(self) -> None:
        """Take what is there."""
        while self.receive(0):
            pass

    def changes(self) -> list[str]:
        """What has been said of the service's state, in order."""
        self.drain()
        return [
            name
            for message in self.messages
            for name in ("READY", "RELOADING", "STOPPING")
            if message.get(name) == "1"
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.sock.close()
        for fd in self.store.values():
            os.close(fd)


# Puts descriptors where sd_listen_fds(3) has them, and becomes another program: the part of systemd after the fork.
_PASS = """
import os, sys
names, *rest = sys.argv[1:]
fds = [int(fd) for fd in rest[: rest.index("--")]]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
command = rest[rest.index("--") + 1 :]
os.execv(command[0], command)
"""


def passing(**socks: socket.socket) -> dict[str, Any]:
    """Arguments for a `Service` to which these sockets are passed in, by name."""
    return passing_fds({name: sock.fileno() for name, sock in socks.items()})


def passing_fds(fds: Mapping[str, int]) -> dict[str, Any]:
    command = [sys.executable, "-c", _PASS, ":".join(fds), *map(str, fds.values()), "--"]
    return {"through": command, "pass_fds": list(fds.values())}
