"""The access log: ordinary logging records, or the same lines written directly and in batches.

A logging record for each response costs 12 us, more than all the rest of a small request; a line built directly and
written together with its neighbours costs 0.3 us. The direct way is taken only where nobody could tell the
difference: the logger "uvicorn.access" exactly as `LOGGING_CONFIG` sets it up. As soon as somebody adds a handler, a
filter, a formatter of their own or another level, their records are ordinary ones; that is looked at again with
every batch.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from uvicorn.logging import AccessFormatter
from uvicorn.protocols._say import say

# The longest a line waits, in seconds.
BATCH_DELAY = 0.05
# A batch is written at once when it has grown to this many lines.
BATCH_LINES = 512
# So many clients' addresses are kept as text, which takes 0.5 us to make, and so many paths without a query as what a line
# says of a request for them.
CLIENTS = PATHS = 1024
# Not those that are longer.
PATH_LENGTH = 256
# PIPE_BUF of Linux: a write of at most this size is never mixed with those of other processes (pipe(7)).
ATOMIC_PIPE_WRITE = 4096

DEFAULT_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'


class AccessLog(Protocol):
    """Where a response is noted when it starts."""

    def log(self, scope: Any, status: int) -> None: ...


def request_path(scope: Any) -> str:
    """The request's path and query as they were sent: percent-encoded, so that no byte of it can forge a line."""
    query = scope["query_string"]
    path: str = scope["raw_path"].decode("ascii", "backslashreplace")
    return f"{path}?{query.decode('ascii', 'backslashreplace')}" if query else path


def client_text(client: Any) -> str:
    """The client as "host:port". The host may come from a header (X-Forwarded-For), and then it may be anything."""
    if not client:
        return ""
    text = f"{client[0]}:{client[1]}"
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


# What comes of a scope that lacks something, or holds something of another type than it had.
CHANGED_SCOPE = (LookupError, TypeError, AttributeError)


def mended(scope: Any) -> dict[str, Any]:
    """What a line shows of a scope that the application has changed: a line is no reason to fail a response."""
    client = scope.get("client")
    path = scope.get("raw_path")
    if not isinstance(path, bytes):
        path = quote(str(scope.get("path", "")), errors="backslashreplace").encode("ascii")
    query = scope.get("query_string")
    if not isinstance(query, bytes):
        query = str(query or "").encode("unicode_escape")
    return {
        "client": tuple(map(str, client[:2]))
        if isinstance(client, (tuple, list)) and len(client) > 1
        else None,
        "method": scope.get("method", ""),
        "raw_path": path,
        "query_string": query,
        "http_version": scope.get("http_version", ""),
    }


class RecordAccessLog:
    """One logging record for each response."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def log(self, scope: Any, status: int) -> None:
        try:
            shown = client_text(scope["client"]), scope["method"], request_path(scope), scope["http_version"]
        except CHANGED_SCOPE:
            self.log(mended(scope), status)
            return
        say(self._logger, logging.INFO, '%s - "%s %s HTTP/%s" %d', *shown, status)


class BatchedAccessLog:
    """Lines in the default format, written together.

    Args:
        logger: The logger "uvicorn.access".
        call_later: Asked to call back once for each batch.
    """

    __slots__ = (
        "_bold",
        "_call_later",
        "_clients",
        "_formatter",
        "_handler",
        "_lines",
        "_logger",
        "_paths",
        "_prefix",
        "_record_log",
        "_statuses",
    )

    def __init__(self, logger: logging.Logger, call_later: Callable[..., Any]) -> None:
        self._logger = logger
        self._record_log = RecordAccessLog(logger)
        self._call_later = call_later
        self._lines: list[str] = []
        self._handler: logging.StreamHandler[Any] | None = None
        self._formatter: tuple[logging.Formatter | None, bool | None] = (None, None)
        self._statuses: dict[int, str] = {}
        self._prefix = ""
        self._bold = ("", "")
        self._clients: dict[Any, str] = {}
        # What a line says behind the client's address, and of which method, version and status.
        self._paths: dict[bytes, tuple[str, str, int, str]] = {}
        self._look()

    def log(self, scope: Any, status: int) -> None:
        if self._handler is None:
            self._record_log.log(scope, status)
            return
        lines = self._lines
        if not lines:
            # Once for each batch: does everything still stand as it stood?
            self._look()
            if self._handler is None:
                self._record_log.log(scope, status)
                return
            self._call_later(BATCH_DELAY, self.flush)
        try:
            client = scope["client"]
            address = self._clients.get(client)
            if address is None:
                address = self._address(client)
            if scope["query_string"]:
                said = self._say(scope, status)
            else:
                known = self._paths.get(scope["raw_path"])
                if (
                    known is not None
                    and known[0] == scope["method"]
                    and known[1] == scope["http_version"]
                    and known[2] == status
                ):
                    said = known[3]
                else:
                    said = self._say_and_keep(scope, status)
        except CHANGED_SCOPE:
            self.log(mended(scope), status)
            return
        lines.append(f"{self._prefix} {address}{said}")
        if len(lines) >= BATCH_LINES:
            self.flush()

    def _say(self, scope: Any, status: int) -> str:
        """The part of a line that follows the client's address."""
        status_text = self._statuses.get(status)
        if status_text is None:
            status_text = self._status_text(status)
        path = scope["raw_path"].decode("ascii", "backslashreplace")
        query = scope["query_string"]
        if query:
            path = f"{path}?{query.decode('ascii', 'backslashreplace')}"
        on, off = self._bold
        return f' - "{on}{scope["method"]} {path} HTTP/{scope["http_version"]}{off}" {status_text}\n'

    def _say_and_keep(self, scope: Any, status: int) -> str:
        said = self._say(scope, status)
        path = scope["raw_path"]
        if type(path) is bytes and len(path) <= PATH_LENGTH:
            if len(self._paths) >= PATHS:
                self._paths.clear()
            self._paths[path] = scope["method"], scope["http_version"], status, said
        return said

    def flush(self) -> None:
        """Write what has been gathered."""
        lines = self._lines
        handler = self._handler
        if not lines or handler is None:
            return
        self._lines = []
        handler.acquire()
        try:
            for text in _portions(lines, handler.stream):
                handler.stream.write(text)
                handler.flush()
        except Exception:  # noqa: BLE001 - as logging itself: a log that fails stops nothing
            handler.handleError(_lost_record(self._logger, len(lines)))
        finally:
            handler.release()

    def _look(self) -> None:
        """Find the handler to write to; None where the logging configuration is not the default one."""
        handler = self._handler = plain_handler(self._logger)
        if handler is None:
            return
        formatter = handler.formatter
        assert isinstance(formatter, AccessFormatter)
        seen = (formatter, formatter.use_colors)
        if seen == self._formatter:
            return
        self._formatter = seen
        self._statuses = {}
        self._paths = {}
        # The formatter itself makes the parts that never change, so the two ways cannot drift apart.
        marks = ("\0", "\1", "\2", "3")
        record = self._logger.makeRecord(
            self._logger.name, logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', (*marks, 200), None
        )
        prefix, _, rest = formatter.format(record).partition(" \0")
        before, _, after = rest.partition("\1 \2 HTTP/3")
        self._prefix = prefix
        self._bold = (before.removeprefix(' - "'), after.partition('"')[0])

    def _address(self, client: Any) -> str:
        if len(self._clients) >= CLIENTS:
            self._clients.clear()
        text = self._clients[client] = client_text(client)
        return text

    def _status_text(self, status: int) -> str:
        assert self._handler is not None
        assert isinstance(self._handler.formatter, AccessFormatter)
        text = self._statuses[status] = self._handler.formatter.get_status_code(status)
        return text


def plain_handler(logger: logging.Logger) -> logging.StreamHandler[Any] | None:
    """The one handler of a logger that stands as `LOGGING_CONFIG` has made it; None where anything differs."""
    if type(logger) is not logging.Logger or logger.propagate or logger.filters or len(logger.handlers) != 1:
        return None
    handler = logger.handlers[0]
    formatter = handler.formatter
    if (
        type(handler) is not logging.StreamHandler
        or handler.filters
        or handler.level > logging.INFO
        or handler.terminator != "\n"
        or type(formatter) is not AccessFormatter
        or formatter._fmt != DEFAULT_FORMAT  # noqa: SLF001 - the formatter offers no other way to ask
        or logging.getLogRecordFactory() is not logging.LogRecord
        or not logger.isEnabledFor(logging.INFO)
    ):
        return None
    return handler


def _portions(lines: list[str], stream: Any) -> list[str]:
    """The lines joined: whole, or for a pipe in pieces that the kernel writes undivided."""
    text = "".join(lines)
    if len(text) <= ATOMIC_PIPE_WRITE or not _is_pipe(stream):
        return [text]
    portions = []
    size = start = 0
    for i, line in enumerate(lines):
        if size and size + len(line) > ATOMIC_PIPE_WRITE:
            portions.append("".join(lines[start:i]))
            start, size = i, 0
        size += len(line)
    portions.append("".join(lines[start:]))
    return portions


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, AttributeError, ValueError, io.UnsupportedOperation):
        return False


def _lost_record(logger: logging.Logger, count: int) -> logging.LogRecord:
    message = "%d lines of the access log could not be written"
    return logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (count,), sys.exc_info())
