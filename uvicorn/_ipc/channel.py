"""Small typed messages from a worker to its master, over a socket pair; a byte back asks where it is.

A message is a kind, a length and as many bytes. The master never blocks on it, reads a bounded amount at a time, and
takes anything malformed for the end of the channel. The worker never blocks on it either: what does not fit is dropped,
and of a message that fits in part the rest goes out before anything else.
The channel's end of file tells either side that the other one is gone.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from dataclasses import dataclass

_HEADER = struct.Struct("!BxH")
MAX_PAYLOAD = 65535


class Kind(enum.IntEnum):
    """What a worker has to say."""

    READY = 1  # lifespan startup is done, and it accepts
    RECYCLE = 2  # it has reached a limit and wants a successor; the payload says which, in words
    STOPPED_ACCEPTING = 3  # its listening sockets are closed
    REPORT = 4  # text for the log: where it is stuck
    ANSWER = 5  # the same, because the master has asked
    FAILED = 6  # its start has failed; the payload says why, in one line


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
                return False
            try:
                sent = self.sock.send(frame)
            except OSError:
                return False
            self._rest = frame[sent:]
            return True

    def flush(self) -> None:
        """Go on with a message of which only a part has fitted."""
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
    except OSError:
        return b""


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


def ask_for_report(receiver: Receiver | None) -> None:
    """From the master's end: let the worker say where it is. One that does not listen is not waited for."""
    if receiver is not None:
        with contextlib.suppress(OSError):
            receiver.sock.send(b"?")
