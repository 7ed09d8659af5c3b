"""What counts as level, and what a process really has."""

from __future__ import annotations

import os
import socket

import pytest

from tests.soak.disturbances import connections, state
from tests.soak.report import Report, Tolerance
from tests.soak.vitals import Level, Sample, Vitals, levels, opened, sample

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")


def samples(*memory: float) -> list[Sample]:
    return [Sample(Vitals(20.0, 11), {1: Vitals(each, 19), 2: Vitals(each, 21)}) for each in memory]


def test_levels_are_the_medians_of_the_first_and_the_last_third() -> None:
    found = {each.what: each for each in levels(samples(30, 31, 32, 50, 60, 70, 40, 41, 90))}
    assert found["workers, MiB"] == Level("workers, MiB", 31, 41)
    assert found["workers, descriptors"] == Level("workers, descriptors", 20, 20)
    assert found["master, MiB"] == Level("master, MiB", 20, 20)


def test_a_moment_without_workers_belongs_to_no_third() -> None:
    found = levels([*samples(30, 30, 30), Sample(Vitals(20.0, 11), {})])
    assert found[2].last == 30


@pytest.mark.parametrize(("last", "rises"), [(100.0, False), (104.9, False), (105.1, True), (90.0, False)])
def test_what_rises_is_above_the_share_and_the_least(last: float, rises: bool) -> None:
    assert Level("x", 100.0, last).rises(0.05, 2.0) is rises
    assert not Level("x", 10.0, 12.0).rises(0.05, 2.0)


def test_what_is_not_level_is_a_problem() -> None:
    report = Report(1, 1.0, Tolerance(0.05, 2.0, 2.0), parts={"undisturbed": samples(30, 31, 32, 33, 39, 40)})
    report.ledger.good("kept", 0.1)
    (problem,) = report.problems()
    assert problem == "undisturbed: not level: workers, MiB: 30.5 in the first third, 39.5 in the last"


def test_descriptors_that_stay_are_a_problem() -> None:
    report = Report(1, 1.0, Tolerance(0.05, 2.0, 2.0), descriptors=([19, 19], [19, 20]))
    report.ledger.good("kept", 0.1)
    assert len(report.problems()) == 1


def test_opened_counts_descriptors() -> None:
    before = opened(os.getpid())
    with socket.socket(), open(os.devnull, "rb"):
        assert opened(os.getpid()) == before + 1


def test_sample_passes_over_a_process_that_has_gone() -> None:
    found = sample(os.getpid(), [os.getpid(), 2**22 - 1])
    assert [*found.workers] == [os.getpid()]
    assert found.master.memory > 1


def test_connections_are_those_that_a_process_has_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)) as first,
            socket.create_connection(("127.0.0.1", port)),  # waits in the queue: nobody's
        ):
            accepted, _ = listener.accept()
            with accepted:
                assert [*connections(os.getpid(), port)] == [first.getsockname()[1]]
    assert state(os.getpid()) in "RS"
