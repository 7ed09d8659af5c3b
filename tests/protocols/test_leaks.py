"""Nothing of an application's exception reaches a client, whenever it is raised and whoever asks; the log has it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.protocols.http.harness import GET, IMPLEMENTATIONS, connect, read_responses, settle
from tests.protocols.websockets.frames import TEXT, frame
from tests.protocols.websockets.peer import Peer
from uvicorn.middleware.wsgi import WSGIMiddleware
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

SECRET = "postgres://user:hunter2@db/shop"
ENGINES = {"websockets": WebSocketsSansIOProtocol, "wsproto": WSProtocol}
START: Any = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


class Broken(Exception):
    """One whose every form of text has the secret."""

    def __str__(self) -> str:
        return SECRET


# What goes wrong, and after which messages.
EXCEPTIONS: dict[str, Any] = {
    "text": lambda: RuntimeError(SECRET),
    "str": Broken,
    "group": lambda: ExceptionGroup(SECRET, [ValueError(SECRET)]),
    "key": lambda: KeyError(SECRET),
    "exit": lambda: SystemExit(SECRET),
}
STAGES: dict[str, list[Any]] = {
    "before the response": [],
    "after its start": [START],
    "within its body": [START, {"type": "http.response.body", "body": b"a", "more_body": True}],
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("exception", EXCEPTIONS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_http(implementation: str, exception: str, stage: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in STAGES[stage]:
            await send(message)
        raise EXCEPTIONS[exception]()

    transport = asyncio.run(asked(implementation, app))
    (response,) = read_responses(transport.buffer)
    assert SECRET.encode() not in transport.buffer
    assert b"Traceback" not in transport.buffer
    assert (response.status, response.body) == (
        (200, b"a" if "body" in stage else b"") if STAGES[stage] else (500, b"Internal Server Error")
    )
    # A response that has begun breaks off, so that nobody takes it for a whole one.
    assert response.ended == (not STAGES[stage])
    assert transport.closed
    assert SECRET in caplog.text


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_wsgi(implementation: str, late: bool, caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        if not late:
            raise RuntimeError(SECRET)
        start_response("200 OK", [("x", "y")])
        yield b"a"
        raise RuntimeError(SECRET)

    transport = asyncio.run(asked(implementation, WSGIMiddleware(application), patience=5))
    assert SECRET.encode() not in transport.buffer
    assert b"Traceback" not in transport.buffer
    (response,) = read_responses(transport.buffer)
    assert response.status == (200 if late else 500)
    assert response.ended is not late
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    "header", [("x", "a\r\nset-cookie: b"), ("x\r\nset-cookie", "b"), ("x", "a\nb"), ("x", "a\0b")]
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_wsgi_response_is_not_split(
    implementation: str, header: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [header])
        return [b"a"]

    transport = asyncio.run(asked(implementation, WSGIMiddleware(application), patience=5))
    (response,) = read_responses(transport.buffer)
    assert response.status == 500
    assert b"set-cookie" not in transport.buffer
    assert "Exception in ASGI application" in caplog.text


async def asked(implementation: str, app: Any, patience: float = 0.0) -> Any:
    """The transport, once the application has answered one request."""
    protocol = connect(IMPLEMENTATIONS[implementation], app, loop=asyncio.get_running_loop(), now=1.0)
    protocol.data_received(GET)
    await settle()
    if patience:  # what runs in a thread takes turns that nobody can count
        async with asyncio.timeout(patience):
            while protocol.server_state.tasks:
                await asyncio.sleep(0.01)
    protocol.connection_lost(None)
    await settle()
    return protocol.transport


@pytest.mark.parametrize("stage", ["before accept", "after accept", "within a message"])
@pytest.mark.parametrize("engine", ENGINES)
def test_websocket(engine: str, stage: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        peer = Peer(ENGINES[engine])
        if stage != "before accept":
            await peer.accept()
        if stage == "within a message":
            peer.feed(frame(TEXT, b"hello"))
            await peer.receive()
        await peer.end(RuntimeError(SECRET))
        written = peer.transport.buffer
        assert SECRET.encode() not in written
        if stage == "before accept":
            assert written.startswith(b"HTTP/1.1 500 ")
            assert written.endswith(b"\r\n\r\nInternal Server Error")
        else:
            assert written == b""  # no close frame: the client sees 1006
        assert peer.transport.closed

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert SECRET in caplog.text
