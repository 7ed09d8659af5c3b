"""When a worker wants to be replaced, by age and by memory."""

from __future__ import annotations

import pytest

from uvicorn.worker.limits import MEMORY_SAMPLES, Limits

MIB = 2**20
LIMIT = 100 * MIB
START = 5000.0
MEMORY_PERIOD = 7.0


def memory_limits() -> Limits:
    """With a memory limit, and a first sample that was below it."""
    limits = Limits(None, LIMIT, START, MEMORY_PERIOD)
    assert limits.sample(START + MEMORY_PERIOD, LIMIT) is None
    return limits


def samples(limits: Limits, *resident: int) -> list[str | None]:
    """What each of these sizes leads to."""
    return [limits.sample(START, each) for each in resident]


# --- age ---------------------------------------------------------------------------------------


def test_a_lifetime_is_over_when_its_time_has_passed_and_not_before() -> None:
    limits = Limits(60, None, START, MEMORY_PERIOD)
    assert limits.expired(START + 59.9) is None
    assert limits.expired(START + 60) == "limit_worker_lifetime: older than 60 s"


def test_a_lifetime_that_is_over_is_said_once() -> None:
    limits = Limits(60, None, START, MEMORY_PERIOD)
    assert limits.expired(START + 61)
    assert limits.expired(START + 62) is None


def test_the_text_has_the_lifetime_with_its_jitter() -> None:
    assert (
        Limits(60.25, None, START, MEMORY_PERIOD).expired(START + 61)
        == "limit_worker_lifetime: older than 60.25 s"
    )


def test_without_a_lifetime_it_never_ends() -> None:
    assert Limits(None, None, START, MEMORY_PERIOD).expired(START + 1e9) is None


# --- memory ------------------------------------------------------------------------------------


def test_without_a_memory_limit_no_sample_is_wanted() -> None:
    assert not Limits(60, None, START, MEMORY_PERIOD).wants_sample(START + 1e9)


def test_the_first_sample_is_wanted_before_it_has_served_anything() -> None:
    limits = Limits(None, LIMIT, START, MEMORY_PERIOD)
    assert limits.wants_sample(START)
    assert limits.sample(START, LIMIT) is None
    assert not limits.wants_sample(START + MEMORY_PERIOD - 0.1)
    assert limits.wants_sample(START + MEMORY_PERIOD)


@pytest.mark.parametrize("resident", [1, 2 * LIMIT], ids=["below", "above"])
def test_the_next_sample_is_wanted_a_period_after_the_last(resident: int) -> None:
    limits = memory_limits()
    now = START + 100
    limits.sample(now, resident)
    assert not limits.wants_sample(now + MEMORY_PERIOD - 0.1)
    assert limits.wants_sample(now + MEMORY_PERIOD)


def test_memory_above_the_limit_several_times_in_a_row_is_a_reason() -> None:
    *before, last = samples(memory_limits(), *[LIMIT + MIB] * MEMORY_SAMPLES)
    assert before == [None] * (MEMORY_SAMPLES - 1)
    assert last == "limit_worker_memory: 101 MiB rss, above 100 MiB 3 times in a row"


def test_memory_at_the_limit_is_no_reason() -> None:
    assert not any(samples(memory_limits(), *[LIMIT] * 10))


def test_memory_that_goes_down_meanwhile_starts_the_count_anew() -> None:
    above = [LIMIT + 1] * (MEMORY_SAMPLES - 1)
    assert not any(samples(memory_limits(), *above, LIMIT, *above))


def test_memory_that_stays_above_the_limit_is_said_once() -> None:
    limits = memory_limits()
    assert samples(limits, *[LIMIT + 1] * MEMORY_SAMPLES)[-1]
    assert not limits.wants_sample(START + 1e9)


def test_the_text_has_what_was_measured() -> None:
    limits = Limits(None, LIMIT, START, MEMORY_PERIOD, "pss")
    *_, last = samples(limits, 1, *[LIMIT + MIB] * MEMORY_SAMPLES)
    assert last == "limit_worker_memory: 101 MiB pss, above 100 MiB 3 times in a row"


def test_a_limit_that_a_fresh_worker_exceeds_is_switched_off_and_said() -> None:
    limits = Limits(None, LIMIT, START, MEMORY_PERIOD)
    assert limits.sample(START, LIMIT + 1) is None
    assert limits.useless == (
        "limit_worker_memory: 100 MiB rss, above 100 MiB, already when it starts: the limit is not applied; raise it."
    )
    assert not limits.wants_sample(START + 1e9)


def test_a_limit_that_is_exceeded_only_later_is_not_useless() -> None:
    limits = memory_limits()
    samples(limits, *[LIMIT + 1] * MEMORY_SAMPLES)
    assert not limits.useless


def test_age_and_memory_are_apart() -> None:
    limits = Limits(60, LIMIT, START, MEMORY_PERIOD)
    assert limits.expired(START + 60)
    assert limits.wants_sample(START + 60)
