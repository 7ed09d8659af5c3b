"""The fuzzing targets on what they begin with, on what was found before, and on some seeded mutations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.blind import Finding, mutate
from tests.fuzz.targets import TARGETS, found

MUTATIONS = {"http": 3000, "connection": 400, "websockets": 2000, "yaml": 300}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings_break_no_promise(name: str) -> None:
    run, seeds = TARGETS[name]
    for data in (b"", b"\0", *seeds(), *found(name)):
        run(data)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", TARGETS)
def test_mutations_break_no_promise(name: str, seed: int) -> None:
    assert mutate(name, seed, lambda count: count < MUTATIONS[name]) == MUTATIONS[name]


def test_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_long_bodies(data: bytes) -> None:
        assert b"smuggled" not in data

    monkeypatch.setitem(TARGETS, "http", (refuse_long_bodies, lambda: iter([b"\0smuggled"])))
    with pytest.raises(Finding) as caught:
        mutate("http", 1, lambda count: count < 1000)
    assert b"smuggled" in caught.value.data


@pytest.mark.parametrize("name", TARGETS)
def test_command_runs_without_atheris(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--seconds", "1", "--seed", "1", "--blind"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout
