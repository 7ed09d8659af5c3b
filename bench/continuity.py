"""What clients notice of reloads, recycling, killed workers and stops: counts and times, on this machine.

    python -m bench.continuity [--seconds 20] [reload recycle kill stop stuck orphan]

Starts the real command with a trivial application, puts loopback load on it, and prints a table. Uses the clients and
the process harness of the end-to-end tests.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import Service, read_response, wait_for
from tests.e2e.load import Load

LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters: {timed: {format: '%(created).4f %(message)s'}}
handlers: {stderr: {class: logging.StreamHandler, formatter: timed, stream: ext://sys.stderr}}
loggers: {uvicorn: {handlers: [stderr], level: INFO, propagate: false}}
"""


@contextmanager
def service(workers: int, *arguments: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "log.yaml").write_text(LOG_CONFIG)
        options = ("--port", "0", "--workers", str(workers), "--no-access-log", "--log-config", "log.yaml")
        with Service(Path(directory), *options, *arguments) as running:
            running.wait_ready(workers)
            yield running


@contextmanager
def load(port: int) -> Iterator[tuple[Load, Load]]:
    """32 clients that keep their connections, 32 that make a new one for each request."""
    with Load(port, clients=32) as kept, Load(port, clients=32, keep_alive=False) as fresh:
        time.sleep(0.5)
        yield kept, fresh


def result(name: str, text: str, *loads: Load) -> None:
    answers = sum(each.answers for each in loads)
    failures: dict[str, int] = {}
    for each in loads:
        for kind, count in each.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    counted = f"{answers} answered, failed: {failures or 0}; " if loads else ""
    print(f"| {name} | {counted}{text} |", flush=True)


def times(log: str, pattern: str) -> list[float]:
    return [float(line.split()[0]) for line in log.splitlines() if re.search(pattern, line)]


def measure_reload(seconds: float) -> None:
    with service(4) as running, load(running.port) as loads:
        started = time.monotonic()
        for i in range(10):
            running.send_signal(signal.SIGHUP)
            running.wait_log("Reload complete", i + 1)
        took = time.monotonic() - started
        time.sleep(0.5)
    result("10 reloads, 4 workers", f"{took:.1f} s for all ten", *loads)


def measure_recycle(seconds: float) -> None:
    with service(4, "--limit-max-requests", "1000") as running:
        with load(running.port) as loads:
            time.sleep(seconds)
        recycled = running.log.count("is to be replaced")
    result("recycling at 1,000 requests, 4 workers", f"{recycled} workers replaced in {seconds:g} s", *loads)


def measure_kill(seconds: float) -> None:
    with service(4) as running:
        with load(running.port) as loads:
            for _ in range(int(seconds)):
                victim = min(running.workers())
                os.kill(victim, signal.SIGKILL)
                time.sleep(1)
        running.wait_ready(4 + int(seconds))
        died = times(running.log, "died: killed by SIGKILL")
        ready = times(running.log, "ready after")[4:]
    gaps = [1000 * (next(at for at in ready if at > death) - death) for death in died]
    text = f"successor ready after {statistics.median(gaps):.0f} ms (most {max(gaps):.0f})"
    result(f"kill -9 each second, {len(died)} times, 4 workers", text, *loads)


def measure_stop(seconds: float) -> None:
    for workers in (1, 2):
        with service(workers) as running:
            clients = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(16)]
            for client in clients:
                client.sendall(b"GET /slow?0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.2)
            running.send_signal(signal.SIGTERM)
            answered = sum(read_response(client)[0] == 200 for client in clients)
            last = time.monotonic()
            running.wait_exit()
            busy = time.monotonic() - last
        with service(workers) as running:
            clients = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(16)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                read_response(client)
            asked = time.monotonic()
            running.send_signal(signal.SIGTERM)
            running.wait_exit()
            idle = time.monotonic() - asked
        text = f"{answered} of 16 in flight answered; exit {busy * 1000:.0f} ms after the last answer; "
        result(
            f"SIGTERM, {workers} worker(s)", text + f"idle connections only: exit after {idle * 1000:.0f} ms"
        )


def measure_stuck(seconds: float) -> None:
    for path, noticed, replaced in (
        ("/block", "is stalled", "Aborting"),
        ("/gil", "Aborting", "Aborting"),
    ):
        with service(2) as running, socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
            asked = time.time()
            running.wait_log(noticed)
            wait_for(lambda: len(times(running.log, "ready after")) == 3, "the successor", 60)
            seen, gone = times(running.log, noticed)[0] - asked, times(running.log, replaced)[0] - asked
            again = times(running.log, "ready after")[2] - asked
        text = f"noticed after {seen:.1f} s, aborted after {gone:.1f} s, successor ready after {again:.1f} s"
        result(f"stuck in {path}, default timeouts", text)


def measure_orphan(seconds: float) -> None:
    with service(4) as running:
        port = running.port
        os.kill(running.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: not running.session(), "nobody")
        took = time.monotonic() - killed
        socket.create_server(("127.0.0.1", port)).close()
    result("SIGKILL of the master, 4 workers", f"nobody left and the port free after {took * 1000:.0f} ms")


MEASURES = {
    "reload": measure_reload,
    "recycle": measure_recycle,
    "kill": measure_kill,
    "stop": measure_stop,
    "stuck": measure_stuck,
    "orphan": measure_orphan,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", help=", ".join(MEASURES))
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    print("| what | result |\n|---|---|")
    for name in arguments.measures or MEASURES:
        MEASURES[name](arguments.seconds)


if __name__ == "__main__":
    main()
