"""A day in the life of a service, with less load between its steps than `make day` has. What it does is in tests/day."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.day.day import day


@pytest.mark.timeout(600)
def test_everything_that_operators_do_fails_no_request_and_is_counted_to_the_last_one(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    diary = asyncio.run(day(tmp_path, 0.1))
    print(diary)
    assert diary.problems() == []
    assert len(diary.agreements) == 2
    assert sum(diary.ledger.answered.values()) > 100
