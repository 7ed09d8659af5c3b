"""The access log: records, and the same lines written in batches where nobody could tell the difference."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uvicorn.logging import AccessFormatter
from uvicorn.protocols._access import (
    ATOMIC_PIPE_WRITE,
    BATCH_DELAY,
    BATCH_LINES,
    CLIENTS,
    DEFAULT_FORMAT,
    PATH_LENGTH,
    PATHS,
    BatchedAccessLog,
    RecordAccessLog,
    client_text,
    plain_handler,
    request_path,
)


def scope_of(**changes: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "client": ("192.0.2.1", 1234),
        "method": "GET",
        "raw_path": b"/",
        "query_string": b"",
        "http_version": "1.1",
    }
    return scope | changes


class Keeper(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Timers:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.calls.append((delay, callback))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for _, callback in calls:
            callback()


class CountingStream(io.StringIO):
    """Counts how often it is written to and flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.flushes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    def flush(self) -> None:
        self.flushes += 1


class BrokenStream(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("disk full")


class Setup:
    """A logger as LOGGING_CONFIG makes it, with a stream that is read back."""

    def __init__(self, stream: Any = None, colours: bool = False) -> None:
        # A world of its own: nothing that is changed here is seen elsewhere.
        self.logger = logging.Manager(logging.RootLogger(logging.WARNING)).getLogger("uvicorn.access")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.stream = stream or CountingStream()
        self.handler = logging.StreamHandler(self.stream)
        self.formatter = AccessFormatter(DEFAULT_FORMAT, use_colors=colours)
        self.handler.setFormatter(self.formatter)
        self.logger.addHandler(self.handler)
        self.timers = Timers()

    def batched(self) -> BatchedAccessLog:
        return BatchedAccessLog(self.logger, self.timers.call_later)


@pytest.fixture
def setup() -> Setup:
    return Setup()


SCOPES = {
    "plain": scope_of(),
    "query": scope_of(raw_path=b"/a/b", query_string=b"c=d&e=%0A"),
    "empty query": scope_of(raw_path=b"/a"),
    "post 1.0": scope_of(method="POST", http_version="1.0"),
    "no client": scope_of(client=None),
    "ipv6": scope_of(client=("::1", 1)),
    "percent": scope_of(raw_path=b"/%s%20%0a%d{x}$y", query_string=b"%s"),
    "bytes that cannot come": scope_of(raw_path=b"/\x80\xff", query_string=b"\xe4"),
    "forged client": scope_of(client=("1.2.3.4\n\x1b[31m\x85é", 0)),
    "method with quotes": scope_of(method='"M" %s'),
}
STATUSES = (200, 204, 301, 404, 500, 599, 103, 999, 600)


# --- the parts of a line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        (b"/", b"", "/"),
        (b"/a", b"b", "/a?b"),
        (b"/%0a", b"%0a", "/%0a?%0a"),
        (b"/\x80", b"\xff", "/\\x80?\\xff"),
    ],
)
def test_request_path_is_as_it_was_sent(path: bytes, query: bytes, text: str) -> None:
    assert request_path(scope_of(raw_path=path, query_string=query)) == text


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (None, ""),
        (("192.0.2.1", 1), "192.0.2.1:1"),
        (("::1", 0), "::1:0"),
        (("a\nb\x1b[0m", 0), "a\\nb\\x1b[0m:0"),
        (("a\x9bb", 0), "a\\x9bb:0"),
        (("é", 0), "\\xe9:0"),
    ],
)
def test_client_text_cannot_forge_a_line(client: Any, text: str) -> None:
    assert client_text(client) == text


# --- records --------------------------------------------------------------------------------------


def test_record_has_the_documented_message_and_args(setup: Setup) -> None:
    keeper = Keeper()
    setup.logger.handlers = [keeper]
    RecordAccessLog(setup.logger).log(scope_of(raw_path=b"/a", query_string=b"b=c"), 404)
    [record] = keeper.records
    assert record.msg == '%s - "%s %s HTTP/%s" %d'
    assert record.args == ("192.0.2.1:1234", "GET", "/a?b=c", "1.1", 404)
    assert record.levelno == logging.INFO
    assert record.getMessage() == '192.0.2.1:1234 - "GET /a?b=c HTTP/1.1" 404'


def test_record_of_a_client_without_address_has_an_empty_one(setup: Setup) -> None:
    keeper = Keeper()
    setup.logger.handlers = [keeper]
    RecordAccessLog(setup.logger).log(scope_of(client=None), 200)
    assert keeper.records[0].args == ("", "GET", "/", "1.1", 200)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"raw_path": None}, '192.0.2.1:1234 - "GET /%20%C3%A9 HTTP/1.1"'),
        ({"raw_path": "/text"}, '192.0.2.1:1234 - "GET /%20%C3%A9 HTTP/1.1"'),
        ({"query_string": "a=\n"}, '192.0.2.1:1234 - "GET /?a=\\n HTTP/1.1"'),
        ({"client": 5}, ' - "GET / HTTP/1.1"'),
        ({"client": ("lonely",)}, ' - "GET / HTTP/1.1"'),
        ({"client": ["h", 1]}, 'h:1 - "GET / HTTP/1.1"'),
        ({"client": ([], 1)}, '[]:1 - "GET / HTTP/1.1"'),
        ({"path": 5, "raw_path": None}, '192.0.2.1:1234 - "GET 5 HTTP/1.1"'),
    ],
)
def test_scope_that_the_application_has_changed_is_shown_as_far_as_it_goes(
    setup: Setup, batched: bool, changes: dict[str, Any], line: str
) -> None:
    scope = scope_of(path="/ é") | changes
    log = setup.batched() if batched else RecordAccessLog(setup.logger)
    log.log(scope, 200)
    if isinstance(log, BatchedAccessLog):
        log.flush()
    assert setup.stream.getvalue() == f"INFO:     {line} 200 OK\n"


@pytest.mark.parametrize("batched", [False, True])
def test_scope_that_the_application_has_emptied_is_no_reason_to_fail(setup: Setup, batched: bool) -> None:
    log = setup.batched() if batched else RecordAccessLog(setup.logger)
    log.log({}, 200)
    if isinstance(log, BatchedAccessLog):
        log.flush()
    assert setup.stream.getvalue() == 'INFO:      - "  HTTP/" 200 OK\n'


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", SCOPES)
def test_batched_line_is_what_the_formatter_makes_of_the_record(
    name: str, status: int, colours: bool
) -> None:
    batched, by_records = Setup(colours=colours), Setup(colours=colours)
    log = batched.batched()
    log.log(SCOPES[name], status)
    log.flush()
    RecordAccessLog(by_records.logger).log(SCOPES[name], status)
    assert batched.stream.getvalue() == by_records.stream.getvalue()
    assert batched.stream.getvalue().count("\n") == 1


def test_line_is_byte_for_byte_the_documented_one(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(raw_path=b"/a", query_string=b"b"), 200)
    log.flush()
    assert setup.stream.getvalue() == 'INFO:     192.0.2.1:1234 - "GET /a?b HTTP/1.1" 200 OK\n'


def test_coloured_line_is_byte_for_byte_the_documented_one() -> None:
    setup = Setup(colours=True)
    log = setup.batched()
    log.log(scope_of(), 404)
    log.flush()
    assert setup.stream.getvalue() == (
        "\x1b[32mINFO\x1b[0m:     192.0.2.1:1234 - "
        '"\x1b[1mGET / HTTP/1.1\x1b[0m" \x1b[31m404 Not Found\x1b[0m\n'
    )


def test_lines_wait_for_one_timer_and_are_written_together(setup: Setup) -> None:
    log = setup.batched()
    for _ in range(3):
        log.log(scope_of(), 200)
    assert setup.stream.getvalue() == ""
    assert [delay for delay, _ in setup.timers.calls] == [BATCH_DELAY]
    setup.timers.run()
    assert setup.stream.getvalue().count("\n") == 3
    assert (setup.stream.writes, setup.stream.flushes) == (1, 1)
    log.log(scope_of(), 200)
    assert len(setup.timers.calls) == 1  # the next batch has a timer of its own


def test_batch_is_written_when_it_is_full(setup: Setup) -> None:
    log = setup.batched()
    for _ in range(BATCH_LINES):
        log.log(scope_of(), 200)
    assert setup.stream.getvalue().count("\n") == BATCH_LINES
    setup.timers.run()
    assert setup.stream.writes == 1


def test_flush_without_lines_writes_nothing(setup: Setup) -> None:
    setup.batched().flush()
    assert setup.stream.writes == 0


def test_lines_stand_in_the_order_of_the_responses_with_their_own_clients(setup: Setup) -> None:
    log = setup.batched()
    for port in (1, 2, 2, 1):
        log.log(scope_of(client=("h", port)), 200)
    log.flush()
    lines = setup.stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["h:1", "h:2", "h:2", "h:1"]


def test_a_path_that_comes_again_is_shown_as_what_it_is_each_time() -> None:
    batched, by_records = Setup(), Setup()
    log, records = batched.batched(), RecordAccessLog(by_records.logger)
    changes: list[dict[str, Any]] = [
        {},
        {"method": "HEAD"},
        {"http_version": "1.0"},
        {"query_string": b"a"},
        {"client": ("h", 1)},
        {"raw_path": b"/a"},
        {"raw_path": bytearray(b"/"), "path": "/"},
        {"raw_path": b"/" + b"l" * PATH_LENGTH},
    ]
    for status in (200, 404, 200):
        for change in (*changes, *reversed(changes)):
            for each in (log, records):
                each.log(scope_of(**change), status)
    log.flush()
    assert batched.stream.getvalue() == by_records.stream.getvalue()
    assert set(log._paths) == {b"/", b"/a"}


def test_few_paths_are_remembered(setup: Setup) -> None:
    log = setup.batched()
    for i in range(PATHS + 1):
        log.log(scope_of(raw_path=b"/%d" % i), 200)
        assert len(log._paths) <= PATHS
    log.flush()
    lines = setup.stream.getvalue().splitlines()
    assert [line.split()[4] for line in lines] == [f"/{i}" for i in range(PATHS + 1)]


def test_few_clients_are_remembered(setup: Setup) -> None:
    log = setup.batched()
    for port in range(CLIENTS + 1):
        log.log(scope_of(client=("h", port)), 200)
        assert len(log._clients) <= CLIENTS
    log.flush()
    lines = setup.stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"h:{port}" for port in range(CLIENTS + 1)]


# --- when records are made after all --------------------------------------------------------------


class OtherStreamHandler(logging.StreamHandler[Any]):
    pass


class OtherFormatter(AccessFormatter):
    pass


class OtherLogger(logging.Logger):
    pass


class OtherRecord(logging.LogRecord):
    pass


def add_handler(setup: Setup) -> None:
    setup.logger.addHandler(Keeper())


def no_handler(setup: Setup) -> None:
    setup.logger.handlers = []


def add_filter(setup: Setup) -> None:
    setup.logger.addFilter(lambda record: True)


def add_handler_filter(setup: Setup) -> None:
    setup.handler.addFilter(lambda record: True)


def propagate(setup: Setup) -> None:
    setup.logger.propagate = True


def logger_level(setup: Setup) -> None:
    setup.logger.setLevel(logging.WARNING)


def handler_level(setup: Setup) -> None:
    setup.handler.setLevel(logging.WARNING)


def disabled(setup: Setup) -> None:
    setup.logger.disabled = True


def disabled_everywhere(setup: Setup) -> None:
    setup.logger.manager.disable = logging.INFO
    setup.logger.manager._clear_cache()


def other_handler(setup: Setup) -> None:
    setup.logger.handlers = [OtherStreamHandler(setup.stream)]
    setup.logger.handlers[0].setFormatter(setup.formatter)


def other_formatter(setup: Setup) -> None:
    setup.handler.setFormatter(OtherFormatter(DEFAULT_FORMAT, use_colors=False))


def plain_formatter(setup: Setup) -> None:
    setup.handler.setFormatter(logging.Formatter("%(message)s"))


def no_formatter(setup: Setup) -> None:
    setup.handler.setFormatter(None)


def other_format(setup: Setup) -> None:
    setup.handler.setFormatter(AccessFormatter("%(asctime)s " + DEFAULT_FORMAT, use_colors=False))


def other_terminator(setup: Setup) -> None:
    setup.handler.terminator = "\r\n"


CHANGES = (
    add_handler, no_handler, add_filter, add_handler_filter, propagate, logger_level, handler_level, disabled,
    disabled_everywhere, other_handler, other_formatter, plain_formatter, no_formatter, other_format,
    other_terminator,
)  # fmt: skip


def without_times(stream: io.StringIO) -> list[str]:
    return [re.sub(r"^[-0-9]+ [:,0-9]+ ", "", line) for line in stream.getvalue().split("\n")]


@pytest.fixture
def record_factory() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


def test_default_configuration_has_a_plain_handler(setup: Setup) -> None:
    assert plain_handler(setup.logger) is setup.handler


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_configuration_has_none(setup: Setup, change: Callable[[Setup], None]) -> None:
    change(setup)
    assert plain_handler(setup.logger) is None


def test_logger_of_another_class_has_none(setup: Setup) -> None:
    setup.logger.__class__ = OtherLogger
    assert plain_handler(setup.logger) is None


@pytest.mark.usefixtures("record_factory")
def test_other_record_factory_has_none(setup: Setup) -> None:
    logging.setLogRecordFactory(OtherRecord)
    assert plain_handler(setup.logger) is None


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("early", [True, False], ids=["before the first line", "between batches"])
def test_changed_configuration_gets_what_logging_makes_of_records(
    change: Callable[[Setup], None], early: bool
) -> None:
    batched, by_records = Setup(), Setup()
    if early:
        change(batched)
    log = batched.batched()
    if not early:
        log.log(scope_of(), 200)
        log.flush()
        RecordAccessLog(by_records.logger).log(scope_of(), 200)
        change(batched)
    change(by_records)
    for status in (404, 500):
        log.log(scope_of(), status)
        RecordAccessLog(by_records.logger).log(scope_of(), status)
    assert without_times(batched.stream) == without_times(by_records.stream)
    assert len(batched.timers.calls) == (0 if early else 1)


def test_own_handler_gets_records_with_args_at_once(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(), 200)
    log.flush()
    keeper = Keeper()
    setup.logger.addHandler(keeper)
    log.log(scope_of(raw_path=b"/later"), 201)
    [record] = keeper.records
    assert record.args == ("192.0.2.1:1234", "GET", "/later", "1.1", 201)


def test_lines_of_a_batch_under_way_are_not_lost_by_a_change(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(raw_path=b"/1"), 200)
    no_handler(setup)
    setup.timers.run()
    assert "/1" in setup.stream.getvalue()


def test_colours_that_are_turned_on_later_show(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(), 200)
    log.flush()
    setup.formatter.use_colors = True
    log.log(scope_of(), 200)
    log.flush()
    assert setup.stream.getvalue().splitlines()[1] == (
        '\x1b[32mINFO\x1b[0m:     192.0.2.1:1234 - "\x1b[1mGET / HTTP/1.1\x1b[0m" \x1b[32m200 OK\x1b[0m'
    )


def test_formatter_that_is_replaced_later_shows(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(), 200)
    log.flush()
    setup.handler.setFormatter(AccessFormatter(DEFAULT_FORMAT, use_colors=True))
    log.log(scope_of(), 200)
    log.flush()
    assert "\x1b[1m" in setup.stream.getvalue().splitlines()[1]


def test_stream_that_is_replaced_later_is_written_to(setup: Setup) -> None:
    log = setup.batched()
    log.log(scope_of(), 200)
    log.flush()
    stream = CountingStream()
    setup.handler.setStream(stream)
    log.log(scope_of(raw_path=b"/2"), 200)
    log.flush()
    assert "/2" in stream.getvalue()
    assert "/2" not in setup.stream.getvalue()


# --- where it is written --------------------------------------------------------------------------


class Pipe:
    """A stream on a pipe that notes each write that reaches it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.texts: list[str] = []

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, text: str) -> None:
        self.texts.append(text)

    def flush(self) -> None:
        pass


def many_lines(stream: Any, count: int, path: bytes = b"/a") -> None:
    log = Setup(stream).batched()
    for _ in range(count):
        log.log(scope_of(raw_path=path), 200)
    log.flush()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb") as file:
        yield Pipe(file)


def test_pipe_gets_portions_that_are_never_divided(pipe: Pipe) -> None:
    many_lines(pipe, 300)
    assert len(pipe.texts) > 1
    assert all(len(text.encode()) <= ATOMIC_PIPE_WRITE and text.endswith("\n") for text in pipe.texts)
    line = 'INFO:     192.0.2.1:1234 - "GET /a HTTP/1.1" 200 OK\n'
    assert "".join(pipe.texts) == line * 300
    # As full as they can be.
    assert all(len(text) + len(line) > ATOMIC_PIPE_WRITE for text in pipe.texts[:-1])


def test_pipe_gets_a_small_batch_whole(pipe: Pipe) -> None:
    many_lines(pipe, 10)
    assert len(pipe.texts) == 1


def test_pipe_gets_a_line_that_is_too_long_alone(pipe: Pipe) -> None:
    many_lines(pipe, 3, b"/" + b"a" * ATOMIC_PIPE_WRITE)
    assert [text.count("\n") for text in pipe.texts] == [1, 1, 1]


def test_file_gets_a_large_batch_whole(tmp_path: Any) -> None:
    with open(tmp_path / "log", "w") as file:
        stream = Pipe(file)
        many_lines(stream, 300)
    assert [text.count("\n") for text in stream.texts] == [300]


def test_stream_without_a_descriptor_gets_a_large_batch_whole() -> None:
    stream = CountingStream()
    many_lines(stream, 300)
    assert stream.writes == 1


def test_stream_that_fails_is_reported_and_stops_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup = Setup(BrokenStream())
    log = setup.batched()
    for _ in range(2):
        log.log(scope_of(), 200)
        log.log(scope_of(), 200)
        log.flush()
        error = capsys.readouterr().err
        assert "disk full" in error
        assert "2" in error
        assert "lines of the access log could not be written" in error


def test_stream_that_fails_is_silent_where_logging_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    many_lines(BrokenStream(), 2)
    assert capsys.readouterr().err == ""


def test_stream_that_fails_leaves_its_handler_unlocked(capsys: pytest.CaptureFixture[str]) -> None:
    setup = Setup(BrokenStream())
    log = setup.batched()
    log.log(scope_of(), 200)
    log.flush()
    capsys.readouterr()
    stream = CountingStream()
    setup.handler.stream = stream
    log.log(scope_of(), 200)
    log.flush()
    assert stream.getvalue().count("\n") == 1
