"""What the system and the application do to a service, and what must become of it. README.md has where each fault is tested."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, read_response, wait_for
from tests.e2e.load import Load
from tests.ports import free_port

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fault is injected as on Linux")

ROUTES = """
import signal, sys, threading

async def crash(scope, receive, send):
    os.kill(os.getpid(), getattr(signal, scope["query_string"].decode()))
    await asyncio.sleep(1000)

async def close_all(scope, receive, send):
    os.closerange(3, 1000)
    await answer(send, b"closed")

leaked = []
async def leak(scope, receive, send):
    try:
        while True:
            leaked.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    await answer(send, b"leaked")

async def mend(scope, receive, send):
    while leaked:
        os.close(leaked.pop())
    await answer(send, b"mended")

async def spoil(scope, receive, send):
    what = scope["query_string"]
    if what == b"handlers":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
    elif what == b"exit":
        sys.exit(5)
    elif what == b"stop":
        asyncio.get_running_loop().stop()
    elif what == b"interrupt":
        raise KeyboardInterrupt
    await answer(send, b"spoiled")

ROUTES.update({"/crash": crash, "/close-all": close_all, "/leak": leak, "/mend": mend, "/spoil": spoil})
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP + ROUTES)
    return tmp_path


def served(service: Service) -> bool:
    return service.request("/").status == 200


# --- workers that break -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_worker_that_crashes_says_where_and_is_replaced(directory: Path, name: str) -> None:
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        assert service.request(f"/crash?{name}").status == 0
        # The fault handler's dump, and then the master's line.
        service.wait_log(r'File ".*app\.py", line \d+ in crash')
        service.wait_log(rf"died: killed by {name} \(.*worker=\d+ gen=1")
        service.wait_ready(3)
        assert served(service)
        assert service.stop() == 0


def test_a_worker_that_dies_soon_after_each_start_leaves_the_other_alone(directory: Path) -> None:
    # The first worker that makes the file is the good one.
    (directory / "app.py").write_text(
        APP
        + """
import threading
try:
    os.close(os.open("good", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    threading.Timer(0.3, os._exit, (1,)).start()
"""
    )
    with Service(directory, "--port", "0", "--workers", "2", "--limit-restarts", "100") as service:
        service.wait_ready(1)
        with Load(service.port, clients=2) as load:
            # The first deaths are free; then each start waits, longer each time: 0.5 s and 1 s, less the jitter.
            service.wait_log("died: exit code 1", 4)
            began = time.monotonic()
            service.wait_log("died: exit code 1", 6)
            assert time.monotonic() - began > 1
            answers = load.answers
            wait_for(lambda: load.answers > answers + 50, "requests served meanwhile")
        assert service.process.poll() is None
        assert service.stop() == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_worker_whose_descriptors_are_closed_is_replaced(directory: Path, loop: str) -> None:
    options = ("--timeout-worker-healthcheck", "1", "--timeout-worker-stall", "2")
    with Service(directory, "--port", "0", "--workers", "2", "--loop", loop, *options) as service:
        service.wait_ready(2)
        before = set(service.workers())
        with contextlib.suppress(OSError), service.connect() as client:
            client.settimeout(1)
            client.sendall(b"GET /close-all HTTP/1.1\r\nHost: a\r\n\r\n")
            client.recv(1000)
        service.wait_ready(3)
        wait_for(
            lambda: len(set(service.workers()) - before) == 1 and len(service.workers()) == 2, "a successor"
        )
        wait_for(lambda: served(service), "an answer")
        assert service.stop() == 0


@pytest.mark.parametrize("what", ["handlers", "exit", "stop", "interrupt"])
def test_what_the_application_does_to_its_process_ends_there(directory: Path, what: str) -> None:
    with Service(directory, "--port", "0", "--workers", "2", "--timeout-graceful-shutdown", "1") as service:
        service.wait_ready(2)
        with contextlib.suppress(OSError), service.connect() as client:
            client.settimeout(2)
            client.sendall(f"GET /spoil?{what} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            client.recv(1000)
        wait_for(lambda: len(service.workers()) == 2 and served(service), "two workers, and an answer")
        assert service.process.poll() is None
        assert service.stop() == 0


def test_a_worker_that_leaves_takes_only_its_own_requests(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "2") as service, contextlib.ExitStack() as stack:
        service.wait_ready(2)
        clients = [stack.enter_context(service.connect()) for _ in range(100)]
        service.hold(*clients)
        assert service.request("/exit?1").status == 0
        service.release()
        statuses = [read_response(client)[0] for client in clients]
        assert set(statuses) <= {0, 200}
        # One of two has gone, and connections are spread evenly.
        assert 20 <= statuses.count(200) <= 80
        service.wait_ready(3)
        assert service.stop() == 0


# --- what the system does not give --------------------------------------------------------------------


@contextlib.contextmanager
def crowd(service: Service, count: int) -> Iterator[list[socket.socket]]:
    clients = [socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


@linux
@pytest.mark.skipif(
    shutil.which("prlimit") is None, reason="prlimit (util-linux) sets the number of descriptors"
)
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
@pytest.mark.parametrize("why", ["connections", "leak"])
def test_without_descriptors_accepting_waits_and_recovers(
    directory: Path, workers: tuple[str, ...], why: str, loop: str
) -> None:
    options = ("--port", "0", "--limit-connections", "1000", "--loop", loop, *workers)
    with Service(directory, *options, through=("prlimit", "--nofile=64:64")) as service:
        service.wait_serving() if not workers else service.wait_ready(1)
        assert served(service)
        if why == "leak":
            mender = service.connect()  # for what comes after
            mender.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_response(mender)[0] == 200
            mender.sendall(b"GET /leak HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_response(mender)[0] == 200
        serving = next(iter(service.workers()), service.pid) if workers else service.pid
        with crowd(service, 100):
            lines = service.log.count("\n")
            used = cpu_of(serving)
            began = time.monotonic()
            time.sleep(2)  # nothing is waited for: this is how long nothing may happen
            assert cpu_of(serving) - used < 0.5 * (time.monotonic() - began)
            assert service.log.count("\n") - lines < 20
            assert service.process.poll() is None
            if workers:
                # The master has descriptors of its own.
                assert len(service.workers()) == 1
            if why == "leak":
                mender.sendall(b"GET /mend HTTP/1.1\r\nHost: a\r\n\r\n")
                assert read_response(mender)[0] == 200
                mender.close()
        wait_for(lambda: served(service), "an answer, when there are descriptors again")
        assert service.stop() == (0 if workers else -signal.SIGTERM)


def cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@linux
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace lets fork fail")
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_fork_that_fails_is_tried_again(directory: Path, error: str) -> None:
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        calls = "clone,clone3,fork,vfork"
        strace = subprocess.Popen(
            [
                "strace",
                "-q",
                "-p",
                str(service.pid),
                "-e",
                f"trace={calls}",
                "-e",
                f"inject={calls}:error={error}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            tracer = rf"TracerPid:\s+{strace.pid}\b"
            status = Path(f"/proc/{service.pid}/status")
            if (
                not wait_for(
                    lambda: strace.poll() is not None or re.search(tracer, status.read_text()), "strace"
                )
                or strace.poll() is not None
            ):
                pytest.skip("this process may not be traced")
            victim = next(iter(service.workers()))
            os.kill(victim, signal.SIGKILL)
            service.wait_log(r"No process could be made for worker=1: .*Next try in", 2)
            assert service.process.poll() is None
            assert served(service)
        finally:
            strace.terminate()
            strace.wait()
        service.wait_ready(3)
        assert len(service.workers()) == 2
        assert service.stop() == 0


@linux
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_full_disk_under_the_log_stops_nothing(directory: Path, workers: tuple[str, ...]) -> None:
    port = free_port()
    with open("/dev/full", "wb") as full:
        process = start(directory, full, "--port", str(port), *workers)
    try:
        wait_for(lambda: answered(port), "an answer")
        for _ in range(300):
            assert answered(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == (0 if workers else -signal.SIGTERM)
    finally:
        end(process)


@linux
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_full_disk_under_a_log_file_stops_nothing(directory: Path, workers: tuple[str, ...]) -> None:
    handler = {"class": "logging.FileHandler", "filename": "/dev/full"}
    console = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    loggers = {
        "uvicorn": {"handlers": ["file", "console"], "level": "INFO"},
        "uvicorn.access": {"handlers": ["file"], "propagate": False},
    }
    config = {"version": 1, "handlers": {"file": handler, "console": console}, "loggers": loggers}
    (directory / "log.json").write_text(json.dumps(config))
    with Service(directory, "--port", "0", "--log-config", "log.json", *workers) as service:
        service.wait_ready(2) if workers else service.wait_serving()
        for _ in range(50):
            assert served(service)
        if workers:
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete: generation 2 serves with 2 worker")
            assert served(service)
        assert service.stop() == (0 if workers else -signal.SIGTERM)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_log_whose_reader_has_gone_stops_nothing(directory: Path, workers: tuple[str, ...]) -> None:
    port = free_port()
    reader, writer = os.pipe()
    process = start(directory, writer, "--port", str(port), *workers)
    os.close(writer)
    try:
        wait_for(lambda: answered(port), "an answer")
        os.close(reader)
        for _ in range(300):
            assert answered(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == (0 if workers else -signal.SIGTERM)
    finally:
        end(process)


def start(directory: Path, log: object, *arguments: str) -> subprocess.Popen[bytes]:
    # What the application prints by itself is its own affair.
    app = (directory / "app.py").read_text()
    (directory / "app.py").write_text(
        app.replace('print("lifespan shutdown", os.getpid(), flush=True)', "pass")
    )
    return subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,  # type: ignore[arg-type]
        stderr=log,  # type: ignore[arg-type]
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answered(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return read_response(client)[0] == 200
    except OSError:
        return False


# --- clocks and signals -------------------------------------------------------------------------------


def test_a_wall_clock_that_jumps_changes_the_date_and_nothing_else(directory: Path) -> None:
    # Every process reads the offset anew each time it asks for the wall clock.
    (directory / "sitecustomize.py").write_text(
        "import time\n"
        "real = time.time\n"
        "def jumping():\n"
        "    try:\n"
        f"        return real() + float(open({str(directory / 'offset')!r}).read())\n"
        "    except (OSError, ValueError):\n"
        "        return real()\n"
        "time.time = jumping\n"
    )
    environ = {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}
    options = ("--timeout-worker-healthcheck", "2", "--timeout-keep-alive", "60")
    with Service(directory, "--port", "0", "--workers", "2", *options, environ=environ) as service:
        service.wait_ready(2)
        workers = set(service.workers())
        with service.connect() as kept:
            for offset in (3600, -3600, 0):
                (directory / "offset").write_text(str(offset))

                def follows(offset: int = offset) -> bool:
                    kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    status, headers, _ = read_response(kept)
                    assert status == 200
                    there = parsedate_to_datetime(headers["date"]).timestamp()
                    return abs(there - time.time() - offset) < 600

                wait_for(follows, "a Date header that follows the clock")
                time.sleep(2.5)  # longer than the health check: nobody is blamed
                assert set(service.workers()) == workers
        assert "no sign of life" not in service.log
        assert service.stop() == 0


def test_workers_serve_while_the_master_is_stopped(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "2", "--timeout-worker-healthcheck", "1") as service:
        service.wait_ready(2)
        workers = set(service.workers())
        service.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            assert served(service)
        service.send_signal(signal.SIGCONT)
        service.send_signal(signal.SIGTTIN)
        service.wait_ready(3)
        assert workers < set(service.workers())
        assert service.stop() == 0


@linux
def test_a_storm_of_signals_changes_nothing(directory: Path) -> None:
    harmless = [signal.SIGCHLD, signal.SIGURG, signal.SIGCONT, signal.SIGPIPE]
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        workers = set(service.workers())
        memory = psutil.Process(service.pid).memory_info().rss
        for _ in range(1000):
            for number in harmless:
                service.send_signal(number)
        assert served(service)
        assert set(service.workers()) == workers
        for _ in range(50):
            service.send_signal(signal.SIGUSR1)
            service.send_signal(signal.SIGTTIN)
            service.send_signal(signal.SIGTTOU)
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"worker=\d+ gen=2 pid=\d+ ready", 2)
        wait_for(lambda: len(service.workers()) == 2, "two workers")
        assert psutil.Process(service.pid).memory_info().rss < memory + 20_000_000
        assert service.stop() == 0


# --- files and queues ---------------------------------------------------------------------------------


def test_a_reload_without_its_directory_changes_nothing(tmp_path: Path) -> None:
    code, away = tmp_path / "code", tmp_path / "away"
    code.mkdir()
    (code / "service.py").write_text(APP)
    options = ("--port", "0", "--workers", "2", "--app-dir", str(code))
    with Service(tmp_path, *options, app="service:app") as service:
        service.wait_ready(2)
        workers = set(service.workers())
        code.rename(away)
        service.send_signal(signal.SIGHUP)
        service.wait_log('Could not import module "service"')
        assert served(service)
        wait_for(lambda: set(service.workers()) == workers, "the workers that were there")
        # A deployment that puts another directory in its place.
        code.symlink_to(away)
        (away / "service.py").write_text(APP.replace('VERSION = "v1"', 'VERSION = "v2"'))
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"gen=\d+ pid=\d+ ready", 4)
        wait_for(lambda: service.request("/").body.endswith(b"v2"), "the new code")
        assert service.stop() == 0


def test_more_connections_at_once_than_the_backlog_holds(directory: Path) -> None:
    with (
        Service(directory, "--port", "0", "--workers", "1", "--backlog", "16") as service,
        contextlib.ExitStack() as stack,
    ):
        service.wait_ready(1)
        worker = next(iter(service.workers()))
        os.kill(worker, signal.SIGSTOP)
        clients = []
        for _ in range(300):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", service.port))
            clients.append(client)
        os.kill(worker, signal.SIGCONT)
        # Those that the kernel took are served; whoever comes now is, too.
        wait_for(lambda: served(service), "an answer")
        first = clients[0]
        first.setblocking(True)
        first.settimeout(PATIENCE)
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_response(first)[0] == 200
        assert set(service.workers()) == {worker}
        assert service.stop() == 0
