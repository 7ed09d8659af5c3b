"""Compares this server with its peers.

python -m bench run [--scenarios hello,browser] [--contenders ours,uvicorn] [--rounds 5] [--seconds 1]
python -m bench record [--merge]
python -m bench guard [--record]
python -m bench list
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import record
from bench.contenders import CONTENDERS
from bench.environments import ROOT
from bench.guard import guard
from bench.loading import WRK
from bench.measure import measure, probe
from bench.probes import PROBES, Probe
from bench.report import Page
from bench.scenarios import SCENARIOS, Scenario

# A probe starts a server each time, and most take seconds.
MOST_PROBES = 3
RESULTS = ROOT / "build" / "bench"

KNOWN: dict[str, Scenario | Probe] = {**SCENARIOS, **PROBES}
PAGE = Page(
    titles={each.name: each.title for each in (*CONTENDERS.values(), *KNOWN.values())},
    targets={name: each.target for name, each in SCENARIOS.items()},
    p99={name: each.p99 for name, each in SCENARIOS.items()},
    probe_targets={name: each.targets for name, each in PROBES.items()},
)


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(": ")[2] if lines else cpu
    return {
        "cores": os.cpu_count(),
        "cpu": cpu,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": [os.getloadavg()[0], 0.0],
    }


def run(options: argparse.Namespace) -> None:
    chosen = chosen_from(KNOWN, options.scenarios, [name for name, each in SCENARIOS.items() if each.quick])
    contenders = chosen_from(CONTENDERS, options.contenders, list(CONTENDERS))
    servers = [CONTENDERS[each] for each in contenders]
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "tool": "wrk and bench/client.py" if WRK else "bench/client.py",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "contenders": contenders,
        "scenarios": [name for name in chosen if name in SCENARIOS],
        "probes": [name for name in chosen if name in PROBES],
        "versions": {each.name: each.versions() for each in servers},
        "failures": {},
        "samples": [],
        "probed": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        print(f"{name} ", end="", file=sys.stderr, flush=True)
        if name in SCENARIOS:
            samples, failures = measure(SCENARIOS[name], servers, options.rounds, options.seconds)
            found["samples"] += samples
        else:
            samples, failures = probe(PROBES[name], servers, min(options.rounds, MOST_PROBES))
            found["probed"] += samples
        if failures:
            found["failures"][name] = failures
        found["machine"]["load"][1] = os.getloadavg()[0]
        print(file=sys.stderr)
        # What is there is kept, whatever ends the run.
        (options.out / "samples.json").write_text(json.dumps(found, indent=1))
        (options.out / "report.md").write_text(f"{PAGE.overview(found)}\n{PAGE.details(found)}")
    print((options.out / "report.md").read_text())
    print(f"Raw samples: {options.out / 'samples.json'}", file=sys.stderr)


def chosen_from(known: Mapping[str, object], text: str, default: list[str]) -> list[str]:
    if not text:
        return default
    names = list(known) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"Not known: {', '.join(unknown)}. There are: {', '.join(known)}")
    return names


def keep(options: argparse.Namespace) -> None:
    found = json.loads((options.out / "samples.json").read_text())
    older = record.place_beside(found) if options.beside else record.SAMPLES
    if options.merge and older.exists():
        found = record.merged(json.loads(older.read_text()), found)
    order = list(KNOWN)
    for part in ("scenarios", "probes"):
        found[part].sort(key=order.index)
    write = record.keep_beside if options.beside else record.keep
    for path in write(found, PAGE):
        print(f"Written: {path.relative_to(ROOT)}")


def show(options: argparse.Namespace) -> None:
    for each in (*CONTENDERS.values(), *KNOWN.values()):
        print(f"{each.name:20} {each.title}")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    running = commands.add_parser("run", help="measure, and print tables")
    running.add_argument(
        "--scenarios", default="", help="names with commas between, or all; default: the quick ones"
    )
    running.add_argument("--contenders", default="", help="names with commas between; default: all")
    running.add_argument("--rounds", type=int, default=5)
    running.add_argument("--seconds", type=int, default=1, help="of each round")
    running.add_argument("--out", type=Path, default=RESULTS, help="directory of samples and report")
    running.set_defaults(command=run)
    guarding = commands.add_parser(
        "guard", help="what the request path costs in the process, beside the recorded figure"
    )
    guarding.add_argument("--processes", type=int, default=5, help="whose median counts")
    guarding.add_argument(
        "--blocks", type=int, default=50, help="of twenty turns for each case in each process"
    )
    guarding.add_argument("--record", action="store_true", help="keep the figures, to compare with")
    guarding.set_defaults(command=lambda options: guard(options.processes, options.blocks, options.record))
    recording = commands.add_parser("record", help="keep the last run, and write it into docs/performance.md")
    recording.add_argument("--out", type=Path, default=RESULTS, help="where the run has left its samples")
    recording.add_argument("--merge", action="store_true", help="keep what is recorded of other scenarios")
    recording.add_argument(
        "--beside",
        action="store_true",
        help="show it beside what is recorded, as a run on another version of Python",
    )
    recording.set_defaults(command=keep)
    listing = commands.add_parser("list", help="what can be named")
    listing.set_defaults(command=show)
    options = parser.parse_args()
    # Servers are ended as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.command(options)


if __name__ == "__main__":
    main()
