"""Requests whose header section is, byte for byte, the one that the connection has brought before. Pure.

A client that keeps its connection, a proxy or health check above all, says the same about itself with each request
and changes only the request line. What a header section means depends on nothing but its bytes, so it need not be
parsed again: on a match this takes 0.4 us where parser and checks take 2 (two fields) to 5 us (eleven). On the
request line nothing is taken on trust: what this module's narrow grammar does not cover goes the ordinary way. A section
may announce a body that came with it: the same one is recognised where as many bytes follow it. Where the
request line has come again, too, the whole request is compared with the last one (0.3 us less), and its scope copied.

A section is kept only when it has come twice: in a row on one connection, or as the first of two connections.
Connections that are idle, or that never repeat themselves, hold nothing. What has been learnt is shared (`Sections`),
so that a client that opens a connection for each request, as health checks and many proxies do, needs no parser at
all: that alone is a third of what such a connection costs in Python.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from uvicorn.middleware.proxy_headers import FORWARDED

# Longer sections and request lines are parsed each time; that bounds what is kept.
MAX_SECTION = 4096
MAX_LINE = 256
# So does what has a longer body.
MAX_BODY = 32768

# A part of what RFC 9112 3 allows: methods without a meaning of their own for the parser, the origin form, and of
# its characters those of RFC 3986 3.3 and 3.4.
_BEGIN = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS) (/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*)\Z")
_END = b" HTTP/1.1"
_QUERY = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?%"

# A connection that has brought so many whole requests of which none was recognised learns no more: it has tried twice,
# and where heads never come again, as with an identifier in each, learning is a sixth of what a request costs.
PATIENCE = 4

# So many sections are shared; when there are more, they are learnt again.
MAX_SHARED = 64

# Fields that mean more than themselves: where the request ends, or another course of the connection. llhttp takes
# Proxy-Connection for Connection.
MEANINGFUL = frozenset(
    (b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection", b"proxy-connection")
)

Fields = tuple[tuple[bytes, bytes], ...]


def request_line(line: bytes) -> tuple[str, str, bytes, bytes, bool] | None:
    """A request line, without its end, taken apart.

    Returns:
        (method, decoded path, path as sent, query, whether the method is HEAD); None for what is left to the parser.
    """
    if not line.endswith(_END):
        return None
    # Paths come again, queries often do not: they are looked at each time, and kept nowhere.
    at = line.find(b"?")
    if at < 0:
        return method_and_path(line[: -len(_END)])
    begin = method_and_path(line[:at])
    query = line[at + 1 : -len(_END)]
    if begin is None or query.translate(None, _QUERY):
        return None
    method, text, path, _, is_head = begin
    return method, text, path, query, is_head


@lru_cache(maxsize=1024)
def method_and_path(begin: bytes) -> tuple[str, str, bytes, bytes, bool] | None:
    """The begin of a request line, up to its query, taken apart: as `request_line`, with an empty query."""
    match = _BEGIN.match(begin)
    if match is None:
        return None
    method, path = match.groups()
    return method.decode("ascii"), unquote(path.decode("ascii")), path, b"", method == b"HEAD"


class RepeatedSection:
    """A header section and what it has turned out to mean.

    Attributes:
        raw: Its bytes, from the end of the request line to the end of the head.
        length: How many bytes of a body follow.
        size: How many bytes these are together.
        fields: The fields, names in lower case.
        forwarded: Whether a proxy says in them for whom it asks.
        keep_alive: Whether the client lets the connection go on.
        longest_line: The longest request line that keeps the head within the limit.
        line: The last request line that came with it, as `request_line` has taken it apart.
        request: A whole request with this section, where its line has come twice in a row; None where none has, or it has
            a body.
        scope: The scope that it gets, but for what belongs to a connection.
    """

    __slots__ = (
        "fields",
        "forwarded",
        "keep_alive",
        "length",
        "line",
        "longest_line",
        "raw",
        "request",
        "scope",
        "size",
    )

    def __init__(
        self, raw: bytes, length: int, fields: Fields, forwarded: bool, keep_alive: bool, longest_line: int
    ) -> None:
        self.raw = raw
        self.length = length
        self.size = len(raw) + length
        self.fields = fields
        self.forwarded = forwarded
        self.keep_alive = keep_alive
        self.longest_line = longest_line
        self.line: tuple[str, str, bytes, bytes, bool] | None = None
        self.request: bytes | None = None
        self.scope: dict[str, Any] = {}


def learn(data: bytes, fields: Fields, head_limit: int) -> RepeatedSection | None:
    """Look at a request that has been taken whole.

    Args:
        data: All that came with it.
        fields: Its fields, as the parser found them.
        head_limit: `limit_request_head`, in bytes.

    Returns:
        Its header section, to be recognised; None where there is more to it than fields.
    """
    line, _, rest = data.partition(b"\r\n")
    end = rest.find(b"\r\n\r\n") + 4
    raw = data[len(line) : len(line) + 2 + end]
    body = len(rest) - end
    if end < 4 or len(raw) > MAX_SECTION or body > MAX_BODY:
        return None
    # The line's length first: the path that `request_line` has been asked for once stays in a cache.
    if len(line) > MAX_LINE or request_line(line) is None:
        return None
    if not _says(raw, fields):
        return None
    length = 0
    keep_alive = True
    for name, value in fields:
        if name not in MEANINGFUL:
            continue
        option = value.lower()
        if name == b"content-length":
            length = int(value)
        elif name == b"connection" and option in (b"keep-alive", b"close"):
            keep_alive = keep_alive and option == b"keep-alive"
        else:
            return None
    if length != body:
        return None  # that was not all, or more than a request
    forwarded = any(name in FORWARDED for name, _ in fields)
    return RepeatedSection(raw, length, fields, forwarded, keep_alive, min(MAX_LINE, head_limit - len(raw)))


def lines_of(raw: bytes) -> list[bytes]:
    """The lines of a section, without their ends."""
    return raw[2:-4].split(b"\r\n")


def _says(raw: bytes, fields: Fields) -> bool:
    """Whether these are the section's fields, line by line: what is learnt here is believed for all connections."""
    lines = lines_of(raw)
    return len(lines) == len(fields) and all(
        line[: len(name) + 1].lower() == name + b":" and line[len(name) + 1 :].strip(b" \t") == value
        for line, (name, value) in zip(lines, fields, strict=True)
    )


class Sections:
    """What the connections of a server have learnt of one another. Bounded."""

    __slots__ = ("_known", "_seen")

    def __init__(self) -> None:
        self._known: dict[bytes, RepeatedSection] = {}
        self._seen: set[bytes] = set()

    def known(self, data: bytes) -> RepeatedSection | None:
        """The section of a request, if it is one that has been shared; `data` is all that has come."""
        if not self._known or len(data) > MAX_SECTION + MAX_LINE:
            return None
        return self._known.get(data[data.find(b"\r\n") :])

    def has_come(self, section: bytes) -> bool:
        """Note the first section of a connection; whether another connection has begun with the same one."""
        seen = self._seen
        if section in seen:
            return True
        if len(section) <= MAX_SECTION and section.endswith(
            b"\r\n\r\n"
        ):  # else it has a body, which is kept nowhere
            if len(seen) >= MAX_SHARED:
                seen.clear()
            seen.add(section)
        return False

    def share(self, section: RepeatedSection) -> None:
        """Let other connections know it. Not where a body belongs to it: what comes first is looked up as a whole."""
        if section.length:
            return
        if len(self._known) >= MAX_SHARED:
            self._known.clear()
        self._known[section.raw] = section
