"""The opening handshake (RFC 6455 4.2): checked and answered once, for every engine. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable

from uvicorn.protocols._fields import field, field_line
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._head import TOKEN, Refused, examine

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Fields of the handshake that are the server's to write, and those that no 101 has (RFC 9110 8.6, RFC 9112 6.1).
_OWN_FIELDS = frozenset(
    (
        b"upgrade",
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"content-length",
        b"transfer-encoding",
    )
)

# A head that comes unparsed is not read beyond this size.
_MAX_RAW_HEAD = 131072

# Extensions in the order of preference, each with its parameters (RFC 6455 9.1).
Offers = list[tuple[str, list[tuple[str, str | None]]]]

# One token of Sec-WebSocket-Extensions with its value, and the separator behind it. A quoted value is a token, too.
_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_EXTENSION_PIECE = re.compile(
    rf'[ \t]*({_TCHAR}+)(?:[ \t]*=[ \t]*(?:({_TCHAR}+)|"((?:\\?{_TCHAR})+)"))?[ \t]*([,;]|\Z)'
)


class BadHandshake(Exception):
    """The request opens no WebSocket; `text` says why, `version` whether it is the version that is wrong."""

    def __init__(self, text: str, version: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.version = version


class Handshake:
    """What a valid opening request says.

    Attributes:
        key: Its Sec-WebSocket-Key.
        subprotocols: Those it offers, in order.
        extensions: The extensions that it offers.

    Raises:
        BadHandshake: It is not valid.
    """

    __slots__ = ("extensions", "key", "subprotocols")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name.startswith(b"sec-websocket-"):
                values.setdefault(name, []).append(value)
        version = b",".join(values.get(b"sec-websocket-version", []))
        try:
            self.key = _key(values.get(b"sec-websocket-key", []))
        except BadHandshake as exc:
            exc.version = version not in (b"", b"13")  # a client of another version may have no key
            raise
        if not version:
            raise BadHandshake("missing Sec-WebSocket-Version header", version=True)
        if version != b"13":
            raise BadHandshake(f"invalid Sec-WebSocket-Version header: {_shown(version)}", version=True)
        offers = b",".join(values.get(b"sec-websocket-protocol", []))
        self.subprotocols = _subprotocols(offers)
        self.extensions = _extensions(_shown(b",".join(values.get(b"sec-websocket-extensions", []))))


def _key(keys: list[bytes]) -> bytes:
    if not keys:
        raise BadHandshake("missing Sec-WebSocket-Key header")
    if len(keys) > 1:
        raise BadHandshake("invalid Sec-WebSocket-Key header: more than one")
    try:
        raw = base64.b64decode(keys[0], validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 16:
        raise BadHandshake(f"invalid Sec-WebSocket-Key header: {_shown(keys[0])}")
    return keys[0]


def _subprotocols(offers: bytes) -> list[str]:
    # Empty elements mean nothing (RFC 9110 5.6.1).
    names = [name for element in offers.split(b",") if (name := element.strip(b" \t"))]
    if not all(TOKEN.match(name) for name in names):
        raise BadHandshake(f"invalid Sec-WebSocket-Protocol header: {_shown(offers)}")
    return [name.decode("ascii") for name in names]


def _extensions(text: str) -> Offers:
    offers: Offers = []
    separator = ","
    at = 0
    while True:
        if separator == ",":
            while text[at : at + 1] in (" ", "\t", ","):  # empty elements mean nothing (RFC 9110 5.6.1)
                at += 1
            if at == len(text):
                return offers
        piece = _EXTENSION_PIECE.match(text, at)
        value = (piece[2] or piece[3]) if piece else None
        if piece is None or (separator == "," and value is not None):
            raise BadHandshake(f"invalid Sec-WebSocket-Extensions header: {text}")
        if separator == ",":
            offers.append((piece[1], []))
        else:
            offers[-1][1].append((piece[1], value.replace("\\", "") if value is not None else None))
        at, separator = piece.end(), piece[4] or ","


def _shown(value: bytes) -> str:
    """For people: bytes above ASCII escaped, because some of them mean something to terminals."""
    return value.decode("ascii", "backslashreplace")


def accept_response(
    handshake: Handshake,
    extensions: str | None,
    subprotocol: str | None,
    default_lines: bytes,
    headers: Iterable[tuple[bytes, bytes]],
) -> bytes:
    """The 101 response.

    Raises:
        InvalidResponse: A header of the application, or the subprotocol, cannot be written.
    """
    digest = base64.b64encode(hashlib.sha1(handshake.key + _GUID, usedforsecurity=False).digest())
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Accept: %b\r\n" % digest,
    ]
    if extensions:
        lines.append(b"Sec-WebSocket-Extensions: %b\r\n" % extensions.encode("latin1"))
    if subprotocol:
        lines.append(field_line(b"Sec-WebSocket-Protocol", subprotocol.encode("latin1")))
    lines.append(default_lines)
    own = (field(name, value) for name, value in headers)
    lines += [field_line(name, value) for name, value in own if name.lower() not in _OWN_FIELDS]
    lines.append(b"\r\n")
    return b"".join(lines)


def refused_handshake(exc: BadHandshake, explained: bool, default_lines: bytes) -> tuple[int, bytes]:
    """Status and response for a request that opens no WebSocket.

    Args:
        exc: Why.
        explained: Whether the body says why; it is 400 then for a wrong version, too, as the websockets library has it.
        default_lines: The server's own header lines.
    """
    if explained:
        status, status_line = 400, b"400 Bad Request"
        body = f"Failed to open a WebSocket connection: {exc.text}.\n".encode()
    else:
        status, status_line = (426, b"426 Upgrade Required") if exc.version else (400, b"400 Bad Request")
        body = b""
    return status, b"".join(
        (
            b"HTTP/1.1 %b\r\n" % status_line,
            default_lines,
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body),
            b"connection: close\r\n",
            b"sec-websocket-version: 13\r\n" if exc.version else b"",  # RFC 6455 4.4
            b"\r\n",
            body,
        )
    )


class RawRequestReader:
    """Reads an opening request that comes as bytes, from an HTTP protocol that is none of ours."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> UpgradeRequest | None:
        """The request, once it is complete.

        Raises:
            Refused: It is no request.
        """
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", searched)
        if end < 0:
            if len(self._buffer) > _MAX_RAW_HEAD:
                raise Refused(431, "request head too large")
            return None
        head, rest = bytes(self._buffer[: end + 4]), bytes(self._buffer[end + 4 :])
        # For the few programs that give connections to this class by themselves; it takes 5 ms of a start.
        import h11  # noqa: PLC0415

        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_RAW_HEAD)
        try:
            parser.receive_data(head)
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refused(exc.error_status_hint, str(exc)) from None
        assert isinstance(event, h11.Request)  # the head is whole
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        method, target = bytes(event.method), bytes(event.target)
        found = examine(method, target, event.http_version.decode("ascii"), headers)
        if found.upgrade != b"websocket" or method != b"GET" or found.length != 0:
            raise Refused(400, "not a WebSocket handshake")
        return UpgradeRequest(method, found.path, found.query, headers, rest)
