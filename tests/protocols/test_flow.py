"""Flow control of one transport, in both directions."""

from __future__ import annotations

import asyncio

from tests.fakes.transport import FakeTransport
from uvicorn.protocols._flow import FlowControl, forget, wake
from uvicorn.protocols.http import flow_control


def test_reading_pauses_and_resumes_the_transport_once() -> None:
    transport = FakeTransport()
    flow = FlowControl(transport)
    for _ in range(2):  # the transport does not take a second time
        flow.pause_reading()
        assert flow.read_paused
        assert not transport.reading
    for _ in range(2):
        flow.resume_reading()
        assert not flow.read_paused
        assert transport.reading


def test_drain_returns_at_once_while_the_transport_takes() -> None:
    asyncio.run(FlowControl(FakeTransport()).drain())


def test_drain_waits_until_writing_resumes_for_everybody() -> None:
    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        assert flow.write_paused
        waiting = [asyncio.ensure_future(flow.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        flow.resume_writing()
        assert not flow.write_paused
        await asyncio.gather(*waiting)

    asyncio.run(main())


def test_drain_waits_on_where_writing_pauses_again_before_it_runs() -> None:
    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        task = asyncio.ensure_future(flow.drain())
        await asyncio.sleep(0)
        flow.resume_writing()
        flow.pause_writing()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        flow.resume_writing()
        await task

    asyncio.run(main())


def test_cancelled_drain_is_forgotten_and_leaves_the_others_waiting() -> None:
    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        first, second = asyncio.ensure_future(flow.drain()), asyncio.ensure_future(flow.drain())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert flow._waiters is not None
        assert len(flow._waiters) == 1
        assert not second.done()
        flow.resume_writing()
        await second

    asyncio.run(main())


def test_drain_cancelled_while_it_is_woken_stays_cancelled() -> None:
    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        task = asyncio.ensure_future(flow.drain())
        await asyncio.sleep(0)
        flow.resume_writing()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())


def test_resume_writing_without_a_pause_does_nothing() -> None:
    flow = FlowControl(FakeTransport())
    flow.resume_writing()
    assert not flow.write_paused


def test_wake_takes_nobody_and_those_who_have_gone() -> None:
    async def main() -> None:
        wake(None)
        done, waiting = [asyncio.get_running_loop().create_future() for _ in range(2)]
        done.cancel()
        wake([done, waiting])
        assert waiting.done()
        assert done.cancelled()

    asyncio.run(main())


def test_forget_takes_what_is_not_there() -> None:
    async def main() -> None:
        waiter, other = [asyncio.get_running_loop().create_future() for _ in range(2)]
        forget(None, waiter)
        waiters = [other]
        forget(waiters, waiter)
        assert waiters == [other]
        forget(waiters, other)
        assert waiters == []

    asyncio.run(main())


def test_documented_path_hands_the_class_on() -> None:
    assert flow_control.FlowControl is FlowControl
    assert flow_control.HIGH_WATER_LIMIT == 65536
    assert flow_control.CLOSE_HEADER == (b"connection", b"close")
    assert set(flow_control.__all__) == {
        "CLOSE_HEADER", "HIGH_WATER_LIMIT", "FlowControl", "service_unavailable"
    }  # fmt: skip
