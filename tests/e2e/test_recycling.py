"""Recycling in real processes: a few at a time, the successor first, and no request lost."""

from __future__ import annotations

import re
import signal
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, Service, wait_for
from tests.e2e.load import Load

GROWING = (
    APP
    + """
HELD = []

async def grow(scope, receive, send):
    HELD.append(b"x" * (int(scope["query_string"]) << 20))
    await answer(send, str(os.getpid()).encode())

ROUTES["/grow"] = grow
"""
)


def size_of(service: Service) -> int:
    """What a worker that has served nothing uses, in MiB."""
    return max(psutil.Process(pid).memory_info().rss for pid in service.workers()) >> 20


def fresh_size(tmp_path: Path) -> int:
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        found = size_of(service)
        assert service.stop() == 0
    return found


@pytest.mark.parametrize("measure", ["rss", "pss"])
def test_a_worker_that_grows_is_replaced_and_the_reason_is_in_log_and_metrics(
    tmp_path: Path, measure: str
) -> None:
    if measure == "pss" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux says what is shared")
    (tmp_path / "app.py").write_text(GROWING)
    limit = fresh_size(tmp_path) + 40
    arguments = ("--limit-worker-memory", f"{limit}M", "--worker-memory-interval", "1")
    more = ("--worker-memory-measure", measure, "--control-socket", "u.ctl", "--admin", "127.0.0.1:0")
    with Service(tmp_path, "--port", "0", "--workers", "2", *arguments, *more) as service:
        service.wait_ready(2)
        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            grown = int(service.request("/grow?200").body)
            reason = service.wait_log(
                rf"worker=\d gen=1 pid={grown} is to be replaced: limit_worker_memory: (\d+) MiB {measure}, "
                rf"above {limit} MiB 3 times in a row"
            )
            assert int(reason[1]) > limit
            service.wait_log(rf"Child process \[{grown}\] ended: exit code 0")
        assert not kept.failures
        assert not fresh.failures
        assert sum("uvicorn: worker" in title for title in service.workers().values()) == 2
        assert "already when it starts" not in service.log
        admin = int(service.wait_log(r"Control process .* http://127.0.0.1:(\d+)")[1])
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as response:
            text = response.read().decode()
        assert re.search(
            r'^uvicorn_worker_restarts_total{reason="limit_worker_memory"} 1\.0$', text, re.MULTILINE
        )
        assert service.stop() == 0


def test_a_limit_that_every_fresh_worker_exceeds_is_said_once_and_replaces_nobody(tmp_path: Path) -> None:
    arguments = ("--limit-worker-memory", "1M", "--worker-memory-interval", "1")
    with Service(tmp_path, "--port", "0", "--workers", "3", *arguments) as service:
        service.wait_ready(3)
        before = set(service.workers())
        service.wait_log("already when it starts: the limit is not applied")
        with Load(service.port, clients=2) as load:
            wait_for(lambda: load.answers > 2000, "some load")
        assert set(service.workers()) == before
        assert service.log.count("already when it starts") == 1
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        wait_for(lambda: service.log.count("already when it starts") == 2, "once in the next generation")
        assert "is to be replaced" not in service.log
        assert service.stop() == 0


def test_of_twenty_workers_above_the_limit_at_once_two_are_replaced_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(GROWING)
    limit = fresh_size(tmp_path) + 20
    arguments = ("--workers", "20", "--limit-worker-memory", f"{limit}M", "--worker-memory-interval", "1")
    with Service(tmp_path, "--port", "0", "--no-access-log", *arguments) as service:
        service.wait_ready(20)
        old = set(service.workers())
        grown: set[int] = set()

        def all_grown() -> bool:
            grown.add(int(service.request("/grow?30").body))
            return grown >= old or len(old & set(service.workers())) < 20

        with Load(service.port, clients=2) as kept, Load(service.port, clients=2, keep_alive=False) as fresh:
            wait_for(all_grown, "twenty large workers", patience=100)
            most = 0

            def all_replaced() -> bool:
                nonlocal most
                alive = service.workers()
                most = max(most, len(alive))
                if not old & set(alive):
                    return True
                service.request("/grow?30")
                return False

            wait_for(all_replaced, "twenty new workers", patience=110)
        assert most <= 22
        assert not kept.failures
        assert not fresh.failures
        assert_two_at_a_time(service.log)
        assert service.stop() == 0


def assert_two_at_a_time(log: str) -> None:
    """Between a successor that is ready and the end of the one it replaces, nobody else comes who is a third."""
    leaving = 0
    for line in log[log.index("is to be replaced") :].splitlines():
        if re.search(r"worker=\d+ gen=1 pid=\d+ ready after", line):
            leaving += 1
        elif re.search(r"Child process \[\d+\] ended: exit code 0", line):
            leaving -= 1
        assert leaving <= 2, line
