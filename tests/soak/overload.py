"""More load than the workers can serve: what is refused is refused quickly, what is accepted is answered.

The workers' capacity does not depend on the machine: an answer takes a fixed time that is only waited for, and
`limit_concurrency` says how many may be waited for at the same time. Requests come at fixed moments, four times as many
as that allows, each on a connection of its own, whatever has become of those before (an open loop: clients that wait
for one another would offer less just when there is too much).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import Service
from tests.soak.clients import Client
from tests.soak.ledger import Ledger
from tests.soak.wire import Lost

WORKERS = 2
CONCURRENCY = 12
TAKES = 0.25
TIMES = 4
CAPACITY = WORKERS * CONCURRENCY / TAKES


@dataclass
class Overload:
    """What came of it.

    Attributes:
        ledger: The accepted ones.
        refused: How long each 503 took, in seconds.
        offered: How many requests there were.
        took: For how long they were offered, in seconds.
    """

    ledger: Ledger = field(default_factory=Ledger)
    refused: list[float] = field(default_factory=list)
    offered: int = 0
    took: float = 0.0

    @property
    def accepted(self) -> int:
        return self.ledger.answered["overload"]

    def problems(self) -> list[str]:
        found = [f"overload: {problem}" for problem in self.ledger.problems()]
        if self.offered != self.accepted + len(self.refused) + len(self.ledger.failures):
            found.append("overload: requests without any outcome")
        if len(self.refused) < self.offered / 4:
            found.append(f"overload: only {len(self.refused)} of {self.offered} refused: that was none")
        elif statistics.median(self.refused) > TAKES / 2:
            found.append("overload: a refusal takes as long as an answer")
        if self.accepted < 0.5 * CAPACITY * self.took:
            found.append("overload: less than half of what could be served was served")
        return found

    def __str__(self) -> str:
        def milliseconds(times: list[float]) -> str:
            cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
            return f"median {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"

        return (
            f"{self.offered} requests offered in {self.took:.0f} s, {TIMES} times what {WORKERS} workers with "
            f"limit_concurrency {CONCURRENCY} can serve; {self.accepted} answered ("
            f"{milliseconds(self.ledger.times['overload'])}, {TAKES * 1000:.0f} ms of it the answer's own), "
            f"{len(self.refused)} refused with 503 ({milliseconds(self.refused)}), "
            f"{len(self.ledger.failures)} failed"
        )


async def overload(directory: Path, seconds: float, seed: int, arguments: tuple[str, ...] = ()) -> Overload:
    """Start a service, offer the load, and stop the service."""
    options = ("--port", "0", "--workers", str(WORKERS), "--limit-concurrency", str(CONCURRENCY))
    result = Overload()
    with Service(directory, *options, "--no-access-log", *arguments, app="tests.soak.app:app") as service:
        await asyncio.to_thread(service.wait_ready, WORKERS)
        ends = asyncio.Event()
        client = Client("overload", service.port, result.ledger, random.Random(f"{seed}/overload"), ends)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic()) < began + seconds:
                due = int((now - began) * CAPACITY * TIMES)
                for _ in range(due - result.offered):
                    group.create_task(one(client, result))
                result.offered = due
                await asyncio.sleep(0.01)
            result.took = time.monotonic() - began
        await asyncio.to_thread(service.stop)
    return result


async def one(client: Client, result: Overload) -> None:
    """One request: answered, refused, or a failure."""
    began = time.monotonic()
    wire = await client.open()
    if wire is None:
        return
    target = client.target("/slow", int(TAKES * 1000))
    try:
        with contextlib.closing(wire):
            await wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            reply = await wire.reply()
    except Lost as exc:
        client.ledger.failed(client.kind, str(exc), wire.connection, began, time.monotonic())
        return
    if reply.status == 503:
        result.refused.append(time.monotonic() - began)
    else:
        client.judge(wire, reply, target, None, began)
