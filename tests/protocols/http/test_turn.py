"""One task for the requests of a turn, as long as nobody can tell."""

from __future__ import annotations

import asyncio
import time
import weakref
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from uvicorn.protocols._state import DURATIONS, ServerState
from uvicorn.protocols.http import _turn
from uvicorn.protocols.http._cycle import COMPLETE, WAITING, task_begins
from uvicorn.protocols.http._turn import ALONE, APART, BATCH, LEAST, SPELL, UNMEASURED, TurnTasks

Application = Callable[["Request"], Awaitable[None]]

variable: ContextVar[str] = ContextVar("variable", default="untouched")


class Request:
    """Of a cycle, what `TurnTasks` knows of: an application and its arguments, or a task that it runs in, is told of, and
    takes off the list; and a head that may wait."""

    scope = receive = send = None

    def __init__(self, application: Application, state: ServerState) -> None:
        self.application = application
        self.state = state
        self.task: asyncio.Task[None] | None = None
        self.started_at = 0.0
        self.name = ""
        self.ran_in = 0
        self.stage = WAITING
        self.released = 0

    @property
    def complete(self) -> bool:
        return self.stage == COMPLETE

    def begin(self) -> Coroutine[Any, Any, None]:
        answer = self._run()
        answer.send(None)
        return answer

    async def _run(self) -> None:
        try:
            await task_begins()
            await self.app()
        finally:
            self.state.tasks.discard(self.task)  # type: ignore[arg-type]

    async def app(self, *arguments: None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.name = task.get_name()
        self.ran_in = id(task)
        del task
        await self.application(self)
        self.stage = COMPLETE
        if self.started_at == self.state.together:
            self.state.answered_together += 1

    async def failed(self, exc: BaseException) -> None:
        raise exc

    def release_head(self) -> None:
        self.released += 1


class Turns:
    """A server's turns, with requests that only run."""

    def __init__(self) -> None:
        self.state = ServerState()
        self.tasks = TurnTasks(asyncio.get_running_loop(), self.state, copy_context())

    def begin(self, *applications: Application) -> list[Request]:
        requests = [Request(application, self.state) for application in applications]
        for request in requests:
            self.tasks.begin(request)  # type: ignore[arg-type]
        return requests

    async def turn(self, *applications: Application) -> list[Request]:
        """One turn's requests, and the turns that they take."""
        requests = self.begin(*applications)
        for _ in range(4):
            await asyncio.sleep(0)
        return requests

    async def share_again(self) -> None:
        """As many requests as have tasks of their own."""
        while self.tasks._apart:
            self.begin(answer)
        await asyncio.sleep(0)


async def answer(request: Request) -> None:
    pass


async def in_turn(test: Callable[[Turns], Coroutine[Any, Any, None]]) -> None:
    await test(Turns())


def tasks_of(requests: list[Request]) -> list[str]:
    assert all(request.complete for request in requests)
    return [request.name for request in requests]


def run(test: Callable[[Turns], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(in_turn(test))


def test_requests_of_one_turn_share_a_task() -> None:
    async def test(turns: Turns) -> None:
        requests = await turns.turn(answer, answer, answer)
        assert len(set(tasks_of(requests))) == 1
        assert not turns.state.tasks

    run(test)


def test_each_turn_has_a_task_of_its_own() -> None:
    async def test(turns: Turns) -> None:
        first = await turns.turn(answer, answer)
        second = await turns.turn(answer, answer)
        assert len({*tasks_of(first), *tasks_of(second)}) == 2

    run(test)


def test_they_are_answered_in_order() -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []

        def numbered(number: int) -> Application:
            async def application(request: Request) -> None:
                order.append(number)

            return application

        await turns.turn(*map(numbered, range(5)))
        assert order == [0, 1, 2, 3, 4]

    run(test)


def test_no_request_waits_for_one_that_waits() -> None:
    async def test(turns: Turns) -> None:
        gate = asyncio.Event()

        async def waits(request: Request) -> None:
            await gate.wait()

        requests = await turns.turn(answer, waits, answer, waits, answer)
        assert [request.complete for request in requests] == [True, False, True, False, True]
        assert len(turns.state.tasks) == 2
        gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        names = tasks_of(requests)
        assert names[0] == names[1]
        assert len(set(names)) == 4  # none has two requests at a time
        assert not turns.state.tasks

    run(test)


def test_what_a_request_sets_is_not_seen_by_the_next_one() -> None:
    async def test(turns: Turns) -> None:
        seen: list[str] = []

        async def sets(request: Request) -> None:
            seen.append(variable.get())
            variable.set("set")

        await turns.turn(sets, sets, sets)
        await turns.share_again()
        await turns.turn(sets, sets)
        assert seen == ["untouched"] * 5
        assert variable.get() == "untouched"

    run(test)


def test_what_the_server_has_set_is_seen_by_all() -> None:
    async def test(turns: Turns) -> None:
        variable.set("by the server")
        turns = Turns()
        seen: list[str] = []

        async def looks(request: Request) -> None:
            seen.append(variable.get())

        async def waits(request: Request) -> None:
            seen.append(variable.get())
            await asyncio.sleep(0)

        await turns.turn(looks, waits, looks)
        assert seen == ["by the server"] * 3

    run(test)


kept: list[Any] = []


async def keeps_the_task(request: Request) -> None:
    kept.append(asyncio.current_task())


async def refers_to_the_task(request: Request) -> None:
    kept.append(weakref.ref(asyncio.current_task(), lambda _: None))


async def names_the_task(request: Request) -> None:
    asyncio.current_task().set_name("mine")  # type: ignore[union-attr]


async def wants_to_know_of_its_end(request: Request) -> None:
    asyncio.current_task().add_done_callback(kept.append)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "application", [keeps_the_task, refers_to_the_task, names_the_task, wants_to_know_of_its_end]
)
def test_a_task_on_which_something_is_left_has_no_further_request(application: Application) -> None:
    kept.clear()

    async def test(turns: Turns) -> None:
        requests = await turns.turn(answer, application, answer, answer)
        names = tasks_of(requests)
        assert names[0] == names[1]
        assert len(set(names)) == 3
        assert "mine" not in names

    run(test)
    kept.clear()


def test_cancelling_ones_own_task_cancels_no_other_request() -> None:
    async def test(turns: Turns) -> None:
        async def gives_up(request: Request) -> None:
            asyncio.current_task().cancel()  # type: ignore[union-attr]

        async def waits_after_that(request: Request) -> None:
            await gives_up(request)
            await asyncio.sleep(0)

        requests = await turns.turn(gives_up, answer)
        assert len(set(tasks_of(requests))) == 2
        await turns.share_again()
        requests = await turns.turn(waits_after_that, answer, answer)
        assert [request.complete for request in requests] == [False, True, True]
        assert not turns.state.tasks

    run(test)


def test_an_error_in_one_leaves_the_others() -> None:
    async def test(turns: Turns) -> None:
        async def ends_it(request: Request) -> None:
            raise asyncio.CancelledError  # the only one that a cycle lets out

        requests = await turns.turn(answer, ends_it, answer, answer)
        assert [request.complete for request in requests] == [True, False, True, True]
        assert not turns.state.tasks

    run(test)


def test_a_task_that_is_cancelled_before_it_begins_takes_no_more() -> None:
    async def test(turns: Turns) -> None:
        lost = turns.begin(answer)
        for task in list(turns.state.tasks):
            task.cancel()
        requests = await turns.turn(answer, answer)
        assert len(set(tasks_of(requests))) == 1
        assert not lost[0].complete

    run(test)


def test_where_applications_wait_each_has_a_task_of_its_own_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_turn, "APART", 4)

    async def test(turns: Turns) -> None:
        async def waits(request: Request) -> None:
            await asyncio.sleep(0)

        await turns.turn(waits, answer)
        requests = await turns.turn(answer, answer, answer)
        assert len(set(tasks_of(requests))) == 3
        requests = await turns.turn(answer, answer, answer)
        names = tasks_of(requests)
        assert names[0] != names[1] == names[2]

    assert APART > 4
    run(test)


def test_where_they_come_one_by_one_few_look_for_others() -> None:
    async def test(turns: Turns) -> None:
        looked = 0
        for _ in range(10 * ALONE):
            looked += not turns.tasks._apart
            assert tasks_of(await turns.turn(answer))
        assert looked <= 15
        await turns.share_again()
        assert len(set(tasks_of(await turns.turn(answer, answer)))) == 1

    run(test)


def test_the_end_of_the_last_one_is_told() -> None:
    async def test(turns: Turns) -> None:
        told: list[int] = []
        turns.state.on_emptied = lambda: told.append(len(turns.state.tasks))
        await turns.turn(answer, answer)
        assert told
        assert told[-1] == 0

    run(test)


# --- many in one turn -----------------------------------------------------------------------------------


@pytest.fixture
def two_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third request of a turn has the first two answered."""
    assert BATCH > 2
    monkeypatch.setattr(_turn, "BATCH", 2)


async def from_a_callback(turns: Turns, *applications: Application) -> list[Request]:
    """Begin requests as a connection does when it reads: while no task runs. They may be on their way afterwards."""
    read: asyncio.Future[list[Request]] = asyncio.get_running_loop().create_future()

    def reads() -> None:
        try:
            read.set_result(turns.begin(*applications))
        except Exception as exc:  # noqa: BLE001 - raised where it is awaited
            read.set_exception(exc)

    asyncio.get_running_loop().call_soon(reads)
    return await read


def note_begun(turns: Turns, begun: list[Request]) -> None:
    """Have each request in the list before it is begun."""
    begin = turns.tasks.begin

    def noted(request: Request) -> None:
        begun.append(request)
        begin(request)  # type: ignore[arg-type]

    turns.tasks = SimpleNamespace(begin=noted)  # type: ignore[assignment]


async def ended(turns: Turns) -> None:
    while turns.state.tasks:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # callbacks of the last one


@pytest.mark.usefixtures("two_at_most")
def test_of_many_requests_the_first_are_answered_before_more_are_read() -> None:
    async def test(turns: Turns) -> None:
        done: list[list[bool]] = []

        async def looks(request: Request) -> None:
            done.append([other.complete for other in begun])

        begun: list[Request] = []
        note_begun(turns, begun)
        requests = await from_a_callback(turns, looks, looks, looks, looks, looks)
        await ended(turns)
        assert [len(each) for each in done] == [3, 3, 5, 5, 5]
        assert [sum(each) for each in done] == [0, 1, 2, 3, 4]
        assert len(set(tasks_of(requests))) == 1

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_whoever_waits_among_many_goes_on_in_the_task_that_it_has_seen() -> None:
    async def test(turns: Turns) -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        async def waits(request: Request) -> None:
            seen.append(asyncio.current_task())
            variable.set("its own")
            await asyncio.sleep(0)
            answers = loop.create_future()
            loop.call_soon(answers.set_result, 5)
            seen.append(await answers)
            fails = loop.create_future()
            loop.call_soon(fails.set_exception, KeyError("lost"))
            with pytest.raises(KeyError, match="lost"):
                await fails
            seen.append(variable.get())
            seen.append(asyncio.current_task())

        async def looks(request: Request) -> None:
            seen.append(variable.get())

        requests = await from_a_callback(turns, answer, waits, looks, looks)
        assert requests[0].complete
        await ended(turns)
        names = tasks_of(requests)
        assert names[0] == names[1] != names[2]
        assert seen[0] is seen.pop()
        assert seen[1:] == ["untouched", "untouched", 5, "its own"]
        assert variable.get() == "untouched"

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_whoever_waits_among_many_can_be_cancelled() -> None:
    async def test(turns: Turns) -> None:
        caught: list[str] = []

        async def waits(request: Request) -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                caught.append(request.name)
                await asyncio.sleep(0)
                raise

        requests = await from_a_callback(turns, waits, answer, answer)
        await asyncio.sleep(0)
        (task,) = [task for task in turns.state.tasks if task.get_name() == requests[0].name]
        task.cancel()
        await ended(turns)
        assert caught == [requests[0].name]
        assert task.cancelled()
        assert [request.complete for request in requests] == [False, True, True]

    run(test)


@pytest.mark.usefixtures("two_at_most")
@pytest.mark.parametrize("waits_for", ["a future", "a task", "nothing"])
def test_whoever_waits_among_many_can_be_cancelled_before_its_task_has_begun(waits_for: str) -> None:
    async def test(turns: Turns) -> None:
        happened: list[str] = []

        async def child() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0)
                happened.append("child ended")

        running = asyncio.ensure_future(child())
        await asyncio.sleep(0)

        async def waits(request: Request) -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                if waits_for == "a future":
                    await asyncio.get_running_loop().create_future()
                elif waits_for == "a task":
                    await running
                else:
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                happened.append(f"cancelled {task.cancelling()}")
                task.uncancel()

        requests: list[Request] = []
        note_begun(turns, requests)

        def cancels_afterwards() -> None:
            turns.begin(waits, answer, answer)
            (task,) = [task for task in turns.state.tasks if task.get_name() == requests[0].name]
            task.cancel()

        asyncio.get_running_loop().call_soon(cancels_afterwards)
        while not requests:
            await asyncio.sleep(0)
        await ended(turns)
        assert tasks_of(requests)
        assert "cancelled 1" in happened
        if waits_for == "a task":
            assert happened.index("child ended") < happened.index("cancelled 1")
        running.cancel()

    run(test)


def test_a_task_that_is_cancelled_before_it_begins_is_not_waited_for() -> None:
    async def test(turns: Turns) -> None:
        (request,) = turns.begin(answer)
        (task,) = turns.state.tasks
        task.cancel()
        await ended(turns)
        assert task.cancelled()
        assert not request.complete

    run(test)


@pytest.mark.usefixtures("two_at_most")
@pytest.mark.parametrize(
    "application", [keeps_the_task, refers_to_the_task, names_the_task, wants_to_know_of_its_end]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_trace_among_many_is_seen_before_the_next_one(application: Application, place: int) -> None:
    kept.clear()

    async def test(turns: Turns) -> None:
        applications = [answer, answer, answer]
        applications[place] = application
        requests = await from_a_callback(turns, *applications)
        await ended(turns)
        names = tasks_of(requests)
        assert names[place] != names[place + 1]
        if application is wants_to_know_of_its_end:
            assert [task.get_name() for task in kept] == [names[place]]

    run(test)
    kept.clear()


@pytest.mark.usefixtures("two_at_most")
def test_what_one_of_many_sets_is_not_seen_by_the_next_one() -> None:
    async def test(turns: Turns) -> None:
        seen: list[str] = []

        async def sets(request: Request) -> None:
            seen.append(variable.get())
            variable.set("set")

        await from_a_callback(turns, answer, sets, sets, sets)
        await ended(turns)
        assert seen == ["untouched"] * 3
        assert variable.get() == "untouched"

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_cancelling_ones_own_task_among_many_cancels_no_other_request() -> None:
    async def test(turns: Turns) -> None:
        caught: list[int] = []

        async def gives_up(request: Request) -> None:
            asyncio.current_task().cancel()  # type: ignore[union-attr]

        async def waits_after_that(request: Request) -> None:
            await gives_up(request)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                caught.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]
                raise

        async def says_so(request: Request) -> None:
            await gives_up(request)
            raise asyncio.CancelledError

        for application in (gives_up, waits_after_that, says_so):
            requests = await from_a_callback(turns, answer, application, answer)
            await ended(turns)
            names = [request.name for request in requests]
            assert names[0] == names[1] != names[2]
            assert [request.complete for request in requests] == [True, application is gives_up, True]
            await turns.share_again()
        assert caught == [1]

    run(test)


class Odd:
    """Cannot be compared, as an array of numbers."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


odd: ContextVar[Odd] = ContextVar("odd")


async def sets_what_cannot_be_compared(request: Request) -> None:
    odd.set(Odd())


@pytest.mark.parametrize("place", [0, 1])
def test_variables_that_cannot_be_compared_are_a_trace(place: int) -> None:
    async def test(turns: Turns) -> None:
        odd.set(Odd())
        turns.tasks = TurnTasks(asyncio.get_running_loop(), turns.state, copy_context())
        applications = [answer, answer, answer]
        applications[place] = sets_what_cannot_be_compared
        requests = turns.begin(*applications)
        (task,) = turns.state.tasks
        await ended(turns)
        names = tasks_of(requests)
        assert names[place] != names[place + 1]
        assert len(set(names[: place + 1])) == 1
        assert task.exception() is None

    run(test)


@pytest.mark.usefixtures("two_at_most")
@pytest.mark.parametrize("place", [0, 1])
def test_among_many_variables_that_cannot_be_compared_are_a_trace(place: int) -> None:
    async def test(turns: Turns) -> None:
        odd.set(Odd())
        turns.tasks = TurnTasks(asyncio.get_running_loop(), turns.state, copy_context())
        applications = [answer, answer, answer]
        applications[place] = sets_what_cannot_be_compared
        requests = await from_a_callback(turns, *applications)
        await ended(turns)
        names = tasks_of(requests)
        assert names[place] != names[place + 1]
        assert len(set(names[: place + 1])) == 1

    run(test)


def test_a_task_of_ones_own_that_is_cancelled_before_it_begins_is_forgotten() -> None:
    async def test(turns: Turns) -> None:
        request = Request(answer, turns.state)
        turns.tasks.begin_apart(request)  # type: ignore[arg-type]
        (task,) = turns.state.tasks
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not turns.state.tasks
        assert not request.complete

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_while_a_task_runs_no_other_one_is_entered() -> None:
    async def test(turns: Turns) -> None:
        requests = turns.begin(answer, answer, answer)
        assert not any(request.complete for request in requests)
        await ended(turns)
        assert tasks_of(requests)

    run(test)


# --- heads that wait ------------------------------------------------------------------------------------


async def pauses(request: Request) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def released(requests: list[Request]) -> list[int]:
    return [request.released for request in requests]


def test_the_head_of_whoever_waits_goes_out_and_nobody_elses() -> None:
    async def test(turns: Turns) -> None:
        requests = turns.begin(answer, pauses, answer)
        await asyncio.sleep(0)  # the task
        await asyncio.sleep(0)  # the look that follows
        assert released(requests) == [0, 1, 0]
        await ended(turns)
        assert released(requests) == [0, 1, 0]
        assert turns.state.answering is None

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_among_many_the_head_of_whoever_waits_goes_out_and_nobody_elses() -> None:
    async def test(turns: Turns) -> None:
        requests = await from_a_callback(turns, answer, pauses, answer)
        assert released(requests) == [0, 1, 0]
        await ended(turns)
        assert released(requests) == [0, 1, 0]
        assert turns.state.answering is None

    run(test)


def test_a_head_goes_out_though_others_are_answered_before_it_is_looked_for() -> None:
    async def test(turns: Turns) -> None:
        tasks = (turns.tasks, TurnTasks(asyncio.get_running_loop(), turns.state, copy_context()))
        requests = []
        for turns.tasks in tasks:  # of two kinds of connections, each has a task
            requests += turns.begin(answer, pauses)
        await asyncio.sleep(0)
        assert released(requests) == [0, 1, 0, 0]
        await asyncio.sleep(0)
        assert released(requests) == [0, 1, 0, 1]
        await ended(turns)
        assert turns.state.answering is None

    run(test)


def test_who_goes_on_leaves_the_heads_of_others() -> None:
    async def test(turns: Turns) -> None:
        gate = asyncio.get_running_loop().create_future()

        async def waits(request: Request) -> None:
            await gate

        first = turns.begin(waits, answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turns.tasks = TurnTasks(asyncio.get_running_loop(), turns.state, copy_context())
        second = turns.begin(pauses, answer)
        gate.set_result(None)  # it goes on behind the second task, and before that one is looked at
        await asyncio.sleep(0)
        assert first[0].complete
        await asyncio.sleep(0)
        assert (released(first), released(second)) == ([1, 0], [1, 0])
        await ended(turns)

    run(test)


# --- durations ------------------------------------------------------------------------------------------


def measured(turns: Turns, *applications: Application) -> list[Request]:
    turns.state.measured = True
    requests = turns.begin(*applications)
    for request in requests:
        request.started_at = time.monotonic() - 2.0
    for request in requests[1:]:
        request.started_at = requests[0].started_at
    return requests


def test_the_clock_is_read_once_for_requests_that_are_answered_together() -> None:
    async def test(turns: Turns) -> None:
        measured(turns, answer, answer, answer)
        await asyncio.sleep(0)
        state = turns.state
        assert 6.0 <= state.seconds < 30.0
        assert sum(state.slow) == state.slow[bisect_left(DURATIONS, 2.0)] == 3
        assert (state.together, state.answered_together) == (-1.0, 0)

    run(test)


@pytest.mark.usefixtures("two_at_most")
def test_among_many_the_clock_is_read_once_for_those_that_are_answered_together() -> None:
    async def test(turns: Turns) -> None:
        turns.state.measured = True

        async def since_long(request: Request) -> None:
            assert request.started_at == turns.state.together == 0.0

        await from_a_callback(turns, since_long, since_long, answer)
        state = turns.state
        assert sum(state.slow) == state.slow[-1] == 3
        assert (state.together, state.answered_together) == (-1.0, 0)
        await ended(turns)

    run(test)


def test_who_waits_is_not_answered_together_with_the_others() -> None:
    async def test(turns: Turns) -> None:
        gate = asyncio.Event()

        async def waits(request: Request) -> None:
            await gate.wait()

        measured(turns, answer, waits, answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        state = turns.state
        assert (state.together, state.answered_together) == (-1.0, 0)
        assert sum(state.slow) == 1
        gate.set()
        await turns.turn()
        assert state.answered_together == 0

    run(test)


def test_what_an_error_has_left_is_counted_with_the_next_ones() -> None:
    async def test(turns: Turns) -> None:
        async def ends_it(request: Request) -> None:
            raise asyncio.CancelledError

        measured(turns, answer, ends_it)
        await asyncio.sleep(0)
        measured(turns, answer, answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(turns.state.slow) == 3

    run(test)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time passes only where an application says so."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(_turn, "perf_counter", lambda: clock.now)
    return clock


def lasting(clock: Any, seconds: float, order: list[int]) -> Callable[[int], Application]:
    """Applications that take so long, and note that they have been called."""

    def numbered(number: int) -> Application:
        async def application(request: Request) -> None:
            clock.now += seconds
            order.append(number)

        return application

    return numbered


@pytest.mark.parametrize(("seconds", "most"), [(SPELL / 2.5, LEAST), (SPELL * 3, LEAST), (SPELL / 5.5, 5)])
def test_where_applications_take_long_the_event_loop_looks_for_more_after_a_spell(
    clock: SimpleNamespace, seconds: float, most: int
) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        numbered = lasting(clock, seconds, order)
        await turns.turn(*map(numbered, range(3)))  # it is learnt
        order.clear()
        requests = turns.begin(*map(numbered, range(BATCH + 8)))
        await asyncio.sleep(0)
        assert order == list(range(most))
        requests += turns.begin(numbered(100))  # comes now, and is behind all of them
        while len(order) < BATCH + 9:  # a hang is ended by the limit
            before = len(order)
            await asyncio.sleep(0)
            assert len(order) - before <= most
        assert order == [*range(BATCH + 8), 100]
        await asyncio.sleep(0)
        assert all(request.complete for request in requests)
        assert not turns.state.tasks
        assert turns.tasks._apart < APART  # nobody has waited

    run(test)


def test_quick_ones_are_answered_in_one_spell_again(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        await turns.turn(*map(lasting(clock, SPELL, order), range(4)))
        quick = lasting(clock, SPELL / 1000, order)
        await turns.turn(*map(quick, range(2)))
        order.clear()
        turns.begin(*map(quick, range(BATCH)))
        await asyncio.sleep(0)
        assert order == list(range(BATCH))

    run(test)


def test_of_quick_turns_most_go_unmeasured(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        quick, slow = lasting(clock, 0.0, order), lasting(clock, SPELL, order)
        await turns.turn(quick(0), quick(1))
        for _ in range(UNMEASURED):
            await turns.turn(slow(0), slow(1))
        order.clear()
        await turns.turn(*map(slow, range(4)))
        assert order == list(range(4))
        order.clear()
        turns.begin(*map(slow, range(4)))
        await asyncio.sleep(0)
        assert order == list(range(LEAST))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(test)


@pytest.mark.parametrize("place", range(LEAST))
def test_no_request_of_the_next_spell_waits_for_one_that_waits(clock: SimpleNamespace, place: int) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        slow = lasting(clock, SPELL, order)
        go_on = asyncio.Event()

        async def waits(request: Request) -> None:
            await go_on.wait()

        await turns.turn(slow(0), slow(1))
        order.clear()
        applications = [*map(slow, range(8))]
        applications[place] = waits
        requests = await turns.turn(*applications)
        assert order == [number for number in range(8) if number != place]
        assert len(set(tasks_of([each for each in requests if each.application is not waits]))) >= 6
        go_on.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert requests[place].complete
        assert not turns.state.tasks

    run(test)


def test_a_trace_separates_those_of_the_next_spell_too(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        slow = lasting(clock, SPELL, order)
        await turns.turn(slow(0), slow(1))
        order.clear()

        async def sets(request: Request) -> None:
            variable.set("set")

        seen: list[str] = []

        async def sees(request: Request) -> None:
            seen.append(variable.get())

        requests = await turns.turn(sets, *[sees] * 5)
        assert seen == ["untouched"] * 5
        assert len(set(tasks_of(requests))) == 6

    run(test)


def test_what_time_was_spent_waiting_is_not_learnt(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        async def waits(request: Request) -> None:
            await asyncio.sleep(0)
            clock.now += 100 * SPELL

        await turns.turn(waits, answer)
        await turns.share_again()
        order: list[int] = []
        turns.begin(*map(lasting(clock, 0.0, order), range(8)))
        await asyncio.sleep(0)
        assert order == list(range(8))

    run(test)


def test_what_has_been_put_off_is_answered_at_once_when_they_are_quick_again(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        slow, quick = lasting(clock, SPELL, order), lasting(clock, 0.0, order)
        await turns.turn(slow(0), slow(1))
        order.clear()
        turns.begin(*map(quick, range(8 * BATCH)))
        await asyncio.sleep(0)
        assert order == list(range(LEAST))
        turns.begin(*map(quick, range(8 * BATCH, 9 * BATCH)))
        await asyncio.sleep(0)
        assert order == list(range(9 * BATCH))
        assert not turns.state.tasks

    run(test)


def test_those_that_come_while_others_are_put_off_are_behind_them(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        order: list[int] = []
        slow = lasting(clock, SPELL, order)
        await turns.turn(slow(0), slow(1))
        order.clear()
        turns.begin(*map(slow, range(5)))
        for number in range(5, 12):
            await asyncio.sleep(0)
            turns.begin(slow(number))
        while len(order) < 12:  # a hang is ended by the limit
            await asyncio.sleep(0)
        assert order == list(range(12))

    run(test)


def test_who_is_separated_is_not_learnt_from(clock: SimpleNamespace) -> None:
    async def test(turns: Turns) -> None:
        async def sets(request: Request) -> None:
            clock.now += SPELL
            variable.set("set")

        await turns.turn(sets, *[answer] * 20)
        assert turns.tasks._most == BATCH
        assert turns.tasks._unmeasured == 0

    run(test)
