"""What differs between systems: how many CPUs a process may use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from uvicorn._compat import HAS_FORK, asyncio_run, usable_cpus


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
