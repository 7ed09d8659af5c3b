"""Documented helpers: who is at the two ends of a transport, and what a scope says about them."""

from __future__ import annotations

import asyncio
import socket
import urllib.parse
from typing import Any

from uvicorn._types import WWWScope


class ClientDisconnected(OSError):
    """Raised into an application that sends to a WebSocket whose client has gone."""


def get_remote_addr(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """The peer's (host, port); None where it has no such address, as on UNIX sockets."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            return _host_and_port(sock.getpeername(), sock.family)
        except OSError:  # the peer has already gone
            return None
    return _host_and_port(transport.get_extra_info("peername"))


def get_local_addr(transport: asyncio.BaseTransport) -> tuple[str, int | None] | None:
    """Our own (host, port) on this transport; None for UNIX sockets."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            return _host_and_port(sock.getsockname(), sock.family)
        except OSError:
            return None
    return _host_and_port(transport.get_extra_info("sockname"))


def _host_and_port(address: Any, family: int | None = None) -> tuple[str, int] | None:
    known = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None))
    if family is not None and family not in known:
        return None
    if isinstance(address, (list, tuple)) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return None


def is_ssl(transport: asyncio.BaseTransport) -> bool:
    """Whether the transport is encrypted."""
    return bool(transport.get_extra_info("sslcontext"))


def get_client_addr(scope: WWWScope) -> str:
    """The client as "host:port"; "" where it has no address."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def get_path_with_query_string(scope: WWWScope) -> str:
    """The scope's path, percent-quoted, with "?" and the query string where there is one."""
    path = urllib.parse.quote(scope["path"])
    query = scope["query_string"]
    return f"{path}?{query.decode('ascii')}" if query else path
