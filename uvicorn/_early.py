"""SIGTERM to process 1 while it still imports: imported first of all, and imports nothing that takes time.

The kernel throws a signal away that process 1 of a PID namespace has no handler for (pid_namespaces(7)): a container that is
stopped in the first moments of its life would go on until it is killed. Any other process dies of the signal. So in
process 1, and only where it is our command, there is a handler from the first line on that does the same. Server and master
put theirs in its place.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any


def die(number: int, frame: FrameType | None) -> None:
    """End as a shell says it of a process that has died of this signal."""
    os._exit(128 + number)


def is_our_command(argv: list[str], original: list[str]) -> bool:
    """Whether this interpreter runs the `uvicorn` command: what imports us as a library has its own handlers."""
    if os.path.basename(argv[0] if argv else "").removesuffix(".exe") == "uvicorn":
        return True
    # While `python -m` still looks for the module, that is all there is.
    return (
        argv[:1] == ["-m"] and "uvicorn" in original[1:] and original[original.index("uvicorn") - 1] == "-m"
    )


def prepare() -> None:
    if os.getpid() != 1 or not is_our_command(sys.argv, sys.orig_argv):
        return
    for number in (signal.SIGTERM, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, die)


def before_us(handler: Any) -> Any:
    """The handler that was there before: who puts it back must not put this module's back, which would take the place of
    the process's own exit code."""
    return signal.SIG_DFL if handler is die else handler
