"""A terminal that is drawn on: what was there comes back at the end, however that comes.

Keys are read without Return. A terminal whose size changes is drawn on again at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType
from typing import Self

if sys.platform != "win32":
    import termios
    import tty

# What xterm and all that came after it understand: the other screen, with no cursor and no wrapping of long lines.
_ENTER, _LEAVE = "\033[?1049h\033[?25l\033[?7l", "\033[?7h\033[?25h\033[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\033[H", "\033[K", "\033[J"
_REVERSE, _PLAIN = "\033[7m", "\033[m"

_KEYS = {"\033[A": "up", "k": "up", "\033[B": "down", "j": "down", "q": "quit", "Q": "quit", "\x04": "quit"}


def is_live() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and sys.platform != "win32"


class Screen:
    """The terminal, from `with` to its end."""

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._before: list[object] | None = None
        self._wakes, self._waker = os.pipe()
        for fd in (self._wakes, self._waker):
            os.set_blocking(fd, False)
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        handlers = {
            signal.SIGWINCH: lambda number, frame: None,  # select() ends by the descriptor
            signal.SIGTSTP: self._suspend,
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
        }
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number, handler in handlers.items():
            self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(self, *failure: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._wakes)
        os.close(self._waker)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines. Something is drawn on the smallest, too."""
        # Not by shutil, which believes $COLUMNS: where that is exported, it is the size of the start.
        found = os.get_terminal_size(sys.stdout.fileno())
        return max(20, found.columns), max(5, found.lines)

    def draw(self, lines: list[str], reverse: int = -1) -> None:
        """Show these lines and nothing else.

        Args:
            reverse: Which of them stands out.
        """
        width, height = self.size
        # Written over what is there, and not after clearing it: that would flicker. What is as long as the line leaves
        # the cursor on its last letter, which would be erased.
        shown = [line[:width] + (_END_OF_LINE if len(line) < width else "") for line in lines[:height]]
        if 0 <= reverse < len(shown):
            shown[reverse] = f"{_REVERSE}{lines[reverse][:width].ljust(width)}{_PLAIN}"
        text = "\r\n".join(shown)
        below = f"\r\n{_BELOW}" if len(shown) < height else ""
        sys.stdout.write(f"{_HOME}{text}{below}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> str:
        """Let time pass; the key that was pressed meanwhile, "" where none was."""
        watched = [self._wakes] + ([self._keys] if self._keys >= 0 else [])
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._wakes in readable:
            os.read(self._wakes, 64)
        if self._keys in readable:
            pressed = os.read(self._keys, 64).decode(errors="replace")
            return _KEYS.get(pressed, "quit" if not pressed else "other")
        return "resized" if readable else ""

    def _take(self) -> None:
        if self._keys >= 0:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def _give_back(self) -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal as it was; `fg` goes on here."""
        self._give_back()
        os.kill(0, signal.SIGSTOP)
        self._take()

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
