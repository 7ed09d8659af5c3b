"""Who may connect to the control socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from uvicorn.control.accept import PEER, PeerAcceptor, peer_uid, refusal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")


class Protocol(asyncio.Protocol):
    """Says who it was made for."""

    def __init__(self, app_state: dict[str, Any]) -> None:
        self.app_state = app_state

    def connection_made(self, transport: Any) -> None:
        transport.write(repr(self.app_state).encode())
        transport.close()


async def connected(path: Path, owner: int) -> bytes:
    """What a client reads that connects."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        acceptor = PeerAcceptor(loop, sock, Protocol, owner)
        assert acceptor.sockets == (sock,)
        reader, writer = await asyncio.open_unix_connection(str(path))
        data = await reader.read()
        writer.close()
        acceptor.close()
        acceptor.close()
        assert acceptor.sockets == ()
    return data


def test_the_kernel_says_who_the_peer_is() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_uid(ours) == os.getuid()
    assert peer_uid(ours) is None


def test_the_owner_is_let_in(tmp_path: Path) -> None:
    assert asyncio.run(connected(tmp_path / "s", os.getuid())) == repr({PEER: os.getuid()}).encode()


@pytest.mark.parametrize(("uid", "let_in"), [(0, True), (4711, True), (4712, False), (None, False)])
def test_root_and_the_owner_are_let_in_and_others_are_told_why_not(
    uid: int | None, let_in: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.control.accept.peer_uid", lambda sock: uid)
    data = asyncio.run(connected(tmp_path / "s", 4711))
    assert data == (repr({PEER: uid}).encode() if let_in else refusal(uid))
    assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n") is not let_in


def test_without_descriptors_accepting_pauses_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.control.accept.SHORTAGE_PAUSE", 0.05)
    tried: list[int] = []

    class Poor(socket.socket):
        def accept(self) -> Any:
            tried.append(len(tried))
            if len(tried) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def scenario() -> bytes:
        with Poor(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
            sock.listen()
            acceptor = PeerAcceptor(asyncio.get_running_loop(), sock, Protocol, os.getuid())
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            await asyncio.sleep(0.02)
            assert len(tried) == 1  # and not as often as the loop turns
            data = await reader.read()
            writer.close()
            monkeypatch.setattr("uvicorn.control.accept.SHORTAGE_PAUSE", 30)
            tried.clear()
            _, waiting = await asyncio.open_unix_connection(str(tmp_path / "s"))
            while not tried:
                await asyncio.sleep(0)
            acceptor.close()  # in the pause
            waiting.close()
        return data

    assert asyncio.run(scenario()) == repr({PEER: os.getuid()}).encode()
