"""What an answer has to be, worked out from what was asked: the application and its clients both go by this."""

from __future__ import annotations

import hashlib

# Where an answer says what it answers, so that one request's answer is never taken for another's.
ASKED = b"x-asked"


def asked(method: str, target: str, body: bytes = b"") -> str:
    """The checksum of a request."""
    return hashlib.sha256(f"{method} {target} ".encode() + body).hexdigest()


def content(checksum: str, size: int) -> bytes:
    """The body that answers the request with this checksum: it differs from that of any other, at each place."""
    blocks = (hashlib.sha256(f"{checksum}/{number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]
