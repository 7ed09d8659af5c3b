"""What a bind text means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn._addresses import Address, parse_bind, shared_with_ipv4


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:80", Address("tcp", host="127.0.0.1", port=80), None),
        ("localhost:0", Address("tcp", host="localhost"), None),
        (":65535", Address("tcp", port=65535), None),
        ("[::1]:80", Address("tcp", host="::1", port=80), None),
        ("[]:80", Address("tcp", port=80), ":80"),
        ("unix:/run/x", Address("unix", name="/run/x"), None),
        ("unix:///run/x", Address("unix", name="/run/x"), "unix:/run/x"),
        ("unix:x", Address("unix", name="x"), None),
        ("unix:@x", Address("unix", name="@x"), None),
        ("fd://3", Address("fd", fd=3), None),
        ("systemd:web", Address("systemd", name="web"), None),
        ("systemd:web:2", Address("systemd", name="web", index=2), None),
    ],
)
def test_bind_text_means_an_address(text: str, address: Address, shown: str | None) -> None:
    assert parse_bind(text) == address
    assert str(address) == (shown or text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "80",
        "host:",
        "host:x",
        "host:-1",
        "::1:80",
        "[::1]",
        "[::1]80",
        "http://host:80",
        "a/b:80",
        "unix:",
        "fd://",
        "fd://x",
        "fd://-1",
        "fd://\u00b2",
        "systemd:",
        "systemd:web:",
        "systemd:web:0",
        "systemd:web:x",
        "host:80\n",
    ],
)
def test_bind_text_that_means_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text follows
        parse_bind(text)
    message = "is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME."
    assert str(caught.value) == f"{text!r} {message}"


@pytest.mark.parametrize("text", ["127.0.0.1:65536", "[::1]:99999"])
def test_a_port_that_is_too_high_is_called_that(text: str) -> None:
    with pytest.raises(ValueError, match=r": a port is at most 65535\.$"):
        parse_bind(text)


@given(host=st.ip_addresses(), port=st.integers(0, 65535))
def test_address_and_text_are_two_forms_of_one_thing(host: object, port: int) -> None:
    address = Address("tcp", host=str(host), port=port)
    assert parse_bind(str(address)) == address


@pytest.mark.parametrize(
    ("binds", "only_v6"),
    [
        (["[::]:80"], [False]),
        (["[::]:80", "0.0.0.0:80"], [True, False]),
        (["127.0.0.1:80", "[0:0::0]:80"], [False, True]),
        (["name:80", "[::]:80"], [False, True]),
        (["[::]:80", "0.0.0.0:81", "unix:80"], [False, False, False]),
        (["[::1]:80", "0.0.0.0:80"], [False, False]),
        (["[::]:80", "[::]:80"], [False]),
    ],
)
def test_all_of_ipv6_leaves_ipv4_to_another_address_with_its_port(
    binds: list[str], only_v6: list[bool]
) -> None:
    assert [each.only_v6 for each in shared_with_ipv4(map(parse_bind, binds))] == only_v6
