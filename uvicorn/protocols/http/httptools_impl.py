"""HTTP/1.1 by httptools: a thin codec over llhttp, and the documented class.

llhttp checks the grammar; what it leaves open stands here: the size of a head, trailers, chunk extensions, what
comes behind a request that closes, and upgrades that are not taken, whose bodies it would skip.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httptools

from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE, FRAMING_RATIO, why_no_request
from uvicorn.protocols.http._connection import HTTPConnection
from uvicorn.protocols.http._head import FORBIDDEN_TRAILERS, Refused

# A head is looked for in slices of this size, so that a flood of pipelined requests is parsed a few at a time.
SLICE = 16384

# What llhttp says where another status than 400 is due: RFC 9110 15.6.6 and 15.5.14.
_STATUSES = {
    "Invalid HTTP version": 505,
    "Pause on PRI/Upgrade": 505,  # the preface of HTTP/2
    "Content-Length overflow": 413,
}
# How the request lines end that llhttp gives the version 1.0. Those of RTSP and ICE are no HTTP.
_HTTP10 = b" HTTP/1.0\r\n"
_LINE_ENDS = (_HTTP10, b" RTSP/1.0\r\n", b" ICE/1.0\r\n")
# So much is kept of an incomplete head, to know its request line by: all of the longest end, and some of the target.
_TAIL = 16 + len(_LINE_ENDS[1])


class HttpToolsCodec:
    """Parses requests with httptools and tells the connection what it finds."""

    __slots__ = (
        "_before",
        "_behind",
        "_bodies",
        "_bypassing",
        "_connection",
        "_data",
        "_fed",
        "_finished",
        "_head_limit",
        "_headers",
        "_in_head",
        "_kept",
        "_line_end",
        "_looked_to",
        "_parser",
        "_priming",
        "_refused",
        "_smallest_limit",
        "_suspect",
        "_tail",
        "_upgrading",
        "_url",
        "begun",
    )

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._head_limit = connection.config.limit_request_head
        self._smallest_limit = min(self._head_limit, FRAMING_ALLOWANCE)
        self.begun = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        # While in a head: an upper bound of its bytes so far. In a body: bytes fed less what its data allows.
        self._fed = 0
        self._kept = b""
        self._behind = b""  # what came with the slice that the parser is looking at
        self._finished = False  # the last request said that none would follow, or the connection leaves HTTP
        self._upgrading = False  # the connection takes the upgrade
        self._bypassing = False  # it does not: the head is parsed again without it
        self._priming = False
        self._refused: Refused | None = None  # in a callback
        self._data = b""  # what the parser is looking at
        self._bodies: list[bytes] = []  # what of it was data of bodies, in order
        self._tail = b""  # the end of what it saw of an incomplete head
        # Up to here the bytes have been asked for the version of a head; -1 where they do not begin in one.
        self._looked_to = 0
        self._line_end = b""  # how its request line ends, where that is one of version 1.0
        self._suspect = False  # it was not found, and one of another protocol's was seen
        self._before = b""  # the last bytes of the packets before, where the head began in one of them

    def feed(self, data: bytes) -> None:
        if (len(data) > SLICE and self._in_head) or self._kept:
            self._feed_in_slices(data)
            return
        if self._finished:
            return
        self._fed += len(data)
        self._data = data
        self._looked_to = 0 if self._in_head else -1
        behind_upgrade = -1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            behind_upgrade = exc.args[0]
        except httptools.HttpParserCallbackError as exc:
            # Raised in one of the callbacks below: a refusal, or a bug that must not pass for bad input. httptools
            # hands it on as the context, which is another exception where the application is handling one.
            raise self._refused or exc.__context__ or exc from None
        except httptools.HttpParserError as exc:
            if not self._finished:
                raise Refused(_STATUSES.get(str(exc), 400), why_no_request(data, str(exc))) from None
        else:
            if self._fed > self._smallest_limit:
                self._check_limits()
            if self._url and not self._finished:
                self._note_version()  # the head goes on in the next packet
                self._before = (self._before + data)[-3:]
        self._data = b""
        if self._bodies:
            self._bodies.clear()
        if behind_upgrade >= 0:
            self._after_upgrade(data[behind_upgrade:])

    def _feed_in_slices(self, data: bytes) -> None:
        data = self._kept + data
        self._kept = b""
        while data and not self._finished:
            if self._connection.pipeline_full:
                self._kept = data
                return
            size = SLICE if self._in_head else len(data)
            data, self._behind = data[:size], data[size:]
            self.feed(data)
            data, self._behind = self._behind, b""

    def resume(self) -> None:
        if self._kept:
            self._feed_in_slices(b"")

    def drop(self) -> None:
        self._finished = True
        self._parser = None  # it has the codec's callbacks, and nobody but the collector would part them

    def _note_version(self) -> None:
        if self._line_end:
            return
        self._pass_bodies()
        # Where something is kept of this head, nothing else has come in this packet yet.
        begin = self._looked_to
        seen = self._tail + self._data
        # Other requests may come behind it: it is the first such line.
        found = [(at, end) for end in _LINE_ENDS if (at := self._find_line_end(seen, end, begin)) >= 0]
        if found:
            at, self._line_end = min(found)
            past = at + len(self._line_end)
            # Up to its empty line it says nothing else; a body begins behind that.
            ends_at = seen.find(b"\r\n\r\n", past - 2)
            self._looked_to = (past if ends_at < 0 else ends_at + 4) - len(self._tail)
        elif not self._suspect:
            self._suspect = any(seen.find(end, begin) >= 0 for end in _LINE_ENDS[1:])
        # Where its line has not come to its end yet, there is no line break in it.
        self._tail = seen[max(begin, seen.rfind(b"\n"), len(seen) - _TAIL) :]

    def _pass_bodies(self) -> None:
        """A body may say anything, a request line too. No field can: it has a colon behind a name without blanks. So the
        first place where the data of a body is found is its own, or one where no such line is passed over."""
        for body in self._bodies:
            self._looked_to = self._data.find(body, max(self._looked_to, 0)) + len(body)
        self._bodies.clear()
        if self._looked_to < 0:
            # The rest of a trailer, perhaps, whose name came in another packet.
            self._looked_to = self._data.find(b"\n") + 1

    def _pass_head(self) -> None:
        """A head that began in another packet has come to its end in this one."""
        ends_at = (self._before + self._data).find(b"\r\n\r\n") + 4 - len(self._before)
        self._looked_to = max(self._looked_to, ends_at)
        self._before = b""

    def _find_line_end(self, seen: bytes, end: bytes, begin: int) -> int:
        """Where the method and the target of this head are followed by such an end; -1 where they are not."""
        at = begin
        while (at := seen.find(end, at)) >= 0:
            line = seen.rfind(b"\n", begin, at) + 1
            words = seen[line or begin : at].rstrip(b" ")  # several blanks are one (RFC 9112 3)
            if self._is_request_line(words, whole=line > 0 or begin > 0):
                break
            at += len(end)
        return at

    def _is_request_line(self, words: bytes, whole: bool) -> bool:
        if not whole:  # it may have begun in a packet before, and nothing else is there
            return self._url.endswith(words) or words.endswith(self._url)
        method = self._parser.get_method()
        return words.startswith(method) and words[len(method) :].lstrip(b" ") == self._url

    def _check_version(self) -> None:
        # llhttp takes the request lines of RTSP and ICE as well, which have version 1.0, and does not tell. What looks like
        # one of theirs and cannot be told from this one, since it stands behind a body whose place is not known, is refused.
        self._note_version()
        if self._suspect or self._line_end not in (b"", _HTTP10):
            raise Refused(400, "not HTTP")

    def _check_limits(self) -> None:
        if self._in_head:
            if self._fed > self._head_limit:
                self._check_head_size(self._fed)
        elif self._fed > FRAMING_ALLOWANCE:
            raise Refused(400, "too much chunk framing or trailers")

    def _check_head_size(self, bound: int) -> None:
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        # What is inside the parser, an incomplete line, is only known by the bound.
        if size > self._head_limit or bound > self._head_limit + SLICE:
            status = 414 if len(self._url) > self._head_limit else 431
            raise Refused(status, "request head too large")

    # --- httptools' callbacks ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begun = not self._finished

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # llhttp leaves trailing white space, which is no part of a value (RFC 9112 5.1).
            if value and value[-1] <= 32:
                value = self._stripped(name, value)
            self._headers.append((name.lower(), value))
        elif not self._priming and name.lower() in FORBIDDEN_TRAILERS:
            self._refused = Refused(400, "invalid trailer")
            raise self._refused

    def _stripped(self, name: bytes, value: bytes) -> bytes:
        stripped = value.rstrip(b" \t")
        if b"\t" in value[len(stripped) :] and name.lower() == b"transfer-encoding":
            # llhttp takes the tab for a part of the coding, and would say so when the application is running.
            self._refused = Refused(400, "invalid Transfer-Encoding")
            raise self._refused
        return stripped

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._priming or self._finished:  # none was to follow, and here is more of the same packet
            return
        version = parser.get_http_version()
        upgrade = parser.should_upgrade()
        try:
            if version == "1.0":
                self._check_version()
            if self._tail:  # the head came in several packets
                self._check_head_size(0)
                if self._before:
                    self._pass_head()
                self._tail = b""
                self._line_end = b""
                self._suspect = False
            elif len(self._data) > self._head_limit:
                self._check_head_size(0)
            self._in_head = False
            headers, self._headers = self._headers, []
            url, self._url = self._url, b""
            self._fed = 0
            taken = self._connection.on_head(parser.get_method(), url, version, headers, upgrade)
        except Refused as exc:
            self._refused = exc
            raise
        if upgrade:
            self._upgrading = taken
            if not taken:
                self._bypassing = True
                self._headers = headers

    def on_body(self, data: bytes) -> None:
        if self._finished:
            return
        self._fed -= FRAMING_RATIO * len(data)
        self._bodies.append(data)
        self._connection.on_body(data)

    def on_message_complete(self) -> None:
        self.begun = False
        if self._finished or self._upgrading or (self._bypassing and not self._priming):
            return
        self._fed = 0
        self._in_head = True
        self._bypassing = False
        if not self._connection.client_goes_on:
            self._finished = True
        self._connection.on_end()

    # --- upgrades ----------------------------------------------------------------------------

    def _after_upgrade(self, rest: bytes) -> None:
        if self._upgrading:
            self._finished = True
            self._connection.on_upgrade(rest + self._behind)
            return
        # llhttp takes a request with Upgrade for the end of HTTP and skips its body. Nobody here takes the upgrade,
        # so it is an ordinary request (RFC 9110 7.8): a fresh parser gets a head with the same framing, silently,
        # and then the bytes behind it.
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % field for field in self._headers if field[0] in framing]
        if not self._connection.client_goes_on:
            lines.append(b"connection: close\r\n")  # and nothing behind its body is looked at
        self._headers = []
        self._parser = httptools.HttpRequestParser(self)
        self._priming = True
        try:
            self._parser.feed_data(b"".join((b"POST / HTTP/1.1\r\n", *lines, b"\r\n")))
        finally:
            self._priming = False
            self._bypassing = False
        self._url = b""
        if rest:
            self.feed(rest)


class HttpToolsProtocol(HTTPConnection):
    """HTTP/1.1 parsed by httptools; response header names go out in lower case."""

    __slots__ = ()

    codec_class: ClassVar[Any] = HttpToolsCodec
    title_case: ClassVar[bool] = False
