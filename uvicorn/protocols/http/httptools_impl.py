"""HTTP/1.1 by httptools: a thin codec over llhttp, and the documented class.

llhttp checks the grammar; what it leaves open stands here: the size of a head, trailers, chunk extensions, what
comes behind a request that closes, and upgrades that are not taken, whose bodies it would skip.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httptools

from uvicorn.protocols.http._codec import FRAMING_ALLOWANCE, FRAMING_RATIO
from uvicorn.protocols.http._connection import HTTPConnection
from uvicorn.protocols.http._head import Refused

# A head is looked for in slices of this size, so that a flood of pipelined requests is parsed a few at a time.
SLICE = 16384


class HttpToolsCodec:
    """Parses requests with httptools and tells the connection what it finds."""

    __slots__ = (
        "_bypassing",
        "_connection",
        "_fed",
        "_finished",
        "_head_limit",
        "_headers",
        "_in_head",
        "_kept",
        "_parser",
        "_priming",
        "_smallest_limit",
        "_upgrading",
        "_url",
    )

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._head_limit = connection.config.limit_request_head
        self._smallest_limit = min(self._head_limit, FRAMING_ALLOWANCE)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        # While in a head: an upper bound of its bytes so far. In a body: bytes fed less what its data allows.
        self._fed = 0
        self._kept = b""
        self._finished = False  # the last request said that none would follow
        self._upgrading = False  # the connection takes the upgrade
        self._bypassing = False  # it does not: the head is parsed again without it
        self._priming = False

    def feed(self, data: bytes) -> None:
        if (len(data) > SLICE and self._in_head) or self._kept:
            self._feed_in_slices(data)
            return
        if self._finished:
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._after_upgrade(data[exc.args[0] :])
        except httptools.HttpParserCallbackError as exc:
            # Raised in one of the callbacks below: a refusal, or a bug that must not pass for bad input.
            raise exc.__context__ or exc from None
        except httptools.HttpParserError as exc:
            if not self._finished:
                raise Refused(400, str(exc)) from None
        else:
            if self._fed > self._smallest_limit:
                self._check_limits()

    def _feed_in_slices(self, data: bytes) -> None:
        data = self._kept + data
        self._kept = b""
        while data and not self._finished:
            if self._connection.pipeline_full:
                self._kept = data
                return
            size = SLICE if self._in_head else len(data)
            self.feed(data[:size])
            data = data[size:]

    def resume(self) -> None:
        if self._kept:
            self._feed_in_slices(b"")

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
            status = 431 if self._headers or len(self._url) <= self._head_limit else 414
            raise Refused(status, "request head too large")

    # --- httptools' callbacks ----------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            # llhttp leaves trailing white space, which is no part of a value (RFC 9112 5.1).
            if value and value[-1] <= 32:
                value = value.rstrip(b" \t")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._priming:
            return
        parser = self._parser
        if self._fed > self._head_limit:
            self._check_head_size(0)
        self._in_head = False
        upgrade = parser.should_upgrade()
        headers, self._headers = self._headers, []
        url, self._url = self._url, b""
        self._fed = 0
        taken = self._connection.on_head(
            parser.get_method(), url, parser.get_http_version(), headers, upgrade
        )
        if upgrade:
            self._upgrading = taken
            if not taken:
                self._bypassing = True
                self._headers = headers

    def on_body(self, data: bytes) -> None:
        self._fed -= FRAMING_RATIO * len(data)
        self._connection.on_body(data)

    def on_message_complete(self) -> None:
        if self._upgrading or (self._bypassing and not self._priming):
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
            self._connection.on_upgrade(rest)
            return
        # llhttp takes a request with Upgrade for the end of HTTP and skips its body. Nobody here takes the upgrade,
        # so it is an ordinary request (RFC 9110 7.8): a fresh parser gets a head with the same framing, silently,
        # and then the bytes behind it.
        framing = (b"content-length", b"transfer-encoding", b"connection")
        lines = [b"%b: %b\r\n" % field for field in self._headers if field[0] in framing]
        lines = [line for line in lines if not line.startswith(b"connection") or b"close" in line.lower()]
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
