"""Control and a look inside, with the real commands: `uvicornctl`, the admin address, and a control process that dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, wait_for

SOCKET = ("--control-socket", "c.sock")
NOBODY = 65534


class Controlled(Service):
    """A service with both doors."""

    def __init__(self, directory: Path, *arguments: str, **more: Any) -> None:
        super().__init__(directory, "--port", "0", *SOCKET, "--admin", "127.0.0.1:0", *arguments, **more)

    def start_ctl(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        path = str(self.directory / "c.sock")
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "uvicorn.control.cli", "--socket", path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def ctl(self, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run `uvicornctl`; its exit code and what it says."""
        with self.start_ctl(*arguments, prefix=prefix) as process:
            out, err = process.communicate(timeout=2 * PATIENCE)
        return process.returncode, out + err

    def status(self) -> dict[str, Any]:
        code, text = self.ctl("status", "--json")
        assert code == 0, text
        return json.loads(text)  # type: ignore[no-any-return]

    @property
    def admin_port(self) -> int:
        return int(self.wait_log(r"Control process \[\d+\] answers on .*http://127\.0\.0\.1:(\d+)")[1])

    def admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def seen(self) -> dict[str, Any]:
        code, text = self.admin("/status.json")
        assert code == 200
        return json.loads(text)  # type: ignore[no-any-return]

    def workers(self) -> dict[int, str]:
        return {pid: title for pid, title in super().workers().items() if "uvicorn: control" not in title}

    def control_pid(self, other_than: int = 0) -> int:
        def found() -> int | None:
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.pid != other_than and child.cmdline()[0].startswith("uvicorn: control"):
                        return child.pid
            return None

        return wait_for(found, "the control process")  # type: ignore[no-any-return]

    def block(self) -> Iterator[socket.socket]:
        """Block one worker."""
        client = self.connect()
        client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
        yield client


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Controlled]:
    with Controlled(tmp_path, "--workers", "2") as running:
        yield running.wait_ready(2)


# --- looking -----------------------------------------------------------------------------------


def test_status_tells_what_is(service: Controlled) -> None:
    assert service.request("/").status == 200
    found = wait_for(lambda: (seen := service.status())["requests"] == 1 and seen, "the request")
    assert (found["service"], found["ready"], found["wanted"], found["generation"]) == ("app:app", 2, 2, 1)
    assert found["responses"]["2xx"] == 1
    assert {worker["pid"] for worker in found["workers"]} == set(service.workers())
    assert all(worker["memory"] > 2**20 for worker in found["workers"])
    assert any("ready after" in event["text"] for event in found["events"])
    code, text = service.ctl("status")
    assert code == 0
    assert re.search(r"^  1 +\d+ +1 ready ", text, re.MULTILINE)
    assert service.seen().keys() == found.keys()
    assert service.stop() == 0


def test_top_fits_a_terminal_and_ends(service: Controlled) -> None:
    code, text = service.ctl("top", "--count", "2", "--interval", "0.1")
    assert code == 0
    assert text.count("REQ/S") == 1  # the second look, which has something to compare with
    assert max(map(len, text.splitlines())) < 80
    code, text = service.ctl("top", "--json", "--count", "1")
    assert json.loads(text)["ready"] == 2
    assert service.stop() == 0


def test_probes_follow_the_service(tmp_path: Path) -> None:
    gate = 'while not os.path.exists("go"): await asyncio.sleep(0.01)'
    startup = 'await asyncio.sleep(float(os.environ.get("STARTUP", "0")))'
    assert startup in APP
    (tmp_path / "app.py").write_text(APP.replace(startup, gate))
    with Controlled(tmp_path, "--workers", "1", "--shutdown-delay", "60") as service:
        assert wait_for(lambda: service.admin("/livez"), "the control process")[0] == 200
        assert service.admin("/startupz")[0] == 503
        assert service.admin("/readyz") == (503, "not ok: none of 1 worker(s) is ready\n")
        assert service.ctl("health")[0] == 1
        (tmp_path / "go").touch()
        service.wait_ready(1)
        wait_for(lambda: service.admin("/readyz")[0] == 200, "readiness")
        assert service.admin("/startupz")[0] == 200
        assert service.ctl("health") == (0, "1 of 1 worker(s) are ready\n")
        service.send_signal(signal.SIGTERM)
        wait_for(lambda: service.admin("/readyz") == (503, "not ok: the service is lingering\n"), "its end")
        assert service.admin("/livez")[0] == 200
        assert service.ctl("health")[0] == 1
        service.send_signal(signal.SIGTERM)
        assert service.wait_exit() == 0
        assert service.ctl("health")[0] == 1
        assert service.ctl("status")[0] == 3


def test_the_admin_address_only_looks(service: Controlled) -> None:
    assert service.admin("/")[0] == 200
    assert service.admin("/v1/status")[0] == 404
    assert service.admin("/v1/workers/1/dump")[0] == 404
    assert service.admin("/v1/stop", "POST")[0] == 404
    assert service.admin("/livez", "POST")[0] == 405
    assert service.stop() == 0


def test_when_every_worker_is_stuck_somebody_answers(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1", "--timeout-worker-stall", "0")
    with Controlled(tmp_path, *arguments) as service, contextlib.ExitStack() as stack:
        service.wait_ready(2)

        def all_stuck() -> bool:
            client = stack.enter_context(service.connect())
            client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            return all(worker["state"] == "stalled" for worker in service.seen()["workers"])

        wait_for(all_stuck, "two stuck workers")
        assert service.admin("/livez")[0] == 200
        assert service.admin("/readyz") == (503, "not ok: none of 2 worker(s) is ready\n")
        assert service.admin("/metrics")[0] in (200, 501)
        assert min(worker["loop_lag"] for worker in service.seen()["workers"]) > 0
        code, text = service.ctl("dump", "1")
        assert code == 0
        assert "in block" in text
        assert "GET /block" in text


def test_a_blocked_worker_says_where_it_is(service: Controlled) -> None:
    with service.connect() as client:
        client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")

        def dumps() -> str:
            return "".join(service.ctl("dump", str(slot))[1] for slot in (1, 2))

        text = wait_for(lambda: "in block" in (found := dumps()) and found, "the stack")
    assert "Thread MainThread:" in text
    assert "GET /block from 127.0.0.1" in text
    assert service.ctl("dump", "9") == (1, "There is no worker=9.\n")


# --- commands ----------------------------------------------------------------------------------


def test_reload_waits_for_the_new_generation(service: Controlled) -> None:
    (service.directory / "app.py").write_text(APP.replace('"v1"', '"v2"'))
    assert service.ctl("reload") == (0, "Reload complete: generation 2 serves with 2 worker(s).\n")
    assert service.request("/").body.endswith(b"v2")
    assert service.seen()["outcomes"]["reload"]["succeeded"] == 1
    assert service.stop() == 0


def test_reload_of_broken_code_says_why_and_changes_nothing(service: Controlled) -> None:
    before = set(service.workers())
    (service.directory / "app.py").write_text("def broken(:\n")
    code, text = service.ctl("reload")
    assert code == 1
    assert "Reload failed, its first worker did not start: exit code 3" in text
    assert "The worker's error: SyntaxError: " in text
    assert text.split(" The worker's error")[0] in service.log
    code, text = service.ctl("reload", "--json")
    assert (code, json.loads(text)["ok"]) == (1, False)
    assert set(service.workers()) == before
    assert service.stop() == 0


def test_upgrade_answers_across_the_exec(service: Controlled) -> None:
    (service.directory / "app.py").write_text(APP.replace('"v1"', '"upgraded"'))
    first = service.control_pid()
    assert service.ctl("upgrade") == (0, "Upgrade complete: generation 2 serves with 2 worker(s).\n")
    assert service.request("/").body.endswith(b"upgraded")
    service.control_pid(other_than=first)  # it is of the new program, too
    found = service.status()
    assert found["outcomes"]["upgrade"]["succeeded"] == 1
    (service.directory / "app.py").write_text("raise RuntimeError\n")
    code, text = service.ctl("upgrade")
    assert code == 1
    assert "the new program does not start (exit code 3). Nothing has changed." in text
    assert service.stop() == 0
    assert not (service.directory / "c.sock").exists()


def test_scale_waits_until_they_are_ready(service: Controlled) -> None:
    assert service.ctl("scale", "4") == (0, "4 worker(s) are ready.\n")
    assert len(service.workers()) == 4
    assert service.ctl("scale", "1") == (0, "1 worker(s) are ready.\n")
    wait_for(lambda: len(service.workers()) == 1, "one worker")
    assert service.ctl("scale", "0")[0] == 2
    assert service.ctl("scale", "9999")[0] == 1
    assert service.stop() == 0


def test_restart_replaces_one_worker(service: Controlled) -> None:
    before = {worker["id"]: worker["pid"] for worker in service.status()["workers"]}
    code, text = service.ctl("restart", "2")
    assert code == 0
    assert re.fullmatch(r"worker=2 gen=1 pid=\d+ has taken its place\.\n", text)
    wait_for(lambda: before[2] not in service.workers(), "the end of the old one")
    assert before[1] in service.workers()
    assert service.ctl("restart", "9") == (1, "There is no worker=9.\n")
    assert service.stop() == 0


def test_stop_waits_for_the_end(service: Controlled) -> None:
    assert service.ctl("stop") == (0, "The service has stopped.\n")
    assert service.wait_exit() == 0
    wait_for(lambda: not service.session(), "the end of every process")
    assert not (service.directory / "c.sock").exists()
    assert service.ctl("status")[0] == 3


def test_reopen_logs(service: Controlled) -> None:
    assert service.ctl("reopen-logs") == (0, "Master and workers have reopened their log files.\n")
    service.wait_log("Asked by uvicornctl, reopening log files.")
    assert service.stop() == 0


# --- who may -----------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone(service: Controlled) -> None:
    assert stat.S_IMODE((service.directory / "c.sock").stat().st_mode) == 0o600
    assert service.stop() == 0


@pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs setpriv and the right to use it"
)
def test_another_user_is_refused() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        with Controlled(Path(directory), "--workers", "1") as service:
            service.wait_ready(1)
            refused(service)


def refused(service: Controlled) -> None:
    path = service.directory / "c.sock"
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'POST /v1/stop HTTP/1.0\\r\\n\\r\\n'); print(s.recv(4096).decode())"
    )
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    command += [
        shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable,
        "-c",
        script,
        str(path),
    ]

    def stop_as_nobody() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, cwd="/")

    assert "PermissionError" in stop_as_nobody().stderr  # by the rights of the file
    path.chmod(0o666)
    answer = stop_as_nobody().stdout  # by the second lock
    assert answer.startswith("HTTP/1.1 403 Forbidden")
    assert f"not user {NOBODY}." in answer
    assert service.ctl("health")[0] == 0
    assert service.stop() == 0


def test_read_only_refuses_commands(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1", "--control-read-only") as service:
        service.wait_ready(1)
        for verb in (
            ("reload",),
            ("stop",),
            ("scale", "3"),
            ("restart", "1"),
            ("reopen-logs",),
            ("upgrade",),
        ):
            code, text = service.ctl(*verb)
            assert code == 3
            assert "read-only" in text
        assert service.ctl("health")[0] == service.ctl("dump", "1")[0] == 0
        assert service.status()["ready"] == 1
        assert service.stop() == 0


# --- a control process that is not well ----------------------------------------------------------


def test_a_killed_control_process_comes_back_and_nobody_is_refused_meanwhile(service: Controlled) -> None:
    before = set(service.workers())
    first = service.control_pid()
    os.kill(first, signal.SIGKILL)
    assert service.ctl("health")[0] == 0  # waits in the queue for the next one
    assert service.admin("/livez")[0] == 200
    assert service.control_pid(other_than=first) != first
    service.wait_log(rf"Control process \[{first}\] ended: killed by SIGKILL.* workers are not affected")
    assert set(service.workers()) == before
    assert service.request("/").status == 200
    assert service.stop() == 0


def test_a_control_process_that_hangs_keeps_nobody_from_anything(service: Controlled) -> None:
    hung = service.control_pid()
    os.kill(hung, signal.SIGSTOP)
    for i in range(2, 5):
        service.send_signal(signal.SIGHUP)
        service.wait_log(f"Reload complete: generation {i} serves")
    os.kill(hung, signal.SIGCONT)
    wait_for(lambda: service.seen()["generation"] == 4, "a fresh snapshot")
    os.kill(hung, signal.SIGSTOP)
    assert service.stop() == 0


def test_without_the_master_it_ends(service: Controlled) -> None:
    service.send_signal(signal.SIGKILL)
    service.process.wait()
    wait_for(lambda: not service.session(), "the end of every process")


def test_a_socket_that_cannot_be_had_is_one_warning(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--workers", "1", "--control-socket", "no/such/directory/c.sock")
    with Service(tmp_path, *arguments) as service:
        service.wait_ready(1)
        assert (
            len(re.findall("No control socket: cannot bind to unix:.*no such file or directory", service.log))
            == 1
        )
        assert service.stop() == 0


def test_systemd_gives_the_directory(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    with Service(tmp_path, "--port", "0", "--workers", "1", environ=environ) as service:
        service.wait_ready(1)
        service.wait_log("Control process")
        command = [sys.executable, "-m", "uvicorn.control.cli", "health"]
        result = subprocess.run(
            command, env={**os.environ, **environ, "PYTHONPATH": str(ROOT)}, timeout=PATIENCE, check=False
        )
        assert result.returncode == 0
        assert service.stop() == 0


# --- numbers -----------------------------------------------------------------------------------

COUNTERS = re.compile(r"^(uvicorn_\w+_total(?:\{[^}]*\})?) ([0-9.e+]+)$", re.MULTILINE)


def test_sums_never_run_backwards(service: Controlled) -> None:
    pytest.importorskip("prometheus_client")
    last: dict[str, float] = {}

    def look() -> dict[str, float]:
        nonlocal last
        code, text = service.admin("/metrics")
        assert code == 200
        found = {name: float(value) for name, value in COUNTERS.findall(text)}
        assert all(found[name] >= value for name, value in last.items()), (last, found)
        last = found
        return found

    def served(count: int) -> bool:
        service.request("/")
        return look()["uvicorn_requests_total"] >= count

    wait_for(lambda: served(5), "some requests")
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)
    service.wait_ready(4)
    wait_for(lambda: look()['uvicorn_worker_restarts_total{reason="died"}'] == 2, "two deaths")
    wait_for(lambda: served(10), "more requests")
    for i in range(2, 4):
        service.send_signal(signal.SIGHUP)
        wait_for(lambda: (look(), f"generation {i} serves" in service.log)[1], "the reload")  # noqa: B023
    wait_for(lambda: served(15), "more requests")
    assert service.ctl("upgrade")[0] == 0
    os.kill(service.control_pid(), signal.SIGKILL)
    wait_for(lambda: served(20), "more requests")
    assert look()['uvicorn_responses_total{status="2xx"}'] >= 20
    assert service.stop() == 0
