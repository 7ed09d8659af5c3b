"""Shared memory between the master and its workers: one row of 64-bit integers for each worker.

A cell has one writer and any number of readers, and a store of eight aligned bytes is whole on every system that
runs this, so there is no lock. Times are monotonic microseconds. The memory is a file without a name, so that it
outlives an exec of the master.
"""

from __future__ import annotations

import enum
import mmap
import os
import tempfile
import time


class Cell(enum.IntEnum):
    """The cells of a row, and who writes them."""

    PID = 0  # master
    GENERATION = 1  # master
    DRAIN = 2  # master: a Drain value
    LOOP_TICK = 3  # worker's event loop: when it last ran
    THREAD_TICK = 4  # worker's health thread: when it last ran
    ACCEPTING = 5  # worker: whether it takes connections
    CONNECTIONS = 6  # worker: open connections
    REQUESTS = 7  # worker: requests answered so far
    IN_FLIGHT = 8  # worker: running application tasks
    READY = 9  # worker: when it became ready
    # Responses begun so far, by the class of their status, written at once: a worker that is killed has counted all of
    # its answers. Those of no class come first. Worker.
    RESPONSES_OTHER = 10
    RESPONSES_1XX = 11
    RESPONSES_2XX = 12
    RESPONSES_3XX = 13
    RESPONSES_4XX = 14
    RESPONSES_5XX = 15
    WEBSOCKETS = 16  # worker: open WebSocket connections
    LOOP_LAG = 17  # worker: how late the event loop's last tick was, in microseconds
    CPU = 18  # worker: CPU time used so far, in microseconds
    RSS = 19  # worker: resident memory in bytes
    SEQUENCE = 20  # master, in its own row: odd while counters move there
    CONTROL_TICK = 21  # control process, in the master's row: when its event loop last ran
    BYTES_IN = 22  # worker: what clients have sent so far
    BYTES_OUT = 23  # worker: what they were sent so far
    DURATION = 24  # worker: how long all requests answered have taken, in microseconds
    # How many requests took how long; worker. DURATION_BUCKETS cells from here on.
    DURATIONS = 25


# What a worker has done stays done when it is gone: these are added up in the master's row.
RESPONSES = (
    Cell.RESPONSES_1XX,
    Cell.RESPONSES_2XX,
    Cell.RESPONSES_3XX,
    Cell.RESPONSES_4XX,
    Cell.RESPONSES_5XX,
)
# As many as `uvicorn.protocols._state.DURATIONS` has bounds, and one for what is above the last.
DURATION_BUCKETS = 14
DURATION_CELLS = range(Cell.DURATIONS, Cell.DURATIONS + DURATION_BUCKETS)
COUNTERS: tuple[int, ...] = (
    Cell.REQUESTS,
    *RESPONSES,
    Cell.CPU,
    Cell.BYTES_IN,
    Cell.BYTES_OUT,
    Cell.DURATION,
    *DURATION_CELLS,
)


class Drain(enum.IntEnum):
    """How a worker is to leave."""

    NO = 0
    # Siblings go on: leave them the accept queue, and idle connections their time.
    RECYCLE = 1
    # Siblings go on, but not on these sockets: empty the accept queue first.
    MOVE = 2
    # The service stops: empty the accept queue, close idle connections.
    FINAL = 3


ROW_CELLS = 64
# Far more than workers, draining predecessors and successors together; untouched pages cost nothing.
ROWS = 2048


def microseconds() -> int:
    """Monotonic time as the scoreboard writes it."""
    return time.monotonic_ns() // 1000


class Row:
    """One worker's cells."""

    __slots__ = ("_cells", "index")

    def __init__(self, cells: memoryview, index: int) -> None:
        self._cells = cells
        self.index = index

    def __getitem__(self, cell: int) -> int:
        return self._cells[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self._cells[cell] = value

    def part(self, first: int, count: int) -> memoryview:
        """Some cells that follow one another, for one that writes them very often."""
        return self._cells[first : first + count]

    def seconds(self, cell: Cell) -> float:
        """A time cell in seconds."""
        return self[cell] / 1_000_000

    def stamp(self, cell: Cell) -> None:
        """Write the time into a cell."""
        self._cells[cell] = microseconds()

    def clear(self) -> None:
        for cell in range(ROW_CELLS):
            self._cells[cell] = 0


class Scoreboard:
    """All rows.

    Args:
        fd: The descriptor of an existing scoreboard, handed over by an exec; None makes a new one.
    """

    def __init__(self, fd: int | None = None) -> None:
        size = (ROWS + 1) * ROW_CELLS * 8
        self.fd = _nameless_file(size) if fd is None else fd
        self._memory = mmap.mmap(self.fd, size)
        self._cells = memoryview(self._memory).cast("q")
        # The first row is nobody's: its first cell says how many rows there are to look at.
        self._used: set[int] = {0}
        os.set_inheritable(self.fd, False)

    def row(self, index: int) -> Row:
        start = index * ROW_CELLS
        return Row(self._cells[start : start + ROW_CELLS], index)

    def take(self) -> Row:
        """A cleared row that nobody uses.

        Raises:
            RuntimeError: All are in use.
        """
        for index in range(ROWS):
            if index not in self._used:
                return self.claim(index)
        raise RuntimeError(f"All {ROWS} rows of the scoreboard are in use.")

    def claim(self, index: int, clear: bool = True) -> Row:
        """This row, from now on in use."""
        self._used.add(index)
        self._cells[0] = max(self._used) + 1
        row = self.row(index)
        if clear:
            row.clear()
        return row

    def release(self, row: Row) -> None:
        """The row's worker is gone. Cleared at once, so that siblings do not count it; its counters are carried on."""
        own = self.own
        own[Cell.SEQUENCE] += 1
        for cell in COUNTERS:
            own[cell] += row[cell]
        row.clear()
        own[Cell.SEQUENCE] += 1
        self._used.discard(row.index)
        self._cells[0] = max(self._used) + 1

    def column(self, cell: Cell) -> list[int]:
        """One cell of every row in use, the first row included."""
        return self._cells[cell : self._cells[0] * ROW_CELLS : ROW_CELLS].tolist()

    @property
    def own(self) -> Row:
        """The master's own row, behind all others: when its loop last ran, and what workers that are gone have done."""
        return self.row(ROWS)

    def rows(self) -> list[list[int]]:
        """Every row as it is at one moment, by its index; the first one is the master's own.

        While counters move from a row to the master's, a reader could see them twice or not at all, and sums would run
        backwards. So it looks again.
        """
        own = self.own
        found: list[list[int]] = []
        for _ in range(READ_TRIES):
            before = own[Cell.SEQUENCE]
            flat = self._cells[ROW_CELLS : max(1, self._cells[0]) * ROW_CELLS].tolist()
            found = [self._cells[ROWS * ROW_CELLS :].tolist()]
            found += [flat[start : start + ROW_CELLS] for start in range(0, len(flat), ROW_CELLS)]
            if before % 2 == 0 and own[Cell.SEQUENCE] == before:
                break
        return found


# Counters move within microseconds; a master that was killed meanwhile must not hang its readers.
READ_TRIES = 1000


def _nameless_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("uvicorn-scoreboard", os.MFD_CLOEXEC)
    else:  # pragma: no cover - not on Linux
        fd, path = tempfile.mkstemp(prefix="uvicorn-scoreboard-")
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd
