"""Listeners for tests, and what they say when they refuse."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uvicorn._addresses import Address, BindError

LOOPBACK = Address("tcp", host="127.0.0.1", port=0)


def listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@contextlib.contextmanager
def with_queue(family: int, address: object, limit: int, waiting: int) -> Iterator[socket.socket]:
    """A socket with so many connections in its queue."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family))
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(limit)
        for _ in range(waiting):
            client = stack.enter_context(socket.socket(family))
            client.connect(sock.getsockname())
        yield sock


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(BindError) as caught:
        function()
    return str(caught.value)


def leave_stale_socket(path: Path, mode: int = 0o666) -> None:
    """What a server that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(mode)
