"""Play all cases against every implementation, and print a table: `python -m tests.autobahn`, or `make autobahn`.

    python -m tests.autobahn --ws wsproto --groups 6,7 --messages 1000

The exit status is 1 where a case has failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.autobahn.suite import IMPLEMENTATIONS, Result, all_cases, echo_server, run
from tests.autobahn.verdict import Verdict

NAMES = {
    1: "framing", 2: "pings and pongs", 3: "reserved bits", 4: "opcodes", 5: "fragmentation", 6: "UTF-8",
    7: "closing", 9: "limits and performance", 10: "automatic fragmentation", 12: "compression, by content",
    13: "compression, by offer",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn")
    parser.add_argument(
        "--ws", default=",".join(IMPLEMENTATIONS), help="implementations, separated by commas"
    )
    parser.add_argument("--groups", default=",".join(map(str, NAMES)), help="groups of cases")
    parser.add_argument(
        "--messages", type=int, default=100, help="in each case of 9.7, 9.8, 12 and 13; Autobahn has 1000"
    )
    parser.add_argument("--at-once", type=int, default=4, help="how many cases are played at the same time")
    options = parser.parse_args()
    groups = [int(group) for group in options.groups.split(",")]
    chosen = [case for case in all_cases() if case.group in groups]
    results: dict[str, list[Result]] = {}
    for ws in options.ws.split(","):
        started = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="autobahn-") as directory,
            echo_server(Path(directory), ws) as server,
        ):
            results[ws] = run(chosen, server.port, options.messages, options.at_once)
        seconds = time.monotonic() - started
        print(f"{ws}: {len(chosen)} cases in {seconds:.0f} s", file=sys.stderr)
    report(results, groups)
    return int(any(result.verdict is Verdict.FAILED for found in results.values() for result in found))


def report(results: dict[str, list[Result]], groups: list[int]) -> None:
    print("Cases that were OK / non-strict / informational / failed")
    print()
    print(f"{'':34}{'cases':>7}" + "".join(f"{ws:>20}" for ws in results))
    rows: list[tuple[str, list[int]]] = [(f"{group:>2} {NAMES[group]}", [group]) for group in groups]
    for name, members in (*rows, ("   together", groups)):
        columns, count = [], 0
        for found in results.values():
            verdicts = Counter(result.verdict for result in found if result.case.group in members)
            columns.append(" / ".join(str(verdicts[verdict]) for verdict in Verdict))
            count = verdicts.total()
        print(f"{name:34}{count:>7}" + "".join(f"{column:>20}" for column in columns))
    for verdict in (Verdict.FAILED, Verdict.NON_STRICT, Verdict.INFORMATIONAL):
        for ws, found in results.items():
            for result in found:
                if result.verdict is verdict:
                    print(f"{verdict.name} {ws} {result.case.number}: {result.why[:300]}")


if __name__ == "__main__":
    sys.exit(main())
