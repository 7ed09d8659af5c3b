"""What the master's loop keeps of each worker, and what it makes of it for the machine."""

from __future__ import annotations

import pytest

from uvicorn._ipc.channel import Kind, Message
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn.supervisor import events
from uvicorn.supervisor.links import Link, event_of, readings_of, smallest


def link(scoreboard: Scoreboard, **cells: int) -> Link:
    row = scoreboard.take()
    for name, value in cells.items():
        row[Cell[name]] = value
    return Link(row, None, (), 1)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_message_is_an_event_but_reports_for_people(kind: Kind) -> None:
    event = event_of(7, Message(kind, "text"))
    if kind is Kind.REPORT:
        assert event is None
    else:
        assert event is not None
        assert event.wid == 7  # type: ignore[union-attr]


def test_what_a_worker_says_goes_on_to_the_machine() -> None:
    assert event_of(7, Message(Kind.FAILED, "why")) == events.Complained(7, "why")
    assert event_of(7, Message(Kind.RECYCLE, "limit")) == events.RecycleWanted(7, "limit")


def test_signs_of_life_are_read_of_workers_that_have_been_ready() -> None:
    scoreboard = Scoreboard()
    links = {1: link(scoreboard), 2: link(scoreboard, READY=1)}
    assert [each.wid for each in readings_of(links)] == [2]


def test_the_smallest_worker_is_one_whose_size_is_known() -> None:
    scoreboard = Scoreboard()
    assert smallest({}) == 0
    assert smallest({1: link(scoreboard)}) == 0
    assert smallest({1: link(scoreboard), 2: link(scoreboard, RSS=30), 3: link(scoreboard, RSS=20)}) == 20
