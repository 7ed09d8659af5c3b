"""How many connections wait in the accept queue of each address: asked of the kernel, which answers at once.

Asked here and not in the control process: only the master holds the sockets. Linux alone tells; elsewhere there is
nothing to show.
"""

from __future__ import annotations

import contextlib
import socket

from uvicorn._backlog import accept_queue
from uvicorn._ipc.control import Queue
from uvicorn.supervisor.listeners import ListenerSet


def queues_of(listeners: ListenerSet) -> list[Queue]:
    """One for each address; with a socket for each slot they are added up."""
    found: dict[str, Queue] = {}
    for listener in listeners.held.values():
        lengths = accept_queue(listener.sock)
        if lengths is not None:
            name = _name(listener.sock)
            before = found.get(name, Queue(name, 0, 0))
            found[name] = Queue(name, before.waiting + lengths[0], before.limit + lengths[1])
    return list(found.values())


def _name(sock: socket.socket) -> str:
    """The address as people write it."""
    with contextlib.suppress(OSError):
        name = sock.getsockname()
        if sock.family != socket.AF_UNIX:
            return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        text = "@" + name[1:].decode(errors="replace") if isinstance(name, bytes) else str(name)
        # Bytes of a path that are no text would be no JSON.
        return text.encode(errors="backslashreplace").decode()
    return "?"
