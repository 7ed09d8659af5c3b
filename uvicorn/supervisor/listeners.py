"""The master's listening sockets: opened before the workers, kept over their comings and goings, handed down.

With `reuse_port` every slot has a socket of its own for each address; the master holds them all, so that the queue of a
slot outlives its worker. Else all workers share one socket for each address.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from uvicorn._addresses import Address, BindError
from uvicorn._closing import close_quietly
from uvicorn._listener import Listener
from uvicorn._sockets import explain, open_listener, start_listening
from uvicorn.supervisor.plan import Plan

SHARED = 0


@dataclass(frozen=True, slots=True)
class Key:
    """Which socket: its address, and the slot whose own it is (SHARED for everybody's)."""

    address: Address
    slot: int = SHARED


def keys_for(plan: Plan, slot: int) -> list[Key]:
    """The sockets of one slot under a plan. Only TCP sockets can be doubled."""
    keys = (
        Key(address, slot if plan.reuse_port and address.kind == "tcp" else SHARED)
        for address in plan.addresses
    )
    return list(dict.fromkeys(keys))


class ListenerSet:
    """All sockets that the master holds."""

    def __init__(self) -> None:
        self.held: dict[Key, Listener] = {}

    def take(self, key: Key, listener: Listener) -> None:
        """A socket that exists already is from now on held here."""
        self.held[key] = listener

    def open(self, plan: Plan, announce: Callable[[socket.socket], None] | None = None) -> None:
        """Open what the plan needs and what is not held yet.

        Raises:
            BindError: One cannot be had; then none of the others stays open.
        """
        for key, listener in self.held.items():
            # First those that were only bound so far: the order in which sockets begin to listen is the one that
            # `steering` counts in.
            try:
                start_listening(listener.sock, plan.backlog)
            except OSError as exc:
                raise BindError(f"cannot listen on {key.address}: {explain(exc)}") from exc
        fresh: list[Key] = []
        try:
            for slot in range(1, plan.spec.size + 1):
                for key in keys_for(plan, slot):
                    if key not in self.held:
                        self.held[key] = self._opened(key, plan)
                        fresh.append(key)
                        if announce is not None and slot == 1:
                            announce(self.held[key].sock)
        except BaseException:
            for key in fresh:
                self.held.pop(key).close()
            raise

    def sockets(self, plan: Plan, slot: int) -> list[socket.socket]:
        """The sockets of one slot, opened where the slot is new.

        Raises:
            BindError: One cannot be had.
        """
        sockets = []
        for key in keys_for(plan, slot):
            if key not in self.held:
                self.held[key] = self._opened(key, plan)
            sockets.append(self.held[key].sock)
        return sockets

    def _opened(self, key: Key, plan: Plan) -> Listener:
        address = _resolved(key, self.held)
        return open_listener(address, plan.backlog, plan.reuse_port, rights=plan.rights)

    def plan_for_held(self, plan: Plan) -> Plan:
        """The plan with the addresses that are open already, and no others."""
        addresses = tuple(dict.fromkeys(key.address for key in self.held))
        return replace(plan, addresses=addresses, reuse_port=any(key.slot != SHARED for key in self.held))

    def close_unused(self, plans: Iterable[Plan]) -> None:
        """Close the sockets that none of these plans has. Workers that still serve on one keep it until they go."""
        used = {
            (address, plan.reuse_port and address.kind == "tcp")
            for plan in plans
            for address in plan.addresses
        }
        for key in list(self.held):
            if (key.address, key.slot != SHARED) not in used:
                self.held.pop(key).close()

    def close_in_child(self, kept: Iterable[socket.socket]) -> None:
        """In a worker: only its own sockets stay open, and no program that it starts inherits them."""
        kept_fds = {sock.fileno() for sock in kept}
        for listener in self.held.values():
            if listener.sock.fileno() in kept_fds:
                listener.sock.set_inheritable(False)
            else:
                close_quietly(listener.sock)

    def stop(self) -> None:
        """The service ends: connections are refused from now on."""
        for listener in self.held.values():
            listener.stop_accepting()
        self.held.clear()


def _resolved(key: Key, held: dict[Key, Listener]) -> Address:
    """Port 0 means any port, but for all slots the same one."""
    if key.slot == SHARED or key.address.port != 0:
        return key.address
    for other, listener in held.items():
        if other.address == key.address:
            port = listener.sock.getsockname()[1]
            return Address("tcp", host=key.address.host, port=port)
    return key.address
