"""Containers: the master as process 1 of a PID namespace, and what the image is made from."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, ROOT, Service, read_response, wait_for

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
DOCKER = ROOT / "deploy" / "docker"


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


in_namespace = pytest.mark.skipif(not can_unshare(), reason="needs the right to make a PID namespace")


class Contained(Service):
    """A service whose master is process 1."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        super().__init__(directory, *arguments, through=NAMESPACE)

    @property
    def master(self) -> psutil.Process:
        """Process 1, as it is seen from outside."""
        found: Callable[[], list[psutil.Process]] = psutil.Process(self.pid).children
        process: psutil.Process = wait_for(found, "process 1")[0]
        return process

    def zombies(self) -> list[int]:
        return [each.pid for each in self.master.children() if each.status() == psutil.STATUS_ZOMBIE]


@in_namespace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with Contained(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        assert "Started parent process [1]" in service.log
        with service.connect() as client:
            service.hold(client)
            service.master.send_signal(number)
            service.release()
            assert read_response(client)[2] == b"held answer"
        assert service.wait_exit() == 0
        service.wait_log(r"Stopping parent process \[1\]")


ORPHANS = '''
async def orphan(scope, receive, send):
    """Twenty processes whose parents are gone, and that end at once."""
    for _ in range(20):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(3)
            os._exit(0)
        os.wait()
    await answer(send, b"done")

ROUTES["/orphan"] = orphan
'''


@in_namespace
def test_process_1_reaps_what_it_inherits_and_takes_it_for_no_worker(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + ORPHANS)
    with Contained(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        for _ in range(3):
            assert service.request("/orphan").body == b"done"
        wait_for(lambda: not service.zombies(), "the end of all zombies")
        assert "died" not in service.log
        assert service.request("/").status == 200
        service.master.terminate()
        assert service.wait_exit() == 0


@in_namespace
def test_process_1_replaces_workers_and_reloads(tmp_path: Path) -> None:
    with Contained(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        victim = service.master.children()[0]
        victim.kill()
        service.wait_log("died: killed by SIGKILL")
        service.wait_ready(3)
        service.master.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete: generation 2 serves with 2 worker")
        service.master.terminate()
        assert service.wait_exit() == 0


@in_namespace
def test_process_1_hears_a_stop_while_it_still_imports(tmp_path: Path) -> None:
    # Found in the place of the real one, since `python -m` looks into the current directory first.
    (tmp_path / "setproctitle.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(1000)\n"
    )
    with Contained(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_log("importing")
        service.master.terminate()
        assert service.wait_exit() == 128 + signal.SIGTERM


@in_namespace
def test_a_single_process_1_that_has_stopped_in_order_ends_with_0(tmp_path: Path) -> None:
    # As with 0.37.0: the kernel throws the signal away that it raises again in the end.
    with Contained(tmp_path, "--port", "0") as service:
        service.wait_serving()
        service.master.terminate()
        assert service.wait_exit() == 0
        assert "Finished server process [1]" in service.log


# --- what the image is made from -----------------------------------------------------------------


def test_the_image_runs_the_command_itself_and_not_as_root() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert re.search(r'^ENTRYPOINT \["uvicorn"\]$', text, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .* CMD \["uvicornctl", "health"\]$', text, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_images_configuration_is_one_and_its_variables_are_those_of_the_page(tmp_path: Path) -> None:
    text = (DOCKER / "uvicorn.yaml").read_text()
    page = (DOCKER / "README.md").read_text()
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text):
        assert re.search(rf"^\| `{name}` \| .* \| `{re.escape(default)}` \|$", page, re.MULTILINE), name
    (tmp_path / "uvicorn.yaml").write_text(text.replace("/app", str(tmp_path)))
    (tmp_path / "app.py").write_text(APP)
    environ = {"WORKERS": "2", "PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--config", "uvicorn.yaml", "--check-config"],
        cwd=tmp_path,
        env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "The configuration is good" in done.stdout
    assert done.returncode == 0


def test_the_application_of_the_compose_file_answers(tmp_path: Path) -> None:
    arguments = ("--app-dir", str(ROOT / "examples"), "--port", "0", "--workers", "2")
    with Service(tmp_path, *arguments, app="bare:app") as service:
        service.wait_ready(2)
        seen = json.loads(service.request("/a").body)
        assert (seen["method"], seen["path"], seen["scheme"]) == ("GET", "/a", "http")
        assert seen["worker"] in service.workers()
        assert service.stop() == 0
