"""One task for the requests that begin in one turn of the event loop.

A task costs 1 to 2 us on Python 3.11, a quarter of what a small request takes in the process: the object, its place in
`asyncio.all_tasks`, a handle, a context. Where requests come together, as they do under load, the first one's task
answers them all, one after the other, as long as nobody can tell: as soon as an application waits, or has left a trace
on the task or in its context, those behind it get tasks of their own. So a task never has two requests at a time, and
what one request has set is never seen by the next one. A request that comes alone has a task of its own.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols._state import ServerState

if TYPE_CHECKING:
    from uvicorn.protocols.http._cycle import RequestCycle

# After an application has waited or left a trace, so many requests get tasks of their own: where it does so each time,
# those behind it would begin two turns late each time.
APART = 200
# After turns with one request, at most so many: where they come one by one, there is nothing to share.
ALONE = 16


class TurnTasks:
    """Begins requests.

    Args:
        loop: The event loop.
        state: What the connections of the server share.
        context: What each task gets a copy of.
    """

    __slots__ = ("_alone", "_apart", "_coming", "_context", "_loop", "_state", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, state: ServerState, context: Context) -> None:
        self._loop = loop
        self._state = state
        self._context = context
        # How many requests are still to get tasks of their own, and how many are to after the next one that comes alone.
        self._apart = 0
        self._alone = 1
        # The requests of this turn, while the task that will answer them has not begun.
        self._coming: list[RequestCycle] | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, cycle: RequestCycle) -> None:
        """Have the application called for a request in the next turn of the event loop."""
        coming = self._coming
        if coming is not None and not self._task.cancelling():  # type: ignore[union-attr]
            coming.append(cycle)
        elif self._apart:
            self._apart -= 1
            self.begin_apart(cycle)
        else:
            coming = self._coming = [cycle]
            context = self._context.copy()
            self._task = asyncio.Task(self._answer(coming, context), loop=self._loop, context=context)
            self._state.tasks.add(self._task)

    def begin_apart(self, cycle: RequestCycle) -> None:
        """The same, with a task of its own."""
        task = cycle.task = asyncio.Task(cycle.run(), loop=self._loop, context=self._context.copy())
        self._state.tasks.add(task)

    async def _answer(self, cycles: list[RequestCycle], context: Context) -> None:
        """The task of a turn."""
        task, self._task = self._task, None
        self._coming = None
        try:
            if len(cycles) == 1:
                self._apart = self._alone
                self._alone = min(2 * self._alone, ALONE)
                await cycles.pop().run()
            else:
                self._alone = 1
                await self._answer_all(cycles, context, task)
        finally:
            state = self._state
            state.tasks.discard(task)
            if state.on_emptied is not None:
                state.look_whether_empty()

    async def _answer_all(self, cycles: list[RequestCycle], context: Context, task: Any) -> None:
        untouched = self._context
        self._loop.call_soon(partial(self._look, cycles), context=untouched)
        cycles.reverse()
        traces = _traces(task)
        state = self._state
        if state.measured:
            state.begin_together(cycles[-1].started_at)
        while True:
            await cycles.pop().run()
            if not cycles:
                break
            # Two contexts that share all they hold are compared by that, in no time.
            if context != untouched or _traces(task) != traces:
                self._separate(cycles)
                break
        if state.answered_together:
            state.end_together()

    def _look(self, cycles: list[RequestCycle]) -> None:
        """The turn in which they should all have been answered is over: does an application wait?"""
        self._state.end_together()  # who waits is looked at on its own
        if cycles:
            self._separate(cycles)

    def _separate(self, cycles: list[RequestCycle]) -> None:
        self._apart = APART
        while cycles:
            self.begin_apart(cycles.pop())


def _traces(task: Any) -> tuple[int, int, str, int, list[object]]:
    """What changes where an application keeps the task, names it, cancels it, or wants to know of its end."""
    callbacks = task._callbacks  # noqa: SLF001 - there is no other way to see them
    return (
        sys.getrefcount(task),
        weakref.getweakrefcount(task),
        task.get_name(),
        task.cancelling(),
        list(callbacks) if callbacks else [],
    )
