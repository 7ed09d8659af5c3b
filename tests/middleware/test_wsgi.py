"""The classes that serve WSGI applications: which one it is, and what they do with each kind of scope."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import a2wsgi
import pytest

from tests.middleware.scopes import SCOPE
from uvicorn.config import Config
from uvicorn.middleware import wsgi
from uvicorn.middleware.wsgi import ServedWSGIMiddleware


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.fixture(params=["built-in", "served"])
def middleware(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "built-in":
        with pytest.deprecated_call(match="^Uvicorn's native WSGI implementation is deprecated"):
            made: Any = wsgi._WSGIMiddleware(hello, workers=1)
    else:
        made = ServedWSGIMiddleware(hello, workers=1)
    yield made
    made.executor.shutdown()


def call(middleware: Any, scope: Any, *messages: Any) -> list[Any]:
    queue, sent = list(messages), []

    async def receive() -> Any:
        return queue.pop(0) if queue else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    return sent


def test_default_is_the_class_of_a2wsgi_where_that_is_installed() -> None:
    assert wsgi.WSGIMiddleware is a2wsgi.WSGIMiddleware


def test_without_a2wsgi_it_is_the_built_in_one_and_serving_warns_of_nothing() -> None:
    program = (
        "import sys; sys.modules['a2wsgi'] = None\n"
        "from uvicorn.config import Config\n"
        "from uvicorn.middleware import wsgi\n"
        "assert wsgi.WSGIMiddleware is wsgi._WSGIMiddleware\n"
        "config = Config(lambda environ, start_response: [], interface='wsgi', proxy_headers=False)\n"
        "config.load()\n"
        "assert isinstance(config.loaded_app, wsgi.WSGIMiddleware)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_interface_wsgi_wraps_the_application_and_has_no_websockets() -> None:
    config = Config(hello, interface="wsgi", log_config=None, proxy_headers=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.load()
    assert isinstance(config.loaded_app, wsgi.WSGIMiddleware)
    assert isinstance(config.loaded_app, ServedWSGIMiddleware)
    assert config.loaded_app.app is hello
    assert config.ws_protocol_class is None
    assert config.asgi_version == "3.0"
    config.loaded_app.executor.shutdown()


def test_request_is_answered(middleware: Any) -> None:
    assert call(middleware, SCOPE, {"type": "http.request", "body": b"", "more_body": False}) == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
        {"type": "http.response.body", "body": b"hello", "more_body": True},
        {"type": "http.response.body", "body": b""},
    ]


def test_threads_are_as_many_as_said_and_have_a_name(middleware: Any) -> None:
    assert wsgi.WORKERS == 10
    names = set()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        names.add(threading.current_thread().name)
        return hello(environ, start_response)

    middleware.app = app

    async def main() -> None:
        async def receive() -> Any:
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        await asyncio.gather(*(middleware(SCOPE, receive, send) for _ in range(5)))

    asyncio.run(main())
    assert len(names) == 1
    assert names.pop().startswith("wsgi")


def test_built_in_one_has_no_lifespan() -> None:
    with pytest.deprecated_call():
        middleware = wsgi._WSGIMiddleware(hello, workers=1)
    with pytest.raises(RuntimeError, match="WSGI applications have no lifespan"):
        call(middleware, {"type": "lifespan"})


def test_served_one_takes_part_in_the_lifespan() -> None:
    """As a2wsgi's does: lifespan="on" is no reason not to start."""
    events = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert call(ServedWSGIMiddleware(hello), {"type": "lifespan"}, *events) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_other_scope_is_left_alone(middleware: Any) -> None:
    assert call(middleware, {"type": "websocket"}) == []
