"""A listener, its end, and descriptors that are adopted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.sockets import LOOPBACK, leave_stale_socket, listening, refusal
from uvicorn._addresses import Address
from uvicorn._listener import Listener, adopt_fd, inode_of, remove_socket_file, url_of
from uvicorn._sockets import open_listener


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def at(path: Path) -> Address:
    return Address("unix", name=str(path))


# --- the end of a listener -------------------------------------------------------------------------


def test_closed_listener_removes_its_file(path: Path) -> None:
    listener = open_listener(at(path), 16)
    listener.close()
    assert listener.sock.fileno() == -1
    assert not path.exists()


def test_file_that_somebody_else_has_put_in_its_place_stays(path: Path) -> None:
    listener = open_listener(at(path), 16)
    path.rename(path.with_name("old"))
    leave_stale_socket(path)
    listener.close()
    assert path.exists()


def test_file_is_removed_once(path: Path) -> None:
    listener = open_listener(at(path), 16)
    listener.unlink()
    leave_stale_socket(path)
    listener.unlink()
    listener.close()
    assert path.exists()


def test_file_that_has_gone_already_is_no_error(path: Path) -> None:
    listener = open_listener(at(path), 16)
    path.unlink()
    listener.close()


def test_inherited_socket_keeps_its_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        Listener(given, at(path), ours=False).close()
    assert path.exists()


def test_inode_of_a_file_that_is_not_there_is_none(path: Path) -> None:
    assert inode_of(str(path)) is None
    remove_socket_file(str(path), (0, 0))


def test_stopped_listener_refuses_even_where_a_copy_is_open(path: Path) -> None:
    listener = open_listener(at(path), 16)
    with listener.sock.dup(), socket.socket(socket.AF_UNIX) as client:
        path.with_name("link").hardlink_to(path)
        listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            client.connect(str(path.with_name("link")))
    assert not path.exists()


def test_stopped_listener_leaves_an_inherited_socket_to_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        Listener(given.dup(), LOOPBACK, ours=False).stop_accepting()
        with socket.create_connection(given.getsockname()):
            pass


# --- inherited sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_descriptor_is_adopted_with_its_family(family: socket.AddressFamily) -> None:
    with socket.socket(family) as given, adopt_fd(given.fileno()) as adopted:
        assert adopted.family == family
        assert adopted.fileno() != given.fileno()
        assert adopted.get_inheritable()


def test_descriptor_that_listens_is_served_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        listener = open_listener(Address("fd", fd=given.fileno()), 16)
        assert not listener.ours
        assert listener.sock.getsockname() == given.getsockname()
        listener.close()
        assert given.fileno() != -1


def test_descriptor_that_does_not_listen_yet_listens() -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        listener = open_listener(Address("fd", fd=given.fileno()), 16)
        assert listening(given)
        listener.close()


def test_descriptor_that_cannot_listen_is_refused() -> None:
    given, other = socket.socketpair()
    with given, other:
        fd = given.fileno()
        assert refusal(lambda: open_listener(Address("fd", fd=fd), 16)) == (
            f"cannot listen on fd://{fd}: invalid argument."
        )


def test_datagram_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        fd = given.fileno()
        assert refusal(lambda: adopt_fd(fd)) == f"file descriptor {fd} is a socket, but not a stream socket."


def test_descriptor_of_a_file_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        fd = file.fileno()
        lowest = os.dup(fd)
        os.close(lowest)
        message = refusal(lambda: adopt_fd(fd))
        assert message == f"file descriptor {fd} is no socket: Socket operation on non-socket."
        again = os.dup(fd)
        os.close(again)
        assert again == lowest


def test_descriptor_that_is_not_open_is_refused() -> None:
    assert refusal(lambda: adopt_fd(99_999)) == "file descriptor 99999 is no socket: Bad file descriptor."


class FakeSocket:
    """Has a family and a name."""

    def __init__(self, family: socket.AddressFamily, name: object) -> None:
        self.family = family
        self._name = name

    def getsockname(self) -> object:
        return self._name


@pytest.mark.parametrize(
    ("family", "name", "is_ssl", "url"),
    [
        (socket.AF_INET, ("127.0.0.1", 80), False, "http://127.0.0.1:80"),
        (socket.AF_INET, ("127.0.0.1", 80), True, "https://127.0.0.1:80"),
        (socket.AF_INET6, ("::1", 80, 0, 0), False, "http://[::1]:80"),
        (socket.AF_UNIX, "/run/s", True, "unix socket /run/s"),
        (socket.AF_UNIX, b"\0name", False, "unix socket @name"),
        (socket.AF_UNIX, "", False, "unix socket "),
    ],
)
def test_socket_is_shown_as_clients_reach_it(
    family: socket.AddressFamily, name: object, is_ssl: bool, url: str
) -> None:
    assert url_of(FakeSocket(family, name), is_ssl) == url  # type: ignore[arg-type]
