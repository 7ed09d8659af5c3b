"""The scoreboard's own row: what workers have done stays done when they are gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from uvicorn._ipc.scoreboard import COUNTERS, ROW_CELLS, Cell, Scoreboard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs shared memory")


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    found = Scoreboard()
    yield found
    os.close(found.fd)


def total(scoreboard: Scoreboard, cell: Cell) -> int:
    return sum(row[cell] for row in scoreboard.rows())


def test_every_cell_fits_into_a_row() -> None:
    assert max(Cell) < ROW_CELLS


@pytest.mark.parametrize("cell", COUNTERS)
def test_counters_of_a_worker_that_is_gone_are_carried_on(scoreboard: Scoreboard, cell: Cell) -> None:
    first, second = scoreboard.take(), scoreboard.take()
    first[cell], second[cell] = 5, 7
    assert total(scoreboard, cell) == 12
    scoreboard.release(first)
    assert total(scoreboard, cell) == 12
    again = scoreboard.take()
    assert again.index == first.index
    assert again[cell] == 0
    again[cell] = 1
    assert total(scoreboard, cell) == 13
    scoreboard.release(second)
    scoreboard.release(again)
    assert total(scoreboard, cell) == 13


def test_what_is_no_counter_goes_with_its_worker(scoreboard: Scoreboard) -> None:
    row = scoreboard.take()
    row[Cell.CONNECTIONS] = row[Cell.RSS] = 9
    scoreboard.release(row)
    assert total(scoreboard, Cell.CONNECTIONS) == total(scoreboard, Cell.RSS) == 0


def test_a_reader_looks_again_while_counters_move(scoreboard: Scoreboard) -> None:
    own = scoreboard.own
    own[Cell.SEQUENCE] = 1  # a master that was killed in the middle of it
    assert len(scoreboard.rows()) == 1  # does not hang its readers


def test_the_master_says_that_it_runs(scoreboard: Scoreboard) -> None:
    scoreboard.own.stamp(Cell.LOOP_TICK)
    assert scoreboard.rows()[0][Cell.LOOP_TICK] > 0
    assert scoreboard.column(Cell.LOOP_TICK)[1:] == []


def test_over_an_exec_the_sums_go_on(scoreboard: Scoreboard) -> None:
    row = scoreboard.take()
    row[Cell.REQUESTS] = 5
    scoreboard.release(row)
    again = Scoreboard(os.dup(scoreboard.fd))
    assert total(again, Cell.REQUESTS) == 5
    os.close(again.fd)
