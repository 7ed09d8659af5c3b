"""What the master has said last, and asking it for something: the control process's side of the channel."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable

from uvicorn._ipc.control import Answer, Command, ControlEnd, Snapshot, Verb
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn.control.memory import Memory
from uvicorn.control.view import Status, status_of


class Unanswered(Exception):
    """The master has given no answer; the text says why."""


class Master:
    """The master as the control process sees it.

    Args:
        end: The channel.
        scoreboard: Shared memory.
        on_gone: Called once when the master has closed the channel.
    """

    def __init__(self, end: ControlEnd, scoreboard: Scoreboard, on_gone: Callable[[], None]) -> None:
        self._end = end
        self._scoreboard = scoreboard
        self._on_gone = on_gone
        self._snapshot: Snapshot | None = None
        # The master may still owe answers to the process before this one, which would be taken for ours if both
        # counted from 1. 32 bits are sent.
        self._numbers = itertools.count(random.randrange(1, 2**31))  # noqa: S311 - no secret
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._gone = False
        self._memory = Memory()
        # Set when the master has said something, or is gone.
        self.heard = asyncio.Event()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._end.sock.fileno(), self._readable, loop)

    def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        found, is_open = self._end.receive()
        for each in found:
            if isinstance(each, Snapshot):
                self._snapshot = each
                self.heard.set()
                continue
            waiter = self._waiting.pop(each.number, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(each)
        if not is_open:
            self._gone = True
            self.heard.set()
            loop.remove_reader(self._end.sock.fileno())
            for waiter in self._waiting.values():
                if not waiter.done():
                    waiter.set_exception(Unanswered("The master has ended."))
            self._waiting.clear()
            self._on_gone()

    def status(self) -> Status | None:
        """How things are now; None before the master has said anything."""
        if self._snapshot is None:
            return None
        pss = self._memory.look(worker.pid for worker in self._snapshot.workers)
        return status_of(self._snapshot, self._scoreboard.rows(), time.monotonic(), pss)

    async def ask(self, verb: Verb, argument: int, limit: float) -> Answer:
        """Ask for something and wait for its outcome.

        Raises:
            Unanswered: There is none within the limit, in seconds.
        """
        number = next(self._numbers)
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        try:
            if self._gone or not self._end.send(Command(verb, number, argument)):
                raise Unanswered("The master takes no commands now.")
            return await asyncio.wait_for(waiter, limit)
        except TimeoutError:
            raise Unanswered(f"There is no outcome after {limit:g} s; the log will have it.") from None
        finally:
            self._waiting.pop(number, None)
