"""The `uvicorn` command and `run()`: arguments, error texts, exit codes, and which way of serving is taken."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
import yaml
from click.testing import CliRunner, Result

import uvicorn
from uvicorn._passed import HANDED_BINDS
from uvicorn.compose import Multiprocess, SingleProcessHooks
from uvicorn.config import LOGGING_CONFIG, Config
from uvicorn.server import Server
from uvicorn.settings.derived import json_schema, schema_text
from uvicorn.supervisor.upgrade import HANDOVER_FD, TRIAL, VERSION
from uvicorn.supervisors import ChangeReload

Records = list[logging.LogRecord]

pytestmark = pytest.mark.usefixtures("process_state")

APP = "tests.test_main:app"
main_module = importlib.import_module("uvicorn.main")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application."""


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(uvicorn.main, list(arguments), env=environ, prog_name="uvicorn")


def lines(records: Records) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of `uvicorn.main.run`, which does nothing, as (arguments, keywords)."""
    made: list[Any] = []
    monkeypatch.setattr(main_module, "run", lambda *args, **kwargs: made.append((args, kwargs)))
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a configuration file; returns its path."""

    def write_config(text: str = "", **values: Any) -> str:
        path = tmp_path / "uvicorn.yaml"
        path.write_text(text or yaml.safe_dump(values))
        return str(path)

    return write_config


# --- the command's arguments -----------------------------------------------------------------------


def test_run_is_called_with_the_app_and_every_option(calls: list[Any]) -> None:
    result = invoke("a:b")
    assert (result.exit_code, result.output) == (0, "")
    ((args, keywords),) = calls
    assert args == ("a:b",)
    assert keywords["host"] == "127.0.0.1"
    assert keywords["log_config"] is LOGGING_CONFIG
    assert keywords["headers"] == []
    assert keywords["app_dir"] == ""


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (
            ["--header", "Content-Security-Policy:default-src 'self'; script-src https://example.com"],
            "headers",
            [["Content-Security-Policy", "default-src 'self'; script-src https://example.com"]],
        ),
        (["--header", "A: b", "--header", "C:d:e"], "headers", [["A", "b"], ["C", "d:e"]]),
        (["--h11-max-incomplete-event-size", "32768"], "h11_max_incomplete_event_size", 32768),
        (["--http", "h11"], "http", "h11"),
        (["--loop", "none"], "loop", "none"),
        (["--ws", "none"], "ws", "none"),
        (["--ws", "mod:cls"], "ws", "mod:cls"),
        (["--app-dir", "some/where"], "app_dir", "some/where"),
        (["--no-access-log"], "access_log", False),
        (["--workers", "0"], "workers", 0),
    ],
)
def test_argument_arrives_in_run(arguments: list[str], name: str, value: object, calls: list[Any]) -> None:
    assert invoke("a:b", *arguments).exit_code == 0
    assert calls[0][1][name] == value


def test_app_may_come_from_the_environment(calls: list[Any]) -> None:
    assert invoke(UVICORN_APP="x:y").exit_code == 0
    assert calls[0][0] == ("x:y",)


def test_app_may_come_from_the_file(calls: list[Any], write: Callable[..., str]) -> None:
    assert invoke("--config", write(app="x:y")).exit_code == 0
    assert calls[0][0] == ("x:y",)


def test_command_line_goes_before_the_environment(calls: list[Any]) -> None:
    invoke("a:b", "--http", "h11", UVICORN_HTTP="httptools", UVICORN_LOOP="asyncio")
    assert (calls[0][1]["http"], calls[0][1]["loop"]) == ("h11", "asyncio")


def test_a_misspelt_variable_is_told_and_ignored(calls: list[Any]) -> None:
    result = invoke(APP, UVICORN_WORKRES="4")
    assert result.exit_code == 0
    assert (
        result.stderr
        == "Warning: $UVICORN_WORKRES: is no setting, and is ignored; did you mean UVICORN_WORKERS?\n"
    )
    assert calls[0][1]["workers"] is None


def test_file_may_come_from_the_environment(calls: list[Any], write: Callable[..., str]) -> None:
    invoke("a:b", UVICORN_CONFIG=write(port=9))
    assert calls[0][1]["port"] == 9


def test_file_of_the_command_line_goes_before_that_of_the_environment(
    calls: list[Any], write: Callable[..., str]
) -> None:
    invoke("a:b", "--config", write(port=9), UVICORN_CONFIG="/none.yaml")
    assert calls[0][1]["port"] == 9


def test_settings_of_the_file_arrive_in_run(calls: list[Any], write: Callable[..., str]) -> None:
    text = """
port: ${SAMPLE_PORT:-8001}
host: ${SAMPLE_HOST}
lifespan: off
headers: {X-A: 1, X-B: two words}
timeout_keep_alive: 2m
ws_ping_interval: null
log_config: {version: 1}
"""
    assert invoke("a:b", "--config", write(text), SAMPLE_HOST="::1").output == ""
    keywords = calls[0][1]
    assert (keywords["port"], keywords["host"]) == (8001, "::1")
    assert keywords["lifespan"] == "off"
    assert keywords["headers"] == [["X-A", "1"], ["X-B", "two words"]]
    assert keywords["timeout_keep_alive"] == 120
    assert keywords["ws_ping_interval"] is None
    assert keywords["log_config"] == {"version": 1}


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing argument 'APP'."),
        (["a:b", "extra"], "Got unexpected extra argument (extra)"),
        (["a:b", "--port", "x"], "Invalid value for '--port': 'x' is not a valid integer."),
        (["a:b", "--port"], "Option '--port' requires an argument."),
        (
            ["a:b", "--log-level", "LOUD"],
            (
                "Invalid value for '--log-level': 'LOUD' is not one of "
                "'critical', 'error', 'warning', 'info', 'debug', 'trace'."
            ),
        ),
        (
            ["a:b", "--ws-per-message-deflate", "maybe"],
            "Invalid value for '--ws-per-message-deflate': 'maybe' is not a valid boolean.",
        ),
        (["a:b", "--env-file", "none"], "Invalid value for '--env-file': Path 'none' does not exist."),
        (["a:b", "--log-config", "none"], "Invalid value for '--log-config': Path 'none' does not exist."),
        (["a:b", "--reload-dir", "none"], "Invalid value for '--reload-dir': Path 'none' does not exist."),
        (
            ["a:b", "--ssl-certfile", "none"],
            "Invalid value for '--ssl-certfile': Path 'none' does not exist.",
        ),
    ],
)
def test_wrong_argument_is_told_as_click_does_and_exit_2(
    arguments: list[str], text: str, calls: list[Any]
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: {text}"
    assert calls == []


@pytest.mark.parametrize("flag", ["--nope", "--no-reload", "--no-factory"])
def test_unknown_option_is_told_and_exit_2(flag: str, calls: list[Any]) -> None:
    result = invoke("a:b", flag)
    assert result.exit_code == 2
    assert "Error: No such option" in result.output
    assert flag in result.output
    assert calls == []


def test_every_mistake_is_told_at_once_with_its_place(calls: list[Any], write: Callable[..., str]) -> None:
    path = write("prot: 1\nport: x\nconfig: other.yaml\nport: 2\n")
    result = invoke("a:b", "--config", path, "--env-file", "none", UVICORN_BACKLOG="0")
    assert result.exit_code == 2
    assert result.output.splitlines() == [
        f"Error: {path}:4: port: is given twice; first at {path}:2.",
        f"Error: {path}:3: config: a configuration file cannot name another one.",
        "Error: $UVICORN_BACKLOG: backlog: 0 is too small: at least 1.",
        f"Error: {path}:1: prot: no such setting; did you mean 'port'?",
        f"Error: {path}:2: port: 'x' is not a valid integer.",
        "Error: Invalid value for '--env-file': Path 'none' does not exist.",
    ]
    assert calls == []


def test_file_that_is_not_there_is_told_and_exit_2(calls: list[Any]) -> None:
    result = invoke("a:b", "--config", "none.yaml")
    assert result.exit_code == 2
    assert result.output == "Error: none.yaml: cannot be read: No such file or directory.\n"


# --- what is printed -------------------------------------------------------------------------------


def test_version_is_printed_and_exit_0() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output == (
        f"Running uvicorn {uvicorn.__version__} with {platform.python_implementation()} "
        f"{platform.python_version()} on {platform.system()}\n"
    )


def test_schema_is_printed_and_exit_0() -> None:
    result = invoke("--config-schema")
    assert (result.exit_code, result.output) == (0, schema_text())
    assert '"$schema"' in result.output
    assert json_schema()["title"] in result.output


def test_help_is_printed_and_exit_0() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: uvicorn [OPTIONS] APP\n")
    assert max(map(len, result.output.splitlines())) <= 80
    assert "--check-config" in result.output


def test_switches_that_print_are_quiet_while_the_shell_completes() -> None:
    context = uvicorn.main.make_context("uvicorn", ["--version", "--config-schema"], resilient_parsing=True)
    assert context.params["app"] is None


def test_module_is_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["python -m uvicorn", "--version"])
    # Else there is a warning that it runs a second time.
    monkeypatch.delitem(sys.modules, "uvicorn.__main__", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"Running uvicorn {uvicorn.__version__} ")


def test_imported_main_module_of_the_package_does_nothing() -> None:
    assert importlib.import_module("uvicorn.__main__").main is uvicorn.main


# --- check-config ----------------------------------------------------------------------------------


def test_good_configuration_is_listed_and_exit_0(
    write: Callable[..., str], calls: list[Any], tmp_path: Path
) -> None:
    path = write(port=9000, ssl_keyfile_password="hunter2")
    result = invoke(APP, "--check-config", "--config", path, "--host", "::1", UVICORN_BACKLOG="5")
    assert result.exit_code == 0
    shown = {line.split()[0]: line.split(" = ", 1)[-1] for line in result.output.splitlines()}
    assert shown["app"] == f"'{APP}'  # APP"
    assert shown["host"] == "'::1'  # --host"
    assert shown["backlog"] == "5  # $UVICORN_BACKLOG"
    assert shown["port"] == f"9000  # {path}:1"
    assert shown["ssl_keyfile_password"] == f"********  # {path}:2"
    assert shown["workers"] == "None  # default"
    assert "hunter2" not in result.output
    assert result.output.splitlines()[-1] == "The configuration is good: the server would start."
    assert calls == []


def test_good_configuration_of_a_certificate_and_an_app_in_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "checked_app.py").write_text("async def app(scope, receive, send): pass\n")
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    monkeypatch.chdir(tmp_path)
    result = invoke("checked_app:app", "--check-config", "--app-dir", "apps", "--ssl-certfile", str(pem))
    assert result.exit_code == 0
    assert sys.path[0] == "apps"


@pytest.mark.parametrize(
    "given", [["--port", "1"], ["--host", "::"], ["--uds", "s"], ["--fd", "9"], ["--bind", ":1"]]
)
def test_sockets_that_are_passed_in_are_served_on_where_no_address_is_given(
    calls: list[Any], given: list[str]
) -> None:
    assert invoke(APP, **{HANDED_BINDS: "systemd:web\nsystemd:admin:2"}).exit_code == 0
    assert calls.pop()[1]["bind"] == ["systemd:web", "systemd:admin:2"]
    assert invoke(APP, *given, **{HANDED_BINDS: "systemd:web"}).exit_code == 0
    assert "systemd:web" not in (calls.pop()[1]["bind"] or ())


def test_sockets_that_are_not_there_are_told_and_exit_3(calls: list[Any]) -> None:
    result = invoke(APP, LISTEN_PID=str(os.getpid()), LISTEN_FDS="5000")
    assert result.exit_code == 3
    assert "LISTEN_FDS says that 5000 sockets were passed in" in result.output
    assert calls == []


def test_check_does_not_bind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert invoke(APP, "--check-config", "--port", str(port)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["no_such_module:app"], 'ERROR Error loading ASGI app. Could not import module "no_such_module".'),
        (
            [APP, "--loop", "no_such_module:loop"],
            'ERROR Error loading custom loop setup function. Could not import module "no_such_module".',
        ),
        (
            ["..app:app"],
            'ERROR Error loading ASGI app. Import string "..app:app" must be in format "<module>:<attribute>".',
        ),
        (["no.such:app"], 'ERROR Error loading ASGI app "no.such:app".'),
        ([APP, "--ssl-certfile", __file__], "ERROR The server cannot start with these settings."),
    ],
)
def test_configuration_that_would_not_start_is_told_and_exit_2(
    arguments: list[str], line: str, error_log: Records
) -> None:
    result = invoke(*arguments, "--check-config")
    assert result.exit_code == 2
    assert lines(error_log) == [line]
    assert "would start" not in result.output


def test_configuration_with_a_mistake_is_told_and_exit_2() -> None:
    result = invoke(APP, "--check-config", "--env-file", "none")
    assert result.exit_code == 2
    assert result.output == "Error: Invalid value for '--env-file': Path 'none' does not exist.\n"


# --- failures of run() under the command -----------------------------------------------------------


def failing_run(exc: BaseException) -> Callable[..., None]:
    def run(app: str, **options: Any) -> None:
        raise exc

    return run


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.json", '{"version": 2}', "Unsupported version: 2"),
        ("log.yaml", "a: [", "while parsing a flow node"),
    ],
)
def test_failure_without_a_line_of_the_application_blames_the_settings(
    monkeypatch: pytest.MonkeyPatch, error_log: Records, tmp_path: Path, name: str, content: str, message: str
) -> None:
    log_config = tmp_path / name
    log_config.write_text(content)
    result = invoke(APP, "--log-config", str(log_config))
    assert result.exit_code == 3
    assert lines(error_log) == ["ERROR The server cannot start with these settings."]
    assert error_log[0].exc_info is not None
    assert str(error_log[0].exc_info[1]).splitlines()[0] == message
    assert error_log[0].exc_info[2] is None


def test_failure_of_the_application_is_told_with_its_own_lines_and_exit_3(
    monkeypatch: pytest.MonkeyPatch, error_log: Records, tmp_path: Path
) -> None:
    (tmp_path / "failing_app.py").write_text("1 / 0\n")
    monkeypatch.setattr(Server, "run", lambda self, sockets=None: self.config.load())
    result = invoke("failing_app:app", "--app-dir", str(tmp_path))
    assert result.exit_code == 3
    assert lines(error_log) == ['ERROR Error loading ASGI app "failing_app:app".']
    assert error_log[0].exc_info is not None
    exc, traceback = error_log[0].exc_info[1:]
    assert isinstance(exc, ZeroDivisionError)
    # The first frame is the function above, which stands for the server's.
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_filename == __file__


@pytest.mark.parametrize("exc", [ImportError("x"), SyntaxError("x")])
def test_failure_to_import_is_the_applications(
    exc: Exception, monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.setattr(main_module, "run", failing_run(exc))
    assert invoke("a:b").exit_code == 3
    assert lines(error_log) == ['ERROR Error loading ASGI app "a:b".']


def test_import_string_without_an_attribute_is_told_and_exit_3(
    monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.setattr(Server, "run", lambda self, sockets=None: self.config.load())
    assert invoke("tests.test_main").exit_code == 3
    assert lines(error_log) == [
        (
            'ERROR Error loading ASGI app. Import string "tests.test_main" must be in format '
            '"<module>:<attribute>".'
        )
    ]


@pytest.mark.parametrize("code", [0, 1, 3, 70])
def test_exit_code_of_run_is_that_of_the_command(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "run", failing_run(SystemExit(code)))
    assert invoke("a:b").exit_code == code


# --- run(): one process ----------------------------------------------------------------------------


class FakeServing:
    """Stands for `Server.run`, `Multiprocess.run` and `ChangeReload.run`, which start no process and no loop.

    Attributes:
        calls: (which, object) for each call.
        effect: What happens in a call.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.effect: Callable[[Any], None] = lambda served: None
        for owner in (Server, Multiprocess, ChangeReload):
            monkeypatch.setattr(owner, "run", self._recorder(owner.__name__))

    def _recorder(self, name: str) -> Callable[..., None]:
        def run(served: Any, sockets: Any = None) -> None:
            self.calls.append((name, served))
            self.effect(served)

        return run

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> FakeServing:
    return FakeServing(monkeypatch)


def set_started(server: Server) -> None:
    server.started = True


def force_exit(server: Server) -> None:
    server.force_exit = True


def interrupt(served: object) -> None:
    raise KeyboardInterrupt


def exit_code_of(*args: Any, **kwargs: Any) -> Any:
    """What `run()` exits with; None where it returns."""
    try:
        uvicorn.run(*args, log_config=None, **kwargs)
    except SystemExit as exc:
        return exc.code
    return None


@pytest.mark.parametrize("asgi", [APP, app])
@pytest.mark.parametrize(
    ("effect", "code"), [(lambda server: None, 3), (set_started, None), (force_exit, None), (interrupt, 130)]
)
def test_single_process_that_never_started_says_so_by_its_exit_code(
    asgi: Any, effect: Callable[[Any], None], code: int | None, serving: FakeServing
) -> None:
    serving.effect = effect
    assert exit_code_of(asgi) == code
    assert serving.names == ["Server"]
    assert isinstance(serving.calls[0][1].hooks, SingleProcessHooks)


def test_command_of_a_server_that_never_started_exits_3(serving: FakeServing) -> None:
    assert invoke(APP).exit_code == 3


def test_options_of_run_are_those_of_the_config(serving: FakeServing) -> None:
    serving.effect = set_started
    uvicorn.run(app, log_config=None, port=9, limit_restarts=4, headers=[("a", "b")])
    config = serving.calls[0][1].config
    assert (config.app, config.port, config.limit_restarts, config.headers) == (app, 9, 4, [("a", "b")])


def test_app_dir_is_put_in_front_of_the_import_path(serving: FakeServing) -> None:
    serving.effect = set_started
    uvicorn.run(app, log_config=None, app_dir="some/where")
    assert sys.path[0] == "some/where"
    before = list(sys.path)
    uvicorn.run(app, log_config=None)
    assert sys.path == before


def test_app_dir_of_the_command_is_the_current_directory(serving: FakeServing) -> None:
    invoke(APP)
    assert sys.path[0] == ""


@pytest.mark.parametrize(
    ("options", "has_subreaper", "why"),
    [
        ({}, True, "needs a master: give 'workers' as well"),
        ({"workers": 2}, False, "needs Linux: no other system"),
    ],
)
def test_preload_is_refused_with_exit_1_where_it_cannot_be(
    options: dict[str, Any],
    has_subreaper: bool,
    why: str,
    serving: FakeServing,
    error_log: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["uvicorn.main"], "HAS_SUBREAPER", has_subreaper)
    assert exit_code_of(APP, preload=True, **options) == 1
    assert lines(error_log)[-1].startswith(f"ERROR preload {why}")


@pytest.mark.parametrize("options", [{"reload": True}, {"workers": 2}, {"reload": True, "workers": 2}])
def test_app_object_with_reload_or_workers_is_refused_with_exit_1(
    options: dict[str, Any], serving: FakeServing, error_log: Records
) -> None:
    assert exit_code_of(app, **options) == 1
    assert lines(error_log)[-1] == (
        "WARNING You must pass the application as an import string to enable 'reload' or 'workers'."
    )
    assert serving.calls == []


# --- run(): a master, a reloader -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variable", "way"),
    [
        ({}, None, "Server"),
        ({"workers": 1}, None, "Multiprocess"),
        ({"workers": 2}, None, "Multiprocess"),
        ({}, "2", "Multiprocess"),
        ({}, "1", "Multiprocess"),
        ({}, "0", "Server"),
        ({"workers": 0}, "2", "Server"),
        ({"reload": True}, None, ChangeReload.__name__),
        ({"reload": True, "workers": 2}, None, ChangeReload.__name__),
    ],
)
def test_way_of_serving_follows_from_the_options(
    options: dict[str, Any],
    variable: str | None,
    way: str,
    serving: FakeServing,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    assert exit_code_of(APP, port=0, **options) == (3 if way == "Server" else None)
    assert serving.names == [way]
    if way != "Server":
        served = serving.calls[0][1]
        (sock,) = served.sockets
        assert sock is served.config.listener.sock
        assert served.target == served.target.__self__.run
        assert isinstance(served.target.__self__, Server)
        sock.close()


def test_app_object_with_one_worker_is_served_without_a_master(serving: FakeServing) -> None:
    assert exit_code_of(app, workers=1) == 3
    assert serving.names == ["Server"]


@pytest.mark.parametrize("arguments", [["--workers=2"], ["--workers=1"], ["--reload"]])
def test_supervised_command_binds_once_and_exits_0(
    arguments: list[str], serving: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[Config] = []
    monkeypatch.setattr(Config, "bind_socket", lambda config: bound.append(config))
    assert invoke(APP, *arguments).exit_code == 0
    assert len(bound) == 1
    assert len(serving.calls) == 1


@pytest.mark.parametrize("code", [0, 3, 70])
def test_exit_code_of_the_master_is_that_of_run(code: int, serving: FakeServing) -> None:
    def end(supervisor: Multiprocess) -> None:
        supervisor.exit_code = code
        supervisor.sockets[0].close()

    serving.effect = end
    assert exit_code_of(APP, port=0, workers=2) == (code or None)


@pytest.mark.parametrize("options", [{"workers": 2}, {"reload": True}])
def test_taken_port_exits_3_before_anything_is_started(
    options: dict[str, Any], serving: FakeServing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert exit_code_of(APP, port=taken.getsockname()[1], **options) == 3
    assert serving.calls == []


@pytest.mark.parametrize("options", [{"workers": 2}, {"reload": True}])
@pytest.mark.parametrize("effect", [lambda served: None, interrupt])
def test_socket_file_is_removed_in_the_end(
    options: dict[str, Any],
    effect: Callable[[Any], None],
    serving: FakeServing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s"

    def check(served: Any) -> None:
        assert path.is_socket()
        served.sockets[0].close()
        effect(served)

    serving.effect = check
    assert exit_code_of(APP, uds=str(path), **options) is None
    assert len(serving.calls) == 1
    assert not path.exists()


@pytest.mark.parametrize("there", [True, False])
def test_socket_file_of_another_bind_socket_is_removed_in_the_end(
    there: bool, serving: FakeServing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    if there:
        path.touch()
    monkeypatch.setattr(Config, "bind_socket", lambda self: SimpleNamespace())
    result = invoke(APP, "--workers=2", "--uds", str(path))
    assert (result.exit_code, result.output) == (0, "")
    assert not path.exists()


def test_socket_file_that_belongs_to_a_running_server_stays(serving: FakeServing, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert exit_code_of(APP, uds=str(path), workers=2) == 3
        assert path.exists()


# --- run(): upgrades -------------------------------------------------------------------------------


def test_sockets_of_the_program_before_are_not_bound_again(
    serving: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HANDOVER_FD, "5")
    assert exit_code_of(APP, workers=2) is None
    assert serving.calls[0][1].sockets == []


def test_trial_of_a_good_program_exits_0_without_serving(
    serving: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRIAL, str(VERSION))
    assert exit_code_of(APP, workers=2) == 0
    assert serving.calls == []
    assert TRIAL not in os.environ


@pytest.mark.parametrize("options", [{}, {"workers": 2, "reload": True}])
def test_trial_of_what_is_no_master_exits_2(
    options: dict[str, Any], serving: FakeServing, monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.setenv(TRIAL, str(VERSION))
    assert exit_code_of(APP, **options) == 2
    assert serving.calls == []
    assert lines(error_log)[-1] == (
        "ERROR Only a master with workers can take another one's place: 'workers' is not given, or 'reload' is."
    )


@pytest.mark.parametrize("options", [{"app": "no_such_module:app"}, {"app": APP, "loop": "no_such_module:x"}])
def test_trial_of_a_program_that_does_not_load_exits_3(
    options: dict[str, Any], serving: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRIAL, str(VERSION))
    assert exit_code_of(options.pop("app"), workers=2, **options) == 3
    assert serving.calls == []


def test_trial_of_a_program_that_cannot_take_over_exits_3(
    serving: FakeServing, monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.setenv(TRIAL, str(VERSION - 1))
    assert exit_code_of(APP, workers=2) == 3
    assert lines(error_log)[-1] == (
        f"ERROR The running program hands over in version {VERSION - 1}, this one takes version {VERSION}: "
        "start the service anew."
    )
