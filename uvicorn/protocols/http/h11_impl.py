"""HTTP/1.1 by h11: a thin codec, and the documented class.

h11 reads requests here, one `h11.Connection` for each; responses are framed where all are (`_framing.py`). A head is
given to h11 whole. What h11 would let pass and the RFC allows to refuse (obsolete line folding, bare LF and CR as line
ends: RFC 9112 2.2 and 5.2) is refused, so that both implementations answer alike.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import h11

from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE, FRAMING_RATIO
from uvicorn.protocols.http._connection import HTTPConnection
from uvicorn.protocols.http._head import Refused

# h11's own default for an incomplete head.
DEFAULT_MAX_INCOMPLETE_EVENT_SIZE = 16384

_HEAD_END = re.compile(rb"\n\r?\n")
_DOUBTFUL_LINES = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")


class H11Codec:
    """Parses requests with h11 and tells the connection what it finds."""

    __slots__ = (
        "_body_parser",
        "_buffer",
        "_connection",
        "_finished",
        "_framing_fed",
        "_head_limit",
        "_incomplete_limit",
        "_searched",
        "_upgrading",
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
        self._body_parser: h11.Connection | None = None
        self._framing_fed = 0
        self._finished = False
        self._upgrading = False

    def feed(self, data: bytes) -> None:
        if self._finished:
            return
        if self._body_parser is not None:
            self._feed_body(self._body_parser, data)
        else:
            self._buffer += data
        self.resume()

    def resume(self) -> None:
        while self._body_parser is None and not self._finished and not self._connection.pipeline_full:
            head = self._next_head()
            if head is None:
                return
            self._parse(head)

    def _next_head(self) -> bytes | None:
        """The bytes of the next whole head; None while there is none."""
        buffer = self._buffer
        if not self._searched:
            while buffer[:2] == b"\r\n":  # RFC 9112 2.2: empty lines before the request line
                del buffer[:2]
        match = _HEAD_END.search(buffer, max(0, self._searched - 2))
        size = match.end() if match else len(buffer)
        if size > self._head_limit:
            status = 431 if b"\n" in buffer[: self._head_limit] else 414
            raise Refused(status, "request head too large")
        if match is None:
            self._searched = len(buffer)
            if len(buffer) > self._incomplete_limit:
                raise Refused(400, "incomplete request head too large for h11")
            return None
        self._searched = 0
        head = bytes(buffer[:size])
        del buffer[:size]
        if _DOUBTFUL_LINES.search(head):
            raise Refused(400, "line folding, or a line that does not end in CRLF")
        return head

    def _parse(self, head: bytes) -> None:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head_limit)
        try:
            parser.receive_data(head)
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refused(exc.error_status_hint, str(exc)) from None
        if not isinstance(event, h11.Request):
            raise Refused(400, "not a request")
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        if self._connection.on_head(
            bytes(event.method), bytes(event.target), event.http_version.decode("ascii"), headers, True
        ):
            self._upgrading = self._finished = True
            rest, self._buffer = bytes(self._buffer), bytearray()
            self._connection.on_upgrade(rest)
            return
        self._body_parser = parser
        self._framing_fed = 0
        rest, self._buffer = bytes(self._buffer), bytearray()
        self._feed_body(parser, rest)

    def _feed_body(self, parser: h11.Connection, data: bytes) -> None:
        self._framing_fed += len(data)
        try:
            if data:
                parser.receive_data(data)
            while True:
                event = parser.next_event()
                if isinstance(event, h11.Data):
                    self._framing_fed -= FRAMING_RATIO * len(event.data)
                    self._connection.on_body(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._end(parser)
                    return
                else:
                    break
        except h11.RemoteProtocolError as exc:
            raise Refused(400, str(exc)) from None
        if self._framing_fed > FRAMING_ALLOWANCE:
            raise Refused(400, "too much chunk framing or trailers")

    def _end(self, parser: h11.Connection) -> None:
        self._body_parser = None
        self._buffer += parser.trailing_data[0]
        self._finished = not self._connection.client_goes_on
        self._connection.on_end()


class H11Protocol(HTTPConnection):
    """HTTP/1.1 parsed by h11; response header names keep the application's case."""

    __slots__ = ()

    codec_class: ClassVar[Any] = H11Codec
    title_case: ClassVar[bool] = True
