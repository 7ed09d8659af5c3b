"""How a response is written: status line, header section, and the framing of its body. Pure.

One decision for each response, made before its first byte: what ends the body (RFC 9112 6.3), and whether the
connection goes on after it. What the application says about framing is checked, never passed on unseen; a field that
would split the response is an error of the application (RFC 9110 5.5, 9112 11.1).

This is on the path of every response, so what comes again is looked up, in bounded caches: the header section of the
most frequent kind of response (on HTTP/1.1, and not to HEAD) as a whole, which takes 0.3 us where its lines take 1.2, with
the server's own lines as long as these stand (another 0.2 us), and else each line (0.36 to 0.50 us of a 6 us request).
Where one kind of response comes again and again it is compared with the last one, which takes a third of a look-up.
"""

from __future__ import annotations

import http
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols._fields import InvalidResponse, field, field_line

# What becomes of the body. LENGTH counts, CHUNKED frames, CLOSE ends with the connection, NONE has no body at all.
NONE, LENGTH, CHUNKED, CLOSE = range(4)

# Bounds of the cache of lines: those that are longer, or come when it is full, are made each time.
_CACHED_LINES = 512
_CACHED_LINE_LENGTH = 256
# Bounds of the cache of heads. When it is full it is emptied, so that those that still come are soon in it again.
_CACHED_HEADS = 256
_CACHED_HEAD_LENGTH = 1024

# Statuses whose responses have no content, RFC 9110 15.3.5, 15.3.6 and 15.4.5.
_NO_CONTENT = frozenset((204, 205, 304))

_FRAMING_FIELDS = frozenset((b"transfer-encoding", b"connection"))

LAST_CHUNK = b"0\r\n\r\n"


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


_STATUS_LINES: dict[int, bytes] = {status: _status_line(status) for status in range(100, 600)}


class ResponseFramer:
    """Writes response heads for one HTTP implementation.

    Args:
        title_case: Whether names keep the application's case and ours are written in title case (h11's form);
            else all are in lower case (httptools' form).
    """

    __slots__ = (
        "_chunked_line",
        "_close_line",
        "_default_lines",
        "_heads",
        "_keep_alive_line",
        "_last",
        "_last_headers",
        "_last_keep_alive",
        "_last_status",
        "_lines",
        "_lower",
        "_no_content_line",
        "_whole",
    )

    def __init__(self, title_case: bool = False) -> None:
        self._lines: dict[tuple[bytes, bytes], bytes] = {}
        # By (whether client and server want the connection to go on, status, *fields): what follows the server's own
        # lines, body mode, length, whether the connection goes on.
        self._heads: dict[tuple[Any, ...], tuple[bytes, int, int, bool]] = {}
        # The same with the status line and these of the server's lines in front: for a second, when the date changes.
        self._whole: dict[tuple[Any, ...], tuple[bytes, int, int, bool]] = {}
        self._default_lines = b""
        # What was found there last; and where it was found twice in a row, what it was found by.
        self._last: tuple[bytes, int, int, bool] | None = None
        self._last_headers: list[tuple[bytes, bytes]] | None = None
        self._last_status = 0
        self._last_keep_alive = False
        self._lower = not title_case
        self._no_content_line = b"Content-Length: 0\r\n" if title_case else b"content-length: 0\r\n"
        self._close_line = b"Connection: close\r\n" if title_case else b"connection: close\r\n"
        self._keep_alive_line = b"Connection: keep-alive\r\n" if title_case else b"connection: keep-alive\r\n"
        self._chunked_line = (
            b"Transfer-Encoding: chunked\r\n" if title_case else b"transfer-encoding: chunked\r\n"
        )

    def head(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        default_lines: bytes,
        is_head: bool,
        modern: bool,
        keep_alive: bool,
    ) -> tuple[bytes, int, int, bool]:
        """The response's head, and how its body goes.

        Args:
            status: 200 to 999.
            headers: The application's header fields.
            default_lines: The server's own, ready to be written; they come first.
            is_head: Whether the request's method is HEAD.
            modern: Whether the client speaks HTTP/1.1.
            keep_alive: Whether client and server want the connection to go on.

        Returns:
            (head, body mode, length where the mode is LENGTH else 0, whether the connection goes on)

        Raises:
            InvalidResponse: Something in it cannot be written.
        """
        if default_lines is not self._default_lines:
            self._default_lines = default_lines
            self._whole.clear()
            self._last = self._last_headers = None
        elif (
            self._last_headers is not None
            and headers == self._last_headers
            and status == self._last_status
            and keep_alive is self._last_keep_alive
            and modern
            and not is_head
        ):
            assert self._last is not None
            return self._last
        key: tuple[Any, ...] | None = None
        made = None
        if modern and not is_head and type(headers) is list:
            try:
                key = (keep_alive, status, *headers)
                known = self._whole.get(key)
                if known is not None:
                    if known is self._last:
                        self._last_headers = headers.copy()
                        self._last_status = status
                        self._last_keep_alive = keep_alive
                    else:
                        self._last, self._last_headers = known, None
                    return known
                made = self._heads.get(key)
            except (TypeError, ValueError):  # fields that are lists, names and values that can change
                key = None
        status_line = _STATUS_LINES.get(status)
        if status_line is None or status < 200:
            status_line = _unusual_status_line(status)
        if made is None:
            made = self._fields(status, headers, is_head, modern, keep_alive)
            if key is not None and len(made[0]) <= _CACHED_HEAD_LENGTH:
                if len(self._heads) >= _CACHED_HEADS:
                    self._heads.clear()
                    self._whole.clear()
                self._heads[key] = made
        elif key is not None:
            # It has come before: those that come once take no room here.
            self._whole[key] = whole = (b"%b%b%b" % (status_line, default_lines, made[0]), *made[1:])
            return whole
        return b"%b%b%b" % (status_line, default_lines, made[0]), made[1], made[2], made[3]

    def _fields(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        is_head: bool,
        modern: bool,
        keep_alive: bool,
    ) -> tuple[bytes, int, int, bool]:
        """What follows the server's own lines, and the rest of what `head` returns."""
        out = [b""]
        cached = self._lines
        length = -1
        length_at = alive_at = 0  # where in `out` the application's Content-Length and keep-alive stand
        chunked = False
        said_close = False
        for name, value in headers:
            try:
                line = cached.get((name, value))
                if line is not None:
                    out.append(line)
                    continue
            except (TypeError, ValueError):  # a bytearray has no hash
                pass
            if type(name) is not bytes or type(value) is not bytes:
                name, value = field(name, value)
            lowered = name.lower()
            if lowered == b"content-length":
                if length < 0:
                    length = _app_length(value)
                    length_at = len(out)
                    out.append(b"%b: %b\r\n" % (lowered if self._lower else name, value))
                elif length != _app_length(value):
                    raise InvalidResponse("The response has two different Content-Length headers.")
                continue
            line = field_line(name, value)
            if self._lower:
                line = b"%b: %b\r\n" % (lowered, value)
            if lowered not in _FRAMING_FIELDS:
                if len(cached) < _CACHED_LINES and len(line) <= _CACHED_LINE_LENGTH:
                    cached[(name, value)] = line
                out.append(line)
            elif lowered == b"connection":
                options = [option.strip().lower() for option in value.split(b",")]
                if b"close" in options:
                    said_close = True
                elif b"keep-alive" in options:
                    if alive_at:
                        continue
                    alive_at = len(out)
                out.append(line)
            elif value.strip().lower() == b"chunked":
                chunked = True
            else:
                raise InvalidResponse(f"The server cannot send Transfer-Encoding {value!r}.")

        keep_alive = keep_alive and not said_close
        if is_head or status in _NO_CONTENT:
            mode = NONE
            if length_at and status == 204:
                # RFC 9110 8.6: no Content-Length in 204; in 304 and for HEAD it tells of the body that is not there.
                out[length_at] = b""
            elif status == 205 and not is_head:
                # RFC 9112 6.3 takes it for a response with content: that there is none has to be said.
                if not length_at:
                    length_at = len(out)
                    out.append(b"")
                out[length_at] = self._no_content_line
        elif length >= 0 and not chunked:
            mode = LENGTH
        else:
            if length_at:
                out[length_at] = b""  # RFC 9112 6.2: never both
            if modern:
                mode = CHUNKED
                out.append(self._chunked_line)
            else:
                mode = CLOSE
                keep_alive = False
        if not keep_alive:
            if alive_at:
                out[alive_at] = b""
            if not said_close:
                out.append(self._close_line)
        elif not modern and not alive_at:
            out.append(self._keep_alive_line)
        out.append(b"\r\n")
        return b"".join(out), mode, length if mode == LENGTH else 0, keep_alive


def _app_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidResponse(f"Invalid Content-Length of the response: {value!r}.")
    return int(value)


def _unusual_status_line(status: int) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise InvalidResponse(f"Invalid status code of the response: {status!r}.")
    line = _STATUS_LINES.get(int(status))
    return line if line is not None else _status_line(int(status))
