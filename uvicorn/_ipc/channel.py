"""Small typed messages from a worker to its master, over a socket pair; a byte back asks for something.

A message is a kind, a length and as many bytes. The master never blocks on it, reads a bounded amount at a time, and
takes anything malformed for the end of the channel. The worker never blocks on it either: of what does not fit, reports
are dropped, and what the master has to know goes out as soon as there is room.
The channel's end of file tells either side that the other one is gone.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import socket
import struct
import threading
from dataclasses import dataclass

_HEADER = struct.Struct("!BxH")
MAX_PAYLOAD = 65535
# The system has no memory for it now: nothing is wrong with the channel.
_SHORTAGE = frozenset((errno.ENOMEM, errno.ENOBUFS))


class Kind(enum.IntEnum):
    """What a worker has to say."""

    READY = 1  # lifespan startup is done, and it accepts
    RECYCLE = 2  # it has reached a limit and wants a successor; the payload says which, in words
    STOPPED_ACCEPTING = 3  # its listening sockets are closed
    REPORT = 4  # text for the log: where it is stuck
    ANSWER = 5  # the same, because the master has asked
    FAILED = 6  # its start has failed; the payload says why, in one line
    REOPENED = 7  # it has opened its log files again, as it was asked to; the payload says what it could not
    OVER_LIMIT = 8  # a limit is below what it has used from the start; the payload says which, in words


# Text for people, of any length; all others are short, few, and nobody says them again.
_MAY_BE_LOST = frozenset((Kind.REPORT, Kind.ANSWER))


class Wish(enum.Enum):
    """What a master asks its worker for."""

    REPORT = b"?"  # where it is; answered by ANSWER
    REOPEN = b"r"  # to open its log files again; answered by REOPENED


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    text: str = ""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The master's end and the worker's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class Sender:
    """The worker's end; several threads may use it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        self._rest = b""

    def send(self, kind: Kind, text: str = "") -> bool:
        """Send a message; False where it was dropped."""
        payload = text.encode("utf-8", "replace")[:MAX_PAYLOAD]
        frame = _HEADER.pack(kind, len(payload)) + payload
        with self._lock:
            if not self._send_rest():
                if kind in _MAY_BE_LOST:
                    return False
                self._rest += frame
                return True
            try:
                sent = self.sock.send(frame)
            except BlockingIOError:
                if kind in _MAY_BE_LOST:
                    return False
                sent = 0
            except OSError:
                return False
            self._rest = frame[sent:]
            return True

    def flush(self) -> None:
        """Go on with what has not fitted."""
        with self._lock:
            self._send_rest()

    def _send_rest(self) -> bool:
        """Whether nothing of the message before is left."""
        self._rest = send_what_fits(self.sock, self._rest)
        return not self._rest


def send_what_fits(sock: socket.socket, data: bytes) -> bytes:
    """Send as much as goes without waiting; return the rest."""
    while data:
        try:
            data = data[sock.send(data) :]
        except OSError:
            break
    return data


def receive_what_came(sock: socket.socket, most: int) -> bytes | None:
    """What can be read without waiting; None where that is nothing, b"" where nothing will come any more."""
    try:
        return sock.recv(most)
    except BlockingIOError:
        return None
    except OSError as exc:
        return None if exc.errno in _SHORTAGE else b""


class Receiver:
    """The master's end.

    Args:
        rest: What another receiver has read of a message that was not complete.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self.sock = sock
        self._buffer = bytearray(rest)

    @property
    def rest(self) -> bytes:
        """The beginning of a message whose end has not come."""
        return bytes(self._buffer)

    def receive(self) -> tuple[list[Message], bool]:
        """The messages that have come, and whether the channel is still open."""
        data = receive_what_came(self.sock, MAX_PAYLOAD)
        if not data:
            return [], data is None
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._buffer)
            try:
                kind = Kind(number)
            except ValueError:
                return messages, False
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            text = self._buffer[_HEADER.size : end].decode("utf-8", "replace")
            del self._buffer[:end]
            messages.append(Message(kind, text))
        return messages, True


def ask(receiver: Receiver | None, wish: Wish) -> bool:
    """From the master's end: ask the worker for something; False where it does not listen, and is not waited for."""
    if receiver is not None:
        with contextlib.suppress(OSError):
            receiver.sock.send(wish.value)
            return True
    return False
