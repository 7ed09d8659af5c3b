"""WebSocket by the websockets library, under its first documented name.

The library's own legacy API, which this name stood for, is deprecated by its maintainers; the supported sans-I/O layer
serves in its place.
"""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn.protocols.websockets._connection import WebSocketConnection
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsEngine


class WebSocketProtocol(WebSocketConnection):
    """WebSocket by the websockets library."""

    __slots__ = ()

    engine_class: ClassVar[Any] = WebSocketsEngine
