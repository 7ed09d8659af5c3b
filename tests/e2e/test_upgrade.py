"""SIGUSR2, many times in a row and with programs that do not start; and a storm of SIGHUP."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import site
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, ROOT, Service, wait_for
from tests.e2e.load import Load

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def descriptors(pid: int) -> list[str]:
    """What a process has open, in words that do not change with the number."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry).split("[")[0].split(":")[0])
        except FileNotFoundError:
            continue
    return sorted(found)


@on_linux
@pytest.mark.parametrize("more", [(), ("--reuse-port",)], ids=["one socket", "a socket for each"])
def test_ten_upgrades_in_a_row_lose_no_request_and_leave_nothing_behind(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    arguments = ("--workers", "2", "--no-access-log", "--pid-file", "u.pid", "--control-socket", "u.ctl")
    with Service(tmp_path, "--port", "0", *arguments, *more) as service:
        service.wait_ready(2)

        def at_rest() -> bool:
            titles = sorted(" ".join(title.split()[1:3]) for title in service.workers().values())
            return titles == ["control app:app", "worker 1", "worker 2"]

        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            before: list[str] = []
            for i in range(1, 11):
                answered = kept.answers, fresh.answers
                service.send_signal(signal.SIGUSR2)
                service.wait_log(rf"Reload complete: generation {i + 1} serves with 2 worker")
                wait_for(
                    lambda: kept.answers > answered[0] and fresh.answers > answered[1],  # noqa: B023
                    "answers of the new program",
                )
                wait_for(at_rest, "the end of the old ones")
                if i == 1:
                    before = descriptors(service.pid)
        # Not equal: one that had just ended when it was counted may have been among them.
        wait_for(lambda: len(descriptors(service.pid)) <= len(before), f"no more descriptors than {before}")
        assert (tmp_path / "u.pid").read_text() == f"{service.pid}\n"
        assert service.process.poll() is None
        assert len(service.session()) == 4  # master, two workers, control process
        assert service.stop() == 0
        assert not kept.failures
        assert not fresh.failures


class Linked(Service):
    """A server whose interpreter can be taken away."""

    def __init__(self, directory: Path, *arguments: str, app: str = "app:app") -> None:
        self.python = directory / "python"
        self.python.symlink_to(os.path.realpath(sys.executable))
        path = os.pathsep.join([str(ROOT), *site.getsitepackages()])
        run_the_link = ["sh", "-c", 'shift; exec "$0" "$@"', str(self.python)]
        super().__init__(directory, *arguments, app=app, environ={"PYTHONPATH": path}, through=run_the_link)


def test_an_interpreter_that_is_gone_or_broken_changes_nothing(tmp_path: Path) -> None:
    with Linked(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        before = set(service.workers())
        with Load(service.port, clients=2, keep_alive=False) as load:
            target = os.readlink(service.python)
            service.python.unlink()
            service.send_signal(signal.SIGUSR2)
            service.wait_log(
                "Upgrade failed: the trial could not be started: No such file or directory. Nothing"
            )
            service.python.write_text("#!/bin/sh\nexit 7\n")
            service.send_signal(signal.SIGUSR2)
            service.wait_log("Upgrade failed: the trial could not be started: Permission denied. Nothing")
            service.python.chmod(0o755)
            service.send_signal(signal.SIGUSR2)
            service.wait_log(
                r"Upgrade failed: the new program does not start \(exit code 7\). Nothing has changed"
            )
        assert set(service.workers()) == before
        assert not load.failures
        service.python.unlink()
        service.python.symlink_to(target)
        service.send_signal(signal.SIGUSR2)
        service.wait_log("Reload complete: generation 2")
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("app: [", 2, "is not YAML"),
        ("app: app:app\nport: 0\nworkers: 2\nwrokers: 3\n", 2, "no such setting"),
        ("app: app:app\nport: 0\nworkers: 2\nssl_certfile: none.pem\n", 2, "none.pem"),
        ("app: app:app\nport: 0\n", 2, "Only a master with workers can take another one's place"),
        ("app: other:app\nport: 0\nworkers: 2\n", 3, "other"),
    ],
)
def test_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, content: str, code: int, message: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("app: app:app\nport: 0\nworkers: 2\n")
    with Service(tmp_path, "--config", "c.yaml", app="") as service:
        service.wait_ready(2)
        before = set(service.workers())
        file.write_text(content)
        service.send_signal(signal.SIGUSR2)
        service.wait_log(rf"Upgrade failed: the new program does not start \(exit code {code}\)")
        assert message in service.log
        assert set(service.workers()) == before
        assert service.request("/").status == 200
        assert service.stop() == 0


@on_linux
def test_a_file_that_breaks_after_the_trial_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "uvicorn.yaml"
    file.write_text("app: app:app\nworkers: 2\nport: 0\n")
    with stopped_at_takeover(tmp_path) as service:
        file.write_text("app: app:app\nworkers: [\n")
        before = set(service.workers())
        service.send_signal(signal.SIGCONT)
        service.wait_log(r"uvicorn\.yaml:\d+")
        service.wait_log("Taking over has failed; the workers of the program before serve on", 2)
        assert service.request("/").status == 200
        assert set(service.workers()) == before
        file.write_text("app: app:app\nworkers: 2\nport: 0\n")
        service.wait_log("Took over 2 worker process")
        service.wait_log("Reload complete: generation 2 serves with 2 worker")
        assert service.request("/").status == 200
        assert service.stop() == 0


@on_linux
def test_a_stop_ends_the_wait_for_a_file_that_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "uvicorn.yaml"
    file.write_text("app: app:app\nworkers: 2\nport: 0\n")
    with stopped_at_takeover(tmp_path) as service:
        file.unlink()
        service.send_signal(signal.SIGCONT)
        service.wait_log("Taking over has failed")
        assert service.stop() == 2
        assert service.log.count("lifespan shutdown") == 2


@contextlib.contextmanager
def stopped_at_takeover(directory: Path) -> Iterator[Service]:
    """A service whose next program stands still in its first moment."""
    with Service(
        directory, "--config", "uvicorn.yaml", app="", environ={"INJECT_PHASE": "takeover"},
        module="tests.inject.begin",
    ) as service:  # fmt: skip
        service.wait_ready(2)
        service.send_signal(signal.SIGUSR2)
        wait_for(lambda: psutil.Process(service.pid).status() == psutil.STATUS_STOPPED, "the next program")
        yield service


def test_an_upgrade_and_a_death_at_the_same_moment_leave_no_ghost(tmp_path: Path) -> None:
    arguments = ("--workers", "3", "--no-access-log", "--limit-restarts", "1000")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(3)
        for i in range(1, 4):
            service.send_signal(signal.SIGUSR2)
            service.wait_log("trying the new program", i)
            # Until the exec somebody dies in every moment.
            deadline = time.monotonic() + 60
            while len(service.log.split("Took over")) <= i:
                assert time.monotonic() < deadline
                for pid, title in service.workers().items():
                    if "ready" in title:
                        os.kill(pid, signal.SIGKILL)
                        break
                time.sleep(0.02)
            service.wait_log(rf"Reload complete: generation {i + 1} serves with 3 worker")
        wait_for(lambda: len(service.workers()) == 3, "three workers and nobody else")
        assert service.stop() == 0
        assert "still there" not in service.log


def test_a_thousand_hups_in_ten_seconds_are_followed_by_one_that_is_complete(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--no-access-log") as service:
        service.wait_ready(2)
        with Load(service.port, clients=4) as load:
            storm(service, 1000)
            (tmp_path / "app.py").write_text(APP.replace('"v1"', '"v2"'))
            service.send_signal(signal.SIGHUP)
            wait_for(lambda: service.request("/").body.split()[1] == b"v2", "the new code")
            wait_for(
                lambda: len(service.workers()) == 2 and all("ready" in t for t in service.workers().values()),
                "two ready workers",
            )
            most = max(int(found) for found in re.findall(r"gen=(\d+)", " ".join(service.workers().values())))
            service.wait_log(rf"Reload complete: generation {most} serves with 2 worker")
        assert not load.failures
        assert service.stop() == 0


def test_term_in_the_middle_of_a_storm_of_hups_is_heard(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--no-access-log") as service:
        service.wait_ready(2)
        storm(service, 300)
        told = time.monotonic()
        service.send_signal(signal.SIGTERM)
        storm(service, 50)
        service.wait_log("Received SIGTERM, exiting.")
        print(f"heard after {time.monotonic() - told:.3f} s")
        assert service.wait_exit() == 0
        wait_for(lambda: not service.session(), "the end of every process")


def storm(service: Service, count: int) -> None:
    """SIGHUP a hundred times in a second."""
    for i in range(count):
        if service.process.poll() is not None:
            return
        service.send_signal(signal.SIGHUP)
        due = time.monotonic() + 0.01
        wait_for(lambda: time.monotonic() >= due, f"the time of signal {i + 1}")  # noqa: B023


@on_linux
def test_a_storm_of_hups_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        before = psutil.Process(service.pid).num_fds()
        storm(service, 100)
        service.send_signal(signal.SIGHUP)
        wait_for(
            lambda: len(service.workers()) == 1 and psutil.Process(service.pid).num_fds() <= before,
            "as many descriptors as before",
        )
        assert service.stop() == 0
