"""Responses to pipelined requests leave together, and none waits for an application that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.transport import FakeTransport
from tests.protocols.http.harness import GET, IMPLEMENTATIONS, Answer, TaskLoop, connect, request, settle
from uvicorn.protocols._flow import HIGH_WATER_LIMIT
from uvicorn.protocols.http._held import HeldResponses


class Turns:
    """An event loop's turns, one at a time."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def held(limit: int = 16) -> tuple[HeldResponses, FakeTransport, Turns]:
    transport, turns = FakeTransport(), Turns()
    return HeldResponses(transport, turns.call_soon, limit), transport, turns


def test_responses_are_kept_back_while_each_turn_brings_one() -> None:
    responses, transport, turns = held()
    for data in (b"a", b"b", b"c"):
        responses.hold(data)
        turns.turn()
    assert transport.writes == []
    turns.turn()
    assert transport.writes == [b"abc"]
    assert turns.calls == []


def test_the_first_turn_that_brings_none_writes() -> None:
    responses, transport, turns = held()
    responses.hold(b"a")
    turns.turn()
    turns.turn()
    assert transport.writes == [b"a"]
    responses.hold(b"b")
    turns.turn()
    turns.turn()
    assert transport.writes == [b"a", b"b"]


def test_what_was_written_meanwhile_is_not_written_again() -> None:
    responses, transport, turns = held()
    responses.hold(b"a")
    turns.turn()
    responses.write()
    responses.hold(b"b")
    turns.turn()
    turns.turn()
    turns.turn()
    assert transport.writes == [b"a", b"b"]


def test_so_many_are_written_at_once() -> None:
    responses, transport, _ = held(limit=2)
    for data in (b"a", b"b", b"c"):
        responses.hold(data)
    assert transport.writes == [b"ab"]


def test_so_much_is_written_at_once() -> None:
    responses, transport, _ = held()
    responses.hold(bytes(HIGH_WATER_LIMIT))
    assert transport.writes == []
    responses.hold(b"x")
    assert [len(data) for data in transport.writes] == [HIGH_WATER_LIMIT + 1]


def test_nothing_is_written_to_a_transport_that_closes() -> None:
    responses, transport, turns = held()
    responses.hold(b"a")
    transport.close()
    turns.turn()
    turns.turn()
    assert transport.writes == []


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_responses_of_a_pipeline_are_one_write_but_the_last(implementation: str) -> None:
    app, transport = Answer(), FakeTransport()

    async def main() -> None:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop(), transport=transport)
        protocol.data_received(GET * 5)
        for _ in range(5):
            await settle()

    asyncio.run(main())
    assert [data.count(b"HTTP/1.1 200") for data in transport.writes] == [4, 1]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_response_does_not_wait_for_the_next_application(implementation: str) -> None:
    transport = FakeTransport()
    go_on = asyncio.Event()
    answer = Answer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go_on.wait()
        await answer(scope, receive, send)

    async def main() -> None:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop(), transport=transport)
        protocol.data_received(GET + request("GET /slow HTTP/1.1") + GET)
        for _ in range(10):
            await asyncio.sleep(0)
        assert [data.count(b"HTTP/1.1 200") for data in transport.writes] == [1]
        go_on.set()
        for _ in range(10):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert [data.count(b"HTTP/1.1 200") for data in transport.writes] == [1, 1, 1]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("second", [b"\0\r\n\r\n", request("GET / HTTP/1.1", "Connection: close")])
def test_nothing_overtakes_what_is_kept_back(implementation: str, second: bytes) -> None:
    """The connection ends behind it."""
    app, transport = Answer(), FakeTransport()

    async def main() -> None:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop(), transport=transport)
        protocol.data_received(GET + GET + second)
        for _ in range(10):
            await asyncio.sleep(0)

    asyncio.run(main())
    count = 2 if second[0] == 0 else 3
    assert bytes(transport.buffer).count(b"HTTP/1.1 200") == count
    assert transport.closed


@pytest.mark.parametrize("starts", [True, False])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_application_that_breaks_off_takes_nothing_of_the_responses_before(
    implementation: str, starts: bool
) -> None:
    transport = FakeTransport()
    answer = Answer()

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        if scope["path"] == "/broken":
            if not starts:
                return "something"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError
        return await answer(scope, receive, send)

    async def main() -> None:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop(), transport=transport)
        protocol.data_received(GET + request("GET /broken HTTP/1.1") + GET)
        for _ in range(10):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert bytes(transport.buffer).count(b"HTTP/1.1 200") == 1 + starts
    assert transport.closed
