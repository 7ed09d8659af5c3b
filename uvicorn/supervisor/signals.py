"""Signals to the master: ONE table from signal to event, and a handler that does nothing but count.

The interpreter writes each signal's number into a pipe; the loop reads it there, in order, and only then does
anything. A storm of the same signal is one event.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from types import FrameType
from typing import Any

from uvicorn._closing import close_quietly
from uvicorn.supervisor.events import (
    Event,
    PauseRequested,
    ReloadRequested,
    ReopenRequested,
    ScaleRequested,
    StopRequested,
    UpgradeRequested,
)

EVENTS: dict[signal.Signals, Event] = {
    signal.SIGTERM: StopRequested("SIGTERM"),
    signal.SIGINT: StopRequested("SIGINT"),
    signal.SIGQUIT: StopRequested("SIGQUIT"),
    signal.SIGHUP: ReloadRequested(),
    signal.SIGTTIN: ScaleRequested(+1),
    signal.SIGTTOU: ScaleRequested(-1),
    signal.SIGUSR1: ReopenRequested(),
    signal.SIGUSR2: UpgradeRequested(),
    signal.SIGWINCH: PauseRequested(),
}

# Each of these counts, however fast they come; of all others a storm is one.
COUNTED = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU))


def events_of(numbers: bytes) -> tuple[list[Event], bool]:
    """The events of a burst of signals, in order, and whether a child has ended."""
    found: list[Event] = []
    child = False
    for number in numbers:
        if number == signal.SIGCHLD:
            child = True
            continue
        try:
            known = signal.Signals(number)
        except ValueError:
            continue
        event = EVENTS.get(known)
        if event is not None and (known in COUNTED or event not in found):
            found.append(event)
    return found, child


class SignalSource:
    """Takes the master's signals while it runs.

    Args:
        on_terminal: Whether a terminal is there: it sends WINCH whenever its window changes.
        is_last: Whether the process ends with the master. Then nothing that comes afterwards takes the place of its
            exit code.
    """

    def __init__(self, on_terminal: bool | None = None, is_last: bool = False) -> None:
        # A pipe, since it takes 65,536 bytes written one by one, and a socket some 300: none may be lost in a storm.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._is_last = is_last
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        # How often each signal's handler has run, and how often its number was read.
        self._handled: Counter[int] = Counter()
        self._heard: Counter[int] = Counter()
        terminal = any(_is_terminal(fd) for fd in (0, 1, 2)) if on_terminal is None else on_terminal
        self._signals = [sig for sig in EVENTS if sig is not signal.SIGWINCH or not terminal]

    def install(self) -> None:
        self._previous_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for sig in (*self._signals, signal.SIGCHLD):
            self._previous[sig] = signal.signal(sig, self._handle)

    def restore(self) -> None:
        """Put back what was there before; where the process ends now, ignore what still comes."""
        for sig, handler in self._previous.items():
            if self._is_last and sig in EVENTS:
                handler = signal.SIG_IGN
            signal.signal(sig, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}
        signal.set_wakeup_fd(self._previous_wakeup)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> tuple[list[Event], bool]:
        """What has come."""
        return events_of(self._numbers())

    def put_back(self) -> None:
        """Send what has come and was not read to this process again. Where all signals are blocked it stays pending,
        also over an exec; the pipe does not."""
        for number in dict.fromkeys(self._numbers()):
            signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The interpreter has written the number already; or it could not, and says nothing about it."""
        self._handled[number] += 1

    def _numbers(self) -> bytes:
        # Looked at before the pipe: the numbers of all these were written before, unless the pipe did not take them. That
        # a handler has run less often than its signal came is no loss: several that come at once are handled once.
        handled = list(self._handled.items())
        numbers = self._written()
        self._heard.update(numbers)
        for number, times in handled:
            if times > self._heard[number]:
                self._heard[number] = times
                numbers += bytes((number,))
        return numbers

    def _written(self) -> bytes:
        numbers = b""
        with contextlib.suppress(OSError):
            while data := os.read(self._reader, 65536):
                numbers += data
        return numbers

    def close(self) -> None:
        close_quietly(self._reader, self._writer)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


# What a worker does with signals that are meant for the master: a `pkill -HUP` by name must not end it.
IGNORED_BY_WORKERS = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH", "SIGINT", "SIGPIPE")
    if hasattr(signal, name)
)


def reset_in_child() -> None:
    """First thing in a worker: none of the master's handlers. The worker unblocks signals when its own stand."""
    signal.set_wakeup_fd(-1)
    for sig in (*EVENTS, signal.SIGCHLD):
        signal.signal(sig, signal.SIG_DFL)
    for sig in IGNORED_BY_WORKERS:
        signal.signal(sig, signal.SIG_IGN)
