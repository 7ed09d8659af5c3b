"""`uvicornctl top` on a real terminal: it fits, it lives, and it leaves the terminal as it was."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, wait_for
from tests.e2e.test_control import Controlled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

terminal = pytest.importorskip("tests.e2e.terminal", reason="needs pyte", exc_type=ImportError)

STEERS = re.compile(r"\033\[\??[0-9;]*[A-Za-z]")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Controlled]:
    with Controlled(tmp_path, "--workers", "3") as running:
        yield running.wait_ready(3)


def top(service: Controlled, *arguments: str, columns: int = 80, lines: int = 24) -> terminal.Terminal:
    path = str(service.directory / "c.sock")
    command = [
        sys.executable,
        "-m",
        "uvicorn.control.cli",
        "--socket",
        path,
        "top",
        "--interval",
        "0.3",
        *arguments,
    ]
    return terminal.Terminal(
        command, columns, lines, {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "LINES": "24"}
    )


def is_as_before(screen: terminal.Terminal) -> None:
    assert screen.modes() == screen.modes_before
    written = screen.written
    for on, off in (
        (terminal.ENTER, terminal.LEAVE),
        (b"\033[?25l", b"\033[?25h"),
        (b"\033[?7l", b"\033[?7h"),
    ):
        assert written.count(on) == written.count(off) > 0
        assert written.rindex(off) > written.rindex(on)


def test_it_fits_80_by_24_and_lives(service: Controlled) -> None:
    with top(service) as screen:
        screen.wait_for(lambda text: re.search(r"ready 3/3", text) and "REQ/S" in text, "rates")
        for _ in range(20):
            assert service.request("/").status == 200
        screen.wait_for(lambda text: re.search(r"req/s [1-9]", text), "the load")
        victim = service.serving_pid()
        os.kill(victim, signal.SIGKILL)
        screen.wait_for(lambda text: f"[{victim}] died: killed by SIGKILL" in text, "the death")
        screen.wait_for(lambda text: "restarts: died 1" in text, "the count")
        seen = screen.seen
        assert seen[0].startswith("app:app  running  gen 1  ready ")
        assert seen[4].split()[:5] == ["ID", "PID", "GEN", "STATE", "AGE"]
        assert [line.split()[0] for line in seen[5:8]] == ["1", "2", "3"]
        screen.type("q")
        assert screen.wait_exit() == 0
        is_as_before(screen)
        frames = screen.frames()
        assert len(frames) > 2
        for frame in frames:
            drawn = re.split(r"\r+\n", STEERS.sub("", frame))  # the terminal adds its own
            assert len(drawn) <= 24
            assert max(map(len, drawn)) <= 80
    assert service.stop() == 0


def test_ctrl_c_ends_it_and_gives_the_terminal_back(service: Controlled) -> None:
    with top(service) as screen:
        screen.wait_for(lambda text: "ready 3/3" in text, "the table")
        assert screen.modes() != screen.modes_before
        screen.type("\x03")
        assert screen.wait_exit() == 0
        is_as_before(screen)
    assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it_gives_the_terminal_back(service: Controlled, number: int) -> None:
    with top(service) as screen:
        screen.wait_for(lambda text: "ready 3/3" in text, "the table")
        screen.process.send_signal(number)
        assert screen.wait_exit() == 128 + number
        is_as_before(screen)
    assert service.stop() == 0


def test_it_follows_the_size_of_the_terminal(service: Controlled) -> None:
    with top(service) as screen:
        screen.wait_for(lambda text: "  PID" in text, "the wide table")
        screen.resize(36, 12)
        screen.process.send_signal(signal.SIGWINCH)
        screen.wait_for(lambda text: "ID STATE" in text and "PID" not in text, "the narrow table")
        screen.type("q")
        assert screen.wait_exit() == 0
    assert service.stop() == 0


def test_a_service_that_goes_away_is_waited_for(service: Controlled) -> None:
    with top(service) as screen:
        screen.wait_for(lambda text: "ready 3/3" in text, "the table")
        os.kill(service.control_pid(), signal.SIGKILL)
        first = service.log.count("answers on")
        wait_for(lambda: service.log.count("answers on") > first, "the next control process")
        # Who asked it is told so, or not even that: the next one answers.
        screen.wait_for(
            lambda text: "No answer" not in text and "Control process" in text, "the next answers"
        )
        assert service.stop() == 0
        screen.wait_for(lambda text: text.startswith("No answer for "), "that nobody answers")
        screen.type("q")
        assert screen.wait_exit() == 3
        is_as_before(screen)
