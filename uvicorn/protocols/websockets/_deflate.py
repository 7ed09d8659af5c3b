"""Compression of messages (RFC 7692, permessage-deflate): agreed on and done once, for every engine. Pure.

The libraries' own inflating has two gaps. A message may end with a final DEFLATE block (RFC 7692 7.2.3.4), behind which
zlib reads nothing any more: later messages arrive empty, and what they are made of is kept, without limit. And not
every library bounds what a message inflates to.
"""

from __future__ import annotations

import zlib
from typing import Any

from uvicorn.protocols.websockets._engine import InvalidData, MessageTooBig
from uvicorn.protocols.websockets._handshake import Offers

NAME = "permessage-deflate"

# 4 KiB windows and a small state: what a server with many connections can afford (256 KiB each by zlib's defaults).
_OWN_BITS = 12
_MEMORY_LEVEL = 5
_MAX_BITS = 15
# What a window may be in an offer (RFC 7692 7.1.2): no leading zeros.
_WINDOWS = frozenset(map(str, range(8, _MAX_BITS + 1)))
# The smallest window that zlib compresses with, whatever it is told (https://github.com/madler/zlib/issues/171).
_SMALLEST_BITS = 9

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_SERVER_BITS, _CLIENT_BITS = "server_max_window_bits", "client_max_window_bits"

# The end of an empty block: each message is sent without it, and gets it back before it is inflated (RFC 7692 7.2).
_TAIL = b"\x00\x00\xff\xff"


def agree(offers: Offers) -> Deflate | None:
    """The first of the client's offers that can be met, as it will be; None where there is none."""
    for name, parameters in offers:
        if name == NAME:
            agreed = _meet(parameters)
            if agreed is not None:  # else another offer may do (RFC 7692 5)
                return agreed
    return None


def _meet(parameters: list[tuple[str, str | None]]) -> Deflate | None:
    wanted = dict(parameters)
    if len(wanted) != len(parameters) or not all(_valid(*parameter) for parameter in parameters):
        return None  # RFC 7692 7.1
    server_bits = min(_OWN_BITS, int(wanted.get(_SERVER_BITS) or _MAX_BITS))
    if server_bits < _SMALLEST_BITS:
        return None
    client_bits = _MAX_BITS
    answer = [name for name in _FLAGS if name in wanted]
    answer.append(f"{_SERVER_BITS}={server_bits}")
    if _CLIENT_BITS in wanted:  # else the client knows nothing of it (RFC 7692 7.1.2.2)
        client_bits = min(_OWN_BITS, int(wanted[_CLIENT_BITS] or _MAX_BITS))
        answer.append(f"{_CLIENT_BITS}={client_bits}")
    return Deflate("; ".join((NAME, *answer)), server_bits, client_bits, *(name in wanted for name in _FLAGS))


def _valid(name: str, value: str | None) -> bool:
    if name in _FLAGS:
        return value is None
    if name == _CLIENT_BITS and value is None:
        return True
    return name in (_SERVER_BITS, _CLIENT_BITS) and value in _WINDOWS


class Deflate:
    """The compression of one connection, in both directions.

    Args:
        answer: What goes into our Sec-WebSocket-Extensions.
        server_bits, client_bits: How large each side's window may be.
        server_forgets, client_forgets: Whether each side begins every message with an empty window.
    """

    __slots__ = (
        "_client_bits",
        "_client_forgets",
        "_compressor",
        "_decompressor",
        "_server_bits",
        "_server_forgets",
        "answer",
    )

    def __init__(
        self, answer: str, server_bits: int, client_bits: int, server_forgets: bool, client_forgets: bool
    ) -> None:
        self.answer = answer
        self._server_bits = server_bits
        self._client_bits = max(client_bits, _SMALLEST_BITS)
        self._server_forgets = server_forgets
        self._client_forgets = client_forgets
        # Made when they are first needed: many connections only ever send one way.
        self._compressor: Any = None
        self._decompressor: Any = None

    def compress(self, data: bytes) -> bytes:
        """A whole message, for one frame."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(wbits=-self._server_bits, memLevel=_MEMORY_LEVEL)
            if not self._server_forgets:
                self._compressor = compressor
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]  # type: ignore[no-any-return]

    def decompress(self, data: bytes, final: bool, room: int) -> bytes:
        """A piece of a message.

        Args:
            data: It.
            final: Whether it is the message's last.
            room: How much the rest of the message may have at most.

        Raises:
            InvalidData: It is not compressed data.
            MessageTooBig: It is more than there is room for. Nothing may follow.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(wbits=-self._client_bits)
        if final:
            data += _TAIL
        try:
            # One byte more than is allowed: zlib's 0 means no limit, and it must be seen whether there is more.
            content: bytes = decompressor.decompress(data, room + 1)
        except zlib.error as exc:
            raise InvalidData(f"invalid compressed data: {exc}") from None
        if len(content) > room:
            raise MessageTooBig
        if decompressor.eof:
            self._check_end(decompressor, final)
        if final and self._client_forgets:
            self._decompressor = None
        return content

    def _check_end(self, decompressor: Any, final: bool) -> None:
        """See what is behind a message's final block: nothing, or a byte that fills it up (RFC 7692 7.2.3.4).

        More is allowed in theory, and made by nobody. A new decompressor for each final block would let a client spend
        our time: there is room for one in two bytes.
        """
        behind = decompressor.unused_data
        if (
            behind.strip(b"\x00") not in ((b"\xff\xff", b"") if final else (b"",))
            or len(behind) > len(_TAIL) + 1
        ):
            raise InvalidData("invalid compressed data: more behind the final block")
        if final:
            self._decompressor = None
