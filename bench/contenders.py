"""Who is compared: how each is installed, started, and what it cannot do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.environments import environment, versions

APPS = Path(__file__).parent / "apps"
FRAMEWORKS = ("fastapi",)


@dataclass(frozen=True)
class Launch:
    """How a scenario wants its server: every contender makes the same of it, in its own options.

    Attributes:
        python: The contender's interpreter.
        app: The import string, of a module in `apps`.
        port: Of the loopback address.
        workers: How many.
        access_log: The file that one line goes to for each request, or None.
        tls: The certificate's and the key's files, or None.
        limit_max_requests: After how many requests a worker is replaced, or 0.
        keep_alive: For how many seconds a connection may wait for its next request; 0 for the contender's default.
    """

    python: Path
    app: str
    port: int
    workers: int = 1
    access_log: Path | None = None
    tls: tuple[Path, Path] | None = None
    limit_max_requests: int = 0
    keep_alive: int = 0


@dataclass(frozen=True)
class Contender:
    """One server.

    Attributes:
        name: For the command line and in samples.
        title: For people.
        packages: What its environment has; none, and it runs in this one.
        command: The command line for a launch.
        cannot: Names of scenarios, or of what scenarios need, that make no sense with it.
        tells_start_up: Whether it runs applications, whose start-up is seen in its log.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    command: Callable[[Launch], list[str]]
    cannot: frozenset[str] = frozenset()
    tells_start_up: bool = True

    def python(self) -> Path:
        return environment(self.name, self.packages) if self.packages else Path(sys.executable)

    def versions(self) -> dict[str, str]:
        names = [package.partition("[")[0] for package in self.packages]
        return versions(self.python(), sorted({"uvicorn", "uvloop", "httptools", *names}))


def uvicorn(launch: Launch) -> list[str]:
    command = [str(launch.python), "-m", "uvicorn", launch.app, "--port", str(launch.port)]
    command += ["--timeout-keep-alive", str(launch.keep_alive)] if launch.keep_alive else []
    command += ["--workers", str(launch.workers)] if launch.workers > 1 else []
    command += [] if launch.access_log else ["--no-access-log"]
    if launch.tls:
        command += ["--ssl-certfile", str(launch.tls[0]), "--ssl-keyfile", str(launch.tls[1])]
    if launch.limit_max_requests:
        command += ["--limit-max-requests", str(launch.limit_max_requests)]
    return command


def granian(launch: Launch) -> list[str]:
    # Its default serves only so many connections at a time; the next ones hang.
    command = [str(launch.python), "-m", "granian", "--interface", "asgi", "--loop", "uvloop"]
    command += ["--port", str(launch.port), "--workers", str(launch.workers)]
    command += ["--backlog", "16384", "--backpressure", "8192"]
    command += ["--access-log"] if launch.access_log else []
    if launch.tls:
        command += ["--ssl-certificate", str(launch.tls[0]), "--ssl-keyfile", str(launch.tls[1])]
    return [*command, launch.app]


def gunicorn(worker_class: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        line = [str(launch.python), "-m", "gunicorn", launch.app, "--bind", f"127.0.0.1:{launch.port}"]
        line += ["--worker-class", worker_class, "--workers", str(launch.workers)]
        line += ["--worker-connections", "8192"]
        line += ["--keep-alive", str(launch.keep_alive)] if launch.keep_alive else []
        line += ["--access-logfile", str(launch.access_log)] if launch.access_log else []
        if launch.tls:
            line += ["--certfile", str(launch.tls[0]), "--keyfile", str(launch.tls[1])]
        if launch.limit_max_requests:
            line += ["--max-requests", str(launch.limit_max_requests)]
        return line

    return command


def hypercorn(launch: Launch) -> list[str]:
    command = [str(launch.python), "-m", "hypercorn", launch.app, "--bind", f"127.0.0.1:{launch.port}"]
    command += ["--worker-class", "uvloop", "--workers", str(launch.workers)]
    command += ["--keep-alive", str(launch.keep_alive)] if launch.keep_alive else []
    command += ["--access-logfile", str(launch.access_log)] if launch.access_log else []
    if launch.tls:
        command += ["--certfile", str(launch.tls[0]), "--keyfile", str(launch.tls[1])]
    if launch.limit_max_requests:
        command += ["--max-requests", str(launch.limit_max_requests)]
    return command


def floor(*arguments: str) -> Callable[[Launch], list[str]]:
    return lambda launch: [
        *(str(launch.python), str(APPS / "floor.py"), str(launch.port), str(launch.workers)),
        *arguments,
    ]


# Everything but a GET that is answered at once, and echoing WebSocket messages.
FLOOR_CANNOT = frozenset(
    {"starlette", "fastapi", "access-log", "post-1k", "post-64k", "upload", "download", "deflate", "tls"}
    | {"workers"}
)

CONTENDERS = {
    each.name: each
    for each in (
        Contender("ours", "this server", (), uvicorn),
        Contender("uvicorn", "uvicorn", ("uvicorn[standard]", *FRAMEWORKS), uvicorn),
        Contender(
            "granian", "granian", ("granian[uvloop]", *FRAMEWORKS), granian, frozenset({"recycle", "deflate"})
        ),
        Contender(
            "gunicorn",
            "gunicorn, its asgi worker",
            ("gunicorn", "uvloop", "httptools", *FRAMEWORKS),
            gunicorn("asgi"),
            frozenset({"deflate"}),
        ),
        Contender(
            "gunicorn-uvicorn",
            "gunicorn, the uvicorn worker",
            ("gunicorn", "uvicorn-worker", "uvicorn[standard]", *FRAMEWORKS),
            gunicorn("uvicorn_worker.UvicornWorker"),
        ),
        Contender(
            "hypercorn", "hypercorn", ("hypercorn", "uvloop", *FRAMEWORKS), hypercorn, frozenset({"reload"})
        ),
        Contender(
            "floor", "floor: read, write", (), floor(), FLOOR_CANNOT | {"pipelining", "connections"}, False
        ),
        Contender("floor-parse", "floor: parsing as well", (), floor("parse"), FLOOR_CANNOT, False),
    )
}
