"""An event loop of which only tasks and timers are used, run by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any


class FakeTask:
    def add_done_callback(self, callback: Callable[..., Any]) -> None:
        pass

    def cancel(self, msg: object = None) -> bool:
        return True


class FakeTimer:
    def __init__(self, delay: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.delay = delay
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Has create_task(coroutine) and call_later(delay, callback, *args), and nothing else."""

    def __init__(self) -> None:
        self.coroutines: list[Coroutine[Any, Any, None]] = []
        self.timers: list[FakeTimer] = []

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> FakeTask:
        self.coroutines.append(coroutine)
        return FakeTask()

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> FakeTimer:
        timer = FakeTimer(delay, callback, args)
        self.timers.append(timer)
        return timer

    async def run_one(self) -> None:
        """Run the oldest coroutine to its end."""
        await self.coroutines.pop(0)

    async def run_all(self) -> None:
        """Run coroutines, and those that they bring about, until there are none."""
        while self.coroutines:
            await self.run_one()

    def run_timers(self, until: float) -> None:
        """Run the timers that are due by then."""
        due = [timer for timer in self.timers if timer.delay <= until and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.callback(*timer.args)
