"""Two thousand slow connections: what other clients notice, what it costs in memory, and when they are gone.

    python -m bench.slowloris [--connections 2000] [--rounds 3] [--peer VENV]

Each round starts this server, and then another one where its virtual environment is given (any program with uvicorn's
command line); they take turns, because what the machine does meanwhile is the same for both. In a round a client first
has the server for itself, then beside connections that send a head byte by byte. Those are another process, so that only
the server is shared with them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.e2e.harness import ROOT, wait_for

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
# A head that never ends, a byte at a time for each connection in as many seconds.
DRIP = b"GET / HTTP/1.1\r\nHost: example.org\r\nX-Slow: " + b"y" * 10_000
DRIP_PERIOD = 2.0
HEAD_DEADLINE = 15
# Each measurement sees every slow connection send twice.
MEASURED = 2 * DRIP_PERIOD


@dataclass
class Round:
    """What one round has shown; times in milliseconds, memory in MB."""

    alone: float
    beside: float
    memory: tuple[float, float, float]
    gone_after: float | None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.slowloris")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="a virtual environment with another uvicorn")
    parser.add_argument("--drip", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 2 * options.connections + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
    if options.drip:
        drip(options.drip, options.connections)
        return
    servers: dict[str, tuple[Path, list[str]]] = {
        "this": (Path(sys.executable), ["--timeout-request-head", str(HEAD_DEADLINE)])
    }
    if options.peer is not None:
        servers["peer"] = (options.peer.absolute() / "bin" / "python", [])
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    for number in range(options.rounds):
        for name, (python, more) in servers.items():
            found = one_round(python, more, options.connections)
            rounds[name].append(found)
            print(f"round {number + 1} {name}: {found}", flush=True)
    print(
        "\n| server | p99 alone | p99 beside | ratio | memory before, beside, after | slow ones gone after |"
    )
    print("|---|---|---|---|---|---|")
    for name, found_all in rounds.items():
        alone = statistics.median(each.alone for each in found_all)
        beside = statistics.median(each.beside for each in found_all)
        ratio = statistics.median(each.beside / each.alone for each in found_all)
        memory = ", ".join(f"{statistics.median(each.memory[i] for each in found_all):.1f}" for i in range(3))
        times = [each.gone_after for each in found_all]
        gone = "never" if None in times else f"{max(time for time in times if time is not None):.0f} s"
        print(f"| {name} | {alone:.2f} ms | {beside:.2f} ms | {ratio:.2f} | {memory} MB | {gone} |")


def one_round(python: Path, more: list[str], connections: int) -> Round:
    with server(python, more) as (process, port):
        memory = psutil.Process(process.pid).memory_info
        alone = p99(port)
        before = memory().rss / 1e6
        began = time.monotonic()
        slow = subprocess.Popen(
            [sys.executable, "-m", "bench.slowloris", "--drip", str(port), "--connections", str(connections)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            assert slow.stdout is not None
            assert slow.stdout.readline() == b"connected\n"
            beside = p99(port)
            during = memory().rss / 1e6
            left = HEAD_DEADLINE + 15 - (time.monotonic() - began)
            gone: float | None = None
            try:
                slow.wait(left)
                gone = time.monotonic() - began
            except subprocess.TimeoutExpired:
                pass
        finally:
            slow.kill()
            slow.wait()
        p99(port)
        return Round(alone, beside, (before, during, memory().rss / 1e6), gone)


@contextlib.contextmanager
def server(python: Path, more: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "app.py").write_text(APP)
        command = [
            str(python),
            "-m",
            "uvicorn",
            "app:app",
            "--port",
            str(port),
            "--no-access-log",
            "--lifespan",
            "off",
        ]
        # Each from its own environment; this one also where it is not installed.
        environ = {**os.environ, "PYTHONPATH": str(ROOT) if python == Path(sys.executable) else ""}
        process = subprocess.Popen(
            [*command, "--log-level", "warning", *more], cwd=directory, env=environ, start_new_session=True
        )
        try:
            wait_for(lambda: answers(port), "an answer")
            yield process, port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(REQUEST)
        return client.recv(1000).startswith(b"HTTP/1.1 200")
    return False


def p99(port: int) -> float:
    """Of requests one after the other on one connection, in milliseconds."""
    times = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = time.perf_counter() + MEASURED
        while (began := time.perf_counter()) < ends:
            client.sendall(REQUEST)
            data = b""
            while not data.endswith(b"\r\n\r\nok"):
                piece = client.recv(1000)
                assert piece, "the server has closed"
                data += piece
            times.append(time.perf_counter() - began)
    return statistics.quantiles(times, n=100)[98] * 1000


def drip(port: int, count: int) -> None:
    """Hold connections with heads that never end, until the server has closed all of them."""
    selector = selectors.DefaultSelector()
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.setblocking(False)
        client.send(DRIP[:1])
        selector.register(client, selectors.EVENT_READ, [client, 1])
    print("connected", flush=True)
    while selector.get_map():
        round_ends = time.monotonic() + DRIP_PERIOD
        waiting = [key.data for key in selector.get_map().values()]
        for turn, state in enumerate(waiting):
            client, at = state
            with contextlib.suppress(OSError):
                client.send(DRIP[at : at + 1])
            state[1] = at + 1
            if turn % 20 == 19:  # a few at a time, all through the period
                forget_closed(selector, DRIP_PERIOD * 20 / len(waiting))
        while (left := round_ends - time.monotonic()) > 0 and selector.get_map():
            forget_closed(selector, left)


def forget_closed(selector: selectors.BaseSelector, timeout: float) -> None:
    for key, _ in selector.select(timeout):
        client = key.data[0]
        try:
            ended = not client.recv(65536)
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        if ended:
            selector.unregister(client)
            client.close()


if __name__ == "__main__":
    main()
