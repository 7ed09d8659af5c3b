"""What became of every request. A failure is excused by one thing only: its connection was one of a process that was
killed with SIGKILL, while it was. Which ones those were is looked up in the kernel, see `disturbances.py`.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

# So many failures are told one by one.
TOLD = 20


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker's end by SIGKILL: which connections were its own at that moment, by the client's port."""

    at: float
    pid: int
    ports: frozenset[int]


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection of a client.

    Attributes:
        port: The client's own port.
        opened: When it began to connect. A port comes back; a connection that began after a kill was not killed.
    """

    port: int
    opened: float


@dataclass
class Ledger:
    """The sums.

    Attributes:
        answered: Right answers, by the kind of client.
        ended: Ends that a server may choose, such as a WebSocket closed with 1012.
        aborted: What clients broke off themselves.
        lost: Requests in flight on a worker that was killed.
        stale: Requests that a client sent on the connection of a killed worker before it had heard of that.
        wrong: Answers that are not those of the request. Nothing excuses one.
        failures: Everything else.
        times: How long right answers took, in seconds, by kind.
    """

    answered: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    aborted: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def good(self, kind: str, took: float) -> None:
        self.answered[kind] += 1
        self.times[kind].append(took)

    def failed(self, kind: str, what: str, connection: Connection | None, began: float, now: float) -> None:
        """A request without its answer.

        Args:
            kind: The kind of client.
            what: What happened instead.
            connection: Where it was sent; None where no connection came about.
            began: When the client began to send it.
            now: When it was known to have failed.
        """
        kill = self.killed(connection) if connection is not None else None
        if kill is None:
            self.failures.append(f"{now:.3f} {kind}: {what} after {now - began:.3f} s, {connection}")
        elif began <= kill.at:
            self.lost[kind] += 1
        else:
            self.stale[kind] += 1

    def killed(self, connection: Connection) -> Kill | None:
        """The kill that ended the connection."""
        for kill in reversed(self.kills):
            if kill.at < connection.opened:
                break
            if connection.port in kill.ports:
                return kill
        return None

    def quantile(self, kind: str, of_hundred: int) -> float:
        times = self.times[kind]
        return statistics.quantiles(times, n=100)[of_hundred - 1] if len(times) > 1 else 0.0

    def problems(self) -> list[str]:
        found = []
        for name, events in (("wrong answer", self.wrong), ("failure", self.failures)):
            found += [f"{name}: {event}" for event in events[:TOLD]]
            if len(events) > TOLD:
                found.append(f"and {len(events) - TOLD} more of: {name}")
        return found
