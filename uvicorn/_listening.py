"""From a socket to something that accepts on it: the event loop's own server, or ours where there is TLS."""

from __future__ import annotations

import asyncio
import functools
import os
import select
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn._attach import ALONE_BATCH, Acceptor, Helper
from uvicorn.config import Config

Factory = Callable[[], Any]

# Windows' event loop has no readers: there the loop's own server does TLS as well.
HAS_READERS = sys.platform != "win32"


class _TLSServer(Acceptor):
    """Accepts TLS in place of the event loop's own server, and closes the socket as that does."""

    def close(self) -> None:
        super().close()
        self._sock.close()


def whole() -> int:
    """The share of who accepts alone."""
    return ALONE_BATCH


class ServerOpener:
    """Opens what accepts on a socket.

    Args:
        loop: The event loop.
        config: The configuration, loaded.
        factory: Makes the protocol of a connection.

    Attributes:
        helpers: Of the event loop's own servers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, factory: Factory) -> None:
        self._loop = loop
        self._config = config
        self._factory = factory
        self.helpers: list[Helper] = []

    async def open(
        self, sock: socket.socket, factory: Factory | None = None, share: Callable[[], int] | None = None
    ) -> Any:
        """Accept on a bound socket; listens on it where nobody does yet.

        Args:
            sock: The socket.
            factory: In place of the opener's.
            share: How many of the connections that wait may be taken here; None where nobody knows who else accepts.
        """
        factory = factory or self._factory
        config = self._config
        if config.ssl is not None and HAS_READERS:
            sock.listen(config.backlog)
            return _TLSServer(self._loop, sock, factory, config.ssl, config.timeout_tls_handshake)
        options = self._options()
        create: Callable[..., Any] = self._loop.create_server
        if hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX:
            if sys.version_info >= (3, 13):
                # The file is the listener's to remove: it may be a sibling's as well, or whoever's passed it in.
                options["cleanup_socket"] = False
            create = self._loop.create_unix_server
        return await self._helped(functools.partial(create, sock=sock, **options), factory, share)

    async def open_host(self) -> list[Any]:
        """Accept on host and port: the event loop resolves the name, which may stand for several addresses."""
        config = self._config
        options = self._options()
        ours = config.ssl is not None and HAS_READERS
        if ours:
            options = {"backlog": config.backlog, "start_serving": False}
        options["reuse_port"] = config.reuse_port or None
        create = functools.partial(self._loop.create_server, host=config.host, port=config.port, **options)
        if not ours:
            return [await self._helped(create, self._factory, whole)]
        server = await create(self._factory)
        # Copies: the sockets of a server close with it.
        sockets = [_copy(sock) for sock in server.sockets]
        server.close()
        return [await self.open(sock) for sock in sockets]

    async def _helped(
        self, create: Callable[..., Any], factory: Factory, share: Callable[[], int] | None
    ) -> Any:
        """The event loop's own server, with a helper where that may take anything."""
        if share is None or not HAS_READERS:
            return await create(factory)
        helper = Helper(self._loop, factory, share)
        server = await create(helper.made)
        helper.begin(server)
        self.helpers = [*(each for each in self.helpers if each.needed), helper]
        return server

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"ssl": self._config.ssl, "backlog": self._config.backlog}
        if self._config.ssl is not None:
            options["ssl_handshake_timeout"] = self._config.timeout_tls_handshake
        return options


def _copy(sock: Any) -> socket.socket:
    """A socket of our own; the event loop shows its sockets behind a face that only looks like one."""
    copy = socket.socket(fileno=os.dup(sock.fileno()))
    copy.setblocking(False)
    return copy


def any_readable(fds: list[int]) -> bool:
    """Whether something waits to be read, or accepted, on one of the descriptors. Any number of them, unlike select."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows only
        return False
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def only_address(servers: Iterable[Any]) -> tuple[str, int] | None:
    """The address that every connection arrives at; None where it has to be asked for: with several sockets, or one
    on all interfaces."""
    names = [sock.getsockname() for server in servers for sock in server.sockets]
    if len(names) != 1 or not isinstance(names[0], tuple) or names[0][0] in ("0.0.0.0", "::"):  # noqa: S104 - to compare with, not to bind to
        return None
    host, port = names[0][:2]
    return str(host), int(port)
