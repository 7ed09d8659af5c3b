"""`python -m tests.soak --seconds 600`, or `make soak`: prints the report; exit code 1 where a promise is broken."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.soak.report import Tolerance
from tests.soak.soak import soak

# In minutes memory has settled: what rises then, leaks.
TOLERANCE = Tolerance(share=0.05, megabytes=2.0, descriptors=6.0)
GAP = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time")
    parser.add_argument("--log", type=Path, help="where to keep the service's log")
    parser.add_argument("arguments", nargs="*", help="more of the service's command line, behind --")
    options = parser.parse_args()
    seed = options.seed or random.randrange(1, 2**31)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="uvicorn-soak-") as directory:
        report = asyncio.run(
            soak(Path(directory), options.seconds, seed, TOLERANCE, GAP, tuple(options.arguments))
        )
    if options.log is not None:
        options.log.write_text(report.log)
    print(report)
    return 1 if report.problems() or report.late() else 0


if __name__ == "__main__":
    sys.exit(main())
