"""`python -m tests.day`, or `make day`: prints the diary; exit code 1 where a promise is broken."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.day.day import day


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.day")
    parser.add_argument("--pause", type=float, default=3, help="seconds of load before each step")
    parser.add_argument("--log", type=Path, help="where to keep the service's log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uvicorn-day-") as directory:
        diary = asyncio.run(day(Path(directory), options.pause))
    if options.log is not None:
        options.log.write_text(diary.log)
    print(diary)
    return 1 if diary.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
