"""websockets where it is installed, else wsproto, else none."""

from __future__ import annotations

import asyncio

AutoWebSocketsProtocol: type[asyncio.Protocol] | None
try:
    import websockets  # noqa: F401 - asked for, not used
except ImportError:  # pragma: no cover - decided by what is installed
    try:
        import wsproto  # noqa: F401 - asked for, not used
    except ImportError:
        AutoWebSocketsProtocol = None
    else:
        from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

        AutoWebSocketsProtocol = WSProtocol
else:
    from uvicorn.protocols.websockets.websockets_impl import WebSocketProtocol

    AutoWebSocketsProtocol = WebSocketProtocol
