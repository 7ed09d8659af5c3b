"""The master's state across an exec."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from uvicorn._addresses import Address
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn._listener import Listener
from uvicorn.supervisor import upgrade
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.listeners import SHARED, Key, ListenerSet
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.upgrade import HANDOVER_FD, HandedListener, Handover

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs exec() with descriptors")

SPEC = PoolSpec(3, startup=0, healthcheck=0.5, stall=7, drain=9, shutdown_delay=1, limit_restarts=2)


def worker_of(stage: Stage = Stage.READY, **changes: object) -> Worker:
    worker = Worker(7, 2, 5, stage, 100.25, SPEC, deadline=130.5, pid=4711, ready_at=99.5)
    for name, value in changes.items():
        setattr(worker, name, value)
    return worker


@pytest.fixture
def written() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    for fd in fds:
        upgrade.close_quietly(fd)


# --- the round trip ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.SPAWNING])
@pytest.mark.parametrize("deadline", [NEVER, 130.5])
@pytest.mark.parametrize("ready_at", [None, 99.5])
def test_a_worker_comes_back_as_it_was(
    stage: Stage, deadline: float, ready_at: float | None, written: list[int]
) -> None:
    worker = worker_of(stage, deadline=deadline, ready_at=ready_at)
    handed = upgrade.hand_worker(worker, 12, 34, [5, -1])
    found = over(Handover(1, 1, 9, [handed]), written).workers[0]
    assert upgrade.take_worker(found) == worker
    assert (found.row, found.channel_fd, found.listener_fds) == (12, 34, [5, -1])


def over(handover: Handover, written: list[int]) -> Handover:
    """Written down and read again, as by the next program."""
    written.append(upgrade.write(handover))
    environ = {HANDOVER_FD: str(os.dup(written[-1])), "OTHER": "1"}
    found = upgrade.read(environ)
    assert found is not None
    assert environ == {"OTHER": "1"}
    return found


def test_a_handover_comes_back_as_it_was(written: list[int]) -> None:
    handover = Handover(
        generation=5,
        size=3,
        scoreboard_fd=9,
        workers=[upgrade.hand_worker(worker_of(), 1, 20, [10]), upgrade.hand_worker(worker_of(), 2, -1, [])],
        listeners=[HandedListener({"kind": "tcp", "host": "::1", "port": 80}, SHARED, 10, True, None)],
    )
    assert over(handover, written) == handover


def test_all_descriptors_that_have_to_stay_open_are_told() -> None:
    handover = Handover(
        generation=5,
        size=3,
        scoreboard_fd=9,
        workers=[
            upgrade.hand_worker(worker_of(), 1, 20, [10]),
            upgrade.hand_worker(worker_of(), 2, -1, [10]),
        ],
        listeners=[HandedListener({}, SHARED, 10, True, None), HandedListener({}, SHARED, 11, True, None)],
    )
    assert handover.descriptors() == [9, 20, 10, 11]


def test_listeners_come_back_as_they_were(tmp_path: Path) -> None:
    tcp, unix = Address("tcp", host="127.0.0.1", port=0), Address("unix", name=str(tmp_path / "a.sock"))
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as two:
        two.bind(unix.name)
        listeners = ListenerSet()
        listeners.take(Key(tcp, 3), Listener(one, tcp, ours=False))
        listeners.take(Key(unix), Listener(two, unix, ours=True, inode=(1, 2)))
        handed = json.loads(json.dumps([asdict(each) for each in upgrade.hand_listeners(listeners)]))
        for each in handed:
            each["fd"] = os.dup(each["fd"])  # the exec is this process again
        taken = upgrade.take_listeners([HandedListener(**each) for each in handed])
        assert list(taken.held) == [Key(tcp, 3), Key(unix)]
        first, second = taken.held.values()
        assert (first.address, first.ours, first.inode) == (tcp, False, None)
        assert (second.address, second.ours, second.inode) == (unix, True, (1, 2))
        assert first.sock.getsockname() == one.getsockname()
        assert second.sock.getsockname() == unix.name
        first.sock.close()
        second.sock.close()


# --- reading -----------------------------------------------------------------------------------


def test_nothing_is_handed_over_where_the_environment_says_nothing() -> None:
    assert upgrade.read({}) is None


def file_with(content: str, path: Path) -> str:
    path.write_text(content)
    return str(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("text", ["", "x", "-1", "999999"])
def test_a_descriptor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the handover of the program before cannot be read: "):
        upgrade.read({HANDOVER_FD: text})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"version": 1}',
        '{"version": 1, "workers": [{}], "listeners": [], "generation": 1, "size": 1, "scoreboard_fd": 3}',
        '{"version": 1, "workers": [], "listeners": [{"a": 1}], "generation": 1, "size": 1, "scoreboard_fd": 3}',
        '{"version": 1, "workers": [], "listeners": [], "generation": 1, "size": 1, "scoreboard_fd": 3, "x": 1}',
    ],
)
def test_what_is_no_handover_is_refused(content: str, tmp_path: Path) -> None:
    environ = {HANDOVER_FD: file_with(content, tmp_path / "handover")}
    with pytest.raises(ValueError, match="the handover of the program before cannot be read: "):
        upgrade.read(environ)
    assert environ == {}


def test_without_its_memory_nothing_is_taken_and_it_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Scoreboard()
    file = upgrade.write(Handover(generation=1, size=2, scoreboard_fd=memory.fd))
    environ = {HANDOVER_FD: str(file)}

    def refuse(fd: int) -> Scoreboard:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patched:
        patched.setattr(upgrade, "Scoreboard", refuse)
        with pytest.raises(OSError, match="no memory"):
            upgrade.take(environ)
    assert environ == {HANDOVER_FD: str(file)}
    handover, taken = upgrade.take(environ)
    assert environ == {}
    assert handover is not None
    assert taken is not None
    assert taken.fd == memory.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    os.close(memory.fd)


def test_without_a_handover_there_is_nothing_to_take() -> None:
    assert upgrade.take({}) == (None, None)


def test_a_handover_of_another_version_is_refused(tmp_path: Path) -> None:
    text = f"the handover of the program before cannot be read: it has version 1, not {upgrade.VERSION}"
    with pytest.raises(ValueError, match=f"^{text}$"):
        upgrade.read({HANDOVER_FD: file_with('{"version": 1}', tmp_path / "handover")})


def test_what_is_written_is_not_inherited_by_accident(written: list[int]) -> None:
    written.append(upgrade.write(Handover(1, 1, 3)))
    assert not os.get_inheritable(written[0])


# --- the rest ----------------------------------------------------------------------------------


def test_the_command_to_run_again_is_the_interpreter_with_its_own_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "uvicorn", "app:app"])
    assert upgrade.own_command() == ["/venv/bin/python", "-X", "dev", "-m", "uvicorn", "app:app"]


def test_to_close_what_is_closed_is_no_error() -> None:
    upgrade.close_quietly(999_999)


def test_a_worker_without_a_process_cannot_be_handed_over() -> None:
    with pytest.raises(AssertionError):
        upgrade.hand_worker(worker_of(Stage.SPAWNING, pid=None), 1, -1, [])
