"""One line where asyncio's server finds no descriptor for a connection.

asyncio goes on accepting, as many times as the backlog is long, and gives each failure to the exception handler of the
event loop: without this, 2048 tracebacks a second (seen with Python 3.11; uvloop closes such connections and is quiet).
It also pauses accepting for a second by itself, so nothing has to be done but to say it once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn._kernel import SHORTAGE

# Seconds without one of its failures after which a shortage is over, and the next one is said again.
OVER = 10.0

logger = logging.getLogger("uvicorn.error")


class ShortageHandler:
    """An exception handler for an event loop that has none of its own."""

    __slots__ = ("_seen_at",)

    def __init__(self) -> None:
        self._seen_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if not isinstance(exc, OSError) or exc.errno not in SHORTAGE or "accept" not in context["message"]:
            loop.default_exception_handler(context)
            return
        now = loop.time()
        if now - self._seen_at > OVER:
            logger.error("Cannot accept: %s. Trying again every second.", exc.strerror)
        self._seen_at = now


def handle_shortage(loop: asyncio.AbstractEventLoop) -> None:
    """Take care of it, unless somebody handles the loop's exceptions already."""
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(ShortageHandler())


def hand_back(loop: asyncio.AbstractEventLoop) -> None:
    """The server has ended; the event loop may go on."""
    if isinstance(loop.get_exception_handler(), ShortageHandler):
        loop.set_exception_handler(None)
