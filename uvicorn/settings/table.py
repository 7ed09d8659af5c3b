"""THE table: every option of the server, once.

What an option is called, what it may hold, its default, its help, where it can be given and what a reload does with
a change of it stands here and nowhere else. Command line, environment, YAML, JSON Schema and the settings page are
derived from it (derived.py); `Config.__init__` and `run()` keep signatures of their own for editors and type
checkers, and a test holds them to the table.

Times are in seconds and sizes in bytes unless the value's text says otherwise ("250ms", "2h", "512M").
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Any, Literal

from uvicorn.settings.kinds import (
    Account,
    AddressList,
    BindAddress,
    Boolean,
    Choice,
    Duration,
    HeaderList,
    Importable,
    Integer,
    Kind,
    ListOf,
    LogConfig,
    LogLevel,
    PathText,
    Secret,
    Size,
    TcpAddress,
    Umask,
    WorkerCount,
)

LOG_LEVEL_NAMES = ("critical", "error", "warning", "info", "debug", "trace")
HTTP_NAMES = ("auto", "h11", "httptools")
WS_NAMES = ("auto", "none", "websockets", "websockets-sansio", "wsproto")
LOOP_NAMES = ("none", "auto", "asyncio", "uvloop")
LIFESPAN_NAMES = ("auto", "on", "off")
INTERFACE_NAMES = ("auto", "asgi3", "asgi2", "wsgi")

# Who takes an option: `run()` and `Config()`; one of the two; or the command alone.
Taker = Literal["both", "run", "config", "command"]
# What SIGHUP does with a change: the next generation of workers has it; listeners open and close;
# the master itself takes it at once; it stays as it is until a restart.
OnReload = Literal["workers", "binds", "master", "restart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        name: The parameter's name, which is also the YAML key.
        default: The value where nobody gives one, in the documented unit.
        kind: How values are read and checked.
        group: The heading it stands under.
        help: What it does, for `--help` and the settings page; full sentences.
        flag: The command-line flag; "" where the command line has none.
        negatable: Whether the flag has a `--no-` form.
        env: Variables that are read besides `UVICORN_<NAME>`, which goes before them.
        default_text: What the default means, where the value alone does not say.
        taker: Who takes it.
        on_reload: What a reload does with a change of it.
        since: The first version with it.
        secret: Whether its value is masked wherever it is shown.
        nullable: Whether it may be null though that is not the default.
    """

    name: str
    default: Any
    kind: Kind
    group: str
    help: str
    flag: str
    negatable: bool = False
    env: tuple[str, ...] = ()
    default_text: str = ""
    taker: Taker = "both"
    on_reload: OnReload = "workers"
    since: str = "0.37.0"
    secret: bool = False
    nullable: bool = False

    @property
    def env_name(self) -> str:
        return "UVICORN_" + self.name.upper()

    @property
    def many(self) -> bool:
        return isinstance(self.kind, ListOf)

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone: no value follows it."""
        return isinstance(self.kind, Boolean) and self.name != "ws_per_message_deflate"


@dataclass(slots=True)
class _Builder:
    """Collects the options of the table below, group by group."""

    options: list[Option] = field(default_factory=list)
    group: str = ""

    def heading(self, group: str) -> None:
        self.group = group

    def add(self, name: str, default: Any, kind: Kind, help: str, **more: Any) -> None:
        more.setdefault("flag", "--" + name.replace("_", "-"))
        self.options.append(
            Option(name=name, default=default, kind=kind, help=help, group=self.group, **more)
        )


def _build() -> tuple[Option, ...]:
    table = _Builder()
    _application(table)
    _binding(table)
    _privileges(table)
    _workers(table)
    _lifecycle(table)
    _limits(table)
    _protocols(table)
    _proxy(table)
    _logging(table)
    _control(table)
    _tls(table)
    _development(table)
    _configuration(table)
    return tuple(table.options)


def _application(table: _Builder) -> None:
    table.heading("Application")
    add = table.add
    add(
        "app_dir",
        None,
        PathText(),
        "Look for APP in this directory, by putting it at the front of the import path.",
        taker="run",
        default_text="the current directory",
    )
    add(
        "factory",
        False,
        Boolean(),
        "Treat APP as a factory: a function without arguments that returns the app.",
    )
    add(
        "interface",
        "auto",
        Choice(names=INTERFACE_NAMES),
        "The application interface. auto tells ASGI 3 from ASGI 2 by how the app can be called.",
    )
    add(
        "lifespan",
        "auto",
        Choice(names=LIFESPAN_NAMES),
        "Lifespan events. auto goes on without them where the app does not support them; on makes that an error.",
    )
    add("root_path", "", Kind(), "The ASGI root_path, for applications mounted below a URL path.")
    add(
        "env_file",
        None,
        PathText(),
        "A .env file for the application's environment; needs python-dotenv.",
    )


def _binding(table: _Builder) -> None:
    table.heading("Binding")
    add = table.add
    add("host", "127.0.0.1", Kind(), "Bind to this host.", on_reload="binds")
    add("port", 8000, Integer(0, 65535), "Bind to this port; 0 picks a free one.", on_reload="binds")
    add("uds", None, PathText(), "Bind to this UNIX domain socket instead.", on_reload="binds")
    add("fd", None, Integer(0), "Serve on the socket of this file descriptor instead.", on_reload="binds")
    add(
        "bind",
        None,
        ListOf(item=BindAddress(), split_at=","),
        "Bind to this address; may be given many times. HOST:PORT, [IPV6]:PORT, unix:PATH (unix:@NAME for Linux' abstract "
        "names), fd://N, or systemd:NAME for a socket that systemd passes in. [::] takes IPv4 as well, unless another bind "
        "has its port for that. Takes the place of host, port, uds and fd.",
        since="0.37.0+",
        on_reload="binds",
    )
    add(
        "backlog",
        2048,
        Integer(1),
        "How many connections the kernel may queue before they are accepted; it may allow fewer (net.core.somaxconn).",
        on_reload="binds",
    )
    add(
        "reuse_port",
        False,
        Boolean(),
        "Give each worker a listening socket of its own (SO_REUSEPORT), held by the master while workers come and go. "
        "Cheaper for many short connections; the kernel spreads them at random. Linux only.",
        since="0.37.0+",
        on_reload="binds",
    )


def _privileges(table: _Builder) -> None:
    table.heading("User and files")
    add = table.add
    add(
        "user",
        None,
        Account(),
        "Let workers and control process run as this user, by name or number, with its supplementary groups, once the "
        "sockets are open; the master stays root. root says that workers may run as root. Needs workers.",
        default_text="the master's",
        since="0.37.0+",
    )
    add(
        "group",
        None,
        Account(),
        "Their group, by name or number. Needs workers.",
        default_text="the user's",
        since="0.37.0+",
    )
    add(
        "umask",
        None,
        Umask(),
        "The rights that files do not get which the serving processes make, in octal; for UNIX sockets as well.",
        default_text="as inherited; 0 for UNIX sockets",
        since="0.37.0+",
    )
    add(
        "pid_file",
        None,
        PathText(),
        "Write the process id into this file when the sockets are open, locked as long as the process lives.",
        default_text="none",
        since="0.37.0+",
        on_reload="restart",
    )


def _workers(table: _Builder) -> None:
    table.heading("Workers")
    add = table.add
    add(
        "workers",
        None,
        WorkerCount(),
        'Number of worker processes under a master; "auto" for the number of usable CPUs. Left out or 0: one '
        "process without a master. Not valid with --reload.",
        env=("WEB_CONCURRENCY",),
        on_reload="master",
    )
    add(
        "preload",
        False,
        Boolean(),
        "Import the application once, in a process of its own, and fork the workers from that: they share its memory, and "
        "are there within milliseconds. A reload imports the code on disk anew. Needs a master ('workers') and Linux.",
        since="0.37.0+",
    )
    add(
        "timeout_worker_startup",
        300,
        Duration(),
        "A worker that has not finished its start-up after this time is replaced; 0 waits for ever. Likewise for the "
        "import with 'preload'.",
        since="0.37.0+",
    )
    add(
        "timeout_worker_healthcheck",
        5,
        Duration(0.1),
        "A worker whose process gives no sign of life for this time is aborted and replaced; one whose event loop "
        "alone gives none is reported as stalled.",
    )
    add(
        "timeout_worker_stall",
        30,
        Duration(),
        "A worker whose event loop has been stalled for this time is replaced; 0 never does.",
        since="0.37.0+",
    )
    add(
        "limit_max_requests",
        None,
        Integer(1),
        "Replace a worker (or end the single process) after this many requests.",
        default_text="no limit",
    )
    add(
        "limit_max_requests_jitter",
        0,
        Integer(0),
        "Up to this many requests are added at random, so that workers do not leave together.",
        since="0.37.0+",
    )
    add(
        "limit_worker_lifetime",
        None,
        Duration(1),
        "Replace a worker after this time.",
        default_text="no limit",
        since="0.37.0+",
    )
    add(
        "limit_worker_lifetime_jitter",
        0,
        Duration(),
        "Up to this time is added at random, so that workers do not leave together.",
        since="0.37.0+",
    )
    add(
        "limit_worker_memory",
        None,
        Size(2**20),
        "Replace a worker whose memory is above this size three times in a row. Not applied to one that is above it when "
        "it starts.",
        default_text="no limit",
        since="0.37.0+",
    )
    add(
        "limit_worker_memory_jitter",
        0,
        Size(),
        "Up to this size is added at random, so that workers do not leave together.",
        since="0.37.0+",
    )
    add(
        "worker_memory_measure",
        "rss",
        Choice(names=("rss", "pss")),
        "What is a worker's memory: rss, all that is resident, or pss, in which pages that are shared count in part. pss "
        "costs more to find out, and is Linux only.",
        since="0.37.0+",
    )
    add(
        "worker_memory_interval",
        10,
        Duration(1),
        "Time between two looks at a worker's memory.",
        since="0.37.0+",
    )
    add(
        "limit_restarts",
        10,
        Integer(1),
        "The master gives up with exit code 70 when no worker is ready and this many had to be restarted within 60 "
        "seconds.",
        since="0.37.0+",
        on_reload="master",
    )
    add(
        "tune_gc",
        True,
        Boolean(),
        "Freeze the objects that exist after start-up and collect garbage less often in processes that serve.",
        since="0.37.0+",
        negatable=True,
    )


def _lifecycle(table: _Builder) -> None:
    table.heading("Timeouts")
    add = table.add
    add("timeout_keep_alive", 5, Duration(), "Close idle connections this long after the last response.")
    add(
        "timeout_request_head",
        60,
        Duration(1),
        "Close a connection whose request head is not complete after this time, counted from the head's first byte, "
        "or from the connection's start.",
        since="0.37.0+",
    )
    add(
        "timeout_request_body",
        60,
        Duration(1),
        "Close a connection whose request body stands still for this time while the application waits for it.",
        since="0.37.0+",
    )
    add(
        "timeout_response_write",
        60,
        Duration(1),
        "Close a connection whose client takes nothing of a waiting response for this time.",
        since="0.37.0+",
    )
    add(
        "timeout_tls_handshake",
        60,
        Duration(1),
        "Close a connection whose TLS handshake is not complete after this time.",
        since="0.37.0+",
    )
    add(
        "timeout_graceful_shutdown",
        None,
        Duration(),
        "How long requests in flight get to finish when a process has to stop; then they are cancelled.",
        default_text="30 under a master, else no limit",
    )
    add(
        "timeout_lifespan_shutdown",
        None,
        Duration(),
        "How long the application's lifespan shutdown gets.",
        default_text="10 under a master, else no limit",
        since="0.37.0+",
    )
    add(
        "shutdown_delay",
        0,
        Duration(),
        "Keep serving for this time after the signal to stop, so that load balancers notice.",
        since="0.37.0+",
    )


def _limits(table: _Builder) -> None:
    table.heading("Limits")
    add = table.add
    add(
        "limit_concurrency",
        None,
        Integer(1),
        "Answer 503 while this many connections are open or tasks are running, in each process.",
        default_text="no limit",
    )
    add(
        "limit_request_head",
        131072,
        Size(1024),
        "The largest request head (request line and header fields) that is read; a larger one gets 431 or 414.",
        since="0.37.0+",
    )
    add(
        "limit_request_fields",
        256,
        Integer(8),
        "How many header fields a request may have; more get 431.",
        since="0.37.0+",
    )
    add(
        "limit_pipelined_requests",
        16,
        Integer(2),
        "How many requests of one connection may wait behind the one that is being answered; then it is not read from.",
        since="0.37.0+",
    )
    add(
        "limit_connections",
        None,
        Integer(1),
        "How many connections a process holds open; more get 503 and are closed. A safety net: the application keeps "
        "descriptors for files and connections of its own.",
        default_text="nine tenths of the file descriptors that the process may open",
        since="0.37.0+",
    )
    add(
        "h11_max_incomplete_event_size",
        None,
        Size(1),
        "For h11: how many bytes of an incomplete request head are kept.",
        default_text="16384, h11's own",
    )


def _protocols(table: _Builder) -> None:
    table.heading("Protocols")
    add = table.add
    add(
        "loop",
        "auto",
        Choice(names=LOOP_NAMES, importable=True),
        "The event loop, or an import string that names a loop factory. auto is uvloop where it is installed.",
    )
    add(
        "http",
        "auto",
        Choice(names=HTTP_NAMES, importable=True),
        "The HTTP implementation, or an import string. auto is httptools where it is installed.",
    )
    add(
        "ws",
        "auto",
        Choice(names=WS_NAMES, importable=True),
        "The WebSocket implementation, or an import string. auto is websockets, else wsproto, where installed.",
    )
    add("ws_max_size", 16777216, Size(0), "The largest WebSocket message that is taken.")
    add("ws_max_queue", 32, Integer(1), "How many WebSocket messages may wait for the application.")
    add(
        "ws_handshake_timeout",
        10.0,
        Duration(),
        "How long the application may take to accept or refuse a WebSocket; then the client gets 504. 0 waits for ever.",
        nullable=True,
        since="0.37.0+",
    )
    add(
        "ws_ping_interval",
        20.0,
        Duration(),
        "Time between pings to WebSocket clients; 0 sends none.",
        nullable=True,
    )
    add(
        "ws_ping_timeout",
        20.0,
        Duration(),
        "How long a WebSocket client may take to answer a ping; 0 waits for ever.",
        nullable=True,
    )
    add(
        "ws_per_message_deflate",
        True,
        Boolean(),
        "Offer compression to WebSocket clients.",
    )
    add(
        "reset_contextvars",
        False,
        Boolean(),
        "Run each request in a context of its own that is empty, so that it sees no context variables that were set "
        "while the application was imported or started.",
        since="0.37.0+",
    )


def _proxy(table: _Builder) -> None:
    table.heading("Headers and proxies")
    add = table.add
    add(
        "proxy_headers",
        True,
        Boolean(),
        "Take scheme and client address from X-Forwarded-Proto and X-Forwarded-For of trusted proxies.",
        negatable=True,
    )
    add(
        "forwarded_allow_ips",
        None,
        AddressList(),
        "The proxies to trust: a comma-separated list of addresses, networks and literals, such as the path of a "
        "UNIX socket; '*' trusts every peer.",
        env=("FORWARDED_ALLOW_IPS",),
        default_text="127.0.0.1",
    )
    add("server_header", True, Boolean(), "Send a Server header.", negatable=True)
    add("date_header", True, Boolean(), "Send a Date header.", negatable=True)
    add(
        "headers",
        None,
        HeaderList(),
        "A header to send with every response, as Name:Value; may be given many times.",
        flag="--header",
    )


def _logging(table: _Builder) -> None:
    table.heading("Logging")
    add = table.add
    add(
        "log_config",
        None,
        LogConfig(),
        "A logging configuration file: .ini, .json or .yaml; in YAML also the configuration itself.",
        default_text="LOGGING_CONFIG",
    )
    add(
        "log_level",
        None,
        LogLevel(names=LOG_LEVEL_NAMES),
        "The log level.",
        default_text="info",
    )
    add("access_log", True, Boolean(), "Write an access log.", negatable=True)
    add(
        "use_colors",
        None,
        Boolean(),
        "Colour the log.",
        negatable=True,
        default_text="where it goes to a terminal",
    )


def _control(table: _Builder) -> None:
    table.heading("Control")
    add = table.add
    add(
        "control_socket",
        None,
        PathText(),
        "The path of a UNIX socket on which uvicornctl commands the master and looks inside. Its file belongs to the "
        "master's user alone. Needs workers.",
        default_text="off; uvicorn.ctl in $RUNTIME_DIRECTORY where systemd gives one",
        since="0.37.0+",
        on_reload="restart",
    )
    add(
        "control_read_only",
        False,
        Boolean(),
        "Let the control socket only tell, and refuse every command.",
        since="0.37.0+",
        on_reload="restart",
    )
    add(
        "admin",
        None,
        TcpAddress(),
        "Answer probes, metrics and a status page at this HOST:PORT, read-only and without authentication: keep it "
        "private. Needs workers.",
        default_text="off",
        since="0.37.0+",
        on_reload="restart",
    )


def _tls(table: _Builder) -> None:
    table.heading("TLS")
    add = table.add
    add("ssl_keyfile", None, PathText(), "The private key's file.")
    add("ssl_certfile", None, PathText(), "The certificate's file; may hold the chain and the key as well.")
    add("ssl_keyfile_password", None, Secret(), "The private key's password.", secret=True)
    add(
        "ssl_version",
        int(ssl.PROTOCOL_TLS_SERVER),
        Integer(),
        "The TLS version, as a number of Python's ssl module.",
    )
    add(
        "ssl_cert_reqs",
        int(ssl.CERT_NONE),
        Integer(0, 2),
        "Client certificates: 0 none, 1 optional, 2 required.",
    )
    add(
        "ssl_ca_certs",
        None,
        PathText(),
        "The file with the authorities that client certificates are checked by.",
    )
    add(
        "ssl_ciphers",
        "TLSv1",
        Kind(),
        "The ciphers, in OpenSSL's notation; null for OpenSSL's own choice.",
        nullable=True,
    )
    add(
        "ssl_context_factory",
        None,
        Importable(),
        "What makes the TLS context: a function of the Config and of another function, which makes the context that "
        "the options above describe.",
        since="0.37.0+",
    )


def _development(table: _Builder) -> None:
    table.heading("Development")
    add = table.add
    add("reload", False, Boolean(), "Start again whenever a file changes.", on_reload="restart")
    add(
        "reload_dirs",
        None,
        ListOf(item=PathText(), split_at=os.pathsep),
        "Watch this directory; may be given many times.",
        flag="--reload-dir",
        default_text="the current directory",
        on_reload="restart",
    )
    add(
        "reload_includes",
        None,
        ListOf(item=Kind()),
        "Watch files that match this glob pattern, besides '*.py'; may be given many times. Needs watchfiles.",
        flag="--reload-include",
        on_reload="restart",
    )
    add(
        "reload_excludes",
        None,
        ListOf(item=Kind()),
        "Do not watch files that match this glob pattern, besides '.*, .py[cod], .sw.*, ~*'; may be given many "
        "times. Needs watchfiles.",
        flag="--reload-exclude",
        on_reload="restart",
    )
    add(
        "reload_delay",
        0.25,
        Duration(),
        "Time between two looks for changes.",
        on_reload="restart",
    )


def _configuration(table: _Builder) -> None:
    table.heading("Configuration")
    table.add(
        "config",
        None,
        PathText(),
        "Read settings from this YAML file. The command line and the environment go before it.",
        taker="command",
        since="0.37.0+",
        on_reload="restart",
    )


OPTIONS: tuple[Option, ...] = _build()
BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}

# The application itself: a setting in YAML and the environment, the argument of the command.
APP = Option(
    name="app",
    default=None,
    kind=Kind(),
    group="Application",
    help='The application, as "module:attribute".',
    flag="",
)
