"""What is to be thought of what a case has led to. Pure."""

from __future__ import annotations

from enum import IntEnum

from tests.autobahn.case import Case
from tests.autobahn.client import Seen


class Verdict(IntEnum):
    """From the best to the worst, with the testsuite's names."""

    OK = 0
    NON_STRICT = 1
    INFORMATIONAL = 2
    FAILED = 3


def judge(case: Case, seen: Seen) -> tuple[Verdict, str]:
    """The verdict, and why it is no better."""
    mistake = _mistake(case, seen)
    if mistake:
        return Verdict.FAILED, mistake
    if case.informational:
        return Verdict.INFORMATIONAL, f"events {seen.events}, close {seen.close}"
    weakness = _weakness(case, seen)
    return (Verdict.NON_STRICT, weakness) if weakness else (Verdict.OK, "")


def _mistake(case: Case, seen: Seen) -> str:
    events = tuple(seen.events)
    if seen.mistake:
        return seen.mistake
    if not seen.ended:
        return "the server has not ended the connection"
    if case.informational:
        return ""
    if events not in (case.events, *case.non_strict):
        return f"expected {case.events}, received {events}"
    if seen.close is None and case.clean:
        return "no close frame"
    if seen.close not in (None, *case.codes, *case.tolerated):
        return f"closed with {seen.close} in place of {case.codes}"
    return ""


def _weakness(case: Case, seen: Seen) -> str:
    if tuple(seen.events) != case.events:
        return "what came before the mistake was not answered any more"
    if seen.close is None:
        return "ended without a close frame"
    if seen.close not in case.codes:
        return f"closed with {seen.close} in place of {case.codes}"
    if case.quick and seen.steps > case.quick:
        return "the mistake was found when the message was complete"
    return ""
