"""What the master knows of a configuration: where to listen, how many workers, what to run in them.

Made from a `Config` by the composition root; the master itself never sees one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn._sockets import Address
from uvicorn.supervisor.events import PoolSpec


class PlanRejected(Exception):
    """The configuration cannot be used; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """Where the control process answers.

    Attributes:
        socket: The UNIX socket for commands.
        admin: Where those are answered who only look.
        read_only: Whether commands are refused.
    """

    socket: Address | None
    admin: Address | None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation.

    Attributes:
        title: The application's name, for process titles.
        spec: What the machine knows.
        addresses: Where to listen.
        backlog: The length of the accept queue.
        reuse_port: Whether each slot has sockets of its own.
        target: What serves in a worker, called with the sockets.
        announce: Called once for each socket that has been opened.
        apply: Puts the plan's logging and environment into effect in the master.
        control: The control process, or None; that of the first plan counts.
    """

    title: str
    spec: PoolSpec
    addresses: tuple[Address, ...]
    backlog: int
    reuse_port: bool
    target: Callable[[list[socket.socket]], None]
    announce: Callable[[socket.socket], None]
    apply: Callable[[], None]
    control: ControlPlan | None = None

    def check_change(self, new: Plan) -> list[str]:
        """What of a new plan a reload cannot bring about: texts for the log.

        Raises:
            PlanRejected: The new plan cannot be used while this one runs.
        """
        kept = {address for address in self.addresses if address.kind == "tcp"} & set(new.addresses)
        if new.reuse_port != self.reuse_port and kept:
            raise PlanRejected(
                f"reuse_port: cannot be changed while {min(map(str, kept))} stays in use; start the service anew"
            )
        if new.control != self.control:
            return [
                "control_socket, control_read_only and admin stay as they were until a start or an upgrade."
            ]
        return []
