"""A new process that runs one function: what the master and the mold do alike when they fork.

Nothing of the parent's stack is unwound in the child, no handler of the parent's runs there, and what is buffered is
written once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

# Asked for once: each of them becomes an enum's member, in every process anew.
ALL_SIGNALS = frozenset(signal.valid_signals()) if hasattr(signal, "valid_signals") else frozenset()

logger = logging.getLogger("uvicorn.error")


def fork(child: Callable[[], int], own_group: bool = True) -> int:
    """Run `child` in a new process; its result is the exit code. Returns the pid.

    All signals are blocked in the child until it has set up its own handlers and unblocks them: none of them is lost.

    Args:
        own_group: Whether it leads a process group of its own.

    Raises:
        OSError: No process could be made.
    """
    flush_output()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        raise
    if pid == 0:
        _run_child(child, own_group)
    if own_group:
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return pid


def _run_child(child: Callable[[], int], own_group: bool) -> NoReturn:
    """In the new process: nothing of the parent's stack may be unwound, so nothing returns from here."""
    code = 1
    try:
        if own_group:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
        # As the interpreter does it, and as the system does: only the last eight bits count.
        code = child() & 0xFF
    except SystemExit as exc:
        code = exc.code & 0xFF if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        logger.exception("A worker has ended in an unexpected way.")
    finally:
        try:
            flush_output()
        finally:
            os._exit(code)


def flush_output() -> None:
    """Write what is buffered, as far as it goes: nobody may read it any more, or there may be no output at all."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
