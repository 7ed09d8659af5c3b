"""What the master's loop keeps of each worker besides what the machine knows: its row, its channel, its sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from uvicorn._ipc.channel import Kind, Message, Receiver
from uvicorn._ipc.scoreboard import Cell, Row, Scoreboard
from uvicorn.supervisor import events
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.pool import Worker
from uvicorn.supervisor.upgrade import HandedWorker, hand_worker


@dataclass(slots=True)
class Link:
    """One worker.

    Attributes:
        receiver: Our end of its channel; None where that is closed.
        sockets: What it accepts on; None for a socket that the program before had closed.
        pid: 0 until its mold has forked it.
    """

    row: Row
    receiver: Receiver | None
    sockets: Sequence[socket.socket | None]
    pid: int


def event_of(wid: int, message: Message) -> Event | None:
    """What a worker's message means to the machine; None where it is for people only."""
    match message.kind:
        case Kind.READY:
            return events.Ready(wid)
        case Kind.RECYCLE:
            return events.RecycleWanted(wid, message.text)
        case Kind.STOPPED_ACCEPTING:
            return events.StoppedAccepting(wid)
        case Kind.FAILED:
            return events.Complained(wid, message.text)
        case Kind.ANSWER:
            return events.Reported(wid, message.text)
        case Kind.REOPENED:
            return events.Reopened(wid, message.text)
        case Kind.OVER_LIMIT:
            return events.OverLimit(wid, message.text)
        case Kind.REPORT:
            return None
        case _:
            assert_never(message.kind)


def readings_of(links: Mapping[int, Link]) -> tuple[events.Reading, ...]:
    """The signs of life of all workers that have been ready."""
    return tuple(
        events.Reading(wid, link.row.seconds(Cell.LOOP_TICK), link.row.seconds(Cell.THREAD_TICK))
        for wid, link in links.items()
        if link.row[Cell.READY]
    )


def smallest(links: Mapping[int, Link]) -> int:
    """The memory of the smallest worker, in bytes: a fresh one is about as large. 0 where none is known."""
    return min((size for link in links.values() if (size := link.row[Cell.RSS])), default=0)


def hand_links(workers: Iterable[Worker], links: Mapping[int, Link]) -> list[HandedWorker]:
    """All workers as they are handed over an exec."""
    return [
        hand_worker(
            worker,
            link.row.index,
            link.receiver.sock.fileno() if link.receiver is not None else -1,
            [-1 if sock is None else sock.fileno() for sock in link.sockets],
            link.receiver.rest if link.receiver is not None else b"",
        )
        for worker in workers
        if (link := links.get(worker.wid)) is not None and link.pid
    ]


def take_links(
    workers: Iterable[HandedWorker], scoreboard: Scoreboard, listeners: ListenerSet
) -> dict[int, Link]:
    """The links to workers that were handed over."""
    sockets = {listener.sock.fileno(): listener.sock for listener in listeners.held.values()}
    links = {}
    for handed in workers:
        receiver = None
        if handed.channel_fd >= 0:
            receiver = Receiver(socket.socket(fileno=handed.channel_fd), bytes.fromhex(handed.channel_rest))
            os.set_inheritable(handed.channel_fd, False)
        row = scoreboard.claim(handed.row, clear=False)
        serves_on = [sockets.get(fd) for fd in handed.listener_fds]
        links[handed.wid] = Link(row, receiver, serves_on, handed.pid)
    return links
