"""Sockets that systemd passes in."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.sockets import refusal
from uvicorn import _passed
from uvicorn._addresses import Address, parse_bind
from uvicorn._passed import HANDED_BINDS, forget_systemd, passed_binds, passed_sockets, release_passed
from uvicorn._sockets import bind_only, open_listener

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="systemd, and its descriptors, are elsewhere")

# Where `Passing` puts sockets.
FIRST = 200


def passed(fds: int | str = 1, names: str | None = None, pid: int | None = None) -> dict[str, str]:
    """What systemd puts into the environment."""
    environ = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(fds)}
    return environ if names is None else {**environ, "LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        (passed(2, "web:admin"), ["web", "admin"]),
        (passed(3, "web:admin:web"), ["web", "admin", "web"]),
        (passed(2), ["unknown", "unknown"]),
        (passed(2, "web"), ["web", "unknown"]),
        (passed(2, ":web"), ["unknown", "web"]),
        (passed(1, "web:more"), ["web"]),
        (passed(0), []),
        (passed("x"), []),
        (passed("-1"), []),
        (passed("\u00b2"), []),
        (passed(1, "web", pid=1), []),
        ({"LISTEN_FDS": "1"}, []),
        ({"LISTEN_PID": str(os.getpid())}, []),
        ({}, []),
    ],
)
def test_sockets_of_systemd_are_found_in_order(environ: dict[str, str], found: list[str]) -> None:
    assert [(each.name, each.fd) for each in passed_sockets(environ)] == [
        (name, 3 + i) for i, name in enumerate(found)
    ]


class Passing:
    """Sockets as systemd passes them: in consecutive descriptors, here from 200 on, where nothing else is."""

    def __init__(self, *socks: tuple[str, socket.socket]) -> None:
        self.environ = passed(len(socks), ":".join(name for name, _ in socks))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(_passed, "SYSTEMD_FIRST_FD", FIRST)
        for i, (_, sock) in enumerate(socks):
            os.dup2(sock.fileno(), FIRST + i)
            sock.close()

    def __enter__(self) -> dict[str, str]:
        return self.environ

    def __exit__(self, *failure: object) -> None:
        self.patch.undo()
        for fd in range(FIRST, FIRST + 5):
            if _is_open(fd):
                os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def tcp(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@on_posix
def test_socket_of_systemd_is_opened_by_name() -> None:
    web, admin = tcp(), tcp()
    port = port_of(admin)
    with Passing(("web", web), ("admin", admin)) as environ:
        listener = open_listener(Address("systemd", name="admin"), 16, environ=environ)
        assert not listener.ours
        assert port_of(listener.sock) == port
        # A socket is given away once.
        assert "1 socket(s) named 'admin'" in refusal(
            lambda: bind_only(Address("systemd", name="admin", index=2), environ=environ)
        )
        listener.stop_accepting()
        with socket.socket(fileno=os.dup(FIRST + 1)) as original:
            assert original.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@on_posix
def test_sockets_with_the_same_name_are_counted() -> None:
    first, second = tcp(), tcp()
    ports = [port_of(first), port_of(second)]
    with Passing(("web", first), ("web", second)) as environ:
        assert passed_binds(environ) == ["systemd:web:1", "systemd:web:2"]
        for text, port in zip(passed_binds(environ), ports, strict=True):
            listener = open_listener(parse_bind(text), 16, environ=environ)
            assert port_of(listener.sock) == port
            listener.close()


@on_posix
def test_without_an_address_all_sockets_are_meant_but_those_of_the_store() -> None:
    with Passing(("web", tcp()), ("uvicorn/0/%3A80", tcp()), ("admin", tcp())) as environ:
        assert passed_binds(environ) == ["systemd:web", "systemd:admin"]
    assert passed_binds({}) == []
    assert passed_binds({HANDED_BINDS: "systemd:a b\nsystemd:b:2"}) == ["systemd:a b", "systemd:b:2"]


@on_posix
def test_a_count_that_is_wrong_is_an_error() -> None:
    with Passing(("web", tcp())) as environ:
        environ["LISTEN_FDS"] = "9"
        assert refusal(lambda: passed_binds(environ)) == (
            "LISTEN_FDS says that 9 sockets were passed in, but file descriptor 201 is no socket; start the server by "
            "systemd, or without LISTEN_FDS and LISTEN_PID."
        )


@on_posix
@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", ""),
        ("::", "0.0.0.0"),
        ("::1", "::1"),
    ],
)
def test_socket_of_systemd_is_found_by_its_address(own: str, asked: str) -> None:
    try:
        sock = tcp(own)
    except OSError:
        pytest.skip("this machine has no IPv6")
    address = Address("tcp", host=asked, port=port_of(sock))
    with Passing(("web", sock)) as environ:
        listener = open_listener(address, 16, environ=environ)
        assert not listener.ours
        assert port_of(listener.sock) == address.port
        listener.close()
        assert release_passed(environ) == []


@on_posix
def test_path_of_a_passed_socket_is_not_bound_again_nor_removed(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{tmp_path}/s")
    sock.listen()
    with Passing(("web", sock)) as environ:
        listener = open_listener(Address("unix", name=f"{tmp_path}/s"), 16, environ=environ)
        listener.stop_accepting()
    assert (tmp_path / "s").exists()


@on_posix
def test_descriptor_that_systemd_has_passed_counts_as_taken() -> None:
    with Passing(("web", tcp())) as environ:
        open_listener(Address("fd", fd=FIRST), 16, environ=environ).close()
        assert release_passed(environ) == []


@on_posix
def test_what_nobody_serves_on_is_closed_and_named() -> None:
    web, other = tcp(), tcp()
    name = other.getsockname()
    with Passing(("web", web), ("other", other), ("uvicorn/0/%3A80", tcp())) as environ:
        listener = open_listener(Address("systemd", name="web"), 16, environ=environ)
        environ.update(OTHER="x", NOTIFY_SOCKET="/run/notify")
        assert release_passed(environ) == [f"other ({name!r})"]
        assert environ == {"OTHER": "x"}
        assert not any(_is_open(fd) for fd in range(FIRST, FIRST + 3))
        listener.close()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "systemd has passed no socket named 'web' (it has passed: none)."),
        (passed(2, "b:a"), "systemd has passed no socket named 'web' (it has passed: a, b)."),
        (
            passed(2, "web:web"),
            (
                "systemd has passed 2 socket(s) named 'web': take each of them (systemd:web:1 and so on), or give each "
                "a FileDescriptorName= of its own."
            ),
        ),
    ],
)
def test_socket_that_systemd_has_not_passed_is_refused(environ: dict[str, str], message: str) -> None:
    assert refusal(lambda: bind_only(Address("systemd", name="web"), environ=environ)) == message


def test_variables_of_systemd_are_forgotten() -> None:
    told = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", HANDED_BINDS), "1")
    environ = {**passed(1, "web"), **told, "OTHER": "x"}
    forget_systemd(environ)
    assert environ == {"OTHER": "x"}
    forget_systemd(environ)
