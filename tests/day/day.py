"""Everything that an operator does to a service in its life, while clients ask it without a pause.

Each answer carries a checksum of what was asked (tests/soak), so that "answered" means "answered right". When the
clients pause, what they have counted is compared with everything that shows it: the scoreboard behind /status.json and
the page, /metrics, `uvicornctl top`, and the lines of the access log over all rotated files.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.browser import CHROMIUM, Browser
from tests.e2e.harness import wait_for
from tests.e2e.test_control import Controlled
from tests.soak.clients import Client
from tests.soak.disturbances import Disturbances, workers
from tests.soak.ledger import Ledger

WORKERS = 2
NUMBERS = {"kept": 5, "fresh": 2, "pipelined": 1, "upload": 1, "stream": 3}
CONFIG = "day.yaml"
SETTINGS = """
app: {module}:app
workers: 2
log_config: log.yaml
limit_worker_memory: {limit}M
worker_memory_interval: 1s
timeout_graceful_shutdown: 30s
"""
LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters:
  plain: {format: '%(message)s'}
handlers:
  server: {class: logging.StreamHandler, formatter: plain}
  access: {class: logging.FileHandler, filename: logs/access.log, formatter: plain}
loggers:
  uvicorn: {handlers: [server], level: INFO, propagate: false}
  uvicorn.access: {handlers: [access], level: INFO, propagate: false}
"""
TOTAL = re.compile(r'^uvicorn_responses_total\{status="2xx"\} ([0-9.e+]+)$', re.MULTILINE)
# More than one: each of them begins with the state that the one before has handed over.
UPGRADES = 3


def total(ledger: Ledger) -> int:
    """How many requests were answered right."""
    return sum(ledger.answered.values())


@dataclass
class Agreement:
    """What the clients have counted, and what each place shows that an operator looks at."""

    when: str
    clients: int
    shown: dict[str, int]
    # What was in flight on a killed worker it may have counted.
    lost: int = 0

    @property
    def holds(self) -> bool:
        return all(0 <= value - self.clients <= self.lost for value in self.shown.values())

    def __str__(self) -> str:
        places = ", ".join(f"{name} {value}" for name, value in self.shown.items())
        apart = f" (with up to {self.lost} lost ones)" if self.lost else ""
        return f"{self.when}: clients {self.clients}; {places}{apart}: {'agree' if self.holds else 'DIFFER'}"


@dataclass
class Diary:
    """What happened."""

    ledger: Ledger = field(default_factory=Ledger)
    steps: list[str] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    log: str = ""

    def problems(self) -> list[str]:
        return [
            *self.wrong,
            *self.ledger.problems(),
            *(str(each) for each in self.agreements if not each.holds),
        ]

    def __str__(self) -> str:
        lost = sum(self.ledger.lost.values()) + sum(self.ledger.stale.values())
        lines = [*self.steps, "", *(str(each) for each in self.agreements), ""]
        lines.append(
            f"{total(self.ledger)} requests answered right ({dict(self.ledger.answered)}), "
            f"{len(self.ledger.failures)} failed, {lost} ended with the killed worker, {len(self.ledger.wrong)} wrong."
        )
        return "\n".join([*lines, *self.problems()])


class Day:
    """One service, and what is done to it.

    Args:
        directory: Where it runs.
        pause: Seconds of load before each step.
    """

    def __init__(self, directory: Path, pause: float) -> None:
        self.directory = directory
        self.pause = pause
        self.diary = Diary()
        (directory / "logs").mkdir()
        (directory / "log.yaml").write_text(LOG_CONFIG)
        (directory / "empty.py").write_text("this is no Python\n")
        self.configure()

    def configure(self, module: str = "tests.day.app", limit: int = 4000) -> None:
        (self.directory / CONFIG).write_text(SETTINGS.format(module=module, limit=limit))

    async def run(self) -> Diary:
        with Controlled(self.directory, "--config", CONFIG, app="") as service:
            self.service = service
            await asyncio.to_thread(service.wait_ready, WORKERS)
            self.note("started", f"{WORKERS} workers")
            async with self.clients():
                await self.steps()
            await self.compare("before the kill")
            async with self.clients():
                await self.kill()
            await self.compare("after it")
            await self.end()
            self.diary.log = service.log
        return self.diary

    def note(self, step: str, outcome: str) -> None:
        self.diary.steps.append(f"{step:24} {outcome}; {total(self.diary.ledger)} answers so far")

    @contextlib.asynccontextmanager
    async def clients(self) -> Any:
        ends = asyncio.Event()
        kinds = [kind for kind, number in NUMBERS.items() for _ in range(number)]
        async with asyncio.TaskGroup() as group:
            for i, kind in enumerate(kinds):
                rng = random.Random(f"{kind}/{i}")
                client = Client(kind, self.service.port, self.diary.ledger, rng, ends)
                group.create_task(client.run())
            try:
                yield
            finally:
                ends.set()

    async def ctl(self, step: str, *arguments: str, code: int = 0) -> None:
        """A command of uvicornctl, under load before and after."""
        await asyncio.sleep(self.pause)
        found, text = await asyncio.to_thread(self.service.ctl, *arguments)
        if found != code:
            self.diary.wrong.append(f"{step}: exit code {found}, not {code}: {text}")
        self.note(step, text.strip().splitlines()[0] if text.strip() else f"exit code {found}")

    # --- the steps ---------------------------------------------------------------------------

    async def steps(self) -> None:
        await self.ctl("reload, good", "reload")
        self.configure(module="empty")
        await self.ctl("reload, broken code", "reload", code=1)
        self.configure(limit=-1)
        await self.ctl("reload, broken file", "reload", code=1)
        self.configure()
        await self.ctl("scale up", "scale", "4")
        await self.ctl("scale down", "scale", str(WORKERS))
        await self.recycle()
        await self.rotate()
        for _ in range(UPGRADES):
            await self.ctl("upgrade", "upgrade")
        await asyncio.sleep(self.pause)

    async def recycle(self) -> None:
        """A worker whose memory grows is replaced."""
        usual = max(psutil.Process(pid).memory_info().rss for pid in workers(self.service)) >> 20
        self.configure(limit=usual + 60)
        await self.ctl("reload, with a limit", "reload")
        await asyncio.to_thread(self.service.request, "/hold?0.150")
        self.diary.ledger.good("hold", 0.0)
        found = await asyncio.to_thread(
            self.service.wait_log, r"is to be replaced: (limit_worker_memory: .*)"
        )
        await asyncio.to_thread(self.wait_settled)
        self.note("recycle by memory", found[1])
        self.configure()

    def wait_settled(self) -> None:
        def settled() -> bool:
            status = self.service.status()
            states = [worker["state"] for worker in status["workers"]]
            return states == ["ready"] * WORKERS

        wait_for(settled, "a service at rest")

    async def rotate(self) -> None:
        """As logrotate does it: rename, then tell."""
        log = self.directory / "logs" / "access.log"
        for i in (1, 2):
            log.rename(log.with_suffix(f".{i}"))
            await self.ctl("log rotation", "reopen-logs")

    async def kill(self) -> None:
        await asyncio.sleep(self.pause)
        control = self.directory / "c.sock"
        disturbances = Disturbances(self.service, control, self.diary.ledger, random.Random(1), 0)
        wait_for(disturbances.kill, "a worker to kill")
        await asyncio.to_thread(self.service.wait_log, r"signal 9|SIGKILL")
        await asyncio.to_thread(self.wait_settled)
        await asyncio.sleep(self.pause)
        self.note("kill -9", f"{len(self.diary.ledger.kills[0].ports)} connections were its own")

    async def end(self) -> None:
        """Drain and stop, with requests in flight."""
        ends = asyncio.Event()
        ends.set()
        streams = [
            Client("stream", self.service.port, self.diary.ledger, random.Random(i), ends) for i in range(6)
        ]
        wires = [wire for client in streams if (wire := await client.open()) is not None]
        before = total(self.diary.ledger)
        asked = [
            asyncio.create_task(client.ask(wire, client.target("/stream", 400)))
            for client, wire in zip(streams, wires, strict=True)
        ]
        await asyncio.to_thread(
            wait_for, lambda: self.service.seen()["in_flight"] == len(asked), "streams that run"
        )
        await self.ctl("drain and stop", "stop")
        await asyncio.gather(*asked)
        for wire in wires:
            wire.close()
        if total(self.diary.ledger) - before != len(streams):
            self.diary.wrong.append("a stream in flight was cut by the stop")
        code = await asyncio.to_thread(self.service.wait_exit)
        left = self.service.session()
        if code or left:
            self.diary.wrong.append(f"it ended with {code}, and left {left}")
        self.note("ended", f"exit code {code}, {len(left)} processes left")

    # --- what is shown -----------------------------------------------------------------------

    async def compare(self, when: str) -> None:
        """While nobody asks, all that is shown has to be what the clients have counted."""
        ledger = self.diary.ledger
        agreement = Agreement(when, total(ledger), {}, sum(ledger.lost.values()))
        looks: dict[str, Callable[[], int]] = {
            "status.json": lambda: self.service.seen()["responses"]["2xx"],
            "metrics": lambda: int(float(TOTAL.findall(self.service.admin("/metrics")[1])[0])),
            "top": lambda: int(re.findall(r"2xx (\d+)", self.service.ctl("top", "--count", "1")[1])[0]),
            "access log": self.lines,
        }
        if CHROMIUM is not None:
            looks["page"] = self.page
        await asyncio.to_thread(
            wait_for, lambda: self.service.seen()["in_flight"] == 0, "the last requests' end"
        )
        for name, look in looks.items():
            agreement.shown[name] = await asyncio.to_thread(self.settled, look, agreement.clients)
        self.diary.agreements.append(agreement)

    @staticmethod
    def settled(look: Callable[[], int], wanted: int) -> int:
        """What is shown when it has caught up: a number is written down a moment after what it counts."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: look() == wanted, "agreement", 5)
        return look()

    def lines(self) -> int:
        files = (self.directory / "logs").iterdir()
        return sum(path.read_text().count(' HTTP/1.1" 200') for path in files)

    def page(self) -> int:
        with Browser() as browser, browser.open(f"http://127.0.0.1:{self.service.admin_port}/") as page:
            found = "document.body.innerText.match(/responses 2xx\\s+([\\d,]+)/)"
            page.wait_for(found)
            return int(page.evaluate(f"{found}[1].replaceAll(',', '')"))


async def day(directory: Path, pause: float) -> Diary:
    """A whole day; `pause` seconds of load between any two steps."""
    return await Day(directory, pause).run()
