"""Fuzz one target: `python -m tests.fuzz http --seconds 600`; `make fuzz SECONDS=600` fuzzes all of them.

Guided by coverage where atheris is installed; else, or with --blind, by mutations alone. What it finds is written to
.fuzz/ with the target's name; a copy of it in tests/fuzz/found is tried by every test run from then on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import random
import sys
import time
from pathlib import Path

WORK = Path(".fuzz")
INSTRUMENTED = ["uvicorn", "h11", "websockets", "wsproto", "yaml"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=["http", "connection", "websockets", "yaml"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time")
    parser.add_argument("--blind", action="store_true", help="without atheris")
    options = parser.parse_args()
    atheris = None
    if not options.blind:
        with contextlib.suppress(ImportError):
            atheris = importlib.import_module("atheris")
    if atheris is None:
        return blindly(options.target, options.seconds, options.seed)
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = importlib.import_module("tests.fuzz.targets")
    run, seeds = targets.TARGETS[options.target]
    corpus = WORK / "corpus" / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in (*seeds(), *targets.found(options.target)):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    arguments = [
        sys.argv[0], str(corpus), f"-max_total_time={options.seconds}", f"-max_len={targets.MAX_INPUT}",
        f"-artifact_prefix={WORK}/{options.target}-", "-timeout=20", "-rss_limit_mb=2048", "-verbosity=1",
    ]  # fmt: skip
    if options.seed:
        arguments.append(f"-seed={options.seed}")
    atheris.Setup(arguments, run)
    atheris.Fuzz()
    return 0


def blindly(target: str, seconds: float, seed: int) -> int:
    from tests.fuzz.blind import Finding, mutate

    WORK.mkdir(exist_ok=True)
    seed = seed or random.randrange(2**31)
    deadline = time.monotonic() + seconds
    try:
        count = mutate(target, seed, lambda _: time.monotonic() < deadline)
    except Finding as exc:
        path = WORK / f"{target}-{hashlib.sha256(exc.data).hexdigest()[:16]}"
        path.write_bytes(exc.data)
        print(f"seed {seed}: {exc.data!r}, written to {path}")
        raise
    print(f"{target}: {count} inputs, seed {seed}, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
