"""Opening listening sockets: TCP, UNIX, and what is said where that fails."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sockets import LOOPBACK, leave_stale_socket, listening, refusal
from uvicorn._addresses import Address, BindError
from uvicorn._listener import Listener, inode_of
from uvicorn._sockets import bind_only, explain, open_listener, open_private, privilege_hint, start_listening


@pytest.fixture
def opened() -> Iterator[Callable[[Listener], Listener]]:
    """Closes what is given to it when the test has ended."""
    with ExitStack() as stack:

        def keep(listener: Listener) -> Listener:
            stack.callback(listener.close)
            return listener

        yield keep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def at(path: Path) -> Address:
    return Address("unix", name=str(path))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- TCP -------------------------------------------------------------------------------------------


def test_tcp_listener_listens_and_is_inheritable(opened: Callable[[Listener], Listener]) -> None:
    listener = opened(open_listener(LOOPBACK, backlog=16))
    assert listener.ours
    assert listener.inode is None
    assert listening(listener.sock)
    assert listener.sock.get_inheritable()
    assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with socket.create_connection(listener.sock.getsockname()):
        pass


def test_bound_socket_does_not_listen_yet(opened: Callable[[Listener], Listener]) -> None:
    listener = opened(bind_only(LOOPBACK))
    assert not listening(listener.sock)
    start_listening(listener.sock, 16)
    assert listening(listener.sock)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="there is no SO_REUSEPORT here")
def test_port_is_shared_where_that_is_asked_for(opened: Callable[[Listener], Listener]) -> None:
    first = opened(open_listener(LOOPBACK, 16, reuse_port=True))
    address = Address("tcp", host="127.0.0.1", port=first.sock.getsockname()[1])
    second = opened(open_listener(address, 16, reuse_port=True))
    assert second.sock.getsockname() == first.sock.getsockname()


def test_port_in_use_is_refused(opened: Callable[[Listener], Listener]) -> None:
    port = opened(open_listener(LOOPBACK, 16)).sock.getsockname()[1]
    message = refusal(lambda: open_listener(Address("tcp", host="127.0.0.1", port=port), 16))
    assert message == (
        f"cannot bind to 127.0.0.1:{port}: address already in use; "
        "stop the server that uses it, or take another one."
    )


def test_port_taken_between_bind_and_listen_is_refused_and_nothing_stays_open(
    opened: Callable[[Listener], Listener],
) -> None:
    # SO_REUSEADDR lets both bind; only one can listen.
    first = opened(bind_only(LOOPBACK))
    port = first.sock.getsockname()[1]
    start_listening(opened(bind_only(Address("tcp", host="127.0.0.1", port=port))).sock, 16)
    message = refusal(lambda: open_listener(Address("tcp", host="127.0.0.1", port=port), 16))
    assert message.startswith(f"cannot bind to 127.0.0.1:{port}: address already in use")
    with pytest.raises(OSError, match="in use"):
        start_listening(first.sock, 16)


def test_address_of_another_machine_is_refused() -> None:
    message = refusal(lambda: bind_only(Address("tcp", host="192.0.2.1", port=0)))
    assert message == "cannot bind to 192.0.2.1:0: no interface of this machine has this address."


# --- UNIX sockets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_socket_file_is_open_to_all_whatever_the_umask(
    umask: int, path: Path, opened: Callable[[Listener], Listener]
) -> None:
    previous = os.umask(umask)
    try:
        listener = opened(open_listener(at(path), 16))
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert mode_of(path) == 0o666
    assert listener.inode == inode_of(str(path))
    assert listener.sock.get_inheritable()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("stale", [None, 0o777])
def test_private_socket_file_is_its_owners_alone_whatever_was_there(
    umask: int, stale: int | None, path: Path, opened: Callable[[Listener], Listener]
) -> None:
    if stale is not None:
        leave_stale_socket(path, stale)
    previous = os.umask(umask)
    try:
        listener = opened(open_private(at(path), 16))
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert mode_of(path) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_private_socket_of_a_running_server_is_refused(
    path: Path, opened: Callable[[Listener], Listener]
) -> None:
    opened(open_private(at(path), 16))
    with pytest.raises(BindError, match="in use by a running server"):
        open_private(at(path), 16)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_stale_socket_is_replaced_and_its_mode_kept(
    mode: int, path: Path, opened: Callable[[Listener], Listener]
) -> None:
    leave_stale_socket(path, mode)
    opened(open_listener(at(path), 16))
    assert mode_of(path) == mode
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_socket_of_a_running_server_is_refused_and_left(
    path: Path, opened: Callable[[Listener], Listener]
) -> None:
    running = opened(open_listener(at(path), 16))
    message = refusal(lambda: bind_only(at(path)))
    assert message == f"cannot bind to unix:{path}: in use by a running server."
    assert inode_of(str(path)) == running.inode


def test_socket_of_a_running_server_whose_queue_is_full_is_refused_and_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as clients:
        busy.bind(str(path))
        busy.listen(0)
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) != 0:
                break
        message = refusal(lambda: bind_only(at(path)))
    assert message == f"cannot bind to unix:{path}: resource temporarily unavailable."
    assert path.exists()


def test_socket_of_another_type_is_refused_and_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        message = refusal(lambda: bind_only(at(path)))
    assert message == f"cannot bind to unix:{path}: protocol wrong type for socket."
    assert path.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_file_that_is_no_socket_is_refused_and_left(make: Callable[[Path], None], path: Path) -> None:
    make(path)
    message = refusal(lambda: bind_only(at(path)))
    assert message == (
        f"cannot bind to unix:{path}: there is a file that is no socket; remove it or take another path."
    )
    assert path.exists()


def test_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: bind_only(at(tmp_path / "none" / "s")))
    assert message == f"cannot bind to unix:{tmp_path}/none/s: no such file or directory."


def test_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 150)
    assert refusal(lambda: bind_only(at(path))) == f"cannot bind to unix:{path}: af_unix path too long."


def test_failure_leaves_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        refusal(lambda: bind_only(at(tmp_path / "none" / "s")))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(previous)


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract names are Linux's")
def test_abstract_name_has_no_file(tmp_path: Path, opened: Callable[[Listener], Listener]) -> None:
    name = f"@uvicorn-test-{os.getpid()}"
    listener = opened(open_listener(Address("unix", name=name), 16))
    assert listener.inode is None
    assert listener.sock.getsockname() == b"\0" + name[1:].encode()
    assert refusal(lambda: bind_only(Address("unix", name=name))).endswith("take another one.")


# --- texts for people ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "port", "text"),
    [
        (
            OSError(errno.EADDRINUSE, "x"),
            80,
            "address already in use; stop the server that uses it, or take another one.",
        ),
        (
            OSError(errno.EACCES, "x"),
            80,
            (
                "permission denied; ports below 1024 need root, the capability CAP_NET_BIND_SERVICE, "
                "or a socket passed in by systemd."
            ),
        ),
        (OSError(errno.EACCES, "x"), 8080, "permission denied."),
        (OSError(errno.EACCES, "x"), 0, "permission denied."),
        (OSError(errno.EACCES, "x"), None, "permission denied."),
        (OSError(errno.EADDRNOTAVAIL, "x"), 80, "no interface of this machine has this address."),
        (
            socket.gaierror(socket.EAI_NONAME, "Name unknown"),
            80,
            "the host name cannot be resolved (Name unknown).",
        ),
        (OSError(errno.ENOBUFS, "No buffer space"), 80, "no buffer space."),
        (OSError("Something Else"), 80, "something else."),
    ],
)
def test_failure_is_explained(exc: OSError, port: int | None, text: str) -> None:
    assert explain(exc, port) == text


def test_hint_is_given_only_where_the_port_is_the_reason() -> None:
    denied = OSError(errno.EACCES, "x")
    assert privilege_hint(denied, 80).startswith("; ports below 1024 need root")
    assert privilege_hint(denied, 1024) == ""
    assert privilege_hint(OSError(errno.EADDRINUSE, "x"), 80) == ""


@pytest.mark.parametrize("address", [Address("tcp", "127.0.0.1", 0), Address("unix", name="a.sock")], ids=str)
def test_without_a_descriptor_it_is_said_for_which_address(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(BindError, match=f"^cannot bind to {re.escape(str(address))}: too many open files"):
        bind_only(address)
