"""The scoreboard: rows taken and given back, columns over them, and the same memory in another process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from uvicorn._ipc.scoreboard import (
    COUNTERS,
    DURATION_CELLS,
    ROW_CELLS,
    ROWS,
    Cell,
    Drain,
    Row,
    Scoreboard,
    microseconds,
)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard()
    yield board
    os.close(board.fd)


# --- rows --------------------------------------------------------------------------------------


def test_every_cell_has_a_place_in_the_row() -> None:
    assert sorted(Cell) == list(range(len(Cell)))
    assert max(Cell) == Cell.DURATIONS  # the last one, since others follow it that have no name
    assert DURATION_CELLS.stop <= ROW_CELLS
    assert len(set(COUNTERS)) == len(COUNTERS)


def test_rows_that_are_taken_differ_and_are_empty(board: Scoreboard) -> None:
    rows = [board.take() for _ in range(3)]
    assert [row.index for row in rows] == [1, 2, 3]  # the first row is nobody's
    assert all(row[cell] == 0 for row in rows for cell in Cell)


def test_a_cell_keeps_what_is_written_and_leaves_its_neighbours_alone(board: Scoreboard) -> None:
    before, row, after = (board.take() for _ in range(3))
    for cell in Cell:
        row[cell] = cell + 100
    assert [row[cell] for cell in Cell] == [cell + 100 for cell in Cell]
    assert [board.row(row.index)[cell] for cell in Cell] == [cell + 100 for cell in Cell]
    assert not any(other[cell] for other in (before, after) for cell in Cell)


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
def test_a_cell_holds_64_bits_with_a_sign(board: Scoreboard, value: int) -> None:
    row = board.take()
    row[Cell.REQUESTS] = value
    assert row[Cell.REQUESTS] == value


def test_what_does_not_fit_into_a_cell_is_an_error(board: Scoreboard) -> None:
    row = board.take()
    row[Cell.REQUESTS] = 5
    with pytest.raises(ValueError, match="invalid value"):
        row[Cell.REQUESTS] = 2**63
    assert row[Cell.REQUESTS] == 5


def test_a_stamp_is_monotonic_time(board: Scoreboard) -> None:
    row = board.take()
    before = microseconds()
    row.stamp(Cell.LOOP_TICK)
    assert before <= row[Cell.LOOP_TICK] <= microseconds()
    assert row.seconds(Cell.LOOP_TICK) == row[Cell.LOOP_TICK] / 1_000_000


def test_a_row_that_is_given_back_is_empty_at_once(board: Scoreboard) -> None:
    row = board.take()
    row[Cell.ACCEPTING] = row[Cell.DRAIN] = 1
    board.release(row)
    assert [board.row(row.index)[cell] for cell in Cell] == [0] * len(Cell)


def test_the_lowest_row_that_is_free_is_taken_next(board: Scoreboard) -> None:
    rows = [board.take() for _ in range(4)]
    board.release(rows[1])
    board.release(rows[2])
    assert [board.take().index for _ in range(3)] == [2, 3, 5]


def test_all_rows_in_use_is_an_error(board: Scoreboard) -> None:
    rows = [board.take() for _ in range(ROWS - 1)]
    assert rows[-1].index == ROWS - 1
    with pytest.raises(RuntimeError, match=f"All {ROWS} rows of the scoreboard are in use"):
        board.take()
    board.release(rows[7])
    assert board.take().index == rows[7].index


def test_a_claimed_row_is_cleared(board: Scoreboard) -> None:
    board.row(5)[Cell.DRAIN] = Drain.FINAL
    assert board.claim(5)[Cell.DRAIN] == Drain.NO


def test_a_row_claimed_as_it_is_keeps_its_cells(board: Scoreboard) -> None:
    board.row(5)[Cell.DRAIN] = Drain.FINAL
    assert board.claim(5, clear=False)[Cell.DRAIN] == Drain.FINAL


def test_a_claimed_row_is_not_taken(board: Scoreboard) -> None:
    board.claim(2)
    assert [board.take().index for _ in range(3)] == [1, 3, 4]


# --- columns -----------------------------------------------------------------------------------


def test_a_column_has_one_cell_of_every_row_in_use(board: Scoreboard) -> None:
    for row, requests in zip([board.take() for _ in range(3)], (7, 8, 9), strict=True):
        row[Cell.REQUESTS] = requests
        row[Cell.IN_FLIGHT] = 1
    assert board.column(Cell.REQUESTS)[1:] == [7, 8, 9]
    assert board.column(Cell.IN_FLIGHT)[1:] == [1, 1, 1]


def test_a_column_begins_with_the_first_row_which_says_how_many(board: Scoreboard) -> None:
    board.take()
    board.take()
    assert board.column(Cell.PID) == [3, 0, 0]
    assert board.column(Cell.REQUESTS) == [0, 0, 0]


def test_a_column_of_nothing_is_empty(board: Scoreboard) -> None:
    assert board.column(Cell.REQUESTS) == []


def test_a_column_gets_shorter_when_its_last_rows_are_given_back(board: Scoreboard) -> None:
    rows = [board.take() for _ in range(3)]
    rows[0][Cell.CONNECTIONS] = 4
    board.release(rows[2])
    assert board.column(Cell.CONNECTIONS) == [0, 4, 0]
    board.release(rows[1])
    assert board.column(Cell.CONNECTIONS) == [0, 4]


def test_a_row_given_back_in_the_middle_counts_as_zero(board: Scoreboard) -> None:
    rows = [board.take() for _ in range(3)]
    for row in rows:
        row[Cell.CONNECTIONS] = 5
    board.release(rows[1])
    assert board.column(Cell.CONNECTIONS) == [0, 5, 0, 5]


class RowsComeAndGo(RuleBasedStateMachine):
    """Whatever is taken and given back: no row has two owners, and a column shows exactly what they wrote."""

    @initialize()
    def start(self) -> None:
        self.board = Scoreboard()
        self.rows: list[Row] = []
        self.next = 1

    @rule()
    def take(self) -> None:
        row = self.board.take()
        assert row.index not in {each.index for each in self.rows}
        row[Cell.REQUESTS] = self.next
        self.next += 1
        self.rows.append(row)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.rows:
            self.board.release(self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1))))

    @invariant()
    def column_shows_what_was_written(self) -> None:
        expected = {row.index: row[Cell.REQUESTS] for row in self.rows}
        column = self.board.column(Cell.REQUESTS)
        assert {index: value for index, value in enumerate(column) if value} == expected
        assert len(set(expected.values())) == len(expected)

    def teardown(self) -> None:
        os.close(self.board.fd)


TestRowsComeAndGo = RowsComeAndGo.TestCase
TestRowsComeAndGo.settings = settings(max_examples=30, stateful_step_count=20)


# --- shared ------------------------------------------------------------------------------------


def test_a_second_mapping_of_the_descriptor_is_the_same_memory(board: Scoreboard) -> None:
    row = board.take()
    second = Scoreboard(board.fd)
    row[Cell.GENERATION] = 3
    second.row(row.index)[Cell.DRAIN] = Drain.MOVE
    assert second.row(row.index)[Cell.GENERATION] == 3
    assert row[Cell.DRAIN] == Drain.MOVE
    assert second.column(Cell.GENERATION) == [0, 3]


def test_a_second_mapping_goes_on_where_its_rows_were_claimed(board: Scoreboard) -> None:
    first, gone, last = (board.take() for _ in range(3))
    last[Cell.REQUESTS] = 12
    second = Scoreboard(board.fd)
    for index in (first.index, last.index):
        second.claim(index, clear=False)
    assert second.column(Cell.REQUESTS) == [0, 0, 0, 12]
    assert second.take().index == gone.index


def test_the_descriptor_does_not_leak_into_programs() -> None:
    board = Scoreboard()
    try:
        assert not os.get_inheritable(board.fd)
        os.set_inheritable(board.fd, True)  # as an exec of the master hands it down
        assert Scoreboard(board.fd).fd == board.fd
        assert not os.get_inheritable(board.fd)
    finally:
        os.close(board.fd)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_writes_where_its_parent_reads(board: Scoreboard) -> None:
    row = board.take()
    row[Cell.GENERATION] = 2
    pid = os.fork()
    if pid == 0:
        row[Cell.PID] = os.getpid()
        row[Cell.REQUESTS] = row[Cell.GENERATION] * 10
        os._exit(0)
    os.waitpid(pid, 0)
    assert (row[Cell.PID], row[Cell.REQUESTS]) == (pid, 20)
    assert board.column(Cell.REQUESTS) == [0, 20]
