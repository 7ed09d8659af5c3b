"""HTTP/1.1 by h11: a thin codec, and the documented class.

h11 reads the heads here, one `h11.Connection` for each, given whole; responses are framed where all are (`_framing.py`).
What h11 would let pass and the RFC allows to refuse (line folding, bare LF and CR as line ends, control characters,
repeated lengths: RFC 9112 2.2, 5.2 and 6.3) is refused, so that both implementations answer alike.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import h11

from uvicorn.protocols.http._chunked import ChunkedReader
from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE, FRAMING_RATIO, why_no_request
from uvicorn.protocols.http._connection import HTTPConnection
from uvicorn.protocols.http._head import Refused, check_framing

# h11's own default for an incomplete head.
DEFAULT_MAX_INCOMPLETE_EVENT_SIZE = 16384
# The longest method that is taken for one (RFC 9110 15.6.2); the longest that is registered has 17 letters.
MAX_METHOD = 64
# Of what h11 says about bytes that are no request, this much goes to the log: it quotes them.
_MAX_REASON = 120

_HEAD_END = re.compile(rb"\n\r?\n")
_DOUBTFUL = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAB_BEHIND_CODING = re.compile(rb"\ntransfer-encoding:[^\r]*[^\r\t ][\t ]*\t[\t ]*\r", re.IGNORECASE)
_FRAMING_LINE = re.compile(rb"\n(content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)


class H11Codec:
    """Parses requests with h11 and tells the connection what it finds."""

    __slots__ = (
        "_body_left",
        "_buffer",
        "_chunked",
        "_connection",
        "_finished",
        "_framing_fed",
        "_head_limit",
        "_in_body",
        "_incomplete_limit",
        "_searched",
    )

    def __init__(self, connection: HTTPConnection) -> None:
        config = connection.config
        self._connection = connection
        self._head_limit = config.limit_request_head
        own = config.h11_max_incomplete_event_size
        self._incomplete_limit = min(
            DEFAULT_MAX_INCOMPLETE_EVENT_SIZE if own is None else own, self._head_limit
        )
        self._buffer = bytearray()  # bytes of heads, not given to h11 yet
        self._searched = 0
        self._in_body = False
        self._chunked: ChunkedReader | None = None
        self._body_left = 0
        self._framing_fed = 0
        self._finished = False  # the last request said that none would follow, or the connection leaves HTTP

    @property
    def begun(self) -> bool:
        return bool(self._buffer) and not self._finished

    def drop(self) -> None:
        pass

    def feed(self, data: bytes) -> None:
        if self._finished:
            return
        if self._in_body:
            self._feed_body(data)
        else:
            self._buffer += data
        self.resume()

    def resume(self) -> None:
        while not self._in_body and not self._finished and not self._connection.pipeline_full:
            head = self._next_head()
            if head is None:
                return
            self._parse(head)

    def _next_head(self) -> bytes | None:
        """The bytes of the next whole head; None while there is none."""
        buffer = self._buffer
        if buffer.startswith((b"\r", b"\n")):  # RFC 9112 2.2: empty lines before the request line
            self._searched = 0
            buffer = self._buffer = buffer.lstrip(b"\r\n")
        match = _HEAD_END.search(buffer, max(0, self._searched - 2))
        size = match.end() if match else len(buffer)
        if size > self._head_limit:
            status = 431 if b"\n" in buffer[: self._head_limit] else 414
            raise Refused(status, "request head too large")
        if match is None:
            if (
                buffer and not 32 < buffer[0] < 127
            ):  # RFC 9110 5.6.2: no method begins like that, whatever follows
                raise Refused(400, why_no_request(buffer, "invalid method"))
            self._searched = len(buffer)
            if len(buffer) > self._incomplete_limit:
                raise Refused(400, "incomplete request head too large for h11")
            return None
        self._searched = 0
        head = bytes(buffer[:size])
        del buffer[:size]
        return head

    def _parse(self, head: bytes) -> None:
        if _DOUBTFUL.search(head):
            raise Refused(400, "line folding, control characters, or a line that does not end in CRLF")
        framing = [(name.lower(), value.strip(b" \t")) for name, value in _FRAMING_LINE.findall(head)]
        check_framing(framing)
        if _TAB_BEHIND_CODING.search(head):
            raise Refused(400, "invalid Transfer-Encoding")  # llhttp takes the tab for a part of the coding
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head_limit)
        try:
            parser.receive_data(head)
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refused(400, str(exc)[:_MAX_REASON]) from None
        assert isinstance(event, h11.Request)
        method = bytes(event.method)
        if len(method) > MAX_METHOD:
            raise Refused(501, "method too long")
        as_sent = dict(framing)
        headers = [(bytes(name), as_sent.get(name, bytes(value))) for name, value in event.headers]
        if self._connection.on_head(
            method, bytes(event.target), event.http_version.decode("ascii"), headers, True
        ):
            self._finished = True
            self._connection.on_upgrade(self._take_buffer())
            return
        fields = dict(headers)
        self._framing_fed = 0
        self._chunked = ChunkedReader() if b"transfer-encoding" in fields else None
        self._body_left = int(fields.get(b"content-length", b"0"))
        if self._chunked is None and not self._body_left:
            self._end(b"")
        else:
            self._in_body = True
            self._feed_body(self._take_buffer())

    def _take_buffer(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def _feed_body(self, data: bytes) -> None:
        if self._chunked is not None:
            self._feed_chunked(self._chunked, data)
            return
        piece = data[: self._body_left]
        if piece:
            self._body_left -= len(piece)
            self._connection.on_body(piece)
        if not self._body_left:
            self._end(data[len(piece) :])

    def _feed_chunked(self, reader: ChunkedReader, data: bytes) -> None:
        self._framing_fed += len(data)
        for piece in reader.feed(data):
            self._framing_fed -= FRAMING_RATIO * len(piece)
            self._connection.on_body(piece)
        if reader.rest is not None:
            self._end(reader.rest)
        elif self._framing_fed > FRAMING_ALLOWANCE:
            raise Refused(400, "too much chunk framing or trailers")

    def _end(self, rest: bytes) -> None:
        self._in_body = False
        self._buffer += rest
        self._finished = not self._connection.client_goes_on
        self._connection.on_end()


class H11Protocol(HTTPConnection):
    """HTTP/1.1 parsed by h11; response header names keep the application's case."""

    __slots__ = ()

    codec_class: ClassVar[Any] = H11Codec
    title_case: ClassVar[bool] = True
