"""Plots of a run, from its raw samples: CPU for each request by scenario, and how it grows. Only this needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot

from bench.figures import figure
from bench.report import growth_points, values

# Bodies cost milliseconds, and would make the rest invisible.
HIGHEST = 400.0


def plot(run: dict[str, Any], titles: dict[str, str], directory: Path) -> list[Path]:
    """The files that were written."""
    made = []
    scenarios = [name for name in run["scenarios"] if not name.startswith(("connections-", "workers-"))]
    if shown := [name for name in scenarios if 0 < highest(run, name) < HIGHEST]:
        made.append(bars(run, shown, titles, directory / "cpu.png"))
    for kind in ("connections", "workers"):
        if points := growth_points(run, kind):
            made.append(curves(points, kind, titles, directory / f"{kind}.png"))
    return made


def highest(run: dict[str, Any], scenario: str) -> float:
    return max((each["cpu"] for each in run["samples"] if each["scenario"] == scenario), default=0.0)


def bars(run: dict[str, Any], scenarios: Sequence[str], titles: dict[str, str], path: Path) -> Path:
    """Medians, with a line from the least to the most of the rounds."""
    contenders = [
        name
        for name in run["contenders"]
        if any(values(run["samples"], each, name, "cpu") for each in scenarios)
    ]
    drawing, axes = pyplot.subplots(figsize=(11, 1 + 0.11 * len(scenarios) * (len(contenders) + 2)))
    height = 0.85 / len(contenders)
    for place, contender in enumerate(contenders):
        for row, scenario in enumerate(scenarios):
            found = values(run["samples"], scenario, contender, "cpu")
            if found:
                middle = figure(found).median
                error = [[middle - min(found)], [max(found) - middle]]
                axes.barh(
                    row + place * height,
                    middle,
                    height,
                    color=f"C{place}",
                    xerr=error,
                    error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
                )
        axes.barh(0, 0, color=f"C{place}", label=titles.get(contender, contender))
    axes.set_yticks(
        [row + 0.4 for row in range(len(scenarios))], [titles.get(each, each) for each in scenarios]
    )
    axes.invert_yaxis()
    axes.set_xlabel("CPU of the server for each request, microseconds; less is better")
    axes.margins(y=0.01)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False)
    drawing.tight_layout()
    drawing.savefig(path, dpi=90)
    pyplot.close(drawing)
    return path


def curves(points: dict[str, dict[int, float]], kind: str, titles: dict[str, str], path: Path) -> Path:
    drawing, axes = pyplot.subplots(figsize=(8, 4.5))
    for contender, costs in points.items():
        axes.plot(list(costs), list(costs.values()), marker="o", label=titles.get(contender, contender))
    axes.set_xscale("log", base=2 if kind == "workers" else 10)
    ticks = sorted({count for costs in points.values() for count in costs})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(kind)
    axes.set_ylabel("CPU for each request, microseconds")
    axes.legend()
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
    return path
