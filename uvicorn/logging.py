"""The documented log formatters, the TRACE level, and what the rest of the server says about log lines.

Formatting never changes the record it is given, so that several handlers can format the same one.
"""

from __future__ import annotations

import copy
import http
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import click

TRACE_LOG_LEVEL = 5

logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")

# "CRITICAL:" is the longest prefix there is: nine characters, and all others are padded to it.
_PREFIX_WIDTH = 9


class ColourizedFormatter(logging.Formatter):
    """A formatter that offers `%(levelprefix)s` and colours.

    Args:
        fmt: The line's format, in the given style. Default: the message alone.
        datefmt: Format of `%(asctime)s`, as for `time.strftime`.
        style: One of "%", "{" and "$".
        use_colors: True or False to decide; None (the default) to look whether the stream is a terminal.

    A record may carry `color_message`: it replaces the message where colours are on.
    """

    # Programs replace these: what makes a level's name of its number coloured.
    level_name_colors: ClassVar[dict[int, Callable[[str], str]]] = {
        TRACE_LOG_LEVEL: partial(click.style, fg="blue"),
        logging.DEBUG: partial(click.style, fg="cyan"),
        logging.INFO: partial(click.style, fg="green"),
        logging.WARNING: partial(click.style, fg="yellow"),
        logging.ERROR: partial(click.style, fg="red"),
        logging.CRITICAL: partial(click.style, fg="bright_red"),
    }

    # The standard stream whose terminal decides where `use_colors` is None.
    _stream_name = "stdout"

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        if use_colors in (True, False):
            self.use_colors = use_colors
        else:
            stream = getattr(sys, self._stream_name)
            self.use_colors = stream is not None and stream.isatty()
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)

    def color_level_name(self, level_name: str, level_no: int) -> str:
        """`level_name` in the colour of `level_no`; unchanged where the level has none."""
        paint = self.level_name_colors.get(level_no)
        return level_name if paint is None else paint(level_name)

    def should_use_colors(self) -> bool:
        """Whether colours are wanted where nobody has said so."""
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of one record, made from a copy of it."""
        line = copy.copy(record)
        name = line.levelname
        padding = " " * (_PREFIX_WIDTH - 1 - len(name))
        if self.use_colors:
            name = self.color_level_name(name, line.levelno)
            if "color_message" in line.__dict__:
                line.msg = line.__dict__["color_message"]
                line.__dict__["message"] = line.getMessage()
        line.__dict__["levelprefix"] = name + ":" + padding
        return super().formatMessage(line)


class DefaultFormatter(ColourizedFormatter):
    """The formatter of every line but the access log's; colours where standard error is a terminal."""

    _stream_name = "stderr"

    def should_use_colors(self) -> bool:
        return sys.stderr.isatty()


class AccessFormatter(ColourizedFormatter):
    """The access log's formatter: adds `client_addr`, `request_line` and `status_code` to the format.

    Records carry `(client address, method, path with query, HTTP version, status)` as their args.
    """

    # The same for statuses, by their first digit.
    status_code_colours: ClassVar[dict[int, Callable[[str], str]]] = {
        1: partial(click.style, fg="bright_white"),
        2: partial(click.style, fg="green"),
        3: partial(click.style, fg="yellow"),
        4: partial(click.style, fg="red"),
        5: partial(click.style, fg="bright_red"),
    }

    def get_status_code(self, status_code: int) -> str:
        """The status with its phrase ("404 Not Found"), coloured by its class; unknown ones have no phrase."""
        try:
            phrase = http.HTTPStatus(status_code).phrase
        except ValueError:
            phrase = ""
        text = f"{status_code} {phrase}"
        paint = self.status_code_colours.get(status_code // 100)
        return paint(text) if self.use_colors and paint is not None else text

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of one access record."""
        line = copy.copy(record)
        args: Any = line.args
        client_addr, method, full_path, http_version, status_code = args
        request_line = f"{method} {full_path} HTTP/{http_version}"
        if self.use_colors:
            request_line = click.style(request_line, bold=True)
        line.__dict__.update(
            client_addr=client_addr,
            request_line=request_line,
            status_code=self.get_status_code(int(status_code)),
        )
        return super().formatMessage(line)
