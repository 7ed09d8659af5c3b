"""The `uvicorn` command and `run()`."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import platform
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Sequence
from configparser import RawConfigParser
from typing import IO, Any, Literal, NoReturn

import click
import setproctitle

from uvicorn._addresses import Address, BindError
from uvicorn._application import report_failure
from uvicorn._compat import HAS_SUBREAPER
from uvicorn._listener import Listener, inode_of
from uvicorn._passed import passed_binds
from uvicorn._pidfile import PidFile, PidFileError
from uvicorn._privileges import IdentityError, identity_of
from uvicorn._types import ASGIApplication
from uvicorn.compose import (
    Invocation,
    Multiprocess,
    invoked,
    privilege_problems,
    root_problems,
    serve_alone,
    settle_passed,
)
from uvicorn.config import (
    HTTP_PROTOCOLS,
    INTERFACES,
    LIFESPAN,
    LOG_LEVELS,
    LOGGING_CONFIG,
    LOOP_FACTORIES,
    SSL_PROTOCOL_VERSION,
    STARTUP_FAILURE,
    WS_PROTOCOLS,
    Config,
    HTTPProtocolType,
    InterfaceType,
    LifespanType,
    LoopFactoryType,
    SSLContextFactory,
    WSProtocolType,
)
from uvicorn.server import Server
from uvicorn.settings.derived import (
    GroupedCommand,
    click_options,
    effective_listing,
    from_context,
    masked,
    schema_text,
)
from uvicorn.settings.layers import Layer, Problem, Resolved, SettingsError, merge
from uvicorn.settings.sources import from_environ, missing_files, misspelt, unsupported
from uvicorn.supervisor.notify import has_stored
from uvicorn.supervisor.upgrade import HANDOVER_FD, TRIAL, taking_over
from uvicorn.supervisor.upgrade import VERSION as HANDOVER_VERSION

__all__ = [
    "HTTP_PROTOCOLS",
    "INTERFACES",
    "LIFESPAN",
    "LOG_LEVELS",
    "LOOP_FACTORIES",
    "STARTUP_FAILURE",
    "WS_PROTOCOLS",
    "main",
    "run",
]

USAGE_ERROR = 2
# What a shell makes of SIGINT: interrupted before the server had started.
INTERRUPTED = 128 + signal.SIGINT

logger = logging.getLogger("uvicorn.error")


def __getattr__(name: str) -> Any:
    if name == "ServerState":
        warnings.warn(
            "uvicorn.main.ServerState is deprecated, use uvicorn.server.ServerState instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        from uvicorn.server import ServerState  # noqa: PLC0415 - only for those who still ask here

        return ServerState
    if name == "ChangeReload":
        from uvicorn.supervisors import ChangeReload  # noqa: PLC0415 - imports what watches files

        return ChangeReload
    raise AttributeError(f"module {__name__} has no attribute {name}")


# --- the command -------------------------------------------------------------------------------


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    version = importlib.import_module("uvicorn").__version__
    click.echo(
        f"Running uvicorn {version} with {platform.python_implementation()} {platform.python_version()} "
        f"on {platform.system()}"
    )
    ctx.exit()


def _print_schema(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(schema_text(), nl=False)
    ctx.exit()


def _command(ctx: click.Context, check_config: bool, **_: Any) -> None:
    _fill_standard_descriptors()
    with taking_over():
        if (
            HANDOVER_FD not in os.environ and TRIAL not in os.environ
        ):  # it has been told when the service started
            for problem in misspelt(os.environ):
                click.echo(f"Warning: {problem}", err=True)
        _do_what_is_told(ctx, check_config)


def _do_what_is_told(ctx: click.Context, check_config: bool) -> None:
    command_line = from_context(ctx)
    try:
        resolved = resolve(command_line)
    except SettingsError as exc:
        _refuse(ctx, exc.problems)
    if resolved.values["app"] is None:
        raise click.UsageError("Missing argument 'APP'.", ctx)
    if check_config:
        ctx.exit(_check(resolved))
    if problems := root_problems(resolved):
        _refuse(ctx, problems)

    shown = masked(sys.orig_argv)
    if shown != sys.orig_argv:
        # Whoever lists processes sees their command lines. A master and its workers have titles of their own anyway.
        setproctitle.setproctitle(" ".join(shown))
    passed = _passed_binds(ctx)

    def again() -> tuple[Any, dict[str, Any]]:
        fresh = resolve(command_line)
        if problems := root_problems(fresh):
            raise SettingsError(problems)
        return fresh.values["app"], arguments_of(fresh, passed)

    with invoked(Invocation(again, dict(os.environ))):
        try:
            run(resolved.values["app"], **arguments_of(resolved, passed))
        except SettingsError as exc:
            _refuse(ctx, exc.problems)
        except Exception as exc:  # noqa: BLE001 - the application may raise anything
            report_failure(resolved.values["app"], exc)
            ctx.exit(STARTUP_FAILURE)


def _passed_binds(ctx: click.Context) -> list[str]:
    """What systemd has passed in; ends where that is not there."""
    try:
        return passed_binds(os.environ)
    except BindError as exc:
        click.echo(f"Error: {exc}", err=True)
        ctx.exit(STARTUP_FAILURE)


def _refuse(ctx: click.Context, problems: Sequence[Problem]) -> NoReturn:
    """Say everything that is wrong, and end."""
    for problem in problems:
        click.echo(f"Error: {_told(problem)}", err=True)
    ctx.exit(USAGE_ERROR)


def _fill_standard_descriptors() -> None:
    """Where we were started with one of 0 to 2 closed, the next socket would get its number, and what a library or
    another program writes to its standard output would go to a client."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            try:
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
            except OSError as exc:
                text = f"Error: {os.devnull} cannot be opened for descriptor {fd}, which is closed: {exc.strerror}."
                click.echo(text, err=True)
                sys.exit(STARTUP_FAILURE)


main = GroupedCommand(
    name="uvicorn",
    callback=click.pass_context(_command),
    params=[
        click.Argument(["app"], required=False, metavar="APP"),
        *click_options(),
        click.Option(
            ["--check-config"],
            is_flag=True,
            help="Say whether the server would start, and print every effective setting with its source.",
        ),
        click.Option(
            ["--config-schema"],
            is_flag=True,
            callback=_print_schema,
            expose_value=False,
            is_eager=True,
            help="Print the JSON Schema of the configuration file.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            callback=_print_version,
            expose_value=False,
            is_eager=True,
            help="Display the uvicorn version and exit.",
        ),
    ],
    context_settings={"max_content_width": 80},
    help="Serve the ASGI application APP, given as module:attribute.",
)


def _told(problem: Problem) -> str:
    """A problem as click would tell it, where it stands on the command line."""
    if problem.place.startswith("--"):
        return f"Invalid value for '{problem.place}': {problem.message}"
    return str(problem)


def resolve(command_line: Layer) -> Resolved:
    """The settings out of command line, environment and configuration file.

    Raises:
        SettingsError: With everything that is wrong.
    """
    environ = from_environ(os.environ)
    path = command_line.get("config") or environ.get("config")
    layers: list[Layer] = [command_line, environ]
    problems: list[Problem] = []
    if path is not None:
        from uvicorn.settings.yaml_file import from_yaml  # noqa: PLC0415 - 2 MB that only such a file needs

        from_file, problems = from_yaml(path.value, os.environ)
        if "config" in from_file:
            place = from_file["config"].place
            problems.append(Problem(place, "config", "a configuration file cannot name another one."))
            from_file = {name: raw for name, raw in from_file.items() if name != "config"}
        layers.append(from_file)
    return merge(layers, problems, checks=[missing_files, unsupported, privilege_problems])


def arguments_of(resolved: Resolved, passed: Sequence[str] = ()) -> dict[str, Any]:
    """The keyword arguments of `run()`.

    Args:
        passed: The bind addresses of sockets that systemd has passed in: served on where no address is given.
    """
    arguments = resolved.options_for("both", "run")
    if arguments["log_config"] is None:
        arguments["log_config"] = LOGGING_CONFIG
    if arguments["headers"] is None:
        arguments["headers"] = []
    if arguments["app_dir"] is None:
        arguments["app_dir"] = ""
    if passed and not any(resolved.given(name) for name in ("bind", "host", "port", "uds", "fd")):
        arguments["bind"] = list(passed)
    return arguments


def _check(resolved: Resolved) -> int:
    """`--check-config`: everything but serving."""
    click.echo(effective_listing(resolved))
    arguments = arguments_of(resolved)
    app_dir = arguments.pop("app_dir")
    sys.path.insert(0, app_dir)
    try:
        config = Config(resolved.values["app"], **arguments)
        _load_as_worker(config)
    except SystemExit:
        return USAGE_ERROR
    except Exception as exc:  # noqa: BLE001 - the application may raise anything
        report_failure(resolved.values["app"], exc)
        return USAGE_ERROR
    click.echo("The configuration is good: the server would start.")
    for problem in root_problems(resolved):
        # This process is root, perhaps only because it checks for somebody who is not.
        click.echo(f"Not as root, though: {problem}")
    return 0


# --- run() -------------------------------------------------------------------------------------


def run(
    app: ASGIApplication | Callable[..., Any] | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | None = None,
    fd: int | None = None,
    loop: LoopFactoryType | str | Callable[[], asyncio.AbstractEventLoop] = "auto",
    http: type[asyncio.Protocol] | HTTPProtocolType | str = "auto",
    ws: type[asyncio.Protocol] | WSProtocolType | str = "auto",
    ws_max_size: int = 16777216,
    ws_max_queue: int = 32,
    ws_ping_interval: float | None = 20.0,
    ws_ping_timeout: float | None = 20.0,
    ws_per_message_deflate: bool = True,
    lifespan: LifespanType = "auto",
    interface: InterfaceType = "auto",
    reload: bool = False,
    reload_dirs: list[str] | str | None = None,
    reload_includes: list[str] | str | None = None,
    reload_excludes: list[str] | str | None = None,
    reload_delay: float = 0.25,
    workers: int | None = None,
    env_file: str | os.PathLike[str] | None = None,
    log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None = LOGGING_CONFIG,
    log_level: str | int | None = None,
    access_log: bool = True,
    proxy_headers: bool = True,
    server_header: bool = True,
    date_header: bool = True,
    forwarded_allow_ips: list[str] | str | None = None,
    root_path: str = "",
    limit_concurrency: int | None = None,
    backlog: int = 2048,
    limit_max_requests: int | None = None,
    timeout_keep_alive: int = 5,
    timeout_graceful_shutdown: int | None = None,
    timeout_worker_healthcheck: int = 5,
    ssl_keyfile: str | os.PathLike[str] | None = None,
    ssl_certfile: str | os.PathLike[str] | None = None,
    ssl_keyfile_password: str | None = None,
    ssl_version: int = SSL_PROTOCOL_VERSION,
    ssl_cert_reqs: int = ssl.CERT_NONE,
    ssl_ca_certs: str | os.PathLike[str] | None = None,
    ssl_ciphers: str | None = "TLSv1",
    headers: list[tuple[str, str]] | None = None,
    use_colors: bool | None = None,
    app_dir: str | None = None,
    factory: bool = False,
    h11_max_incomplete_event_size: int | None = None,
    bind: list[str] | str | None = None,
    reuse_port: bool = False,
    preload: bool = False,
    user: str | int | None = None,
    group: str | int | None = None,
    umask: str | int | None = None,
    pid_file: str | os.PathLike[str] | None = None,
    timeout_worker_startup: float = 300,
    timeout_worker_stall: float = 30,
    limit_max_requests_jitter: int = 0,
    limit_worker_lifetime: float | None = None,
    limit_worker_lifetime_jitter: float = 0,
    limit_worker_memory: int | None = None,
    limit_worker_memory_jitter: int = 0,
    worker_memory_measure: Literal["rss", "pss"] = "rss",
    worker_memory_interval: float = 10,
    limit_restarts: int = 10,
    tune_gc: bool = True,
    timeout_request_head: float = 60,
    timeout_request_body: float = 60,
    timeout_response_write: float = 60,
    timeout_tls_handshake: float = 60,
    ws_handshake_timeout: float | None = 10.0,
    timeout_lifespan_shutdown: float | None = None,
    shutdown_delay: float = 0,
    limit_request_head: int = 131072,
    limit_request_fields: int = 256,
    limit_pipelined_requests: int = 16,
    limit_connections: int | None = None,
    control_socket: str | os.PathLike[str] | None = None,
    control_read_only: bool = False,
    admin: str | None = None,
    ssl_context_factory: SSLContextFactory | str | None = None,
    reset_contextvars: bool = False,
) -> None:
    """Serve an application until told to stop.

    In one process; under a master with worker processes where `workers` (or $WEB_CONCURRENCY) is given; or in a
    process that starts again whenever a file changes, with `reload`. See docs/settings.md for every argument.

    Args:
        app: The application, or an import string "module:attribute"; workers and reload need the latter.

    Raises:
        SystemExit: With code 3 where the server could not start, 70 where its workers keep dying, 1 where the
            arguments ask for something impossible.
    """
    arguments = dict(locals())
    del arguments["app"], arguments["app_dir"]
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = Config(app, **arguments)
    server = Server(config)

    managed = config.workers_given and isinstance(app, str) and not config.should_reload
    _refuse_impossible(config, managed)
    _refuse_preload_where_it_cannot_be(config, managed)
    trial = os.environ.pop(TRIAL, None)
    if trial is not None:
        _try_out(config, managed, trial)
    exit_code = _served(config, server, managed)
    if exit_code:
        sys.exit(exit_code)


def _served(config: Config, server: Server, managed: bool) -> int:
    """Serve to the end; the exit code."""
    try:
        if config.should_reload:
            _run_reloader(config, server)
            return 0
        if managed:
            return _run_workers(config, server)
        serve_alone(server)
        return 0 if server.started or server.force_exit else STARTUP_FAILURE
    except KeyboardInterrupt:
        alone = not managed and not config.should_reload
        return INTERRUPTED if alone and not server.started else 0
    finally:
        if config.listener is not None:
            config.listener.unlink()


def _refuse_preload_where_it_cannot_be(config: Config, managed: bool) -> None:
    """The command has said so before, with the place where it was asked for; this is for programs."""
    if not config.preload or config.should_reload or (managed and HAS_SUBREAPER):
        return
    why = "needs a master: give 'workers' as well (any number, 1 included), and the application as an import string."
    if managed:
        why = "needs Linux: no other system lets the master adopt workers that another process has forked."
    logger.error("preload %s", why)
    sys.exit(1)


def _refuse_impossible(config: Config, managed: bool) -> None:
    """Arguments that ask for what cannot be had."""
    if (config.reload or config.workers > 1) and not isinstance(config.app, str):
        logger.warning("You must pass the application as an import string to enable 'reload' or 'workers'.")
        sys.exit(1)
    try:
        changes_user = identity_of(config.user, config.group).changes_user
    except IdentityError as exc:
        logger.error("%s", exc)
        sys.exit(1)
    if changes_user and not managed:
        logger.error("user and group need a master: give workers as well (1 is enough).")
        sys.exit(1)


def _bound(config: Config) -> socket.socket:
    """The bound socket. Its file is removed in the end, also where a `bind_socket` of somebody else's has made it."""
    sock = config.bind_socket()
    if config.listener is None and config.uds is not None:
        path = os.fspath(config.uds)
        config.listener = Listener(sock, Address("unix", name=path), ours=True, inode=inode_of(path))
    return sock


def _run_reloader(config: Config, server: Server) -> None:
    sockets = [_bound(config)]
    settle_passed(os.environ)
    if config.umask is not None:
        os.umask(config.umask)
    pid_file = PidFile(config.pid_file or "")
    if config.pid_file is not None:
        try:
            pid_file.acquire()
        except PidFileError as exc:
            logger.error("%s", exc)
            sys.exit(STARTUP_FAILURE)
    from uvicorn.supervisors import ChangeReload  # noqa: PLC0415 - imports what watches files

    try:
        ChangeReload(config, target=server.run, sockets=sockets).run()
    finally:
        pid_file.release()


def _run_workers(config: Config, server: Server) -> int:
    """Under a master; the exit code."""
    # After an upgrade the sockets come from the program before; after a crash perhaps from systemd's store.
    sockets = [] if HANDOVER_FD in os.environ or has_stored(os.environ) else [_bound(config)]
    supervisor = Multiprocess(config, target=server.run, sockets=sockets)
    supervisor.run()
    return supervisor.exit_code


def _try_out(config: Config, managed: bool, version: str) -> NoReturn:
    """The trial of an upgrade: would this program, with these settings, start workers?

    Args:
        version: Of what the running program would hand over.
    """
    if version != str(HANDOVER_VERSION):
        logger.error(
            "The running program hands over in version %s, this one takes version %d: start the service anew.",
            version,
            HANDOVER_VERSION,
        )
        sys.exit(STARTUP_FAILURE)
    if not managed:
        logger.error(
            "Only a master with workers can take another one's place: 'workers' is not given, or 'reload' is."
        )
        sys.exit(USAGE_ERROR)
    _load_as_worker(config)
    sys.exit(0)


def _load_as_worker(config: Config) -> None:
    """Load everything that a worker loads, with its rights: this process does nothing else."""
    config.get_loop_factory()
    config.load_tls()
    identity_of(config.user, config.group, config.umask).take()
    config.load()
