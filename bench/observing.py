"""What being looked at costs: CPU time of a small request with control socket, admin address and a scrape every second,
beside the same server without any of them.

    python -m bench.observing [--pairs 6] [--rounds 5] [--seconds 2] [--connections 16]

A pair of servers, one worker each, is under load at the same time, so that whatever else the machine does meets both.
Counted is the CPU time that the kernel accounts, in nanoseconds: of the worker for each request answered; of master and
control process for each second, as a share of one core, since that does not depend on requests. The cost is the sum of
both where a worker has a core to itself. Where code comes to lie in memory differs from process to process, and with it
what a request costs, so there are several pairs; the figure is the median of all rounds.

What the request path itself pays is known more exactly in the process, without sockets, by turns of a fraction of a
millisecond: `path`, in microseconds for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.environments import ROOT
from bench.guard import TURNS, case
from bench.loading import run_load
from bench.running import environ, free_port, ran
from bench.scenarios import Load

PATIENCE = 60.0
TARGET = 0.03


@dataclass(frozen=True)
class Used:
    """CPU time of processes, in seconds."""

    workers: float
    others: float
    at: float


@dataclass(frozen=True)
class Turn:
    """Microseconds of CPU time for each request, and what master and control process use of a core."""

    request: float
    background: float


class Observed:
    """A server, observed or not.

    Args:
        looked_at: Whether.
    """

    def __init__(self, looked_at: bool) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self._directory = tempfile.TemporaryDirectory()
        options = ["--workers", "1", "--port", str(self.port), "--no-access-log", "--log-level", "error"]
        if looked_at:
            options += ["--control-socket", str(Path(self._directory.name) / "c.sock")]
            options += ["--admin", f"127.0.0.1:{self.admin_port}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "bench.apps.plain:app", *options],
            cwd=ROOT,
            env={**environ(), "PYTHONHASHSEED": "0"},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/")
                connection.getresponse().read()
                return
            time.sleep(0.05)
        raise RuntimeError("the server has not come up")

    def cpu(self) -> Used:
        """What its processes have used, from /proc/PID/schedstat."""
        workers = others = 0.0
        for child in psutil.Process(self.process.pid).children():
            if child.cmdline()[0].startswith("uvicorn: worker"):
                workers += ran(child.pid)
            else:
                others += ran(child.pid)
        return Used(workers, others + ran(self.process.pid), time.monotonic())

    def turn(self, seconds: int, connections: int) -> Turn:
        """One load."""
        before = self.cpu()
        result = run_load(Load(connections=connections), self.port, seconds)
        now = self.cpu()
        if result["failures"]:
            raise RuntimeError(f"failures: {result['failures']}")
        return Turn(
            (now.workers - before.workers) / int(result["requests"]) * 1e6,
            (now.others - before.others) / (now.at - before.at),
        )

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(PATIENCE)
        self._directory.cleanup()


@contextlib.contextmanager
def scraped(port: int) -> Iterator[list[int]]:
    """As Prometheus does it, every second; the sizes of the answers."""
    sizes: list[int] = []
    stop = threading.Event()

    def scrape() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while not stop.wait(1):
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            sizes.append(len(answer.read()) if answer.status == 200 else 0)
        connection.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()


def side_by_side(rounds: int, seconds: int, connections: int) -> list[tuple[Turn, Turn]]:
    """The rounds of one pair: not looked at, and looked at."""
    with contextlib.ExitStack() as stack:
        servers = [Observed(False), Observed(True)]
        for server in servers:
            stack.callback(server.close)
        for server in servers:
            server.wait()
        sizes = stack.enter_context(scraped(servers[1].admin_port))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        found = []
        for number in range(rounds + 1):
            off, on = pool.map(lambda server: server.turn(seconds, connections), servers)
            if number:  # the first one warms
                found.append((off, on))
                print(
                    f"{off.request:7.2f} us off {on.request:7.2f} us on {on.request / off.request - 1:+7.1%}",
                    flush=True,
                )
        if not sizes or not all(sizes):
            raise RuntimeError("the metrics were not answered")
        return found


async def _path(blocks: int) -> tuple[float, float]:
    loop = asyncio.get_running_loop()
    benches = [case(Load(), loop, measured) for measured in (False, True)]
    for bench in benches:
        await bench.run_turns(TURNS)
        bench.times.clear()
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(blocks):
        for bench in benches:
            await bench.run_turns(TURNS)
        gc.collect()
    gc.enable()
    off, on = (bench.least() for bench in benches)
    return off, on


def compare(pairs: int, rounds: int, seconds: int, connections: int) -> dict[str, Any]:
    off_path, on_path = uvloop.run(_path(100))
    found = [each for _ in range(pairs) for each in side_by_side(rounds, seconds, connections)]
    ratios = [on.request / off.request - 1 for off, on in found]
    background = statistics.median(on.background - off.background for off, on in found)
    return {
        "rounds": len(found),
        "path_off_us": round(off_path, 3),
        "path_on_us": round(on_path, 3),
        "off_us": round(statistics.median(off.request for off, _ in found), 3),
        "on_us": round(statistics.median(on.request for _, on in found), 3),
        "request": round(statistics.median(ratios), 4),
        "request_quartiles": [round(each, 4) for each in statistics.quantiles(ratios, n=4)[::2]],
        "request_minimums": round(
            min(on.request for _, on in found) / min(off.request for off, _ in found) - 1, 4
        ),
        "background": round(background, 4),
        "cost": round(statistics.median(ratios) + background, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    found = compare(given.pairs, given.rounds, given.seconds, given.connections)
    print(json.dumps(found, indent=2))
    within = found["cost"] <= TARGET
    print(f"{'within' if within else 'above'} {TARGET:.0%}")
    sys.exit(not within)


if __name__ == "__main__":
    main()
