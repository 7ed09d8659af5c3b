"""Who is at the two ends of a transport, and what a scope says about them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)


class FakeSocket:
    """A socket of any family with any names; None for a name makes asking an error."""

    def __init__(self, family: int, name: Any) -> None:
        self.family = family
        self._name = name

    def getpeername(self) -> Any:
        if self._name is None:
            raise OSError("not connected")
        return self._name

    getsockname = getpeername


LOOK_UPS = [(get_local_addr, "sockname"), (get_remote_addr, "peername")]


@pytest.mark.parametrize(("look_up", "key"), LOOK_UPS)
@pytest.mark.parametrize(
    ("family", "name", "address"),
    [
        (socket.AF_INET, ("192.0.2.1", 123), ("192.0.2.1", 123)),
        (socket.AF_INET6, ("::1", 123, 0, 0), ("::1", 123)),
        (socket.AF_INET6, ("::1", 123), ("::1", 123)),
        (socket.AF_UNIX, ("192.0.2.1", 123), ("192.0.2.1", 123)),
        (socket.AF_UNIX, "/run/app.sock", None),
        (socket.AF_UNIX, "", None),
        (socket.AF_UNIX, b"\0abstract", None),
        (socket.AF_INET, None, None),
        (9999, ("192.0.2.1", 123), None),
    ],
)
def test_address_comes_from_the_socket(look_up: Any, key: str, family: int, name: Any, address: Any) -> None:
    # What the transport says beside it does not count.
    transport = asyncio.BaseTransport({"socket": FakeSocket(family, name), key: ("203.0.113.9", 9)})
    assert look_up(transport) == address


@pytest.mark.parametrize(("look_up", "key"), LOOK_UPS)
@pytest.mark.parametrize(
    ("name", "address"),
    [
        (None, None),
        (("192.0.2.1", 123), ("192.0.2.1", 123)),
        (["192.0.2.1", "123"], ("192.0.2.1", 123)),
        (("::1", 123, 0, 0), ("::1", 123)),
        ("/run/app.sock", None),
        ("", None),
        ((), None),
        (("192.0.2.1",), None),
    ],
)
def test_address_without_a_socket_comes_from_the_transport(
    look_up: Any, key: str, name: Any, address: Any
) -> None:
    assert look_up(asyncio.BaseTransport({key: name})) == address


@pytest.mark.parametrize(("context", "encrypted"), [(None, False), (object(), True)])
def test_transport_is_encrypted_if_it_has_a_context(context: Any, encrypted: bool) -> None:
    assert is_ssl(asyncio.BaseTransport({"sslcontext": context})) is encrypted


@pytest.mark.parametrize(
    ("scope", "text"),
    [({"client": ("192.0.2.1", 36000)}, "192.0.2.1:36000"), ({"client": None}, ""), ({}, "")],
)
def test_client_address_is_host_and_port_or_nothing(scope: Any, text: str) -> None:
    assert get_client_addr(scope) == text


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        ("/", b"", "/"),
        ("/a", b"b=c", "/a?b=c"),
        ("/a b/\n\x9b", b"", "/a%20b/%0A%C2%9B"),
        ("/ä", b"x=%0A", "/%C3%A4?x=%0A"),
    ],
)
def test_path_is_quoted_and_has_its_query(path: str, query: bytes, text: str) -> None:
    scope: Any = {"path": path, "query_string": query}
    assert get_path_with_query_string(scope) == text


def test_client_disconnected_is_an_os_error() -> None:
    assert issubclass(ClientDisconnected, OSError)
