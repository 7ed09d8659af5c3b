"""From HTTP to WebSocket: what is handed over, and how.

A protocol of ours takes the parsed request and the bytes behind it. Any other class (a user's own) gets what such
classes have always got: the request written out again, through `data_received`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols._context import ProtocolConfig
from uvicorn.protocols._state import ServerState


class UpgradeRequest:
    """A request that asks to leave HTTP.

    Attributes:
        method, path, query, headers: As parsed; names in lower case.
        rest: What came behind the head.
    """

    __slots__ = ("headers", "method", "path", "query", "rest")

    def __init__(
        self, method: bytes, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], rest: bytes = b""
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.rest = rest

    def raw(self) -> bytes:
        """The request as bytes."""
        target = self.path + b"?" + self.query if self.query else self.path
        lines = [b"%b %b HTTP/1.1\r\n" % (self.method, target)]
        lines += [b"%b: %b\r\n" % field for field in self.headers]
        return b"".join((*lines, b"\r\n", self.rest))


class TakesUpgrade(asyncio.Protocol):
    """A WebSocket protocol that takes a parsed request."""

    __slots__ = ()

    def upgrade_received(self, request: UpgradeRequest) -> None:
        """HTTP hands over: the request, and the bytes that came behind it."""
        raise NotImplementedError


def hand_over(
    config: ProtocolConfig,
    server_state: ServerState,
    app_state: dict[str, Any],
    transport: asyncio.Transport,
    request: UpgradeRequest,
) -> None:
    """Give the transport to the configured WebSocket protocol."""
    make: Any = config.ws_protocol_class
    protocol = make(config=config, server_state=server_state, app_state=app_state)
    protocol.connection_made(transport)
    if isinstance(protocol, TakesUpgrade):
        transport.set_protocol(protocol)
        protocol.upgrade_received(request)
    else:
        protocol.data_received(request.raw())
        transport.set_protocol(protocol)
