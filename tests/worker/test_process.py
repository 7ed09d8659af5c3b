"""The first code in a worker: exit codes, signals, exit handlers, and who says why a first start has failed.

Each runs in a process of its own, made as the master makes it: these functions change what belongs to a process.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import wait_for
from tests.worker.starts import Started
from uvicorn._ipc.channel import Kind, Message
from uvicorn._ipc.scoreboard import Cell
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.server import Server
from uvicorn.supervisor.host import PosixHost
from uvicorn.supervisor.signals import reset_in_child
from uvicorn.worker.process import _SpeakOnce, main

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork()"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

LIMIT_MS = 20_000  # after which a child has hung


class Child:
    """A worker in a process of its own; what it logs and prints goes to a pipe."""

    def __init__(self, target: Callable[..., Any], **start: Any) -> None:
        self.started = Started(target=target, master_pid=start.pop("master_pid", os.getpid()), **start)
        self._reader, writer = os.pipe()

        def child() -> int:
            reset_in_child()
            self.started.receiver.sock.close()
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            logger = logging.getLogger("uvicorn.error")
            logger.handlers, logger.propagate = [logging.StreamHandler()], False
            logger.setLevel(logging.INFO)
            return main(self.started.start)

        self.pid = PosixHost().fork(child)
        os.close(writer)
        self.started.start.sender.sock.close()
        self.log = ""

    def wait_log(self, text: str) -> None:
        """Wait until it has said this."""
        while text not in self.log:
            data = self._read()
            assert data, f"it has ended without {text!r}, but with {self.log!r}"

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        assert poll.poll(LIMIT_MS), "it hangs"
        data = os.read(self._reader, 65536)
        self.log += data.decode()
        return data

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._reader)
        self.started.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def run(target: Callable[..., Any], **start: Any) -> Child:
        made.append(Child(target, **start))
        return made[-1]

    yield run
    for each in made:
        each.close()


Run = Callable[..., Child]


def server_of(app: Any, **settings: Any) -> Server:
    return Server(Config(app, **{"log_config": None, "tune_gc": False, **settings}))


async def plain(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


def say(text: str) -> None:
    print(text, flush=True)


def say_and_wait(text: str) -> Callable[..., None]:
    """A target that says something and waits for a signal."""

    def target(sockets: Any) -> None:
        say(text)
        while True:
            signal.pause()

    return target


def raising(exc: BaseException) -> Callable[..., None]:
    def target(sockets: Any) -> None:
        raise exc

    return target


# --- exit codes --------------------------------------------------------------------------------


def test_a_target_that_returns_is_a_worker_that_ended_well(run: Run) -> None:
    child = run(lambda sockets: say("served"))
    assert child.wait() == 0
    assert child.log == "served\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "log"),
    [(None, 0, ""), (0, 0, ""), (3, 3, ""), (9, 9, ""), ("out of luck", 1, "out of luck\n")],
)
def test_sys_exit_is_the_exit_code(run: Run, code: Any, exit_code: int, log: str) -> None:
    child = run(raising(SystemExit(code)))
    assert child.wait() == exit_code
    assert child.log == log


@pytest.mark.parametrize("exc", [ZeroDivisionError("oh"), KeyboardInterrupt("oh")])
def test_an_error_before_the_server_has_started_is_a_startup_failure(run: Run, exc: BaseException) -> None:
    child = run(raising(exc))
    assert child.wait() == STARTUP_FAILURE
    assert child.log.startswith('Error loading ASGI app "app:app".\nTraceback (most recent call last):\n')
    assert child.log.endswith(f"\n{type(exc).__name__}: oh\n")


def test_the_traceback_begins_where_the_application_does(run: Run) -> None:
    child = run(raising(ZeroDivisionError("oh")))
    child.wait()
    assert "in target" in child.log
    assert "process.py" not in child.log.replace("test_process.py", "")


def test_an_application_that_cannot_be_imported_is_a_startup_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_app.py").write_text("raise RuntimeError('no luck today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    child = run(server_of("failing_app:app").run)
    assert child.wait() == STARTUP_FAILURE
    assert child.log.startswith('Error loading ASGI app "app:app".')
    assert child.log.endswith("RuntimeError: no luck today\n")


def test_an_application_that_is_not_there_is_a_startup_failure(run: Run) -> None:
    child = run(server_of("no_such_module:app").run)
    assert child.wait() == STARTUP_FAILURE
    assert child.log == 'Error loading ASGI app. Could not import module "no_such_module".\n'


def test_a_lifespan_that_fails_is_a_startup_failure(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    child = run(server_of(app).run)
    assert child.wait() == STARTUP_FAILURE
    assert "no database" in child.log
    assert child.started.told() == [Message(Kind.FAILED, "no database")]


def test_an_error_of_a_server_that_has_started_is_no_startup_failure(run: Run) -> None:
    class Failing(Server):
        async def main_loop(self) -> None:
            raise ZeroDivisionError("oh")

    child = run(Failing(Config(plain, log_config=None, lifespan="off")).run)
    assert child.wait() == 1
    assert "The server failed.\nTraceback" in child.log


# --- a server's life ---------------------------------------------------------------------------


def test_a_server_is_ready_serves_and_leaves_on_sigterm(run: Run) -> None:
    child = run(server_of(plain, lifespan="off").run)
    poll = select.poll()
    poll.register(child.started.receiver.sock.fileno(), select.POLLIN)
    assert poll.poll(LIMIT_MS)
    assert [message.kind for message in child.started.told()] == [Kind.READY]
    assert child.started.row[Cell.ACCEPTING] == 1
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 0
    assert [message.kind for message in child.started.told()] == [Kind.STOPPED_ACCEPTING]
    assert child.started.row[Cell.ACCEPTING] == 0


def test_sigterm_while_the_event_loop_ends_changes_nothing(run: Run) -> None:
    class Told(Server):
        """Recycled, and then told by a master that has not heard of it yet."""

        async def main_loop(self) -> None:
            self.should_exit = True

        def run(self, sockets: Any = None) -> None:
            try:
                super().run(sockets)
            finally:
                signal.raise_signal(signal.SIGTERM)
                say("ended in order")

    child = run(Told(Config(plain, log_config=None, lifespan="off")).run)
    assert child.wait() == 0
    assert "ended in order" in child.log
    assert "Traceback" not in child.log


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_sigterm_while_the_event_loop_begins_ends_it_in_order(run: Run, loop: str) -> None:
    class Told(Server):
        def run(self, sockets: Any = None) -> None:
            # Both loops make a pair of sockets to be woken by; uvloop does it when it begins to run.
            set_blocking = socket.socket.setblocking

            def told(sock: socket.socket, flag: bool) -> None:
                signal.raise_signal(signal.SIGTERM)
                say("told")
                set_blocking(sock, flag)

            socket.socket.setblocking = told  # type: ignore[method-assign] # in this child only
            super().run(sockets)
            say("ended in order")

    child = run(Told(Config(plain, log_config=None, loop=loop)).run)
    assert child.wait() == 0
    assert "told\n" in child.log
    assert "ended in order" in child.log
    assert "Traceback" not in child.log


def test_sigterm_during_the_start_is_no_failure(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        say("starting")
        await receive()

    child = run(server_of(app).run)
    child.wait_log("starting")
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == 0


def test_sigquit_does_not_wait_for_the_application(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        say("up")
        await receive()
        say("never ends")
        await receive()

    child = run(server_of(app).run)
    child.wait_log("up")
    child.wait_log("startup complete")
    os.kill(child.pid, signal.SIGTERM)
    child.wait_log("never ends")
    os.kill(child.pid, signal.SIGQUIT)
    assert child.wait() == 0


def test_what_is_no_server_of_ours_is_ready_when_it_is_called(run: Run) -> None:
    child = run(say_and_wait("called"))
    child.wait_log("called")
    assert [message.kind for message in child.started.told()] == [Kind.READY]


def test_application_modules_of_the_master_are_imported_anew(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reloaded_app.py").write_text("text = 'old'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import reloaded_app

    monkeypatch.setitem(sys.modules, "reloaded_app", reloaded_app)
    (tmp_path / "reloaded_app.py").write_text("text = 'new'\n")

    def target(sockets: Any) -> None:
        import reloaded_app

        say(reloaded_app.text)

    child = run(target)
    assert child.wait() == 0
    assert child.log == "new\n"


# --- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_to_stop_ends_what_is_no_server(run: Run, number: signal.Signals) -> None:
    child = run(say_and_wait("here"))
    child.wait_log("here")
    os.kill(child.pid, number)
    assert child.wait() == 0


def test_no_signal_stays_blocked(run: Run) -> None:
    child = run(lambda sockets: say(f"blocked: {signal.pthread_sigmask(signal.SIG_BLOCK, ())}"))
    assert child.wait() == 0
    assert child.log == "blocked: set()\n"


class Heard(logging.Handler):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_sigusr1_opens_the_log_files_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log"

    def target(sockets: Any) -> None:
        logging.getLogger("uvicorn.error").addHandler(logging.FileHandler(path))
        path.rename(tmp_path / "old")
        signal.raise_signal(signal.SIGUSR1)
        wait_for(path.exists, "the file")
        logging.getLogger("uvicorn.error").info("into the new file")

    assert run(target).wait() == 0
    assert path.read_text() == "into the new file\n"


def test_a_log_file_that_cannot_be_opened_again_is_no_reason_to_end(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()

    def target(sockets: Any) -> None:
        heard = Heard()
        logging.getLogger("uvicorn.error").addHandler(logging.FileHandler(directory / "log"))
        logging.getLogger("uvicorn.error").addHandler(heard)  # behind the one that writes
        directory.rename(tmp_path / "gone")
        signal.raise_signal(signal.SIGUSR1)
        wait_for(lambda: heard.records, "the complaint")
        say("goes on")

    child = run(target)
    assert child.wait() == 0
    assert child.log.startswith("A log file cannot be reopened: [Errno 2]")
    assert child.log.endswith("goes on\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2)")
def test_the_system_sends_sigterm_when_the_master_dies(run: Run) -> None:
    def target(sockets: Any) -> None:
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
        say(str(signal.Signals(number.value).name))

    child = run(target)
    assert child.wait() == 0
    assert child.log == "SIGTERM\n"


def test_a_worker_whose_master_has_died_already_does_not_serve(run: Run) -> None:
    child = run(lambda sockets: say("serves"), master_pid=2**22 + 1)
    assert child.wait() == 0
    assert child.log == ""


# --- exit handlers -----------------------------------------------------------------------------


def test_exit_handlers_of_the_worker_run_and_those_of_the_master_do_not(run: Run) -> None:
    def of_the_master() -> None:
        say("the master's")

    def target(sockets: Any) -> None:
        atexit.register(say, "the worker's")
        raise SystemExit(4)

    atexit.register(of_the_master)
    try:
        child = run(target)
    finally:
        atexit.unregister(of_the_master)
    assert child.wait() == 4
    assert child.log == "the worker's\n"


def test_sigterm_does_not_cut_exit_handlers_short(run: Run) -> None:
    def at_exit() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        say("whole")

    child = run(lambda sockets: atexit.register(at_exit) and None)
    assert child.wait() == 0
    assert child.log == "whole\n"


# --- who says why ------------------------------------------------------------------------------


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", level, __file__, 1, "text", None, None)


@pytest.fixture
def token() -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, b"!")
    os.close(writer)
    yield reader
    os.close(reader)


@pytest.fixture
def said() -> Iterator[list[logging.LogRecord]]:
    """What the logger's handlers get."""
    records: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keeps()
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_whoever_takes_the_token_says_all_of_its_errors(token: int, said: list[logging.LogRecord]) -> None:
    first, second = _SpeakOnce(token), _SpeakOnce(token)
    ours = [record(logging.ERROR), record(logging.ERROR)]
    for each in ours:
        assert not first.filter(each)  # it has been said, and is not said again
        assert not second.filter(record(logging.ERROR))
    assert said == ours


def test_what_is_no_error_is_said_by_all_and_takes_no_token(
    token: int, said: list[logging.LogRecord]
) -> None:
    first, second = _SpeakOnce(token), _SpeakOnce(token)
    assert first.filter(record(logging.WARNING))
    spoken = record(logging.ERROR)
    second.filter(spoken)
    assert first.filter(record(logging.WARNING))
    first.filter(record(logging.CRITICAL))
    assert said == [spoken]


def test_a_signal_to_leave_waits_until_the_error_is_said(token: int, said: list[logging.LogRecord]) -> None:
    class Killed(logging.LogRecord):
        """Whose master has heard of a sibling's failure just now."""

        def getMessage(self) -> str:
            signal.raise_signal(signal.SIGTERM)
            return "text"

    class Reads(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    texts: list[str] = []
    handler = Reads()
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(0)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit):
            _SpeakOnce(token).filter(Killed("uvicorn.error", logging.ERROR, __file__, 1, "", None, None))
        assert texts == ["text"]
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, previous)
        logger.removeHandler(handler)


def test_without_a_token_everybody_speaks() -> None:
    assert _SpeakOnce(-1).filter(record(logging.ERROR))


def test_a_token_that_cannot_be_read_is_taken(said: list[logging.LogRecord]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    assert not _SpeakOnce(reader).filter(record(logging.ERROR))  # it does not wait for one either
    assert said == []
    os.close(reader)
    os.close(writer)
