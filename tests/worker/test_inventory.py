"""What an import has left behind, in a process that has it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvicorn.worker.inventory import MAX_NAMES, Inventory, _named, described

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="molds need Linux"),
    # What is forked here ends at once.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def lines(kind: str, inventory: Inventory) -> list[str]:
    return [line for line in inventory.left_behind() if f"has left {kind} behind" in line]


@pytest.fixture
def inventory() -> Inventory:
    return Inventory()


def test_threads_are_told_by_name(inventory: Inventory) -> None:
    before = lines("threads", inventory)
    assert not any("'flusher'" in line for line in before)
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="flusher")
    thread.start()
    try:
        (line,) = lines("threads", inventory)
        assert "'flusher'" in line
    finally:
        end.set()
        thread.join()


def test_connections_are_told_from_where_to_where(inventory: Inventory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        with socket.create_connection(server.getsockname()) as client:
            peer = f"127.0.0.1:{client.getsockname()[1]}"
            (line,) = lines("connections", inventory)
            assert f"{here} (listening)" in line
            assert f"{peer} → {here}" in line
    assert lines("connections", inventory) == []


def test_what_was_there_before_is_nobodys(inventory: Inventory) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert lines("connections", Inventory()) == []
        assert len(lines("connections", inventory)) == 1


def test_an_event_loop_is_told_and_its_own_sockets_are_not(inventory: Inventory) -> None:
    loop = asyncio.new_event_loop()
    try:
        (line,) = lines("event loops", inventory)
        assert "asyncio.unix_events._UnixSelectorEventLoop" in line
        assert lines("connections", inventory) == []
    finally:
        loop.close()
    assert lines("event loops", inventory) == []


def test_processes_are_told(inventory: Inventory) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            (line,) = lines("processes", inventory)
            assert f"sleep (pid {process.pid})" in line
        finally:
            process.kill()


def test_a_thread_that_a_library_ends_before_a_fork_is_not_spoken_of(inventory: Inventory) -> None:
    end = threading.Event()
    threads: list[threading.Thread] = []

    def stop() -> None:
        end.set()
        for thread in threads:
            thread.join()

    threads.append(threading.Thread(target=end.wait, name="pool"))
    threads[0].start()
    os.register_at_fork(before=stop)
    inventory._tasks()
    assert not threads[0].is_alive()


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "s"))
        yield sock


def test_sockets_of_all_kinds_have_a_name(unix: socket.socket, tmp_path: Path) -> None:
    assert described(unix.fileno()) == str(tmp_path / "s")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert described(udp.fileno()) == f"UDP 127.0.0.1:{udp.getsockname()[1]}"
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        assert described(six.fileno()) == f"[::1]:{six.getsockname()[1]} (listening)"
    one, other = socket.socketpair()
    with one, other:
        assert described(one.fileno()) == f"unnamed socket (descriptor {one.fileno()})"


def test_of_many_some_are_named() -> None:
    assert _named(["a", "b"]) == "a, b"
    assert _named(map(str, range(MAX_NAMES + 3))).endswith(" and 3 more")
