"""Fixtures for tests that touch what belongs to the whole process."""

from __future__ import annotations

import copy
import logging
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from uvicorn.config import LOGGING_CONFIG

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("uvicorn", deadline=None)
hypothesis.settings.load_profile("uvicorn")

_LOGGERS = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


@pytest.fixture
def process_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logging, environment and import path are afterwards what they were before, and modules of a test forgotten.

    Within it no variable that the server reads is set.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    states = [{**vars(logger), "handlers": list(logger.handlers)} for logger in loggers]
    environ, path = dict(os.environ), list(sys.path)
    default_config = copy.deepcopy(LOGGING_CONFIG)
    for name in environ:
        ours = ("UVICORN_", "LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET", "FDSTORE")
        if name.startswith(ours) or name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            del os.environ[name]
    yield
    for logger, state in zip(loggers, states, strict=True):
        logger.handlers[:] = state["handlers"]
        logger.filters[:] = []
        logger.setLevel(state["level"])
        logger.propagate, logger.disabled = state["propagate"], state["disabled"]
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:] = path
    written_here = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(written_here):
            del sys.modules[name]
    LOGGING_CONFIG.clear()
    LOGGING_CONFIG.update(default_config)


@pytest.fixture
def error_log(process_state: None) -> list[logging.LogRecord]:
    """What goes to the logger uvicorn.error at INFO and above, whatever handlers are configured meanwhile."""
    records: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        records.append(record)
        return True

    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.INFO)
    logger.addFilter(keep)
    return records
