"""The health thread's answer when the master asks where the worker is."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvicorn._ipc.channel import Kind, Message, Receiver, Sender, Wish, ask, channel_pair
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn.worker.health import HealthThread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")

Asked = tuple[HealthThread, Receiver, list[str]]


@pytest.fixture(params=["with a server", "with something else that serves"])
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    """A health thread that does not run, the master's end of its channel, and whether it thinks itself an orphan."""
    scoreboard = Scoreboard()
    row = scoreboard.take()
    row[Cell.LOOP_TICK] = int((time.monotonic() - 8) * 1_000_000)
    ours, theirs = channel_pair()
    orphaned: list[str] = []
    server = Server(Config("a:b", log_config=None)) if request.param == "with a server" else None
    with ours, theirs:
        yield (
            HealthThread(row, Sender(theirs), 5, lambda: orphaned.append("orphan"), server),
            Receiver(ours),
            orphaned,
        )
    os.close(scoreboard.fd)


def test_it_is_answered_once_however_often_it_was_asked(asked: Asked) -> None:
    health, receiver, orphaned = asked
    for _ in range(3):
        ask(receiver, Wish.REPORT)
    health.listen(10)
    (message,), is_open = receiver.receive()
    assert is_open
    assert message.kind is Kind.ANSWER
    if health._server is not None:
        assert message.text.startswith(f"Process {os.getpid()}; its event loop has last ticked 8.")
        assert "Requests in flight: 0" in message.text
    health.listen(0)
    assert receiver.receive() == ([], True)
    assert orphaned == []


def test_the_end_of_the_master_is_still_the_end(asked: Asked) -> None:
    health, receiver, orphaned = asked
    ask(receiver, Wish.REPORT)
    receiver.sock.close()
    ask(receiver, Wish.REPORT)
    assert not ask(None, Wish.REPORT)
    health.listen(10)
    health.listen(10)
    assert orphaned == ["orphan"]


def test_a_message_says_what_it_is(asked: Asked) -> None:
    health, receiver, _ = asked
    health._sender.send(Kind.ANSWER, "line 7")
    assert receiver.receive() == ([Message(Kind.ANSWER, "line 7")], True)


def test_log_files_are_opened_again_and_said_so(asked: Asked, tmp_path: Path) -> None:
    health, receiver, _ = asked
    handler = logging.FileHandler(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "old")
    try:
        assert ask(receiver, Wish.REOPEN)
        health.listen(10)
        assert receiver.receive() == ([Message(Kind.REOPENED)], True)
        assert (tmp_path / "log").exists()
    finally:
        handler.close()


def test_a_log_file_that_cannot_be_opened_again_is_the_answer(asked: Asked, tmp_path: Path) -> None:
    health, receiver, _ = asked
    (tmp_path / "logs").mkdir()
    handler = logging.FileHandler(tmp_path / "logs" / "log")
    (tmp_path / "logs").rename(tmp_path / "moved")
    try:
        assert ask(receiver, Wish.REOPEN)
        health.listen(10)
        ((answer,), _) = receiver.receive()
        assert answer.kind is Kind.REOPENED
        assert answer.text.startswith("[Errno 2] No such file or directory")
    finally:
        handler.close()


def test_both_can_be_asked_for_at_once(asked: Asked) -> None:
    health, receiver, _ = asked
    ask(receiver, Wish.REPORT)
    ask(receiver, Wish.REOPEN)
    health.listen(10)
    assert {message.kind for message in receiver.receive()[0]} == {Kind.REOPENED, Kind.ANSWER}


def test_a_signal_wakes_the_thread_and_is_not_answered(asked: Asked, tmp_path: Path) -> None:
    health, receiver, _ = asked
    handler = logging.FileHandler(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "old")
    try:
        health.reopen_soon()
        health.listen(10)
        assert (tmp_path / "log").exists()
        assert receiver.receive() == ([], True)
    finally:
        handler.close()
