"""The recorded run: its raw samples in bench/results, and the part of docs/performance.md that is made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.environments import ROOT
from bench.report import Page, conditions, python_of

SAMPLES = ROOT / "bench" / "results" / "samples.json"
REPORT = ROOT / "bench" / "results" / "report.md"
PLOTS = ROOT / "docs" / "performance"
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- From here to the end mark: written by `python -m bench record` -->"
END = "<!-- End of what `python -m bench record` writes -->"


def replaced(page: str, generated: str) -> str:
    """The page with another generated part.

    Raises:
        ValueError: The page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{generated.strip()}\n\n{END}{after}"


def compact(run: dict[str, Any]) -> dict[str, Any]:
    """With no more digits than mean anything."""
    rounded: dict[str, Any] = json.loads(
        json.dumps(run), parse_float=lambda text: float(f"{float(text):.5g}")
    )
    return rounded


def merged(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """The newer run with those scenarios of the older that it has not measured.

    Raises:
        ValueError: The two are of different machines, and cannot stand in one table.
    """
    same = ("cores", "cpu", "system", "python")
    if any(older["machine"][name] != newer["machine"][name] for name in same):
        raise ValueError("the runs are of different machines")
    again = {*newer["scenarios"], *newer["probes"]}
    result = dict(newer)
    for names, samples in (("scenarios", "samples"), ("probes", "probed")):
        kept = [name for name in older[names] if name not in again]
        result[names] = kept + newer[names]
        result[samples] = [each for each in older[samples] if each["scenario"] in kept] + newer[samples]
    measured = [each["rounds"] for each in (older, newer) if each["samples"]]
    result["rounds"] = min(measured, default=newer["rounds"])
    kept_failures = {name: why for name, why in older["failures"].items() if name not in again}
    result["failures"] = kept_failures | newer["failures"]
    result["contenders"] = list(dict.fromkeys([*older["contenders"], *newer["contenders"]]))
    result["versions"] = older["versions"] | newer["versions"]
    return result


def keep(run: dict[str, Any], page: Page) -> list[Path]:
    """Write all that is recorded.

    Returns:
        The files.
    """
    # Drawing is for whoever records; everything else does without matplotlib.
    from bench.plot import plot  # noqa: PLC0415

    save(run, SAMPLES)
    PLOTS.mkdir(exist_ok=True)
    drawn = plot(run, page.titles, PLOTS)
    REPORT.write_text(f"# The recorded run, all figures\n\n{conditions(run)}\n\n{page.details(run)}")
    PAGE.write_text(replaced(PAGE.read_text(), page.overview(run, beside(SAMPLES.parent))))
    return [SAMPLES, REPORT, PAGE, *drawn]


def keep_beside(run: dict[str, Any], page: Page) -> list[Path]:
    """Write a run on another version of Python, to be shown beside the recorded one.

    Returns:
        The files.
    """
    place = place_beside(run)
    save(run, place)
    recorded = json.loads(SAMPLES.read_text())
    PAGE.write_text(replaced(PAGE.read_text(), page.overview(recorded, beside(SAMPLES.parent))))
    return [place, PAGE]


def place_beside(run: dict[str, Any]) -> Path:
    """Where a run on another version of Python is kept."""
    return SAMPLES.with_name(f"samples-{python_of(run)}.json")


def beside(directory: Path) -> list[dict[str, Any]]:
    """The runs on other versions of Python, the oldest version first."""
    found = [json.loads(path.read_text()) for path in directory.glob("samples-*.json")]
    return sorted(found, key=lambda run: [int(part) for part in python_of(run).split(".")])


def save(run: dict[str, Any], samples: Path) -> None:
    samples.parent.mkdir(exist_ok=True)
    # A line for each sample: a diff shows which have changed.
    parts = []
    for name, value in compact(run).items():
        if name in ("samples", "probed"):
            lines = ",\n".join(f"  {json.dumps(each)}" for each in value)
            parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    samples.write_text("{\n" + ",\n".join(parts) + "\n}\n")
