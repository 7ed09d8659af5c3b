"""From what was given as the application to the application itself."""

from __future__ import annotations

import inspect
import logging
import sys
from typing import Any

from uvicorn.importer import ImportFromStringError, import_from_string, own_traceback

# The exit code of a server that could not start.
STARTUP_FAILURE = 3

logger = logging.getLogger("uvicorn.error")


def load_app(given: Any, factory: bool) -> Any:
    """Import the application, and call it where it is a factory.

    Raises:
        SystemExit: With code 3, after a log line, where it cannot be found or made.
        Exception: Whatever its import raises.
    """
    try:
        app = import_from_string(given)
    except ImportFromStringError as exc:
        logger.error("Error loading ASGI app. %s", exc)
        sys.exit(STARTUP_FAILURE)
    try:
        made = app()
    except TypeError as exc:
        if factory:
            logger.error("Error loading ASGI app factory: %s", exc)
            sys.exit(STARTUP_FAILURE)
        return app
    if not factory:
        logger.warning(
            "ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
        )
    return made


def is_asgi3(app: Any) -> bool:
    """Whether the application takes scope, receive and send in one call."""
    if inspect.isclass(app):
        return hasattr(app, "__await__")
    if inspect.isfunction(app):
        return inspect.iscoroutinefunction(app)
    return inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004 - which kind of call


def report_failure(name: str, exc: BaseException) -> None:
    """Why the server cannot start, without the frames that are not the application's."""
    traceback = own_traceback(exc)
    exc_info = (type(exc), exc, traceback)
    if traceback is None and not isinstance(exc, (ImportError, SyntaxError)):
        # Nothing of the application had a part in it: a certificate, a logging configuration.
        logger.error("The server cannot start with these settings.", exc_info=exc_info)
    else:
        logger.error('Error loading ASGI app "%s".', name, exc_info=exc_info)
