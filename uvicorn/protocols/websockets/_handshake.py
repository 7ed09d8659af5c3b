"""The opening handshake (RFC 6455 4.2): checked and answered once, for every engine. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

import h11

from uvicorn.protocols._fields import field_line
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http._head import TOKEN, Refused, examine

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Fields of the handshake that are the server's to write.
_OWN_FIELDS = frozenset((b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions"))

# A head that comes unparsed is not read beyond this size.
_MAX_RAW_HEAD = 131072


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
        extensions: The values of its Sec-WebSocket-Extensions lines, joined.
    """

    __slots__ = ("extensions", "key", "subprotocols")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name.startswith(b"sec-websocket-"):
                values.setdefault(name, []).append(value)
        self.key = _key(values.get(b"sec-websocket-key", []))
        version = b",".join(values.get(b"sec-websocket-version", []))
        if not version:
            raise BadHandshake("missing Sec-WebSocket-Version header", version=True)
        if version != b"13":
            raise BadHandshake(
                f"invalid Sec-WebSocket-Version header: {version.decode('latin1')}", version=True
            )
        offers = b",".join(values.get(b"sec-websocket-protocol", []))
        self.subprotocols = _subprotocols(offers)
        self.extensions = ", ".join(
            value.decode("latin1") for value in values.get(b"sec-websocket-extensions", [])
        )


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
        raise BadHandshake(f"invalid Sec-WebSocket-Key header: {keys[0].decode('latin1')}")
    return keys[0]


def _subprotocols(offers: bytes) -> list[str]:
    names = [name.strip(b" \t") for name in offers.split(b",")] if offers else []
    if not all(TOKEN.match(name) for name in names):
        raise BadHandshake(f"invalid Sec-WebSocket-Protocol header: {offers.decode('latin1')}")
    return [name.decode("ascii") for name in names]


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
    lines += [field_line(name, value) for name, value in headers if name.lower() not in _OWN_FIELDS]
    lines.append(b"\r\n")
    return b"".join(lines)


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
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_RAW_HEAD:
                raise Refused(431, "request head too large")
            return None
        head, rest = bytes(self._buffer[: end + 4]), bytes(self._buffer[end + 4 :])
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_RAW_HEAD)
        try:
            parser.receive_data(head)
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise Refused(exc.error_status_hint, str(exc)) from None
        if not isinstance(event, h11.Request):
            raise Refused(400, "not a request")
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        method, target = bytes(event.method), bytes(event.target)
        found = examine(method, target, event.http_version.decode("ascii"), headers)
        if found.upgrade != b"websocket":
            raise Refused(400, "not a WebSocket handshake")
        return UpgradeRequest(method, found.path, found.query, headers, rest)
