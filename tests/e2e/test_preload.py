"""--preload: one process imports the application, all workers share it, and nothing else in a worker's life changes."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import APP, Service, edited, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preload needs Linux")

TERM, HUP, KILL, USR1, USR2 = signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1, signal.SIGUSR2
STOP, CONT, TTIN, WINCH = signal.SIGSTOP, signal.SIGCONT, signal.SIGTTIN, signal.SIGWINCH

# Who has imported it, as a worker tells it.
IMPORTED_BY = "\nimport os\nIMPORTED_BY = os.getpid()\n"
TELL = '    await answer(send, f"{os.getpid()} {VERSION} {IMPORTED_BY}".encode())\n'
PRELOADED = APP.replace('    await answer(send, f"{os.getpid()} {VERSION}".encode())\n', TELL) + IMPORTED_BY

# Waits in the import until the file is there; says that it does.
WAITS = "\nimport time\nprint('importing', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\n"


def started(directory: Path, *arguments: str, app: str = PRELOADED, workers: int = 2) -> Service:
    (directory / "app.py").write_text(app)
    return Service(directory, "--port", "0", "--workers", str(workers), "--preload", *arguments)


def serving(service: Service) -> tuple[int, str, int]:
    """Who answers, in which version, and who has imported it."""
    pid, version, imported_by = service.request("/").body.split()
    return int(pid), version.decode(), int(imported_by)


def molds(service: Service) -> list[int]:
    return [pid for pid, title in service.workers().items() if title.startswith("uvicorn: mold")]


def workers(service: Service) -> list[int]:
    return [pid for pid, title in service.workers().items() if title.startswith("uvicorn: worker")]


def mold_ready(service: Service, count: int = 1) -> int:
    return int(service.wait_log(r"mold gen=\d+ pid=(\d+) ready", count)[1])


# --- what it is for ----------------------------------------------------------------------------


def test_the_workers_are_the_masters_and_the_import_is_the_molds(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (mold,) = molds(service)
        assert mold == mold_ready(service)
        assert serving(service)[1:] == ("v1", mold)
        assert {psutil.Process(pid).ppid() for pid in workers(service)} == {service.pid}
        assert all(os.getpgid(pid) == pid for pid in workers(service))
        assert service.workers()[mold] == "uvicorn: mold app:app gen=1 ready"
        assert service.stop() == 0
        assert service.log.count("lifespan shutdown") == 2
        assert "left" not in service.log


def test_the_workers_share_the_memory_of_what_was_imported(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this kernel does not tell how much of its memory a process shares (smaps_rollup)")
    app = PRELOADED + "DATA = [str(number) * 10 for number in range(400_000)]\n"

    def own_pages(*arguments: str) -> int:
        (tmp_path / "app.py").write_text(app)
        with Service(tmp_path, "--port", "0", "--workers", "4", *arguments).wait_ready(4) as service:
            assert service.request("/").status == 200
            total = sum(psutil.Process(pid).memory_full_info().pss for pid in service.session())
            assert service.stop() == 0
        return total

    alone, shared = own_pages(), own_pages("--preload")
    assert shared < 0.5 * alone, f"{shared / 2**20:.0f} MiB instead of {alone / 2**20:.0f}"


def test_what_every_log_line_asks_of_all_classes_is_asked_before_the_fork(tmp_path: Path) -> None:
    """Each worker would write to the pages of all that are gone through, and share them no longer."""
    app = PRELOADED + (
        "import abc, collections.abc\n"
        "class Kind(abc.ABCMeta):\n"
        "    def __subclasscheck__(cls, subclass):\n"
        "        print(f'asked of {subclass.__name__} in {os.getpid()}', flush=True)\n"
        "        return super().__subclasscheck__(subclass)\n"
        "class Table(collections.abc.Mapping, metaclass=Kind):\n"
        "    pass\n"
    )
    with started(tmp_path, app=app).wait_ready(2) as service:
        assert "Started server process" in service.log
        (mold,) = molds(service)
        asked = re.findall(r"asked of (\w+) in (\d+)", service.log)
        assert {int(pid) for name, pid in asked if name in ("int", "float", "str")} == {mold}
        assert service.stop() == 0


def test_a_factory_is_called_once(tmp_path: Path) -> None:
    app = PRELOADED + "def make():\n    print('made by', os.getpid(), flush=True)\n    return app\n"
    (tmp_path / "app.py").write_text(app)
    arguments = ("--port", "0", "--workers", "2", "--preload", "--factory")
    with Service(tmp_path, *arguments, app="app:make").wait_ready(2) as service:
        assert re.findall(r"made by (\d+)", service.log) == [str(mold_ready(service))]
        assert service.stop() == 0


def test_what_the_import_has_registered_runs_in_the_workers(tmp_path: Path) -> None:
    """Exit handlers and hooks around a fork, as if each had imported it; random numbers differ."""
    app = PRELOADED + (
        "import atexit, random\n"
        "atexit.register(lambda: print('exit of', os.getpid(), flush=True))\n"
        "os.register_at_fork(after_in_child=lambda: globals().update(FORKED=os.getpid()))\n"
        "async def more(scope, receive, send):\n"
        "    await answer(send, f'{FORKED} {os.getpid()} {random.random()}'.encode())\n"
        "ROUTES['/more'] = more\n"
    )
    with started(tmp_path, app=app).wait_ready(2) as service:
        answers: dict[int, str] = {}

        def both() -> bool:
            forked, pid, number = service.request("/more").body.decode().split()
            assert forked == pid
            answers.setdefault(int(pid), number)
            return len(answers) == 2

        wait_for(both, "an answer of each worker")
        assert len(set(answers.values())) == 2
        (mold,) = molds(service)
        assert service.stop() == 0
        assert sorted(map(int, re.findall(r"exit of (\d+)", service.log))) == sorted(answers)
        assert mold not in answers


# --- replacing workers -------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_from_the_mold(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (mold,) = molds(service)
        victim = workers(service)[0]
        (tmp_path / "app.py").write_text("this is not Python\n")  # nobody imports it
        os.kill(victim, KILL)
        service.wait_ready(3)
        assert molds(service) == [mold]
        assert serving(service)[2] == mold
        assert f"Child process [{victim}] died: killed by SIGKILL" in service.log
        assert service.stop() == 0


def test_one_worker_more(tmp_path: Path) -> None:
    with started(tmp_path, "--reuse-port").wait_ready(2) as service:
        service.send_signal(TTIN)
        service.wait_ready(3)
        assert len(molds(service)) == 1
        assert len(workers(service)) == 3
        assert service.stop() == 0


def test_workers_are_recycled_from_the_mold(tmp_path: Path) -> None:
    with started(tmp_path, "--limit-max-requests", "3", workers=1).wait_ready(1) as service:
        mold = mold_ready(service)
        first, _, imported_by = serving(service)
        assert imported_by == mold
        wait_for(lambda: serving(service)[0] != first, "an answer of its successor")
        assert serving(service)[2] == mold
        assert service.stop() == 0


def test_a_worker_whose_master_dies_ends_and_so_does_the_mold(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        os.kill(service.pid, KILL)
        service.process.wait()
        wait_for(lambda: not service.session(), "the end of workers and mold")


# --- reload ------------------------------------------------------------------------------------


def test_a_reload_takes_the_code_from_the_disk(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (old,) = molds(service)
        (tmp_path / "app.py").write_text(PRELOADED.replace('"v1"', '"v2"'))
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 2")
        wait_for(lambda: molds(service) != [old] and len(molds(service)) == 1, "the end of the old mold")
        assert serving(service)[1:] == ("v2", molds(service)[0])
        assert f"Mold process [{old}] ended (gen=1)" in service.log
        assert service.stop() == 0


def test_a_reload_of_broken_code_changes_nothing_and_the_mended_one_comes(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        before = sorted(service.workers())
        with edited(tmp_path / "app.py", "async def app(", "async def app(:"):
            service.send_signal(HUP)
            failed = service.wait_log(r"Reload failed, (.*)\. Generation 1 goes on unchanged")
        assert failed[1] == "the new code could not be loaded: exit code 3"
        assert "SyntaxError" in service.log
        assert sorted(service.workers()) == before
        os.kill(workers(service)[0], KILL)
        service.wait_ready(3)
        assert serving(service)[1] == "v1"
        (tmp_path / "app.py").write_text(PRELOADED.replace('"v1"', '"mended"'))
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 3")
        assert serving(service)[1] == "mended"
        assert service.stop() == 0


def test_a_reload_whose_canary_fails_keeps_the_old_mold(tmp_path: Path) -> None:
    with started(tmp_path, "--lifespan", "on").wait_ready(2) as service:
        (old,) = molds(service)
        startup = 'await asyncio.sleep(float(os.environ.get("STARTUP", "0")))'
        with edited(tmp_path / "app.py", startup, "raise ValueError('no database')"):
            service.send_signal(HUP)
            service.wait_log("Reload failed, its first worker did not start")
        wait_for(lambda: molds(service) == [old], "the end of the new mold")
        assert service.stop() == 0


def test_a_newer_reload_ends_the_import_of_the_one_before(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (tmp_path / "app.py").write_text(PRELOADED + WAITS)
        service.send_signal(HUP)
        service.wait_log("importing")
        (tmp_path / "app.py").write_text(PRELOADED.replace('"v1"', '"v3"'))
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 3")
        assert serving(service)[1] == "v3"
        wait_for(lambda: len(molds(service)) == 1, "the end of the other molds")
        assert service.stop() == 0


def test_preload_can_be_turned_on_and_off_by_a_reload(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PRELOADED)
    config = tmp_path / "uvicorn.yaml"
    text = "app: app:app\nport: 0\nworkers: 2\npreload: {}\n"
    config.write_text(text.format("false"))
    with Service(tmp_path, "--config", "uvicorn.yaml", app="").wait_ready(2) as service:
        assert molds(service) == []
        config.write_text(text.format("true"))
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 2")
        assert serving(service)[2] == molds(service)[0]
        config.write_text(text.format("false"))
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 3")
        wait_for(lambda: not molds(service), "the end of the mold")
        pid, _, imported_by = serving(service)
        assert pid == imported_by
        assert service.stop() == 0


def test_after_a_pause_the_workers_come_back_from_the_mold(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        service.send_signal(WINCH)
        wait_for(lambda: not workers(service), "the end of all workers")
        service.send_signal(HUP)
        service.wait_log("Reload complete: generation 2")
        assert serving(service)[2] == molds(service)[0]
        assert service.stop() == 0


# --- a mold in trouble -------------------------------------------------------------------------


def test_code_that_cannot_be_imported_ends_the_start_with_3(tmp_path: Path) -> None:
    with started(tmp_path, app="import that_is_not_there\n") as service:
        assert service.wait_exit() == 3
        assert service.log.count("ModuleNotFoundError: No module named 'that_is_not_there'") == 1
        assert "The application could not be loaded: exit code 3. Giving up with exit code 3." in service.log
        assert not service.session()


def test_an_import_that_hangs_is_aborted_with_its_stack(tmp_path: Path) -> None:
    with started(tmp_path, "--timeout-worker-startup", "2", app=PRELOADED + WAITS) as service:
        assert service.wait_exit() == 3
        assert re.search(
            r"Aborting mold gen=1 pid=\d+: the application is not imported after 2 s", service.log
        )
        assert re.search(r'File ".*app.py", line \d+ in <module>', service.log)


def test_an_import_that_hangs_in_a_reload_is_given_up(tmp_path: Path) -> None:
    with started(tmp_path, "--timeout-worker-startup", "2").wait_ready(2) as service:
        (tmp_path / "app.py").write_text(PRELOADED + WAITS)
        service.send_signal(HUP)
        service.wait_log(
            "Reload failed, the new code could not be loaded: the application is not imported after 2 s"
        )
        wait_for(lambda: len(molds(service)) == 1, "the end of the one that hangs")
        assert serving(service)[1] == "v1"
        assert service.stop() == 0


def test_a_killed_mold_is_built_again_while_the_workers_serve(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (first,) = molds(service)
        before = sorted(workers(service))
        os.kill(first, KILL)
        second = mold_ready(service, 2)
        assert sorted(workers(service)) == before
        assert serving(service)[2] == first
        for pid in before:
            os.kill(pid, KILL)
        service.wait_ready(4)
        assert serving(service)[2] == second
        assert service.stop() == 0


def test_workers_that_are_lost_while_there_is_no_mold_wait_for_it(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (first,) = molds(service)
        (tmp_path / "app.py").write_text(PRELOADED + WAITS)
        os.kill(first, KILL)
        service.wait_log("importing")
        os.kill(workers(service)[0], KILL)
        service.wait_log("died: killed by SIGKILL", 2)
        assert serving(service)[2] == first  # the other one
        (tmp_path / "go").touch()
        service.wait_ready(3)
        assert service.log.count("importing") == 1
        assert service.stop() == 0


def test_a_mold_that_cannot_be_built_again_is_tried_with_pauses_while_the_workers_serve(
    tmp_path: Path,
) -> None:
    with started(tmp_path).wait_ready(2) as service:
        with edited(tmp_path / "app.py", "async def app(", "async def app(:"):
            os.kill(molds(service)[0], KILL)
            service.wait_log(r"The application could not be loaded; next try in", 2)
            assert serving(service)[1] == "v1"
        mold_ready(service, 2)
        assert service.stop() == 0


def test_a_mold_that_is_stopped_is_noticed_when_it_is_needed(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (first,) = molds(service)
        os.kill(first, STOP)
        os.kill(workers(service)[0], KILL)
        service.wait_log(rf"Aborting mold gen=1 pid={first}: it has not forked a worker for 5 s")
        service.wait_ready(3)
        wait_for(lambda: first not in service.workers(), "the end of the stopped mold")
        assert serving(service)[1] == "v1"
        assert service.stop() == 0


def test_a_hook_that_hangs_in_the_fork_is_noticed(tmp_path: Path) -> None:
    app = PRELOADED + (
        "import time\n"
        "def hang():\n    while os.path.exists('hang'): time.sleep(0.02)\n"
        "os.register_at_fork(after_in_child=hang)\n"
    )
    with started(tmp_path, app=app).wait_ready(2) as service:
        (tmp_path / "hang").touch()
        os.kill(workers(service)[0], KILL)
        service.wait_log("it has not forked a worker for 5 s")
        (tmp_path / "hang").unlink()
        service.wait_ready(3)
        assert service.stop() == 0


# --- what the import leaves behind -------------------------------------------------------------


def test_what_the_import_leaves_behind_is_told_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        app = PRELOADED + (
            "import asyncio, socket, subprocess, threading\n"
            "for name in ('flusher', 'poller'):\n"
            "    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()\n"
            f"database = socket.create_connection(('127.0.0.1', {port}))\n"
            "loop = asyncio.new_event_loop()\n"
            "child = subprocess.Popen(['sleep', '1000'])\n"
        )
        with started(tmp_path, app=app).wait_ready(2) as service:
            lines = [
                line for line in service.log.splitlines() if "Importing the application has left" in line
            ]
            assert len(lines) == 4
            threads, loops, connections, processes = lines
            assert "threads behind: 'flusher', 'poller'." in threads
            assert "event loops behind: asyncio." in loops
            assert re.search(rf"connections behind: 127\.0\.0\.1:\d+ → 127\.0\.0\.1:{port}\.", connections)
            assert re.search(r"processes behind: sleep \(pid \d+\)\.", processes)
            assert all("lifespan startup" in line for line in lines)
            assert service.stop() == 0


def test_an_import_that_leaves_nothing_behind_is_not_spoken_of(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        assert "has left" not in service.log
        assert service.stop() == 0


# --- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [TERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_during_the_import_wins_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, app=PRELOADED + WAITS) as service:
        service.wait_log("importing")
        assert service.stop(number) == 0
        assert "Stopping parent process" in service.log
        assert "Traceback" not in service.log


def test_a_stop_during_the_import_of_a_reload_leaves_nobody(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (tmp_path / "app.py").write_text(PRELOADED + WAITS)
        service.send_signal(HUP)
        service.wait_log("importing")
        assert service.stop() == 0
        assert "The reload to generation 2 is given up: the service stops." in service.log


def test_a_stop_while_workers_are_asked_of_a_mold_leaves_nobody(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        os.kill(molds(service)[0], STOP)
        for pid in workers(service):
            os.kill(pid, KILL)
        service.wait_log("died: killed by SIGKILL", 2)
        assert service.stop() == 0


# --- log files ---------------------------------------------------------------------------------

LOG_CONFIG = """
version: 1
disable_existing_loggers: false
handlers: {file: {class: logging.FileHandler, filename: server.log}, err: {class: logging.StreamHandler}}
loggers: {uvicorn: {handlers: [file, err], level: INFO, propagate: false}}
"""


def test_workers_forked_after_a_rotation_write_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "log.yaml").write_text(LOG_CONFIG)
    with started(tmp_path, "--log-config", "log.yaml").wait_ready(2) as service:
        (tmp_path / "server.log").rename(tmp_path / "server.log.1")
        service.send_signal(USR1)
        mold = molds(service)[0]

        def writes_to() -> set[str]:
            return {Path(file.path).name for file in psutil.Process(mold).open_files()}

        wait_for(lambda: "server.log" in writes_to() and "server.log.1" not in writes_to(), "a new file")
        os.kill(workers(service)[0], KILL)
        pid = service.wait_ready(3).wait_log(r"pid=(\d+) ready after", 4)[1]
        wait_for(
            lambda: f"Started server process [{pid}]" in (tmp_path / "server.log").read_text(),
            "the new worker's line",
        )
        assert service.stop() == 0


# --- upgrade -----------------------------------------------------------------------------------


def test_an_upgrade_builds_a_mold_of_its_own(tmp_path: Path) -> None:
    with started(tmp_path).wait_ready(2) as service:
        (old,) = molds(service)
        (tmp_path / "app.py").write_text(PRELOADED.replace('"v1"', '"v2"'))
        service.send_signal(USR2)
        service.wait_log("Reload complete: generation 2")
        wait_for(lambda: old not in service.workers(), "the end of the old mold")
        assert serving(service)[1:] == ("v2", molds(service)[0])
        os.kill(workers(service)[0], KILL)
        service.wait_ready(5)
        assert service.stop() == 0


# --- where it cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "environ", "place"),
    [
        (("--preload",), {}, "--preload"),
        ((), {"UVICORN_PRELOAD": "true"}, "UVICORN_PRELOAD"),
        (("--preload", "--workers", "0"), {}, "--preload"),
    ],
)
def test_without_a_master_it_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], place: str
) -> None:
    for more in ((), ("--check-config",)):
        with Service(tmp_path, *arguments, *more, environ=environ) as service:
            assert service.wait_exit() == 2
            assert place in service.log
            assert "needs a master: give 'workers' as well (any number, 1 included)." in service.log


def test_with_reload_it_is_ignored_as_workers_are(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--reload", "--preload").wait_serving() as service:
        assert '"preload" flag is ignored when reloading is enabled.' in service.log
        assert service.stop() == 0
