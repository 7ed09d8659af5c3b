"""What the targets share: how an input is cut into packets, and what a codec reads from bytes."""

from __future__ import annotations

import contextlib
import re
from types import SimpleNamespace
from typing import Any

from uvicorn.protocols.http._head import Refused, examine

# The largest input that is looked at: beyond it nothing new happens, only slower.
MAX_INPUT = 4096


def cut(data: bytes) -> tuple[list[bytes], bytes]:
    """The packets that an input stands for, and their bytes joined."""
    size = data[0] if data else 0
    data = data[1:MAX_INPUT]
    if not size:
        return [data], data
    return [data[at : at + size] for at in range(0, len(data), size)], data


class Reader:
    """Stands in for a connection: keeps what a codec reads, and decides about heads as a connection does."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(limit_request_head=2048, h11_max_incomplete_event_size=2048)
        self.client_goes_on = True
        self.pipeline_full = False
        self.complete: list[Any] = []
        self.heads: list[tuple[str, bytes]] = []
        self.method = b""
        self._head: Any = None
        self._body = b""

    def on_head(self, method: bytes, target: bytes, version: str, headers: Any, may_upgrade: bool) -> bool:
        assert self._head is None, "a head in the middle of a request"
        self.method = method
        head = examine(method, target, version, headers)
        assert not (head.path + head.query).translate(None, bytes(range(33, 127))), "bytes of no target"
        for name, value in headers:
            assert name, "an empty name"
            assert name == name.lower()
            assert not re.search(rb"[\0\r\n]", name + value), "a line end in a header field"
        self.client_goes_on = head.keep_alive
        self.heads.append((method.decode("ascii"), head.path))
        self._head = (method, head.path, head.query, version, tuple(headers))
        return False

    def on_body(self, data: bytes) -> None:
        assert self._head is not None, "body without a head"
        self._body += data

    def on_end(self) -> None:
        assert self._head is not None, "the end of no request"
        self.complete.append((*self._head, self._body))
        self._head, self._body = None, b""

    def on_upgrade(self, rest: bytes) -> None:
        raise AssertionError("an upgrade that nobody has taken")


def read(codec_class: Any, packets: list[bytes]) -> tuple[list[Any], bytes, bool]:
    """The complete requests, the method of the last head, and whether it ended in a refusal."""
    reader = Reader()
    codec = codec_class(reader)
    try:
        for packet in packets:
            codec.feed(packet)
    except Refused as exc:
        assert 400 <= exc.status <= 505
        return reader.complete, reader.method, True
    return reader.complete, reader.method, False


def heads(codec_class: Any, data: bytes) -> list[tuple[str, bytes]]:
    """Method and path of every request that begins in these bytes, in order."""
    reader = Reader()
    with contextlib.suppress(Refused):
        codec_class(reader).feed(data)
    return reader.heads
