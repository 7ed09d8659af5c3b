"""The answers that the server itself gives to what it does not serve: one shape for all of them."""

from __future__ import annotations

import http

_TEXTS = {400: "Invalid HTTP request received."}


def refusal(
    status: int,
    default_lines: bytes,
    title_case: bool = False,
    extra_lines: bytes = b"",
    bodiless: bool = False,
) -> bytes:
    """A whole response that ends the connection.

    Args:
        status: The status.
        default_lines: The server's own header lines.
        title_case: Whether names are written in title case.
        extra_lines: More header lines, ready to be written.
        bodiless: Whether it answers HEAD: then it only says how long its body would be (RFC 9110 9.3.2).
    """
    phrase = http.HTTPStatus(status).phrase
    body = _TEXTS.get(status, phrase).encode("ascii")
    lines = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n" % len(
        body
    )
    if title_case:
        lines = (
            b"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            % len(body)
        )
    status_line = b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("ascii"))
    return b"".join((status_line, default_lines, lines, extra_lines, b"\r\n", b"" if bodiless else body))
