"""Listening sockets: what a bind text means, opening and adopting, and who may unlink a socket file."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn import _sockets
from uvicorn._sockets import (
    HANDED_BINDS,
    Address,
    BindError,
    Listener,
    adopt_fd,
    bind_only,
    connections_at_most,
    explain,
    forget_systemd,
    inode_of,
    open_listener,
    open_private,
    parse_bind,
    passed_binds,
    passed_sockets,
    privilege_hint,
    release_passed,
    remove_socket_file,
    shared_with_ipv4,
    start_listening,
    url_of,
)

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="systemd, and its descriptors, are elsewhere")

# Where `Passing` puts sockets.
FIRST = 200

LOOPBACK = Address("tcp", host="127.0.0.1", port=0)


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


def listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def leave_stale_socket(path: Path, mode: int = 0o666) -> None:
    """What a server that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(mode)


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(BindError) as caught:
        function()
    return str(caught.value)


# --- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:80", Address("tcp", host="127.0.0.1", port=80), None),
        ("localhost:0", Address("tcp", host="localhost"), None),
        (":65535", Address("tcp", port=65535), None),
        ("[::1]:80", Address("tcp", host="::1", port=80), None),
        ("[]:80", Address("tcp", port=80), ":80"),
        ("unix:/run/x", Address("unix", name="/run/x"), None),
        ("unix:///run/x", Address("unix", name="/run/x"), "unix:/run/x"),
        ("unix:x", Address("unix", name="x"), None),
        ("unix:@x", Address("unix", name="@x"), None),
        ("fd://3", Address("fd", fd=3), None),
        ("systemd:web", Address("systemd", name="web"), None),
        ("systemd:web:2", Address("systemd", name="web", index=2), None),
    ],
)
def test_bind_text_means_an_address(text: str, address: Address, shown: str | None) -> None:
    assert parse_bind(text) == address
    assert str(address) == (shown or text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "80",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1]:65536",
        "http://host:80",
        "a/b:80",
        "unix:",
        "fd://",
        "fd://x",
        "fd://-1",
        "fd://\u00b2",
        "systemd:",
        "systemd:web:",
        "systemd:web:0",
        "systemd:web:x",
        "host:80\n",
    ],
)
def test_bind_text_that_means_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text follows
        parse_bind(text)
    message = "is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME."
    assert str(caught.value) == f"{text!r} {message}"


@given(host=st.ip_addresses(), port=st.integers(0, 65535))
def test_address_and_text_are_two_forms_of_one_thing(host: object, port: int) -> None:
    address = Address("tcp", host=str(host), port=port)
    assert parse_bind(str(address)) == address


# --- TCP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("binds", "only_v6"),
    [
        (["[::]:80"], [False]),
        (["[::]:80", "0.0.0.0:80"], [True, False]),
        (["127.0.0.1:80", "[0:0::0]:80"], [False, True]),
        (["name:80", "[::]:80"], [False, True]),
        (["[::]:80", "0.0.0.0:81", "unix:80"], [False, False, False]),
        (["[::1]:80", "0.0.0.0:80"], [False, False]),
        (["[::]:80", "[::]:80"], [False]),
    ],
)
def test_all_of_ipv6_leaves_ipv4_to_another_address_with_its_port(
    binds: list[str], only_v6: list[bool]
) -> None:
    assert [each.only_v6 for each in shared_with_ipv4(map(parse_bind, binds))] == only_v6


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
        self.patch.setattr(_sockets, "SYSTEMD_FIRST_FD", FIRST)
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


@on_posix
@pytest.mark.parametrize(("descriptors", "connections"), [(1024, 921), (1, 1), (-1, sys.maxsize)])
def test_application_keeps_descriptors_of_its_own(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.RLIM_INFINITY if descriptors < 0 else descriptors
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connections_at_most() == connections
