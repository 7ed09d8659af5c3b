"""What the connections of one server share."""

from __future__ import annotations

from typing import Any

import pytest

from uvicorn.protocols._state import ServerState


class Counter:
    def __init__(self) -> None:
        self.lost = 0

    def connection_lost(self) -> None:
        self.lost += 1


def test_new_state_is_empty() -> None:
    state = ServerState()
    assert (state.total_requests, state.now, state.draining, state.request_limit) == (0, 0.0, False, 0)
    assert (state.connections, state.tasks, state.default_headers) == (set(), set(), [])


def test_connections_are_kept_until_they_go() -> None:
    state = ServerState()
    first, second = object(), object()
    state.add_connection(first)
    state.add_connection(second)
    state.drop_connection(first)
    state.drop_connection(first)  # it may have left before, for a WebSocket
    assert state.connections == {second}


def test_counter_is_told_of_each_connection_that_goes() -> None:
    state = ServerState()
    counter = state.counter = Counter()
    state.add_connection(1)
    assert counter.lost == 0
    state.drop_connection(1)
    assert counter.lost == 1


@pytest.mark.parametrize(
    ("connections", "tasks", "told"),
    [(set(), set(), 1), ({1}, set(), 1), (set(), {1}, 1), ({1}, {1}, 0)],
)
def test_whoever_waits_is_told_when_connections_or_tasks_have_ended(
    connections: Any, tasks: Any, told: int
) -> None:
    state = ServerState()
    calls: list[int] = []
    state.on_emptied = lambda: calls.append(1)
    state.connections, state.tasks = connections, tasks
    state.look_whether_empty()
    assert len(calls) == told


def test_last_connection_that_goes_is_told() -> None:
    state = ServerState()
    calls: list[int] = []
    state.tasks = {1}  # type: ignore[arg-type]
    state.add_connection(1)
    state.add_connection(2)
    state.on_emptied = lambda: calls.append(1)
    state.drop_connection(1)
    assert calls == []
    state.drop_connection(2)
    assert calls == [1]


def test_nobody_needs_to_wait() -> None:
    state = ServerState()
    state.look_whether_empty()
    state.limit_reached()


def test_limit_that_is_reached_is_told() -> None:
    state = ServerState()
    calls: list[int] = []
    state.on_request_limit = lambda: calls.append(1)
    state.limit_reached()
    assert calls == [1]
