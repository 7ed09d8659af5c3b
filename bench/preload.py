"""What `preload` saves: memory of the whole tree of processes (PSS) and time until all workers serve, on this machine.

    python -m bench.preload [--workers 8] [--rounds 3] [--venvs DIR]

The application is FastAPI with 60 models, numpy, and a dictionary of 50,000 entries. Beside this server, with and without
preload, run `gunicorn --preload` with uvicorn's worker and uvicorn 0.54. Each side has a virtual environment of its own in
DIR (default: .venv-bench), made at the first run from the package index.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.environments import ROOT, VENVS, environment
from bench.running import free_port

PATIENCE = 120.0

APP = """
import os, time
from contextlib import asynccontextmanager
import numpy
from fastapi import FastAPI
from pydantic import create_model

TABLE = {f"key {i}": {"number": i, "text": f"text {i}"} for i in range(50_000)}
MATRIX = numpy.ones((256, 1024))
MODELS = [create_model(f"Model{i}", **{f"field_{j}": (int, j) for j in range(8)}) for i in range(60)]

def note(name):
    with open(f"{name}-{os.getpid()}", "w") as file:
        file.write(repr(time.monotonic()))

@asynccontextmanager
async def lifespan(app):
    note("ready")
    yield

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def root():
    return {"sum": float(MATRIX[0].sum()), "entry": TABLE["key 7"]}

for model in MODELS:
    def handler(body: model):
        return body
    app.post(f"/{model.__name__}")(handler)
note("imported")
"""


@dataclass(frozen=True)
class Result:
    """One run: PSS of the tree in bytes when all serve, and after some requests; seconds from the start, and from the end
    of the first import, until all serve."""

    fresh: int
    warm: int
    all_ready: float
    after_import: float


def times(directory: Path, name: str) -> list[float]:
    found = []
    for path in directory.glob(f"{name}-*"):
        with contextlib.suppress(ValueError):  # it is being written
            found.append(float(path.read_text()))
    return sorted(found)


def measure(command: Sequence[str], workers: int, port: int) -> Result:
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        (directory / "app.py").write_text(APP)
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("UVICORN_", "PYTHONPATH"))
        }
        log = (directory / "log").open("wb")
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=directory, env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = began + PATIENCE
            while len(ready := times(directory, "ready")) < workers:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(
                        f"{' '.join(command)} does not start:\n{(directory / 'log').read_text()}"
                    )
                time.sleep(0.01)
            time.sleep(0.5)  # for whoever tidies up after its start
            fresh = pss_of_tree(process.pid)
            warm_up(port, workers)
            warm = pss_of_tree(process.pid)
            return Result(
                fresh, warm, ready[workers - 1] - began, ready[workers - 1] - times(directory, "imported")[0]
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE)
            log.close()


def pss_of_tree(pid: int) -> int:
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(int(each.memory_full_info().pss) for each in tree)


def warm_up(port: int, workers: int) -> None:
    """Some requests to every worker, more or less: each on a connection of its own, several at the same time."""
    for _ in range(20):
        connections = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE) for _ in range(2 * workers)
        ]
        for connection in connections:
            connection.request("GET", "/")
        for connection in connections:
            assert connection.getresponse().read()
            connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venvs", type=Path, default=VENVS)
    options = parser.parse_args()
    heavy = ("fastapi", "numpy", "httptools", "uvloop", "websockets")
    own = environment("own", [*heavy, "--editable", str(ROOT)], options.venvs.absolute())
    peers = environment(
        "peers", [*heavy, "uvicorn==0.54.0", "gunicorn", "uvicorn-worker"], options.venvs.absolute()
    )
    port = free_port()
    ours = [str(own), "-m", "uvicorn", "app:app", "--port", str(port), "--no-access-log"]
    many = ["--workers", str(options.workers)]
    gunicorn = ["-m", "gunicorn", "app:app", "--bind", f"127.0.0.1:{port}", *many]
    gunicorn += ["--worker-class", "uvicorn_worker.UvicornWorker"]
    commands = {
        "this server": [*ours, *many],
        "this server, preload": [*ours, *many, "--preload"],
        "gunicorn": [str(peers), *gunicorn],
        "gunicorn, preload": [str(peers), *gunicorn, "--preload"],
        "uvicorn 0.54": [
            str(peers),
            "-m",
            "uvicorn",
            "app:app",
            "--port",
            str(port),
            "--no-access-log",
            *many,
        ],
    }
    results: dict[str, list[Result]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            results[name].append(measure(command, options.workers, port))
    print(
        f"FastAPI, 60 models, numpy, 50,000 entries; {options.workers} workers; median of {options.rounds}.\n"
    )
    print(
        "| server | PSS, all ready | share | after requests | share | start to all ready | import to all ready |"
    )
    print("|---|---|---|---|---|---|---|")
    without = results["this server"]
    for name, runs in results.items():
        cells = [name]
        for kind in ("fresh", "warm"):
            pss = median(runs, kind)
            cells += [f"{pss / 1e6:.0f} MB", f"{pss / median(without, kind):.3f}"]
        cells += [f"{median(runs, 'all_ready'):.2f} s", f"{median(runs, 'after_import'):.2f} s"]
        print("|", " | ".join(cells), "|")


def median(runs: list[Result], kind: str) -> float:
    return statistics.median(getattr(each, kind) for each in runs)


if __name__ == "__main__":
    main()
