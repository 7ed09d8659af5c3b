"""The server's own answers, byte for byte."""

from __future__ import annotations

import http

import pytest

from tests.protocols.http.harness import read_responses
from uvicorn.protocols._refusals import refusal

DEFAULT = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: uvicorn\r\n"


def test_bad_request_in_lower_case_byte_for_byte() -> None:
    assert refusal(400, DEFAULT) == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"server: uvicorn\r\n"
        b"content-type: text/plain; charset=utf-8\r\n"
        b"connection: close\r\n"
        b"content-length: 30\r\n"
        b"\r\n"
        b"Invalid HTTP request received."
    )


def test_bad_request_in_title_case_byte_for_byte() -> None:
    assert refusal(400, b"", title_case=True) == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Connection: close\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 30\r\n"
        b"\r\n"
        b"Invalid HTTP request received."
    )


@pytest.mark.parametrize("title_case", [False, True])
@pytest.mark.parametrize("status", [408, 413, 414, 417, 426, 431, 501, 505])
def test_other_status_says_its_phrase_and_closes(status: int, title_case: bool) -> None:
    phrase = http.HTTPStatus(status).phrase
    data = refusal(status, DEFAULT, title_case)
    assert data.startswith(f"HTTP/1.1 {status} {phrase}\r\n".encode() + DEFAULT)
    [response] = read_responses(data)
    assert response.body == phrase.encode()
    assert response.ended
    assert response.headers["connection"] == "close"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_extra_lines_stand_in_the_head() -> None:
    [response] = read_responses(refusal(426, b"", extra_lines=b"sec-websocket-version: 13\r\n"))
    assert response.headers["sec-websocket-version"] == "13"
    assert response.body == b"Upgrade Required"
