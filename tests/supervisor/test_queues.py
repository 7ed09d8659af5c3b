"""Accept queues, as the kernel tells them."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvicorn._addresses import Address
from uvicorn._backlog import accept_queue
from uvicorn._ipc.control import Queue
from uvicorn._listener import Listener
from uvicorn.supervisor.listeners import Key, ListenerSet
from uvicorn.supervisor.queues import queues_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")


@contextlib.contextmanager
def listening(family: int, address: object, limit: int, waiting: int) -> Iterator[socket.socket]:
    """A socket with so many connections in its queue."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family))
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(limit)
        for _ in range(waiting):
            client = stack.enter_context(socket.socket(family))
            client.connect(sock.getsockname())
        yield sock


def test_tcp_and_unix_alike(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0), 17, 3) as sock:
        assert accept_queue(sock) == (3, 17)
        sock.accept()[0].close()
        assert accept_queue(sock) == (2, 17)
    with listening(socket.AF_UNIX, str(tmp_path / "s"), 9, 4) as sock:
        assert accept_queue(sock) == (4, 9)


def test_what_does_not_listen_has_no_queue() -> None:
    with socket.socket() as fresh, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert accept_queue(fresh) is None
        assert accept_queue(datagrams) is None
    assert accept_queue(fresh) is None  # closed


def test_the_sockets_of_one_address_are_added_up(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with (
        listening(socket.AF_UNIX, path, 5, 1) as unix,
        listening(socket.AF_INET, ("127.0.0.1", 0), 10, 2) as first,
    ):
        listeners = ListenerSet()
        tcp = Address("tcp", host="127.0.0.1", port=0)
        for slot, sock in ((1, first), (2, first)):
            listeners.take(Key(tcp, slot), Listener(sock, tcp, True))
        address = Address("unix", name=path)
        listeners.take(Key(address), Listener(unix, address, True))
        port = first.getsockname()[1]
        assert queues_of(listeners) == [Queue(f"127.0.0.1:{port}", 4, 20), Queue(path, 1, 5)]
