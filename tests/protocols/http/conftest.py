"""What every test of HTTP connections may ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.protocols.http.harness import IMPLEMENTATIONS


@pytest.fixture(params=IMPLEMENTATIONS)
def protocol_class(request: pytest.FixtureRequest) -> Any:
    """Both documented classes, one after the other."""
    return IMPLEMENTATIONS[request.param]


class Log(logging.Handler):
    """The records of uvicorn.error, whatever has been configured elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def log() -> Iterator[Log]:
    """What is logged to uvicorn.error, from level INFO up."""
    logger = logging.getLogger("uvicorn.error")
    before = logger.handlers, logger.level, logger.propagate, logger.disabled
    log = Log()
    logger.handlers, logger.propagate, logger.disabled = [log], False, False
    logger.setLevel(logging.INFO)
    yield log
    logger.handlers, _, logger.propagate, logger.disabled = before
    logger.setLevel(before[1])
