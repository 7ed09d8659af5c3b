"""Checksums and contents say which request they belong to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.answers import asked, content
from tests.soak.clients import Client
from tests.soak.ledger import Connection, Ledger
from tests.soak.wire import Reply


def test_checksum_is_that_of_method_target_and_body() -> None:
    requests = [("GET", "/a?1", b""), ("POST", "/a?1", b""), ("GET", "/a?2", b""), ("GET", "/a?1", b"x")]
    assert len({asked(*request) for request in requests}) == len(requests)


def test_content_differs_at_each_place_and_is_as_long_as_asked() -> None:
    for size in (0, 1, 31, 32, 33, 1000):
        assert len(content("a", size)) == size
    assert content("a", 64)[:32] != content("a", 64)[32:]
    assert content("a", 64) != content("b", 64)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"body": b"y" * 10}, False),
        ({"headers": {b"x-asked": b"another"}}, False),
        ({"body": b""}, False),
    ],
)
def test_answer_of_another_request_is_wrong(change: dict[str, Any], right: bool) -> None:
    ledger = Ledger()
    rng: Any = None
    client = Client("kept", 1, ledger, rng, asyncio.Event())
    target = "/plain?token.10"
    checksum = asked("GET", target)
    reply = Reply(
        **{"status": 200, "headers": {b"x-asked": checksum.encode()}, "body": content(checksum, 10), **change}
    )
    wire: Any = SimpleNamespace(connection=Connection(1, 0.0))
    assert client.judge(wire, reply, target, None, 0.0) is right
    assert (ledger.answered["kept"], len(ledger.wrong)) == ((1, 0) if right else (0, 1))


def test_refusal_is_a_failure_whoever_was_killed() -> None:
    ledger = Ledger()
    rng: Any = None
    client = Client("kept", 1, ledger, rng, asyncio.Event())
    wire: Any = SimpleNamespace(connection=Connection(1, 0.0))
    client.judge(wire, Reply(503, {}, b""), "/plain?token.10", None, 0.0)
    assert "status 503" in ledger.failures[0]
