"""A sample of `make inject`: what was found by it, and one call of each kind."""

from __future__ import annotations

import pytest

from tests.inject.__main__ import chosen
from tests.inject.faults import ERRORS
from tests.inject.lives import Injection, live, usable

WHY_NOT = usable()

SAMPLE = {
    # The first of what the phase is there for; what has broken once has no ordinal that stays.
    "start": ["bind EADDRINUSE", "listen EADDRINUSE", "clone EAGAIN", "socketpair EMFILE", "pipe2 EMFILE", "memfd_create EMFILE"],
    "reload": ["clone EAGAIN", "socketpair EMFILE", "openat EMFILE", "poll ENOMEM", "write ENOSPC"],
    "death": ["clone ENOMEM", "socketpair EMFILE", "recvfrom ENOMEM"],
    "scale": ["clone EAGAIN", "write EAGAIN"],
    "upgrade": ["memfd_create EMFILE", "execve ENOMEM", "poll ENOMEM", "clone3 EAGAIN"],
    "takeover": ["openat EMFILE", "read EIO"],
    "stop": ["write EAGAIN", "read EIO", "poll ENOMEM", "kill EPERM"],
}  # fmt: skip
INJECTIONS = [
    Injection("fork", phase, *call.split(), nth=1) for phase, calls in SAMPLE.items() for call in calls
]


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace is there")
@pytest.mark.parametrize("injection", INJECTIONS, ids=str)
def test_a_call_that_fails_breaks_no_promise(injection: Injection) -> None:
    result = live(injection)
    assert result.outcome != "FAILED", f"{result.text}\n{result.trace}\n{result.log}"
    # A library may do without the call: then another one of the sample has done the same.
    assert result.trace or injection.call in ("clone3", "pipe2", "memfd_create"), "the call was not made"


def test_every_call_of_the_sample_is_one_that_can_fail_so() -> None:
    assert all(each.error in ERRORS[each.call] for each in INJECTIONS)


@pytest.mark.parametrize(
    ("count", "first", "expected"), [(2, 4, [1, 2]), (4, 4, [1, 2, 3, 4]), (100, 2, [1, 2, 3, 52])]
)
def test_the_first_calls_and_some_of_the_rest_are_chosen(count: int, first: int, expected: list[int]) -> None:
    assert chosen(count, first) == expected
