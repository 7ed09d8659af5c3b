"""Workers that step down: what they are, what they may, and that everything goes on working. As root, with real users."""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import pwd
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, wait_for
from tests.e2e.load import Load
from tests.ports import free_port

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can let workers run as somebody else"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

NOBODY = pwd.getpwnam("nobody")
NOBODY_GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
AS_NOBODY = {"UVICORN_USER": "nobody"}

LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters: {plain: {format: '%%(message)s'}}
handlers: {file: {class: logging.FileHandler, filename: %s, formatter: plain}}
loggers: {uvicorn: {handlers: [file], level: INFO, propagate: false}}
"""

WHO = """
import json
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    found = {name: status[name].split() for name in ("Uid", "Gid", "Groups", "Umask", "CapEff", "CapPrm")}
    found |= {"pid": os.getpid(), "home": os.environ.get("HOME"), "user": os.environ.get("USER"), "import": IMPORT}
    found["descriptors"] = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                            if os.path.lexists(f"/proc/self/fd/{fd}")]
    body = json.dumps(found).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
import os
IMPORT = list(os.getresuid())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach and read, and root alone can write to; the tests' own are private."""
    with tempfile.TemporaryDirectory(prefix="uvicorn-privileges-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def _closed_to_others() -> list[Path]:
    """The outermost directories that keep others from the interpreter, its packages, or this tree."""
    found = set()
    for path in (Path(sys.base_prefix), Path(sys.prefix), ROOT):
        closed = [each for each in (*path.parents, path) if not each.stat().st_mode & stat.S_IXOTH]
        found |= set(sorted(closed)[:1])
    return sorted(found)


@pytest.fixture
def through(place: Path) -> list[str]:
    """What lets another user read an interpreter that is installed below root's home, say: a mount namespace in which
    that home is another directory with the same content."""
    closed = _closed_to_others()
    if not closed:
        return []
    script = ""
    for i, outer in enumerate(closed):
        shadow = place / f"shadow-{i}"
        shadow.mkdir()
        for inner in {
            path.relative_to(outer).parts[0]
            for path in (Path(sys.base_prefix), Path(sys.prefix), ROOT)
            if path.is_relative_to(outer)
        }:
            (shadow / inner).mkdir()
            script += f"mount --bind '{outer / inner}' '{shadow / inner}' && "
        script += f"mount --rbind '{shadow}' '{outer}' && "
    command = ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(
            f"other users cannot read {closed[0]}, and there is no way around it: {tried.stderr.strip()}"
        )
    return command


@pytest.fixture
def serve(place: Path, through: list[str]) -> Callable[..., Service]:
    """Starts a server whose workers are nobody's."""

    def start(*arguments: str, **more: Any) -> Service:
        more.setdefault("environ", AS_NOBODY)
        return Service(place, *arguments, through=through, **more)

    return start


Serve = Callable[..., Service]


def who(service: Service) -> dict[str, object]:
    return json.loads(service.request("/").body)  # type: ignore[no-any-return]


def ids(pid: int) -> list[int]:
    """The user and group of a process, as the kernel has them."""
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return [int(each) for each in (*fields["Uid"].split()[:3], *fields["Gid"].split()[:3])]


AS_ROOT_IDS = [0] * 6
AS_NOBODY_IDS = [NOBODY.pw_uid] * 3 + [NOBODY.pw_gid] * 3


def free_privileged_port() -> int:
    for port in range(1023, 700, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.skip("no free port below 1024")


def test_workers_step_down_and_the_master_binds_a_privileged_port_again_at_hup(
    serve: Serve, place: Path
) -> None:
    (place / "app.py").write_text(WHO)
    first = free_privileged_port()
    file = place / "c.yaml"
    file.write_text(f"app: app:app\nport: {first}\nworkers: 2\nuser: nobody\numask: '027'\n")
    with serve("--config", "c.yaml", app="") as service:
        service.wait_ready(2)
        found = who(service)
        assert found["Uid"] == [str(NOBODY.pw_uid)] * 4
        assert found["Gid"] == [str(NOBODY.pw_gid)] * 4
        assert found["Groups"] == [str(gid) for gid in os.getgrouplist("nobody", NOBODY.pw_gid)]
        assert found["Umask"] == ["0027"]
        assert {str(found[name][0]).strip("0") for name in ("CapEff", "CapPrm")} == {""}  # type: ignore[index]
        assert (found["user"], found["home"]) == ("nobody", NOBODY.pw_dir)
        assert found["import"] == [NOBODY.pw_uid] * 3  # not a line of the application has run as root
        assert ids(service.pid) == AS_ROOT_IDS
        with (
            socket.create_server(("127.0.0.1", first), reuse_port=False)
            if False
            else contextlib.nullcontext()
        ):
            second = free_privileged_port()
        file.write_text(file.read_text().replace(f"port: {first}", f"port: {second}"))
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        with socket.create_connection(("127.0.0.1", second)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert service.stop() == 0


def test_the_control_process_steps_down_and_the_workers_user_does_not_command(
    serve: Serve, place: Path, through: list[str]
) -> None:
    arguments = ("--workers", "1", "--control-socket", "u.ctl", "--admin", "127.0.0.1:0")
    with serve("--port", "0", *arguments) as service:
        service.wait_ready(1)
        control = int(service.wait_log(r"Control process \[(\d+)\] answers")[1])
        wait_for(lambda: ids(control) == AS_NOBODY_IDS, "the control process to be somebody else")
        assert (place / "u.ctl").stat().st_uid == 0
        assert stat.S_IMODE((place / "u.ctl").stat().st_mode) == 0o600

        as_nobody = (f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
        socket_option = ("--socket", str(place / "u.ctl"))

        def status(*user: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [
                    *through,
                    "setpriv",
                    *user,
                    sys.executable,
                    "-m",
                    "uvicorn.control.cli",
                    *socket_option,
                    "status",
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )

        assert status().returncode == 0
        assert status(*as_nobody).returncode == 3
        (place / "u.ctl").chmod(0o666)  # the second lock: whoever the peer is
        refused = status(*as_nobody)
        assert refused.returncode == 3
        assert f"not user {NOBODY.pw_uid}" in refused.stderr + refused.stdout
        assert service.stop() == 0


def test_a_key_that_only_root_can_read_is_read_at_the_start_at_hup_and_at_usr2(
    serve: Serve, place: Path
) -> None:
    def issue(name: str) -> trustme.CA:
        authority = trustme.CA(organization_name=name)
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        (place / "key.pem").unlink(missing_ok=True)
        leaf.private_key_pem.write_to_path(place / "key.pem")
        (place / "key.pem").chmod(0o600)
        (place / "cert.pem").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        return authority

    def serves(authority: trustme.CA) -> bool:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        try:
            with (
                socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1"),
            ):
                return True
        except ssl.SSLError:
            return False

    authority = issue("first")
    arguments = ("--workers", "2", "--ssl-keyfile", "key.pem", "--ssl-certfile", "cert.pem")
    with serve("--port", "0", *arguments) as service:
        service.wait_ready(2)
        assert serves(authority)
        for i, number in enumerate((signal.SIGHUP, signal.SIGUSR2), 1):
            before, authority = authority, issue(f"number {i}")
            service.send_signal(number)
            service.wait_log("Reload complete", i)
            assert serves(authority)
            assert not serves(before)
        assert {ids(pid)[0] for pid in service.workers()} == {NOBODY.pw_uid}
        assert service.stop() == 0


@pytest.mark.parametrize("handler", ["FileHandler", "handlers.WatchedFileHandler"])
def test_log_files_are_given_to_the_workers_user_and_opened_again(
    serve: Serve, place: Path, handler: str
) -> None:
    (place / "logs").mkdir()
    if handler != "FileHandler":
        # This one opens its file again by itself, as soon as it is renamed: somewhere where it may make one.
        os.chown(place / "logs", NOBODY.pw_uid, NOBODY.pw_gid)
    log = place / "logs" / "server.log"
    (place / "log.yaml").write_text((LOG_CONFIG % log).replace("FileHandler", handler, 1))
    (place / "app.py").write_text(
        APP + "\nimport logging\nasync def note(scope, receive, send):\n"
        "    logging.getLogger('uvicorn.app').warning('noted by %s', os.getpid())\n"
        "    await answer(send, b'noted')\nROUTES['/note'] = note\n"
    )
    port = free_port()
    arguments = ("--port", str(port), "--workers", "2", "--no-access-log", "--log-config", "log.yaml")
    with serve(*arguments) as service:
        wait_for(lambda: log.exists() and log.read_text().count("ready after") == 2, "two workers")
        assert log.stat().st_uid == NOBODY.pw_uid
        with Load(port, clients=4, path="/note", keep_alive=False) as load:
            for i in (1, 2):
                log.rename(log.with_suffix(f".{i}"))
                service.send_signal(signal.SIGUSR1)
                wait_for(lambda: log.exists() and log.stat().st_uid == NOBODY.pw_uid, "a file of the user's")
                for pid in service.workers():
                    wait_for(lambda: f"noted by {pid}" in log.read_text(), "a line of each worker")  # noqa: B023
        assert service.stop() == 0
        assert not load.failures
        assert "cannot be reopened" not in log.read_text()


def test_a_log_file_that_is_a_link_is_not_given_away(serve: Serve, place: Path) -> None:
    precious = place / "precious"
    precious.touch()
    (place / "server.log").symlink_to(precious)
    (place / "log.yaml").write_text(LOG_CONFIG % (place / "server.log"))
    port = free_port()
    arguments = ("--port", str(port), "--workers", "1", "--log-config", "log.yaml")
    with serve(*arguments) as service:
        wait_for(lambda: "ready after" in precious.read_text(), "a worker")
        assert precious.stat().st_uid == 0
        assert "cannot be given to user" in precious.read_text()
        assert service.stop() == 0


def test_files_of_sockets_belong_to_the_workers_user(serve: Serve, place: Path) -> None:
    arguments = ("--bind", "unix:a.sock", "--workers", "1", "--group", NOBODY_GROUP, "--umask", "007")
    with serve(*arguments) as service:
        service.wait_ready(1)
        found = (place / "a.sock").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (
            NOBODY.pw_uid,
            NOBODY.pw_gid,
            0o660,
        )
        assert service.stop() == 0
        assert not (place / "a.sock").exists()


def test_an_upgrade_tries_the_new_program_with_the_rights_of_a_worker(serve: Serve, place: Path) -> None:
    (place / "app.py").write_text(WHO)
    with serve("--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        (place / "app.py").write_text(WHO + "\nwith open('tried', 'w') as file: file.write('as root')\n")
        service.send_signal(signal.SIGUSR2)
        service.wait_log("Upgrade failed: the new program does not start")
        assert "PermissionError" in service.log
        assert not (place / "tried").exists()
        (place / "app.py").write_text(WHO)
        service.send_signal(signal.SIGUSR2)
        service.wait_log("Reload complete")
        assert ids(service.pid) == AS_ROOT_IDS
        assert {tuple(ids(pid)) for pid in service.workers()} == {tuple(AS_NOBODY_IDS)}
        assert service.stop() == 0


def test_workers_of_another_user_end_when_the_master_is_killed(serve: Serve, place: Path) -> None:
    with serve("--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not service.session(), "the end of the workers")


def test_memory_is_measured_and_crashes_are_reported_without_root(serve: Serve, place: Path) -> None:
    with serve("--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        (pid,) = service.workers()
        assert os.stat(f"/proc/{pid}/fd").st_uid == NOBODY.pw_uid  # dumpable: its own user may look at it
        assert service.stop() == 0


def test_the_mold_steps_down_before_it_imports_the_application(serve: Serve, place: Path) -> None:
    (place / "app.py").write_text(WHO)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(place / "key.pem")
    (place / "key.pem").chmod(0o600)
    (place / "cert.pem").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = ("--ssl-keyfile", "key.pem", "--ssl-certfile", "cert.pem")
    with serve("--port", "0", "--workers", "2", "--preload", "--umask", "027", *tls) as service:
        service.wait_ready(2)
        connection = http.client.HTTPSConnection("127.0.0.1", service.port, timeout=PATIENCE, context=context)
        connection.request("GET", "/")
        found = json.loads(connection.getresponse().read())
        connection.close()
        assert found["import"] == [NOBODY.pw_uid] * 3
        assert (found["Umask"], found["user"]) == (["0027"], "nobody")
        children = service.workers()
        assert sorted(title.split()[1] for title in children.values()) == ["mold", "worker", "worker"]
        assert {tuple(ids(pid)) for pid in children} == {tuple(AS_NOBODY_IDS)}
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete")
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not service.session(), "the end of mold and workers")


CONTEXT = """
import os
SEEN = []
def make(config, default):
    SEEN.append(os.getuid())
    print("context made by", os.getuid(), flush=True)
    return default()
"""


def test_a_factory_of_contexts_gets_a_key_that_it_could_not_read_itself(serve: Serve, place: Path) -> None:
    (place / "app.py").write_text(APP + CONTEXT)
    leaf = trustme.CA().issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(place / "key.pem")
    (place / "key.pem").chmod(0o600)
    (place / "cert.pem").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
    tls = ("--ssl-keyfile", "key.pem", "--ssl-certfile", "cert.pem", "--ssl-context-factory", "app:make")
    with serve("--port", "0", "--workers", "1", *tls) as service:
        service.wait_ready(1)
        assert f"context made by {NOBODY.pw_uid}" in service.log
        assert service.stop() == 0


# --- root has to be named ----------------------------------------------------------------------


def exit_of(place: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """Start it without the tests' own `user`; its end."""
    with Service(place, *arguments, app="", environ=environ) as service:
        return service.wait_exit(), service.log


def test_workers_of_a_configuration_file_do_not_run_as_root_without_being_told_to(place: Path) -> None:
    (place / "c.yaml").write_text("app: app:app\nport: 0\nworkers: 1\n")
    command = [sys.executable, "-m", "uvicorn", "--config", "c.yaml"]
    (place / "app.py").write_text(APP)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UVICORN_")}
    found = subprocess.run(
        command,
        cwd=place,
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.startswith(
        "Error: user: is not given, and workers that are set up by a configuration file do not run as root"
    )


def test_the_documented_command_goes_on_as_root_with_a_warning(place: Path) -> None:
    # `env -u`: without the tests' own `user`.
    with Service(place, "--port", "0", "--workers", "1", through=["env", "-u", "UVICORN_USER"]) as service:
        service.wait_ready(1)
        assert service.log.count("The workers run as root") == 1
        assert {tuple(ids(pid)) for pid in service.workers()} == {tuple(AS_ROOT_IDS)}
        assert service.stop() == 0


def test_root_that_is_named_is_not_warned_of(place: Path) -> None:
    with Service(place, "--port", "0", "--workers", "1", "--user", "root") as service:
        service.wait_ready(1)
        assert "The workers run as root" not in service.log
        assert service.stop() == 0


def test_another_user_without_a_master_is_refused(place: Path) -> None:
    code, log = exit_of(place, "app:app", "--user", "nobody")
    assert code == 2
    assert "'--user': needs a master: give 'workers' as well (1 is enough)." in log


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_the_umask_counts_for_sockets_with_and_without_a_master(
    place: Path, workers: tuple[str, ...]
) -> None:
    (place / "app.py").write_text(APP + "\nopen('made', 'w').close()\n")
    with Service(place, "--bind", "unix:a.sock", *workers, "--umask", "077") as service:
        service.wait_log("Application startup complete")
        wait_for((place / "a.sock").exists, "the socket")
        assert stat.S_IMODE((place / "a.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((place / "made").stat().st_mode) == 0o600
        service.stop()


# --- the pid file ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_the_pid_file_is_there_while_it_serves(place: Path, workers: tuple[str, ...]) -> None:
    file = place / "uvicorn.pid"
    file.write_text("1\n")  # stale, though somebody has this number
    with Service(place, "--port", "0", *workers, "--pid-file", "uvicorn.pid") as service:
        service.wait_serving()
        assert file.read_text() == f"{service.pid}\n"
        code, log = exit_of(place, "app:app", "--port", "0", *workers, "--pid-file", "uvicorn.pid")
        assert code == 3
        assert f"pid file {file}: in use by process {service.pid}" in log
        assert file.read_text() == f"{service.pid}\n"
        service.stop()
        assert not file.exists()


def test_the_pid_file_is_kept_over_an_upgrade_and_its_lock_ends_with_the_master(place: Path) -> None:
    file = place / "uvicorn.pid"
    with Service(place, "--port", "0", "--workers", "1", "--pid-file", "uvicorn.pid") as service:
        service.wait_ready(1)
        before = file.stat().st_ino
        service.send_signal(signal.SIGUSR2)
        service.wait_log("Reload complete")
        assert (file.stat().st_ino, file.read_text()) == (before, f"{service.pid}\n")
        assert exit_of(place, "app:app", "--port", "0", "--workers", "1", "--pid-file", "uvicorn.pid")[0] == 3
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait()
        with Service(place, "--port", "0", "--workers", "1", "--pid-file", "uvicorn.pid") as second:
            second.wait_ready(1)
            assert file.read_text() == f"{second.pid}\n"
            assert second.stop() == 0
        assert not file.exists()


def test_a_pid_file_that_cannot_be_written_ends_the_start(place: Path) -> None:
    for workers in ((), ("--workers", "1")):
        code, log = exit_of(place, "app:app", "--port", "0", *workers, "--pid-file", "missing/uvicorn.pid")
        assert code == 3
        assert "missing/uvicorn.pid: cannot be written: No such file or directory." in log
