"""What is not a load: idle servers, idle connections, who gets how many of the connections.

A probe starts a contender, looks at it, and returns figures by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench import lifecycle
from bench.contenders import Contender
from bench.figures import fairness
from bench.loading import run_load
from bench.running import PATIENCE, Server, ran, voluntary_switches
from bench.scenarios import Load

PLAIN = "plain:app"
PID = b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n"
CONNECTIONS = 5000
NEWCOMERS = 128
# Whatever a start leaves to do is done by then.
SETTLE = 2.0
# Longer than any of these takes.
KEPT = 120
WATCHED = 5.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Probe:
    """One of them.

    Attributes:
        name: For the command line and in samples.
        title: For people.
        take: Returns the figures of one run.
        targets: What this server should reach, by figure.
        needs: Names that a contender may have among what it cannot do.
    """

    name: str
    title: str
    take: Callable[[Contender], Figures]
    targets: dict[str, str]
    needs: frozenset[str] = frozenset({"workers"})

    def possible(self, cannot: frozenset[str]) -> bool:
        return not cannot & (self.needs | {self.name})


@contextlib.contextmanager
def settled(contender: Contender, workers: int) -> Iterator[Server]:
    with Server(contender, PLAIN, workers=workers, keep_alive=KEPT) as server:
        if contender.tells_start_up:
            server.wait_workers(workers)
        time.sleep(SETTLE)
        yield server


def idle(workers: int) -> Callable[[Contender], Figures]:
    """CPU and wake-ups of a server that nobody asks for anything."""

    def take(contender: Contender) -> Figures:
        with settled(contender, workers) as server:
            tree = [process.pid for process in server.tree()]
            before = [(ran(pid), voluntary_switches(pid)) for pid in tree]
            time.sleep(WATCHED)
            spent = [
                (ran(pid) - seconds, voluntary_switches(pid) - count)
                for pid, (seconds, count) in zip(tree, before, strict=True)
            ]
        return {
            "wake-ups/s of the master": spent[0][1] / WATCHED,
            "wake-ups/s of each other process": sum(each[1] for each in spent[1:])
            / WATCHED
            / max(1, len(tree) - 1),
            "CPU ms/s of the master": spent[0][0] * 1e3 / WATCHED,
            "CPU ms/s of all": sum(each[0] for each in spent) * 1e3 / WATCHED,
        }

    return take


def idle_connections(contender: Contender) -> Figures:
    """Memory of connections that have asked once and stay, and CPU while they do."""
    allow_files(2 * CONNECTIONS)
    with settled(contender, 1) as server, contextlib.ExitStack() as stack:
        for _ in range(100):  # what the first requests need stays
            ask(server.port).close()
        before = private(server)
        for _ in range(CONNECTIONS):
            stack.enter_context(ask(server.port))
        time.sleep(1)
        grown = private(server) - before
        tree = [process.pid for process in server.tree()]
        used = sum(map(ran, tree))
        time.sleep(WATCHED)
        used = sum(map(ran, tree)) - used
    return {"KB for each connection": grown / 1e3 / CONNECTIONS, "CPU ms/s": used * 1e3 / WATCHED}


def private(server: Server) -> int:
    return sum(process.memory_full_info().uss for process in server.tree())


def ask(port: int) -> socket.socket:
    """A connection that has been answered once."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(PID)
    if not client.recv(1000):
        raise ConnectionError("closed without an answer")
    return client


def allow_files(count: int) -> None:
    """Both here and, by inheritance, in servers that are started from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def fair(workers: int) -> Callable[[Contender], Figures]:
    """How much more than its share the busiest worker has, of 64 connections that come in three ways."""

    def take(contender: Contender) -> Figures:
        figures = {}
        with settled(contender, workers) as server:
            for way in ("burst", "paced", "loaded"):
                counts = asyncio.run(spread(server.port, way))
                figures[way] = fairness(list(counts.values()), workers)
                time.sleep(0.5)
        return figures

    return take


async def spread(port: int, way: str) -> Counter[bytes]:
    """How many connections of 64 each process has: all opened at once, one after the other, or one after the other while
    those that are there ask on and on."""
    ends = asyncio.Event()
    asking = []
    counts: Counter[bytes] = Counter()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not ends.is_set():
            await answer(reader, writer)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        counts[await answer(reader, writer)] += 1
        return reader, writer

    if way == "burst":
        pairs = await asyncio.gather(*(connect() for _ in range(64)))
    else:
        pairs = []
        for _ in range(64):
            pairs.append(await connect())
            if way == "loaded":
                asking.append(asyncio.ensure_future(connection(*pairs[-1])))
    ends.set()
    await asyncio.gather(*asking)
    for _, writer in pairs:
        writer.close()
    return counts


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = PID) -> bytes:
    """The body of the answer: the process that gives it, where nothing else is asked for."""
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


def newcomers(contender: Contender) -> Figures:
    """How long new connections wait for their first answer where as many others are busy with FastAPI."""
    load = Load(path="/items/7?q=a", connections=NEWCOMERS)
    with Server(contender, "frameworks:fastapi") as server, ThreadPoolExecutor(1) as pool:
        run_load(load, server.port, 1)
        busy = pool.submit(run_load, load, server.port, 6)
        time.sleep(1)
        times = sorted(asyncio.run(first_answers(server.port, load.path)))
        busy.result()
    return {
        "ms until half of them are answered": times[len(times) // 2] * 1e3,
        "ms until all are": times[-1] * 1e3,
    }


async def first_answers(port: int, path: str) -> list[float]:
    """Of so many connections at once, the time from the connection to the answer."""
    connecting = [asyncio.open_connection("127.0.0.1", port) for _ in range(NEWCOMERS)]
    pairs = await asyncio.gather(*connecting)
    began = time.monotonic()

    async def ask_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        await answer(reader, writer, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        writer.close()
        return time.monotonic() - began

    return await asyncio.gather(*(ask_one(*pair) for pair in pairs))


def memory(workers: int) -> Callable[[Contender], Figures]:
    def take(contender: Contender) -> Figures:
        with settled(contender, workers) as server:
            return {"PSS MB": server.pss() / 1e6, "processes": len(server.tree())}

    return take


PROBES = {
    each.name: each
    for each in (
        Probe(
            "newcomers",
            "3 FastAPI, 128 new connections where 128 are busy",
            newcomers,
            {},
            frozenset({"fastapi"}),
        ),
        Probe(
            "idle-connections",
            "11 idle connections, 5,000",
            idle_connections,
            {"KB for each connection": "5", "CPU ms/s": "1"},
            frozenset(),
        ),
        *(
            Probe(
                f"fairness-{count}",
                f"12 fairness, 64 connections on {count} workers: busiest / mean",
                fair(count),
                dict.fromkeys(("burst", "paced", "loaded"), "1.15"),
            )
            for count in (2, 4, 8)
        ),
        *(
            Probe(
                f"start-{count}",
                f"13 start until {count} worker{'s' * (count > 1)} serve",
                lifecycle.start(count),
                {"s": limit},
            )
            for count, limit in ((1, "0.15"), (8, "0.25"))
        ),
        Probe("memory-8", "14 memory, 8 workers, trivial application", memory(8), {}),
        Probe(
            "reload",
            "15 five reloads under load, 2 workers",
            lifecycle.reload,
            {"failed, kept": "0", "failed, fresh": "0", "p99.9 ms": "15"},
        ),
        Probe(
            "recycle",
            "15 recycling at 1,000 requests, 2 workers",
            lifecycle.recycle,
            {"failed": "0", "longest ms": "20"},
        ),
        Probe("kill", "16 kill -9 of a worker, 4 workers", lifecycle.kill, {"ms until whole": "20"}),
        Probe(
            "stop",
            "18 SIGTERM, 2 workers",
            lifecycle.stop,
            {
                "in flight, lost": "0",
                "exit ms after the last answer": "100",
                "exit ms, idle connections": "50",
            },
        ),
        *(
            Probe(
                f"idle-{count}",
                f"idle, {count} workers",
                idle(count),
                {
                    "wake-ups/s of the master": "2",
                    "wake-ups/s of each other process": "2",
                    "CPU ms/s of the master": most,
                },
            )
            for count, most in ((8, "1"), (64, "5"))
        ),
    )
}
