"""The control process's side of the channel: waiting for outcomes, and what comes when there are none."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.control import Answer, Command, ControlEnd, MasterEnd, Verb
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn.control.master import Master, Unanswered
from uvicorn.control.process import CONNECTIONS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs UNIX sockets")


def with_master(test: Callable[[Master, MasterEnd, list[str]], Awaitable[Any]]) -> Any:
    """Run a test in an event loop, between the two ends of a channel."""

    async def run() -> Any:
        ours, theirs = socket.socketpair()
        scoreboard = Scoreboard()
        gone: list[str] = []
        for sock in (ours, theirs):
            sock.setblocking(False)
        with ours, theirs:
            master = Master(ControlEnd(theirs), scoreboard, lambda: gone.append("gone"))
            master.listen(asyncio.get_running_loop())
            result = await test(master, MasterEnd(ours), gone)
            asyncio.get_running_loop().remove_reader(theirs.fileno())
        os.close(scoreboard.fd)
        return result

    return asyncio.run(run())


def test_answers_come_back_to_those_who_have_asked_in_any_order() -> None:
    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        first = asyncio.ensure_future(master.ask(Verb.RELOAD, 0, 30))
        second = asyncio.ensure_future(master.ask(Verb.SCALE, 3, 30))
        await asyncio.sleep(0)
        commands, _ = other.receive()
        one, two = (command.number for command in commands)
        assert commands == [Command(Verb.RELOAD, one, 0), Command(Verb.SCALE, two, 3)]
        for answer in (
            Answer(two, True, "scaled"),
            Answer(9, True, "nobody's"),
            Answer(one, False, "broken"),
        ):
            other.answer(answer)
        other.flush()
        assert (await first).text == "broken"
        assert (await second).text == "scaled"
        assert gone == []

    with_master(test)


def test_an_answer_to_the_process_before_is_not_taken_for_ones_own() -> None:
    numbers = []

    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        for _ in range(3):
            asking = asyncio.ensure_future(master.ask(Verb.RELOAD, 0, 30))
            await asyncio.sleep(0)
            ((command,), _) = other.receive()
            numbers.append(command.number)
            other.answer(Answer(command.number, True, "done"))
            other.flush()
            await asking

    with_master(test)
    with_master(test)
    assert 0 not in numbers
    assert len(set(numbers)) == len(numbers)


def test_without_an_outcome_in_time_there_is_none() -> None:
    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        with pytest.raises(Unanswered, match="There is no outcome after 0 s"):
            await master.ask(Verb.RELOAD, 0, 0)
        other.answer(Answer(1, True, "too late"))
        other.flush()
        assert master._waiting == {}

    with_master(test)


def test_the_end_of_the_master_ends_all_waiting() -> None:
    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        waiting = asyncio.ensure_future(master.ask(Verb.STOP, 0, 30))
        await asyncio.sleep(0)
        other.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Unanswered, match="The master has ended"):
            await waiting
        assert gone == ["gone"]
        assert master.heard.is_set()
        with pytest.raises(Unanswered, match="takes no commands"):
            await master.ask(Verb.STOP, 0, 30)

    with_master(test)


def test_the_status_is_that_of_the_newest_snapshot() -> None:
    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        assert master.status() is None
        other.publish(SNAPSHOT)
        other.flush()
        await master.heard.wait()
        status = master.status()
        assert status is not None
        assert status["generation"] == 3

    with_master(test)


def test_one_outcome_may_be_waited_for_by_as_many_as_can_be_connected() -> None:
    async def test(master: Master, other: MasterEnd, gone: list[str]) -> None:
        asking = []
        numbers: list[int] = []
        for _ in range(CONNECTIONS):
            asking.append(asyncio.ensure_future(master.ask(Verb.SCALE, 3, 30)))
            await asyncio.sleep(0)
            numbers += [command.number for command in other.receive()[0]]
        for number in numbers:
            other.answer(Answer(number, True, "3 worker(s) are ready."))
        while not all(each.done() for each in asking):
            other.flush()
            await asyncio.sleep(0.001)

    with_master(lambda *given: asyncio.wait_for(test(*given), 10))
