"""The notify socket and the store, with real datagrams."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.manager import Manager
from tests.supervisor.plans import LOCAL, plan_of
from tests.supervisor.rig import Rig
from tests.supervisor.test_master import upgraded
from uvicorn._addresses import Address
from uvicorn._listener import Listener
from uvicorn._passed import HANDED_BINDS
from uvicorn._sockets import open_listener
from uvicorn.supervisor.listeners import Key, ListenerSet
from uvicorn.supervisor.notify import Notifier, ServiceManager, has_stored, stored_name, watchdog_period

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX datagram sockets")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as made:
        yield made


@pytest.fixture
def managed(manager: Manager) -> Rig:
    return rig_of(manager)


def rig_of(manager: Manager, *addresses: Address, **environ: str) -> Rig:
    """A rig whose master has been started by the manager."""
    rig = Rig(plan_of(*addresses, size=2))
    rig.master._manager = ServiceManager(manager.environ(**environ))
    return rig


# --- the socket --------------------------------------------------------------------------------


def test_lines_travel_as_one_datagram(manager: Manager) -> None:
    Notifier(manager.path).send("READY=1", "STATUS=Größe = 3")
    assert manager.receive(5)
    assert manager.messages == [{"READY": "1", "STATUS": "Größe = 3"}]


def test_an_abstract_socket_is_reached(tmp_path: Path) -> None:
    with Manager(f"@uvicorn-test-{os.getpid()}") as abstract:
        Notifier(abstract.path).send("READY=1")
        assert abstract.receive(5)


def test_where_nobody_listens_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier("")
    assert not notifier.is_wanted
    notifier.send("READY=1")
    assert caplog.records == []


@pytest.mark.parametrize(
    "path", ["/nowhere/notify", "@nobody-is-there", "vsock:2:1234", "relative", "/" + "x" * 200]
)
def test_a_socket_that_cannot_be_reached_is_one_warning(
    path: str, error_log: list[logging.LogRecord]
) -> None:
    notifier = Notifier(path)
    for _ in range(3):
        notifier.send("READY=1")
    (record,) = error_log
    assert record.levelno == logging.WARNING
    assert f"NOTIFY_SOCKET={path}: " in record.getMessage()


def test_a_socket_that_is_full_never_blocks(manager: Manager, error_log: list[logging.LogRecord]) -> None:
    notifier = Notifier(manager.path)
    for _ in range(10_000):
        notifier.send("WATCHDOG=1")
    (record,) = error_log
    assert "Resource temporarily unavailable" in record.getMessage()
    manager.drain()
    notifier.send("READY=1")
    assert manager.receive(5)


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_of_this_process_is_meant(environ: dict[str, str], period: float | None) -> None:
    if "WATCHDOG_PID" in environ and period is not None:
        environ["WATCHDOG_PID"] = str(os.getpid())
    assert watchdog_period(environ) == period


# --- the master --------------------------------------------------------------------------------


def test_a_master_tells_its_life(managed: Rig, manager: Manager) -> None:
    managed.reloads = [managed.plan, ValueError("wrong")]
    managed.send(2, signal.SIGHUP)
    managed.send(4, signal.SIGHUP)
    assert managed.run() == 0
    assert manager.changes() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    ready = [message for message in manager.messages if message.get("READY") == "1"]
    assert [message["STATUS"].partition(".")[0] for message in ready] == [
        "Serving: generation 1, 2 of 2 worker(s) ready",
        "Serving: generation 2, 2 of 2 worker(s) ready, 1 draining",
        "Serving: generation 2, 2 of 2 worker(s) ready",
    ]
    assert "Reload failed, the settings cannot be used: ValueError: wrong." in ready[2]["STATUS"]


def test_the_watchdog_is_fed_from_the_loop(manager: Manager) -> None:
    rig = rig_of(manager, WATCHDOG_USEC="3000000")
    assert rig.run(stop_after=10) == 0
    manager.drain()
    assert [message.get("WATCHDOG") for message in manager.messages].count("1") == 10


def test_a_master_that_nobody_started_says_nothing(manager: Manager) -> None:
    rig = Rig()
    assert rig.run() == 0
    assert not manager.receive(0)
    assert rig.master._manager.next_deadline() == float("inf")


def test_an_upgrade_hands_the_manager_over(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of(manager, WATCHDOG_USEC="9000000", WATCHDOG_PID=str(os.getpid()), FDSTORE="5")
    rig.send(1, signal.SIGUSR2)
    upgraded(rig)
    ((_, trial),) = rig.host.programs
    ((_, environ, _),) = rig.host.execs
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"):
        assert name not in trial
        assert name in environ
    assert HANDED_BINDS not in environ
    assert manager.changes() == ["READY", "RELOADING"]


def test_the_next_program_knows_what_was_passed_in(manager: Manager) -> None:
    listeners = ListenerSet()
    with socket.create_server(("127.0.0.1", 0)) as web, socket.create_server(("127.0.0.1", 0)) as other:
        for sock, address in ((web, Address("systemd", name="web", index=2)), (other, LOCAL)):
            listeners.take(Key(address), Listener(sock, address, ours=address is LOCAL))
        found = ServiceManager(manager.environ()).for_next_program(key.address for key in listeners.held)
    assert found == {"NOTIFY_SOCKET": manager.path, HANDED_BINDS: "systemd:web:2"}


# --- the store ---------------------------------------------------------------------------------


def test_a_master_stores_its_listeners_and_takes_them_out_when_it_stops(manager: Manager) -> None:
    rig = rig_of(manager, FDSTORE="5")
    stored: list[str] = []

    def look() -> None:
        manager.drain()
        stored.extend(manager.store)
        with socket.socket(fileno=os.dup(next(iter(manager.store.values())))) as copy:
            assert copy.getsockname() == rig.sockets()[0].getsockname()

    rig.later(2, look)
    assert rig.run() == 0
    manager.drain()
    assert stored == ["uvicorn/0/127.0.0.1%3A0"]
    assert manager.store == {}


def test_a_store_that_is_too_small_is_one_warning(manager: Manager, tmp_path: Path) -> None:
    addresses = [Address("unix", name=f"{tmp_path}/{i}") for i in range(4)]
    rig = rig_of(manager, *addresses, FDSTORE="2")
    assert rig.run() == 0
    manager.drain()
    assert [message.get("FDSTORE") for message in manager.messages].count("1") == 2
    assert rig.logged("The service manager's store has room for 2 of 4 sockets") == 1


def test_without_a_store_nothing_is_stored(managed: Rig, manager: Manager) -> None:
    assert managed.run() == 0
    manager.drain()
    assert not any("FDSTORE" in message for message in manager.messages)


def test_a_reload_that_changes_the_addresses_changes_the_store(manager: Manager, tmp_path: Path) -> None:
    rig = rig_of(manager, FDSTORE="5")
    rig.reloads = [plan_of(Address("unix", name=f"{tmp_path}/s"), size=2)]
    rig.send(2, signal.SIGHUP)
    names: list[str] = []
    rig.later(8, lambda: (manager.drain(), names.extend(manager.store)))
    assert rig.run() == 0
    assert names == [stored_name(Key(Address("unix", name=f"{tmp_path}/s")))]


def test_what_was_passed_in_is_not_stored(manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        address = Address("systemd", name="web")
        rig = rig_of(manager, address, FDSTORE="5")
        rig.listeners.take(Key(address), Listener(web.dup(), address, ours=False))
        assert rig.run() == 0
    manager.drain()
    assert not any("FDSTORE" in message for message in manager.messages)


def passed(sock: socket.socket, name: str) -> dict[str, str]:
    """What systemd says where a socket is passed in, and everything below it as well."""
    others = sock.fileno() - 3
    names = ":".join([*["other"] * others, name])
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(others + 1), "LISTEN_FDNAMES": names}


def test_a_stored_socket_is_taken_with_its_queue(
    manager: Manager, error_log: list[logging.LogRecord]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        key = Key(Address("tcp", host="127.0.0.1", port=before.getsockname()[1]))
        environ = passed(before, stored_name(key))
        assert has_stored(environ)
        with socket.create_connection(before.getsockname()) as client:
            listeners = ListenerSet()
            ServiceManager(manager.environ(FDSTORE="5")).take_stored(listeners, plan_of(key.address), environ)
            connection, peer = listeners.held[key].sock.accept()
            assert peer == client.getsockname()
            connection.close()
        assert listeners.held[key].ours
        listeners.stop()
    assert "from the service manager's store" in error_log[-1].getMessage()


def test_a_stored_unix_socket_is_ours_to_remove(manager: Manager, tmp_path: Path) -> None:
    address = Address("unix", name=f"{tmp_path}/s")
    before = open_listener(address, 5)
    listeners = ListenerSet()
    environ = passed(before.sock, stored_name(Key(address)))
    ServiceManager(manager.environ(FDSTORE="5")).take_stored(listeners, plan_of(address), environ)
    before.sock.close()
    listeners.stop()
    assert not (tmp_path / "s").exists()


def test_a_stored_unix_socket_without_its_file_is_of_no_use(manager: Manager, tmp_path: Path) -> None:
    address = Address("unix", name=f"{tmp_path}/s")
    before = open_listener(address, 5)
    environ = passed(before.sock, stored_name(Key(address)))
    (tmp_path / "s").unlink()
    listeners = ListenerSet()
    ServiceManager(manager.environ(FDSTORE="5")).take_stored(listeners, plan_of(address), environ)
    assert listeners.held == {}
    before.close()


@pytest.mark.parametrize(
    "name", ["uvicorn/0/unix%3A/elsewhere", "uvicorn/x/%3A80", "uvicorn/0/wrong", "uvicorn/7"]
)
def test_a_stored_socket_that_nobody_wants_any_more_leaves_the_store(manager: Manager, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        listeners = ListenerSet()
        service = ServiceManager(manager.environ(FDSTORE="5"))
        service.take_stored(listeners, plan_of(), passed(before, name))
        assert listeners.held == {}
        manager.store[name] = os.dup(before.fileno())
        service.keep(listeners)
    assert manager.receive(5)
    assert manager.messages == [{"FDSTOREREMOVE": "1", "FDNAME": name}]


def test_with_a_socket_for_each_slot_each_finds_its_own(manager: Manager) -> None:
    address = Address("tcp", host="127.0.0.1", port=0)
    plan = plan_of(address, size=2, reuse_port=True)
    first, second = Key(address, 1), Key(address, 2)
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as before:
        listeners = ListenerSet()
        ServiceManager(manager.environ(FDSTORE="5")).take_stored(
            listeners, plan, passed(before, stored_name(first))
        )
        listeners.open(plan)
        assert listeners.held[first].sock.getsockname() == before.getsockname()
        assert listeners.held[second].sock.getsockname() == before.getsockname()
        listeners.stop()


def test_a_master_that_fails_leaves_its_queue_to_the_next_one(manager: Manager) -> None:
    rig = rig_of(manager, FDSTORE="5")

    def fail() -> None:
        raise RuntimeError("a bug")

    rig.later(2, fail)
    with pytest.raises(RuntimeError, match="a bug"):
        rig.run(stop_after=None)
    manager.drain()
    (fd,) = manager.store.values()
    with socket.socket(fileno=os.dup(fd)) as stored, socket.create_connection(stored.getsockname()):
        pass
