"""Plans for tests: what the master knows of a configuration, without one."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from uvicorn._addresses import Address
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.plan import Plan

LOCAL = Address("tcp", host="127.0.0.1", port=0)


@dataclass
class Told:
    """What a plan's functions were called with."""

    announced: list[socket.socket] = field(default_factory=list)
    applied: int = 0

    def apply(self) -> None:
        self.applied += 1


def plan_of(
    *addresses: Address,
    size: int = 2,
    reuse_port: bool = False,
    backlog: int = 10,
    title: str = "app:app",
    told: Told | None = None,
    **spec: float,
) -> Plan:
    """A plan; without an address it listens on any port of 127.0.0.1."""
    told = told or Told()
    return Plan(
        title=title,
        spec=PoolSpec(size, **spec),  # type: ignore[arg-type]
        addresses=addresses or (LOCAL,),
        backlog=backlog,
        reuse_port=reuse_port,
        target=lambda sockets: None,
        announce=told.announced.append,
        apply=told.apply,
    )


def is_open(sock: socket.socket) -> bool:
    return sock.fileno() >= 0


def close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
