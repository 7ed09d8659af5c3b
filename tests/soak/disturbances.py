"""What a service has to bear: reloads, recycling, killed workers, scaling, upgrades; at random, by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import Service
from tests.soak.ledger import Kill, Ledger

# How often each is chosen.
USUAL = {
    "reload": 3, "restart": 2, "leave": 1, "kill": 4, "more": 2, "fewer": 2, "reopen": 1, "storm": 1,
}  # fmt: skip
# An upgrade replaces the master's program, and with it what the master's memory is compared with.
WITH_UPGRADES = {**USUAL, "upgrade": 3}
FEWEST, MOST = 2, 6


class Disturbances:
    """Chosen one after the other, and done.

    Args:
        service: What is disturbed.
        control: Its control socket.
        ledger: Where a kill is entered.
        rng: What chooses.
        gap: The longest time between two of them, in seconds.

    Attributes:
        done: How many there were of each.
    """

    def __init__(
        self, service: Service, control: Path, ledger: Ledger, rng: random.Random, gap: float
    ) -> None:
        self.service = service
        self.control = control
        self.ledger = ledger
        self.rng = rng
        self.gap = gap
        self.port = service.port
        self.done: Counter[str] = Counter()

    async def go_on(self, until: float, weights: dict[str, int]) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self.rng.uniform(0.2, self.gap))
            (name,) = self.rng.choices([*weights], [*weights.values()])
            if getattr(self, name)():
                self.done[name] += 1

    def signal(self, number: int) -> bool:
        self.service.send_signal(number)
        return True

    def reload(self) -> bool:
        return self.signal(signal.SIGHUP)

    def storm(self) -> bool:
        return all(self.signal(signal.SIGHUP) for _ in range(self.rng.randrange(2, 10)))

    def reopen(self) -> bool:
        return self.signal(signal.SIGUSR1)

    def upgrade(self) -> bool:
        return self.signal(signal.SIGUSR2)

    def more(self) -> bool:
        return len(workers(self.service)) < MOST and self.signal(signal.SIGTTIN)

    def fewer(self) -> bool:
        return len(workers(self.service)) > FEWEST and self.signal(signal.SIGTTOU)

    def restart(self) -> bool:
        """As `uvicornctl restart` does it, without waiting for the answer. Limits do the same all the time."""
        request = f"POST /v1/workers/{self.rng.randrange(1, MOST)}/restart HTTP/1.1\r\nHost: a\r\n\r\n"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(str(self.control))
            sock.sendall(request.encode())
            return True
        return False

    def leave(self) -> bool:
        """A worker that somebody else tells to leave."""
        pid = self._one()
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
                return True
        return False

    def kill(self) -> bool:
        """SIGKILL for a worker. It is stopped first, so that its connections cannot change while they are looked up."""
        pid = self._one()
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGSTOP)
            while state(pid) not in "TtZX":
                os.sched_yield()
            ports = frozenset(connections(pid, self.port))
            self.ledger.kills.append(Kill(time.monotonic(), pid, ports))
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            return False  # it has ended by itself meanwhile
        return True

    def _one(self) -> int | None:
        pids = workers(self.service)
        return self.rng.choice(pids) if pids else None


def workers(service: Service) -> list[int]:
    """The workers that have said who they are, in order."""
    return sorted(pid for pid, title in service.workers().items() if title.startswith("uvicorn: worker"))


def state(pid: int) -> str:
    """The letter of a process' state, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def connections(pid: int, port: int) -> Iterator[int]:
    """The clients' ports of all connections to our port that a process has accepted.

    One that still waits in the accept queue is nobody's, and is none of them.
    """
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(entry.path)
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if inode in inodes and int(local.rpartition(":")[2], 16) == port:
            client = int(remote.rpartition(":")[2], 16)
            if client:
                yield client
