"""Accept queues, as the kernel tells them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.sockets import with_queue
from uvicorn._backlog import accept_queue

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")


def test_tcp_and_unix_alike(tmp_path: Path) -> None:
    with with_queue(socket.AF_INET, ("127.0.0.1", 0), 17, 3) as sock:
        assert accept_queue(sock) == (3, 17)
        sock.accept()[0].close()
        assert accept_queue(sock) == (2, 17)
    with with_queue(socket.AF_UNIX, str(tmp_path / "s"), 9, 4) as sock:
        assert accept_queue(sock) == (4, 9)


def test_what_does_not_listen_has_no_queue() -> None:
    with socket.socket() as fresh, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert accept_queue(fresh) is None
        assert accept_queue(datagrams) is None
    assert accept_queue(fresh) is None  # closed
