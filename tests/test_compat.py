"""What differs between systems: how many CPUs a process may use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from uvicorn._compat import HAS_FORK, asyncio_run, resident_memory, usable_cpus

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="orphans are adopted on Linux only"
)


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def version_2(root: Path, content: str) -> None:
    (root / "cpu.max").write_text(content)


def version_1(root: Path, quota: str, period: str | None = "100000") -> None:
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    if period is not None:
        (root / "cpu" / "cpu.cfs_period_us").write_text(period)


def test_affinity_counts_where_there_is_no_quota(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1 100000\n", 1),
        ("1600000 100000\n", 8),
        ("max 100000\n", 8),
        ("200000 0\n", 8),
        ("200000\n", 8),
        ("garbage garbage\n", 8),
        ("", 8),
    ],
)
def test_quota_of_the_cgroup_cuts_the_count(content: str, count: int, tmp_path: Path) -> None:
    version_2(tmp_path, content)
    assert usable_cpus(tmp_path) == count


@pytest.mark.parametrize(("quota", "count"), [("300000\n", 3), ("-1\n", 8), ("x\n", 8)])
def test_quota_of_an_old_cgroup_cuts_the_count(quota: str, count: int, tmp_path: Path) -> None:
    version_1(tmp_path, quota)
    assert usable_cpus(tmp_path) == count


def test_old_cgroup_without_a_period_has_no_quota(tmp_path: Path) -> None:
    version_1(tmp_path, "300000\n", None)
    assert usable_cpus(tmp_path) == 8


@pytest.mark.parametrize(("cpus", "count"), [(3, 3), (None, 1)])
def test_system_without_affinity_counts_its_cpus(
    cpus: int | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert usable_cpus(tmp_path) == count


def test_this_machine_has_at_least_one() -> None:
    assert usable_cpus() >= 1


def test_fork_is_there_where_the_system_has_it() -> None:
    assert hasattr(os, "fork") is HAS_FORK


@on_linux
def test_an_orphan_becomes_the_child_of_whoever_has_asked_for_it() -> None:
    """And it knows when it has."""
    program = """
import os
from uvicorn._compat import adopt_orphans, wait_while_child_of
assert adopt_orphans()
reader, writer = os.pipe()
if os.fork() == 0:
    between = os.getpid()
    if os.fork() == 0:
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        wait_while_child_of(between)
        assert not signal.sigpending()
        os.write(writer, str(os.getppid()).encode())
        os._exit(7)
    os._exit(0)
assert int(os.read(reader, 20)) == os.getpid()
assert sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)) == [0, 7]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_resident_memory_is_what_psutil_says() -> None:
    assert resident_memory() == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


def test_where_proc_is_not_there_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str, flags: int) -> int:
        raise FileNotFoundError(path)

    expected = psutil.Process().memory_info().rss
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", missing)
        found = resident_memory()
    assert found == pytest.approx(expected, rel=0.05)


def test_asyncio_run_runs_in_a_loop_of_the_factory() -> None:
    """The package uvicorn-worker takes it from here."""
    made = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    async def main() -> tuple[object, bool]:
        return asyncio.get_running_loop(), asyncio.get_running_loop().get_debug()

    assert asyncio_run(main(), debug=True, loop_factory=factory) == (made[0], True)
    assert made[0].is_closed()
    assert asyncio_run(main())[1] is False
