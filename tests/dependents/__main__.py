"""python -m tests.dependents [NAME ...]: do the tests of those who use uvicorn pass with this tree as with 0.37.0?

For each project: the sdist from the package index, two virtual environments with the same packages but for uvicorn, the
project's tests in both, and a comparison by test id. Exit code 1 where a test passes with 0.37.0 and does not here,
but for those that projects.py knows a reason for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.dependents.projects import PROJECTS, Project

ROOT = Path(__file__).parents[2]
REFERENCE = "uvicorn==0.37.0"
LIMIT = 1800  # seconds for one suite
LINGER = 20  # seconds for its end, when the results are there


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dependents", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="projects; all of them where none is named")
    parser.add_argument("--work", type=Path, default=ROOT / ".dependents", help="where everything is put")
    options = parser.parse_args()
    unknown = set(options.names) - {project.name for project in PROJECTS}
    if unknown:
        parser.error(f"no such project: {', '.join(sorted(unknown))}")
    rows, worse = [], False
    for project in PROJECTS:
        if options.names and project.name not in options.names:
            continue
        row, lost = compare(project, options.work.resolve() / project.name)
        rows.append(row)
        worse = worse or bool(lost)
        for test in lost:
            print(f"  passes with 0.37.0, not here: {test}")
    print("\n" + table(rows))
    return 1 if worse else 0


def compare(project: Project, work: Path) -> tuple[list[str], list[str]]:
    """A row of the table, and the tests that are lost."""
    print(f"{project.name} {project.version}", flush=True)
    work.mkdir(parents=True, exist_ok=True)
    source = sdist(project, work)
    theirs = environment(work / "theirs", [f"{project.name}=={project.version}", REFERENCE, *project.needs])
    same = [line for line in frozen(theirs) if not line.startswith("uvicorn==")]
    # Everything at the very versions of the other environment; what this tree needs besides comes with it.
    ours = environment(work / "ours", same, "--no-deps")
    pip(ours, "install", "--upgrade", "--force-reinstall", "--no-deps", str(ROOT))
    pip(ours, "install", str(ROOT))
    before = run(project, source, theirs, work / "theirs.xml")
    if not before:
        raise SystemExit(f"{project.name}: no results with 0.37.0, so nothing to compare with.")
    after = run(project, source, ours, work / "ours.xml")
    lost = [test for test, outcome in before.items() if outcome == "passed" and after.get(test) != "passed"]
    other = [test for test in lost if project.reason(test)]
    for start, reason in project.differs.items():
        count = sum(test.startswith(start) for test in other)
        print(
            f"  differs, {reason}: {start} ({count})" if count else f"  differs no more: {start}", flush=True
        )
    lost = [test for test in lost if test not in other]
    lost = still_lost(project, source, theirs, ours, lost, work)
    counts = [
        str(sum(outcome == wanted for outcome in outcomes.values()))
        for outcomes in (before, after)
        for wanted in ("passed", "failed", "skipped")
    ]
    return [f"{project.name} {project.version}", *counts, str(len(other)), str(len(lost))], lost


def still_lost(
    project: Project, source: Path, theirs: Path, ours: Path, lost: list[str], work: Path
) -> list[str]:
    """Those that keep the difference when they run by themselves, twice: a busy machine fails tests, too."""
    for attempt in range(2):
        if not lost:
            break
        before = run(project, source, theirs, work / f"theirs-again-{attempt}.xml", lost)
        after = run(project, source, ours, work / f"ours-again-{attempt}.xml", lost)
        lost = [test for test in lost if before.get(test) == "passed" and after.get(test) != "passed"]
    return lost


def sdist(project: Project, work: Path) -> Path:
    """The unpacked sdist."""
    unpacked = work / "source"
    if not unpacked.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "download",
            "--no-deps",
        ]
        command += ["--no-binary", project.name, "--dest", str(work), f"{project.name}=={project.version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = work.glob("*.tar.gz")
        with tarfile.open(archive) as content:
            content.extractall(work / "unpacking", filter="data")
        (top,) = (work / "unpacking").iterdir()
        for name in project.without:
            shutil.rmtree(top / name)
        top.rename(unpacked)
    return unpacked


def environment(path: Path, packages: list[str], *options: str) -> Path:
    """A virtual environment with these packages; its interpreter."""
    python = path / "bin" / "python"
    if not python.exists():
        venv.create(path, with_pip=True)
    pip(python, "install", *options, *packages)
    return python


def pip(python: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def frozen(python: Path) -> list[str]:
    return pip(python, "freeze").splitlines()


def run(
    project: Project, source: Path, python: Path, report: Path, tests: list[str] | None = None
) -> dict[str, str]:
    """Run the project's tests, or these of them; the outcome of each by its id."""
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "--timeout",
        "120",
        "-p",
        "no:cacheprovider",
        *project.options,
    ]
    command += ["--junit-xml", str(report), "-o", "junit_family=xunit1", *project.paths]
    if tests is not None:
        command += ["-k", " or ".join(sorted({test.rpartition("::")[2].partition("[")[0] for test in tests}))]
    report.unlink(missing_ok=True)
    with report.with_suffix(".log").open("wb") as log:
        # Some start commands of the packages: gunicorn.
        environ = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        process = subprocess.Popen(
            command,
            cwd=source,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait(process, report)
        finally:
            # With all that the tests have started and left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not report.exists():
        print(f"  no results, see {report.with_suffix('.log')}", flush=True)
        return {}
    return outcomes(report)


def wait(process: subprocess.Popen[bytes], report: Path) -> None:
    """Until it ends, or has had time to after its report: threads and children of failed tests may keep it."""
    for _ in range(LIMIT // LINGER):
        reported = report.exists()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LINGER)
            return
        if reported:
            return
    print(f"  not done after {LIMIT} s", flush=True)


def outcomes(report: Path) -> dict[str, str]:
    """The outcome of each test in a JUnit report."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        test = f"{case.get('file', case.get('classname'))}::{case.get('name')}"
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            found[test] = "failed"
        elif "skipped" in kinds:
            found.setdefault(test, "skipped")
        else:
            found.setdefault(test, "passed")
    return found


def table(rows: list[list[str]]) -> str:
    head = [
        "project",
        *(f"{kind} {where}" for where in ("0.37.0", "here") for kind in ("passed", "failed", "skipped")),
    ]
    lines = [[*head, "differs", "lost"], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
