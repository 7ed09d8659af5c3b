"""The live table fits 80 columns whatever is in it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.test_view import rows, status
from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.control import Happening, MoldView
from uvicorn.control.tables import _age, _lag, _short, _size, _wide, listing, quantile


def test_the_columns_stand_below_their_names() -> None:
    lines = listing(status(rows(REQUESTS=12345, CONNECTIONS=3, RSS=50 * 2**20)))
    head = next(line for line in lines if line.startswith(" ID"))
    row = lines[lines.index(head) + 1]
    for name, value in (("PID", "41"), ("REQS", "12345"), ("CONN", "3"), ("MEM", "50M")):
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
        for width in (20, 79, 200):
            assert all(_wide(line) <= width for line in listing(found, previous, width=width))


@pytest.mark.parametrize("text", ["\033[2J", "a\nb", "\ud800", "\x9b1m"])
def test_nothing_that_was_logged_moves_the_cursor(text: str) -> None:
    found = status(events=[Happening(1, 0.0, 20, text)])
    assert all(line.isprintable() for line in listing(found, width=None))


def test_letters_of_two_columns_count_twice() -> None:
    found = status(events=[Happening(1, 0.0, 20, "応答" * 50)])
    line = listing(found, width=40)[-1]
    assert _wide(line) in (39, 40)
    assert line.endswith("…")


def head_of(lines: list[str]) -> list[str]:
    return next(line for line in lines if line.startswith(" ID")).split()


def test_what_matters_least_goes_first_where_there_is_no_room() -> None:
    assert head_of(listing(status(), width=None))[-1] == "PSS"
    at_80 = head_of(listing(status(), width=80))
    assert {"ID", "PID", "GEN", "STATE", "AGE", "REQS", "P95", "BUSY", "CONN", "LAG", "CPU%", "MEM"} <= set(
        at_80
    )
    assert head_of(listing(status(), width=24)) == ["ID", "STATE", "REQS"]


@given(st.integers(0, 60), st.integers(5, 40), st.integers(0, 70))
def test_any_number_of_workers_fits_any_height(count: int, height: int, skip: int) -> None:
    workers = [replace(SNAPSHOT.workers[0], wid=i, id=i) for i in range(1, count + 1)]
    found = status(workers=workers)
    lines = listing(found, width=79, height=height, skip=skip)
    assert len(lines) <= height
    assert lines[0].startswith("app:app")
    if count and height > 6:
        shown = [line for line in lines if re.match(r" {0,2}\d+ +41 ", line)]
        more = [int(line.split()[1]) for line in lines if "more (of" in line]
        assert len(shown) + sum(more) == count
        assert shown


def test_workers_in_trouble_stand_first_where_not_all_have_room() -> None:
    workers = [replace(SNAPSHOT.workers[0], wid=i, id=i) for i in range(1, 40)]
    workers[20] = replace(workers[20], stage="stalled")
    lines = listing(status(workers=workers), height=24)
    after_head = lines[lines.index(next(line for line in lines if line.startswith(" ID"))) + 1]
    assert after_head.startswith(" 21 ")
    assert "STALLED" in after_head


def test_without_workers_it_says_so() -> None:
    assert "  no workers" in listing(status(workers=[]))


def test_a_mold_has_its_line() -> None:
    found = status(molds=[MoldView(7, 2, "ready", 0.0, 34 * 2**20)])
    assert "mold 7  gen 2  ready  1m40s  mem 34M, shared with its workers" in listing(found)


@pytest.mark.parametrize(
    ("counts", "part", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([10, 10, 0], 0.5, 1.0),
        ([10, 10, 0], 0.75, 1.5),
        ([0, 0, 5], 0.5, float("inf")),
    ],
)
def test_quantiles_are_read_from_buckets(counts: list[int], part: float, value: float | None) -> None:
    assert quantile(counts, [1.0, 2.0], part) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0005, "<1ms"), (0.02, "20ms"), (2.5, "2.5s"), (float("inf"), ">10s")],
)
def test_latencies(seconds: float | None, text: str) -> None:
    assert _short(seconds) == text


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
    assert (_lag(0.0012), _lag(9.5), _lag(75)) == ("1ms", "9.5s", "75.0s")
    assert (_size(0), _size(300 * 2**20), _size(20 * 2**30)) == ("0M", "300M", "20.0G")
