"""Reloads that come faster than workers start, on the machine alone."""

from __future__ import annotations

import pytest

from tests.supervisor.service import Service
from uvicorn.supervisor import actions, events
from uvicorn.supervisor.reloads import OVERTAKEN_MOST


def hup(service: Service, number: int = 0) -> None:
    """A reload is asked for, and who was given up before leaves at once."""
    service.do(events.ReloadRequested(number))
    for child in [child for child in service.children.values() if child.told]:
        service.exit(child.wid)


def loads(service: Service) -> int:
    return sum(isinstance(action, actions.LoadSettings) for action in service.done)


@pytest.fixture
def stormy() -> Service:
    """A reload with a canary, the last of as many as may take another one's place."""
    service = Service(2).boot()
    for _ in range(OVERTAKEN_MOST + 1):
        hup(service)
    assert loads(service) == OVERTAKEN_MOST + 1
    return service


def test_a_few_in_a_row_start_over(stormy: Service) -> None:
    assert stormy.log.count("Received SIGHUP, restarting processes.") == OVERTAKEN_MOST + 1
    assert not any("faster than workers start" in text for text in stormy.log)


def test_the_next_ones_are_one_that_follows(stormy: Service) -> None:
    for _ in range(50):
        hup(stormy)
    assert loads(stormy) == OVERTAKEN_MOST + 1
    assert sum("faster than workers start" in text for text in stormy.log) == 1
    generation = stormy.machine.state.last_generation
    stormy.rest()
    assert f"Reload complete: generation {generation} serves with 2 worker(s)." in stormy.log
    assert f"Reload complete: generation {generation + 1} serves with 2 worker(s)." in stormy.log
    assert loads(stormy) == OVERTAKEN_MOST + 2


def test_a_start_that_hangs_has_a_few_seconds(stormy: Service) -> None:
    hup(stormy)
    due = stormy.machine.next_deadline()
    assert due <= stormy.now + 10
    stormy.now = stormy.machine.state.again_at
    stormy.do(events.Wake())
    assert loads(stormy) == OVERTAKEN_MOST + 2


def test_one_that_fails_is_followed_at_once(stormy: Service) -> None:
    hup(stormy)
    canary = next(child for child in stormy.children.values() if not child.is_ready and not child.told)
    stormy.exit(canary.wid, 1)
    assert loads(stormy) == OVERTAKEN_MOST + 2


def test_who_asked_meanwhile_waits_for_the_one_that_follows(stormy: Service) -> None:
    hup(stormy, 7)
    hup(stormy, 8)
    assert not stormy.answers
    stormy.rest()
    assert [stormy.answers[number][0] for number in (7, 8)] == [True, True]
    assert stormy.answers[7][1].startswith(f"Reload complete: generation {stormy.machine.state.generation} ")


def test_afterwards_a_few_in_a_row_start_over_again(stormy: Service) -> None:
    hup(stormy)
    stormy.rest()
    before = loads(stormy)
    for _ in range(OVERTAKEN_MOST + 1):
        hup(stormy)
    assert loads(stormy) == before + OVERTAKEN_MOST + 1


def test_a_pause_goes_before(stormy: Service) -> None:
    hup(stormy, 7)
    stormy.do(events.PauseRequested())
    assert stormy.answers == {7: (False, "All workers are to leave.")}
    stormy.rest()
    assert loads(stormy) == OVERTAKEN_MOST + 1


def test_a_stop_goes_before(stormy: Service) -> None:
    hup(stormy, 7)
    stormy.stop_requested = True
    stormy.do(events.StopRequested("SIGTERM"))
    assert stormy.answers == {7: (False, "The service stops.")}
    stormy.leave_all_told()
    assert stormy.exit_code == 0
    assert loads(stormy) == OVERTAKEN_MOST + 1


def test_while_it_serves_on_before_a_stop_nothing_waits_any_more() -> None:
    service = Service(2, shutdown_delay=5).boot()
    for number in range(1, OVERTAKEN_MOST + 3):
        hup(service, number)
    service.do(events.StopRequested("SIGTERM"))
    assert service.answers[OVERTAKEN_MOST + 2] == (False, "The service stops.")
    service.wake()
