"""The documented classes: every method takes what it is documented to take, every attribute is there."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from uvicorn.config import Config
from uvicorn.logging import AccessFormatter, ColourizedFormatter
from uvicorn.middleware.asgi2 import ASGI2Middleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.middleware.wsgi import WSGIMiddleware
from uvicorn.server import Server, ServerState
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.basereload import BaseReload


class Documented:
    """The methods as they are documented, less annotations and bodies."""

    class Server:
        def __init__(self, config): ...
        def run(self, sockets=None): ...
        async def serve(self, sockets=None): ...
        async def startup(self, sockets=None): ...
        async def shutdown(self, sockets=None): ...

    class Config:
        def __init__(self, app, host="127.0.0.1", port=8000): ...
        def configure_logging(self): ...
        def load(self): ...
        def bind_socket(self): ...

    class ColourizedFormatter:
        def __init__(self, fmt=None, datefmt=None, style="%", use_colors=None): ...
        def color_level_name(self, level_name, level_no): ...
        def should_use_colors(self): ...
        def formatMessage(self, record): ...

    class AccessFormatter:
        def __init__(self, fmt=None, datefmt=None, style="%", use_colors=None): ...
        def get_status_code(self, status_code): ...

    class ProxyHeadersMiddleware:
        def __init__(self, app, trusted_hosts="127.0.0.1"): ...
        async def __call__(self, scope, receive, send): ...

    class ASGI2Middleware:
        def __init__(self, app): ...
        async def __call__(self, scope, receive, send): ...

    class WSGIMiddleware:
        def __init__(self, app, workers=10): ...
        async def __call__(self, scope, receive, send): ...

    class Multiprocess:
        def __init__(self, config, target, sockets): ...
        def run(self): ...

    class BaseReload:
        def __init__(self, config, target, sockets): ...
        def run(self): ...


CLASSES = (
    *(Server, Config, ColourizedFormatter, AccessFormatter, ProxyHeadersMiddleware, ASGI2Middleware),
    *(WSGIMiddleware, Multiprocess, BaseReload),
)

METHODS = [
    pytest.param(documented, getattr(real, name), id=f"{real.__name__}.{name}")
    for real in CLASSES
    for name, documented in vars(getattr(Documented, real.__name__)).items()
    if inspect.isfunction(documented)
]


@pytest.mark.parametrize(("documented", "real"), METHODS)
def test_a_method_takes_what_it_is_documented_to_take(documented: Any, real: Any) -> None:
    wanted = inspect.signature(documented).parameters
    has = inspect.signature(real).parameters
    assert [(each.name, each.default, each.kind) for each in list(has.values())[: len(wanted)]] == [
        (each.name, each.default, each.kind) for each in wanted.values()
    ]
    # What is there besides may be left out.
    others = list(has.values())[len(wanted) :]
    assert all(each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in others)
    assert inspect.iscoroutinefunction(real) == inspect.iscoroutinefunction(documented)


@pytest.mark.parametrize("name", ["asgi_version", "is_ssl", "use_subprocess", "should_reload"])
def test_a_property_of_the_configuration_is_one(name: str) -> None:
    assert isinstance(inspect.getattr_static(Config, name), property)


async def app(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.usefixtures("process_state")
def test_a_server_has_its_attributes() -> None:
    config = Config(app)
    server = Server(config)
    assert server.config is config
    assert isinstance(server.server_state, ServerState)
    state = {
        name: getattr(server, name) for name in ("started", "should_exit", "force_exit", "last_notified")
    }
    assert state == {"started": False, "should_exit": False, "force_exit": False, "last_notified": 0.0}


def test_the_state_of_a_server_has_its_attributes() -> None:
    state = ServerState()
    assert (state.total_requests, state.connections, state.tasks, state.default_headers) == (
        0,
        set(),
        set(),
        [],
    )


@pytest.mark.usefixtures("process_state")
def test_a_server_runs_with_what_is_documented_alone() -> None:
    """The four coroutines of the documented class, by hand, as programs call them."""

    async def by_hand() -> int:
        server = Server(Config(app, port=0, lifespan="off", log_config=None))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        assert server.started
        port: int = server.servers[0].sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        await server.shutdown()
        with pytest.raises(OSError):  # noqa: PT011 - whichever the platform has for a closed port
            await asyncio.open_connection("127.0.0.1", port)
        return port

    assert asyncio.run(by_hand()) > 0
