"""What the master knows of a configuration: where to listen, how many workers, what to run in them.

Made from a `Config` by the composition root; the master itself never sees one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn._addresses import Address
from uvicorn._privileges import UNCHANGED, Identity
from uvicorn._sockets import USUAL_RIGHTS, SocketRights
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
        identity: Whom workers and control process run as.
        rights: Whose the files of UNIX sockets are.
        pid_file: Where the master's process id is written; that of the first plan counts.
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
    identity: Identity = UNCHANGED
    rights: SocketRights = USUAL_RIGHTS
    pid_file: str | None = None

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
        kept_settings = []
        if new.control != self.control:
            kept_settings.append("control_socket, control_read_only and admin")
        if new.pid_file != self.pid_file:
            kept_settings.append("pid_file")
        return [f"{names} stay as they were until a start or an upgrade." for names in kept_settings]
