"""The master's listening sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.plans import LOCAL, Told, is_open, plan_of
from uvicorn._addresses import Address, BindError
from uvicorn._listener import Listener
from uvicorn.supervisor.listeners import SHARED, Key, ListenerSet, keys_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")

needs_reuse_port = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="SO_REUSEPORT spreads connections on Linux only"
)


@pytest.fixture
def listeners() -> Iterator[ListenerSet]:
    listeners = ListenerSet()
    yield listeners
    listeners.stop()


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


# --- keys --------------------------------------------------------------------------------------


def test_all_slots_share_their_sockets() -> None:
    other = Address("unix", name="/run/a.sock")
    plan = plan_of(LOCAL, other)
    assert keys_for(plan, 1) == keys_for(plan, 7) == [Key(LOCAL, SHARED), Key(other, SHARED)]


def test_with_reuse_port_each_slot_has_tcp_sockets_of_its_own() -> None:
    others = [Address("unix", name="/run/a.sock"), Address("fd", fd=3), Address("systemd", name="web")]
    plan = plan_of(LOCAL, *others, reuse_port=True)
    assert keys_for(plan, 3) == [Key(LOCAL, 3), *(Key(other, SHARED) for other in others)]


def test_an_address_that_is_given_twice_is_one() -> None:
    assert keys_for(plan_of(LOCAL, LOCAL), 1) == [Key(LOCAL)]


# --- opening -----------------------------------------------------------------------------------


def test_open_makes_one_socket_for_each_address_and_announces_it(
    listeners: ListenerSet, tmp_path: Path
) -> None:
    told = Told()
    unix = Address("unix", name=str(tmp_path / "a.sock"))
    plan = plan_of(LOCAL, unix, told=told)
    listeners.open(plan, plan.announce)
    assert list(listeners.held) == [Key(LOCAL), Key(unix)]
    assert told.announced == [listener.sock for listener in listeners.held.values()]
    assert all(listens(sock) and sock.get_inheritable() for sock in told.announced)
    assert (tmp_path / "a.sock").exists()


def test_open_twice_opens_nothing_new(listeners: ListenerSet) -> None:
    told = Told()
    listeners.open(plan_of())
    before = dict(listeners.held)
    listeners.open(plan_of(size=9), told.announced.append)
    assert listeners.held == before
    assert told.announced == []


@needs_reuse_port
def test_with_reuse_port_all_slots_have_the_same_port_and_it_is_announced_once(
    listeners: ListenerSet,
) -> None:
    told = Told()
    plan = plan_of(size=3, reuse_port=True, told=told)
    listeners.open(plan, plan.announce)
    assert list(listeners.held) == [Key(LOCAL, 1), Key(LOCAL, 2), Key(LOCAL, 3)]
    assert len({port_of(listener.sock) for listener in listeners.held.values()}) == 1
    assert told.announced == [listeners.held[Key(LOCAL, 1)].sock]


def test_an_address_that_cannot_be_had_leaves_nothing_open(listeners: ListenerSet, tmp_path: Path) -> None:
    listeners.open(plan_of())
    before = dict(listeners.held)
    unix = Address("unix", name=str(tmp_path / "a.sock"))
    port = port_of(next(iter(before.values())).sock)
    with pytest.raises(BindError, match=rf"cannot bind to 127\.0\.0\.1:{port}: address already in use"):
        listeners.open(plan_of(LOCAL, unix, Address("tcp", host="127.0.0.1", port=port)))
    assert listeners.held == before
    assert not (tmp_path / "a.sock").exists()


def bound(port: int = 0, reuse_port: bool = False) -> socket.socket:
    """A socket that is bound and does not listen yet, as a program may pass it in."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def test_a_socket_that_was_taken_is_made_to_listen_and_not_announced(listeners: ListenerSet) -> None:
    told = Told()
    sock = bound()
    listeners.take(Key(LOCAL), Listener(sock, LOCAL, ours=True))
    listeners.open(plan_of(told=told), told.announced.append)
    assert listens(sock)
    assert told.announced == []
    assert list(listeners.held) == [Key(LOCAL)]


@needs_reuse_port
def test_sockets_begin_to_listen_in_the_order_in_which_they_are_held(listeners: ListenerSet) -> None:
    sock = bound(reuse_port=True)
    listeners.take(Key(LOCAL, 1), Listener(sock, LOCAL, ours=True))
    began: list[socket.socket] = []
    listeners.open(plan_of(size=3, reuse_port=True), began.append)
    own = [listener.sock for listener in listeners.held.values()]
    assert own[0] is sock
    assert {port_of(each) for each in own} == {port_of(sock)}
    # Steering counts sockets in the order in which they began to listen.
    from uvicorn.supervisor.steering import steer

    for i, chosen in enumerate(own):
        assert steer(sock, [i])
        with socket.create_connection(("127.0.0.1", port_of(sock))):
            chosen.setblocking(False)
            chosen.accept()[0].close()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="two sockets may be bound like this on Linux only"
)
def test_a_taken_socket_that_cannot_listen_is_a_bind_error(listeners: ListenerSet) -> None:
    sock = bound()
    with bound(port_of(sock)) as other:
        other.listen()
        listeners.take(Key(LOCAL), Listener(sock, LOCAL, ours=True))
        with pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1:0: address already in use"):
            listeners.open(plan_of())


# --- the sockets of a slot ---------------------------------------------------------------------


def test_sockets_of_a_slot_are_the_shared_ones(listeners: ListenerSet) -> None:
    plan = plan_of()
    listeners.open(plan)
    assert listeners.sockets(plan, 1) == listeners.sockets(plan, 99) == [listeners.held[Key(LOCAL)].sock]


@needs_reuse_port
def test_sockets_of_a_new_slot_are_opened_and_kept(listeners: ListenerSet) -> None:
    plan = plan_of(size=1, reuse_port=True)
    listeners.open(plan)
    first = listeners.sockets(plan, 1)
    third = listeners.sockets(plan, 3)
    assert listens(third[0])
    assert port_of(third[0]) == port_of(first[0])
    assert listeners.sockets(plan, 3) == third


def test_sockets_that_cannot_be_had_are_a_bind_error(listeners: ListenerSet) -> None:
    with pytest.raises(BindError, match="is no socket"):
        listeners.sockets(plan_of(Address("fd", fd=999_999)), 1)


# --- closing -----------------------------------------------------------------------------------


def test_close_unused_closes_what_no_plan_has_and_nothing_else(
    listeners: ListenerSet, tmp_path: Path
) -> None:
    old = Address("unix", name=str(tmp_path / "old.sock"))
    new = Address("unix", name=str(tmp_path / "new.sock"))
    before, after = plan_of(LOCAL, old), plan_of(LOCAL, new)
    listeners.open(before)
    listeners.open(after)
    kept, closed = listeners.held[Key(LOCAL)].sock, listeners.held[Key(old)].sock
    listeners.close_unused([before, after])
    assert len(listeners.held) == 3
    listeners.close_unused([after])
    assert list(listeners.held) == [Key(LOCAL), Key(new)]
    assert is_open(kept)
    assert not is_open(closed)
    assert not (tmp_path / "old.sock").exists()
    assert (tmp_path / "new.sock").exists()


@needs_reuse_port
def test_close_unused_tells_shared_sockets_from_own_ones(listeners: ListenerSet) -> None:
    own = plan_of(reuse_port=True)
    listeners.open(own)
    listeners.close_unused([own])
    assert len(listeners.held) == 2
    listeners.close_unused([plan_of()])
    assert listeners.held == {}


def test_close_unused_does_not_refuse_those_who_still_accept(listeners: ListenerSet) -> None:
    listeners.open(plan_of())
    sock = listeners.held[Key(LOCAL)].sock
    with sock.dup() as workers:
        listeners.close_unused([])
        with socket.create_connection(workers.getsockname()):
            workers.accept()[0].close()


@needs_reuse_port
@pytest.mark.parametrize("reuse_port", [False, True])
def test_plan_for_what_is_held_has_no_other_addresses(listeners: ListenerSet, reuse_port: bool) -> None:
    held = plan_of(LOCAL, Address("tcp", host="127.0.0.2", port=0), reuse_port=reuse_port)
    listeners.open(held)
    wanted = plan_of(Address("tcp", host="127.0.0.3", port=1), reuse_port=not reuse_port, title="new:app")
    plan = listeners.plan_for_held(wanted)
    assert (plan.addresses, plan.reuse_port, plan.title) == (held.addresses, reuse_port, "new:app")


def test_stop_refuses_connections_whoever_holds_a_copy(listeners: ListenerSet, tmp_path: Path) -> None:
    unix = Address("unix", name=str(tmp_path / "a.sock"))
    listeners.open(plan_of(LOCAL, unix))
    address = listeners.held[Key(LOCAL)].sock.getsockname()
    with listeners.held[Key(LOCAL)].sock.dup():
        listeners.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert listeners.held == {}
    assert not (tmp_path / "a.sock").exists()
    listeners.stop()


def test_stop_leaves_a_socket_that_was_passed_in_to_its_owner(listeners: ListenerSet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        listeners.open(plan_of(Address("fd", fd=owner.fileno())))
        listeners.stop()
        assert is_open(owner)
        with socket.create_connection(owner.getsockname()):
            owner.accept()[0].close()


def test_in_a_child_only_its_own_sockets_stay_open_and_no_program_inherits_them(
    listeners: ListenerSet, tmp_path: Path
) -> None:
    unix = Address("unix", name=str(tmp_path / "a.sock"))
    listeners.open(plan_of(LOCAL, unix))
    own, other = listeners.held[Key(LOCAL)].sock, listeners.held[Key(unix)].sock
    listeners.close_in_child([own])
    assert is_open(own)
    assert not os.get_inheritable(own.fileno())
    assert not is_open(other)
    assert (tmp_path / "a.sock").exists()
