"""Proportional memory: asked for while somebody looks, at a bounded rate."""

from __future__ import annotations

import os
import sys

import pytest

from uvicorn.control.memory import PERIOD, PERIOD_NEW, REST, Memory, pss_of


class System:
    """Processes with a size, and a clock that asking moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.cost = 0.0
        self.asked: list[int] = []
        self.memory = Memory(self.read, lambda: self.time)

    def read(self, pid: int) -> int | None:
        self.asked.append(pid)
        self.time += self.cost
        return None if pid == 13 else pid * 1000

    def look(self, *pids: int) -> list[int]:
        """Who was asked about by this look."""
        before = len(self.asked)
        self.memory.look(pids)
        self.memory.wait()
        return self.asked[before:]


def test_what_was_found_is_there_for_the_next_look() -> None:
    system = System()
    assert system.memory.look([1, 2, 13]) in ({}, {1: 1000, 2: 2000})
    system.memory.wait()
    assert system.memory.look([1, 2, 13]) == {1: 1000, 2: 2000}  # one does not tell


def test_it_is_not_asked_for_again_before_it_is_old() -> None:
    system = System()
    assert system.look(1) == [1]
    system.time += PERIOD - 0.1
    assert system.look(1) == []
    system.time += 0.2
    assert system.look(1) == [1]
    assert system.look() == []


def test_a_new_process_is_asked_about_sooner() -> None:
    system = System()
    system.look(1)
    system.time += PERIOD_NEW - 0.1
    assert system.look(1, 2) == []
    system.time += 0.2
    assert system.look(1, 2) == [1, 2]
    assert system.look(2) == []


def test_where_asking_takes_long_it_is_asked_for_seldom() -> None:
    system = System()
    system.cost = 1.0
    system.look(1)
    system.time += REST - 1
    assert system.look(1, 2) == []
    system.time += 2
    assert system.look(1, 2) == [1, 2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")
def test_the_kernel_tells() -> None:
    size = pss_of(os.getpid())
    assert size is not None
    assert size > 2**20


def test_a_process_that_is_gone_has_no_size() -> None:
    assert pss_of(2**22 + 1) is None
