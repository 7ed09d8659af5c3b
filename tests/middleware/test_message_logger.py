"""The lines of the trace log, text by text."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.middleware.message_logger import MessageLoggerMiddleware


@pytest.fixture
def lines(process_state: None) -> list[str]:
    """What goes to the logger uvicorn.asgi, with its level."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.levelno} {record.getMessage()}")

    logger = logging.getLogger("uvicorn.asgi")
    logger.setLevel(TRACE_LOG_LEVEL)
    logger.addHandler(Keeper())
    return found


def through(app: Any, scope: Any, *received: Any) -> list[Any]:
    """Call the application behind the middleware; return what it has sent."""
    queue, sent = list(received), []

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


async def relay(scope: Any, receive: Any, send: Any) -> None:
    """Receives once, and sends that back."""
    await send(await receive())


def test_exchange_is_logged_and_passed_on_unchanged(lines: list[str]) -> None:
    scope = {"type": "http", "client": ("127.0.0.1", 4321), "headers": [(b"cookie", b"secret")]}
    message = {"type": "http.request", "body": b"secret", "more_body": False}
    assert through(MessageLoggerMiddleware(relay), scope, message) == [message]
    assert message["body"] == b"secret"
    assert scope["headers"] == [(b"cookie", b"secret")]
    shown = "{'type': 'http.request', 'body': '<6 bytes>', 'more_body': False}"
    who = "5 127.0.0.1:4321 - ASGI [1]"
    assert lines == [
        f"{who} Started scope={{'type': 'http', 'client': ('127.0.0.1', 4321), 'headers': '<...>'}}",
        f"{who} Receive {shown}",
        f"{who} Send {shown}",
        f"{who} Completed",
    ]


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "http", "client": None}])
def test_scope_without_a_client_has_no_address_in_front(scope: Any, lines: list[str]) -> None:
    through(MessageLoggerMiddleware(relay), scope, {"type": "lifespan.startup"})
    assert lines == [
        f"5 ASGI [1] Started scope={scope}",
        "5 ASGI [1] Receive {'type': 'lifespan.startup'}",
        "5 ASGI [1] Send {'type': 'lifespan.startup'}",
        "5 ASGI [1] Completed",
    ]


@pytest.mark.parametrize("exc", [ValueError("no"), asyncio.CancelledError()], ids=repr)
def test_exception_is_logged_and_passes(exc: BaseException, lines: list[str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise exc

    with pytest.raises(type(exc)):
        through(MessageLoggerMiddleware(app), {"type": "http"})
    assert lines[1:] == ["5 ASGI [1] Raised exception"]


def test_numbers_count_up_over_all_scopes_of_one_middleware(lines: list[str]) -> None:
    app = MessageLoggerMiddleware(relay)
    for kind in ("lifespan", "http", "websocket"):
        through(app, {"type": kind}, {"type": "x"})
    through(MessageLoggerMiddleware(relay), {"type": "http"}, {"type": "x"})
    started = [line for line in lines if "Started" in line]
    assert started == [
        "5 ASGI [1] Started scope={'type': 'lifespan'}",
        "5 ASGI [2] Started scope={'type': 'http'}",
        "5 ASGI [3] Started scope={'type': 'websocket'}",
        "5 ASGI [1] Started scope={'type': 'http'}",
    ]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"type": "t", "bytes": b"abc"}, "{'type': 't', 'bytes': '<3 bytes>'}"),
        ({"type": "t", "bytes": b""}, "{'type': 't', 'bytes': '<0 bytes>'}"),
        ({"type": "t", "bytes": bytearray(2)}, "{'type': 't', 'bytes': '<2 bytes>'}"),
        ({"type": "t", "text": "abcd", "bytes": None}, "{'type': 't', 'text': '<4 chars>', 'bytes': None}"),
        ({"type": "t", "code": 1000, "reason": "x"}, "{'type': 't', 'code': 1000, 'reason': 'x'}"),
    ],
)
def test_bodies_are_lengths(message: Any, shown: str, lines: list[str]) -> None:
    through(MessageLoggerMiddleware(relay), {"type": "websocket"}, message)
    assert lines[1] == f"5 ASGI [1] Receive {shown}"


def test_above_the_level_nothing_is_logged(lines: list[str]) -> None:
    logging.getLogger("uvicorn.asgi").setLevel(logging.DEBUG)
    through(MessageLoggerMiddleware(relay), {"type": "http"}, {"type": "x"})
    assert lines == []
