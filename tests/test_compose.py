"""The composition: from a `Config` to a plan for the master, and what a reload makes of the settings on disk."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import uvicorn
from uvicorn import compose
from uvicorn._addresses import Address
from uvicorn._listener import Listener
from uvicorn._pidfile import PidFile, PidFileError
from uvicorn.compose import Invocation, Multiprocess, SingleProcessHooks, invoked, plan_from, serve_alone
from uvicorn.config import Config
from uvicorn.server import Server, ServerHooks
from uvicorn.settings.layers import Problem, Resolved, SettingsError
from uvicorn.settings.table import OPTIONS
from uvicorn.supervisor.listeners import Key
from uvicorn.supervisor.plan import Plan, PlanRejected
from uvicorn.supervisor.upgrade import HANDOVER_FD, HandedPidFile, Handover

Records = list[logging.LogRecord]

pytestmark = pytest.mark.usefixtures("process_state")

APP = "tests.test_compose:app"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application."""


def quiet(asgi: Any = APP, **more: Any) -> Config:
    return Config(asgi, log_config=None, **more)


def serve(sockets: list[socket.socket]) -> None:
    """A target."""


def supervisor(**more: Any) -> Multiprocess:
    return Multiprocess(quiet(**{"workers": 3, **more}), target=serve, sockets=[])


def reloaded(
    resolve: Callable[[], tuple[Any, dict[str, Any]]] | None = None,
    environ: dict[str, str] | None = None,
    old: Multiprocess | None = None,
) -> Plan:
    """The plan of a reload under a command that resolves its settings in this way."""
    old = old or supervisor()
    if resolve is None:
        return compose._reloaded_plan(old)
    with invoked(Invocation(resolve, dict(os.environ) if environ is None else environ)):
        return compose._reloaded_plan(old)


def settings(asgi: Any = APP, **more: Any) -> Callable[[], tuple[Any, dict[str, Any]]]:
    return lambda: (asgi, {"log_config": None, **more})


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector is afterwards as it was before."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


# --- one process -----------------------------------------------------------------------------------


def test_server_alone_has_the_hooks_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[ServerHooks] = []
    monkeypatch.setattr(Server, "run", lambda self: hooks.append(self.hooks))
    serve_alone(Server(quiet(app)))
    assert [type(each) for each in hooks] == [SingleProcessHooks]


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("tune_gc", [True, False])
def test_heap_is_frozen_after_the_start_where_that_is_wanted(tune_gc: bool) -> None:
    gc.unfreeze()
    SingleProcessHooks().started(Server(quiet(app, tune_gc=tune_gc)))
    assert (gc.get_freeze_count() > 0) is tune_gc


# --- the plan --------------------------------------------------------------------------------------


def test_plan_holds_what_the_master_has_to_know() -> None:
    config = quiet(
        workers=4,
        timeout_worker_startup=20,
        timeout_worker_healthcheck=2,
        timeout_worker_stall=9,
        timeout_graceful_shutdown=7,
        timeout_lifespan_shutdown=3,
        shutdown_delay=1,
        limit_restarts=6,
        bind=[":1", "unix:/s"],
        backlog=99,
        reuse_port=True,
    )
    plan = plan_from(config, serve)
    assert plan.title == APP
    assert plan.spec.size == 4
    assert (plan.spec.startup, plan.spec.healthcheck, plan.spec.stall) == (20, 2, 9)
    assert plan.spec.drain == 7 + 3 + compose.DRAIN_MARGIN
    assert (plan.spec.shutdown_delay, plan.spec.limit_restarts) == (1, 6)
    assert plan.addresses == (Address("tcp", port=1), Address("unix", name="/s"))
    assert (plan.backlog, plan.reuse_port, plan.target) == (99, True, serve)


def test_plan_gives_a_shutdown_without_limits_those_of_a_master() -> None:
    config = quiet()
    plan = plan_from(config, serve)
    assert (config.timeout_graceful_shutdown, config.timeout_lifespan_shutdown) == (30, 10)
    assert plan.spec.drain == 42


def test_plan_leaves_a_limit_of_zero() -> None:
    config = quiet(timeout_graceful_shutdown=0, timeout_lifespan_shutdown=0)
    assert plan_from(config, serve).spec.drain == compose.DRAIN_MARGIN
    assert config.timeout_graceful_shutdown == 0


def test_plan_of_an_object_is_titled_by_its_type() -> None:
    assert plan_from(quiet(app), serve).title == "function"


def test_plan_announces_as_its_configuration_does(error_log: Records) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        plan_from(quiet(), serve).announce(sock)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    assert [record.getMessage() for record in error_log] == [
        f"Uvicorn running on {url} (Press CTRL+C to quit)"
    ]


def test_plan_in_effect_restores_its_logging_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE", "then")
    monkeypatch.setenv("LISTEN_FDS", "1")
    plan = plan_from(quiet(log_level="warning"), serve)
    monkeypatch.setenv("SAMPLE", "now")
    monkeypatch.setenv("LATER", "x")
    logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
    plan.apply()
    assert os.environ["SAMPLE"] == "then"
    assert "LATER" not in os.environ
    assert "LISTEN_FDS" not in os.environ
    assert logging.getLogger("uvicorn.error").level == logging.WARNING


# --- what systemd says -----------------------------------------------------------------------------


def test_a_single_process_of_the_command_takes_what_systemd_says_out_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(quiet(app))
    seen: list[bool] = []
    monkeypatch.setattr(server, "run", lambda: seen.append("NOTIFY_SOCKET" in os.environ))
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    serve_alone(server)  # by a program: it may be meant for that program
    assert server.hooks.passed() is os.environ
    with invoked(Invocation(settings(), {})):
        serve_alone(server)
    assert seen == [True, False]
    assert server.hooks.passed()["NOTIFY_SOCKET"] == "/run/notify"


def test_a_single_process_ticks_as_often_as_the_watchdog_wants() -> None:
    told = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "600000"}
    assert SingleProcessHooks(told).shortest_period() == pytest.approx(0.2)
    assert SingleProcessHooks({}).shortest_period() == ServerHooks().shortest_period()


# --- sockets that were bound before the master -----------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def test_bound_sockets_stand_for_the_addresses_in_order(sockets: Callable[[], socket.socket]) -> None:
    config = quiet(bind=[":1", ":2"])
    first, second = sockets(), sockets()
    taken = compose._adopted(config, plan_from(config, serve), [first, second])
    assert [key for key, _ in taken] == [Key(address) for address in config.addresses]
    assert [listener.sock for _, listener in taken] == [first, second]
    assert all(listener.ours for _, listener in taken)


def test_socket_that_the_configuration_has_bound_keeps_its_listener(tmp_path: Path) -> None:
    config = quiet(uds=str(tmp_path / "s"))
    with config.bind_socket() as sock:
        ((key, listener),) = compose._adopted(config, plan_from(config, serve), [sock])
        assert listener is config.listener
        assert key == Key(Address("unix", name=str(tmp_path / "s")))


def test_socket_beyond_the_addresses_stands_for_itself(sockets: Callable[[], socket.socket]) -> None:
    config = quiet()
    first, second = sockets(), sockets()
    taken = compose._adopted(config, plan_from(config, serve), [first, second])
    assert taken[1][0] == Key(Address("fd", fd=second.fileno()))
    assert isinstance(taken[1][1], Listener)


def test_sockets_with_reuse_port_are_those_of_the_first_slot(sockets: Callable[[], socket.socket]) -> None:
    config = quiet(reuse_port=True)
    ((key, _),) = compose._adopted(config, plan_from(config, serve), [sockets()])
    assert key == Key(config.bind_addresses[0], 1)


# --- before the first fork -------------------------------------------------------------------------


def test_supervisor_keeps_what_it_is_given() -> None:
    config = quiet()
    made = Multiprocess(config, target=serve, sockets=[])
    assert (made.config, made.target, made.sockets, made.exit_code) == (config, serve, [], 0)


def test_handover_that_cannot_be_read_is_a_log_line_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    monkeypatch.setenv(HANDOVER_FD, "none")
    made = supervisor()
    made.run()
    assert made.exit_code == 3
    (record,) = error_log
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("the handover of the program before cannot be read: ")


def test_second_address_that_is_taken_is_a_log_line_and_exit_code_3(
    sockets: Callable[[], socket.socket], tmp_path: Path, error_log: Records
) -> None:
    port = sockets().getsockname()[1]
    config = quiet(bind=[f"unix:{tmp_path}/s", f"127.0.0.1:{port}"], workers=2)
    first = config.bind_socket()
    made = Multiprocess(config, target=serve, sockets=[first])
    made.run()
    assert made.exit_code == 3
    assert error_log[-1].getMessage().startswith(f"cannot bind to 127.0.0.1:{port}: address already in use")
    assert first.fileno() == -1
    assert not (tmp_path / "s").exists()


def test_variables_of_systemd_are_there_until_every_address_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_log: Records
) -> None:
    passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    for name, value in passed.items():
        monkeypatch.setenv(name, value)
    config = quiet(bind=[f"unix:{tmp_path}/s", "systemd:admin"], workers=2)
    made = Multiprocess(config, target=serve, sockets=[config.bind_socket()])
    made.run()
    assert made.exit_code == 3
    assert error_log[-1].getMessage() == ("systemd has passed no socket named 'admin' (it has passed: web).")


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(
    ("options", "modules"),
    [
        (
            {"http": "h11", "ws": "wsproto", "loop": "asyncio", "lifespan": "off"},
            {
                "uvicorn.protocols.http.h11_impl",
                "uvicorn.protocols.websockets.wsproto_impl",
                "uvicorn.loops.asyncio",
                "uvicorn.lifespan.off",
            },
        ),
        ({"loop": "none", "ws": "none"}, set()),
    ],
)
def test_implementations_of_our_own_are_imported_before_the_first_fork(
    options: dict[str, Any], modules: set[str]
) -> None:
    compose.prepare_forks(quiet(**options))
    assert modules <= set(sys.modules)
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("collector")
def test_code_of_the_application_is_not_imported_before_the_first_fork() -> None:
    class Own:
        pass

    compose.prepare_forks(quiet(http="no_such:a", ws="no_such:b", loop="no_such:c"))
    compose.prepare_forks(quiet(http=Own, ws=Own))


# --- reloads ---------------------------------------------------------------------------------------


def test_reload_without_a_command_is_the_same_configuration() -> None:
    old = supervisor()
    plan = reloaded(old=old)
    assert (plan.spec.size, plan.target) == (3, serve)


def test_reload_reads_the_settings_again() -> None:
    plan = reloaded(settings(workers=5, port=9))
    assert plan.spec.size == 5
    assert plan.addresses == (Address("tcp", host="127.0.0.1", port=9),)
    served = plan.target.__self__  # type: ignore[attr-defined]
    assert isinstance(served, Server)
    assert served.config.port == 9


@pytest.mark.parametrize("workers", [None, 0])
def test_reload_without_a_number_of_workers_keeps_the_old_one(workers: int | None) -> None:
    assert reloaded(settings(workers=workers)).spec.size == 3


def test_reload_puts_a_new_app_dir_in_front_of_the_import_path_once() -> None:
    reloaded(settings(app_dir="some/where"))
    assert sys.path[0] == "some/where"
    before = list(sys.path)
    reloaded(settings(app_dir="some/where"))
    assert sys.path == before


def raising(exc: BaseException) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def resolve() -> tuple[Any, dict[str, Any]]:
        raise exc

    return resolve


@pytest.mark.parametrize(
    ("resolve", "reason"),
    [
        (
            raising(SettingsError([Problem("f:1", "port", "bad."), Problem("f:2", "", "worse.")])),
            "f:1: port: bad.\nf:2: worse.",
        ),
        (raising(SystemExit(2)), "exit 2"),
        (settings(None), "app: is not given any more."),
        (
            settings(bind="nowhere"),
            "ValueError: 'nowhere' is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME.",
        ),
        (lambda: (APP, {"log_config": {"version": 2}}), "ValueError: Unsupported version: 2"),
        (
            settings(no_such_option=1),
            "TypeError: Config.__init__() got an unexpected keyword argument 'no_such_option'",
        ),
    ],
)
def test_reload_of_settings_that_will_not_do_is_rejected_with_the_reason(
    resolve: Callable[[], tuple[Any, dict[str, Any]]], reason: str
) -> None:
    with pytest.raises(PlanRejected) as caught:
        reloaded(resolve)
    assert str(caught.value) == reason


def test_reload_starts_from_the_environment_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def resolve() -> tuple[Any, dict[str, Any]]:
        seen.append(dict(os.environ))
        return APP, {"log_config": None}

    monkeypatch.setenv("SET_MEANWHILE", "x")
    environ = {"SAMPLE": "then", "LISTEN_FDS": "1", HANDOVER_FD: "5"}
    reloaded(resolve, environ)
    assert seen == [{"SAMPLE": "then"}]
    assert environ["LISTEN_FDS"] == "1"


def test_invocation_is_known_only_within_its_block() -> None:
    with invoked(Invocation(raising(SystemExit(9)), {})), pytest.raises(PlanRejected, match="exit 9"):
        compose._reloaded_plan(supervisor())
    assert compose._reloaded_plan(supervisor()).target is serve


def test_reload_under_the_command_takes_what_is_on_disk_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file, config_file = tmp_path / ".env", tmp_path / "uvicorn.yaml"
    env_file.write_text("SAMPLE=old\n")
    monkeypatch.setattr(compose, "is_root", lambda: False)
    values = {"app": APP, "workers": 2, "port": 0, "env_file": str(env_file)}
    config_file.write_text(yaml.safe_dump(values))
    plans: list[Plan] = []

    def run(old: Multiprocess) -> None:
        old.sockets[0].close()
        assert (os.environ["SAMPLE"], os.environ["UVICORN_BACKLOG"]) == ("old", "7")
        env_file.write_text("SAMPLE=new\n")
        config_file.write_text(yaml.safe_dump({**values, "workers": 6, "log_level": "error"}))
        plans.append(compose._reloaded_plan(old))
        assert os.environ["SAMPLE"] == "new"
        config_file.write_text("workers: many\n")
        with pytest.raises(PlanRejected) as caught:
            compose._reloaded_plan(old)
        assert str(caught.value) == f"{config_file}:1: workers: 'many' is not a valid integer."

    monkeypatch.setattr(Multiprocess, "run", run)
    arguments = ["--config", str(config_file), "--limit-restarts", "4"]
    result = CliRunner().invoke(uvicorn.main, arguments, env={"UVICORN_BACKLOG": "7"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (plan,) = plans
    assert (plan.spec.size, plan.spec.limit_restarts, plan.backlog) == (6, 4, 7)


# --- the control process -----------------------------------------------------------------------


def test_the_control_process_is_off_unless_asked_for() -> None:
    assert plan_from(quiet(workers=2), serve).control is None


def test_where_the_control_process_answers() -> None:
    control = plan_from(
        quiet(control_socket="c.sock", admin="[::1]:9000", control_read_only=True), serve
    ).control
    assert control is not None
    assert control.socket == Address(
        "unix", name=os.path.abspath("c.sock")
    )  # for an exec in another directory
    assert control.admin == Address("tcp", host="::1", port=9000)
    assert control.read_only


def test_systemd_asks_for_the_control_socket_but_only_of_the_command(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}:/other"}
    os.environ.update(environ)
    assert plan_from(quiet(), serve).control is None
    with invoked(Invocation(lambda: (APP, {}), environ)):
        control = plan_from(quiet(), serve).control
        assert control is not None
        assert control.socket == Address("unix", name=str(tmp_path / "uvicorn.ctl"))
        own = plan_from(quiet(control_socket="/own.sock"), serve).control
        assert own is not None
        assert own.socket == Address("unix", name="/own.sock")


def test_a_single_process_says_that_it_has_no_control(
    error_log: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "run", lambda self: None)
    serve_alone(Server(quiet(admin="127.0.0.1:0")))
    assert error_log[-1].getMessage().startswith("control_socket and admin need a master")


# --- whom workers run as -----------------------------------------------------------------------


def given(**values: Any) -> Resolved:
    return Resolved(
        {option.name: values.get(option.name, option.default) for option in OPTIONS},
        {option.name: option.name if option.name in values else "default" for option in OPTIONS},
    )


def problems_of(**values: Any) -> list[str]:
    return [str(each) for each in compose.privilege_problems(given(**values))]


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("manager", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_root_has_to_be_named_where_somebody_has_set_the_workers_up(
    root: bool, manager: bool, config: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "is_root", lambda: root)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if manager:
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    file: dict[str, Any] = {"config": "uvicorn.yaml"} if config else {}
    found = compose.root_problems(given(workers=2, **file))
    if root and (manager or config):
        (problem,) = found
        by = "a configuration file" if config else "a service manager (NOTIFY_SOCKET)"
        assert str(problem).startswith(
            f"user: is not given, and workers that are set up by {by} do not run as root"
        )
    else:
        assert found == []
    assert compose.root_problems(given(**file)) == []  # one process without a master
    assert compose.root_problems(given(workers=2, reload=True, **file)) == []
    assert compose.root_problems(given(workers=2, user="root", **file)) == []


def test_a_user_that_there_is_not_is_told_where_it_stands() -> None:
    assert problems_of(workers=2, user="no-such-user") == ["user: user: there is no user 'no-such-user'."]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", ["user", "group"])
def test_another_user_needs_a_master(name: str) -> None:
    other = {"user": "nobody", "group": 12345}[name]
    expected = [f"{name}: {name}: needs a master: give 'workers' as well (1 is enough)."]
    assert problems_of(**{name: other}) == expected
    assert problems_of(**{name: other}, workers=1) == []


@pytest.mark.parametrize(("user", "lines"), [(None, 1), (0, 0)])
def test_root_without_a_name_is_warned_of(
    user: int | None, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compose, "is_root", lambda: True)
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        compose.warn_of_root(quiet(workers=2, user=user))
    assert len(caplog.records) == lines


# --- the pid file over an upgrade --------------------------------------------------------------


def handed(pid_file: PidFile | None) -> Handover:
    given = HandedPidFile(pid_file.path, pid_file.fileno()) if pid_file is not None else None
    return Handover(1, 1, -1, pid_file=given)


def test_the_pid_file_is_taken_over_with_its_lock(tmp_path: Path) -> None:
    before = PidFile(tmp_path / "pid")
    before.acquire()
    after = compose.pid_file_of(before.path, handed(before))
    assert after.fileno() == before.fileno()
    after.release()
    assert not (tmp_path / "pid").exists()


def test_another_pid_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    before = PidFile(tmp_path / "old")
    before.acquire()
    after = compose.pid_file_of(str(tmp_path / "new"), handed(before))
    assert [each.name for each in tmp_path.iterdir()] == ["new"]
    after.release()


def test_a_pid_file_that_cannot_be_had_leaves_the_one_before(tmp_path: Path) -> None:
    before = PidFile(tmp_path / "old")
    before.acquire()
    missing = str(tmp_path / "missing" / "pid")
    after = compose.pid_file_of(missing, handed(before))
    assert after.path == before.path
    after.release()
    with pytest.raises(PidFileError, match="No such file"):
        compose.pid_file_of(missing, None)


def test_a_pid_file_that_cannot_be_taken_over_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = PidFile(tmp_path / "pid")
    before.acquire()
    given = handed(before)
    before.close_in_child()  # as if it had been lost on the way
    after = compose.pid_file_of(before.path, given)
    assert "cannot be taken over: Bad file descriptor." in caplog.text
    assert after.fileno() >= 0
    assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    after.release()


def test_no_pid_file_any_more(tmp_path: Path) -> None:
    before = PidFile(tmp_path / "old")
    before.acquire()
    assert compose.pid_file_of(None, handed(before)).fileno() == -1
    assert list(tmp_path.iterdir()) == []
    assert compose.pid_file_of(None, handed(None)).fileno() == -1
