"""Every limit and deadline of a connection, over real sockets and with the real command, on both HTTP implementations.

| phase | setting | what a client gets | here |
|---|---|---|---|
| TLS handshake | timeout_tls_handshake | closed | test_tls_handshake_has_a_deadline |
| nothing yet | timeout_request_head | closed | ENDS: silent |
| head | timeout_request_head | 408 | ENDS: head |
| head's size | limit_request_head | 414, 431 | ANSWERS |
| head's fields | limit_request_fields | 431 | ANSWERS |
| body | timeout_request_body | 408 | ENDS: body |
| response | timeout_response_write | connection aborted | test_response_that_nobody_takes_is_aborted |
| between requests | timeout_keep_alive | closed | ENDS: idle |
| requests in advance | limit_pipelined_requests | not read from | test_flood_is_not_read |
| body in advance | (64 KiB) | not read from | test_flood_is_not_read |
| connections | limit_connections | 503 | test_connections_have_a_limit |
| message | ws_max_size | 1009 | test_websocket_message_has_a_limit |
| inflated message | ws_max_size | 1009 | test_websocket_message_has_a_limit |
| messages in advance | ws_max_queue | not read from | test_flood_is_not_read |
| lifespan shutdown | timeout_lifespan_shutdown | the process ends | test_worker_life.py |
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trustme

from tests.e2e.harness import APP, PATIENCE, Service, read_response, wait_for
from tests.protocols.websockets.frames import BINARY, RSV1, deflated, frame

# Short, so that the tests are; an ordinary client meets none of them.
SETTINGS = (
    "--timeout-request-head", "1", "--timeout-request-body", "1", "--timeout-response-write", "1",
    "--timeout-keep-alive", "1", "--limit-request-head", "4096", "--limit-request-fields", "10",
    "--limit-pipelined-requests", "4", "--ws-max-size", "1000", "--ws-max-queue", "4",
)  # fmt: skip
ROUTES = """
async def large(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await asyncio.sleep(0)

async def ignore(scope, receive, send):
    await asyncio.sleep(1000)

http_app = app
async def app(scope, receive, send):
    if scope["type"] == "websocket" and scope["path"] == "/ignore":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1000)
    await http_app(scope, receive, send)

ROUTES.update({"/large": large, "/ignore": ignore})
"""
HEAD = "HTTP/1.1\r\nHost: a\r\n"
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


@pytest.fixture(scope="module", params=["httptools", "h11"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("limits")
    (directory / "app.py").write_text(APP + ROUTES)
    with Service(directory, "--port", "0", "--http", request.param, *SETTINGS) as running:
        yield running.wait_serving()


# What is sent, and with which statuses it is answered before the connection is closed. "|" waits for an answer.
ENDS = {
    "silent": ("", []),
    "empty lines": ("\r\n\r\n", []),
    "head": (f"GET / {HEAD}X: y", [408]),
    "body": (f"POST /echo {HEAD}Content-Length: 10\r\n\r\nhello", [408]),
    "chunked body": (f"POST /echo {HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhel", [408]),
    "idle": (f"GET / {HEAD}\r\n", [200]),
    "head behind a response": (f"GET / {HEAD}\r\n|GET / {HEAD}", [200, 408]),
    "unread body": (f"POST / {HEAD}Content-Length: 10\r\n\r\n", [200]),
}


@pytest.mark.parametrize("phase", ENDS)
def test_phase_has_a_deadline(service: Service, phase: str) -> None:
    sent, statuses = ENDS[phase]
    seen = []
    with service.connect() as client:
        for part in sent.split("|"):
            client.sendall(part.encode())
            if part is not sent.split("|")[-1]:
                seen.append(read_response(client)[0])
        for _ in statuses[len(seen) :]:
            seen.append(read_response(client)[0])
        assert seen == statuses
        assert read_to_end(client) == b""


def test_bytes_do_not_move_the_deadline_of_a_head(service: Service) -> None:
    with service.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        client.settimeout(0.1)
        began = time.monotonic()
        answer = b""
        while not answer:
            assert time.monotonic() - began < PATIENCE
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1000)
            with contextlib.suppress(OSError):
                client.sendall(b"X: y\r\n")
        assert answer.startswith(b"HTTP/1.1 408 ")


ANSWERS = {
    "target": (f"GET /{'a' * 5000} {HEAD}\r\n", 414),
    "head": (f"GET / {HEAD}X: {'y' * 5000}\r\n\r\n", 431),
    "head without an end": (f"GET / {HEAD}{'X: y' * 10000}", 431),
    "fields": (f"GET / {HEAD}" + "X: y\r\n" * 20 + "\r\n", 431),
    "below all of them": (f"GET /{'a' * 1000} {HEAD}X: {'y' * 1000}\r\n\r\n", 200),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_head_has_a_limit(service: Service, what: str) -> None:
    sent, status = ANSWERS[what]
    with service.connect() as client:
        client.sendall(sent.encode())
        assert read_response(client)[0] == status


def test_response_that_nobody_takes_is_aborted(service: Service) -> None:
    lines = service.log.count("takes nothing of its response")
    with small_window(service) as client:
        client.sendall(f"GET /large {HEAD}\r\n".encode())
        service.wait_log(r"127\.0\.0\.1:\d+ takes nothing of its response: connection aborted", lines + 1)


@pytest.mark.parametrize(
    ("first", "flood"),
    [
        (f"GET /ignore {HEAD}\r\n", f"GET / {HEAD}\r\n".encode() * 1000),
        (f"POST /ignore {HEAD}Content-Length: 1000000000\r\n\r\n", b"x" * 65536),
        (f"POST /ignore {HEAD}Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"),
        (HANDSHAKE.format("/ignore"), frame(BINARY, b"x" * 900) * 10),
    ],
)
def test_flood_is_not_read(service: Service, first: str, flood: bytes) -> None:
    """What nobody takes fills the kernel's buffers, and then the client waits."""
    with small_window(service) as client:
        client.sendall(first.encode())
        client.settimeout(3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64_000_000:
                sent += client.send(flood)
        assert sent < 16_000_000


def test_websocket_message_has_a_limit(service: Service) -> None:
    messages = {
        "declared": frame(BINARY, b"x" * 10, declared=2**40, length_bytes=8),
        "whole": frame(BINARY, b"x" * 5000),
        "inflated": frame(BINARY, deflated(b"\0" * 1_000_000), rsv=RSV1),
    }
    for what, sent in messages.items():
        with service.connect() as client:
            client.sendall(HANDSHAKE.format("/").encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            assert head.startswith(b"HTTP/1.1 101 ")
            client.sendall(sent)
            assert (what, read_to_end(client)[2:4]) == (what, (1009).to_bytes(2, "big"))


def test_connections_have_a_limit(tmp_path: Path) -> None:
    with (
        Service(tmp_path, "--port", "0", "--limit-connections", "5") as service,
        contextlib.ExitStack() as stack,
    ):
        service.wait_serving()
        kept = [stack.enter_context(service.connect()) for _ in range(5)]
        wait_for(lambda: service.request("/").status in (503, 0), "no room for another one")
        service.wait_log("5 connections are open, as many as limit_connections allows: more get 503")
        # Those that are there are served, and those that go make room.
        kept[0].sendall(f"GET / {HEAD}\r\n".encode())
        assert read_response(kept[0])[0] == 200
        kept.pop().close()
        wait_for(lambda: service.request("/").status == 200, "room again")


HEADS = {
    "request line": "GET /{0}?{1} HTTP/1.1\r\nHost: a\r\n\r\n",
    "target": "GET http://a/{0}{1} HTTP/1.1\r\nHost: a\r\n\r\n",
    "proxy's field": "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {0}{1}\r\n\r\n",
    "name": "GET / HTTP/1.1\r\nHost: a\r\nX{0}{1}: y\r\n\r\n",
    "value": "GET / HTTP/1.1\r\nHost: a\r\nCookie: {0}{1}\r\n\r\n",
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_what_heads_had_in_them_is_not_kept(tmp_path: Path, http: str) -> None:
    """Each is as large as may be, and different from the one before; caches that kept some of them would show."""
    options = ("--http", http, "--h11-max-incomplete-event-size", "131072", "--no-access-log")
    with Service(tmp_path, "--port", "0", *options) as service:
        service.wait_serving()
        process = psutil.Process(service.pid)

        def send(head: str, count: int) -> int:
            with service.connect() as client:
                for number in range(count):
                    client.sendall(head.format(f"{number:05}", "x" * 120_000).encode())
                    assert read_response(client)[0] == 200
            return process.memory_info().rss  # type: ignore[no-any-return]

        for what, head in HEADS.items():
            before = send(head, 20)
            assert send(head, 200) - before < 20_000_000, what


def test_tls_handshake_has_a_deadline(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    options = ("--ssl-certfile", "both.pem", "--timeout-tls-handshake", "1")
    for workers in ((), ("--workers", "2")):
        with Service(tmp_path, "--port", "0", *options, *workers) as service:
            service.wait_log("Uvicorn running on https")
            for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
                with service.connect() as client:
                    client.sendall(sent)
                    assert read_to_end(client) == b""
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with service.connect() as client, context.wrap_socket(client) as secure:
                secure.sendall(f"GET / {HEAD}\r\n".encode())
                assert secure.recv(100).startswith(b"HTTP/1.1 200 ")


def read_to_end(client: socket.socket) -> bytes:
    """All that comes until the server closes, in whatever way."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
    return data


def small_window(service: Service) -> socket.socket:
    """A client for which the kernel keeps little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", service.port))
    return client


def test_the_table_above_names_every_limit() -> None:
    """A limit that is added gets its row."""
    from uvicorn.settings.table import OPTIONS

    of_connections = {
        option.name
        for option in OPTIONS
        if option.name.startswith(("timeout_re", "timeout_tls", "timeout_keep", "limit_request", "limit_pipe", "limit_conn"))
        or option.name in ("ws_max_size", "ws_max_queue", "timeout_lifespan_shutdown")
    } - {"limit_concurrency"}  # fmt: skip
    assert __doc__ is not None
    assert {name for name in of_connections if name not in __doc__} == set()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_time_in_which_the_process_is_stopped_is_not_the_clients(tmp_path: Path, loop: str) -> None:
    with Service(tmp_path, "--port", "0", "--timeout-keep-alive", "1", "--loop", loop) as service:
        service.wait_serving()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(service.connect()) for _ in range(10)]
            for client in clients:
                client.sendall(f"GET / {HEAD}\r\n".encode())
                assert read_response(client)[0] == 200
            service.send_signal(signal.SIGSTOP)
            over = time.monotonic() + 3
            for client in clients:
                client.sendall(f"GET / {HEAD}\r\n".encode())
            wait_for(lambda: time.monotonic() > over, "the end of keep-alive, long since")
            service.send_signal(signal.SIGCONT)
            assert [read_response(client)[0] for client in clients] == [200] * 10
