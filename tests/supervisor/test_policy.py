"""The master's rules as pure functions."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.supervisor import policy
from uvicorn.supervisor.policy import ExitCode

MIDDLE = 0.5  # of the jitter: none


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "OTHER": 1,
        "USAGE": 2,
        "STARTUP_FAILURE": 3,
        "CRASH_LOOP": 70,
    }


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(-1, 0), (0, 0), (1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (10_000, 30)],
)
def test_backoff_doubles_from_half_a_second_to_thirty(failures: int, seconds: float) -> None:
    assert policy.backoff(failures, MIDDLE) == seconds


@given(st.integers(1, 100), st.floats(0, 1))
def test_backoff_stays_within_its_jitter_and_limit(failures: int, random: float) -> None:
    middle = policy.backoff(failures, MIDDLE)
    delay = policy.backoff(failures, random)
    assert 0.8 * middle - 1e-9 <= delay <= min(30, 1.2 * middle) + 1e-9


@given(st.integers(0, 100), st.floats(0, 1))
def test_backoff_never_shrinks_with_more_failures(failures: int, random: float) -> None:
    assert policy.backoff(failures, random) <= policy.backoff(failures + 1, random)


@pytest.mark.parametrize(("short_lives", "seconds"), [(0, 0), (1, 0), (3, 0), (4, 0.5), (5, 1), (50, 30)])
def test_the_first_three_short_lives_are_replaced_at_once(short_lives: int, seconds: float) -> None:
    assert policy.delay_after_death(short_lives, MIDDLE) == seconds


def test_restarts_count_for_a_minute() -> None:
    assert policy.recent([0.0, 39.9, 40.0, 40.1, 99.0], 100.0) == [40.1, 99.0]


@pytest.mark.parametrize(
    ("count", "limit", "result"), [(0, 1, False), (1, 1, True), (9, 10, False), (10, 10, True)]
)
def test_restarts_are_used_up_at_the_limit(count: int, limit: int, result: bool) -> None:
    assert policy.used_up([100.0] * count, 100.0, limit) is result
    assert policy.used_up([100.0] * count, 160.0, limit) is False


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 1), (10, 1), (19, 1), (20, 2), (512, 51)])
def test_one_worker_in_ten_is_replaced_at_a_time_at_least_one(size: int, count: int) -> None:
    assert policy.surge(size) == count


@pytest.mark.parametrize(("size", "count"), [(1, 3), (2, 5), (10, 21)])
def test_most_alive_has_room_for_a_draining_and_a_new_worker_in_each_slot_and_one_more(
    size: int, count: int
) -> None:
    assert policy.most_alive(size) == count


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (255, "exit code 255"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGKILL, "killed by SIGKILL (perhaps out of memory)"),
        (-64, "killed by SIGRTMAX"),
        (-63, "killed by signal 63"),
    ],
)
def test_an_exit_is_told_in_words(code: int, words: str) -> None:
    assert policy.exit_in_words(code) == words


def test_an_exit_for_lack_of_memory_is_told_as_such() -> None:
    assert policy.exit_in_words(-signal.SIGKILL, True) == "killed by the kernel: out of memory"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_an_age_is_told_in_words(seconds: float, words: str) -> None:
    assert policy.age_in_words(seconds) == words
