"""Lines about a connection or request, which it survives whatever the log's handlers do."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import Any


def say(
    logger: logging.Logger, level: int, text: str, *args: Any, exc_info: BaseException | None = None
) -> None:
    """Log a line. Where a handler fails, which most say themselves and some raise (WatchedFileHandler, when it cannot
    open its file again), that goes to stderr, as `logging.Handler.handleError` does it: the client still waits.
    """
    try:
        logger.log(level, text, *args, exc_info=exc_info, stacklevel=2)
    except Exception:  # noqa: BLE001 - a handler may raise anything
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc(file=sys.stderr)
