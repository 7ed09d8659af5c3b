"""The live table fits 80 columns whatever is in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.test_view import rows, status
from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.control import Happening
from uvicorn.control.tables import _age, _lag, _size, listing


def test_the_columns_stand_below_their_names() -> None:
    lines = listing(status(rows(REQUESTS=12345, CONNECTIONS=3, RSS=50 * 2**20)))
    head = next(line for line in lines if line.startswith(" ID"))
    row = lines[lines.index(head) + 1]
    for name, value in (("PID", "41"), ("REQUESTS", "12345"), ("CONN", "3"), ("MEM", "50M")):
        end = head.index(name) + len(name)
        assert row[:end].endswith(value), (name, row)


def test_with_a_look_before_there_are_rates() -> None:
    before = status(rows(REQUESTS=100, CPU=1_000_000))
    now = {**status(rows(REQUESTS=160, CPU=3_000_000)), "at": before["at"] + 4}
    lines = listing(now, before)
    assert "req/s 15.0" in lines[1]
    row = next(line for line in lines if line.startswith("  1 "))
    assert "15.0" in row
    assert " 50 " in row


@given(st.integers(0, 10**12), st.integers(0, 2**45), st.floats(0, 10**7), st.text(max_size=300))
def test_no_line_is_wider_than_a_terminal(count: int, size: int, at: float, text: str) -> None:
    found = status(rows(REQUESTS=count, RSS=size), started_at=-at, events=[Happening(1, -at, 20, text)])
    for previous in (None, {**status(), "at": found["at"] - 1}):
        assert all(len(line) <= 79 for line in listing(found, previous))


@pytest.mark.parametrize("text", ["\033[2J", "a\nb", "\ud800", "\x9b1m"])
def test_nothing_that_was_logged_moves_the_cursor(text: str) -> None:
    found = status(events=[Happening(1, 0.0, 20, text)])
    assert all(line.isprintable() for line in listing(found, width=None))


def test_reasons_are_whole_where_there_is_no_width() -> None:
    found = status(events=[replace(SNAPSHOT.events[0], text="because " * 50)])
    assert "because " * 49 in "\n".join(listing(found, width=None))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (172799, "47h59m"),
        (1e6, "11d"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert _age(seconds) == text


@given(st.floats(0, 10**9))
def test_ages_have_six_columns(seconds: float) -> None:
    assert len(_age(seconds)) <= 6


def test_lags_and_sizes() -> None:
    assert (_lag(0.0012), _lag(9.5), _lag(75)) == ("1ms", "9500ms", "75s")
    assert (_size(0), _size(300 * 2**20), _size(20 * 2**30)) == ("0M", "300M", "20.0G")
