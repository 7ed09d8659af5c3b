"""WebSockets over real sockets, with each implementation: what depends on the kernel, and on time."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autobahn.suite import echo_server
from tests.e2e.exchange import exchange
from tests.e2e.harness import Service
from tests.protocols.websockets.frames import PING, PONG, TEXT, Sent, close_frame, closed, frame, read_frames

IMPLEMENTATIONS = ("websockets-sansio", "wsproto")
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def opened(service: Service) -> socket.socket:
    client = service.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return client


def read_frame(client: socket.socket) -> Sent:
    """A short frame of the server."""
    head = client.recv(2)
    return read_frames(head + (client.recv(head[1]) if head[1] else b""))[0]


def read_to_end(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(65536):
        data += part
    return data


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("websockets")
    with echo_server(directory, request.param) as running:
        yield running


def test_client_that_sends_on_after_a_mistake_is_not_reset(service: Service) -> None:
    with opened(service) as client:
        client.sendall(frame(3))
        select.select([client], [], [])  # the close frame is there; who does not look sends on
        for _ in range(3):
            client.sendall(frame(TEXT, b"more"))
            time.sleep(0.01)  # a closed socket would be reset by what it gets
        assert read_frames(read_to_end(client))[0].payload[:2] == (1002).to_bytes(2, "big")


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
def test_messages_of_every_size_and_fragmentation_come_back(service: Service, deflate: bool) -> None:
    """A short one of what `python -m tests.e2e.exchange` does with 10,000."""
    found = asyncio.run(exchange(service.port, service.pid, 150, deflate, seed=2))
    assert (found.messages, found.wrong) == (150, 0)
    assert found.fragments > 300
    assert found.growth < 32_000_000  # of some ten million bytes


@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
def test_pings_go_out_and_who_does_not_answer_is_closed_with_1011(ws: str, tmp_path: Path) -> None:
    pings = ("--ws-ping-interval", "0.2", "--ws-ping-timeout", "3")
    with echo_server(tmp_path, ws, *pings) as service, opened(service) as client:
        first = read_frame(client)
        assert first.opcode == PING
        client.sendall(frame(PONG, first.payload) + frame(TEXT, b"here"))
        assert read_frame(client) == Sent(TEXT, b"here")
        second = read_frame(client)
        assert (second.opcode, second.payload == first.payload) == (PING, False)
        assert read_frame(client) == closed(1011, "keepalive ping timeout")
        client.sendall(close_frame(1011))
        assert read_to_end(client) == b""


@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
def test_server_that_goes_says_1012(ws: str, tmp_path: Path) -> None:
    with echo_server(tmp_path, ws) as service, opened(service) as client:
        service.send_signal(signal.SIGINT)
        assert read_frame(client) == closed(1012)
        client.sendall(close_frame(1012))
        assert read_to_end(client) == b""
        assert service.wait_exit() == 0
