"""The health thread: what it heeds besides the clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from uvicorn._ipc.channel import Sender, channel_pair
from uvicorn._ipc.scoreboard import Cell, Drain, Row, Scoreboard
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn.worker.health import HealthThread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")


@pytest.fixture
def row() -> Row:
    return Scoreboard().take()


@pytest.fixture
def sender() -> Iterator[Sender]:
    ours, theirs = channel_pair()
    yield Sender(theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("drain", [Drain.RECYCLE, Drain.MOVE, Drain.FINAL])
def test_a_server_is_told_to_leave_also_where_the_signal_was_lost(
    row: Row, sender: Sender, drain: Drain
) -> None:
    server = Server(Config("app:app", log_config=None))
    health = HealthThread(row, sender, 5, lambda: None, server)
    health.beat()
    assert not server.should_exit
    row[Cell.DRAIN] = drain
    health.beat()
    assert server.should_exit
