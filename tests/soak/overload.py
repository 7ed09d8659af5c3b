"""More load than the workers can serve: what is refused is refused quickly, what is accepted is answered.

Requests (`overload`): the workers' capacity does not depend on the machine: an answer takes a fixed time that is only waited for, and
`limit_concurrency` says how many may be waited for at the same time. Requests come at fixed moments, four times as many
as that allows, each on a connection of its own, whatever has become of those before (an open loop: clients that wait
for one another would offer less just when there is too much).

Connections (`crowd`): four times as many clients come as `limit_connections` allows. Those that are let in stay, and all their
requests are answered, until everybody has come.
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
        return found

    def late(self) -> list[str]:
        """What took too long: where nothing else wants the machine, that is a fault."""
        found = []
        if self.refused and statistics.median(self.refused) > TAKES / 2:
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


# --- connections --------------------------------------------------------------------------------------

CONNECTIONS = 20
CLIENTS = TIMES * WORKERS * CONNECTIONS
# A client that was let in asks at least so often.
ASKS = 5


@dataclass
class Crowd:
    """What came of it.

    Attributes:
        ledger: The requests of those who were let in.
        let_in: How many clients were.
        refused: How long each 503 took, from before the connection, in seconds.
    """

    ledger: Ledger = field(default_factory=Ledger)
    let_in: int = 0
    refused: list[float] = field(default_factory=list)

    def problems(self) -> list[str]:
        found = [f"crowd: {problem}" for problem in self.ledger.problems()]
        if self.let_in + len(self.refused) != CLIENTS:
            found.append("crowd: clients without any outcome")
        if not CONNECTIONS <= self.let_in <= WORKERS * CONNECTIONS:
            found.append(f"crowd: {self.let_in} were let in at the same time")
        if self.ledger.answered["crowd"] < ASKS * self.let_in:
            found.append("crowd: who was let in was not served")
        return found

    def __str__(self) -> str:
        times = sorted(self.refused) or [0.0]
        return (
            f"{CLIENTS} clients, {TIMES} times what {WORKERS} workers with limit_connections {CONNECTIONS} take; {self.let_in} "
            f"let in, with {self.ledger.answered['crowd']} answers, {len(self.refused)} refused with 503 (median "
            f"{statistics.median(times) * 1000:.0f} ms, most {times[-1] * 1000:.0f} ms), {len(self.ledger.failures)} failed"
        )


async def crowd(directory: Path, seed: int, arguments: tuple[str, ...] = ()) -> Crowd:
    """Start a service, let everybody come, and stop the service."""
    options = ("--port", "0", "--workers", str(WORKERS), "--limit-connections", str(CONNECTIONS))
    result = Crowd()
    with Service(directory, *options, "--no-access-log", *arguments, app="tests.soak.app:app") as service:
        await asyncio.to_thread(service.wait_ready, WORKERS)
        client = Client("crowd", service.port, result.ledger, random.Random(f"{seed}/crowd"), asyncio.Event())
        all_came = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(come(client, result, all_came))
        await asyncio.to_thread(service.stop)
    return result


async def come(client: Client, result: Crowd, all_came: asyncio.Event) -> None:
    """One client: let in, and then it stays; or refused."""
    began = time.monotonic()
    wire = await client.open()
    if wire is None:
        return
    with contextlib.closing(wire):
        target = client.target("/plain", 1000)
        try:
            await wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            reply = await wire.reply()
        except Lost as exc:
            client.ledger.failed(client.kind, str(exc), wire.connection, began, time.monotonic())
            return
        if reply.status == 503:
            result.refused.append(time.monotonic() - began)
        else:
            result.let_in += client.judge(wire, reply, target, None, began)
        if result.let_in + len(result.refused) + len(client.ledger.failures) >= CLIENTS:
            all_came.set()
        asked = 1
        while reply.status == 200 and (asked < ASKS or not all_came.is_set()):
            asked += await client.ask(wire, client.target("/plain", 1000))
            await asyncio.sleep(0.05)
            if not wire.usable:
                break
