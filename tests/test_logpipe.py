"""Writing into a pipe that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import socket
import sys
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest

from uvicorn import _logpipe
from uvicorn._logpipe import UnwaitingStream, never_wait_for_readers

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
    monkeypatch.setattr(_logpipe, "_streams", {})
    with os.fdopen(writer, "w") as stream:
        yield Ends(reader, stream)
    os.close(reader)
    for pipe in _logpipe._streams.values():
        pipe.close()


@pytest.fixture
def handler(ends: Ends) -> Iterator[logging.StreamHandler[TextIO]]:
    """A handler that writes to the pipe."""
    handler = logging.StreamHandler(ends.stream)
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def unwaiting(handler: logging.StreamHandler[TextIO]) -> UnwaitingStream:
    """Its stream, when it was standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", handler.stream)
        never_wait_for_readers()
    pipe: object = handler.stream
    assert isinstance(pipe, UnwaitingStream)
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


# --- sockets and terminals -----------------------------------------------------------------------


@pytest.fixture(params=["socket", "terminal"])
def other(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, int, TextIO]]:
    """What it is, the end that is read, and the stream that writes to the other one."""
    monkeypatch.setattr(_logpipe, "_streams", {})
    if request.param == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = pty.openpty()
        tty.setraw(writer)
    with os.fdopen(writer, "w") as stream:
        yield request.param, reader, stream
    os.close(reader)
    for each in _logpipe._streams.values():
        each.close()


def test_they_are_not_waited_for_either(other: tuple[str, int, TextIO]) -> None:
    what, reader, stream = other
    unwaiting = _logpipe._unwaiting(stream)
    assert unwaiting is not None
    assert os.get_blocking(stream.fileno())
    assert _logpipe._unwaiting(stream) is unwaiting
    written = 10_000  # of 64 bytes: more than either takes
    for _ in range(written):
        unwaiting.write(LINE)
    seen = ""
    while seen.count("\n") < 100:
        seen += os.read(reader, 65536).decode()
    unwaiting.write(LINE)
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            seen += os.read(reader, 65536).decode()
    lines = seen.splitlines(keepends=True)
    # A terminal makes room by itself now and then.
    notices = [line for line in lines if line.startswith("WARNING")]
    counts = [int(notice.split()[1]) for notice in notices]
    assert notices == [NOTICE.format(count).replace("pipe", what) for count in counts]
    lost = sum(counts)
    assert lost
    # Every line is there, or counted; one may be there in part, and is counted.
    assert lines.count(LINE) == written + 1 - lost
    assert lines[-1] == LINE


def test_a_socket_of_datagrams_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logpipe, "_streams", {})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, os.fdopen(os.dup(theirs.fileno()), "w") as stream:
        assert _logpipe._unwaiting(stream) is None


def test_a_socket_that_would_get_a_timeout_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logpipe, "_streams", {})
    ours, theirs = socket.socketpair()
    socket.setdefaulttimeout(5)
    try:
        with ours, theirs, os.fdopen(os.dup(theirs.fileno()), "w") as stream:
            assert _logpipe._unwaiting(stream) is None
            assert os.get_blocking(theirs.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_what_is_no_pipe_stays_as_it_is() -> None:
    with open(os.devnull, "w") as file:
        assert _logpipe._unwaiting(file) is None
    assert _logpipe._unwaiting(io.StringIO()) is None
    assert _logpipe._unwaiting(None) is None
