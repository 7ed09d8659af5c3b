"""The documented `Config`: one object with every setting, and what it loads and binds.

The signature stands here for editors and type checkers; names, defaults and meanings are those of the table in
`uvicorn.settings.table`, and a test holds the two together.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from configparser import RawConfigParser
from pathlib import Path
from typing import IO, Any, Literal, cast

import click

from uvicorn import _logconfig, _reload_paths
from uvicorn._addresses import Address, BindError, parse_bind, shared_with_ipv4
from uvicorn._application import STARTUP_FAILURE, is_asgi3, load_app
from uvicorn._compat import usable_cpus
from uvicorn._listener import Listener, url_of
from uvicorn._logconfig import LOG_LEVELS, LOGGING_CONFIG
from uvicorn._privileges import identity_of
from uvicorn._sockets import SOCKET_MODE, SocketRights, bind_only
from uvicorn._tls import create_ssl_context
from uvicorn._types import ASGIApplication
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.middleware.asgi2 import ASGI2Middleware
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.settings.kinds import Duration, Size, Umask
from uvicorn.settings.sources import env_file_text
from uvicorn.settings.table import OPTIONS

__all__ = [
    "HTTP_PROTOCOLS",
    "INTERFACES",
    "LIFESPAN",
    "LOGGING_CONFIG",
    "LOG_LEVELS",
    "LOOP_FACTORIES",
    "SSL_PROTOCOL_VERSION",
    "STARTUP_FAILURE",
    "WS_PROTOCOLS",
    "Config",
    "HTTPProtocolType",
    "InterfaceType",
    "LifespanType",
    "LoopFactoryType",
    "SSLContextFactory",
    "WSProtocolType",
    "create_ssl_context",
]

HTTPProtocolType = Literal["auto", "h11", "httptools"]
WSProtocolType = Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"]
LifespanType = Literal["auto", "on", "off"]
LoopFactoryType = Literal["none", "auto", "asyncio", "uvloop"]
InterfaceType = Literal["auto", "asgi3", "asgi2", "wsgi"]
# Called with the Config and with what makes the context that its other settings describe.
SSLContextFactory = Callable[["Config", Callable[[], ssl.SSLContext]], ssl.SSLContext]

HTTP_PROTOCOLS: dict[str, str] = {
    "auto": "uvicorn.protocols.http.auto:AutoHTTPProtocol",
    "h11": "uvicorn.protocols.http.h11_impl:H11Protocol",
    "httptools": "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
}
WS_PROTOCOLS: dict[str, str | None] = {
    "auto": "uvicorn.protocols.websockets.auto:AutoWebSocketsProtocol",
    "none": None,
    "websockets": "uvicorn.protocols.websockets.websockets_impl:WebSocketProtocol",
    "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
    "wsproto": "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
}
LIFESPAN: dict[str, str] = {
    "auto": "uvicorn.lifespan.on:LifespanOn",
    "on": "uvicorn.lifespan.on:LifespanOn",
    "off": "uvicorn.lifespan.off:LifespanOff",
}
LOOP_FACTORIES: dict[str, str | None] = {
    "none": None,
    "auto": "uvicorn.loops.auto:auto_loop_factory",
    "asyncio": "uvicorn.loops.asyncio:asyncio_loop_factory",
    "uvloop": "uvicorn.loops.uvloop:uvloop_loop_factory",
}
INTERFACES: list[InterfaceType] = ["auto", "asgi3", "asgi2", "wsgi"]

SSL_PROTOCOL_VERSION: int = ssl.PROTOCOL_TLS_SERVER

logger = logging.getLogger("uvicorn.error")


class Config:
    """The configuration of one server.

    Every parameter is kept as an attribute of the same name; see docs/settings.md for what each means. Times are in
    seconds, sizes in bytes; texts such as "30s" and "512M" are understood. The environment is asked only for
    WEB_CONCURRENCY and FORWARDED_ALLOW_IPS, where `workers` and `forwarded_allow_ips` are None.

    Attributes:
        loaded: Whether `load()` has run; it sets loaded_app, http_protocol_class, ws_protocol_class,
            lifespan_class, encoded_headers and ssl.
        workers_given: Whether anybody has named a number of workers.
    """

    # Typed here, set from the table in __init__.
    app: Any
    host: str
    port: int
    uds: str | None
    fd: int | None
    loop: str | Callable[[], asyncio.AbstractEventLoop]
    http: type[asyncio.Protocol] | str
    ws: type[asyncio.Protocol] | str
    ws_max_size: int
    ws_max_queue: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    lifespan: LifespanType
    env_file: str | os.PathLike[str] | None
    log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None
    log_level: str | int | None
    access_log: bool
    use_colors: bool | None
    interface: InterfaceType
    reload: bool
    reload_delay: float
    workers: int
    proxy_headers: bool
    server_header: bool
    date_header: bool
    forwarded_allow_ips: list[str] | str
    root_path: str
    limit_concurrency: int | None
    limit_max_requests: int | None
    backlog: int
    timeout_keep_alive: float
    timeout_graceful_shutdown: float | None
    timeout_worker_healthcheck: float
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    headers: list[tuple[str, str]]
    factory: bool
    h11_max_incomplete_event_size: int | None
    bind: list[str]
    reuse_port: bool
    preload: bool
    user: str | int | None
    group: str | int | None
    umask: int | None
    pid_file: str | os.PathLike[str] | None
    timeout_worker_startup: float
    timeout_worker_stall: float
    limit_max_requests_jitter: int
    limit_worker_lifetime: float | None
    limit_worker_lifetime_jitter: float
    limit_worker_memory: int | None
    limit_worker_memory_jitter: int
    worker_memory_measure: Literal["rss", "pss"]
    worker_memory_interval: float
    limit_restarts: int
    tune_gc: bool
    timeout_request_head: float
    timeout_request_body: float
    timeout_response_write: float
    timeout_tls_handshake: float
    ws_handshake_timeout: float | None
    timeout_lifespan_shutdown: float | None
    shutdown_delay: float
    limit_request_head: int
    limit_request_fields: int
    limit_pipelined_requests: int
    limit_connections: int | None
    control_socket: str | os.PathLike[str] | None
    control_read_only: bool
    admin: str | None
    ssl_context_factory: SSLContextFactory | str | None
    reset_contextvars: bool

    def __init__(
        self,
        app: ASGIApplication | Callable[..., Any] | str,
        host: str = "127.0.0.1",
        port: int = 8000,
        uds: str | None = None,
        fd: int | None = None,
        loop: LoopFactoryType | str | Callable[[], asyncio.AbstractEventLoop] = "auto",
        http: type[asyncio.Protocol] | HTTPProtocolType | str = "auto",
        ws: type[asyncio.Protocol] | WSProtocolType | str = "auto",
        ws_max_size: int = 16 * 1024 * 1024,
        ws_max_queue: int = 32,
        ws_ping_interval: float | None = 20.0,
        ws_ping_timeout: float | None = 20.0,
        ws_per_message_deflate: bool = True,
        lifespan: LifespanType = "auto",
        env_file: str | os.PathLike[str] | None = None,
        log_config: dict[str, Any]
        | str
        | os.PathLike[str]
        | RawConfigParser
        | IO[Any]
        | None = LOGGING_CONFIG,
        log_level: str | int | None = None,
        access_log: bool = True,
        use_colors: bool | None = None,
        interface: InterfaceType = "auto",
        reload: bool = False,
        reload_dirs: list[str] | str | None = None,
        reload_delay: float = 0.25,
        reload_includes: list[str] | str | None = None,
        reload_excludes: list[str] | str | None = None,
        workers: int | None = None,
        proxy_headers: bool = True,
        server_header: bool = True,
        date_header: bool = True,
        forwarded_allow_ips: list[str] | str | None = None,
        root_path: str = "",
        limit_concurrency: int | None = None,
        limit_max_requests: int | None = None,
        backlog: int = 2048,
        timeout_keep_alive: int = 5,
        timeout_notify: int = 30,
        timeout_graceful_shutdown: int | None = None,
        timeout_worker_healthcheck: int = 5,
        callback_notify: Callable[..., Awaitable[None]] | None = None,
        ssl_keyfile: str | os.PathLike[str] | None = None,
        ssl_certfile: str | os.PathLike[str] | None = None,
        ssl_keyfile_password: str | None = None,
        ssl_version: int = SSL_PROTOCOL_VERSION,
        ssl_cert_reqs: int = ssl.CERT_NONE,
        ssl_ca_certs: str | os.PathLike[str] | None = None,
        ssl_ciphers: str | None = "TLSv1",
        headers: list[tuple[str, str]] | None = None,
        factory: bool = False,
        h11_max_incomplete_event_size: int | None = None,
        *,
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
        limit_request_head: int = 128 * 1024,
        limit_request_fields: int = 256,
        limit_pipelined_requests: int = 16,
        limit_connections: int | None = None,
        control_socket: str | os.PathLike[str] | None = None,
        control_read_only: bool = False,
        admin: str | None = None,
        ssl_context_factory: SSLContextFactory | str | None = None,
        reset_contextvars: bool = False,
    ) -> None:
        given = locals()
        for option in OPTIONS:
            if option.taker == "both":
                value = given[option.name]
                if isinstance(value, str) and isinstance(option.kind, (Duration, Size)):
                    value = option.kind.parse(value)
                elif isinstance(value, str) and isinstance(option.kind, Umask):
                    value = option.kind.number(value)
                setattr(self, option.name, value)
        self.app = app
        self.timeout_notify = timeout_notify
        self.callback_notify = callback_notify
        self.headers = headers or []
        self.bind = [bind] if isinstance(bind, str) else list(bind or ())
        self.addresses: list[Address] = [parse_bind(text) for text in self.bind]

        self.loaded = False
        self.encoded_headers: list[tuple[bytes, bytes]] = []
        self.ssl: ssl.SSLContext | None = None
        # Made in advance, while the key can be read.
        self._own_ssl: ssl.SSLContext | None = None
        # Taken from `uds` by `bind_socket`, to be removed when the server has ended.
        self.listener: Listener | None = None

        self.configure_logging()
        self._choose_reload_paths(reload_dirs, reload_includes, reload_excludes)
        if env_file is not None:
            self._load_env_file(env_file)
        self._choose_workers(workers)
        if forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        if self.reload and self.workers > 1:
            logger.warning('"workers" flag is ignored when reloading is enabled.')
        if self.reload and self.preload:
            logger.warning('"preload" flag is ignored when reloading is enabled.')

    # --- what follows from the parameters ----------------------------------------------------

    @property
    def asgi_version(self) -> Literal["2.0", "3.0"]:
        """The ASGI version that the application is spoken to in."""
        mapping: dict[str, Literal["2.0", "3.0"]] = {"asgi2": "2.0", "asgi3": "3.0", "wsgi": "3.0"}
        return mapping[self.interface]

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS."""
        return bool(self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory)

    @property
    def use_subprocess(self) -> bool:
        """Whether the server runs in other processes than this one."""
        return bool(self.reload or self.workers > 1)

    @property
    def should_reload(self) -> bool:
        """Whether files are watched: `reload`, and an application that can be imported again."""
        return isinstance(self.app, str) and self.reload

    def _choose_workers(self, workers: int | str | None) -> None:
        from_environ = os.environ.get("WEB_CONCURRENCY")
        if workers is None and from_environ:
            workers = from_environ if from_environ == "auto" else int(from_environ)
        # No worker at all is no master either.
        self.workers_given = workers is not None and workers != 0
        if workers == "auto":
            workers = usable_cpus()
        self.workers = int(workers) if workers is not None else 1

    def _load_env_file(self, env_file: str | os.PathLike[str]) -> None:
        from dotenv import load_dotenv  # noqa: PLC0415 - optional, and only asked for here

        logger.info("Loading environment from '%s'", env_file)
        load_dotenv(stream=io.StringIO(env_file_text(env_file)))

    def _choose_reload_paths(
        self,
        dirs: list[str] | str | None,
        includes: list[str] | str | None,
        excludes: list[str] | str | None,
    ) -> None:
        self.reload_dirs: list[Path] = []
        self.reload_dirs_excludes: list[Path] = []
        self.reload_includes: list[str] = []
        self.reload_excludes: list[str] = []
        if not self.should_reload:
            if dirs or includes or excludes:
                logger.warning(
                    "Current configuration will not reload as not all conditions are met, "
                    "please refer to documentation."
                )
            return
        current = Path.cwd()
        named = _reload_paths.as_list(dirs)
        self.reload_excludes = _reload_paths.as_list(excludes)
        self.reload_includes = [
            each for each in _reload_paths.as_list(includes) if each not in self.reload_excludes
        ]
        self.reload_dirs_excludes = _reload_paths.matched_directories(self.reload_excludes, current)
        watched = _reload_paths.watched_directories(named, current)
        watched += _reload_paths.matched_directories(self.reload_includes, current)
        self.reload_dirs = _reload_paths.without(_reload_paths.fold(watched), self.reload_dirs_excludes)
        if not self.reload_dirs:
            if named:
                logger.warning(
                    "Provided reload directories %s did not contain valid "
                    "directories, watching current working directory.",
                    named,
                )
            self.reload_dirs = [current]
        logger.info("Will watch for changes in these directories: %s", sorted(map(str, self.reload_dirs)))

    def configure_logging(self) -> None:
        """Put `log_config`, `use_colors`, `log_level` and `access_log` into effect."""
        logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
        _logconfig.configure(self.log_config, self.use_colors, self.log_level, self.access_log)

    # --- loading -----------------------------------------------------------------------------

    def load(self) -> None:
        """Import the application and the implementations, and read certificates.

        Raises:
            SystemExit: With code 3, after a log line, where the application cannot be found.
            Exception: Whatever the application's own import raises.
        """
        assert not self.loaded
        self.load_tls()
        if self.is_ssl and self.ssl is None:
            self.ssl = self._made_ssl_context()
        self._encode_headers()
        self.http_protocol_class: type[asyncio.Protocol] = _implementation(self.http, HTTP_PROTOCOLS)
        self.ws_protocol_class: type[asyncio.Protocol] | None = _implementation(self.ws, WS_PROTOCOLS)
        self.lifespan_class: Any = import_from_string(LIFESPAN[self.lifespan])
        self.loaded_app: Any = self._wrapped(load_app(self.app, self.factory))
        self.loaded = True

    def load_tls(self) -> None:
        """Read certificates: the part of `load` that may need more rights than the application gets.

        A factory of contexts is the application's code, and waits for `load`; what it may ask for is read here.
        """
        if not self.is_ssl or self.ssl is not None:
            return
        if self.ssl_certfile:
            self._own_ssl = self._default_ssl_context()
        if self.ssl_context_factory is None:
            self.ssl = self._default_ssl_context()

    def _made_ssl_context(self) -> ssl.SSLContext:
        """What `ssl_context_factory` makes."""
        try:
            make: Any = import_from_string(self.ssl_context_factory)
        except ImportFromStringError as exc:
            logger.error("Error loading ssl_context_factory. %s", exc)
            sys.exit(STARTUP_FAILURE)
        made = make(self, self._default_ssl_context)
        if not isinstance(made, ssl.SSLContext):
            raise TypeError(f"ssl_context_factory must return an ssl.SSLContext, but returned {made!r}.")
        return made

    def _default_ssl_context(self) -> ssl.SSLContext:
        """The context that the TLS settings describe; each caller's own."""
        own, self._own_ssl = self._own_ssl, None
        if own is not None:
            return own
        if not self.ssl_certfile:
            raise ValueError("ssl_certfile is not set, and without a certificate there is no TLS context.")
        return create_ssl_context(
            certfile=self.ssl_certfile,
            keyfile=self.ssl_keyfile,
            password=self.ssl_keyfile_password,
            ssl_version=self.ssl_version,
            cert_reqs=self.ssl_cert_reqs,
            ca_certs=self.ssl_ca_certs,
            ciphers=self.ssl_ciphers,
        )

    def _encode_headers(self) -> None:
        encoded = [
            (name.lower().encode("latin1"), str(value).encode("latin1")) for name, value in self.headers
        ]
        if self.server_header and b"server" not in dict(encoded):
            encoded.insert(0, (b"server", b"uvicorn"))
        self.encoded_headers = encoded

    def _wrapped(self, app: Any) -> Any:
        if self.interface == "auto":
            self.interface = "asgi3" if is_asgi3(app) else "asgi2"
        if self.interface == "wsgi":
            from uvicorn.middleware.wsgi import ServedWSGIMiddleware  # noqa: PLC0415 - and a2wsgi with it

            app = ServedWSGIMiddleware(app)
            self.ws_protocol_class = None
        elif self.interface == "asgi2":
            app = ASGI2Middleware(app)
        if logger.getEffectiveLevel() <= TRACE_LOG_LEVEL:
            app = MessageLoggerMiddleware(app)
        if self.proxy_headers:
            app = ProxyHeadersMiddleware(app, trusted_hosts=self.forwarded_allow_ips)
        return app

    # --- loop and sockets --------------------------------------------------------------------

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the event loop; None for the interpreter's default.

        Raises:
            SystemExit: With code 3, after a log line, where `loop` names nothing.
        """
        if self.loop in LOOP_FACTORIES:
            path = LOOP_FACTORIES[self.loop]
            if path is None:
                return None
            factory = import_from_string(path)
            return cast(
                "Callable[[], asyncio.AbstractEventLoop]", factory(use_subprocess=self.use_subprocess)
            )
        try:
            return cast("Callable[[], asyncio.AbstractEventLoop]", import_from_string(self.loop))
        except ImportFromStringError as exc:
            logger.error("Error loading custom loop setup function. %s", exc)
            sys.exit(STARTUP_FAILURE)

    def setup_event_loop(self) -> None:
        raise AttributeError(
            "The `setup_event_loop` method was replaced by `get_loop_factory` in uvicorn 0.36.0."
        )

    @property
    def bind_addresses(self) -> list[Address]:
        """Where the server listens, whichever way it was said."""
        if self.addresses:
            return shared_with_ipv4(self.addresses)
        if self.uds is not None:
            return [Address("unix", name=os.fspath(self.uds))]
        if self.fd is not None:
            return [Address("fd", fd=self.fd)]
        return [Address("tcp", host=self.host or "", port=self.port)]

    @property
    def socket_rights(self) -> SocketRights:
        """Whose the files of UNIX sockets are, and who may connect.

        Raises:
            IdentityError: There is no such user.
        """
        identity = identity_of(self.user, self.group)
        mode = SOCKET_MODE if self.umask is None else SOCKET_MODE & ~self.umask
        return SocketRights(identity.uid, identity.gid, None if self.umask is None else mode)

    def bind_socket(self) -> socket.socket:
        """Bind to the configured address (the first where there are several) and return the socket.

        Raises:
            SystemExit: With code 3, after a log line that says what is wrong.
        """
        try:
            listener = bind_only(self.bind_addresses[0], self.reuse_port, rights=self.socket_rights)
        except BindError as exc:
            logger.error("%s", exc)
            sys.exit(STARTUP_FAILURE)
        self.listener = listener
        self.announce(listener.sock)
        return listener.sock

    def announce(self, sock: socket.socket) -> None:
        """The log line that says where the server is reached."""
        if self.fd is not None and not self.addresses:
            where: str = f"socket {sock.getsockname()!r}"
        else:
            where = url_of(sock, self.is_ssl)
        message = "Uvicorn running on %s (Press CTRL+C to quit)"
        color_message = "Uvicorn running on " + click.style("%s", bold=True) + " (Press CTRL+C to quit)"
        logger.info(message, where, extra={"color_message": color_message})


def _implementation(choice: Any, table: dict[str, Any]) -> Any:
    """The class that a choice means: itself, or what its name or import string stands for."""
    if not isinstance(choice, str):
        return choice
    return import_from_string(table.get(choice, choice))
