"""A log that goes into a pipe, written without ever waiting for whoever reads it.

A pipe takes 64 KiB, and then a write waits until somebody reads: a log shipper that hangs would stop the master's loop
and every worker. Here what does not fit is dropped and counted, and the count is told as soon as there is room again.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from typing import Any


class UnwaitingPipe:
    """As much of a text stream as log handlers need, on the writing end of a pipe.

    Args:
        fd: A descriptor of the pipe that does not block.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lost = 0
        # Whether the last line stands there without its end.
        self._torn = False

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        """Write lines, or drop them.

        Raises:
            OSError: Nobody will ever read them.
        """
        if self._lost and self._fits(
            f"WARNING:  {self._lost} line(s) of the log are lost: the pipe was full.\n"
        ):
            self._lost = 0
        if self._lost or not self._fits(text):
            self._lost += text.count("\n")
        return len(text)

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def _fits(self, text: str) -> bool:
        data = text.encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            return False
        # Possible only beyond PIPE_BUF: up to 4096 bytes are written whole or not at all (pipe(7)).
        self._torn = written < len(data)
        return not self._torn


_pipes: dict[int, UnwaitingPipe] = {}


def never_wait_for_readers() -> None:
    """Let all log handlers that write to a standard output which is a pipe do so without waiting."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
                pipe = _unwaiting(handler.stream)
                if pipe is not None:
                    handler.setStream(pipe)


def _unwaiting(stream: Any) -> UnwaitingPipe | None:
    """The stream's pipe; None where it is none, or cannot be opened in this way."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        fd = stream.fileno()
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return None
        if fd not in _pipes:
            # Opened anew: O_NONBLOCK on the descriptor that is there would hold for everybody who shares it, for the
            # application's own output and for the shell.
            _pipes[fd] = UnwaitingPipe(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK))
        return _pipes[fd]
    except (OSError, AttributeError, ValueError, io.UnsupportedOperation):
        return None
