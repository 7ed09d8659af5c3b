"""A program on a terminal of its own, and what its user sees there: a pseudo-terminal with an emulator behind it."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

import pytest

from tests.e2e.harness import PATIENCE, wait_for

if sys.platform != "win32":
    import fcntl
    import termios

pyte = pytest.importorskip("pyte")

# The emulator does not know the alternate screen; what is switched on and off is looked for in what was written.
ENTER, LEAVE = b"\033[?1049h", b"\033[?1049l"

# The terminal becomes the session's own, so that Ctrl-C reaches the program.
_BECOME = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """One program on one terminal.

    Args:
        command: The program.
        columns: How wide the terminal is.
        lines: How high.
        environ: More environment variables.

    Attributes:
        written: All that the program has written.
    """

    def __init__(
        self, command: list[str], columns: int = 80, lines: int = 24, environ: dict[str, str] | None = None
    ) -> None:
        self.written = b""
        self._ours, self._theirs = os.openpty()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, lines)
        self.modes_before = self.modes()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, *command],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**os.environ, "TERM": "xterm-256color", **(environ or {})},
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def modes(self) -> list[Any]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def _read(self) -> None:
        while select.select([self._ours], [], [], 0)[0]:
            data = os.read(self._ours, 65536)
            self.written += data
            self._stream.feed(data)

    @property
    def seen(self) -> list[str]:
        """The lines on the screen."""
        self._read()
        return [line.rstrip() for line in self._screen.display]

    def wait_for(self, condition: Callable[[str], Any], what: str) -> Any:
        """The condition's value of the text on the screen, once it is true."""
        try:
            return wait_for(lambda: condition("\n".join(self.seen)), what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.seen)) from None

    def wait_exit(self) -> int:
        def ended() -> bool:
            self._read()  # a program that writes into a full terminal would wait
            return self.process.poll() is not None

        wait_for(ended, "the end of the program")
        self._read()
        assert self.process.returncode is not None
        return self.process.returncode

    def frames(self) -> list[str]:
        """What was drawn each time on the alternate screen, without what steers the cursor."""
        drawn = self.written.partition(ENTER)[2].partition(LEAVE)[0].decode()
        return drawn.split("\033[H")[1:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait(PATIENCE)
        os.close(self._ours)
        os.close(self._theirs)
