"""The standard library's event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def asyncio_loop_factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """A callable that makes a loop: a selector loop, and on Windows a proactor loop unless sockets are inherited."""
    if sys.platform == "win32" and not use_subprocess:  # pragma: no cover - Windows only
        return asyncio.ProactorEventLoop
    return asyncio.SelectorEventLoop
