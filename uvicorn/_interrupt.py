"""Ctrl-C before a server takes signals itself."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType


@contextlib.contextmanager
def interruptible() -> Generator[None, None, None]:
    """Ctrl-C ends what runs at once, an application's import above all.

    asyncio's runner takes the interpreter's own handler for leave to put its in place, which only asks the task to end:
    an import would go on, and the server would start. `Server` takes signals itself as soon as it can end in order.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(sig: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
