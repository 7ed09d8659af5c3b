"""What a worker says of its own failed start."""

from __future__ import annotations

import logging
import sys

import pytest

from uvicorn.worker.process import MAX_COMPLAINT, Complaint

TRACEBACK = (
    'Traceback (most recent call last):\n  File "app.py", line 3, in startup\nRuntimeError: no database\n\n'
)


def record(message: str, level: int = logging.ERROR, exc: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(exc), exc, None) if exc is not None else None
    return logging.LogRecord("uvicorn.error", level, "x.py", 1, message, (), exc_info)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (record("Error loading ASGI app."), "Error loading ASGI app."),
        (record("Error", exc=RuntimeError("first\nsecond")), "RuntimeError: first"),
        (record("Error", exc=RuntimeError()), "RuntimeError:"),
        (record(TRACEBACK), "RuntimeError: no database"),
        (record("\n"), ""),
        (record("x" * 1000), "x" * MAX_COMPLAINT),
    ],
)
def test_an_error_is_kept_in_one_line(made: logging.LogRecord, text: str) -> None:
    complaint = Complaint()
    assert complaint.filter(made)
    assert complaint.text == text


def test_it_is_the_first_error_and_nothing_less() -> None:
    complaint = Complaint()
    for each in (
        record("fine", logging.INFO),
        record("cause"),
        record("Application startup failed. Exiting."),
    ):
        assert complaint.filter(each)
    assert complaint.text == "cause"


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers need fork()")
