"""From HTTP to WebSocket: the request written out again, and who gets what."""

from __future__ import annotations

from typing import Any

import pytest

from uvicorn.protocols._upgrade import TakesUpgrade, UpgradeRequest


@pytest.mark.parametrize(
    ("request_", "raw"),
    [
        (UpgradeRequest(b"GET", b"/", b"", []), b"GET / HTTP/1.1\r\n\r\n"),
        (
            UpgradeRequest(b"GET", b"/a", b"b=c", [(b"host", b"x"), (b"host", b"")], b"\x00rest"),
            b"GET /a?b=c HTTP/1.1\r\nhost: x\r\nhost: \r\n\r\n\x00rest",
        ),
    ],
)
def test_request_is_written_out_again(request_: UpgradeRequest, raw: bytes) -> None:
    assert request_.raw() == raw


def test_protocol_that_takes_upgrades_has_to_say_how() -> None:
    request: Any = UpgradeRequest(b"GET", b"/", b"", [])
    with pytest.raises(NotImplementedError):
        TakesUpgrade().upgrade_received(request)
