"""Listeners for tests, and what they say when they refuse."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from uvicorn._addresses import Address, BindError

LOOPBACK = Address("tcp", host="127.0.0.1", port=0)


def listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(BindError) as caught:
        function()
    return str(caught.value)


def leave_stale_socket(path: Path, mode: int = 0o666) -> None:
    """What a server that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(mode)
