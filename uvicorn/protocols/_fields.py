"""Header fields that go out, whatever the protocol: checked before they are written.

A line feed in a value would end the field and start another one, of somebody else's choice (RFC 9110 5.5,
RFC 9112 11.1).
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BYTES = (bytes, bytearray, memoryview)


class InvalidResponse(RuntimeError):
    """The application's response cannot be written; raised into its `send()`."""


def field(name: Any, value: Any) -> tuple[bytes, bytes]:
    """A header field as bytes, where an application has given it as something else.

    ASGI demands bytes; applications that were only ever run with h11, which takes text as well, do not know.

    Raises:
        InvalidResponse: It is neither bytes by any name nor ASCII text.
    """
    try:
        return _encoded(name), _encoded(value)
    except (TypeError, UnicodeEncodeError):
        raise InvalidResponse(
            f"Response header names and values must be bytes, but got {name!r}: {value!r}."
        ) from None


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("ascii")
    if isinstance(value, _BYTES):
        return bytes(value)
    raise TypeError


def field_line(name: bytes, value: bytes) -> bytes:
    """One header line.

    Raises:
        InvalidResponse: The name is no token, or the value holds a control character.
    """
    if not _NAME.match(name):
        raise InvalidResponse(f"Invalid response header name: {name!r}.")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidResponse(f"Invalid value of the response header {name!r}: {value!r}.")
    return b"%b: %b\r\n" % (name, value)
