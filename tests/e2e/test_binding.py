"""Where the server listens: every kind of address, in one process and under a master, and what cannot be had."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, read_response, wait_for
from tests.ports import free_port

BOTH = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["single", "workers"])

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
needs_abstract = pytest.mark.skipif(sys.platform != "linux", reason="abstract socket names are Linux' own")


def ready(service: Service, workers: tuple[str, ...]) -> Service:
    if workers:
        return service.wait_ready(2)
    service.wait_log("Uvicorn running on")
    return service


def stop(service: Service, workers: tuple[str, ...]) -> None:
    assert service.stop() == (0 if workers else -signal.SIGTERM)


def answers(family: socket.AddressFamily, address: object) -> bool:
    """Whether somebody answers a request there."""
    with socket.socket(family) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(address)  # type: ignore[arg-type]
        except OSError:
            return False
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return read_response(client)[0] == 200


# --- every kind of address --------------------------------------------------------------------------


@BOTH
@needs_ipv6
@pytest.mark.parametrize("arguments", [("--host", "::1", "--port", "0"), ("--bind", "[::1]:0")])
def test_ipv6(tmp_path: Path, workers: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    with Service(tmp_path, *arguments, *workers) as service:
        ready(service, workers)
        port = int(service.wait_log(r"Uvicorn running on http://\[::1\]:(\d+) ")[1])
        assert answers(socket.AF_INET6, ("::1", port))
        assert not answers(socket.AF_INET, ("127.0.0.1", port))
        stop(service, workers)


@BOTH
@needs_ipv6
@pytest.mark.parametrize("arguments", [("--host", "::", "--port", "0"), ("--bind", "[::]:0")])
def test_all_addresses_of_ipv6_are_those_of_ipv4_as_well(
    tmp_path: Path, workers: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    with Service(tmp_path, *arguments, *workers) as service:
        ready(service, workers)
        port = int(service.wait_log(r"Uvicorn running on http://\[::\]:(\d+) ")[1])
        assert answers(socket.AF_INET6, ("::1", port))
        assert answers(socket.AF_INET, ("127.0.0.1", port))
        stop(service, workers)


@BOTH
@needs_ipv6
@pytest.mark.parametrize("order", [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("127.0.0.1", "[::]")])
def test_unless_another_bind_has_the_port_for_ipv4(
    tmp_path: Path, workers: tuple[str, ...], order: tuple[str, ...]
) -> None:
    port = free_port()
    binds = [part for host in order for part in ("--bind", f"{host}:{port}")]
    with Service(tmp_path, *binds, *workers) as service:
        ready(service, workers)
        service.wait_log("Uvicorn running on", 2)
        assert answers(socket.AF_INET6, ("::1", port))
        assert answers(socket.AF_INET, ("127.0.0.1", port))
        stop(service, workers)


@BOTH
def test_every_bind_is_said_with_its_port_and_answers(tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "s.sock"
    binds = (
        "--bind",
        "127.0.0.1:0",
        "--bind",
        "localhost:0",
        "--bind",
        f"unix:{path}",
        "--bind",
        "127.0.0.1:0",
    )
    with Service(tmp_path, *binds, *workers) as service:
        ready(service, workers)
        service.wait_log(re.escape(f"Uvicorn running on unix socket {path} "))
        ports = re.findall(r"Uvicorn running on http://127\.0\.0\.1:(\d+) ", service.log)
        assert len(ports) == len(set(ports) - {"0"}) == 2  # what is given twice is meant once
        for port in ports:
            assert answers(socket.AF_INET, ("127.0.0.1", int(port)))
        assert answers(socket.AF_UNIX, str(path))
        stop(service, workers)
    assert not path.exists()


def test_a_name_with_several_addresses_and_no_port_says_every_port(tmp_path: Path) -> None:
    # "" stands for all addresses of both families; each socket gets a port of its own.
    with Service(tmp_path, "--host", "", "--port", "0") as service:
        service.wait_log("Application startup complete")
        wait_for(lambda: "Uvicorn running" in service.log, "the running line")
        found = re.findall(r"Uvicorn running on http://(\S+):(\d+) ", service.log)
        for host, port in found:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            assert answers(family, ("::1" if ":" in host else "127.0.0.1", int(port)))
        assert len(found) == (2 if socket.has_dualstack_ipv6() else 1)


@BOTH
def test_an_inherited_descriptor(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with Service(tmp_path, "--fd", str(sock.fileno()), *workers, pass_fds=[sock.fileno()]) as service:
            ready(service, workers)
            service.wait_log(re.escape(f"Uvicorn running on socket {address!r} "))
            assert answers(socket.AF_INET, address)
            stop(service, workers)
        # It is ours, and still listens: the next server takes over what is queued.
        with Service(
            tmp_path, "--bind", f"fd://{sock.fileno()}", *workers, pass_fds=[sock.fileno()]
        ) as service:
            ready(service, workers)
            assert answers(socket.AF_INET, address)
            stop(service, workers)


@BOTH
@needs_abstract
@pytest.mark.parametrize("option", ["--uds", "--bind"])
def test_an_abstract_name(tmp_path: Path, workers: tuple[str, ...], option: str) -> None:
    name = f"uvicorn-{os.getpid()}-{tmp_path.name}"
    value = f"unix:@{name}" if option == "--bind" else f"@{name}"
    with Service(tmp_path, option, value, *workers) as service:
        ready(service, workers)
        service.wait_log(re.escape(f"Uvicorn running on unix socket @{name} "))
        assert answers(socket.AF_UNIX, f"\0{name}")
        stop(service, workers)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("@")] == []


# --- the file of a UNIX socket ----------------------------------------------------------------------


@BOTH
def test_a_socket_file_is_open_to_all_and_goes_with_the_server(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    path = tmp_path / "s.sock"
    with Service(tmp_path, "--uds", str(path), *workers) as service:
        ready(service, workers)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert answers(socket.AF_UNIX, str(path))
        stop(service, workers)
    assert not path.exists()


@BOTH
def test_a_stale_file_is_replaced_and_its_mode_kept(tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    path.chmod(0o640)
    with Service(tmp_path, "--uds", str(path), *workers) as service:
        ready(service, workers)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert answers(socket.AF_UNIX, str(path))
        stop(service, workers)
    assert not path.exists()


@BOTH
def test_a_file_that_has_taken_its_place_stays(tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "s.sock"
    with Service(tmp_path, "--uds", str(path), *workers) as service, socket.socket(socket.AF_UNIX) as other:
        ready(service, workers)
        path.rename(tmp_path / "moved.sock")
        other.bind(str(path))
        other.listen()
        stop(service, workers)
        assert path.exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@BOTH
def test_a_server_that_is_killed_leaves_a_file_that_the_next_replaces(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    path = tmp_path / "s.sock"
    with Service(tmp_path, "--uds", str(path), *workers) as service:
        ready(service, workers)
        if workers:
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
            assert answers(socket.AF_UNIX, str(path))
        service.send_signal(signal.SIGKILL)
        service.wait_exit()
        wait_for(lambda: not service.session(), "the end of orphaned workers")
    assert path.exists()
    with Service(tmp_path, "--uds", str(path), *workers) as service:
        ready(service, workers)
        assert answers(socket.AF_UNIX, str(path))
        stop(service, workers)


# --- over a reload ----------------------------------------------------------------------------------


@needs_ipv6
def test_binds_come_and_go_with_a_reload(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    file = tmp_path / "c.yaml"

    def configure(*binds: str) -> None:
        file.write_text(f"app: app:app\nbind: {list(binds)!r}\nworkers: 2\n")

    configure(f"127.0.0.1:{first}", "unix:s.sock")
    with Service(tmp_path, "--config", "c.yaml", app="") as service:
        service.wait_ready(2)
        inode = (tmp_path / "s.sock").stat().st_ino
        configure("unix:s.sock", f"[::1]:{second}")
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        assert answers(socket.AF_INET6, ("::1", second))
        wait_for(lambda: not answers(socket.AF_INET, ("127.0.0.1", first)), "the end of the first port")
        assert (tmp_path / "s.sock").stat().st_ino == inode  # what stays is never closed
        configure(f"127.0.0.1:{first}")
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete", 2)
        assert answers(socket.AF_INET, ("127.0.0.1", first))
        wait_for(lambda: not (tmp_path / "s.sock").exists(), "the end of the file")
        wait_for(lambda: not answers(socket.AF_INET6, ("::1", second)), "the end of the second port")
        assert service.stop() == 0


# --- what cannot be had -----------------------------------------------------------------------------


def refusal(directory: Path, *arguments: str, prefix: tuple[str, ...] = (), **more: object) -> str:
    """What a server says that cannot listen: one line."""
    (directory / "app.py").write_text(APP)
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "uvicorn", "app:app", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    errors = re.findall(r"^ERROR: +(.*)$", done.stderr, re.MULTILINE)
    assert len(errors) == 1, done.stderr
    assert "Uvicorn running" not in done.stderr
    return str(errors[0])


@BOTH
@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("192.0.2.1:0", "cannot bind to 192.0.2.1:0: no interface of this machine has this address."),
        ("unix:nowhere/s.sock", "cannot bind to unix:nowhere/s.sock: no such file or directory."),
        (f"unix:{'x' * 200}", f"cannot bind to unix:{'x' * 200}: af_unix path too long."),
        (
            "unix:app.py",
            "cannot bind to unix:app.py: there is a file that is no socket; remove it or take another path.",
        ),
        ("fd://77", "file descriptor 77 is no socket: Bad file descriptor."),
        ("systemd:web", "systemd has passed no socket named 'web' (it has passed: none)."),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    tmp_path: Path, workers: tuple[str, ...], bind: str, message: str
) -> None:
    assert refusal(tmp_path, "--bind", bind, *workers) == message


@BOTH
def test_a_name_that_does_not_resolve(tmp_path: Path, workers: tuple[str, ...]) -> None:
    text = refusal(tmp_path, "--bind", "no-such-host.invalid:80", *workers)
    assert text.startswith("cannot bind to no-such-host.invalid:80: the host name cannot be resolved (")


@pytest.mark.parametrize(
    "workers", [(), ("--workers", "2"), ("--reload",)], ids=["single", "workers", "reload"]
)
@pytest.mark.parametrize("option", ["--bind", "--host"])
def test_a_port_that_is_taken(tmp_path: Path, workers: tuple[str, ...], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = ("--bind", f"127.0.0.1:{port}") if option == "--bind" else ("--port", str(port))
        assert "address already in use" in refusal(tmp_path, *arguments, *workers)


@BOTH
def test_the_second_of_two_binds_that_is_taken_ends_the_first(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as other:
        binds = ("--bind", "unix:s.sock", "--bind", f"127.0.0.1:{other.getsockname()[1]}")
        with Service(tmp_path, *binds, *workers) as service:
            assert service.wait_exit() == 3
            assert service.log.count("address already in use") == 1
    assert not (tmp_path / "s.sock").exists()


@BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux")
def test_a_directory_without_permission(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "closed").mkdir(mode=0o755)
    # Root without the capability to go round permissions owns nothing there.
    os.chown(tmp_path / "closed", 65534, 65534)
    without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    text = refusal(tmp_path, "--uds", "closed/s.sock", *workers, prefix=without)
    assert text == "cannot bind to unix:closed/s.sock: permission denied."
