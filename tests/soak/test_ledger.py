"""What a soak excuses: requests on the connections of a worker that was killed, and nothing else."""

from __future__ import annotations

import pytest

from tests.soak.ledger import TOLD, Connection, Kill, Ledger

KILL = Kill(at=10.0, pid=1, ports=frozenset({5001, 5002}))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(kills=[Kill(at=3.0, pid=2, ports=frozenset({5009})), KILL])


def test_request_in_flight_on_a_killed_worker_is_lost_and_no_failure(ledger: Ledger) -> None:
    ledger.failed("kept", "reset", Connection(5001, opened=9.0), began=9.5, now=10.1)
    assert (ledger.lost["kept"], ledger.stale["kept"], ledger.failures) == (1, 0, [])


def test_request_behind_the_kill_is_counted_apart(ledger: Ledger) -> None:
    ledger.failed("kept", "reset", Connection(5001, opened=9.0), began=10.001, now=10.1)
    assert (ledger.lost["kept"], ledger.stale["kept"], ledger.failures) == (0, 1, [])


@pytest.mark.parametrize(
    "connection",
    [
        Connection(5003, opened=9.0),  # another worker's
        Connection(5001, opened=10.5),  # the port again, on a connection of later
        Connection(5009, opened=4.0),  # the same, of an earlier kill
        None,  # nobody took it
    ],
)
def test_everything_else_is_a_failure(ledger: Ledger, connection: Connection | None) -> None:
    ledger.failed("kept", "reset", connection, began=9.5, now=11.0)
    assert len(ledger.failures) == 1
    assert (ledger.lost.total(), ledger.stale.total()) == (0, 0)
    assert ledger.problems() == [f"failure: {ledger.failures[0]}"]


def test_wrong_answers_are_problems_and_many_are_not_all_told(ledger: Ledger) -> None:
    ledger.wrong += ["x"] * (TOLD + 3)
    assert len(ledger.problems()) == TOLD + 1
    assert ledger.problems()[-1] == "and 3 more of: wrong answer"


def test_quantile(ledger: Ledger) -> None:
    for number in range(1, 101):
        ledger.good("kept", number / 100)
    assert ledger.quantile("kept", 50) == pytest.approx(0.505)
    assert ledger.quantile("nobody", 99) == 0.0
