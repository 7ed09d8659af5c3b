"""When pings go out, and when silence ends a connection."""

from __future__ import annotations

import pytest

from uvicorn.protocols._context import NEVER
from uvicorn.protocols.websockets._keepalive import KeepAlive


@pytest.mark.parametrize("interval", [None, 0, 0.0])
def test_without_interval_nothing_is_due(interval: float | None) -> None:
    keepalive = KeepAlive(interval, 20)
    keepalive.start(100.0)
    assert keepalive.deadline == NEVER


def test_before_the_start_nothing_is_due() -> None:
    assert KeepAlive(20, 20).deadline == NEVER


def test_first_ping_is_due_an_interval_after_the_start() -> None:
    keepalive = KeepAlive(20, 5)
    keepalive.start(100.0)
    assert keepalive.deadline == 120.0
    assert keepalive.due(120.5) is not None
    assert keepalive.deadline == 125.5


def test_answered_ping_is_followed_by_another_one_an_interval_later() -> None:
    keepalive = KeepAlive(20, 5)
    keepalive.start(100.0)
    first = keepalive.due(120.0)
    assert first is not None
    keepalive.pong(first, 121.0)
    assert keepalive.deadline == 141.0
    second = keepalive.due(141.0)
    assert second is not None
    assert second != first


def test_ping_without_answer_in_time_means_the_peer_has_gone() -> None:
    keepalive = KeepAlive(20, 5)
    keepalive.start(100.0)
    keepalive.due(120.0)
    assert keepalive.due(125.0) is None


@pytest.mark.parametrize("payload", [b"", b"unasked", b"\x00\x00\x00\x02"])
def test_pong_with_another_payload_is_no_answer(payload: bytes) -> None:
    keepalive = KeepAlive(20, 5)
    keepalive.start(100.0)
    keepalive.due(120.0)
    keepalive.pong(payload, 121.0)
    assert keepalive.deadline == 125.0
    assert keepalive.due(125.0) is None


def test_late_answer_to_an_earlier_ping_is_no_answer() -> None:
    keepalive = KeepAlive(20, 5)
    keepalive.start(100.0)
    first = keepalive.due(120.0)
    assert first is not None
    keepalive.pong(first, 121.0)
    keepalive.due(141.0)
    keepalive.pong(first, 142.0)
    assert keepalive.due(146.0) is None


@pytest.mark.parametrize("timeout", [None, 0])
def test_without_timeout_pings_go_on_unanswered(timeout: float | None) -> None:
    keepalive = KeepAlive(20, timeout)
    keepalive.start(100.0)
    payloads = []
    for now in (120.0, 140.0, 160.0):
        assert keepalive.deadline == now
        payloads.append(keepalive.due(now))
    assert None not in payloads
    assert len(set(payloads)) == 3
