"""`uvicorn.workers.UvicornWorker` under gunicorn."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.harness import APP, ROOT, wait_for

pytest.importorskip("gunicorn")


@pytest.mark.parametrize("worker", ["UvicornWorker", "UvicornH11Worker"])
def test_gunicorn_runs_our_server(tmp_path: Path, worker: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "app:app", "-k", f"uvicorn.workers.{worker}", "-w", "2"]
    command += ["-b", "127.0.0.1:0", "--access-logfile", "-", "--timeout", "5", "--no-control-socket"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        port = wait_for(
            lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text()), "the port"
        )[1]
        wait_for(lambda: log.read_text().count("Application startup complete.") == 2, "two workers")
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/x") as response:
                assert response.headers["server"] == "uvicorn"
        wait_for(
            lambda: log.read_text().count('"GET /x HTTP/1.1" 200') == 5, "access lines in gunicorn's log"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert log.read_text().count("lifespan shutdown") == 2
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
