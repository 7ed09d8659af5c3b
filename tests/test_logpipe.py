"""Writing into a pipe that nobody reads."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest

from uvicorn import _logpipe
from uvicorn._logpipe import UnwaitingPipe, never_wait_for_readers

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes are opened anew by /proc")

LINE = "x" * 63 + "\n"
NOTICE = "WARNING:  {} line(s) of the log are lost: the pipe was full.\n"


@dataclass
class Ends:
    reader: int
    stream: TextIO

    def read(self) -> str:
        return os.read(self.reader, 65536).decode()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """A pipe of the smallest size: one page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(_logpipe, "_pipes", {})
    with os.fdopen(writer, "w") as stream:
        yield Ends(reader, stream)
    os.close(reader)
    for pipe in _logpipe._pipes.values():
        os.close(pipe.fileno())


@pytest.fixture
def handler(ends: Ends) -> Iterator[logging.StreamHandler[TextIO]]:
    """A handler that writes to the pipe."""
    handler = logging.StreamHandler(ends.stream)
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def unwaiting(handler: logging.StreamHandler[TextIO]) -> UnwaitingPipe:
    """Its stream, when it was standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", handler.stream)
        never_wait_for_readers()
    pipe: object = handler.stream
    assert isinstance(pipe, UnwaitingPipe)
    return pipe


def test_what_does_not_fit_is_dropped_and_told_when_there_is_room(
    handler: logging.StreamHandler[TextIO], ends: Ends
) -> None:
    pipe = unwaiting(handler)
    for _ in range(100):
        pipe.write(LINE)
    assert ends.read() == LINE * 64
    pipe.write("after\n")
    assert ends.read() == NOTICE.format(36) + "after\n"
    pipe.write("later\n")
    assert ends.read() == "later\n"


def test_a_line_that_was_cut_is_ended_before_the_next_one(
    handler: logging.StreamHandler[TextIO], ends: Ends
) -> None:
    pipe = unwaiting(handler)
    pipe.write("y" * 5000 + "\n")
    assert ends.read() == "y" * 4096
    pipe.write("after\n")
    assert ends.read() == "\n" + NOTICE.format(1) + "after\n"


def test_records_are_written_through_the_handler(handler: logging.StreamHandler[TextIO], ends: Ends) -> None:
    unwaiting(handler)
    logging.getLogger("uvicorn.error").error("caf\u00e9")
    assert ends.read() == "caf\u00e9\n"


def test_what_cannot_be_encoded_is_written_all_the_same(
    handler: logging.StreamHandler[TextIO], ends: Ends
) -> None:
    unwaiting(handler).write("\udcff\n")
    assert ends.read() == "\\udcff\n"


def test_others_who_have_the_pipe_wait_as_before(handler: logging.StreamHandler[TextIO], ends: Ends) -> None:
    pipe = unwaiting(handler)
    assert os.get_blocking(ends.stream.fileno())
    assert not os.get_blocking(pipe.fileno())
    assert not os.get_inheritable(pipe.fileno())


def test_the_pipe_is_opened_once(handler: logging.StreamHandler[TextIO], ends: Ends) -> None:
    first = unwaiting(handler)
    handler.setStream(ends.stream)  # as a reload configures logging again
    assert unwaiting(handler) is first


def test_without_a_reader_it_is_an_error_as_with_any_pipe(ends: Ends) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        pipe = _logpipe._unwaiting(stream)
        assert pipe is not None
        with pytest.raises(BrokenPipeError):
            pipe.write("nobody\n")


def test_what_is_no_pipe_stays_as_it_is() -> None:
    with open(os.devnull, "w") as file:
        assert _logpipe._unwaiting(file) is None
    assert _logpipe._unwaiting(io.StringIO()) is None
    assert _logpipe._unwaiting(None) is None
