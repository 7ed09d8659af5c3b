"""The server's side of an opening handshake: the scope, and the one HTTP response that answers it.

Either 101, or a refusal of our own, or a response of the application's own. What the request has to be is checked in
`_handshake.py`.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols._access import CHANGED_SCOPE, client_text, mended, request_path
from uvicorn.protocols._context import ConnectionContext, ProtocolConfig
from uvicorn.protocols._fields import field
from uvicorn.protocols._say import say
from uvicorn.protocols._state import CLASS_OF, ServerState
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._framing import CHUNKED, LAST_CHUNK, NONE, ResponseFramer
from uvicorn.protocols.utils import (
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.protocols.websockets._deflate import Deflate
from uvicorn.protocols.websockets._handshake import Handshake, accept_response

# Status and headers of the application's own HTTP response.
Denial = tuple[int, list[tuple[bytes, bytes]]]


class WebSocketContext(ConnectionContext):
    """The shared decisions of WebSocket connections."""

    __slots__ = ("framer",)

    def __init__(self, config: ProtocolConfig, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, loop)
        self.framer = ResponseFramer()


class Opening:
    """One valid opening request, and its answer.

    Args:
        context: What all connections share.
        transport: Where the answer goes.
        request: The request.
        handshake: What it says.
        deflate: The compression to agree on.
        app_state: The state that lifespan has left; the scope gets a copy.

    Attributes:
        scope: The application's scope.
    """

    __slots__ = ("_context", "_deflate", "_handshake", "_left", "_mode", "_transport", "scope")

    def __init__(
        self,
        context: WebSocketContext,
        transport: asyncio.Transport,
        request: UpgradeRequest,
        handshake: Handshake,
        deflate: Deflate | None,
        app_state: dict[str, Any],
    ) -> None:
        self._context = context
        self._transport = transport
        self._handshake = handshake
        self._deflate = deflate
        self._mode = NONE  # how the body of the application's own response goes
        self._left = 0  # how much of it is to come, where it has a length
        self.scope: Any = {
            "type": "websocket",
            "asgi": {"version": context.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(transport) else "ws",
            "server": context.state.address or get_local_addr(transport),
            "client": get_remote_addr(transport),
            "root_path": context.root_path,
            "path": context.root_path + unquote(request.path.decode("ascii")),
            "raw_path": context.root_path_bytes + request.path,
            "query_string": request.query,
            "headers": request.headers,
            "subprotocols": handshake.subprotocols,
            "state": app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    def accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer 101.

        Raises:
            InvalidResponse: Something in it cannot be written.
        """
        context = self._context
        fields = [(bytes(name), bytes(value)) for name, value in headers]
        extensions = self._deflate.answer if self._deflate is not None else None
        self._write(
            accept_response(self._handshake, extensions, subprotocol, context.default_lines(), fields)
        )
        context.state.responses[1] += 1
        self.log("[accepted]")

    def refuse(self, status: int) -> None:
        """Answer with a response of our own."""
        self._context.state.responses[CLASS_OF[status]] += 1
        if status == 500:
            body = b"Internal Server Error"
        else:
            body = b""
            self.log(str(status))
        self._write(
            b"".join(
                (
                    b"HTTP/1.1 %d %b\r\n" % (status, http.HTTPStatus(status).phrase.encode("ascii")),
                    self._context.default_lines(),
                    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
                    b"connection: close\r\n\r\n",
                    body,
                )
            )
        )

    def check_denial(self, start: Any) -> Denial:
        """The application's own response, where it can be written.

        Raises:
            InvalidResponse: It cannot.
        """
        headers = [field(name, value) for name, value in start.get("headers") or ()]
        self._context.framer.head(start["status"], headers, b"", False, True, False)
        return start["status"], headers

    def write_denial(self, denial: Denial | None, body: bytes, more: bool) -> None:
        """Write a part of the application's own response: with `denial` the first one.

        Raises:
            RuntimeError: The body is longer or shorter than its Content-Length.
        """
        if denial is not None:
            self._begin_denial(*denial, body, more)
        if self._mode == CHUNKED:
            if body:
                self._write(b"%x\r\n%b\r\n" % (len(body), body))
            if not more:
                self._write(LAST_CHUNK)
        elif self._mode != NONE:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if body:
                self._write(body)
            if not more and self._left:
                raise RuntimeError("Response content shorter than Content-Length")

    def _begin_denial(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, more: bool) -> None:
        context = self._context
        context.state.responses[CLASS_OF[status]] += 1
        names = {name.lower() for name, _ in headers}
        bodiless = status in (204, 304)
        if not more and not bodiless and not names & {b"content-length", b"transfer-encoding"}:
            headers.append((b"content-length", b"%d" % len(body)))
        head, self._mode, self._left, _ = context.framer.head(
            status, headers, context.default_lines(), bodiless, True, False
        )
        self._write(head)

    def _write(self, data: bytes) -> None:
        self._context.state.sent(len(data))
        self._transport.write(data)

    def log(self, outcome: str) -> None:
        """The access line of a WebSocket."""
        scope = self.scope
        try:
            shown = client_text(scope["client"]), get_path_with_query_string(scope)
        except CHANGED_SCOPE:
            known = mended(scope)
            shown = client_text(known["client"]), request_path(known)
        say(self._context.logger, logging.INFO, '%s - "WebSocket %s" %s', *shown, outcome)
