from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from uvicorn.protocols._say import say

logger = logging.getLogger("tests.say")


class Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise PermissionError("no log today")


@pytest.fixture
def failing() -> Iterator[None]:
    handler = Raises()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def test_a_line_has_its_level_its_arguments_and_the_place_of_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    say(logger, logging.WARNING, "%s goes", "it", exc_info=ValueError("why"))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage(), record.filename) == (
        logging.WARNING,
        "it goes",
        "test_say.py",
    )
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


@pytest.mark.usefixtures("failing")
def test_a_handler_that_raises_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say(logger, logging.ERROR, "it fails")
    assert "PermissionError: no log today" in capsys.readouterr().err


@pytest.mark.usefixtures("failing")
def test_nothing_is_told_where_logging_is_to_keep_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    say(logger, logging.ERROR, "it fails")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("failing")
def test_without_stderr_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    say(logger, logging.ERROR, "it fails")
