"""Who is believed about the client, and what becomes of the scope."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from uvicorn.middleware import proxy_headers
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts

PEER = ("127.0.0.1", 4321)


def behind(
    trusted: list[str] | str = "127.0.0.1",
    forwarded_for: str | list[str] | None = None,
    proto: str | None = None,
    client: Any = PEER,
    kind: str = "http",
    scheme: str | None = None,
) -> Any:
    """The scope that an application sees behind the middleware."""
    headers: list[tuple[bytes, bytes]] = [(b"host", b"example.org")]
    values = [forwarded_for] if isinstance(forwarded_for, str) else forwarded_for or []
    headers += [(b"x-forwarded-for", value.encode("latin1")) for value in values]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode("latin1")))
    scope: Any = {
        "type": kind,
        "client": client,
        "scheme": scheme or ("ws" if kind == "websocket" else "http"),
        "headers": headers,
    }
    return seen_by_app(scope, trusted)


def seen_by_app(scope: Any, trusted: list[str] | str) -> Any:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    callables: Any = (object(), object())
    asyncio.run(ProxyHeadersMiddleware(app, trusted)(scope, *callables))
    assert tuple(seen[1:]) == callables
    return seen[0]


def test_default_trusts_the_local_address_alone() -> None:
    middleware = ProxyHeadersMiddleware(lambda *_: None)  # type: ignore[arg-type,return-value]
    assert "127.0.0.1" in middleware.trusted_hosts
    assert "127.0.0.2" not in middleware.trusted_hosts
    assert "::1" not in middleware.trusted_hosts


# --- whether the peer is believed ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.1,127.0.0.1", "127.0.0.1"),
        (" 10.0.0.1 , 127.0.0.1 ", "127.0.0.1"),
        (["10.0.0.1", "127.0.0.1"], "127.0.0.1"),
        ("127.0.0.0/8", "127.3.2.1"),
        ("::/0", "2001:db8::1"),
        ("2001:db8::", "2001:0db8:0::"),
        ("2001:0db8:0:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:a00:1"),
        ("some-literal", "some-literal"),
        ("/run/proxy.sock", "/run/proxy.sock"),
        ("10.0.0.1/8", "10.0.0.1/8"),  # host bits set: no network, so a literal
        ("*", "127.0.0.1"),
        ("*", "anything"),
        (["*"], "127.0.0.1"),
    ],
)
def test_trusted_peer_is_believed(trusted: list[str] | str, peer: str) -> None:
    scope = behind(trusted, "1.2.3.4", "https", client=(peer, 1))
    assert (scope["scheme"], scope["client"]) == ("https", ("1.2.3.4", 0))


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        ("", "127.0.0.1"),
        ([], "127.0.0.1"),
        ("10.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1"),  # mapped addresses are other addresses
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("10.0.0.1/8", "10.0.0.1"),
        ("some-literal", "SOME-LITERAL"),
        ("*,127.0.0.2", "127.0.0.1"),  # as one among others it means itself
        (["*", "127.0.0.2"], "127.0.0.1"),
        ("", ""),
        (["", "127.0.0.1"], ""),
    ],
)
def test_other_peer_is_not_believed(trusted: list[str] | str, peer: str) -> None:
    scope = behind(trusted, "1.2.3.4", "https", client=(peer, 1))
    assert (scope["scheme"], scope["client"]) == ("http", (peer, 1))


def test_peer_without_an_address_is_believed_only_by_the_asterisk() -> None:
    # A UNIX socket.
    assert behind("*", "1.2.3.4", "https", client=None)["client"] == ("1.2.3.4", 0)
    for trusted in ("127.0.0.1", "*,a", "", "0.0.0.0/0"):
        scope = behind(trusted, "1.2.3.4", "https", client=None)
        assert (scope["scheme"], scope["client"]) == ("http", None)


def test_scope_without_the_key_client_is_one_without_an_address() -> None:
    scope = {"type": "http", "scheme": "http", "headers": [(b"x-forwarded-for", b"1.2.3.4")]}
    assert seen_by_app(dict(scope), "*")["client"] == ("1.2.3.4", 0)
    assert "client" not in seen_by_app(dict(scope), "127.0.0.1")


def test_lifespan_passes() -> None:
    scope = {"type": "lifespan"}
    assert seen_by_app(scope, "*") is scope


def test_without_the_headers_nothing_changes() -> None:
    scope = behind("*")
    assert (scope["scheme"], scope["client"]) == ("http", PEER)


# --- the scheme --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "proto", "scheme"),
    [
        ("http", "http", "http"),
        ("http", "https", "https"),
        ("http", " https\t", "https"),
        ("http", "ws", "ws"),
        ("http", "wss", "wss"),
        ("websocket", "http", "ws"),
        ("websocket", "https", "wss"),
        ("websocket", "ws", "ws"),
        ("websocket", "wss", "wss"),
    ],
)
def test_scheme_is_taken(kind: str, proto: str, scheme: str) -> None:
    assert behind("*", proto=proto, kind=kind, scheme="given")["scheme"] == scheme


@pytest.mark.parametrize("proto", ["", "ftp", "HTTPS", "https, http", "javascript", "\xff", "h"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_other_scheme_is_ignored(kind: str, proto: str) -> None:
    scope = behind("*", "1.2.3.4", proto, kind=kind, scheme="given")
    assert (scope["scheme"], scope["client"]) == ("given", ("1.2.3.4", 0))


# --- the client --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "forwarded_for", "host"),
    [
        # The first from the right that is no trusted proxy.
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "9.9.9.9, 1.2.3.4", "1.2.3.4"),
        ("127.0.0.1,10.0.0.0/8", "9.9.9.9, 1.2.3.4 ,10.0.0.2,\t10.0.0.1", "1.2.3.4"),
        ("127.0.0.1,10.0.0.1", "10.0.0.1, 1.2.3.4", "1.2.3.4"),
        # All of them are trusted: the leftmost.
        ("127.0.0.1,10.0.0.0/8", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("127.0.0.0/8", "127.0.0.3", "127.0.0.3"),
        # Whoever trusts everybody gets the leftmost.
        ("*", "9.9.9.9, 1.2.3.4, 127.0.0.1", "9.9.9.9"),
        (["*"], "9.9.9.9, 1.2.3.4", "9.9.9.9"),
        # Several lines are one list.
        ("127.0.0.1,10.0.0.1", ["9.9.9.9, 1.2.3.4", "10.0.0.1"], "1.2.3.4"),
        ("127.0.0.1", ["1.2.3.4", "5.6.7.8"], "5.6.7.8"),
        ("*", ["9.9.9.9", "1.2.3.4"], "9.9.9.9"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        # What is no address passes as it is.
        ("127.0.0.1", "1.2.3.4:", "1.2.3.4:"),
        ("127.0.0.1", "1.2.3.4:x", "1.2.3.4:x"),
        ("127.0.0.1", "1.2.3.4:65536", "1.2.3.4:65536"),
        ("127.0.0.1", "1.2.3.4:-1", "1.2.3.4:-1"),
        ("127.0.0.1", "::ffff:1.2.3.4:80", "::ffff:1.2.3.4:80"),
        ("127.0.0.1", "[bad]:80", "[bad]:80"),
        ("127.0.0.1", "[2001:db8::1]80", "[2001:db8::1]80"),
        ("127.0.0.1", '"[2001:db8::1]:80"', '"[2001:db8::1]:80"'),
        ("127.0.0.1", "unknown", "unknown"),
        ("127.0.0.1", "1.2.3.4, \xe4\xff\x00", "\xe4\xff\x00"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_client_is_taken(
    kind: str, trusted: list[str] | str, forwarded_for: str | list[str], host: str
) -> None:
    assert behind(trusted, forwarded_for, kind=kind)["client"] == (host, 0)


@pytest.mark.parametrize(
    ("trusted", "forwarded_for", "client"),
    [
        ("127.0.0.1", "1.2.3.4:5678", ("1.2.3.4", 5678)),
        ("127.0.0.1", "[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("127.0.0.1", "_hidden:80", ("_hidden", 80)),
        ("*", "9.9.9.9:1, 1.2.3.4:2", ("9.9.9.9", 1)),
        # A trusted proxy is one whatever port it comes from.
        ("127.0.0.1,10.0.0.0/8,::1", "1.2.3.4:5, 10.0.0.1:6, [::1]:7", ("1.2.3.4", 5)),
        ("127.0.0.1,10.0.0.0/8", "10.0.0.1:6, 10.0.0.2:7", ("10.0.0.1", 6)),
        ("127.0.0.1,proxy:80", "1.2.3.4:5, proxy:80", ("1.2.3.4", 5)),
        ("127.0.0.1,proxy:80", "1.2.3.4:5, proxy:81", ("proxy", 81)),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_port_of_the_client_is_taken(
    kind: str, trusted: str, forwarded_for: str, client: tuple[str, int]
) -> None:
    assert behind(trusted, forwarded_for, kind=kind)["client"] == client


@pytest.mark.parametrize(
    ("trusted", "forwarded_for"),
    [
        ("127.0.0.1", ""),
        ("127.0.0.1", "  "),
        ("127.0.0.1", "1.2.3.4,"),
        ("127.0.0.1,10.0.0.1", "1.2.3.4, , 10.0.0.1"),
        ("127.0.0.1", ["1.2.3.4", ""]),
        ("*", ""),
        ("*", ", 1.2.3.4"),
        ("*", ["", "1.2.3.4"]),
    ],
)
def test_empty_element_leaves_the_client_and_not_the_scheme(
    trusted: str, forwarded_for: str | list[str]
) -> None:
    scope = behind(trusted, forwarded_for, "https")
    assert (scope["scheme"], scope["client"]) == ("https", PEER)


def test_what_is_known_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_headers, "_KNOWN_HOSTS", 4)
    hosts = _TrustedHosts("10.0.0.0/30, proxy")
    for _ in range(2):
        for i in range(10):
            assert (f"10.0.0.{i}" in hosts) == (i < 4)
        assert "proxy" in hosts
        assert len(hosts._known) <= 4


def test_what_is_no_address_by_its_length_is_not_kept() -> None:
    hosts = _TrustedHosts("127.0.0.1,/run/a" + "a" * 100)
    assert "x" * 65 not in hosts
    assert "/run/a" + "a" * 100 in hosts
    assert hosts._known == {}
    assert "x" * 64 not in hosts
    assert len(hosts._known) == 1
