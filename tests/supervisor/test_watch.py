"""Reloading: which files count, how changes are noticed, and what the reloader does about them."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from uvicorn.supervisor import watch
from uvicorn.supervisor.watch import BaseReload, FileFilter, StatReload, WatchFilesReload

Records = list[logging.LogRecord]

ROOT = Path("/srv")


def options(**more: Any) -> Any:
    """The part of a configuration that reloaders use."""
    defaults: dict[str, Any] = {
        "reload_delay": 0,
        "reload_dirs": [],
        "reload_dirs_excludes": [],
        "reload_includes": [],
        "reload_excludes": [],
        "timeout_graceful_shutdown": None,
        "configure_logging": lambda: None,
    }
    return SimpleNamespace(**{**defaults, **more})


def serve(sockets: list[socket.socket]) -> None:
    """A target."""


class FakeProcess:
    """A process that ends when it is told to, or only when it is killed."""

    pid = 4711

    def __init__(self, stubborn: bool = False) -> None:
        self.calls: list[Any] = []
        self.stubborn = stubborn
        self.exitcode: int | None = None

    def terminate(self) -> None:
        self.calls.append("terminate")
        if not self.stubborn:
            self.exitcode = -15

    def kill(self) -> None:
        self.calls.append("kill")
        self.exitcode = -9

    def join(self, timeout: float | None = None) -> None:
        self.calls.append(("join", timeout))

    def close(self) -> None:
        assert self.exitcode is not None
        self.calls.append("close")


class ScriptedReload(BaseReload):
    """Finds the changes it is given, and keeps account of what it does."""

    reloader_name = "Scripted"

    def __init__(self, changes: list[list[Path] | None], **more: Any) -> None:
        super().__init__(options(**more), serve, [])
        self.changes = changes
        self.done: list[str] = []

    def startup(self) -> None:
        self.done.append("startup")

    def restart(self) -> None:
        self.done.append("restart")

    def shutdown(self) -> None:
        self.done.append("shutdown")

    def should_restart(self) -> list[Path] | None:
        if not self.changes:
            self.should_exit.set()
        self.pause()
        return self.changes.pop(0)


class ProcesslessReload(BaseReload):
    """Starts and stops nothing."""

    reloader_name = "Processless"

    def __init__(self, sockets: list[socket.socket] | None = None) -> None:
        super().__init__(options(), serve, sockets or [])
        self.done: list[str] = []

    def _start(self) -> None:
        self.done.append("start")

    def _stop(self) -> None:
        self.done.append("stop")


def lines(records: Records) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signal handlers are afterwards what they were before."""
    before = {number: signal.getsignal(number) for number in watch.HANDLED_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- which files count -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("includes", "excludes", "path", "counts"),
    [
        ([], [], "main.py", True),
        ([], [], "app/views.py", True),
        ([], [], "page.html", False),
        ([], [], "main.pyc", False),
        ([], [], ".hidden.py", False),
        ([], [], "~main.py", False),
        ([], [], "py", False),
        (["*.html"], [], "page.html", True),
        (["*.html"], [], "main.py", True),
        (["*"], [], "page.html", True),
        (["*"], [], ".pyc", False),
        (["*"], [], ".sw.x", False),
        (["*"], ["*.html"], "page.html", False),
        (["*"], ["*.html"], "main.py", True),
        ([".*"], [], ".dotted", True),
        ([".*"], [], ".hidden.py", True),
        ([".py[cod]"], [], ".pyc", False),
        ([".py[cod]", ".*"], [], ".pyc", True),
        ([".*", "*.txt"], ["*.py"], ".dotted_dir/file.txt", True),
        ([".*", "*.txt"], ["*.py"], "main.py", False),
        (["main.txt"], [], "main.txt", True),
        (["main.txt"], [], "main.py", True),
        (["/srv/main.txt"], [], "main.txt", True),
        (["main.py"], ["*.py"], "main.py", True),
        ([], ["*.py"], "main.py", False),
        ([], ["views.py"], "app/views.py", False),
        ([], ["views.py"], "app/other.py", True),
        (["app/*"], [], "app/page.html", True),
        (["app/*"], [], "other/page.html", False),
    ],
)
def test_file_counts_by_what_is_included_and_excluded(
    includes: list[str], excludes: list[str], path: str, counts: bool
) -> None:
    config = options(reload_includes=includes, reload_excludes=excludes)
    assert FileFilter(config)(ROOT / path) is counts


@pytest.mark.parametrize(
    ("path", "counts"),
    [("app/main.py", False), ("app/sub/main.py", False), ("app_extra/main.py", True), ("main.py", True)],
)
def test_file_below_an_excluded_directory_does_not_count(path: str, counts: bool) -> None:
    config = options(reload_includes=["*"], reload_dirs_excludes=[ROOT / "app"])
    assert FileFilter(config)(ROOT / path) is counts


def test_file_that_is_included_by_its_name_counts_below_an_excluded_directory() -> None:
    config = options(reload_includes=["app/main.py"], reload_dirs_excludes=[ROOT / "app"])
    assert FileFilter(config)(ROOT / "app/main.py") is False
    first = options(
        reload_includes=["app/main.py"], reload_excludes=["*.py"], reload_dirs_excludes=[ROOT / "app"]
    )
    assert FileFilter(first)(ROOT / "app/main.py") is True


def test_patterns_are_those_of_the_documentation_and_the_given_ones() -> None:
    made = FileFilter(options())
    assert made.includes == ["*.py"]
    assert made.excludes == [".*", ".py[cod]", ".sw.*", "~*"]
    made = FileFilter(options(reload_includes=["*.a", ".*"], reload_excludes=["*.b", "*.py", "~*"]))
    assert made.includes == ["*.a", ".*"]
    assert made.excludes == [".py[cod]", ".sw.*", "~*", "*.b", "*.py"]


# --- the loop of a reloader ------------------------------------------------------------------------


def test_server_is_started_restarted_for_each_change_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.chdir(tmp_path)
    reload = ScriptedReload([None, [tmp_path / "a.py", tmp_path / "sub" / "b.py"], [], [Path("/else/c.py")]])
    reload.run()
    assert reload.done == ["startup", "restart", "restart", "shutdown"]
    assert lines(error_log) == [
        "WARNING Scripted detected changes in 'a.py', 'sub/b.py'. Reloading...",
        "WARNING Scripted detected changes in '/else/c.py'. Reloading...",
    ]


def test_reloader_is_its_own_iterator_of_changes() -> None:
    reload = ScriptedReload([None, [Path("a.py")]])
    assert iter(reload) is reload
    assert next(reload) is None
    assert next(reload) == [Path("a.py")]
    with pytest.raises(StopIteration):
        next(reload)


def test_pause_reads_the_delay_when_it_is_used() -> None:
    waits: list[float] = []

    class FakeEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return self.is_set()

    reload = ScriptedReload([])
    reload.should_exit = FakeEvent()
    reload.pause()
    reload.config.reload_delay = 7
    reload.pause()
    reload.should_exit.set()
    with pytest.raises(StopIteration):
        reload.pause()
    assert waits == [0, 7, 7]


def test_signal_ends_the_loop() -> None:
    reload = ScriptedReload([])
    reload.signal_handler(signal.SIGINT, None)
    assert reload.should_exit.is_set()


def test_base_has_no_strategy() -> None:
    with pytest.raises(NotImplementedError, match="should_restart"):
        BaseReload(options(), serve, []).should_restart()


def test_reloader_keeps_what_it_is_given() -> None:
    config, sockets = options(), [socket.socket()]
    reload = BaseReload(config, target=serve, sockets=sockets)
    assert (reload.config, reload.target, reload.sockets) == (config, serve, sockets)
    assert not reload.should_exit.is_set()
    assert reload.pid == os.getpid()
    sockets[0].close()


# --- starting and stopping -------------------------------------------------------------------------


@pytest.mark.usefixtures("handlers")
def test_startup_says_so_takes_the_signals_and_starts(error_log: Records) -> None:
    reload = ProcesslessReload()
    reload.startup()
    assert lines(error_log) == [f"INFO Started reloader process [{os.getpid()}] using Processless"]
    number, name = "\x1b[36m\x1b[1m%d\x1b[0m", "\x1b[36m\x1b[1m%s\x1b[0m"
    assert vars(error_log[0])["color_message"] == f"Started reloader process [{number}] using {name}"
    assert [signal.getsignal(each) for each in watch.HANDLED_SIGNALS] == [reload.signal_handler] * 2
    assert reload.done == ["start"]


def test_restart_stops_before_it_starts() -> None:
    reload = ProcesslessReload()
    reload.restart()
    assert reload.done == ["stop", "start"]


def test_shutdown_stops_closes_the_sockets_and_says_so(error_log: Records) -> None:
    sockets = [socket.socket(), socket.socket()]
    reload = ProcesslessReload(sockets)
    reload.shutdown()
    assert reload.done == ["stop"]
    assert [sock.fileno() for sock in sockets] == [-1, -1]
    assert lines(error_log) == [f"INFO Stopping reloader process [{os.getpid()}]"]
    number = "\x1b[36m\x1b[1m%d\x1b[0m"
    assert vars(error_log[0])["color_message"] == f"Stopping reloader process [{number}]"


@pytest.mark.parametrize(("grace", "patience"), [(None, 4.0), (0, 1.0), (10, 11.0)])
def test_server_is_told_to_end_and_given_its_time(
    grace: float | None, patience: float, error_log: Records
) -> None:
    reload = BaseReload(options(timeout_graceful_shutdown=grace), serve, [])
    process = FakeProcess()
    reload.process = process  # type: ignore[assignment]
    reload._stop()
    assert process.calls == ["terminate", ("join", patience), "close"]
    assert reload.process is None
    assert error_log == []


def test_server_that_does_not_end_is_killed(error_log: Records) -> None:
    reload = BaseReload(options(), serve, [])
    process = FakeProcess(stubborn=True)
    reload.process = process  # type: ignore[assignment]
    reload._stop()
    assert process.calls == ["terminate", ("join", 4.0), "kill", ("join", None), "close"]
    assert lines(error_log) == [
        "WARNING The server does not stop: killed. (timeout_graceful_shutdown gives it more time)"
    ]


def test_stopping_without_a_server_does_nothing() -> None:
    reload = BaseReload(options(), serve, [])
    reload._stop()
    reload.process = SimpleNamespace(pid=None)  # type: ignore[assignment]
    reload._stop()
    assert reload.process is None


# --- in the server's process -----------------------------------------------------------------------


def test_server_gets_logging_sockets_and_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("typed")
    seen: list[Any] = []
    monkeypatch.setattr(sys, "stdin", None)
    config = options(configure_logging=lambda: seen.append("logging"))
    stdin = os.open(tmp_path / "in", os.O_RDONLY)
    watch._serve_in_child(config, lambda sockets: seen.append(sockets), [], stdin)
    with sys.stdin as opened:
        assert opened.read() == "typed"
    assert seen == ["logging", []]


@pytest.mark.parametrize("stdin", [None, 99_999])
def test_server_without_a_terminal_keeps_its_own_input(
    stdin: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdin", own)
    watch._serve_in_child(options(), serve, [], stdin)
    assert sys.stdin is own


def raising(exc: BaseException) -> Callable[[list[socket.socket]], None]:
    def target(sockets: list[socket.socket]) -> None:
        raise exc

    return target


def test_interrupt_of_the_terminal_ends_the_server_quietly(error_log: Records) -> None:
    watch._serve_in_child(options(), raising(KeyboardInterrupt()), [], None)
    assert error_log == []


def test_application_that_does_not_start_is_told_and_exit_1(error_log: Records) -> None:
    with pytest.raises(SystemExit) as caught:
        watch._serve_in_child(options(), raising(ZeroDivisionError()), [], None)
    assert caught.value.code == 1
    assert lines(error_log) == ["ERROR The application could not be started; waiting for the next change."]
    assert error_log[0].exc_info is not None
    assert error_log[0].exc_info[0] is ZeroDivisionError


def test_exit_of_the_server_passes_through() -> None:
    with pytest.raises(SystemExit) as caught:
        watch._serve_in_child(options(), raising(SystemExit(3)), [], None)
    assert caught.value.code == 3


# --- modification times ----------------------------------------------------------------------------


class ProcesslessStatReload(StatReload):
    def _start(self) -> None:
        pass

    def _stop(self) -> None:
        pass


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A directory with main.py, sub/part.py and page.html, all of the same time."""
    (tmp_path / "sub").mkdir()
    for name in ("main.py", "sub/part.py", "page.html"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (100, 100))
    return tmp_path


def stat_reload(*directories: Path, **more: Any) -> ProcesslessStatReload:
    return ProcesslessStatReload(options(reload_dirs=list(directories), **more), serve, [])


@pytest.mark.parametrize("name", ["main.py", "sub/part.py"])
def test_newer_file_is_a_change(name: str, watched: Path) -> None:
    reload = stat_reload(watched)
    assert reload.should_restart() is None
    assert reload.should_restart() is None
    os.utime(watched / name, (101, 101))
    assert reload.should_restart() == [watched / name]


@pytest.mark.parametrize(("name", "time"), [("page.html", 101), ("main.py", 99)])
def test_other_or_older_file_is_no_change(name: str, time: int, watched: Path) -> None:
    reload = stat_reload(watched)
    reload.should_restart()
    os.utime(watched / name, (time, time))
    assert reload.should_restart() is None


def test_new_file_is_taken_stock_of_first(watched: Path) -> None:
    reload = stat_reload(watched)
    reload.should_restart()
    (watched / "new.py").touch()
    assert reload.should_restart() is None
    os.utime(watched / "new.py", (2**32, 2**32))
    assert reload.should_restart() == [watched / "new.py"]


def test_file_that_has_just_gone_is_passed_over(watched: Path) -> None:
    (watched / "gone.py").symlink_to(watched / "nowhere.py")
    reload = stat_reload(watched)
    assert reload.should_restart() is None
    assert set(reload.mtimes) == {watched / "main.py", watched / "sub" / "part.py"}


def test_files_outside_the_watched_directories_are_not_seen(watched: Path) -> None:
    assert list(stat_reload(watched / "sub").iter_py_files()) == [watched / "sub" / "part.py"]
    assert sorted(stat_reload(watched / "sub", watched).iter_py_files()) == [
        watched / "main.py",
        watched / "sub" / "part.py",
        watched / "sub" / "part.py",
    ]


@pytest.mark.usefixtures("handlers")
def test_what_changes_before_the_first_look_is_a_change(watched: Path) -> None:
    reload = stat_reload(watched)
    reload.startup()
    os.utime(watched / "main.py", (101, 101))
    assert reload.should_restart() == [watched / "main.py"]


@pytest.mark.usefixtures("handlers")
def test_restart_forgets_the_times(watched: Path) -> None:
    reload = stat_reload(watched)
    reload.startup()
    os.utime(watched / "main.py", (101, 101))
    reload.restart()
    assert reload.should_restart() is None
    os.utime(watched / "main.py", (102, 102))
    assert reload.should_restart() == [watched / "main.py"]


def test_looking_ends_when_told_to(watched: Path) -> None:
    reload = stat_reload(watched)
    reload.should_exit.set()
    with pytest.raises(StopIteration):
        reload.should_restart()


@pytest.mark.parametrize("more", [{"reload_includes": ["*.a"]}, {"reload_excludes": ["*.a"]}])
def test_patterns_have_no_effect_on_modification_times_and_that_is_told(
    more: dict[str, Any], error_log: Records
) -> None:
    stat_reload(**more)
    assert lines(error_log) == [
        "WARNING --reload-include and --reload-exclude have no effect unless watchfiles is installed."
    ]


def test_no_patterns_no_warning(error_log: Records) -> None:
    assert stat_reload().reloader_name == "StatReload"
    assert error_log == []


# --- told by the kernel ----------------------------------------------------------------------------


def watchfiles_reload(answers: list[set[tuple[int, str]]], **more: Any) -> WatchFilesReload:
    """A reloader whose watcher gives these answers and then ends."""
    reload = WatchFilesReload(options(**more), serve, [])
    reload.watcher = iter(answers)
    return reload


def test_quiet_period_is_no_change() -> None:
    assert watchfiles_reload([set()]).should_restart() is None


def test_changed_files_that_count_are_told_once_and_in_order() -> None:
    changes = {(1, "/srv/b.py"), (2, "/srv/b.py"), (1, "/srv/a.py"), (1, "/srv/page.html")}
    reload = watchfiles_reload([changes])
    assert reload.should_restart() == [Path("/srv/a.py"), Path("/srv/b.py")]


def test_changed_files_that_do_not_count_bring_about_nothing() -> None:
    assert not watchfiles_reload([{(1, "/srv/page.html")}]).should_restart()


def test_patterns_decide_which_changes_count() -> None:
    reload = watchfiles_reload([{(1, "/srv/page.html"), (1, "/srv/a.py")}], reload_includes=["*.html"])
    assert reload.should_restart() == [Path("/srv/a.py"), Path("/srv/page.html")]


def test_watching_begins_before_the_first_pause() -> None:
    reload = watchfiles_reload([{(1, "/srv/a.py")}])
    reload.should_exit.set()  # a pause would end the loop
    assert reload.should_restart() == [Path("/srv/a.py")]


def test_end_of_the_watcher_ends_the_loop() -> None:
    reload = watchfiles_reload([])
    assert list(reload) == []


def test_watching_ends_when_told_to() -> None:
    reload = watchfiles_reload([set()])
    reload.should_exit.set()
    with pytest.raises(StopIteration):
        next(reload)


def test_watcher_is_named_and_filters_like_its_configuration() -> None:
    reload = watchfiles_reload([], reload_excludes=["*.a"])
    assert reload.reloader_name == "WatchFiles"
    assert "*.a" in reload.watch_filter.excludes
