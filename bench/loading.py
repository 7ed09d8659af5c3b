"""Runs one load against a port, by wrk where that is installed and can, by our own client otherwise."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.environments import ROOT
from bench.scenarios import Load

SCRIPT = Path(__file__).with_name("wrk.lua")
WRK = shutil.which("wrk")
# Loads end by themselves; this is for one that does not.
GRACE = 20.0


def run_load(load: Load, port: int, seconds: int, tls: bool = False) -> dict[str, Any]:
    """What wrk.lua prints: requests, seconds, bytes, latencies in milliseconds, failures by kind."""
    command = wrk(load, port, seconds, tls) if WRK and load.kind == "http" else own(load, port, seconds, tls)
    return finished(command, seconds)


def finished(command: list[str], seconds: int) -> dict[str, Any]:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + GRACE
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{command[0]} has ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    result = json.loads(lines[-1])
    result["failures"] = {kind: count for kind, count in result["failures"].items() if count}
    return dict(result)


def own_load(load: Load, port: int, seconds: int) -> dict[str, Any]:
    """By our client in any case, which tells apart what fails how."""
    return finished(own(load, port, seconds, False), seconds)


def wrk(load: Load, port: int, seconds: int, tls: bool) -> list[str]:
    assert WRK
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{load.path}"
    headers = [*load.headers, *(["Connection: close"] if load.close else [])]
    line = [WRK, "--threads", "1", "--connections", str(load.connections), "--duration", f"{seconds}s"]
    line += ["--timeout", "5s", "--script", str(SCRIPT), url, "--"]
    return [*line, load.method, str(load.body), str(load.pipeline), load.vary, *headers]


def own(load: Load, port: int, seconds: int, tls: bool) -> list[str]:
    task = {"port": port, "seconds": seconds, "tls": tls, "load": dataclasses.asdict(load)}
    return [sys.executable, "-m", "bench.client", json.dumps(task)]
