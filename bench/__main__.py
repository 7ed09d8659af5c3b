"""Compares this server with its peers.

python -m bench run [--scenarios hello,browser] [--contenders ours,uvicorn] [--rounds 5] [--seconds 1]
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
from pathlib import Path
from typing import Any

from bench.contenders import CONTENDERS
from bench.environments import ROOT
from bench.guard import guard
from bench.loading import WRK
from bench.measure import measure, probe
from bench.probes import PROBES
from bench.report import report
from bench.scenarios import SCENARIOS

# A probe starts a server each time, and most take seconds.
MOST_PROBES = 3
RESULTS = ROOT / "build" / "bench"


def titles() -> dict[str, str]:
    return {each.name: each.title for each in (*CONTENDERS.values(), *SCENARIOS.values(), *PROBES.values())}


def targets() -> dict[str, float | None]:
    return {each.name: each.target for each in SCENARIOS.values()}


def written(found: dict[str, Any]) -> str:
    return report(found, titles(), targets(), {each.name: each.targets for each in PROBES.values()})


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
    known = {**SCENARIOS, **PROBES}
    chosen = chosen_from(known, options.scenarios, [name for name, each in known.items() if each.quick])
    contenders = chosen_from(CONTENDERS, options.contenders, list(CONTENDERS))
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "tool": "wrk and the client in bench/client.py" if WRK else "the client in bench/client.py",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "contenders": contenders,
        "scenarios": [name for name in chosen if name in SCENARIOS],
        "probes": [name for name in chosen if name in PROBES],
        "versions": {name: CONTENDERS[name].versions() for name in contenders},
        "failures": {},
        "samples": [],
        "probed": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    servers = [CONTENDERS[each] for each in contenders]
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
        (options.out / "report.md").write_text(written(found))
    print((options.out / "report.md").read_text())
    print(f"Raw samples: {options.out / 'samples.json'}", file=sys.stderr)


def chosen_from(known: dict[str, Any], text: str, default: list[str]) -> list[str]:
    if not text:
        return default
    names = list(known) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"Not known: {', '.join(unknown)}. There are: {', '.join(known)}")
    return names


def show(options: argparse.Namespace) -> None:
    for each in (*CONTENDERS.values(), *SCENARIOS.values(), *PROBES.values()):
        print(f"{each.name:20} {each.title}")


def main() -> None:
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
    guarding.add_argument("--processes", type=int, default=7, help="whose median counts")
    guarding.add_argument("--blocks", type=int, default=30, help="of ten turns for each case in each process")
    guarding.add_argument("--record", action="store_true", help="keep the figures, to compare with")
    guarding.set_defaults(command=lambda options: guard(options.processes, options.blocks, options.record))
    listing = commands.add_parser("list", help="what can be named")
    listing.set_defaults(command=show)
    options = parser.parse_args()
    # Servers are ended as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.command(options)


if __name__ == "__main__":
    main()
