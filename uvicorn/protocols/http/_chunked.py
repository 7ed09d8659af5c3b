"""The chunked coding of a request body (RFC 9112 7.1), read to the letter. Pure.

Only CRLF ends a line: whoever takes a bare LF for a line end inside chunk extensions or trailers sees another request
than the proxy in front. h11 does, and takes blanks behind a chunk size, so its own reader is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from uvicorn.protocols.http._head import FORBIDDEN_TRAILERS, Refused

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# RFC 9112 7.1.1, without the white space that only old senders put there. 16 digits are 64 bits. llhttp takes names and
# values that are empty, as long as something follows the semicolon; nothing in them can end the line, so here, too.
_CHUNK_LINE = re.compile(
    rb"0*([0-9A-Fa-f]{1,16})(?:;(?!\r)(?:"
    + _TOKEN
    + rb")?(?:=(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb")?)?)*\r\n"
)
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*\r\n")

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkedReader:
    """Takes the bytes of one chunked body as they come.

    Attributes:
        rest: What came behind the body; None while the body is not complete.
    """

    __slots__ = ("_held", "_left", "_stage", "rest")

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line
        self._left = 0
        self._stage = _SIZE
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the body that are in these bytes.

        Raises:
            Refused: They are not chunked.
        """
        buffer = self._held + data
        at = 0
        while self._stage != _DONE:
            if self._stage == _DATA:
                piece = buffer[at : at + self._left]
                if not piece:
                    break
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._stage = _DATA_END
                yield piece
            elif self._stage == _DATA_END:
                end = buffer[at : at + 2]
                if not b"\r\n".startswith(end):
                    raise Refused(400, "chunk data that does not end in CRLF")
                if len(end) < 2:
                    break
                at += 2
                self._stage = _SIZE
            else:
                end_of_line = _end_of_line(buffer, at)
                if not end_of_line:
                    break
                self._take_line(buffer[at:end_of_line])
                at = end_of_line
        self._held = buffer[at:]
        if self._stage == _DONE:
            self.rest = self._held

    def _take_line(self, line: bytes) -> None:
        if self._stage == _SIZE:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise Refused(400, "invalid chunk size or extension")
            self._left = int(match[1], 16)
            self._stage = _DATA if self._left else _TRAILERS
        elif line == b"\r\n":
            self._stage = _DONE
        else:
            match = _TRAILER_LINE.fullmatch(line)
            if match is None or match[1].lower() in FORBIDDEN_TRAILERS:
                raise Refused(400, "invalid trailer")


def _end_of_line(buffer: bytes, at: int) -> int:
    """Where the line that begins there ends; 0 where its end has not come, and it can still be a line."""
    end = buffer.find(b"\n", at) + 1
    if not end and buffer.find(b"\r", at, len(buffer) - 1) >= 0:
        raise Refused(400, "a line that does not end in CRLF")
    return end
