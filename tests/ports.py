"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives out by itself (ip_local_port_range): from there another test's server or client may get the port
# before the one that it was found for has it.
PORTS = range(12000, 32000)


def free_port() -> int:
    """A port of the loopback address that nobody has."""
    while True:
        port = random.choice(PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def free_ports(count: int) -> list[int]:
    """Several, all different."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)
