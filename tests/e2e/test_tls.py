"""TLS on real sockets: what is agreed on, what is refused and how that is told, and that nothing is lost or waited for."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.sync.client import connect as connect_websocket

from tests.e2e.harness import APP, PATIENCE, Service, read_response, wait_for

LOOPS = ["asyncio", "uvloop"]
WORKERS: list[tuple[str, ...]] = [(), ("--workers", "2")]
EVERYWHERE = pytest.mark.parametrize(
    ("loop", "workers"),
    [(loop, workers) for loop in LOOPS for workers in WORKERS],
    ids=lambda each: each if isinstance(each, str) else ("workers" if each else "single"),
)
# Long enough never to end a connection within a test.
LONG = "600"


@dataclass
class Site:
    """A directory with certificates and an application."""

    path: Path
    ca: trustme.CA

    def renew(self, name: str = "localhost") -> trustme.LeafCert:
        """Another certificate and key; returns it."""
        certificate = self.ca.issue_cert(name)
        certificate.private_key_pem.write_to_path(str(self.path / "key.pem"))
        (self.path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        return certificate

    def context(self, **attributes: Any) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=str(self.path / "ca.pem"))
        for name, value in attributes.items():
            setattr(context, name, value)
        return context

    def service(self, *arguments: str, **more: Any) -> Service:
        return Service(
            self.path,
            "--port",
            "0",
            "--ssl-certfile",
            "cert.pem",
            "--ssl-keyfile",
            "key.pem",
            *arguments,
            **more,
        )

    def connect(self, service: Service, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        return (context or self.context()).wrap_socket(service.connect(), server_hostname="localhost")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, trustme.CA())
    site.renew()
    site.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return site


def serves(service: Service, workers: tuple[str, ...] = ()) -> Service:
    """Wait until it does, without a connection of ours in its log."""
    if workers:
        service.wait_ready(2)
    else:
        service.wait_log("Uvicorn running on")
    return service


def get(sock: ssl.SSLSocket, path: str = "/", more: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    sock.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
    return read_response(sock)


def told(service: Service) -> list[str]:
    """What it has said apart from starting, stopping and access."""
    usual = (
        r"Started|Waiting for|Application|ASGI 'lifespan'|Uvicorn running|Shutting down|Finished|\d.* - \"|"
        r"Child process|Received|Terminated|Stopping|worker=|lifespan shutdown|Termination"
    )
    lines = [re.sub(r"^[A-Z]+: +", "", line) for line in service.log.splitlines()]
    return [line for line in lines if not re.match(usual, line)]


# --- what is agreed on ------------------------------------------------------------------------------


@EVERYWHERE
def test_a_request_over_tls(site: Site, loop: str, workers: tuple[str, ...]) -> None:
    with site.service("--loop", loop, *workers) as service:
        serves(service, workers)
        assert "https://127.0.0.1:" in service.log
        with site.connect(service) as sock:
            assert get(sock)[0] == 200
            assert get(sock)[0] == 200
        assert service.stop() == (0 if workers else -signal.SIGTERM)
    assert told(service) == []


def test_http_1_is_what_is_offered(site: Site) -> None:
    with site.service() as service:
        serves(service)
        for offered, agreed in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
            context = site.context()
            context.set_alpn_protocols(offered)
            with site.connect(service, context) as sock:
                assert sock.selected_alpn_protocol() == agreed


def test_the_whole_chain_is_sent(site: Site) -> None:
    intermediate = site.ca.create_child_ca()
    leaf = intermediate.issue_cert("localhost")
    (site.path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(site.path / "key.pem"))
    with site.service() as service:
        serves(service)
        with site.connect(service) as sock:  # verifies up to the root that it knows
            assert get(sock)[0] == 200


@pytest.mark.parametrize("workers", WORKERS)
def test_a_key_with_a_password(site: Site, workers: tuple[str, ...]) -> None:
    key = load_pem_private_key((site.path / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (site.path / "key.pem").write_bytes(locked)
    environ = {"UVICORN_SSL_KEYFILE_PASSWORD": "hunter2"}
    with site.service(*workers, environ=environ) as service:
        serves(service, workers)
        with site.connect(service) as sock:
            assert get(sock)[0] == 200
    with site.service(*workers, environ={"UVICORN_SSL_KEYFILE_PASSWORD": "hunter3"}) as service:
        assert service.wait_exit() == 3
        assert "the key's password is wrong" in service.log
        assert "hunter" not in service.log


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (
            {"maximum_version": ssl.TLSVersion.TLSv1_2},
            "the client speaks no TLS version that is served here.",
        ),
    ],
)
def test_versions_are_those_of_a_context_factory(site: Site, client: dict[str, Any], message: str) -> None:
    (site.path / "tls.py").write_text(
        "import ssl\n"
        "def modern(config, default):\n"
        "    context = default()\n"
        "    context.minimum_version = ssl.TLSVersion.TLSv1_3\n"
        "    return context\n"
    )
    with site.service("--ssl-context-factory", "tls:modern", "--workers", "2") as service:
        service.wait_ready(2)
        with site.connect(service) as sock:
            assert sock.version() == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            site.connect(service, site.context(**client))
        service.wait_log(r"TLS handshake with 127\.0\.0\.1:\d+ failed: " + re.escape(message))


def test_ciphers_are_those_of_the_setting(site: Site) -> None:
    with site.service(
        "--ssl-ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
    ) as service:
        serves(service)
        old = site.context(maximum_version=ssl.TLSVersion.TLSv1_2)
        with site.connect(service, old) as sock:
            cipher = sock.cipher()
            assert cipher is not None
            assert cipher[0].endswith("AES128-GCM-SHA256")
        old.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
        with pytest.raises(ssl.SSLError):
            site.connect(service, old)
        service.wait_log(r"failed: client and server have no cipher in common\.")


@EVERYWHERE
@pytest.mark.parametrize("required", [False, True])
def test_certificates_of_clients(site: Site, loop: str, workers: tuple[str, ...], required: bool) -> None:
    asked = ("--ssl-ca-certs", "ca.pem", "--ssl-cert-reqs", "2" if required else "1")
    with site.service("--loop", loop, *asked, *workers) as service:
        serves(service, workers)
        known, stranger = site.context(), site.context()
        site.ca.issue_cert("client").configure_cert(known)
        trustme.CA().issue_cert("stranger").configure_cert(stranger)
        with site.connect(service, known) as sock:
            assert get(sock)[0] == 200
        if required:
            assert refused(site, service, site.context())
            service.wait_log(r"TLS handshake with 127\.0\.0\.1:\d+ failed: the client gave no certificate\.")
        else:
            with site.connect(service) as sock:
                assert get(sock)[0] == 200
        assert refused(site, service, stranger)
        service.wait_log(
            r"TLS handshake with 127\.0\.0\.1:\d+ failed: the client's certificate is not accepted \("
        )
        assert len(told(service)) == 1 + required, service.log


def refused(site: Site, service: Service, context: ssl.SSLContext) -> bool:
    """Whether the server lets the client do nothing. With TLS 1.3 the client learns of it after its own handshake."""
    try:
        with site.connect(service, context) as sock:
            return get(sock)[0] == 0
    except OSError:
        return True


# --- what is no TLS, or not in time -----------------------------------------------------------------

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(100)


@EVERYWHERE
@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a plain HTTP request came in place of TLS."),
        (b"\x1b[31mnonsense\x07\r\n\x00" * 4, "what came is no TLS."),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what came is no TLS."),
    ],
    ids=["http", "garbage", "ssh"],
)
def test_what_is_no_tls_is_told_in_one_line(
    site: Site, loop: str, workers: tuple[str, ...], sent: bytes, message: str
) -> None:
    with site.service("--loop", loop, *workers) as service:
        serves(service, workers)
        with service.connect() as sock:
            port = sock.getsockname()[1]
            sock.sendall(sent)
            assert ended(sock)
        service.wait_log(re.escape(f"TLS handshake with 127.0.0.1:{port} failed: {message}") + "\n")
        with site.connect(service) as secure:
            assert get(secure)[0] == 200
        assert service.stop() == (0 if workers else -signal.SIGTERM)
    assert len(told(service)) == 1
    assert re.search(r"^INFO: .* TLS handshake with", service.log, re.MULTILINE)


@EVERYWHERE
def test_tls_where_there_is_none_is_told_in_one_line(
    tmp_path: Path, loop: str, workers: tuple[str, ...]
) -> None:
    for http in ("h11", "httptools"):
        with Service(tmp_path, "--port", "0", "--loop", loop, "--http", http, *workers) as service:
            serves(service, workers)
            with service.connect() as sock:
                port = sock.getsockname()[1]
                sock.sendall(HELLO)
                assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
                assert ended(sock)
            assert service.stop() == (0 if workers else -signal.SIGTERM)
        assert told(service) == [
            f"Invalid HTTP request received. (127.0.0.1:{port}: a TLS handshake on a port without TLS)"
        ]


def ended(sock: socket.socket) -> bool:
    """The server closes, whatever it still says."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@EVERYWHERE
def test_clients_that_leave_in_the_handshake(site: Site, loop: str, workers: tuple[str, ...]) -> None:
    with site.service("--loop", loop, *workers) as service:
        serves(service, workers)
        service.connect().close()  # monitoring does that all day: no word about it
        with service.connect() as sock:
            port = sock.getsockname()[1]
            sock.sendall(HELLO)
        service.wait_log(f"TLS handshake with 127.0.0.1:{port} failed: the client has gone\\.\n")
        with site.connect(service) as secure:
            assert get(secure)[0] == 200
        assert service.stop() == (0 if workers else -signal.SIGTERM)
    expected = 1 if sys.platform == "linux" else 2
    assert len(told(service)) == expected, service.log


@EVERYWHERE
def test_a_handshake_has_a_deadline(site: Site, loop: str, workers: tuple[str, ...]) -> None:
    with site.service("--loop", loop, "--timeout-tls-handshake", "1", *workers) as service:
        serves(service, workers)
        with service.connect() as sock:
            sock.sendall(HELLO)
            assert ended(sock)
        service.wait_log(r"TLS handshake with 127\.0\.0\.1:\d+ failed: it was not complete in time\.")
        assert len(told(service)) == 1


@EVERYWHERE
def test_a_handshake_under_way_does_not_keep_a_server_that_stops(
    site: Site, loop: str, workers: tuple[str, ...]
) -> None:
    with site.service("--loop", loop, "--timeout-tls-handshake", LONG, *workers) as service:
        serves(service, workers)
        with service.connect() as sock:
            sock.sendall(HELLO)
            service.send_signal(signal.SIGTERM)
            service.wait_exit()
            assert ended(sock)
    assert "Traceback" not in service.log


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_under_way_is_finished_by_a_worker_that_leaves(site: Site, loop: str) -> None:
    workers = ("--workers", "2")
    with site.service("--loop", loop, *workers) as service:
        serves(service, workers)
        memory_in, memory_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = site.context().wrap_bio(memory_in, memory_out, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = memory_out.read()
        with service.connect() as sock:
            sock.sendall(hello[:50])
            service.send_signal(signal.SIGHUP)
            service.wait_log("Waiting for connections to close")
            sock.sendall(hello[50:])
            memory_in.write(sock.recv(65536))
            wait_for(lambda: handshaken(client, sock, memory_in, memory_out), "the end of the handshake")
            client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sock.sendall(memory_out.read())
            answer = decrypted(client, sock, memory_in)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer


def handshaken(
    client: ssl.SSLObject, sock: socket.socket, memory_in: ssl.MemoryBIO, out: ssl.MemoryBIO
) -> bool:
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        sock.sendall(out.read())
        memory_in.write(sock.recv(65536))
        return False
    sock.sendall(out.read())
    return True


def decrypted(client: ssl.SSLObject, sock: socket.socket, memory_in: ssl.MemoryBIO) -> bytes:
    """What comes, up to the end of the connection."""
    answer = b""
    while data := sock.recv(65536):
        memory_in.write(data)
        try:
            while piece := client.read(65536):
                answer += piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            break
    return answer


# --- certificates are read again --------------------------------------------------------------------


def served_certificate(site: Site, service: Service) -> bytes:
    with site.connect(service) as sock:
        return sock.getpeercert(binary_form=True) or b""


def test_a_new_certificate_is_served_after_sighup(site: Site) -> None:
    with site.service("--workers", "2") as service:
        serves(service, ("--workers",))
        before = served_certificate(site, service)
        site.renew()
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"gen=2 pid=\d+ ready", 2)
        wait_for(lambda: len(service.workers()) == 2, "the end of the old workers")
        assert {served_certificate(site, service) for _ in range(8)}.isdisjoint({before})


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: (path / "cert.pem").write_text("garbage"), "is not there in PEM form"),
        (lambda path: (path / "cert.pem").unlink(), r"No such file|cert\.pem"),
        (
            lambda path: trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(path / "key.pem")),
            "the key does not belong to the certificate",
        ),
    ],
    ids=["broken", "missing", "mismatched"],
)
def test_a_certificate_that_will_not_do_leaves_the_old_generation(
    site: Site, spoil: Callable[[Path], object], why: str
) -> None:
    with site.service("--workers", "2") as service:
        serves(service, ("--workers",))
        workers = set(service.workers())
        before = served_certificate(site, service)
        spoil(site.path)
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload failed|Reload rejected|goes on unchanged")
        service.wait_log(why)
        assert "Traceback" not in service.log
        assert set(service.workers()) == workers
        assert served_certificate(site, service) == before
        site.renew()
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"pid=\d+ ready", 4)
        assert service.stop() == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_a_certificate_that_will_not_do_ends_the_start_with_3(site: Site, workers: tuple[str, ...]) -> None:
    (site.path / "cert.pem").write_text("garbage")
    with site.service(*workers) as service:
        assert service.wait_exit() == 3
    assert "The server cannot start with these settings." in service.log
    assert (
        "with ssl_certfile 'cert.pem' and ssl_keyfile 'key.pem': certificate or key is not there in PEM form"
        in (service.log)
    )
    assert "Traceback" not in service.log


# --- nothing is lost --------------------------------------------------------------------------------

LARGE = 195312 * 256  # 50 MB

LARGE_APP = (
    APP
    + """
import hashlib

async def large(scope, receive, send):
    body = bytes(range(256)) * 195312
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

async def digest(scope, receive, send):
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        digest.update(message["body"])
        more = message["more_body"]
    await answer(send, digest.hexdigest().encode())

ROUTES["/large"] = large
ROUTES["/digest"] = digest
"""
)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_fifty_megabytes_both_ways(site: Site, loop: str, http: str) -> None:
    (site.path / "app.py").write_text(LARGE_APP)
    body = bytes(range(256)) * 195312
    with site.service("--loop", loop, "--http", http) as service:
        serves(service)
        with site.connect(service) as sock:
            sock.sendall(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
            sock.sendall(body)
            assert read_response(sock)[2] == hashlib.sha256(body).hexdigest().encode()
            assert get(sock, "/large")[2] == body
    assert told(service) == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_a_client_that_takes_its_time_gets_everything(site: Site, loop: str, more: bytes) -> None:
    (site.path / "app.py").write_text(LARGE_APP)
    with site.service("--loop", loop, "--timeout-keep-alive", "1") as service:
        serves(service)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        plain.settimeout(PATIENCE)
        plain.connect(("127.0.0.1", service.port))
        with site.context().wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
            taken = len(sock.recv(1000))
            # Slower than keep-alive, linger and several sweeps together; but never for long without taking anything.
            until = time.monotonic() + 6
            while time.monotonic() < until:
                taken += len(sock.recv(16384))
                time.sleep(0.1)
            while data := sock.recv(1 << 20):
                taken += len(data)
                if taken > LARGE and not more:
                    break
        assert taken > LARGE


@EVERYWHERE
def test_a_client_that_never_says_goodbye_does_not_keep_a_server_that_stops(
    site: Site, loop: str, workers: tuple[str, ...]
) -> None:
    with site.service("--loop", loop, "--timeout-keep-alive", LONG, *workers) as service:
        serves(service, workers)
        # It has a kernel, which acknowledges; it never reads, and so never answers close_notify (RFC 8446 6.1).
        with site.connect(service) as sock:
            assert get(sock)[0] == 200
            begun = time.monotonic()
            service.send_signal(signal.SIGTERM)
            service.wait_exit()
            # The event loop's own limit is 30 s, that of a response that is not taken 60 s.
            assert time.monotonic() - begun < 20
    assert told(service) == []


@EVERYWHERE
@pytest.mark.parametrize("end", ["close_notify", "fin"])
def test_a_client_that_ends_its_half_is_closed_without_a_word(
    site: Site, loop: str, workers: tuple[str, ...], end: str
) -> None:
    # The event loops cannot go on sending behind a client's close_notify: the request is given up, and the application
    # sees its client gone.
    with site.service("--loop", loop, *workers) as service:
        serves(service, workers)
        memory_in, memory_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = site.context().wrap_bio(memory_in, memory_out, server_hostname="localhost")
        with service.connect() as sock:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            wait_for(lambda: handshaken(client, sock, memory_in, memory_out), "the end of the handshake")
            client.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sock.sendall(memory_out.read())
            assert sock.recv(1)
            if end == "close_notify":
                with pytest.raises(ssl.SSLError):
                    client.unwrap()
                sock.sendall(memory_out.read())
            else:
                sock.shutdown(socket.SHUT_WR)
            assert ended(sock)
        service.wait_log("stream saw disconnect")
        assert service.stop() == (0 if workers else -signal.SIGTERM)
    assert [line for line in told(service) if "saw disconnect" not in line] == []


# --- WebSockets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio", "wsproto"])
def test_websockets_over_tls(site: Site, loop: str, ws: str) -> None:
    with site.service("--loop", loop, "--ws", ws) as service:
        serves(service)
        with connect_websocket(
            f"wss://localhost:{service.port}/",
            proxy=None,
            ssl=site.context(),
            sock=service.connect(),
            server_hostname="localhost",
        ) as client:
            large = os.urandom(1_000_000)
            client.send(large)
            assert client.recv() == large
            client.send("text")
            assert client.recv() == "text"
        service.wait_log("websocket gone 1000")
        assert service.stop() == -signal.SIGTERM
    assert "Traceback" not in service.log
