"""A program that uses the public API; it is checked by the type checkers at their strictest, and never run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator

import uvicorn
from uvicorn import Config, Server, main, run
from uvicorn._types import (
    ASGI2Application,
    ASGI3Application,
    ASGIApplication,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    LifespanScope,
    Scope,
    WebSocketScope,
    WWWScope,
)
from uvicorn.config import (
    HTTP_PROTOCOLS,
    LIFESPAN,
    LOG_LEVELS,
    LOGGING_CONFIG,
    LOOP_FACTORIES,
    WS_PROTOCOLS,
    LoopFactoryType,
)
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.lifespan.off import LifespanOff
from uvicorn.lifespan.on import LifespanOn
from uvicorn.logging import TRACE_LOG_LEVEL, AccessFormatter, ColourizedFormatter, DefaultFormatter
from uvicorn.middleware.asgi2 import ASGI2Middleware
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_client_addr, get_local_addr, get_remote_addr
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from uvicorn.server import ServerState
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors.basereload import BaseReload

# --- applications -----------------------------------------------------------------------------------


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        lifespan: LifespanScope = scope
        print(lifespan["asgi"]["version"])
    elif scope["type"] == "websocket":
        socket_scope: WebSocketScope = scope
        print(socket_scope["subprotocols"])
    else:
        http: HTTPScope = scope
        print(http["method"], http["path"])
        event: ASGIReceiveEvent = await receive()
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"x-event", event["type"].encode())],
        }
        body: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(start)
        await send(body)


class OldApp:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        message: ASGISendEvent = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)


asgi3: ASGI3Application = app
asgi2: ASGI2Application = OldApp
both: list[ASGIApplication] = [asgi3, asgi2]


def factory() -> ASGIApplication:
    return app


wrapped: ASGI3Application = ProxyHeadersMiddleware(
    MessageLoggerMiddleware(ASGI2Middleware(OldApp)), trusted_hosts=["127.0.0.1"]
)


def peer(scope: WWWScope) -> str:
    return get_client_addr(scope)


# --- protocols and event loops of one's own -----------------------------------------------------------


class OwnHTTP(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        print(get_remote_addr(self.transport), get_local_addr(self.transport))


class OwnProtocol(asyncio.Protocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        server_state.total_requests += 1


http_classes: list[type[asyncio.Protocol]] = [
    H11Protocol,
    HttpToolsProtocol,
    AutoHTTPProtocol,
    OwnHTTP,
    OwnProtocol,
]
ws_class: type[asyncio.Protocol] | None = AutoWebSocketsProtocol


class OwnLoop(asyncio.SelectorEventLoop):
    pass


def make_loop() -> asyncio.AbstractEventLoop:
    return OwnLoop()


def make_tls(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# --- Config -----------------------------------------------------------------------------------------


async def every_thirty_seconds() -> None:
    pass


loop_name: LoopFactoryType = "auto"
configs: list[Config] = [
    Config(app),
    Config("package.module:app", "0.0.0.0", 80, factory=True),
    Config(factory, factory=True),
    Config(OldApp, interface="asgi2"),
    Config(app, http=OwnHTTP, ws=OwnProtocol, loop=OwnLoop),
    Config(app, http=OwnProtocol, ws="none", loop=make_loop),
    Config(
        app, http="package.module:Protocol", ws="package.module:Protocol", loop="package.module:make_loop"
    ),
    Config(app, loop=loop_name, lifespan="off", log_config=None, log_level="INFO"),
    Config(app, log_config=LOGGING_CONFIG, log_level=TRACE_LOG_LEVEL, use_colors=False, access_log=False),
    Config(app, log_config=pathlib.Path("log.yaml"), env_file=pathlib.Path(".env")),
    Config(app, ssl_certfile=pathlib.Path("c.pem"), ssl_keyfile="k.pem", ssl_context_factory=make_tls),
    Config(app, ssl_cert_reqs=ssl.CERT_REQUIRED, ssl_version=ssl.PROTOCOL_TLS_SERVER, ssl_ciphers=None),
    Config(app, headers=[("x-name", "value")], forwarded_allow_ips=["10.0.0.0/8"], root_path="/api"),
    Config(app, reload=True, reload_dirs=["src"], reload_includes="*.html", reload_excludes=["a", "b"]),
    Config(app, timeout_notify=30, callback_notify=every_thirty_seconds, limit_max_requests=100),
    Config(app, bind=["127.0.0.1:80", "unix:/run/a.sock"], workers=4, reset_contextvars=True),
]


def look_at(config: Config) -> tuple[str, bool, bool, bool]:
    if not config.loaded:
        config.load()
    context: ssl.SSLContext | None = config.ssl
    loop: Callable[[], asyncio.AbstractEventLoop] | None = config.get_loop_factory()
    headers: list[tuple[bytes, bytes]] = config.encoded_headers
    bound: socket.socket = config.bind_socket()
    print(
        context, loop, headers, bound, config.loaded_app, config.http_protocol_class, config.ws_protocol_class
    )
    return config.asgi_version, config.is_ssl, config.use_subprocess, config.should_reload


# --- Server -----------------------------------------------------------------------------------------


class ThreadedServer(Server):
    def install_signal_handlers(self) -> None:
        pass

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for server in self.servers:
            print([sock.getsockname() for sock in server.sockets])

    @contextlib.contextmanager
    def in_thread(self) -> Generator[None, None, None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            while not self.started:
                pass
            yield
        finally:
            self.should_exit = True
            thread.join()


async def serve(config: Config) -> int:
    server = Server(config)
    with server.capture_signals():
        await server.serve(sockets=[config.bind_socket()])
    server.handle_exit(signal.SIGINT, None)
    server.force_exit = True
    await server.shutdown()
    state: ServerState = server.server_state
    tasks: set[asyncio.Task[None]] = state.tasks
    defaults: list[tuple[bytes, bytes]] = state.default_headers
    return state.total_requests + len(tasks) + len(defaults) + len(state.connections)


def supervise(config: Config) -> None:
    sockets = [config.bind_socket()]
    server = Server(config=config)
    Multiprocess(config, target=server.run, sockets=sockets).run()
    reloader: BaseReload = ChangeReload(config, target=server.run, sockets=sockets)
    reloader.run()


# --- the rest ---------------------------------------------------------------------------------------


async def lifespans(config: Config) -> dict[str, object]:
    for lifespan in (LifespanOn(config), LifespanOff(config)):
        await lifespan.startup()
        print(lifespan.should_exit)
        await lifespan.shutdown()
    return LifespanOn(config).state


def logs() -> None:
    formatters: list[ColourizedFormatter] = [
        ColourizedFormatter("%(message)s", style="%", use_colors=None),
        DefaultFormatter("%(levelprefix)s %(message)s"),
        AccessFormatter("%(status_code)s", use_colors=True),
    ]
    for formatter in formatters:
        print(formatter.color_level_name("INFO", logging.INFO), formatter.should_use_colors())
    print(AccessFormatter().get_status_code(200))
    names: dict[str, str] = {**HTTP_PROTOCOLS, **LIFESPAN}
    optional: dict[str, str | None] = {**WS_PROTOCOLS, **LOOP_FACTORIES}
    levels: dict[str, int] = LOG_LEVELS
    print(names, optional, levels, uvicorn.__version__)


def by_name(name: str) -> object:
    try:
        return import_from_string(name)
    except ImportFromStringError as exc:
        return str(exc)


if __name__ == "__main__":
    run(app, host="127.0.0.1", port=8000)
    run("package.module:app", host="0.0.0.0", port=8000, reload=True)
    run(app, http=OwnHTTP, ws=OwnProtocol, loop=OwnLoop, log_level="warning", app_dir="src")
    uvicorn.run(app, uds="/run/app.sock", proxy_headers=False, ssl_context_factory="package.module:make_tls")
    main(["--version"])
