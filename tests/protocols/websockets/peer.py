"""A client and an application around one WebSocket connection, both moved by the test."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes.transport import FakeTransport
from tests.protocols.websockets.frames import Sent, read_frames
from uvicorn.config import Config
from uvicorn.protocols._state import ServerState
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.websockets.websockets_impl import WebSocketProtocol

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = [
    (b"host", b"example.org"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]
HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(10):
        await asyncio.sleep(0)


class Puppet:
    """An application whose callables the test uses, and whose end it decides."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.scope: Any = None
        self.receive: Any = None
        self.send: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        self.scope, self.receive, self.send = scope, receive, send
        return await self.outcome


class Peer:
    """One connection, its transport, and its application; made in a running event loop.

    Args:
        protocol: The documented class.
        headers: More header fields of the request.
        rest: Bytes that come in one packet with the request.
        now: The server's coarse clock; 0 where no server sweeps.
        app: An application of the test's own in place of the puppet.
        settings: Of the configuration.
    """

    def __init__(
        self,
        protocol: Any = WebSocketProtocol,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        path: bytes = b"/",
        query: bytes = b"",
        rest: bytes = b"",
        now: float = 100.0,
        transport: FakeTransport | None = None,
        app: Any = None,
        **settings: Any,
    ) -> None:
        self.app = Puppet()
        options: dict[str, Any] = {"log_config": None, "proxy_headers": False, **settings}
        self.config = Config(app or self.app, **options)
        self.state = ServerState()
        self.state.now = now
        self.transport = FakeTransport() if transport is None else transport
        self.connection = protocol(self.config, self.state, {})
        self.connection.connection_made(self.transport)
        self.connection.upgrade_received(
            UpgradeRequest(b"GET", path, query, [*HEADERS, *(headers or [])], rest)
        )

    async def send(self, kind: str, **message: Any) -> None:
        """The application sends."""
        if self.app.send is None:
            await settle()
        await self.app.send({"type": f"websocket.{kind}", **message})

    async def receive(self) -> Any:
        """The application receives."""
        if self.app.receive is None:
            await settle()
        async with asyncio.timeout(5):
            return await self.app.receive()

    async def accept(self, **message: Any) -> None:
        """The application accepts; the 101 response is taken from the transport."""
        assert await self.receive() == {"type": "websocket.connect"}
        await self.send("accept", **message)
        self.transport.take()

    def feed(self, data: bytes) -> None:
        """The client sends."""
        self.connection.data_received(data)

    def frames(self) -> list[Sent]:
        """What the server has sent since it was last looked at."""
        return read_frames(self.transport.take())

    async def end(self, result: object = None) -> None:
        """The application returns, or raises what is an exception."""
        if self.app.scope is None:
            await settle()
        if isinstance(result, BaseException):
            self.app.outcome.set_exception(result)
        else:
            self.app.outcome.set_result(result)
        await settle()
