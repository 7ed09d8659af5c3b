"""The automatic choice of an HTTP implementation."""

from __future__ import annotations

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def test_httptools_is_chosen_where_it_is_installed() -> None:
    assert AutoHTTPProtocol is HttpToolsProtocol
