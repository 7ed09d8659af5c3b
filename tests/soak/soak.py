"""One soak: a service, its clients, three parts (undisturbed, disturbed, and with upgrades), and its end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import time
from pathlib import Path

import psutil

from tests.e2e.harness import Service, wait_for
from tests.soak.clients import NUMBERS, Client
from tests.soak.disturbances import USUAL, WITH_UPGRADES, Disturbances, workers
from tests.soak.overload import crowd, overload
from tests.soak.report import Report, Tolerance
from tests.soak.vitals import opened, sample

WORKERS = 3
CONFIG = "soak.yaml"
CONTROL = "soak.ctl"
SETTINGS = f"""
app: tests.soak.app:app
port: 0
workers: {WORKERS}
access_log: false
timeout_graceful_shutdown: 20s
# More are killed here in a minute than any service that is to go on should lose.
limit_restarts: 1000
control_socket: {CONTROL}
"""
# Workers that are replaced all the time; without these lines they live as long as the service.
RECYCLING = """
limit_max_requests: 200
limit_max_requests_jitter: 200
"""
# The shares of the time that the parts have; the rest is for upgrades.
UNDISTURBED, DISTURBED = 0.25, 0.6
# What is warming up belongs to no third.
WARM_UP = 0.15
COMPLETE = re.compile(r"Reload complete: generation (\d+) ")


class Soak:
    """What a run consists of.

    Args:
        directory: Where the service runs.
        report: Where everything is entered; it has seed and seconds.
        gap: The longest time between two disturbances, in seconds.
        arguments: More of the service's command line.
    """

    def __init__(self, directory: Path, report: Report, gap: float, arguments: tuple[str, ...]) -> None:
        self.directory = directory
        self.report = report
        self.gap = gap
        self.arguments = arguments
        self.ends = asyncio.Event()

    async def run(self) -> None:
        (self.directory / CONFIG).write_text(SETTINGS)
        with Service(self.directory, "--config", CONFIG, *self.arguments, app="") as service:
            await asyncio.to_thread(service.wait_ready, WORKERS)
            before = [opened(pid) for pid in workers(service)]
            async with asyncio.TaskGroup() as group:
                for client in self._clients(service.port):
                    group.create_task(client.run())
                try:
                    await self._parts(service)
                    await self._come_to_rest(service)
                except (AssertionError, psutil.NoSuchProcess) as exc:
                    self.report.broken = str(exc)
                finally:
                    self.ends.set()
            self.report.descriptors = (before, await asyncio.to_thread(self._descriptors, service, before))
            self.report.code = await asyncio.to_thread(self._end, service)
            self.report.left = service.session()
            self.report.log = service.log

    def _clients(self, port: int) -> list[Client]:
        return [
            Client(kind, port, self.report.ledger, random.Random(f"{self.report.seed}/{kind}/{i}"), self.ends)
            for kind, number in NUMBERS.items()
            for i in range(number)
        ]

    async def _parts(self, service: Service) -> None:
        rng = random.Random(f"{self.report.seed}/disturbances")
        disturbances = Disturbances(service, self.directory / CONTROL, self.report.ledger, rng, self.gap)
        self.report.done = disturbances.done
        began, seconds = time.monotonic(), self.report.seconds
        await self._part(service, "undisturbed", began + UNDISTURBED * seconds)
        (self.directory / CONFIG).write_text(SETTINGS + RECYCLING)
        disturbances.reload()
        until = began + (UNDISTURBED + DISTURBED) * seconds
        await asyncio.gather(self._part(service, "disturbed", until), disturbances.go_on(until, USUAL))
        await disturbances.go_on(began + seconds, WITH_UPGRADES)

    async def _part(self, service: Service, name: str, until: float) -> None:
        """Look once a second (in a short run more often) until a part is over."""
        step = min(1.0, self.report.seconds / 100)
        await asyncio.sleep((until - time.monotonic()) * WARM_UP)
        samples = self.report.parts.setdefault(name, [])
        while time.monotonic() < until:
            samples.append(sample(service.pid, workers(service)))
            await asyncio.sleep(step)

    async def _come_to_rest(self, service: Service) -> None:
        """A reload brings the configured number of workers, all of one generation."""

        def generation() -> int:
            return max((int(number) for number in COMPLETE.findall(service.log)), default=0)

        def rests(size: int | None = None) -> bool:
            titles = [title for title in service.workers().values() if "worker" in title]
            return len(titles) == (size or len(titles)) and all(title.endswith(" ready") for title in titles)

        def tries() -> bool:
            log = service.log
            ended = log.count("the new program starts; taking its place") + log.count("Upgrade failed")
            return log.count("trying the new program") > ended

        def wait() -> None:
            wait_for(lambda: not tries(), "the end of the last upgrade's trial", 180)
            wait_for(rests, "a service at rest before the last reload", 180)
            last = generation()
            service.send_signal(signal.SIGHUP)
            wait_for(lambda: generation() > last, "the last reload", 180)
            wait_for(lambda: rests(WORKERS), "a service at rest", 180)

        await asyncio.to_thread(wait)

    def _descriptors(self, service: Service, before: list[int]) -> list[int]:
        """What the workers have once the last connection is gone."""

        def found() -> list[int]:
            return [opened(pid) for pid in workers(service)]

        with contextlib.suppress(AssertionError):  # the report tells
            wait_for(lambda: max(found(), default=0) <= max(before), "as few descriptors as before")
        return found()

    @staticmethod
    def _end(service: Service) -> int:
        with contextlib.suppress(ProcessLookupError):
            service.send_signal(signal.SIGTERM)
        code = service.wait_exit(60)
        with contextlib.suppress(AssertionError):  # the report tells
            wait_for(lambda: not service.session(), "the end of every process of the session", 10)
        return code


async def soak(
    directory: Path,
    seconds: float,
    seed: int,
    tolerance: Tolerance,
    gap: float,
    arguments: tuple[str, ...] = (),
) -> Report:
    """Run all of it, and then the overload."""
    report = Report(seed, seconds, tolerance)
    await Soak(directory, report, gap, arguments).run()
    report.overload = await overload(directory, max(5.0, min(60.0, seconds / 10)), seed, arguments)
    report.crowd = await crowd(directory, seed, arguments)
    return report
