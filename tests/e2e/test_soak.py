"""The soak in short: `make soak` has it for ten minutes. What it does is in tests/soak."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.soak.report import Tolerance
from tests.soak.soak import soak

# In so short a time nothing has settled: this finds what is lost or left over, and only leaks that gush.
TOLERANCE = Tolerance(share=0.3, megabytes=8.0, descriptors=12.0)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at sockets of processes in /proc")
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("http", "seed"), [("httptools", 7)])
def test_nothing_is_wrong_lost_or_left_over(tmp_path: Path, http: str, seed: int) -> None:
    report = asyncio.run(soak(tmp_path, 15.0, seed, TOLERANCE, 1.0, ("--http", http)))
    print(report)
    assert report.problems() == []  # how long what takes is for `make soak`
    # What it is about has taken place.
    assert report.ledger.kills
    assert sum(report.done.values()) >= 5
    assert set(report.ledger.answered) >= {
        "kept",
        "fresh",
        "pipelined",
        "slow",
        "upload",
        "stream",
        "websocket",
    }
