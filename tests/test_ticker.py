"""The one timer of a server, on a loop whose time stands still until the test moves it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from uvicorn._ticker import DRAIN_TICK, SHORTEST_TICK, STANDSTILL, Ticker
from uvicorn.config import Config
from uvicorn.protocols._state import ServerState


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Of an event loop, its clock and its timers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None], Timer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer()
        self.timers.append((delay, callback, timer))
        return timer

    def next(self, late: float = 0.0) -> None:
        delay, callback, _ = self.timers.pop()
        self.now += delay + late
        callback()


class Connection:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired_at: list[float] = []

    def expire(self, now: float) -> None:
        self.expired_at.append(now)
        self.deadline = float("inf")


class Ticking:
    """A ticker with what it looks after."""

    def __init__(
        self, longest: float = 1.0, on_tick: Callable[[float], None] | None = None, **settings: Any
    ) -> None:
        self.loop = Loop()
        self.state = ServerState()
        self.ticks: list[float] = []
        config = Config(app, log_config=None, lifespan="off", **settings)
        config.load()
        self.ticker = Ticker(self.loop, config, self.state, on_tick or self.ticks.append, longest)  # type: ignore[arg-type]
        self.ticker.start()

    def delay(self) -> float:
        return self.loop.timers[-1][0]


def test_it_ticks_at_once_and_moves_the_coarse_clock() -> None:
    ticking = Ticking()
    assert ticking.ticks == [1000.0]
    assert ticking.state.now == 1000.0
    ticking.loop.next()
    assert ticking.ticks[1:] == [ticking.state.now] == [ticking.loop.now]


@pytest.mark.parametrize(
    ("settings", "longest", "period"),
    [
        ({}, 1.0, 1.0),
        ({"timeout_keep_alive": 1}, 1.0, 0.25),
        ({"timeout_request_head": 0.01}, 1.0, SHORTEST_TICK),
        ({}, 0.5, 0.5),
    ],
)
def test_it_ticks_four_times_within_the_shortest_timeout(
    settings: dict[str, Any], longest: float, period: float
) -> None:
    ticking = Ticking(longest, **settings)
    assert 0 < ticking.delay() <= period + 0.001


def test_it_ticks_more_often_while_the_server_drains() -> None:
    ticking = Ticking()
    ticking.state.draining = True
    ticking.loop.next()
    assert ticking.delay() <= DRAIN_TICK + 0.001


def test_connections_whose_deadline_has_passed_are_told() -> None:
    ticking = Ticking()
    due, not_yet, never = Connection(1000.001), Connection(1060.0), object()
    ticking.state.connections.update((due, not_yet, never))
    ticking.loop.next(late=STANDSTILL)
    assert due.expired_at == [ticking.loop.now]
    assert not_yet.expired_at == []


def test_it_tells_by_how_much_the_loop_is_late() -> None:
    ticking = Ticking()
    assert ticking.ticker.lag == 0.0
    ticking.loop.next(late=0.25)
    assert ticking.ticker.lag == pytest.approx(0.25)
    ticking.loop.next()
    assert ticking.ticker.lag == pytest.approx(0.0)


def test_time_in_which_the_loop_stands_still_counts_for_nobody() -> None:
    ticking = Ticking(timeout_keep_alive=5)
    idle = Connection(deadline=1005.0)
    ticking.state.connections = {idle}
    ticking.loop.next(late=60.0)
    assert idle.expired_at == []
    assert ticking.state.now < 1005.0
    assert ticking.ticks[-1] == ticking.state.ticked_at == ticking.loop.now > 1060.0
    while not idle.expired_at:
        before = ticking.state.now
        ticking.loop.next(late=STANDSTILL)  # late, but it runs
        assert ticking.state.now > before + STANDSTILL
    assert idle.expired_at == [ticking.state.now]
    assert 1005.0 <= ticking.state.now < 1006.5


def test_what_fails_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    def fails(now: float) -> None:
        raise ZeroDivisionError

    class Failing(Connection):
        def expire(self, now: float) -> None:
            raise ZeroDivisionError

    ticking = Ticking(on_tick=fails)
    ticking.state.connections.add(Failing(0.0))
    with caplog.at_level(logging.ERROR):
        ticking.loop.next()
    assert "A connection's deadline could not be handled." in caplog.text
    assert "A tick of the server has failed." in caplog.text
    assert len(ticking.loop.timers) == 1


def test_the_date_is_among_the_default_headers_where_it_is_wanted() -> None:
    names = [name for name, _ in Ticking(server_header=False).state.default_headers]
    assert names == [b"date"]
    assert Ticking(server_header=False, date_header=False).state.default_headers == []


def test_it_stops() -> None:
    ticking = Ticking()
    ticking.ticker.stop()
    assert ticking.loop.timers[-1][2].cancelled
