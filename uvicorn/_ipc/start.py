"""What a worker is started with."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn._closing import close_quietly
from uvicorn._ipc.channel import Sender
from uvicorn._ipc.scoreboard import Row, Scoreboard
from uvicorn._privileges import UNCHANGED, Identity


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """Handed to the worker's main function in the new process.

    Attributes:
        wid: The worker's number, never used twice.
        slot: Its place among the workers, from 1.
        generation: Which configuration and code it runs.
        size: How many workers there are to be.
        row: Its row of the scoreboard.
        scoreboard: All rows.
        sender: Its end of the channel.
        sockets: The listening sockets.
        reuse_port: Whether the TCP sockets among them are its own, and not shared with the others.
        target: What serves: called with the sockets.
        master_pid: The master.
        title: What the process title begins with.
        healthcheck: `timeout_worker_healthcheck` in seconds.
        watched: Whether there is a control process, so that somebody may look at what requests take.
        first: Whether no worker has ever been ready: a failure is reported once, by whoever gets the token.
        failure_token: The read end of a pipe with one byte in it: that token.
        identity: Whom it runs as, once it has read what only the master may read.
    """

    wid: int
    slot: int
    generation: int
    size: int
    row: Row
    scoreboard: Scoreboard
    sender: Sender
    sockets: list[socket.socket]
    reuse_port: bool
    target: Callable[[list[socket.socket]], None]
    master_pid: int
    title: str
    healthcheck: float
    watched: bool
    first: bool
    failure_token: int
    identity: Identity = UNCHANGED


WorkerMain = Callable[[WorkerStart], int]


def make_failure_token() -> int:
    """A pipe with one byte in it: the first worker that fails before any is ready takes it and speaks."""
    token, writer = os.pipe()
    os.set_blocking(token, False)
    os.write(writer, b"!")
    close_quietly(writer)
    return token
