"""What a bind address means, without a socket.

One is HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME (systemd:NAME:2 is the second of several with this
name).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

_BRACKETED = re.compile(r"\[([^\]]*)\]:([0-9]+)\Z")
_HOST_PORT = re.compile(r"([^:/]*):([0-9]+)\Z")
_SYSTEMD = re.compile(r"systemd:([^:]+)(?::([1-9][0-9]*))?\Z")


class BindError(Exception):
    """A listening socket cannot be had; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """One bind address, taken apart.

    Attributes:
        kind: What it is.
        host, port: For "tcp".
        name: The path of "unix" (a leading @ means the abstract namespace), the name of "systemd".
        fd: For "fd".
        index: For "systemd": which of several sockets with this name, from 1; 0 for the only one.
        only_v6: For "tcp" on all IPv6 addresses: leave IPv4 to another socket; see `shared_with_ipv4`.
    """

    kind: Literal["tcp", "unix", "fd", "systemd"]
    host: str = ""
    port: int = 0
    name: str = ""
    fd: int = -1
    index: int = 0
    only_v6: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.kind == "tcp":
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        return f"{self.kind}:{self.name}:{self.index}" if self.index else f"{self.kind}:{self.name}"


def parse_bind(text: str) -> Address:
    """The address that a bind text means.

    Raises:
        ValueError: It means none.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//") if text.startswith("unix:///") else text[5:]
        if path:
            return Address("unix", name=path)
    elif text.startswith("systemd:"):
        if match := _SYSTEMD.match(text):
            return Address("systemd", name=match[1], index=int(match[2] or 0))
    elif text.startswith("fd://"):
        if text[5:].isdecimal():
            return Address("fd", fd=int(text[5:]))
    else:
        match = _BRACKETED.match(text) or _HOST_PORT.match(text)
        if match and int(match[2]) > 65535:
            raise ValueError(f"{text!r}: a port is at most 65535.")
        if match:
            return Address("tcp", host=match[1], port=int(match[2]))
    raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME.")


def shared_with_ipv4(addresses: Iterable[Address]) -> list[Address]:
    """The addresses, each once, with [::] for IPv6 alone where another one has its port for IPv4.

    By itself [::] takes IPv4 as well, which most who write it mean, and then nobody else can have the port.
    """
    addresses = list(dict.fromkeys(addresses))
    ipv4 = {each.port for each in addresses if each.kind == "tcp" and ":" not in each.host}
    return [
        replace(each, only_v6=True) if is_all_of_ipv6(each) and each.port in ipv4 else each
        for each in addresses
    ]


def is_all_of_ipv6(address: Address) -> bool:
    return address.kind == "tcp" and ":" in address.host and not address.host.strip("0:")
