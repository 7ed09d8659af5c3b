"""The documented formatters: prefixes, colours, access lines, and records that stay as they are."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import click
import pytest

from uvicorn.logging import TRACE_LOG_LEVEL, AccessFormatter, ColourizedFormatter, DefaultFormatter

FORMAT = "%(levelprefix)s %(message)s"
ACCESS_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(level: int = logging.INFO, message: str = "hello", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("uvicorn.error", level, "file.py", 1, message, args, None)
    vars(made).update(extra)
    return made


def access_record(status: int = 200, client: str = "127.0.0.1:5000") -> logging.LogRecord:
    return record(logging.INFO, '%s - "%s %s HTTP/%s" %d', client, "GET", "/a?b=c", "1.1", status)


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (TRACE_LOG_LEVEL, "TRACE:    hello"),
        (logging.DEBUG, "DEBUG:    hello"),
        (logging.INFO, "INFO:     hello"),
        (logging.WARNING, "WARNING:  hello"),
        (logging.ERROR, "ERROR:    hello"),
        (logging.CRITICAL, "CRITICAL: hello"),
        (25, "Level 25: hello"),
    ],
)
def test_prefix_is_padded_to_the_longest_level(level: int, line: str) -> None:
    assert DefaultFormatter(FORMAT, use_colors=False).format(record(level)) == line


def test_level_with_a_long_name_is_not_padded() -> None:
    assert DefaultFormatter(FORMAT, use_colors=False).format(record(1234)) == "Level 1234: hello"


@pytest.mark.parametrize(
    ("level", "colour"),
    [
        (TRACE_LOG_LEVEL, "blue"),
        (logging.DEBUG, "cyan"),
        (logging.INFO, "green"),
        (logging.WARNING, "yellow"),
        (logging.ERROR, "red"),
        (logging.CRITICAL, "bright_red"),
    ],
)
def test_level_name_has_the_levels_colour(level: int, colour: str) -> None:
    assert ColourizedFormatter().color_level_name("NAME", level) == click.style("NAME", fg=colour)


@pytest.mark.parametrize("level", [0, 1, 25, 99])
def test_level_name_of_another_level_is_unchanged(level: int) -> None:
    assert ColourizedFormatter().color_level_name("NAME", level) == "NAME"


def test_padding_is_the_same_with_colours() -> None:
    line = DefaultFormatter(FORMAT, use_colors=True).format(record())
    assert line == f"{click.style('INFO', fg='green')}:     hello"
    assert click.unstyle(line) == "INFO:     hello"


def test_colour_message_replaces_the_message_where_colours_are_on() -> None:
    coloured = record(logging.INFO, "on %s", "here", color_message="on \x1b[1m%s\x1b[0m")
    on, off = DefaultFormatter(FORMAT, use_colors=True), DefaultFormatter(FORMAT, use_colors=False)
    assert on.format(coloured).endswith(":     on \x1b[1mhere\x1b[0m")
    assert off.format(coloured) == "INFO:     on here"


@pytest.mark.parametrize(
    ("formatter", "made"),
    [
        (
            DefaultFormatter(FORMAT, use_colors=True),
            record(logging.INFO, "hello %s", "you", color_message="bright %s"),
        ),
        (AccessFormatter(ACCESS_FORMAT, use_colors=True), access_record()),
    ],
    ids=["default", "access"],
)
def test_formatting_twice_gives_the_same(formatter: logging.Formatter, made: logging.LogRecord) -> None:
    before = dict(vars(made))
    first = formatter.format(made)
    assert formatter.format(made) == first
    changed = {name for name, value in vars(made).items() if before.get(name) != value}
    # What every formatter of the standard library leaves behind.
    assert changed <= {"message"}


def test_formatters_of_different_kinds_can_share_a_record() -> None:
    made = record(color_message="bright")
    coloured = DefaultFormatter(FORMAT, use_colors=True).format(made)
    assert click.unstyle(coloured) == "INFO:     bright"
    assert DefaultFormatter(FORMAT, use_colors=False).format(made) == "INFO:     hello"
    assert logging.Formatter("%(levelname)s %(message)s").format(made) == "INFO hello"


@pytest.mark.parametrize("formatter", [ColourizedFormatter, DefaultFormatter, AccessFormatter])
@pytest.mark.parametrize("use_colors", [True, False])
def test_colours_are_as_they_are_told(formatter: type[ColourizedFormatter], use_colors: bool) -> None:
    assert formatter(use_colors=use_colors).use_colors is use_colors


@pytest.mark.parametrize(
    ("formatter", "stream"),
    [(ColourizedFormatter, "stdout"), (DefaultFormatter, "stderr"), (AccessFormatter, "stdout")],
)
def test_colours_untold_are_on_for_a_terminal(
    formatter: type[ColourizedFormatter], stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal() if name == stream else io.StringIO())
    assert formatter().use_colors is True
    monkeypatch.setattr(sys, stream, io.StringIO())
    assert formatter().use_colors is False
    monkeypatch.setattr(sys, stream, None)
    assert formatter().use_colors is False


def test_should_use_colors_is_the_documented_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert ColourizedFormatter(use_colors=False).should_use_colors() is True
    assert AccessFormatter().should_use_colors() is True
    assert DefaultFormatter(use_colors=True).should_use_colors() is False
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert DefaultFormatter(use_colors=False).should_use_colors() is True


@pytest.mark.parametrize(
    ("style", "fmt"), [("%", FORMAT), ("{", "{levelprefix} {message}"), ("$", "$levelprefix $message")]
)
def test_each_style_of_format_works(style: Any, fmt: str) -> None:
    assert DefaultFormatter(fmt, style=style, use_colors=False).format(record()) == "INFO:     hello"


def test_date_format_is_used() -> None:
    made = record(created=0.0)
    assert DefaultFormatter("%(asctime)s", datefmt="%Y", use_colors=False).format(made) in ("1969", "1970")


def test_format_without_a_prefix_is_the_message_alone() -> None:
    assert DefaultFormatter(use_colors=False).format(record()) == "hello"


def test_access_line_is_made_of_the_arguments() -> None:
    line = AccessFormatter(ACCESS_FORMAT, use_colors=False).format(access_record())
    assert line == 'INFO:     127.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 200 OK'


def test_access_line_without_a_client_has_no_address() -> None:
    line = AccessFormatter(ACCESS_FORMAT, use_colors=False).format(access_record(client=""))
    assert line == 'INFO:      - "GET /a?b=c HTTP/1.1" 200 OK'


def test_access_line_in_colours_has_a_bold_request() -> None:
    line = AccessFormatter(ACCESS_FORMAT, use_colors=True).format(access_record(404))
    request, status = click.style("GET /a?b=c HTTP/1.1", bold=True), click.style("404 Not Found", fg="red")
    assert line == f'{click.style("INFO", fg="green")}:     127.0.0.1:5000 - "{request}" {status}'


@pytest.mark.parametrize(
    ("status", "text", "colour"),
    [
        (100, "100 Continue", "bright_white"),
        (204, "204 No Content", "green"),
        (301, "301 Moved Permanently", "yellow"),
        (418, "418 I'm a Teapot", "red"),
        (503, "503 Service Unavailable", "bright_red"),
        (599, "599 ", "bright_red"),
    ],
)
def test_status_has_its_phrase_and_the_colour_of_its_class(status: int, text: str, colour: str) -> None:
    assert AccessFormatter(use_colors=False).get_status_code(status) == text
    assert AccessFormatter(use_colors=True).get_status_code(status) == click.style(text, fg=colour)


def test_status_outside_the_classes_has_no_colour() -> None:
    assert AccessFormatter(use_colors=True).get_status_code(600) == "600 "


def test_trace_level_has_its_number() -> None:
    assert TRACE_LOG_LEVEL == 5


def test_programs_replace_the_colours() -> None:
    class Shouting(AccessFormatter):
        level_name_colors = {logging.INFO: str.lower}
        status_code_colours = {2: lambda text: f"<{text}>"}

    formatter = Shouting(ACCESS_FORMAT, use_colors=True)
    assert formatter.color_level_name("INFO", logging.INFO) == "info"
    assert formatter.color_level_name("ERROR", logging.ERROR) == "ERROR"
    assert formatter.get_status_code(200) == "<200 OK>"
    assert formatter.get_status_code(404) == "404 Not Found"
