"""uvloop's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def uvloop_loop_factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """A callable that makes a uvloop loop."""
    return uvloop.new_event_loop
