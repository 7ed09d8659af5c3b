"""WebSockets over real sockets, with each implementation: what depends on the kernel, and on time."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

import pytest

from tests.autobahn.suite import echo_server
from tests.e2e.harness import Service
from tests.protocols.websockets.frames import TEXT, frame, read_frames

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
        for _ in range(10):
            client.sendall(frame(TEXT, b"more"))
            time.sleep(0.01)  # a closed socket would be reset by what it gets
        assert read_frames(read_to_end(client))[0].payload[:2] == (1002).to_bytes(2, "big")
