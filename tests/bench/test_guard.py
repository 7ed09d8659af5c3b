import asyncio
from collections.abc import Callable

import pytest
import uvloop

from bench.guard import CASES, Bench, Counting, case, combined, lines, reference, verdict
from bench.scenarios import Load


@pytest.mark.parametrize(
    ("found", "expected"),
    [(1.02, "as recorded"), (0.98, "as recorded"), (1.10, "SLOWER by 10%"), (0.90, "faster by 10%")],
)
def test_a_difference_counts_where_it_is_more_than_the_guard_is_steady(found: float, expected: str) -> None:
    assert verdict(found, 1.0) == expected


def test_a_case_that_is_not_recorded_says_so() -> None:
    assert list(lines({"hello": [1.25, 3.5]}, {})) == [
        "hello         1.250, recorded     -: not recorded (3.50 us here)"
    ]


def test_the_median_process_counts() -> None:
    children = [{"hello": [1.0, 3.0]}, {"hello": [5.0, 9.0]}, {"hello": [1.1, 3.1]}]
    assert combined(children) == {"hello": [1.1, 3.1]}


@pytest.mark.parametrize("make", [case, reference])
@pytest.mark.parametrize("load", CASES.values(), ids=CASES)
def test_every_request_is_answered(load: Load, make: Callable[..., Bench]) -> None:
    async def some_turns() -> None:
        loop = asyncio.get_running_loop()
        bench = make(load, loop)
        await bench.run_turns(3)
        bench.check()
        assert len(bench.times) == 3
        assert bench.least() > 0

    uvloop.run(some_turns())


def test_a_bench_that_is_not_answered_measures_nothing() -> None:
    class Deaf:
        def data_received(self, data: bytes) -> None:
            pass

    async def some_turns() -> None:
        bench = Bench([Deaf()], [Counting()], Load())
        await bench.run_turns(1)
        with pytest.raises(SystemExit, match="measures nothing"):
            bench.check()

    uvloop.run(some_turns())
