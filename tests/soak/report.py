"""What a soak has shown, in lines, and what of it must not be."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from tests.soak.ledger import Ledger
from tests.soak.overload import Crowd, Overload
from tests.soak.vitals import Level, Sample, levels

# What a log must not have, whatever is done to a service.
UNWANTED = re.compile(r".*(?:Traceback|Exception|Error\b|Task was destroyed|never retrieved).*")


@dataclass
class Tolerance:
    """How much more the last third may have than the first: a share of it, and at least so much."""

    share: float
    megabytes: float
    descriptors: float


@dataclass
class Report:
    """A whole run.

    Attributes:
        seed, seconds: What was asked for.
        ledger: The requests.
        done: The disturbances.
        parts: The samples of each part of the run, by its name.
        descriptors: What workers had when nobody had connected yet, and what they had when everybody had gone.
        left: Processes of the session after the end.
        code: The exit code.
        log: All of it.
        broken: Why the run could not go on.
    """

    seed: int
    seconds: float
    tolerance: Tolerance
    ledger: Ledger = field(default_factory=Ledger)
    done: Counter[str] = field(default_factory=Counter)
    parts: dict[str, list[Sample]] = field(default_factory=dict)
    descriptors: tuple[list[int], list[int]] = ([], [])
    left: list[int] = field(default_factory=list)
    code: int = 0
    log: str = ""
    broken: str = ""
    overload: Overload | None = None
    crowd: Crowd | None = None

    def problems(self) -> list[str]:
        """Everything that breaks a promise."""
        found = self.ledger.problems()
        if self.broken:
            found.append(f"the service did not get so far: {self.broken}")
        found += [
            f"{part}: not level: {each}"
            for part, samples in self.parts.items()
            for each in levels(samples)
            if self._rises(each)
        ]
        before, after = self.descriptors
        if max(after, default=0) > max(before, default=0):
            found.append(f"workers had {before} descriptors before the first client, {after} after the last")
        if self.left:
            found.append(f"processes left at the end: {self.left}")
        if self.code:
            found.append(f"exit code {self.code}")
        if not self.ledger.answered:
            found.append("nothing was answered")
        found += [f"in the log: {line}" for line in UNWANTED.findall(self.log)[:20]]
        for part in (self.overload, self.crowd):
            if part is not None:
                found += part.problems()
        return found

    def late(self) -> list[str]:
        """What took too long; a busy machine may be why."""
        return self.overload.late() if self.overload is not None else []

    def _rises(self, each: Level) -> bool:
        least = self.tolerance.megabytes if each.what.endswith("MiB") else self.tolerance.descriptors
        return each.rises(self.tolerance.share, least)

    def __str__(self) -> str:
        ledger = self.ledger
        on_killed = sum(len(kill.ports) for kill in ledger.kills)
        lines = [
            f"seed {self.seed}, {self.seconds:g} s",
            f"answered: {ledger.answered.total()} ({_counts(ledger.answered)})",
            f"wrong answers: {len(ledger.wrong)}; failures: {len(ledger.failures)}",
            (
                f"disturbances: {_counts(self.done)}; replaced by limits: "
                f"{self.log.count('is to be replaced: limit_')}; reloads complete: {self.log.count('Reload complete')}"
            ),
            (
                f"killed workers: {len(ledger.kills)}, with {on_killed} connections; lost in flight on those: "
                f"{ledger.lost.total()} ({_counts(ledger.lost)}); sent to those before their end was known: "
                f"{ledger.stale.total()}"
            ),
            f"broken off by clients: {ledger.aborted.total()}; closed in order: {_counts(ledger.ended)}",
            "p50, p99 in ms: "
            + ", ".join(
                f"{kind} {ledger.quantile(kind, 50) * 1000:.0f}, {ledger.quantile(kind, 99) * 1000:.0f}"
                for kind in sorted(ledger.times)
            ),
        ]
        lines += [f"{part}: {each}" for part, samples in self.parts.items() for each in levels(samples)]
        before, after = self.descriptors
        lines += [
            f"descriptors of workers before the first client: {before}, after the last: {after}",
            f"exit code {self.code}, processes left: {len(self.left)}",
        ]
        lines += [f"overload: {part}" for part in (self.overload, self.crowd) if part is not None]
        lines += [f"PROBLEM: {problem}" for problem in (*self.problems(), *self.late())] or ["no problem"]
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"
