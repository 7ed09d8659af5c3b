"""A worker that breaks or hangs in each stage of its life, and what happens to it in the middle of a reload or a stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import APP, Service, read_response, wait_for
from tests.e2e.load import Load
from tests.e2e.manager import Manager

# The application asks these files what to do, so that a test can change its mind between two starts.
AT_STAGES = """
import signal, sys

def at(stage):
    try:
        what = open(stage).read()
    except FileNotFoundError:
        return
    print("at", stage, os.getpid(), flush=True)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(7)
    if what == "hang":
        time.sleep(1000)
    raise RuntimeError("no luck at " + stage)

at("import")
plain = app

async def app(scope, receive, send):
    async def told():
        message = await receive()
        at(message["type"])
        return message

    await plain(scope, told if scope["type"] == "lifespan" else receive, send)
"""

OPTIONS = (
    "--lifespan", "on", "--timeout-worker-startup", "2", "--timeout-graceful-shutdown", "1", "--timeout-lifespan-shutdown", "1",
)  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP + AT_STAGES)
    return tmp_path


def served(service: Service) -> bool:
    return service.request("/").status == 200


# --- starts ---------------------------------------------------------------------------------------------

STARTS = [
    (stage, what) for stage in ("import", "lifespan.startup") for what in ("crash", "exit", "hang", "raise")
]


@pytest.mark.parametrize(("stage", "what"), STARTS)
def test_a_first_start_that_breaks_ends_with_3(directory: Path, stage: str, what: str) -> None:
    (directory / stage).write_text(what)
    with Service(directory, "--port", "0", "--workers", "2", *OPTIONS) as service:
        port = service.port
        assert service.wait_exit() == 3
        assert "No worker could start" in service.log
        assert service.session() == []
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(("stage", "what"), STARTS)
def test_a_successor_that_breaks_is_tried_again_while_the_other_serves(
    directory: Path, stage: str, what: str
) -> None:
    with Service(directory, "--port", "0", "--workers", "2", *OPTIONS) as service:
        service.wait_ready(2)
        (directory / stage).write_text(what)
        os.kill(min(service.workers()), signal.SIGKILL)
        service.wait_log(r"worker=\d could not start; next try in")
        assert served(service)
        (directory / stage).unlink()
        service.wait_ready(3)
        wait_for(lambda: len(service.workers()) == 2, "two workers and nobody else")
        assert service.stop() == 0


@pytest.mark.parametrize(("stage", "what"), STARTS)
def test_a_canary_that_breaks_ends_the_reload_and_nothing_else(
    directory: Path, stage: str, what: str
) -> None:
    with Service(directory, "--port", "0", "--workers", "2", *OPTIONS) as service:
        service.wait_ready(2)
        before = set(service.workers())
        (directory / stage).write_text(what)
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload failed, its first worker did not start: .*Generation 1 goes on unchanged")
        assert served(service)
        wait_for(lambda: set(service.workers()) == before, "the workers that were there, and nobody else")
        (directory / stage).unlink()
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete: generation 3 serves with 2 worker")
        assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("stage", ["import", "lifespan.startup"])
def test_a_stop_does_not_wait_for_a_start_that_hangs(
    directory: Path, stage: str, number: signal.Signals
) -> None:
    (directory / stage).write_text("hang")
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_log(f"at {stage}", 2)
        assert service.stop(number) == 0


# --- ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["crash", "exit", "hang", "raise"])
def test_a_lifespan_shutdown_that_breaks_holds_up_neither_reload_nor_stop(directory: Path, what: str) -> None:
    with Service(directory, "--port", "0", "--workers", "2", *OPTIONS) as service:
        service.wait_ready(2)
        (directory / "lifespan.shutdown").write_text(what)
        service.send_signal(signal.SIGHUP)
        service.wait_log("Reload complete: generation 2 serves with 2 worker")
        wait_for(lambda: len(service.workers()) == 2, "two workers and nobody else")
        assert served(service)
        assert service.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_that_is_lost_while_it_drains_is_not_replaced(directory: Path, how: signal.Signals) -> None:
    with Service(directory, "--port", "0", "--workers", "1", *OPTIONS) as service:
        service.wait_ready(1)
        (old,) = service.workers()
        with service.connect() as client:
            client.sendall(b"GET /slow?1000 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: title_of(service, old).endswith(" ready"), "the worker")
            service.send_signal(signal.SIGHUP)
            wait_for(lambda: title_of(service, old).endswith(" draining"), "the old worker, draining")
            os.kill(old, how)
            assert read_response(client)[0] == 0
        wait_for(lambda: old not in service.workers(), "the end of the old worker")
        service.wait_log("Reload complete: generation 2 serves with 1 worker")
        assert service.log.count("Started server process") == 2
        assert served(service)
        assert service.stop() == 0


def title_of(service: Service, pid: int) -> str:
    return service.workers().get(pid, "")


# --- the whole group ------------------------------------------------------------------------------------


def test_the_terminals_interrupt_reaches_all_and_the_master_alone_decides(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        with service.connect() as client:
            service.hold(client)
            os.killpg(service.pid, signal.SIGINT)
            service.release()
            assert read_response(client)[::2] == (200, b"held answer")
        assert service.wait_exit() == 0
        assert "Traceback" not in service.log
        assert service.log.count("lifespan shutdown") == 2


def test_the_gil_held_for_less_than_the_limit_is_left_alone(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "1", "--timeout-worker-healthcheck", "20") as service:
        service.wait_ready(1)
        before = set(service.workers())
        assert service.request("/gil?3").body == b"released"
        assert set(service.workers()) == before
        assert "no sign of life" not in service.log
        assert service.stop() == 0


# --- children of workers --------------------------------------------------------------------------------

STUBBORN = """
import signal
if os.fork() == 0:
    # It has copies of all that the worker has: the listening socket, its end of the channel.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(1000)
    os._exit(0)
"""


def test_a_child_with_copies_of_everything_hides_no_death_and_holds_no_port(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + STUBBORN)
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        port = service.wait_ready(1).port
        os.kill(min(service.workers()), signal.SIGKILL)
        service.wait_ready(2)
        assert served(service)
        service.send_signal(signal.SIGTERM)
        # At once: also while the child is still there.
        service.wait_log("Received SIGTERM, exiting.")
        wait_for(lambda: is_free(port), "the port")
        assert service.wait_exit() == 0
        wait_for(lambda: not service.session(), "the end of every process of the session")


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_server(("127.0.0.1", port)).close()
        return True
    return False


# --- reloads --------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_in_a_reload_holds_nothing_up(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "3", environ={"STARTUP": "0.5"}) as service:
        service.wait_ready(3)
        with Load(service.port, clients=2) as load:
            old = sorted(service.workers())
            service.send_signal(signal.SIGHUP)
            service.wait_log("gen=2 pid=")  # the canary is ready, the others are not
            os.kill(old[-1], signal.SIGKILL)
            service.wait_log("Reload complete: generation 2 serves with 3 worker")
            answers = load.answers
            wait_for(lambda: load.answers > answers + 20, "answers afterwards")
        assert not load.failures["refused"]
        wait_for(lambda: len(service.workers()) == 3, "three workers and nobody else")
        assert not set(old) & set(service.workers())
        assert service.stop() == 0


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_a_reload_changes_the_number_and_refuses_nobody(tmp_path: Path, before: int, after: int) -> None:
    file = tmp_path / "uvicorn.yaml"
    file.write_text(f"app: app:app\nport: 0\nworkers: {before}\n")
    with Service(tmp_path, "--config", "uvicorn.yaml", app="") as service:
        service.wait_ready(before)
        with Load(service.port, clients=2) as load:
            file.write_text(f"app: app:app\nport: 0\nworkers: {after}\n")
            service.send_signal(signal.SIGHUP)
            service.wait_log(f"Reload complete: generation 2 serves with {after} worker")
            wait_for(lambda: len(service.workers()) == after, "the new number")
            wait_for(lambda: load.answers > 20, "answers")
        assert not load.failures
        assert service.stop() == 0


def test_a_stream_goes_on_in_its_worker_while_the_new_ones_serve(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        with service.connect() as client:
            service.hold(client)
            (tmp_path / "app.py").write_text(APP.replace('VERSION = "v1"', 'VERSION = "v2"'))
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete: generation 2 serves with 2 worker")
            assert service.request("/").body.endswith(b"v2")
            service.release()
            assert read_response(client)[::2] == (200, b"held answer")
        wait_for(lambda: len(service.workers()) == 2, "the end of the worker that had stayed")
        assert service.stop() == 0


@pytest.mark.parametrize("what", ["gone", "directory", "binary", "huge"])
def test_an_environment_file_that_breaks_ends_the_reload_and_nothing_else(tmp_path: Path, what: str) -> None:
    file = tmp_path / "service.env"
    file.write_text("VALUE=1\n")
    with Service(tmp_path, "--port", "0", "--workers", "1", "--env-file", "service.env") as service:
        service.wait_ready(1)
        before = set(service.workers())
        file.unlink()
        if what == "directory":
            file.mkdir()
        elif what == "binary":
            file.write_bytes(b"VALUE=\xff\xfe\n" * 100)
        elif what == "huge":
            file.write_text("# nothing\n" * 1_000_000)
        service.send_signal(signal.SIGHUP)
        service.wait_log(r"Reload failed, .*service\.env.*Generation 1 goes on unchanged")
        assert set(service.workers()) == before
        assert served(service)
        assert service.stop() == 0


def test_a_storm_of_hups_that_never_pauses_lets_the_canary_finish(directory: Path) -> None:
    """A start that takes longer than the time between two of them."""
    with Service(directory, "--port", "0", "--workers", "2", environ={"STARTUP": "0.5"}) as service:
        service.wait_ready(2)
        with Load(service.port, clients=2) as load, storm(service):
            service.wait_log("Reloads come faster than workers start")
            service.wait_log("Reload complete", 2)
            assert len(service.workers()) <= 2 * 2 + 1
        asked = service.log.count("Received SIGHUP")
        wait_for(
            lambda: (
                len(service.workers()) == 2
                and all(title.endswith(" ready") for title in service.workers().values())
            ),
            "two ready workers and nobody else",
        )
        assert asked > 2 * service.log.count("Reload complete")
        assert not load.failures
        assert service.stop() == 0


@contextlib.contextmanager
def storm(service: Service) -> Iterator[None]:
    """A HUP every 50 ms while the block runs."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.05):
            service.send_signal(signal.SIGHUP)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_service_manager_that_does_not_listen_is_not_waited_for(directory: Path) -> None:
    with (
        Manager(directory / "notify") as manager,
        Service(directory, "--port", "0", "--workers", "1", environ=manager.environ()) as service,
    ):
        service.wait_ready(1)
        # Each changes the status, and its queue holds ten messages (net.unix.max_dgram_qlen).
        for generation in range(2, 8):
            service.send_signal(signal.SIGHUP)
            service.wait_log(f"Reload complete: generation {generation}")
        service.wait_log("The service manager cannot be told what happens here")
        assert service.stop() == 0
        assert service.log.count("cannot be told") == 1
