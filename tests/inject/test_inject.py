"""A sample of `make inject`: what was found by it, and one call of each kind."""

from __future__ import annotations

import pytest

from tests.inject.__main__ import chosen
from tests.inject.faults import ERRORS, can_fail, places
from tests.inject.lives import Injection, live, usable

WHY_NOT = usable()

SAMPLE = {
    # The first of what the phase is there for; what has broken once has no ordinal that stays.
    "start": ["bind EADDRINUSE", "listen EADDRINUSE", "clone EAGAIN", "socketpair EMFILE", "pipe2 EMFILE", "memfd_create EMFILE"],
    "reload": ["clone EAGAIN", "socketpair EMFILE", "openat EMFILE", "poll ENOMEM", "write ENOSPC"],
    "death": ["clone ENOMEM", "socketpair EMFILE", "recvfrom ENOMEM"],
    "scale": ["clone EAGAIN", "write EAGAIN"],
    "upgrade": ["memfd_create EMFILE", "execve ENOMEM", "poll ENOMEM", "clone3 EAGAIN"],
    "takeover": ["openat EMFILE", "read EIO", "getsockname ENOBUFS"],
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
    assert chosen(list(range(1, count + 1)), first) == expected


def test_only_what_the_kernel_can_refuse_is_a_place_for_it() -> None:
    trace = [
        "fcntl(7, F_GETFL)                       = 0x2 (flags O_RDWR)",
        "fcntl(7, F_DUPFD_CLOEXEC, 0)            = 8",
        "poll([{fd=4, events=POLLIN}], 1, 100)   = 0 (Timeout)",
        "--- SIGCHLD {si_signo=SIGCHLD} ---",
        "fcntl(8, F_SETFL, O_RDWR|O_NONBLOCK)    = 0",
        "fcntl(8, F_DUPFD, 10)                   = 10",
        "lseek(3, 0, SEEK_SET)                   = 0",
    ]
    assert places(trace) == {"fcntl": [2, 4], "poll": [1]}
    assert not can_fail("fcntl(7, F_GETFL) = -1 EMFILE (Too many open files) (INJECTED)")
