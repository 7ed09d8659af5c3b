"""Several things in the same moment: the master stands still until all have happened, and finds them in one turn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import Service, read_response, wait_for

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what is pending is told by /proc"
)

# Of ptrace(2), and what waitpid(2) needs for it.
SEIZE, INTERRUPT, DETACH, ALL = 0x4206, 0x4207, 17, 0x40000000


@contextlib.contextmanager
def held(service: Service) -> Iterator[None]:
    """The master stands still. By ptrace(2): SIGCONT would take a waiting SIGTTIN or SIGTTOU away (signal(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(SEIZE, service.pid, None, None):
        pytest.skip(f"processes cannot be traced here: {os.strerror(ctypes.get_errno())}")
    assert libc.ptrace(INTERRUPT, service.pid, None, None) == 0
    os.waitpid(service.pid, ALL)
    try:
        yield
    finally:
        assert libc.ptrace(DETACH, service.pid, None, None) == 0


def happen(service: Service, victims: Sequence[int], *numbers: signal.Signals) -> None:
    """These workers die and these signals come, before the master can do anything."""
    with held(service):
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        for pid in victims:
            wait_for(partial(is_dead, pid), "a dead worker")
        for number in numbers:
            service.send_signal(number)
        awaited = sum(1 << (number - 1) for number in (*numbers, *([signal.SIGCHLD] if victims else [])))
        wait_for(lambda: pending_of(service.pid) & awaited == awaited, "signals that wait")


def is_dead(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def pending_of(pid: int) -> int:
    found = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


def ready(service: Service) -> list[int]:
    """The generations of the ready workers."""
    titles = service.workers().values()
    return [int(found[1]) for title in titles if (found := re.search(r"gen=(\d+) ready", title))]


@pytest.mark.parametrize("killed", [0, 1, 2], ids=["none dies", "one dies", "both die"])
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGTTOU, signal.SIGUSR1, signal.SIGQUIT),
        (signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH, signal.SIGTERM),
    ],
    ids=lambda numbers: " ".join(number.name for number in numbers),
)
def test_whatever_comes_with_it_a_stop_is_a_stop(
    tmp_path: Path, killed: int, numbers: tuple[signal.Signals, ...]
) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        happen(service, list(service.workers())[:killed], *numbers)
        assert service.wait_exit() == 0
        wait_for(lambda: not service.session(), "the end of every process")
        # A worker's death is told once, and nobody is started in its place.
        assert len(re.findall(r"Child process \[\d+\] (?:died|ended)", service.log)) <= 2 + 1
        assert "Traceback" not in service.log


def test_a_request_in_flight_is_answered_though_all_comes_at_once(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        first, second = service.workers()
        with service.connect() as client:
            service.hold(client)
            # Whoever has it is the one with a connection; the other one dies.
            has_it = wait_for(lambda: [pid for pid in (first, second) if clients_of(pid)], "a connection")[0]
            victim = second if has_it == first else first
            happen(service, [victim], signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM)
            service.release()
            assert read_response(client)[2] == b"held answer"
        assert service.wait_exit() == 0


def clients_of(pid: int) -> list[object]:
    return [
        each for each in psutil.Process(pid).net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED
    ]


@pytest.mark.parametrize("killed", [0, 1, 2], ids=["none dies", "one dies", "both die"])
@pytest.mark.parametrize(
    ("numbers", "generation", "count"),
    [
        # Handlers are stacked, so the highest number is heard first: a reload goes back to the number that is configured,
        # and so does an upgrade.
        ((signal.SIGHUP, signal.SIGTTIN), 2, 2),
        ((signal.SIGHUP, signal.SIGTTOU), 2, 2),
        ((signal.SIGTTIN, signal.SIGUSR1), 1, 3),
        ((signal.SIGTTOU, signal.SIGUSR1), 1, 1),
        ((signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGUSR1), 2, 2),
        ((signal.SIGUSR2, signal.SIGTTIN), 2, 2),
    ],
    ids=lambda value: " ".join(each.name for each in value) if isinstance(value, tuple) else str(value),
)
def test_without_a_stop_all_of_it_is_done(
    tmp_path: Path, killed: int, numbers: tuple[signal.Signals, ...], generation: int, count: int
) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        happen(service, list(service.workers())[:killed], *numbers)
        wait_for(
            lambda: ready(service) == [generation] * count and len(service.workers()) == count,
            f"{count} workers of generation {generation}",
        )
        assert service.request("/").status == 200
        assert "Traceback" not in service.log
        assert service.stop() == 0
