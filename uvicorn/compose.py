"""Where the parts meet: from a `Config` to a single process, a master with workers, or a reloader.

The supervisor and the workers know nothing of each other and of the command line; they are put together here.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import setproctitle

from uvicorn._addresses import Address, BindError, parse_bind
from uvicorn._compat import HAS_FORK
from uvicorn._ipc.control import ControlMain
from uvicorn._listener import Listener
from uvicorn._logconfig import give_files
from uvicorn._logpipe import never_wait_for_readers
from uvicorn._passed import forget_systemd, passed_sockets, release_passed
from uvicorn._pidfile import PidFile, PidFileError
from uvicorn._privileges import IdentityError, identity_of, is_root
from uvicorn._tuning import freeze_heap, keep_freed_memory
from uvicorn.config import HTTP_PROTOCOLS, LIFESPAN, LOOP_FACTORIES, STARTUP_FAILURE, WS_PROTOCOLS, Config
from uvicorn.importer import import_from_string
from uvicorn.server import TICK, Server, ServerHooks
from uvicorn.settings.layers import Problem, Resolved, SettingsError
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.listeners import Key, ListenerSet, keys_for
from uvicorn.supervisor.notify import Notifier, ServiceManager, watchdog_period
from uvicorn.supervisor.plan import ControlPlan, Plan, PlanRejected

if HAS_FORK:
    from uvicorn.supervisor import upgrade
    from uvicorn.supervisor.host import PosixHost
    from uvicorn.supervisor.master import Master
    from uvicorn.supervisor.signals import SignalSource
    from uvicorn.worker import mold
    from uvicorn.worker import process as worker_process

logger = logging.getLogger("uvicorn.error")

# With a master somebody waits for the end: these are the limits where none are given, in seconds.
MANAGED_GRACEFUL_SHUTDOWN = 30
MANAGED_LIFESPAN_SHUTDOWN = 10
# What the master adds to them before it aborts a worker.
DRAIN_MARGIN = 2.0

# The control socket's name in the directory that systemd gives; `uvicornctl` looks for it there.
CONTROL_SOCKET = "uvicorn.ctl"

Target = Callable[[list[socket.socket]], None]


@dataclass(frozen=True, slots=True)
class Invocation:
    """How the command was called, for those who have to read its settings again.

    Attributes:
        resolve: Reads configuration file and environment again; returns the app and the arguments of `run()`.
        environ: The environment that the command was called in, before an environment file was loaded into it.
    """

    resolve: Callable[[], tuple[Any, dict[str, Any]]]
    environ: Mapping[str, str]


_invocation: ContextVar[Invocation | None] = ContextVar("invocation", default=None)


@contextlib.contextmanager
def invoked(invocation: Invocation) -> Generator[None, None, None]:
    """Within it, a master that is told to reload reads the settings again in this way."""
    token = _invocation.set(invocation)
    try:
        yield
    finally:
        _invocation.reset(token)


# --- one process -------------------------------------------------------------------------------


class SingleProcessHooks(ServerHooks):
    """A process that serves alone and does nothing else. The service manager hears of it.

    Args:
        environ: What systemd has told this process, taken out of the environment that the application sees; None
            where that is left alone.
        pid_file: Where its process id is to be written, if anywhere.
    """

    def __init__(
        self, environ: MutableMapping[str, str] | None = None, pid_file: PidFile | None = None
    ) -> None:
        self._pid_file = pid_file
        # Whether the server stops at once, for what was missing when it had started.
        self.failed = False
        self._environ = environ if environ is not None else os.environ
        told = environ or {}
        self._notifier = Notifier(told.get("NOTIFY_SOCKET", ""))
        period = watchdog_period(told)
        self._period = period / 3 if period is not None else float("inf")
        self._watchdog_at = 0.0

    def passed(self) -> MutableMapping[str, str]:
        return self._environ

    def started(self, server: Server) -> None:
        if self._pid_file is not None:
            try:
                self._pid_file.acquire()
            except PidFileError as exc:
                logger.error("%s", exc)
                self.failed = server.should_exit = True
        settle_passed(self._environ)
        if HAS_FORK:  # where systemd can have passed one; no program that the application starts gets it
            for sock in [sock for listening in server.servers for sock in listening.sockets]:
                os.set_inheritable(sock.fileno(), False)
        if server.config.tune_gc:
            freeze_heap()
        keep_freed_memory()
        self._notifier.send("READY=1", "STATUS=Serving in one process.")

    def shortest_period(self) -> float:
        return min(TICK, self._period)

    def tick(self, server: Server, now: float) -> None:
        if self._period != float("inf") and server.started and now >= self._watchdog_at:
            # The event loop itself says it: one that is stuck says nothing.
            self._watchdog_at = now + self._period
            self._notifier.send("WATCHDOG=1")

    def finished(self, server: Server) -> None:
        # What comes now is the signal that has stopped it, and ends the process.
        if self._pid_file is not None:
            self._pid_file.release()

    def shutdown_delay(self, server: Server) -> float:
        self._notifier.send("STOPPING=1", "STATUS=Stopping.")
        return super().shutdown_delay(server)


def serve_alone(server: Server) -> None:
    """Serve in this process until it is told to stop."""
    if server.config.control_socket is not None or server.config.admin is not None:
        logger.warning("control_socket and admin need a master, which there is with 'workers': not served.")
    config = server.config
    never_wait_for_readers()
    if config.umask is not None:
        os.umask(config.umask)
    pid_file = PidFile(config.pid_file) if config.pid_file is not None else None
    environ: dict[str, str] | None = None
    if _invocation.get() is not None:
        environ = dict(os.environ)
        for each in passed_sockets(environ):
            os.set_inheritable(each.fd, False)
        forget_systemd(os.environ)
    hooks = server.hooks = SingleProcessHooks(environ, pid_file)
    server.run()
    if hooks.failed:
        sys.exit(STARTUP_FAILURE)


def settle_passed(environ: MutableMapping[str, str]) -> None:
    """Every address is open: what systemd has passed besides is closed, with a word about it.

    Only where the process is ours: a program that calls `run()` may have its own use for it.
    """
    if _invocation.get() is None:
        return
    unused = release_passed(environ)
    if unused:
        logger.warning(
            "systemd has passed socket(s) that nobody serves on, and that are closed: %s. Name them in 'bind' "
            "(systemd:NAME), or take them out of the socket unit.",
            ", ".join(unused),
        )


# --- a master with workers ---------------------------------------------------------------------


class Multiprocess:
    """A master with worker processes.

    Args:
        config: The configuration.
        target: What serves in each worker, called with the sockets: usually `Server(config).run`.
        sockets: Bound sockets for the workers to share.
    """

    def __init__(self, config: Config, target: Callable[..., Any], sockets: list[socket.socket]) -> None:
        self.config = config
        self.target = target
        self.sockets = sockets
        self.exit_code = 0

    def run(self) -> None:
        """Run until told to stop; `exit_code` says how it went."""
        if not HAS_FORK:  # pragma: no cover - Windows only
            raise RuntimeError("Worker processes need a system with fork(); leave out 'workers' on this one.")
        never_wait_for_readers()
        listeners = ListenerSet()
        manager = ServiceManager(os.environ)
        pid_file = PidFile("")
        try:
            plan = plan_from(self.config, self.target)
            signals = SignalSource(is_last=_invocation.get() is not None)
            control_main = _control_main(plan)
            # From here on there is no second try: see `taking_over`.
            handover, scoreboard = upgrade.take(os.environ)
            for key, listener in _adopted(self.config, plan, self.sockets):
                listeners.take(key, listener)
            if handover is None:
                # As long as systemd's variables are there.
                manager.take_stored(listeners, plan, os.environ)
                listeners.open(plan, plan.announce)
            pid_file = pid_file_of(plan.pid_file, handover)
        except (ValueError, BindError, PidFileError) as exc:
            logger.error("%s", exc)
            listeners.stop()
            self.exit_code = STARTUP_FAILURE
            return
        except BaseException:
            listeners.stop()
            raise
        try:
            warn_of_root(self.config)
            if handover is None:
                settle_passed(os.environ)
            forget_systemd(os.environ)
            prepare_forks(self.config)
            master = Master(
                plan,
                worker_process.main,
                lambda: _reloaded_plan(self),
                PosixHost(),
                listeners,
                setproctitle.setproctitle,
                signals,
                manager,
                control_main,
                mold.main,
                pid_file,
            )
            self.exit_code = master.run(handover, scoreboard)
        except BindError as exc:
            logger.error("%s", exc)
            self.exit_code = STARTUP_FAILURE
        finally:
            listeners.stop()
            pid_file.release()


def _control_main(plan: Plan) -> ControlMain | None:
    """What the control process runs; None for a master without one, which has nothing of it in its memory.

    Imported before it is forked: the program on the disk may be another one when the process is replaced.
    """
    if plan.control is None:
        return None
    from uvicorn.control import process  # noqa: PLC0415

    return process.main


def pid_file_of(path: str | None, handover: upgrade.Handover | None) -> PidFile:
    """The pid file, written, or taken over from the program before.

    Raises:
        PidFileError: It cannot be had. After an upgrade that is a line in the log: the workers serve.
    """
    before = PidFile("")
    if handover is not None and handover.pid_file is not None:
        before = PidFile(handover.pid_file.path)
        try:
            before.adopt(handover.pid_file.fd)
        except OSError as exc:
            logger.error("pid file %s: cannot be taken over: %s.", before.path, exc.strerror or exc)
    if path == (before.path if before.fileno() >= 0 else None):
        return before
    wanted = PidFile(path or "")
    if path is not None:
        try:
            wanted.acquire()
        except PidFileError as exc:
            if handover is None:
                raise
            logger.error("%s", exc)
            return before
    before.release()
    return wanted


def warn_of_root(config: Config) -> None:
    """What 0.37.0 has always started as root goes on to be started; that nobody has asked for it is said once."""
    if config.user is None and is_root():
        logger.warning(
            "The workers run as root: 'user' lets them run as somebody else (user: root says that it is meant)."
        )


def privilege_problems(resolved: Resolved) -> list[Problem]:
    """What is wrong with the user and group to serve as."""
    values, places = resolved.values, resolved.places
    try:
        changes_user = identity_of(values["user"], values["group"]).changes_user
    except IdentityError as exc:
        return [Problem(places[exc.setting], exc.setting, exc.text)]
    if not changes_user or _is_managed(resolved):
        return []
    name = "user" if values["user"] is not None else "group"
    return [Problem(places[name], name, "needs a master: give 'workers' as well (1 is enough).")]


def root_problems(resolved: Resolved) -> list[Problem]:
    """Whether workers would run as root without having been told to; docs/decisions/privileges.md says where that is
    refused, and why not everywhere."""
    if not _is_managed(resolved) or resolved.values["user"] is not None or not is_root():
        return []
    if resolved.given("config"):
        by = "a configuration file"
    elif "NOTIFY_SOCKET" in os.environ:
        by = "a service manager (NOTIFY_SOCKET)"
    else:
        return []
    text = (
        f"is not given, and workers that are set up by {by} do not run as root without being told to: name the user "
        "that they are to run as ('user: www-data'), or say that root is meant ('user: root')."
    )
    return [Problem("", "user", text)]


def _is_managed(resolved: Resolved) -> bool:
    return resolved.values["workers"] not in (None, 0) and not resolved.values["reload"]


def prepare_forks(config: Config) -> None:
    """Import what every worker needs of the server itself, so that a replacement does not have to.

    Only implementations of our own are imported: one that is named by an import string is the application's code,
    which has no place in the master. What exists now is left out of all garbage collections, so that the workers go
    on sharing its pages.
    """
    if not config.preload:
        try:
            _import_implementations(config)
        except Exception as exc:  # noqa: BLE001 - whatever it is: it is the workers that need it, and they say it
            logger.warning(
                "What workers need cannot be imported in advance (%s: %s): each imports it by itself.",
                type(exc).__name__,
                exc,
            )
    gc.collect()
    gc.freeze()


def _import_implementations(config: Config) -> None:
    tables: tuple[tuple[Any, Mapping[str, str | None]], ...] = (
        (config.http, HTTP_PROTOCOLS),
        (config.ws, WS_PROTOCOLS),
        (config.lifespan, LIFESPAN),
    )
    for choice, table in tables:
        path = table.get(choice) if isinstance(choice, str) else None
        if path is not None:
            import_from_string(path)
    if config.loop in LOOP_FACTORIES:
        config.get_loop_factory()


def _adopted(config: Config, plan: Plan, sockets: list[socket.socket]) -> list[tuple[Key, Listener]]:
    """The sockets that were bound before the master: they stand for the plan's addresses, in order."""
    keys = keys_for(plan, 1)
    bound = config.listener
    taken = []
    for i, sock in enumerate(sockets):
        key = keys[i] if i < len(keys) else Key(Address("fd", fd=sock.fileno()))
        if bound is not None and bound.sock is sock:
            listener = bound
        else:
            listener = Listener(sock, key.address, ours=True)
        taken.append((key, listener))
    return taken


def plan_from(config: Config, target: Target) -> Plan:
    """What the master needs to know of a configuration. Gives its shutdown the limits that a master needs."""
    if config.timeout_graceful_shutdown is None:
        config.timeout_graceful_shutdown = MANAGED_GRACEFUL_SHUTDOWN
    if config.timeout_lifespan_shutdown is None:
        config.timeout_lifespan_shutdown = MANAGED_LIFESPAN_SHUTDOWN
    environ = dict(os.environ)
    environ.pop(upgrade.HANDOVER_FD, None)
    forget_systemd(environ)
    identity = identity_of(config.user, config.group, config.umask)

    def give_log_files() -> None:
        if identity.uid is not None:
            give_files(identity.uid)

    def apply() -> None:
        # First, since the logging configuration may be in a file that cannot be read any more.
        os.environ.clear()
        os.environ.update(environ)
        config.configure_logging()
        never_wait_for_readers()
        give_log_files()

    give_log_files()
    return Plan(
        title=config.app if isinstance(config.app, str) else type(config.app).__name__,
        spec=PoolSpec(
            size=config.workers,
            startup=config.timeout_worker_startup,
            healthcheck=config.timeout_worker_healthcheck,
            stall=config.timeout_worker_stall,
            drain=config.timeout_graceful_shutdown + config.timeout_lifespan_shutdown + DRAIN_MARGIN,
            shutdown_delay=config.shutdown_delay,
            limit_restarts=config.limit_restarts,
            preload=config.preload,
        ),
        addresses=tuple(config.bind_addresses),
        backlog=config.backlog,
        reuse_port=config.reuse_port,
        target=target,
        announce=config.announce,
        apply=apply,
        control=control_from(config),
        identity=identity,
        rights=config.socket_rights,
        pid_file=os.path.abspath(config.pid_file) if config.pid_file is not None else None,
    )


def control_from(config: Config) -> ControlPlan | None:
    """Where the control process answers; None where nobody has asked for one.

    systemd's RUNTIME_DIRECTORY asks for the control socket, but only of the command: `run()` and `Config()` read nothing
    of it.
    """
    path = config.control_socket
    invocation = _invocation.get()
    runtime = invocation.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] if invocation is not None else ""
    if path is None and runtime:
        path = os.path.join(runtime, CONTROL_SOCKET)
    if path is None and config.admin is None:
        return None
    return ControlPlan(
        socket=Address("unix", name=os.path.abspath(path)) if path is not None else None,
        admin=parse_bind(config.admin) if config.admin is not None else None,
        read_only=config.control_read_only,
    )


def _reloaded_plan(supervisor: Multiprocess) -> Plan:
    """The configuration as it is now on disk.

    Without a command that could be asked (`run()` called by a program) it is the same one, for new code.

    Raises:
        PlanRejected: It cannot be used.
    """
    invocation = _invocation.get()
    if invocation is None:
        return plan_from(supervisor.config, supervisor.target)
    # What an environment file has set before must not stand for what it sets now.
    os.environ.clear()
    os.environ.update(invocation.environ)
    os.environ.pop(upgrade.HANDOVER_FD, None)
    forget_systemd(os.environ)
    try:
        app, arguments = invocation.resolve()
        app_dir = arguments.pop("app_dir", None)
        config = Config(app, **arguments)
        never_wait_for_readers()
    except SettingsError as exc:
        raise PlanRejected(str(exc)) from None
    except SystemExit as exc:
        raise PlanRejected(f"exit {exc.code}") from None
    except Exception as exc:  # a logging configuration can fail in any way
        raise PlanRejected(f"{type(exc).__name__}: {exc}") from exc
    if app is None:
        raise PlanRejected("app: is not given any more.")
    if not config.workers_given:
        config.workers = supervisor.config.workers
    if app_dir is not None and app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    return plan_from(config, Server(config).run)
