"""A log that somebody reads at the other end, written without ever waiting for whoever that is.

A pipe takes 64 KiB, and then a write waits until somebody reads: a log shipper that hangs would stop the master's loop
and every worker. So would the socket that systemd gives for the journal, and a terminal that somebody has stopped with
Ctrl-S. Here what does not fit is dropped and counted, and the count is told as soon as there is room again.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import stat
import sys
from typing import Any

from uvicorn._closing import close_quietly


class UnwaitingStream:
    """As much of a text stream as log handlers need, on the writing end of something that does not wait.

    Args:
        end: A descriptor of it that does not block, or a socket that others may wait on.
        what: What it is, for people.
    """

    def __init__(self, end: int | socket.socket, what: str) -> None:
        self._end = end
        self._what = what
        self._lost = 0
        # Whether the last line stands there without its end.
        self._torn = False

    def fileno(self) -> int:
        return self._end if isinstance(self._end, int) else self._end.fileno()

    def close(self) -> None:
        close_quietly(self._end)

    def write(self, text: str) -> int:
        """Write lines, or drop them.

        Raises:
            OSError: Nobody will ever read them.
        """
        notice = f"WARNING:  {self._lost} line(s) of the log are lost: the {self._what} was full.\n"
        if self._lost and not self._put(notice):
            self._lost = 0
        self._lost += text.count("\n") if self._lost else self._put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def _put(self, text: str) -> int:
        """Write what fits; how many lines did not, of which one may stand there in part."""
        data = text.encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            written = self._write(data)
        except BlockingIOError:
            return text.count("\n")
        # In a pipe possible only beyond PIPE_BUF: up to 4096 bytes are written whole or not at all (pipe(7)).
        self._torn = written < len(data) and data[written - 1 : written] != b"\n"
        return data.count(b"\n", written)

    def _write(self, data: bytes) -> int:
        if isinstance(self._end, int):
            return os.write(self._end, data)
        # It cannot be opened anew, but asked in each call not to wait.
        return self._end.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


_streams: dict[int, UnwaitingStream] = {}


def never_wait_for_readers() -> None:
    """Let all log handlers that write to a standard output which somebody reads do so without waiting."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
                stream = _unwaiting(handler.stream)
                if stream is not None:
                    handler.setStream(stream)


def _unwaiting(stream: Any) -> UnwaitingStream | None:
    """The stream without waiting; None where it never waits, or this cannot be had."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        fd = stream.fileno()
        if fd not in _streams:
            opened = _opened(fd)
            if opened is None:
                return None
            _streams[fd] = opened
        return _streams[fd]
    except (OSError, AttributeError, ValueError, io.UnsupportedOperation):
        return None


def _opened(fd: int) -> UnwaitingStream | None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        if socket.getdefaulttimeout() is not None:
            return None  # it would be set on the socket itself, for everybody who shares it
        sock = socket.socket(fileno=os.dup(fd))
        if sock.type != socket.SOCK_STREAM:
            sock.close()
            return None
        return UnwaitingStream(sock, "socket")
    if not stat.S_ISFIFO(mode) and not os.isatty(fd):
        return None
    # Opened anew: O_NONBLOCK on the descriptor that is there would hold for everybody who shares it, for the
    # application's own output and for the shell.
    again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return UnwaitingStream(again, "pipe" if stat.S_ISFIFO(mode) else "terminal")
