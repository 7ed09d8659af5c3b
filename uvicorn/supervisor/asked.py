"""What was asked for by number and waits for its outcome, and how often things have ended how. Pure.

Signals ask for nothing by number: their outcome is in the log alone. Whoever ends something says so here, in the words of
the log, and everybody who asked for it gets the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from uvicorn._ipc.control import Outcome
from uvicorn.supervisor.actions import Answer

# Why a worker is replaced that somebody wants to be.
ON_REQUEST = "asked for by uvicornctl"


@dataclass(slots=True)
class Restart:
    """A worker is to be replaced.

    Attributes:
        old: Its number: the next one that is ready in its slot is the successor.
        numbers: Who asked.
    """

    old: int
    numbers: list[int]


@dataclass(slots=True)
class Ledger:
    """Requests that wait, and what there is to tell of those that do not.

    Attributes:
        waiting: Who waits for "reload", "upgrade" and "scale".
        restarts: Restarts under way, by slot.
        dumps: Who waits for a worker's report, by the worker's number.
        reasons: How often workers were replaced, by reason.
        outcomes: How reloads and upgrades have ended.
    """

    waiting: dict[str, list[int]] = field(default_factory=dict)
    restarts: dict[int, Restart] = field(default_factory=dict)
    dumps: dict[int, list[int]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def wait(self, what: str, number: int) -> None:
        """Whoever has asked with this number waits; 0 is a signal, which does not."""
        if number:
            self.waiting.setdefault(what, []).append(number)

    def count(self, reason: str) -> None:
        """A worker is replaced, or had to be given up."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def record(self, what: str, ok: bool, text: str, now: float) -> None:
        """A reload or an upgrade has ended."""
        outcome = self.outcomes.setdefault(what, Outcome())
        if ok:
            outcome.succeeded += 1
        else:
            outcome.failed += 1
        outcome.ok, outcome.text, outcome.at = ok, text, now

    # --- answers -----------------------------------------------------------------------------

    def end(self, what: str, ok: bool, text: str) -> list[Answer]:
        return _answers(self.waiting.pop(what, []), ok, text)

    def end_restart(self, slot: int, ok: bool, text: str) -> list[Answer]:
        restart = self.restarts.pop(slot, None)
        return _answers(restart.numbers if restart is not None else [], ok, text)

    def end_dump(self, wid: int, ok: bool, text: str) -> list[Answer]:
        return _answers(self.dumps.pop(wid, []), ok, text)

    def end_all(self, text: str) -> list[Answer]:
        """Nothing that waits will come about any more. Reports may still come."""
        answers = [answer for what in list(self.waiting) for answer in self.end(what, False, text)]
        return answers + [
            answer for slot in list(self.restarts) for answer in self.end_restart(slot, False, text)
        ]

    def end_all_but_upgrade(self, text: str) -> list[Answer]:
        """The next program takes over, and is told of those alone who wait for that."""
        upgrade = self.waiting.pop("upgrade", [])
        answers = self.end_all(text)
        answers += [answer for wid in list(self.dumps) for answer in self.end_dump(wid, False, text)]
        if upgrade:
            self.waiting["upgrade"] = upgrade
        return answers


def _answers(numbers: list[int], ok: bool, text: str) -> list[Answer]:
    return [Answer(number, ok, text) for number in numbers]
