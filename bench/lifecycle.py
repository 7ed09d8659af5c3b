"""Starts, reloads, recycling, killed workers and stops, of any contender; `bench.continuity` looks closer at this server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from bench.contenders import Contender
from bench.loading import own_load
from bench.running import PATIENCE, POLL, CannotRun, Server
from bench.scenarios import Load

PLAIN = "plain:app"
RELOADS = 5
KILLS = 5
Figures = dict[str, float]


def start(workers: int) -> Callable[[Contender], Figures]:
    """From exec until every worker has run the application's start-up and somebody answers."""

    def take(contender: Contender) -> Figures:
        server = Server(contender, PLAIN, workers=workers)
        try:
            server.start()
            server.wait_workers(workers)
            server.wait_answer()
            return {"s": time.monotonic() - server.started}
        finally:
            server.end()

    return take


class Clients:
    """Loads in the background, kept connections and fresh ones, while the `with` block runs and a while longer."""

    def __init__(self, port: int, seconds: int, *kinds: str) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self._threads = [threading.Thread(target=self._run, args=(kind, port, seconds)) for kind in kinds]

    def _run(self, kind: str, port: int, seconds: int) -> None:
        load = Load(path="/slow", connections=8, close=kind == "fresh")
        self.results[kind] = own_load(load, port, seconds)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *exc: object) -> None:
        for thread in self._threads:
            thread.join()

    def failed(self, *kinds: str) -> float:
        return float(sum(sum(self.results[kind]["failures"].values()) for kind in kinds or self.results))

    def most(self, field: str) -> float:
        return max(float(result[field]) for result in self.results.values())


def reload(contender: Contender) -> Figures:
    """Each reload once the one before is over: two more workers have started, and the old ones have gone."""
    took = []
    with Server(contender, PLAIN, workers=2) as server:
        server.wait_workers(2)
        with Clients(server.port, 12, "kept", "fresh") as clients:
            for i in range(RELOADS):
                old = set(server.workers())
                began = time.monotonic()
                server.send_signal(signal.SIGHUP)
                server.wait_workers(2 * (i + 2))
                wait_gone(server, old)
                took.append(time.monotonic() - began)
    return {
        "failed, kept": clients.failed("kept"),
        "failed, fresh": clients.failed("fresh"),
        "p99.9 ms": clients.most("p999"),
        "longest ms": clients.most("max"),
        "s for each": sum(took) / len(took),
    }


def wait_gone(server: Server, pids: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while pids & {each.pid for each in server.tree()}:
        if time.monotonic() > deadline:
            raise CannotRun(f"{server.contender.title}: old workers are there {PATIENCE:g} s after a reload")
        time.sleep(POLL)


def recycle(contender: Contender) -> Figures:
    with Server(contender, PLAIN, workers=2, limit_max_requests=1000) as server:
        server.wait_workers(2)
        with Clients(server.port, 10, "kept", "fresh") as clients:
            pass
        started = len(server.workers()) - 2
    return {"failed": clients.failed(), "longest ms": clients.most("max"), "workers replaced": float(started)}


def kill(contender: Contender) -> Figures:
    """A successor's start-up after each death, and what clients see of it."""
    gaps = []
    with Server(contender, PLAIN, workers=4) as server:
        server.wait_workers(4)
        with Clients(server.port, KILLS + 3, "kept") as clients:
            for i in range(KILLS):
                victim = worker(server)
                began = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                server.wait_workers(5 + i)
                gaps.append(time.monotonic() - began)
                time.sleep(max(0, 1 - gaps[-1]))
    return {
        "ms until whole": sorted(gaps)[len(gaps) // 2] * 1e3,
        "most ms": max(gaps) * 1e3,
        "failed for each kill": clients.failed() / KILLS,
    }


def worker(server: Server) -> int:
    """One that serves: its process says so itself."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as client:
        client.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(1000):
            data += piece
    return int(data.rpartition(b"\r\n\r\n")[2])


def stop(contender: Contender) -> Figures:
    with Server(contender, PLAIN, workers=2) as server:
        server.wait_workers(2)
        with sockets(server.port, 16) as clients:
            for client in clients:
                client.sendall(b"GET /slow?0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            answered = sum(received(client) for client in clients)
            last = time.monotonic()
            server.wait_exit()
            busy = time.monotonic() - last
    with Server(contender, PLAIN, workers=2) as server:
        server.wait_workers(2)
        with sockets(server.port, 16) as clients:
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received(client)
            asked = time.monotonic()
            server.send_signal(signal.SIGTERM)
            server.wait_exit()
            idle = time.monotonic() - asked
    return {
        "in flight, lost": 16.0 - answered,
        "exit ms after the last answer": busy * 1e3,
        "exit ms, idle connections": idle * 1e3,
    }


@contextlib.contextmanager
def sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            for _ in range(count)
        ]


def received(client: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return client.recv(1000).startswith(b"HTTP/1.1 200")
    return False
