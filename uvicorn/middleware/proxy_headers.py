"""Scheme and client address from the headers of trusted proxies.

Every element of X-Forwarded-For is what some hop wrote down; only hops that are trusted are believed. So the chain
is read from the right, and the first address that is no trusted proxy is the client.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, cast

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope

_FOR = b"x-forwarded-for"
_PROTO = b"x-forwarded-proto"
# All that the middleware looks at: a request without them need not pass through it.
FORWARDED = frozenset((_FOR, _PROTO))

_SCHEMES = ("http", "https", "ws", "wss")

# What is known about this many hosts is kept: to take an address apart costs 3 us, and the same peers come again.
_KNOWN_HOSTS = 4096
# Longer ones are no addresses, but what somebody has sent, and would be kept as well. IPv6 has 45 characters, and a zone.
_LONGEST_KNOWN = 64


# [IPV6] or [IPV6]:PORT, and HOST:PORT; an IPv6 address without brackets has no port, whatever stands at its end.
_BRACKETED = re.compile(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](?::([0-9]{1,5}))?\Z")
_HOST_PORT = re.compile(r"([^:\[\]]+):([0-9]{1,5})\Z")


class ProxyHeadersMiddleware:
    """Takes X-Forwarded-Proto and X-Forwarded-For into the scope where the peer is trusted.

    Args:
        app: The application behind it.
        trusted_hosts: Addresses, networks and literals (such as the path of a UNIX socket), as a list or
            comma-separated; "*" trusts every peer, which is right only where no client can reach the server but
            through a proxy that overwrites the header.
    """

    def __init__(self, app: ASGI3Application, trusted_hosts: list[str] | str = "127.0.0.1") -> None:
        self.app = app
        self.trusted_hosts = _TrustedHosts(trusted_hosts)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            client: Any = scope.get("client")
            if (client[0] if client else "") in self.trusted_hosts:
                self._apply(cast(dict[str, Any], scope))
        await self.app(scope, receive, send)

    def _apply(self, scope: dict[str, Any]) -> None:
        proto: bytes | None = None
        chain: list[bytes] = []
        for name, value in scope["headers"]:
            if name == _PROTO:
                proto = value
            elif name == _FOR:
                chain.append(value)
        if proto is not None:
            scheme = proto.decode("latin1").strip()
            if scheme in _SCHEMES:
                if scope["type"] == "websocket":
                    scheme = scheme.replace("http", "ws")
                scope["scheme"] = scheme
        if chain:
            # Repeated fields are one list, in order (RFC 9110 5.3).
            hop = self.trusted_hosts.get_trusted_client_host(b",".join(chain).decode("latin1"))
            if hop:
                scope["client"] = host_and_port(hop)


def host_and_port(hop: str) -> tuple[str, int]:
    """An element of X-Forwarded-For taken apart: some proxies write the port of the client as well.

    Where there is none, or what is there is none, the port is 0.
    """
    match = _BRACKETED.match(hop) or _HOST_PORT.match(hop)
    if match is None or int(match[2] or 0) > 65535:
        return hop, 0
    return match[1], int(match[2] or 0)


class _TrustedHosts:
    """What `trusted_hosts` means: addresses compare by value, networks by membership, the rest by its text."""

    def __init__(self, trusted_hosts: list[str] | str) -> None:
        self.always_trust = trusted_hosts in ("*", ["*"])
        self.trusted_literals: set[str] = set()
        self.trusted_hosts: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        self.trusted_networks: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = set()
        self._known: dict[str, bool] = {}
        if self.always_trust:
            return
        hosts = trusted_hosts.split(",") if isinstance(trusted_hosts, str) else trusted_hosts
        for host in (host.strip() for host in hosts):
            self._add(host)

    def _add(self, host: str) -> None:
        try:
            if "/" in host:
                self.trusted_networks.add(ipaddress.ip_network(host))
            else:
                self.trusted_hosts.add(ipaddress.ip_address(host))
        except ValueError:
            self.trusted_literals.add(host)

    def __contains__(self, host: str | None) -> bool:
        if self.always_trust:
            return True
        if not host:
            return False
        known = self._known.get(host)
        if known is None:
            if len(host) > _LONGEST_KNOWN:
                return self._judge(host)
            if len(self._known) >= _KNOWN_HOSTS:
                self._known.clear()
            known = self._known[host] = self._judge(host)
        return known

    def _judge(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self.trusted_literals
        return address in self.trusted_hosts or any(address in network for network in self.trusted_networks)

    def get_trusted_client_host(self, x_forwarded_for: str) -> str:
        """The client's element of the header's text; "" where the element that counts is empty."""
        hops = [hop.strip() for hop in x_forwarded_for.split(",")]
        if self.always_trust:
            return hops[0]
        for hop in reversed(hops):
            if host_and_port(hop)[0] not in self and hop not in self.trusted_literals:
                return hop
        return hops[0]
