"""The password of a private key is seen nowhere: not in logs, titles, command lines, status, or the settings as shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.e2e.harness import APP, ROOT, Service, wait_for

SECRET = "hunter2-of-the-key"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """A certificate and its locked key, as options."""
    (tmp_path / "app.py").write_text(APP)
    certificate = trustme.CA().issue_cert("localhost")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "chain.pem", append=True)
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))
    (tmp_path / "key.pem").write_bytes(locked)
    return "--ssl-certfile", "chain.pem", "--ssl-keyfile", "key.pem"


def seen_in_process_list(service: Service) -> str:
    return "".join(
        Path(f"/proc/{pid}/{name}").read_text(errors="replace")
        for pid in service.session()
        for name in ("cmdline", "comm")
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
@pytest.mark.parametrize("workers", [(), ("--workers", "1", "--control-socket", "c.sock")])
@pytest.mark.parametrize("given", ["command line", "command line, joined", "environment", "file"])
def test_password_is_seen_nowhere(
    tmp_path: Path, files: tuple[str, ...], workers: tuple[str, ...], given: str
) -> None:
    arguments: tuple[str, ...] = ("--port", "0", "--log-level", "trace", *files, *workers)
    environ = {}
    if given == "command line":
        arguments += ("--ssl-keyfile-password", SECRET)
    elif given == "command line, joined":
        arguments += (f"--ssl-keyfile-password={SECRET}",)
    elif given == "environment":
        environ = {"UVICORN_SSL_KEYFILE_PASSWORD": SECRET}
    else:
        (tmp_path / "c.yaml").write_text(f"ssl_keyfile_password: {SECRET}\n")
        arguments += ("--config", "c.yaml")
    with Service(tmp_path, *arguments, environ=environ) as service:
        service.wait_log("Uvicorn running on https")
        if workers:
            service.wait_ready(1)
            wait_for(lambda: (tmp_path / "c.sock").exists(), "the control socket")
            for command in ("status", "status --json", "dump 1"):
                assert SECRET not in control(tmp_path, *command.split())
            # A worker that is aborted writes where it was, and not what it knew.
            os.kill(next(iter(service.workers())), signal.SIGABRT)
            service.wait_ready(2)
        assert SECRET not in seen_in_process_list(service)
        assert service.stop() == (0 if workers else -signal.SIGTERM)
        assert SECRET not in service.log


def control(directory: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "uvicorn.control.cli", "--socket", "c.sock", *arguments]
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done.stdout + done.stderr


def test_password_is_masked_where_settings_are_shown(tmp_path: Path, files: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "uvicorn", "app:app", *files, "--check-config"]
    for password in (SECRET, "wrong-" + SECRET):
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "UVICORN_SSL_KEYFILE_PASSWORD": password}
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True, timeout=60
        )
        # A wrong one is told, and not shown.
        assert (done.returncode == 0) == (password == SECRET)
        assert SECRET not in done.stdout + done.stderr
        assert done.returncode or "ssl_keyfile_password" in done.stdout


def test_credentials_of_log_handlers_are_masked_where_settings_are_shown(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "c.yaml").write_text(
        "log_config:\n  version: 1\n  handlers:\n"
        f"    mail: {{class: logging.handlers.SMTPHandler, mailhost: a, fromaddr: a, toaddrs: [b], subject: s, credentials: [u, {SECRET}]}}\n"
    )
    command = [sys.executable, "-m", "uvicorn", "app:app", "--config", "c.yaml", "--check-config"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SMTPHandler" in done.stdout
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["uvicorn.service", "uvicorn@.service"])
def test_aborted_workers_of_the_units_leave_no_core_dump(unit: str) -> None:
    assert "\nLimitCORE=0\n" in (ROOT / "deploy" / "systemd" / unit).read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="core dumps beside the application are Linux's")
def test_aborted_worker_leaves_no_core_dump_under_that_limit(tmp_path: Path) -> None:
    """That limit is enough: the master neither raises it, nor does a worker."""
    prefix = ["/bin/sh", "-c", 'ulimit -c 0; exec "$@"', "sh"]
    with Service(tmp_path, "--port", "0", "--workers", "1", through=prefix) as service:
        service.wait_ready(1)
        (worker,) = service.workers()
        limits = Path(f"/proc/{worker}/limits").read_text()
        assert next(line for line in limits.splitlines() if "core" in line).split()[4:6] == ["0", "0"]
        os.kill(worker, signal.SIGABRT)
        service.wait_ready(2)
        assert "Fatal Python error: Aborted" in service.log
        assert [*tmp_path.glob("core*")] == []
