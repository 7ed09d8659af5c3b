"""What a request head means: its target, its framing, its connection. Pure functions over bytes.

Both HTTP implementations come here with what their parser has found, so that they cannot disagree. A parser checks
the grammar; what the server must know with certainty before it acts is decided here: where the body ends
(RFC 9112 6), whom the request is for (RFC 9112 3.2), and whether the connection goes on (RFC 9112 9.3).
"""

from __future__ import annotations

import functools
import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from uvicorn.middleware.proxy_headers import FORWARDED

# RFC 9110 5.6.2, used for connection options and codings.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# RFC 9112 3.2 with RFC 3986 3.2.2: host [":" port]; the host may be empty, an IPv6 literal stands in brackets.
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|\[[vV][0-9A-Fa-f]+\.[!$&'()*+,;=:\-._~0-9A-Za-z]+\]|(?:[!$&'()*+,;=\-._~0-9A-Za-z]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?\Z"
)
_ABSOLUTE = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?]*)([^?]*)(?:\?(.*))?\Z")
# Longer numbers cannot be lengths: 2^63 has 19 digits (RFC 9110 8.6).
_MAX_LENGTH_DIGITS = 18

# Longer Connection values are cut, so that the cache below stays small. What is cut off may say close (RFC 9112 9.3),
# so the connection does not go on.
_MAX_CONNECTION = 256
# A DNS name has at most 255 octets; the colon and a port of up to 9 digits may follow. Bounds the cache as well.
_MAX_HOST = 265

_NO_OPTIONS: frozenset[bytes] = frozenset()

# RFC 9110 6.5.1: a trailer must not say where a message ends or whether the connection goes on.
FORBIDDEN_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"connection"))


class Refused(Exception):
    """The request cannot be served: `status` for the client, `reason` for the log.

    Attributes:
        bodiless: Whether the request is known to be HEAD, whose answer has no body.
    """

    def __init__(self, status: int, reason: str, bodiless: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.bodiless = bodiless


class Head(NamedTuple):
    """What follows from a request head.

    Attributes:
        path: The target's path as it was sent, percent-encoded.
        query: What follows the first "?".
        keep_alive: Whether the client lets the connection go on.
        expects_continue: Whether it waits for 100 Continue before it sends the body (RFC 9110 10.1.1).
        upgrade: The protocol it asks for, in lower case; None where it asks for none or must not.
        length: The body's length; None for chunked.
        forwarded: Whether a proxy says for whom it asks (X-Forwarded-For, X-Forwarded-Proto).
    """

    path: bytes
    query: bytes
    keep_alive: bool
    expects_continue: bool
    upgrade: bytes | None
    length: int | None
    forwarded: bool


# A NamedTuple's own constructor is a Python function; this one costs a third of it.
_make_head = functools.partial(tuple.__new__, Head)


def examine(method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> Head:
    """Check a request head and say what it means.

    Args:
        method: The method as sent.
        target: The request target as sent.
        version: "1.0" or "1.1"; anything else is refused.
        headers: Names in lower case, values without white space around them. Where the target names the host itself,
            Host is changed to it.

    Raises:
        Refused: With the status that the RFC names.
    """
    fields = dict(headers)
    if len(fields) != len(headers):
        _check_repeated(headers, fields)

    if version == "1.1":
        host = fields.get(b"host")
        if host is None:
            raise Refused(400, "no Host header field")  # RFC 9112 3.2
        modern = True
    elif version == "1.0":
        host = fields.get(b"host", b"")
        modern = False
    else:
        raise Refused(505, "not HTTP/1.0 or HTTP/1.1")
    if len(host) > _MAX_HOST or not valid_host(host):
        raise Refused(400, "invalid Host header field")

    if target[:1] == b"/" and b"#" not in target:
        path, _, query = target.partition(b"?")
    else:
        path, query = _other_target(method, target, headers)
    if method == b"CONNECT":
        raise Refused(501, "CONNECT is not supported")

    length: int | None = 0
    if b"transfer-encoding" in fields:
        _check_transfer_encoding(fields, modern)
        length = None
    elif b"content-length" in fields:
        length = content_length(fields[b"content-length"])

    connection = fields.get(b"connection")
    if connection is None:
        keep_alive = modern
        options = _NO_OPTIONS
    else:
        options = connection_options(connection[:_MAX_CONNECTION])
        keep_alive = (
            b"close" not in options
            and (modern or b"keep-alive" in options)
            and len(connection) <= _MAX_CONNECTION
        )
    if b"proxy-connection" in fields and keep_alive:
        # RFC 9112 C.2.2: it says nothing to a server. But llhttp takes it for Connection, and reads nothing behind a request
        # with its `close`, which a client may well mean.
        said = fields[b"proxy-connection"]
        keep_alive = (
            b"close" not in connection_options(said[:_MAX_CONNECTION]) and len(said) <= _MAX_CONNECTION
        )
    upgrade = None
    if options and modern and b"upgrade" in options:
        upgrade = fields.get(b"upgrade", b"").lower() or None

    expects_continue = False
    if b"expect" in fields:
        expects_continue = _check_expect(fields[b"expect"], modern)
    return _make_head(
        (path, query, keep_alive, expects_continue, upgrade, length, not FORWARDED.isdisjoint(fields))
    )


def check_framing(headers: list[tuple[bytes, bytes]]) -> None:
    """Check the framing fields alone, for a parser that would change them before anybody else sees them.

    Raises:
        Refused: As `examine` does.
    """
    fields = dict(headers)
    if len(fields) != len(headers):
        _check_repeated(headers, fields)
    if b"transfer-encoding" in fields:
        _check_transfer_encoding(fields, modern=True)
    elif b"content-length" in fields:
        content_length(fields[b"content-length"])


def _check_repeated(headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> None:
    """Refuse repeated fields that a request must not repeat; join the lines of Connection into `fields`."""
    seen: set[bytes] = set()
    connections: dict[bytes, list[bytes]] = {b"connection": [], b"proxy-connection": []}
    for name, value in headers:
        if name in seen and name in (b"host", b"content-length", b"transfer-encoding", b"expect"):
            raise Refused(400, f"repeated {name.decode('ascii')} header field")
        if name in connections:
            connections[name].append(value)
        seen.add(name)
    for name, values in connections.items():
        if values:
            fields[name] = b",".join(values)  # RFC 9110 5.3: several lines are one list


@lru_cache(maxsize=1024)
def valid_host(value: bytes) -> bool:
    """Whether a Host value is `uri-host [":" port]` (RFC 9112 3.2); the empty value is."""
    match = _HOST.match(value)
    if match is None:
        return False
    if match[1] is not None:
        # Its characters alone make no address, and what applications take URLs apart with raises for one that is none.
        try:
            IPv6Address(match[1].decode("ascii"))
        except ValueError:
            return False
    return True


@lru_cache(maxsize=256)
def connection_options(value: bytes) -> frozenset[bytes]:
    """The options of a Connection value, in lower case (RFC 9110 7.6.1)."""
    return frozenset(option.strip(b" \t").lower() for option in value.split(b",")) - {b""}


def content_length(value: bytes) -> int:
    """A Content-Length value as a number.

    Raises:
        Refused: It is not made of digits alone, or is too long to be true (RFC 9112 6.3 rule 5).
    """
    if not value.isdigit():
        raise Refused(400, "invalid Content-Length")
    if len(value.lstrip(b"0")) > _MAX_LENGTH_DIGITS:
        raise Refused(413, "Content-Length too large")
    return int(value)


def _check_transfer_encoding(fields: dict[bytes, bytes], modern: bool) -> None:
    if b"content-length" in fields:
        raise Refused(400, "both Content-Length and Transfer-Encoding")  # RFC 9112 6.1
    if not modern:
        raise Refused(400, "Transfer-Encoding in HTTP/1.0")  # RFC 9112 6.1
    value = fields[b"transfer-encoding"].lower()
    if value == b"chunked":
        return
    codings = [coding.strip(b" \t") for coding in value.split(b",")]
    if (
        codings[-1] == b"chunked"
        and all(TOKEN.match(coding) for coding in codings)
        and codings.count(b"chunked") == 1
    ):
        raise Refused(501, "a transfer coding that is not supported")  # RFC 9112 6.1
    raise Refused(400, "invalid Transfer-Encoding")


def _check_expect(value: bytes, modern: bool) -> bool:
    if value.lower() != b"100-continue":
        raise Refused(417, "an expectation that cannot be met")  # RFC 9110 10.1.1
    return modern  # RFC 9110 10.1.1: ignored in HTTP/1.0


def _other_target(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Path and query of a target that is not in origin form (RFC 9112 3.2.2 to 3.2.4)."""
    if method == b"CONNECT":
        return b"", b""
    if target == b"*" and method == b"OPTIONS":
        return b"*", b""
    match = _ABSOLUTE.match(target)
    host = match[1] if match else b""
    if match and 0 < len(host) <= _MAX_HOST and b"#" not in target and valid_host(host):
        # RFC 9112 3.2.2: Host is ignored. The application and the proxy in front must not see two different hosts.
        headers[:] = [(name, host if name == b"host" else value) for name, value in headers]
        return match[2] or b"/", match[3] or b""
    raise Refused(400, "invalid request target")
