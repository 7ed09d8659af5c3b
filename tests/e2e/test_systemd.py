"""systemd: what the service manager is told in every life cycle, and sockets that are passed in.

systemd itself is played by `manager.py`: a notify socket, a store for descriptors, sockets in the right places.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, read_response
from tests.e2e.manager import Manager, passing, passing_fds
from tests.ports import free_ports

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd is elsewhere")

HUP, TERM, USR2 = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2

# An application whose startup waits for a file, and that tells what it and its children see.
GATED = (
    APP
    + """
import json, subprocess

async def environ(scope, receive, send):
    child = subprocess.run(["/bin/sh", "-c", "env; ls /proc/self/fd"], capture_output=True, text=True, close_fds=False)
    await answer(send, json.dumps({"own": dict(os.environ), "child": child.stdout}).encode())

ROUTES["/environ"] = environ
inner = app

async def app(scope, receive, send):
    while scope["type"] == "lifespan" and not os.path.exists("gate"):
        await asyncio.sleep(0.02)
    await inner(scope, receive, send)
"""
)

SECRETS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    made = Manager(tmp_path / "notify")
    yield made
    made.__exit__()


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def get(sock: socket.socket | int, path: str = "/") -> bytes:
    """The answer of whoever serves on a port or a listening socket."""
    port = sock if isinstance(sock, int) else sock.getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


# --- life cycles -------------------------------------------------------------------------------


def test_ready_is_said_when_requests_are_answered_and_a_stop_when_it_begins(
    tmp_path: Path, manager: Manager
) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", environ=manager.environ()) as service:
        ready = manager.wait_for("READY=1")
        assert service.request("/").status == 200
        assert manager.messages[ready]["STATUS"] == "Serving: generation 1, 2 of 2 worker(s) ready."
        service.wait_ready(2)
        assert service.stop() == 0
        assert manager.changes() == ["READY", "STOPPING"]
        assert "WATCHDOG" not in {name for message in manager.messages for name in message}
        stopping = manager.messages[manager.wait_for("STOPPING=1")]
        assert stopping["STATUS"] == "Stopping: generation 1, 0 of 2 worker(s) ready, 2 draining."
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 30_000_000


def test_a_slow_start_asks_for_time_and_is_not_ready(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "app.py").write_text(GATED)
    with Service(tmp_path, "--port", "0", "--workers", "2", environ=manager.environ()) as service:
        first = manager.wait(lambda message: "EXTEND_TIMEOUT_USEC" in message, "extension")
        assert manager.messages[first]["STATUS"] == "Starting: generation 1, 0 of 2 worker(s) ready."
        # Another one follows after ten seconds, with nothing ready.
        manager.wait(lambda message: "EXTEND_TIMEOUT_USEC" in message, "second extension", first + 1)
        assert manager.changes() == []
        (tmp_path / "gate").touch()
        manager.wait_for("READY=1")
        assert service.stop() == 0


def test_a_start_that_fails_says_why(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "app.py").write_text("broken(\n")
    with Service(tmp_path, "--port", "0", "--workers", "2", environ=manager.environ()) as service:
        assert service.wait_exit() == 3
    assert manager.changes() == ["STOPPING"]
    assert "No worker could start" in manager.messages[manager.wait_for("STOPPING=1")]["STATUS"]


def test_a_reload_and_one_that_fails(tmp_path: Path, manager: Manager) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", environ=manager.environ()) as service:
        at = manager.wait_for("READY=1")
        before = _monotonic_usec()
        service.send_signal(HUP)
        at = manager.wait_for("RELOADING=1", at)
        assert before <= int(manager.messages[at]["MONOTONIC_USEC"]) <= _monotonic_usec()
        assert "EXTEND_TIMEOUT_USEC" in manager.messages[at]
        at = manager.wait_for("READY=1", at)
        assert manager.messages[at]["STATUS"].startswith("Serving: generation 2, 2 of 2 worker(s) ready")
        (tmp_path / "app.py").write_text("broken(\n")
        service.send_signal(HUP)
        at = manager.wait_for("RELOADING=1", at)
        at = manager.wait_for("READY=1", at)
        status = manager.messages[at]["STATUS"]
        assert status.startswith("Serving: generation 2, 2 of 2 worker(s) ready")
        assert "Reload failed, its first worker did not start: exit code 3" in status
        assert service.stop() == 0
    assert manager.changes() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]


def _monotonic_usec() -> int:
    import time

    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_configuration_that_is_wrong_ends_the_reload_with_its_line(
    tmp_path: Path, manager: Manager
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("app: app:app\nport: 0\nworkers: 1\n")
    with Service(tmp_path, "--config", "c.yaml", app="", environ=manager.environ()) as service:
        at = manager.wait_for("READY=1")
        file.write_text("app: app:app\nport: 0\nworker: 1\n")
        service.send_signal(HUP)
        at = manager.wait_for("READY=1", manager.wait_for("RELOADING=1", at))
        assert "c.yaml:3: worker: no such setting" in manager.messages[at]["STATUS"]
        assert service.stop() == 0


def test_an_upgrade_and_one_that_fails(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "app.py").write_text(GATED)
    (tmp_path / "gate").touch()
    environ = manager.environ(WATCHDOG_USEC="900000", FDSTORE="5")
    with Service(tmp_path, "--port", "0", "--workers", "1", environ=environ) as service:
        at = manager.wait_for("READY=1")
        service.send_signal(USR2)
        at = manager.wait_for("RELOADING=1", at)
        assert "MONOTONIC_USEC" in manager.messages[at]
        at = manager.wait_for("READY=1", at)
        assert "Took over 1 worker process(es)" in service.log
        assert manager.messages[at]["STATUS"].startswith("Serving: generation 2, 1 of 1 worker(s) ready")
        assert not any("MAINPID" in message for message in manager.messages)
        # The new program goes on feeding, and its workers see as little as the old one's.
        manager.wait_for("WATCHDOG=1", at + 1)
        assert not set(SECRETS) & set(_seen(service))
        (tmp_path / "app.py").write_text("broken(\n")
        service.send_signal(USR2)
        at = manager.wait_for("RELOADING=1", at)
        at = manager.wait_for("READY=1", at)
        assert "Upgrade failed: the new program does not start" in manager.messages[at]["STATUS"]
        assert service.stop() == 0
    assert manager.changes() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert manager.store == {}


def _seen(service: Service) -> dict[str, str]:
    """What the application and a program that it starts find in the environment."""
    found = json.loads(service.request("/environ").body)
    child = dict(line.split("=", 1) for line in found["child"].splitlines() if "=" in line)
    return {**found["own"], **child}


def test_the_watchdog_starves_while_all_workers_are_stuck(tmp_path: Path, manager: Manager) -> None:
    environ = manager.environ(WATCHDOG_USEC="300000")
    options = ("--port", "0", "--workers", "1", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, *options, environ=environ) as service, service.connect() as client:
        manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1")
        client.sendall(b"GET /block?4 HTTP/1.1\r\nHost: a\r\n\r\n")
        stuck = manager.wait(lambda message: "1 stalled" in message.get("STATUS", ""), "stalled")
        again = manager.wait(lambda message: "1 of 1" in message.get("STATUS", ""), "recovered", stuck + 1)
        assert not any("WATCHDOG" in message for message in manager.messages[stuck:again])
        assert manager.at[again] - manager.at[stuck] > 0.3, "too short to show anything"
        manager.wait_for("WATCHDOG=1", again)
        assert read_response(client)[2] == b"unblocked"
        assert service.stop() == 0


def test_the_watchdog_starves_while_all_workers_are_stopped_by_somebody(
    tmp_path: Path, manager: Manager
) -> None:
    environ = manager.environ(WATCHDOG_USEC="300000")
    options = ("--port", "0", "--workers", "1", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, *options, environ=environ) as service:
        manager.wait_for("READY=1")
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        service.wait_log("is stopped by somebody")
        manager.drain()
        starved = len(manager.messages)
        manager.wait(lambda message: "0 of 1" in message.get("STATUS", ""), "status")
        os.kill(worker, signal.SIGCONT)
        again = manager.wait(lambda message: "1 of 1" in message.get("STATUS", ""), "recovered", starved)
        manager.wait_for("WATCHDOG=1", again)
        assert service.stop() == 0


def test_a_watchdog_of_another_process_is_not_fed(tmp_path: Path, manager: Manager) -> None:
    environ = manager.environ(WATCHDOG_USEC="30000", WATCHDOG_PID="1")
    with Service(tmp_path, "--port", "0", "--workers", "1", environ=environ) as service:
        manager.wait_for("READY=1")
        assert service.stop() == 0
    manager.drain()
    assert not any("WATCHDOG" in message for message in manager.messages)


def test_nobody_else_sees_what_systemd_says(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "app.py").write_text(GATED)
    (tmp_path / "gate").touch()
    environ = manager.environ(WATCHDOG_USEC="30000000", FDSTORE="3")
    with (
        listening() as web,
        Service(tmp_path, "--workers", "1", environ=environ, **passing(web=web)) as service,
    ):
        manager.wait_for("READY=1")
        assert not set(SECRETS) & set(_seen(service))
        # Also after a reload, which reads the environment of the start again.
        service.send_signal(HUP)
        service.wait_log("Reload complete")
        assert not set(SECRETS) & set(_seen(service))
        child = json.loads(service.request("/environ").body)["child"]
        descriptors = [line for line in child.splitlines() if line.isdecimal()]
        assert descriptors == ["0", "1", "2", "3"], "ls itself has 3"
        assert service.stop() == 0


@pytest.mark.parametrize("path", ["/nowhere/notify", "@nobody-listens-here"])
def test_a_manager_that_is_gone_is_one_warning(tmp_path: Path, path: str) -> None:
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000"}
    with Service(tmp_path, "--port", "0", "--workers", "1", environ=environ) as service:
        service.wait_ready(1)
        service.send_signal(HUP)
        service.wait_log("Reload complete")
        assert service.stop() == 0
        assert service.log.count("The service manager cannot be told") == 1


def test_a_single_process_says_it_too(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "app.py").write_text(GATED)
    (tmp_path / "gate").touch()
    environ = manager.environ(WATCHDOG_USEC="600000")
    with Service(tmp_path, "--port", "0", environ=environ) as service:
        at = manager.wait_for("READY=1")
        assert service.request("/").status == 200
        manager.wait_for("WATCHDOG=1", at)
        manager.wait_for("WATCHDOG=1", at + 2)
        assert not set(SECRETS) & set(_seen(service))
        service.stop()
    assert manager.changes() == ["READY", "STOPPING"]


# --- the store ---------------------------------------------------------------------------------


def test_a_master_that_is_killed_loses_no_queue(tmp_path: Path, manager: Manager) -> None:
    environ = manager.environ(FDSTORE="8")
    bind = f"unix:{tmp_path}/s"
    options = ("--workers", "1", "--bind", "127.0.0.1:0", "--bind", bind)
    with Service(tmp_path, *options, environ=environ) as service:
        manager.wait_for("READY=1")
        manager.drain()
        assert list(manager.store) == ["uvicorn/0/127.0.0.1%3A0", f"uvicorn/0/unix%3A{tmp_path}/s"]
        port = service.port
        # An orderly end of the worker would empty the queue; this is the worst case.
        for pid in (service.pid, *service.workers()):
            os.kill(pid, signal.SIGKILL)
        service.process.wait()
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    with Service(tmp_path, *options, environ=environ, **passing_fds(manager.store)) as service, client:
        assert read_response(client)[0] == 200
        assert service.port == port
        assert "Took 127.0.0.1:0 over from the service manager's store." in service.log
        assert (tmp_path / "s").exists()
        assert service.stop() == 0
    manager.drain()
    assert manager.store == {}
    assert not (tmp_path / "s").exists()


# --- sockets that are passed in ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [("--workers", "2"), ()])
def test_without_an_address_every_socket_is_served_on_also_after_reload_upgrade_and_restart(
    tmp_path: Path, manager: Manager, workers: tuple[str, ...]
) -> None:
    with listening() as web, listening() as admin:
        for _ in range(2):
            seen = len(manager.messages)
            with Service(
                tmp_path, *workers, environ=manager.environ(), **passing(web=web, admin=admin)
            ) as service:
                seen = manager.wait_for("READY=1", seen)
                assert get(web)
                assert get(admin)
                for number in (HUP, USR2) if workers else ():
                    service.send_signal(number)
                    seen = manager.wait_for("READY=1", manager.wait_for("RELOADING=1", seen))
                    assert get(web)
                    assert get(admin)
                service.stop()
                assert "nobody serves on" not in service.log
            # The service has gone, the sockets listen on.
            for sock in (web, admin):
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.parametrize("workers", [("--workers", "1"), ()])
def test_a_name_is_served_on_and_what_is_left_over_is_closed_with_one_warning(
    tmp_path: Path, manager: Manager, workers: tuple[str, ...]
) -> None:
    with listening() as web, listening() as other:
        arguments = ("--bind", "systemd:web", *workers)
        given = passing(web=web, other=other)
        with Service(tmp_path, *arguments, environ=manager.environ(), **given) as service:
            manager.wait_for("READY=1")
            assert get(web)
            name = re.escape(f"other ({other.getsockname()!r})")
            service.wait_log(f"socket\\(s\\) that nobody serves on, and that are closed: {name}\\.")
            assert service.log.count("nobody serves on") == 1
            # Only we hold it any more.
            port = other.getsockname()[1]
            other.close()
            with pytest.raises(ConnectionRefusedError):
                get(port)
            service.stop()


@pytest.mark.parametrize("workers", [("--workers", "1"), ()])
@pytest.mark.parametrize("kind", ["port", "bind", "uds"])
def test_an_address_is_looked_for_among_what_is_passed(
    tmp_path: Path, manager: Manager, workers: tuple[str, ...], kind: str
) -> None:
    with socket.socket(socket.AF_UNIX) as local, listening() as web:
        local.bind(f"{tmp_path}/s")
        local.listen()
        port = web.getsockname()[1]
        address = {
            "port": ("--port", str(port)),
            "bind": ("--bind", f"127.0.0.1:{port}"),
            "uds": ("--uds", f"{tmp_path}/s"),
        }[kind]
        given = passing(web=local if kind == "uds" else web)
        with Service(tmp_path, *address, *workers, environ=manager.environ(), **given) as service:
            manager.wait_for("READY=1")
            if kind != "uds":
                assert get(web)
            service.stop()
            assert "nobody serves on" not in service.log
        assert (tmp_path / "s").exists()


def test_a_count_that_is_wrong_is_told_and_exit_3(tmp_path: Path) -> None:
    through = ["/bin/sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=9 exec "$@"', "sh"]
    with Service(tmp_path, "--workers", "1", through=through) as service:
        assert service.wait_exit() == 3
        assert (
            "LISTEN_FDS says that 9 sockets were passed in, but file descriptor 3 is no socket" in service.log
        )


def test_a_datagram_socket_is_told_and_exit_3(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        Service(tmp_path, "--workers", "1", **passing(web=udp)) as service,
    ):
        assert service.wait_exit() == 3
        assert "is a socket, but not a stream socket" in service.log


def test_what_was_passed_to_another_process_is_none_of_ours(tmp_path: Path) -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with Service(tmp_path, "--workers", "1", "--port", "0", environ=environ) as service:
        service.wait_ready(1)
        assert service.request("/").status == 200
        assert service.stop() == 0


# --- the real tools ----------------------------------------------------------------------------

ACTIVATE = shutil.which("systemd-socket-activate")


def activated(tmp_path: Path, names: str, arguments: tuple[str, ...], *ports: int) -> Service:
    """A server behind systemd-socket-activate, which starts it on the first connection."""
    assert ACTIVATE is not None
    through = [ACTIVATE, f"--fdname={names}"]
    for port in ports:
        through += ["-l", f"127.0.0.1:{port}"]
    environ = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    through += [f"--setenv={name}={value}" for name, value in environ.items()]
    service = Service(tmp_path, *arguments, through=through)
    service.wait_log("Listening on", len(ports))
    return service


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed (package systemd)")
@pytest.mark.parametrize("names", ["web", "web:admin"])
@pytest.mark.parametrize("named", [True, False])
def test_systemd_socket_activate(tmp_path: Path, names: str, named: bool) -> None:
    binds = (
        tuple(part for name in names.split(":") for part in ("--bind", f"systemd:{name}")) if named else ()
    )
    ports = free_ports(names.count(":") + 1)
    with activated(tmp_path, names, ("--workers", "2", *binds), *ports) as service:
        for port in ports:
            assert get(port).split()[0].isdigit()
        service.send_signal(HUP)
        service.wait_log("Reload complete")
        for port in ports:
            assert get(port)
        assert service.stop() == 0
