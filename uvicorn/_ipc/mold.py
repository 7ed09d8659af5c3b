"""Between the master and a mold: requests to fork a worker one way, what has come of them the other way.

Packets over a socket pair that keeps their bounds. A request is a few integers, and with it come the descriptors that the
worker is to have: its channel and its listening sockets. So the mold holds none of them itself. An answer is a kind, two
integers and perhaps a line of text; that a worker was forked is said by the process in between, which is its parent for
that moment (see `worker/mold.py`). The end of file tells either side that the other one is gone.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uvicorn._ipc.channel import receive_what_came
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn._privileges import UNCHANGED, Identity

_REQUEST = struct.Struct("!IIIIIB")
_ANSWER = struct.Struct("!BxxxIq")
# The kernel takes no more descriptors in one packet (SCM_MAX_FD).
MAX_DESCRIPTORS = 253
MAX_TEXT = 500


class Kind(enum.IntEnum):
    """What a mold has to say."""

    LOADED = 1  # the application is imported; the number is its resident memory in bytes
    FAILED = 2  # it cannot be; the text says why, in one line
    FORKED = 3  # a worker; the number is its pid
    NOT_FORKED = 4  # a worker could not be forked; the number is errno, or 0 where nobody knows


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A worker to be forked; see `WorkerStart` for the fields."""

    wid: int
    slot: int
    generation: int
    size: int
    row: int
    first: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mold has said."""

    kind: Kind
    wid: int = 0
    number: int = 0
    text: str = ""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The master's end and the mold's end. The mold waits on its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


class MasterEnd:
    """The master's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def ask(self, request: ForkRequest, descriptors: Sequence[int]) -> None:
        """Ask for a worker that has these: its end of its channel, then its listening sockets.

        Raises:
            OSError: The mold is gone, or does not read.
        """
        packet = _REQUEST.pack(
            request.wid, request.slot, request.generation, request.size, request.row, request.first
        )
        socket.send_fds(self.sock, [packet], list(descriptors))

    def receive(self) -> tuple[list[Answer], bool]:
        """The answers that have come, and whether the channel is still open."""
        answers: list[Answer] = []
        while True:
            packet = receive_what_came(self.sock, _ANSWER.size + MAX_TEXT)
            if packet is None:
                return answers, True
            if len(packet) < _ANSWER.size:
                return answers, False
            number, wid, value = _ANSWER.unpack_from(packet)
            try:
                kind = Kind(number)
            except ValueError:
                return answers, False
            answers.append(Answer(kind, wid, value, packet[_ANSWER.size :].decode("utf-8", "replace")))


class MoldEnd:
    """The mold's end, which waits."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def say(self, answer: Answer) -> None:
        """Raises:
        OSError: The master is gone.
        """
        text = answer.text.encode("utf-8", "replace")[:MAX_TEXT]
        self.sock.send(_ANSWER.pack(answer.kind, answer.wid, answer.number) + text)

    def next_request(self) -> tuple[ForkRequest, list[int]] | None:
        """Wait for a request; None where the master has gone, or wants no more."""
        try:
            packet, fds, _, _ = socket.recv_fds(self.sock, _REQUEST.size, MAX_DESCRIPTORS)
        except OSError:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        if len(packet) != _REQUEST.size:
            return None
        wid, slot, generation, size, row, first = _REQUEST.unpack(packet)
        return ForkRequest(wid, slot, generation, size, row, bool(first)), list(fds)


@dataclass(frozen=True, slots=True)
class MoldStart:
    """Handed to the mold's main function in the new process; see `WorkerStart` for what is not said here.

    Attributes:
        channel: Its end of the channel.
    """

    generation: int
    channel: socket.socket
    scoreboard: Scoreboard
    reuse_port: bool
    target: Callable[[list[socket.socket]], None]
    master_pid: int
    title: str
    healthcheck: float
    watched: bool
    failure_token: int
    identity: Identity = UNCHANGED


MoldMain = Callable[[MoldStart], int]
