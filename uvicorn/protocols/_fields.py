"""Header fields that go out, whatever the protocol: checked before they are written.

A line feed in a value would end the field and start another one, of somebody else's choice (RFC 9110 5.5,
RFC 9112 11.1).
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class InvalidResponse(RuntimeError):
    """The application's response cannot be written; raised into its `send()`."""


def as_bytes(value: Any) -> Any:
    """What is bytes by another name, as bytes; anything else as it is."""
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else value


def field_line(name: bytes, value: bytes) -> bytes:
    """One header line.

    Raises:
        InvalidResponse: The name is no token, or the value holds a control character.
    """
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise InvalidResponse(f"Response header names and values must be bytes, but got {name!r}: {value!r}.")
    if not _NAME.match(name):
        raise InvalidResponse(f"Invalid response header name: {name!r}.")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidResponse(f"Invalid value of the response header {name!r}: {value!r}.")
    return b"%b: %b\r\n" % (name, value)
