"""Log files that are moved away under load: no line is lost, and none is in the old file after the answer."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import PATIENCE, ROOT, Service, wait_for
from tests.e2e.load import Load
from tests.ports import free_port

HANDLERS = ["FileHandler", "handlers.WatchedFileHandler", "handlers.RotatingFileHandler"]

LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters:
  plain: {{format: '%(message)s'}}
handlers:
  server: {{class: logging.{handler}, filename: logs/server.log, formatter: plain}}
  access: {{class: logging.{handler}, filename: logs/access.log, formatter: plain}}
loggers:
  uvicorn: {{handlers: [server], level: INFO, propagate: false}}
  uvicorn.access: {{handlers: [access], level: INFO, propagate: false}}
"""


class Logged(Service):
    """A server that logs into files."""

    def __init__(self, directory: Path, handler: str, *arguments: str) -> None:
        (directory / "log.yaml").write_text(LOG_CONFIG.format(handler=handler))
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.number = free_port()
        super().__init__(
            directory,
            "--port",
            str(self.number),
            "--log-config",
            "log.yaml",
            "--control-socket",
            "u.ctl",
            "--workers",
            "2",
            *arguments,
        )

    @property
    def port(self) -> int:
        return self.number

    @property
    def log(self) -> str:
        """What is in all files, the oldest first."""
        if not hasattr(self, "logs"):
            return super().log
        parts = sorted(self.logs.glob("server.log*"), key=lambda path: path.stat().st_mtime)
        return super().log + "".join(path.read_text() for path in parts)

    def reopen(self) -> None:
        done = subprocess.run(
            self.ctl, cwd=self.directory, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.stdout == "Master and workers have reopened their log files.\n", done.stderr
        assert done.returncode == 0

    ctl = (sys.executable, "-m", "uvicorn.control.cli", "--socket", "u.ctl", "reopen-logs")


def lines(path: Path) -> int:
    return path.read_text().count('"GET / HTTP/1.1" 200')


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("handler", HANDLERS)
def test_files_that_are_moved_away_under_load_get_no_line_after_the_answer_and_none_is_lost(
    tmp_path: Path, handler: str
) -> None:
    with Logged(tmp_path, handler) as service:
        service.wait_ready(2)
        access = service.logs / "access.log"
        moved: dict[Path, int] = {}
        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            for i in range(1, 6):
                before = kept.answers
                wait_for(lambda: kept.answers > before + 50, "some requests")  # noqa: B023
                old = access.with_suffix(f".{i}")
                access.rename(old)
                (service.logs / "server.log").rename(service.logs / f"server.log.{i}")
                service.reopen()
                moved[old] = old.stat().st_size
                before = kept.answers
                wait_for(lambda: kept.answers > before + 50, "requests after the answer")  # noqa: B023
        assert service.stop() == 0
        assert {path: path.stat().st_size for path in moved} == moved
        assert sum(map(lines, [access, *moved])) == kept.answers + fresh.answers
        assert not kept.failures
        assert not fresh.failures


def test_who_rotates_hears_that_a_file_cannot_be_opened_again(tmp_path: Path) -> None:
    with Logged(tmp_path, "FileHandler") as service:
        service.wait_ready(2)
        moved = service.logs.rename(tmp_path / "moved")
        command: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": PATIENCE}
        done = subprocess.run(service.ctl, check=False, **command)
        assert done.returncode == 1
        assert re.match(r"Not all log files are reopened: .*No such file .*the master, worker=", done.stderr)
        assert "A log file cannot be reopened" in (moved / "server.log").read_text()
        moved.rename(service.logs)
        service.reopen()
        assert service.stop() == 0


@pytest.mark.parametrize("handler", HANDLERS)
def test_usr1_to_the_master_loses_no_line(tmp_path: Path, handler: str) -> None:
    with Logged(tmp_path, handler) as service:
        service.wait_ready(2)
        access = service.logs / "access.log"
        with Load(service.port, clients=8) as load:
            for i in range(1, 6):
                before = load.answers
                wait_for(lambda: load.answers > before + 50, "some requests")  # noqa: B023
                access.rename(access.with_suffix(f".{i}"))
                service.send_signal(signal.SIGUSR1)
                service.wait_log("Master and workers have reopened their log files", i)
        assert service.stop() == 0
        assert sum(map(lines, service.logs.glob("access.*"))) == load.answers
        assert not load.failures


def test_usr1_to_a_worker_itself_loses_no_line_either(tmp_path: Path) -> None:
    with Logged(tmp_path, "FileHandler") as service:
        service.wait_ready(2)
        with Load(service.port, clients=8) as load:
            workers = [pid for pid, title in service.workers().items() if "uvicorn: worker" in title]
            for _ in range(200):
                before = load.answers
                for pid in workers:
                    os.kill(pid, signal.SIGUSR1)
                wait_for(lambda: load.answers > before, "an answer")  # noqa: B023
        assert service.stop() == 0
        assert lines(service.logs / "access.log") == load.answers
        assert not load.failures
        assert "Logging error" not in service.log


def test_a_file_that_is_opened_for_writing_is_not_cut_off_by_each_process(tmp_path: Path) -> None:
    with Logged(tmp_path, "FileHandler, mode: w") as service:
        service.wait_ready(2)
        access = service.logs / "access.log"
        access.rename(access.with_suffix(".1"))
        service.reopen()
        with Load(service.port, clients=8) as load:
            wait_for(lambda: load.answers > 100, "some requests")
            service.reopen()
        assert service.stop() == 0
        assert lines(access) == load.answers


def test_a_worker_that_cannot_answer_is_named(tmp_path: Path) -> None:
    with Logged(tmp_path, "FileHandler") as service:
        service.wait_ready(2)
        pid = next(pid for pid, title in service.workers().items() if "uvicorn: worker 2" in title)
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "a worker that stands still")
        done = subprocess.run(
            service.ctl, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        os.kill(pid, signal.SIGCONT)
        assert done.returncode == 1
        assert re.search(
            rf"Not all log files are reopened: no answer from worker=2 gen=1 pid={pid}\.",
            done.stdout + done.stderr,
        )
        assert service.stop() == 0


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate_with_the_example_of_deploy_loses_no_line(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "logrotate" / "uvicorn").read_text()
    assert "/opt/uvicorn/bin/uvicornctl --socket /run/uvicorn/uvicorn.ctl reopen-logs" in text
    text = text.replace("/var/log/uvicorn", str(tmp_path / "logs"))
    text = text.replace("/opt/uvicorn/bin/uvicornctl", f"{sys.executable} -m uvicorn.control.cli")
    text = text.replace("/run/uvicorn/uvicorn.ctl", str(tmp_path / "u.ctl"))
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(text)
    configuration.chmod(0o644)
    with Logged(tmp_path, "FileHandler") as service:
        service.wait_ready(2)
        service.logs.chmod(0o755)
        with Load(service.port, clients=8) as load:
            for _ in range(3):
                before = load.answers
                wait_for(lambda: load.answers > before + 50, "some requests")  # noqa: B023
                subprocess.run(
                    ["logrotate", "--force", "--state", str(tmp_path / "state"), str(configuration)],
                    check=True,
                    timeout=PATIENCE,
                )
        assert service.stop() == 0
        old = [gzip.decompress(path.read_bytes()).decode() for path in service.logs.glob("access.log.*.gz")]
        assert len(old) == 3
        found = sum(each.count('"GET / HTTP/1.1" 200') for each in old) + lines(service.logs / "access.log")
        assert found == load.answers
        assert not load.failures
