"""The accept queues of a service's addresses."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.sockets import with_queue
from uvicorn._addresses import Address
from uvicorn._ipc.control import Queue
from uvicorn._listener import Listener
from uvicorn.supervisor.listeners import Key, ListenerSet
from uvicorn.supervisor.queues import queues_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")


def test_the_sockets_of_one_address_are_added_up(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with (
        with_queue(socket.AF_UNIX, path, 5, 1) as unix,
        with_queue(socket.AF_INET, ("127.0.0.1", 0), 10, 2) as first,
    ):
        listeners = ListenerSet()
        tcp = Address("tcp", host="127.0.0.1", port=0)
        for slot, sock in ((1, first), (2, first)):
            listeners.take(Key(tcp, slot), Listener(sock, tcp, True))
        address = Address("unix", name=path)
        listeners.take(Key(address), Listener(unix, address, True))
        port = first.getsockname()[1]
        assert queues_of(listeners) == [Queue(f"127.0.0.1:{port}", 4, 20), Queue(path, 1, 5)]
