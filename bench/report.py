"""Tables in Markdown from raw samples: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, figure, ratios

EXPLANATION = (
    "Server CPU, microseconds per request: median of the rounds (least of them). Ratios are taken round by round; ± is "
    "the median distance from the median."
)

Sample = dict[str, Any]
Run = dict[str, Any]
Targets = dict[str, float | None]

# Scenarios of growth are named by what grows, and a number.
GROWING = ("connections", "workers")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def pick(samples: Sequence[Sample], scenario: str, contender: str) -> list[Sample]:
    return [each for each in samples if (each["scenario"], each["contender"]) == (scenario, contender)]


def values(samples: Sequence[Sample], scenario: str, contender: str, field: str) -> list[float]:
    return [each[field] for each in pick(samples, scenario, contender)]


def versus(
    samples: Sequence[Sample], scenario: str, one: str, other: str, field: str = "cpu"
) -> Figure | None:
    """Round by round, where both have a sample."""
    left = {each["round"]: each[field] for each in pick(samples, scenario, one)}
    right = {each["round"]: each[field] for each in pick(samples, scenario, other)}
    both = sorted(left.keys() & right.keys())
    return ratios([left[i] for i in both], [right[i] for i in both]) if both else None


def number(value: float) -> str:
    """Three digits, or the whole number."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(found: Figure | None) -> str:
    return f"{found.median:.2f}" if found else ""


def failures(samples: Sequence[Sample]) -> str:
    total: dict[str, int] = {}
    for each in samples:
        for kind, count in each["failures"].items():
            total[kind] = total.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in sorted(total.items())) or "0"


def scenario_table(run: Run, scenario: str, titles: dict[str, str]) -> str:
    """All contenders in one scenario, in the order of the run."""
    samples = run["samples"]
    rows = []
    for contender in run["contenders"]:
        found = pick(samples, scenario, contender)
        if not found:
            continue
        cpu = figure(each["cpu"] for each in found)
        row = [
            titles.get(contender, contender),
            f"**{number(cpu.median)}** ({number(cpu.least)})",
            f"{cpu.spread:.0%}",
            ratio(versus(samples, scenario, contender, "uvicorn")),
            number(figure(each["rate"] for each in found).median),
        ]
        row += [number(figure(each[field] for each in found).median) for field in ("p50", "p99", "p999")]
        row += [failures(found), f"{figure(each['pss'] for each in found).median / 1e6:.0f}"]
        rows.append(row)
    header = ["server", "CPU µs (least)", "±", "of uvicorn", "per second"]
    header += ["p50 ms", "p99 ms", "p99.9 ms", "failed", "PSS MB"]
    return table(header, rows)


def summary(run: Run, titles: dict[str, str], targets: Targets) -> str:
    """One row for each scenario: everybody's CPU, and this server's share of uvicorn's beside its target."""
    samples = run["samples"]
    contenders = [name for name in run["contenders"] if any(each["contender"] == name for each in samples)]
    rows = []
    for scenario in run["scenarios"]:
        cells = []
        for contender in contenders:
            cpu = values(samples, scenario, contender, "cpu")
            cells.append(f"{number(figure(cpu).median)} ({number(min(cpu))})" if cpu else "")
        found = versus(samples, scenario, "ours", "uvicorn")
        target = targets.get(scenario)
        rows.append(
            [
                titles.get(scenario, scenario),
                *cells,
                f"{found.median:.2f} ±{found.spread:.2f}" if found else "",
                f"{target:.2f}" if target is not None else "",
                ratio(versus(samples, scenario, "ours", "granian")),
            ]
        )
    header = ["scenario", *(titles.get(each, each) for each in contenders)]
    return table([*header, "of uvicorn", "target", "of granian"], rows)


def latencies(run: Run, titles: dict[str, str], targets: Targets) -> str:
    """One row for each scenario that has a target for p99."""
    samples = run["samples"]
    scenarios = [name for name in run["scenarios"] if targets.get(name) is not None]
    contenders = [
        name
        for name in run["contenders"]
        if any(each["contender"] == name and each["scenario"] in scenarios for each in samples)
    ]
    rows = []
    for scenario in scenarios:
        cells = []
        for contender in contenders:
            found = pick(samples, scenario, contender)
            middles = [
                number(figure(each[field] for each in found).median)
                for field in ("p50", "p99", "p999")
                if found
            ]
            cells.append(" / ".join(middles))
        rows.append(
            [
                titles.get(scenario, scenario),
                *cells,
                ratio(versus(samples, scenario, "ours", "uvicorn", "p99")),
                f"{targets[scenario]:.2f}",
            ]
        )
    header = ["p50 / p99 / p99.9 ms", *(titles.get(each, each) for each in contenders)]
    return table([*header, "p99 of uvicorn", "target"], rows)


def python_of(run: Run) -> str:
    """The version that changes what code costs: "3.12"."""
    return ".".join(run["machine"]["python"].split(".")[:2])


def versions_table(runs: Sequence[Run], titles: dict[str, str], targets: Targets) -> str:
    """This server's CPU, and its share of uvicorn's and granian's, on several versions of Python."""
    scenarios = [name for name in runs[0]["scenarios"] if any(name in run["scenarios"] for run in runs[1:])]
    header = ["scenario"]
    for run in runs:
        header += [f"{python_of(run)}: µs", "of uvicorn", "of granian"]
    rows = []
    for scenario in scenarios:
        row = [titles.get(scenario, scenario)]
        for run in runs:
            cpu = values(run["samples"], scenario, "ours", "cpu")
            row.append(number(figure(cpu).median) if cpu else "")
            row += [
                ratio(versus(run["samples"], scenario, "ours", other)) for other in ("uvicorn", "granian")
            ]
        target = targets.get(scenario)
        rows.append([*row, f"{target:.2f}" if target is not None else ""])
    return table([*header, "target"], rows)


def probe_table(run: Run, probe: str, titles: dict[str, str], targets: dict[str, str]) -> str:
    """All figures of all contenders: the median, and the least and the most of several rounds."""
    found = [each for each in run["probed"] if each["scenario"] == probe]
    fields = list(dict.fromkeys(field for each in found for field in each["figures"]))
    rows = []
    for contender in run["contenders"]:
        mine = [each["figures"] for each in found if each["contender"] == contender]
        if mine:
            cells = [spread([figures[field] for figures in mine]) for field in fields]
            rows.append([titles.get(contender, contender), *cells])
    if targets:
        rows.append(["target", *(targets.get(field, "") for field in fields)])
    return table(["server", *fields], rows)


def counted(samples: Sequence[float]) -> str:
    """Counts have no fractions, and what happened once in three runs is seen only in the most."""
    middle, least, most = statistics.median(samples), min(samples), max(samples)
    return f"{middle:,.0f}" if least == most else f"{middle:,.0f} ({least:,.0f} to {most:,.0f})"


def spread(samples: Sequence[float]) -> str:
    if all(float(each).is_integer() for each in samples):
        return counted(samples)
    middle = number(figure(samples).median)
    return middle if len(samples) == 1 else f"{middle} ({number(min(samples))} to {number(max(samples))})"


def missing(run: Run, titles: dict[str, str]) -> str:
    lines = [
        f"* {titles.get(scenario, scenario)}: {titles.get(name, name)}: {reason.splitlines()[0]}"
        for scenario, reasons in run.get("failures", {}).items()
        for name, reason in reasons.items()
    ]
    return "\n".join(lines)


def conditions(run: Run) -> str:
    machine = run["machine"]
    who = "; ".join(
        f"{name} ({', '.join(f'{package} {version}' for package, version in packages.items())})"
        for name, packages in run["versions"].items()
    )
    return (
        f"{run['date']}, {machine['cores']} cores ({machine['cpu']}), {machine['system']}, "
        f"Python {machine['python']}, load by {run['tool']}; at least {run['rounds']} rounds of {run['seconds']} s in turns; "
        f"load average {machine['load'][0]:.1f} before, {machine['load'][1]:.1f} after.\n{who}."
    )


def growing(name: str, kind: str) -> int | None:
    """The number in the name of a scenario of growth, such as "workers-8"."""
    start, _, count = name.rpartition("-")
    return int(count) if start == kind and count.isdecimal() else None


def growth_points(run: Run, kind: str) -> dict[str, dict[int, float]]:
    """For each contender the median CPU, by how many there are of what grows."""
    points: dict[str, dict[int, float]] = {}
    for contender in run["contenders"]:
        for scenario in run["scenarios"]:
            count = growing(scenario, kind)
            if count is not None and (found := values(run["samples"], scenario, contender, "cpu")):
                points.setdefault(contender, {})[count] = figure(found).median
    return points


def growth_table(points: dict[str, dict[int, float]], kind: str, titles: dict[str, str]) -> str:
    counts = sorted({count for costs in points.values() for count in costs})
    rows = [
        [titles.get(name, name), *(number(costs[count]) if count in costs else "" for count in counts)]
        for name, costs in points.items()
    ]
    return table([kind, *(f"{count:,}" for count in counts)], rows)


@dataclass(frozen=True)
class Page:
    """What tables show besides a run.

    Attributes:
        titles: Of contenders, scenarios and probes, by name.
        targets: Of scenarios: the share of uvicorn's CPU.
        p99: Of scenarios: the share of uvicorn's p99.
        probe_targets: Of probes, by figure.
    """

    titles: dict[str, str]
    targets: Targets
    p99: Targets
    probe_targets: dict[str, dict[str, str]]

    def overview(self, run: Run, beside: Sequence[Run] = ()) -> str:
        """The summary, growth, and what is no load; and the runs on other versions of Python."""
        parts = [conditions(run)]
        loads = [name for name in run["scenarios"] if all(growing(name, kind) is None for kind in GROWING)]
        if loads:
            parts += [EXPLANATION, summary({**run, "scenarios": loads}, self.titles, self.targets)]
        if any(self.p99.get(name) is not None for name in loads):
            parts += ["### Latencies", latencies({**run, "scenarios": loads}, self.titles, self.p99)]
        for kind in GROWING:
            if points := growth_points(run, kind):
                parts += [f"### CPU for each request as {kind} grow", growth_table(points, kind, self.titles)]
        for probe in run["probes"]:
            if any(each["scenario"] == probe for each in run["probed"]):
                targets = self.probe_targets.get(probe, {})
                parts += [f"### {self.titles[probe]}", probe_table(run, probe, self.titles, targets)]
        if beside:
            parts += ["### On other versions of Python"]
            parts += [conditions(other) for other in beside]
            parts += [versions_table([run, *beside], self.titles, self.targets)]
        if lost := missing(run, self.titles):
            parts += ["### Not measured", lost]
        return "\n\n".join(parts) + "\n"

    def details(self, run: Run) -> str:
        """Throughput, latencies, failures and memory of every load."""
        parts = []
        for scenario in run["scenarios"]:
            if any(each["scenario"] == scenario for each in run["samples"]):
                parts += [f"### {self.titles[scenario]}", scenario_table(run, scenario, self.titles)]
        return "\n\n".join(parts) + "\n"
