"""Run the original Autobahn testsuite, which needs Python 2.7: `python -m tests.autobahn.original`.

    python -m tests.autobahn.original --python /path/to/python2.7 --ws wsproto --cases '12.*,13.*'

It is installed from the package index into .autobahn, and leaves its own reports there. Where there is no Python 2.7 this
says so and does nothing. The exit status is 1 where a case is worse than non-strict.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.autobahn.suite import echo_server

PLACE = Path(".autobahn")
PACKAGE = "autobahntestsuite==25.10.1"
# Without pip --target there would have to be virtualenv as well; namespace packages need its .pth files.
RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()"
# Groups 12 and 13, with 1000 messages in each case, take some ten minutes for each implementation.
QUICK = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*"
BEARABLE = ("OK", "NON-STRICT", "INFORMATIONAL")


def find_python() -> str | None:
    """A Python 2.7 that runs; some that are found on the path are only a wrapper for one that is missing."""
    places = (shutil.which("python2.7"), *sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")))
    for place in filter(None, places):
        if (
            subprocess.run([place, "-m", "pip", "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return str(place)
    return None


def install(python: str) -> Path:
    packages = PLACE / "packages"
    if not (packages / ".done").exists():
        print(f"Installing {PACKAGE} into {packages} ...", file=sys.stderr)
        pip = [python, "-W", "ignore", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--target", str(packages), PACKAGE], check=True, stderr=subprocess.DEVNULL)
        (packages / ".done").touch()
    return packages


def run(python: str, packages: Path, ws: str, cases: str) -> dict[str, dict[str, str]]:
    """What the testsuite says of each case."""
    reports = (PLACE / f"reports-{ws}").absolute()
    with tempfile.TemporaryDirectory(prefix="autobahn-") as name, echo_server(Path(name), ws) as server:
        spec = {
            "outdir": str(reports),
            "servers": [{"agent": ws, "url": f"ws://127.0.0.1:{server.port}"}],
            "cases": cases.split(","),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        path = Path(name) / "spec.json"
        path.write_text(json.dumps(spec))
        command = [
            python,
            "-W",
            "ignore",
            "-c",
            RUN,
            str(packages.absolute()),
            "-m",
            "fuzzingclient",
            "-s",
            str(path),
        ]
        log = PLACE / f"log-{ws}"
        with log.open("wb") as out:
            subprocess.run(command, cwd=name, stdout=out, stderr=subprocess.STDOUT, check=True)
    found: dict[str, dict[str, str]] = json.loads((reports / "index.json").read_text())[ws]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn.original")
    parser.add_argument(
        "--python", default=None, help="a Python 2.7 with pip; by default the one that is found"
    )
    parser.add_argument("--ws", default="websockets-sansio,websockets,wsproto")
    parser.add_argument("--cases", default=QUICK, help="which, separated by commas")
    options = parser.parse_args()
    python = options.python or find_python()
    if python is None:
        print("The original testsuite was not run: it needs a Python 2.7 (--python /path/to/python2.7).")
        return 0
    PLACE.mkdir(exist_ok=True)
    packages = install(python)
    failed = False
    for ws in options.ws.split(","):
        found = run(python, packages, ws, options.cases)
        counts = Counter(case["behavior"] for case in found.values())
        print(
            f"Autobahn, {ws}: {len(found)} cases: "
            + ", ".join(f"{n} {name}" for name, n in counts.most_common())
        )
        for number, case in found.items():
            worst = [case[key] for key in ("behavior", "behaviorClose") if case[key] not in BEARABLE]
            if worst:
                failed = True
                print(f"  {number}: {' / '.join(worst)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
