"""Signals to the master: stop, reload, scale, reopen, upgrade, pause."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, read_response, wait_for
from tests.e2e.load import Load
from tests.ports import free_port
from uvicorn.config import LOGGING_CONFIG


def version(service: Service) -> str:
    return service.request("/").body.split()[1].decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_answers_every_request_in_flight(tmp_path: Path, number: signal.Signals) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        clients = [service.connect() for _ in range(8)]
        service.hold(*clients)
        service.send_signal(number)
        service.wait_log("Shutting down", 2)
        service.release()
        for client in clients:
            status, headers, body = read_response(client)
            assert (status, headers["connection"], body) == (200, "close", b"held answer")
            client.close()
        assert service.wait_exit() == 0
        log = service.log
    assert f"Received {number.name}, exiting." in log
    assert log.count("lifespan shutdown") == 2
    assert len(re.findall(r"Terminated child process \[\d+\]", log)) == 2
    assert len(re.findall(r"Waiting for child process \[\d+\]", log)) == 2


def test_while_it_stops_new_connections_are_refused(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        port = service.port
        with service.connect() as client:
            service.hold(client)
            service.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                except ConnectionRefusedError:
                    return True
                return False

            wait_for(refused, "refusal")
            service.release()
            assert read_response(client)[2] == b"held answer"
        assert service.wait_exit() == 0


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        with service.connect() as client:
            service.hold(client)
            service.send_signal(signal.SIGTERM)
            service.wait_log("Waiting for connections to close")
            service.send_signal(signal.SIGTERM)
            assert service.wait_exit() == 0
            assert "Received SIGTERM again, stopping at once." in service.log
            assert service.session() == []


def test_shutdown_delay_serves_on(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--shutdown-delay", "1") as service:
        service.wait_ready(2)
        service.send_signal(signal.SIGTERM)
        service.wait_log("Serving on for 1 s")
        assert service.request("/").status == 200
        assert service.wait_exit() == 0


# --- reload ------------------------------------------------------------------------------------


def test_hup_rolls_new_code_in_under_load_without_a_failed_request(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--no-access-log") as service:
        service.wait_ready(2)
        before = set(service.workers())
        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            for i in range(2, 5):
                (tmp_path / "app.py").write_text(APP.replace('"v1"', f'"v{i}"'))
                service.send_signal(signal.SIGHUP)
                service.wait_log(f"Reload complete: generation {i} serves with 2 worker")
        assert version(service) == "v4"
        assert not before & set(service.workers())
        assert service.stop() == 0
        assert not kept.failures
        assert not fresh.failures


def test_code_that_does_not_start_leaves_everything_as_it_is_and_mended_code_is_rolled_in(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        before = set(service.workers())
        (tmp_path / "app.py").write_text("def broken(:\n")
        with Load(service.port, clients=2) as load:
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload failed, its first worker did not start: exit code 3")
        assert "SyntaxError" in service.log
        assert set(service.workers()) == before
        assert not load.failures
        (tmp_path / "app.py").write_text(APP.replace('"v1"', '"mended"'))
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        assert version(service) == "mended"
        assert service.stop() == 0


def test_a_broken_configuration_file_leaves_everything_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("app: app:app\nport: 0\nworkers: 2\n")
    with Service(tmp_path, "--config", "c.yaml", app="") as service:
        service.wait_ready(2)
        before = set(service.workers())
        for content, message in (
            ("app: [", r"c\.yaml:\d+: is not YAML"),
            ("app: app:app\nwrokers: 2\n", r"c\.yaml:2: wrokers: no such setting; did you mean 'workers'"),
            ("app: app:app\nworkers: -1\n", r"c\.yaml:2: workers: "),
        ):
            file.write_text(content)
            service.send_signal(signal.SIGHUP)
            service.wait_log(r"Reload failed, the settings cannot be used: .*" + message)
        assert set(service.workers()) == before
        assert service.request("/").status == 200
        file.write_text("app: app:app\nport: 0\nworkers: 3\n")
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete: generation 5 serves with 3 worker")
        assert service.stop() == 0


def test_a_broken_logging_configuration_leaves_everything_as_it_is(tmp_path: Path) -> None:
    configuration = tmp_path / "log.json"
    configuration.write_text(json.dumps(LOGGING_CONFIG))
    with Service(tmp_path, "--port", "0", "--workers", "2", "--log-config", "log.json") as service:
        service.wait_ready(2)
        before = set(service.workers())
        configuration.write_text("{ half")
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"Reload failed, the settings cannot be used: .*Generation 1 goes on unchanged\.")
        assert set(service.workers()) == before
        configuration.write_text(json.dumps(LOGGING_CONFIG))
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        assert service.stop() == 0


def test_changed_binds_open_before_the_old_ones_close(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("app: app:app\nbind: ['127.0.0.1:0', 'unix:a.sock']\nworkers: 1\n")
    with Service(tmp_path, "--config", "c.yaml", app="") as service:
        service.wait_ready(1)
        assert (tmp_path / "a.sock").exists()
        file.write_text("app: app:app\nbind: ['127.0.0.1:0', 'unix:b.sock']\nworkers: 1\n")
        with Load(service.port, clients=4, keep_alive=False) as load:
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
        assert not load.failures  # the socket that stays was never closed
        assert not (tmp_path / "a.sock").exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "b.sock"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert service.stop() == 0


def test_a_bind_that_is_taken_leaves_everything_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("app: app:app\nport: 0\nworkers: 1\n")
    with (
        Service(tmp_path, "--config", "c.yaml", app="") as service,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        service.wait_ready(1)
        file.write_text(f"app: app:app\nport: {other.getsockname()[1]}\nworkers: 1\n")
        service.send_signal(signal.SIGHUP)
        service.wait_log(
            "Reload failed, the settings cannot be used: cannot bind to .*: address already in use"
        )
        assert service.request("/").status == 200
        assert service.stop() == 0


def test_term_during_a_reload_wins(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        (tmp_path / "app.py").write_text("import time\nprint('hanging', flush=True)\ntime.sleep(600)\n")
        service.send_signal(signal.SIGHUP)
        service.wait_log("hanging")
        assert service.stop() == 0


def test_a_storm_of_hups_is_a_few_reloads(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--no-access-log") as service:
        service.wait_ready(2)
        with Load(service.port, clients=4) as load:
            for _ in range(200):
                service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
            wait_for(
                lambda: len(service.workers()) == 2 and all("ready" in t for t in service.workers().values()),
                "two ready workers",
            )
        assert not load.failures
        assert service.stop() == 0
        assert service.log.count("Started server process") < 60


def test_hup_returns_to_the_configured_number(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        service.send_signal(signal.SIGTTIN)
        service.wait_ready(3)
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete: generation 2 serves with 2 worker")
        wait_for(lambda: len(service.workers()) == 2, "two workers")
        assert service.stop() == 0


def test_ttin_and_ttou_scale_by_one_and_never_below_one(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        service.send_signal(signal.SIGTTIN)
        service.wait_ready(2)
        service.send_signal(signal.SIGTTOU)
        wait_for(lambda: len(service.workers()) == 1, "one worker")
        service.send_signal(signal.SIGTTOU)
        service.wait_log("Already reached one process, cannot decrease the number of processes.")
        assert len(service.workers()) == 1
        assert service.stop() == 0


# --- log files, pause, upgrade -----------------------------------------------------------------


def test_usr1_reopens_log_files_in_master_and_workers(tmp_path: Path) -> None:
    (tmp_path / "log.yaml").write_text(
        """
version: 1
disable_existing_loggers: false
formatters: {plain: {format: '%(message)s'}}
handlers:
  file: {class: logging.FileHandler, filename: server.log, formatter: plain}
loggers:
  uvicorn: {handlers: [file], level: INFO, propagate: false}
  uvicorn.access: {handlers: [file], level: INFO, propagate: false}
"""
    )
    current = tmp_path / "server.log"
    # The log goes to the file, so the port is chosen here.
    port = free_port()
    arguments = ("--port", str(port), "--workers", "2", "--log-config", "log.yaml")
    with Service(tmp_path, *arguments) as service:
        wait_for(lambda: current.exists() and current.read_text().count("ready after") == 2, "two workers")
        current.rename(tmp_path / "server.log.1")
        service.send_signal(signal.SIGUSR1)
        said = "Master and workers have reopened their log files."
        wait_for(lambda: current.exists() and said in current.read_text(), "a new file for all")
        before = (tmp_path / "server.log.1").read_text()

        def asked() -> bool:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /marked HTTP/1.0\r\n\r\n")
                client.recv(1000)
            return current.read_text().count("/marked") >= 20

        wait_for(asked, "access lines in the new file")
        assert (tmp_path / "server.log.1").read_text() == before
        assert len(service.workers()) == 2
        assert service.stop() == 0


def test_winch_drains_all_workers_and_hup_brings_them_back(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        port = service.port
        service.send_signal(signal.SIGWINCH)
        wait_for(lambda: service.workers() == {}, "no workers")
        with socket.create_connection(("127.0.0.1", port)) as waiting:  # the sockets stay open
            waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
            service.send_signal(signal.SIGHUP)
            assert waiting.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: len(service.workers()) == 2, "two workers")
        assert service.stop() == 0


def test_usr2_replaces_the_program_and_keeps_the_pid_the_port_and_every_request(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--no-access-log") as service:
        service.wait_ready(2)
        before = set(service.workers())
        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            for i in range(1, 3):
                (tmp_path / "app.py").write_text(APP.replace('"v1"', f'"upgrade {i}"'))
                service.send_signal(signal.SIGUSR2)
                service.wait_log(r"Took over \d+ worker process\(es\) from the program before", i)
                service.wait_log("Reload complete", i)
        assert service.request("/").body.split(maxsplit=1)[1] == b"upgrade 2"
        assert not before & set(service.workers())
        assert service.process.poll() is None
        assert service.stop() == 0
        assert not kept.failures
        assert not fresh.failures


def test_usr2_with_a_program_that_does_not_start_changes_nothing(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        before = set(service.workers())
        (tmp_path / "app.py").write_text("raise RuntimeError('not today')\n")
        service.send_signal(signal.SIGUSR2)
        service.wait_log(
            r"Upgrade failed: the new program does not start \(exit code 3\). Nothing has changed."
        )
        assert "RuntimeError: not today" in service.log
        assert set(service.workers()) == before
        assert service.request("/").status == 200
        assert service.stop() == 0


def test_the_master_is_not_blamed_when_everything_was_stopped(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        before = set(service.workers())
        members = service.session()
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        import time

        frozen = time.monotonic()
        wait_for(lambda: time.monotonic() - frozen > 3, "a suspension longer than the health check")
        for pid in sorted(members):
            os.kill(pid, signal.SIGCONT)
        assert service.request("/").status == 200
        assert set(service.workers()) == before
        assert "Aborting" not in service.log
        assert service.stop() == 0


def small_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


def small_socket() -> tuple[int, int]:
    """As systemd gives one for the journal."""
    reader, writer = socket.socketpair()
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return reader.detach(), writer.detach()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what can be made not to wait, and small, differs"
)
@pytest.mark.parametrize("ends", [small_pipe, small_socket, pty.openpty], ids=["pipe", "socket", "terminal"])
def test_a_log_that_nobody_reads_stops_neither_the_master_nor_its_workers(
    tmp_path: Path, ends: Callable[[], tuple[int, int]]
) -> None:
    # What the application prints by itself waits for a reader as ever.
    (tmp_path / "app.py").write_text(
        APP.replace('print("lifespan shutdown", os.getpid(), flush=True)', "pass")
    )
    reader, writer = ends()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--workers", "2"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=writer,
        stderr=writer,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )

    def answer() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
                return int(response.read().split()[0])
        except OSError:
            return 0

    try:
        first = wait_for(answer, "an answer")
        if os.isatty(writer):
            termios.tcflow(writer, termios.TCOOFF)  # what Ctrl-S does
        os.close(writer)
        for _ in range(200):  # four times what the pipe takes
            assert answer()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(psutil.Process(process.pid).children()) == 2 and answer(), "another worker")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
