"""What the service manager is told, event by event, without a socket: the machine and its fake children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.supervisor.service import START, Service
from uvicorn.supervisor import events
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.events import Event, PoolSpec
from uvicorn.supervisor.machine import Machine
from uvicorn.supervisor.notices import EXTENSION, FAILURE_LENGTH, STATUS_INTERVAL, STOP_MARGIN, Notices
from uvicorn.supervisor.pool import Worker
from uvicorn.supervisor.state import State

USEC = 1_000_000


class Observed:
    """The machine, with somebody who takes down what is said after each of its steps."""

    def __init__(self, machine: Machine, notices: Notices) -> None:
        self.machine = machine
        self.notices = notices
        self.said: list[tuple[float, list[str]]] = []

    @property
    def state(self) -> State:
        return self.machine.state

    def step(self, now: float, event: Event) -> list[Action]:
        decided = self.machine.step(now, event)
        lines = self.notices.after(now, self.machine.state, decided)
        if lines:
            self.said.append((now, lines))
        return decided

    def next_deadline(self) -> float:
        return min(self.machine.next_deadline(), self.notices.next_deadline())

    def adopt(self, workers: Sequence[Worker], size: int) -> None:
        self.machine.adopt(workers, size)


class Managed(Service):
    """A service whose manager listens."""

    def __init__(
        self, size: int = 2, *, watchdog: float | None = None, adopted: bool = False, **spec: float
    ) -> None:
        super().__init__(size, **spec)
        self.seen = 0
        self.observed = Observed(self.machine, Notices(watchdog, adopted))
        self.machine = self.observed  # type: ignore[assignment]

    def lines(self, *prefixes: str) -> list[str]:
        """What has been said since the last call, in order; only lines that begin so, if any are named."""
        said = self.observed.said[self.seen :]
        self.seen = len(self.observed.said)
        return [
            line for _, lines in said for line in lines if not prefixes or line.startswith(tuple(prefixes))
        ]

    def times(self, line: str) -> list[float]:
        """When a line was said, since the start."""
        return [at - START for at, lines in self.observed.said if line in lines]

    def changes(self) -> list[str]:
        return self.lines("READY", "RELOADING", "STOPPING")

    @property
    def status(self) -> str:
        found = [line for _, lines in self.observed.said for line in lines if line.startswith("STATUS=")]
        return found[-1].removeprefix("STATUS=")

    def booted(self) -> Managed:
        self.boot()
        self.lines()
        return self


# --- starting ----------------------------------------------------------------------------------


def test_ready_is_said_once_when_every_wanted_worker_serves() -> None:
    service = Managed(size=3)
    service.do(events.Start())
    for wid in (1, 2):
        service.ready(wid)
        assert service.changes() == []
    service.ready(3)
    assert service.changes() == ["READY=1"]
    assert service.status == "Serving: generation 1, 3 of 3 worker(s) ready."
    service.exit(2, 1)
    service.all_ready()
    service.pass_time(1000)
    assert service.changes() == []


def test_a_slow_start_asks_for_more_time_but_not_for_more_than_its_own_limit() -> None:
    service = Managed(size=1, startup=95)
    service.do(events.Start())
    service.pass_time(94)
    asked = service.lines("EXTEND_TIMEOUT_USEC=")
    spans = [int(line.partition("=")[2]) / USEC for line in asked]
    assert spans == [min(EXTENSION, 95 - at) for at in range(0, 95, 10)]
    service.ready(1)
    service.lines()
    service.pass_time(1000)
    assert service.lines("EXTEND_TIMEOUT_USEC=") == []


def test_a_start_without_a_limit_asks_for_as_long_as_it_takes() -> None:
    service = Managed(size=1, startup=0)
    service.do(events.Start())
    service.pass_time(5000)
    assert len(service.lines(f"EXTEND_TIMEOUT_USEC={int(EXTENSION * USEC)}")) == 501


def test_what_serves_is_called_ready_when_the_rest_has_had_its_time() -> None:
    service = Managed(size=2, startup=20, limit_restarts=1000)
    service.do(events.Start())
    service.ready(1)
    service.exit(2, 3)
    service.pass_time(19)
    assert service.changes() == []
    assert service.status.startswith("Starting: generation 1, 1 of 2 worker(s) ready. Last failure: Child")
    service.pass_time(1)
    assert service.times("READY=1") == [20]
    assert "1 of 2" in service.status


def test_a_start_that_fails_is_a_stop_with_its_reason() -> None:
    service = Managed(size=1)
    service.do(events.Start())
    service.exit(1, 3)
    assert service.exit_code == 3
    assert service.changes() == ["STOPPING=1"]
    assert "Last failure: No worker could start: exit code 3" in service.status
    assert "Giving up with exit code 3." in service.status


def test_a_hup_before_ready_is_no_reload_for_the_manager_until_there_is_something_to_reload() -> None:
    service = Managed(size=1)
    service.do(events.Start())
    service.do(events.ReloadRequested())
    assert service.changes() == []
    service.all_ready()
    service.rest()
    said = service.changes()
    assert said[0] == "READY=1"
    assert said[-1] == "READY=1"


# --- reloading ---------------------------------------------------------------------------------


def test_a_reload_is_said_with_its_time_and_ready_when_the_last_old_worker_is_replaced() -> None:
    service = Managed(size=2).booted()
    service.do(events.ReloadRequested())
    assert service.lines() == [
        "RELOADING=1",
        f"MONOTONIC_USEC={int(service.now * USEC)}",
        f"EXTEND_TIMEOUT_USEC={int(EXTENSION * USEC)}",
        "STATUS=Reloading: generation 1, 2 of 2 worker(s) ready.",
    ]
    service.ready(3)
    assert service.changes() == []
    service.rest()
    assert service.changes() == ["READY=1"]
    assert "Serving: generation 2, 2 of 2 worker(s) ready" in service.status


@pytest.mark.parametrize("kind", ["settings", "canary"])
def test_a_reload_that_fails_is_over_as_well_and_the_status_says_why(kind: str) -> None:
    service = Managed(size=2).booted()
    if kind == "settings":
        service.settings = "a.yaml:3: worker:\n  no such setting"
        why = "Reload failed, the settings cannot be used: a.yaml:3: worker: no such setting."
    else:
        why = "Reload failed, its first worker did not start: exit code 3"
    service.do(events.ReloadRequested())
    if kind == "canary":
        service.exit(3, 3)
    assert service.changes() == ["RELOADING=1", "READY=1"]
    assert why in service.status
    assert service.status.startswith("Serving: generation 1, 2 of 2 worker(s) ready")
    # It is said until a reload succeeds.
    service.settings = service.spec
    service.do(events.ReloadRequested())
    service.rest()
    service.pass_time(1)
    assert service.status == f"Serving: generation {service.state.generation}, 2 of 2 worker(s) ready."


def test_a_second_reload_is_said_again_with_a_later_time() -> None:
    service = Managed(size=1).booted()
    service.do(events.ReloadRequested())
    service.pass_time(3)
    service.do(events.ReloadRequested())
    times = [line for line in service.lines("MONOTONIC_USEC=")]
    assert times == [f"MONOTONIC_USEC={int(at * USEC)}" for at in (START, START + 3)]
    service.rest()
    assert service.changes() == ["READY=1"]


def test_a_long_roll_asks_for_more_time_as_long_as_it_gets_on() -> None:
    service = Managed(size=2, startup=60, drain=10).booted()
    service.do(events.ReloadRequested())
    service.pass_time(50)
    service.ready(3)
    service.lines()
    service.pass_time(55)  # 105 s after the signal, and 55 s after the last progress
    asked = service.lines("EXTEND_TIMEOUT_USEC=")
    assert 5 <= len(asked) <= 6
    assert asked[-1] == f"EXTEND_TIMEOUT_USEC={int((70 - 50) * USEC)}"


def test_a_roll_that_does_not_get_on_asks_no_more_after_its_limit() -> None:
    service = Managed(size=2, startup=20, drain=15, limit_restarts=1000).booted()
    service.do(events.ReloadRequested())
    service.ready(3)
    service.leave_all_told()
    service.lines()
    for _ in range(40):  # the next one never starts
        service.pass_time(5)
        service.leave_all_told()
    asked = [int(line.partition("=")[2]) / USEC for line in service.lines("EXTEND_TIMEOUT_USEC=")]
    assert asked == [25, 15, 5]
    assert service.changes() == []
    for _ in range(10):  # now it does
        service.rest()
        service.pass_time(5)
    assert service.changes() == ["READY=1"]


def test_a_pause_ends_a_reload_that_goes_on() -> None:
    service = Managed(size=2).booted()
    service.do(events.ReloadRequested())
    service.ready(3)
    service.do(events.PauseRequested())
    assert service.changes() == ["RELOADING=1", "READY=1"]
    service.leave_all_told()
    service.pass_time(1)
    assert service.status == "Paused: generation 2, 0 of 0 worker(s) ready."


# --- upgrading ---------------------------------------------------------------------------------


def test_an_upgrade_is_a_reload_until_the_program_is_another_one() -> None:
    service = Managed(size=1).booted()
    service.do(events.UpgradeRequested())
    assert service.changes() == ["RELOADING=1"]
    assert service.status.startswith("Upgrading:")
    before = len(service.observed.said)
    service.end_trial(0)
    # The step that asks for the exec says nothing; the exec that fails is over.
    assert service.execs == 1
    assert [lines[0] for _, lines in service.observed.said[before:]] == ["READY=1"]
    assert "Upgrade failed: it is only a test." in service.status


def test_a_trial_that_fails_ends_it() -> None:
    service = Managed(size=1).booted()
    service.do(events.UpgradeRequested())
    service.end_trial(3)
    assert service.changes() == ["RELOADING=1", "READY=1"]
    assert "Upgrade failed: the new program does not start (exit code 3)." in service.status


def test_a_trial_that_cannot_be_started_ends_it() -> None:
    service = Managed(size=1).booted()
    service.trial_fails = True
    service.do(events.UpgradeRequested())
    assert service.changes() == ["RELOADING=1", "READY=1"]


def test_the_program_after_an_upgrade_is_ready_when_its_workers_have_replaced_the_old_ones() -> None:
    before = Service(size=2).boot()
    service = Managed(size=2, generation=2, adopted=True, watchdog=30)  # type: ignore[arg-type]
    service.children = before.children
    service.machine.adopt(list(before.state.pool), 2)
    service._next_pid = 200
    service._known_wids = set(before._known_wids)
    service.do(events.Start())
    assert service.lines() == [
        f"EXTEND_TIMEOUT_USEC={int(EXTENSION * USEC)}",
        "WATCHDOG=1",
        "STATUS=Reloading: generation 2, 2 of 2 worker(s) ready.",
    ]
    service.rest()
    assert service.changes() == ["READY=1"]


# --- stopping ----------------------------------------------------------------------------------


def test_a_stop_is_said_at_once_and_asks_for_the_time_that_a_drain_may_take() -> None:
    service = Managed(size=2, drain=12).booted()
    service.stop_requested = True
    service.do(events.StopRequested("SIGTERM"))
    assert service.lines() == [
        "STOPPING=1",
        f"EXTEND_TIMEOUT_USEC={int((12 + STOP_MARGIN) * USEC)}",
        "STATUS=Stopping: generation 1, 0 of 2 worker(s) ready, 2 draining.",
    ]
    service.leave_all_told()
    assert service.exit_code == 0
    assert service.lines("STOPPING", "READY", "WATCHDOG") == []


def test_a_long_drain_asks_again_but_not_for_ever() -> None:
    service = Managed(size=1, drain=100).booted()
    service.do(events.StopRequested("SIGTERM"))
    service.pass_time(99)
    asked = [int(line.partition("=")[2]) / USEC for line in service.lines("EXTEND_TIMEOUT_USEC=")]
    assert asked == [min(EXTENSION, 100 + STOP_MARGIN - at) for at in range(0, 99, 10)]


def test_a_stop_that_serves_on_first_has_begun_for_the_manager() -> None:
    service = Managed(size=1, shutdown_delay=15, drain=5).booted()
    service.do(events.StopRequested("SIGTERM"))
    assert service.changes() == ["STOPPING=1"]
    assert service.status == "Serving on before the stop: generation 1, 1 of 1 worker(s) ready."
    service.do(events.StopRequested("SIGTERM"))
    assert service.changes() == []


def test_a_crash_loop_is_a_stop_with_its_reason() -> None:
    service = Managed(size=1, limit_restarts=1).booted()
    service.exit(1, -11)
    assert service.changes() == ["STOPPING=1"]
    assert "Giving up with exit code 70." in service.status


# --- the watchdog ------------------------------------------------------------------------------


def test_a_sign_of_life_goes_out_three_times_in_each_period() -> None:
    service = Managed(size=1, watchdog=9).boot()
    assert isinstance(service, Managed)
    service.pass_time(60)
    assert service.times("WATCHDOG=1") == list(range(0, 61, 3))


def test_nothing_is_said_to_a_watchdog_that_does_not_wait() -> None:
    service = Managed(size=1).booted()
    service.pass_time(100)
    assert service.lines("WATCHDOG") == []


def test_before_the_service_is_ready_there_is_no_watchdog() -> None:
    service = Managed(size=1, watchdog=3)
    service.do(events.Start())
    service.pass_time(100)
    assert service.lines("WATCHDOG") == []


@pytest.mark.parametrize("how", ["loop_hangs", "stopped"])
def test_workers_that_are_all_stuck_or_stopped_starve_it(how: str) -> None:
    service = Managed(size=2, watchdog=3, stall=0).booted()
    for child in service.children.values():
        setattr(child, how, True)
    service.pass_time(8)
    service.lines()
    service.pass_time(50)
    assert service.lines("WATCHDOG") == []
    for child in service.children.values():
        setattr(child, how, False)
    service.pass_time(5)
    assert service.lines("WATCHDOG")


def test_one_worker_that_serves_is_enough() -> None:
    service = Managed(size=2, watchdog=3, stall=0).booted()
    service.children[1].loop_hangs = True
    service.pass_time(20)
    service.lines()
    service.pass_time(30)
    assert len(service.lines("WATCHDOG")) == 30
    assert ", 1 stalled." in service.status


def test_where_nobody_is_meant_to_serve_the_watchdog_is_fed() -> None:
    service = Managed(size=2, watchdog=3).booted()
    service.do(events.PauseRequested())
    service.leave_all_told()
    service.lines()
    service.pass_time(30)
    assert len(service.lines("WATCHDOG")) == 30


def test_the_start_of_a_replacement_feeds_it_for_as_long_as_a_start_may_take() -> None:
    service = Managed(size=1, watchdog=3, startup=20, limit_restarts=1000).booted()
    service.exit(1, 1)
    service.pass_time(19)
    assert len(service.lines("WATCHDOG")) >= 18
    service.pass_time(30)  # the first start has been aborted, the next is under way
    service.lines()
    service.pass_time(10)
    assert service.lines("WATCHDOG") == []


# --- for people --------------------------------------------------------------------------------


def test_the_status_is_said_when_it_changes_and_only_a_few_times_a_second() -> None:
    service = Managed(size=8).booted()
    service.pass_time(10)
    service.lines()
    service.exit(1, 1)
    service.exit(2, 1)
    service.exit(3, 1)
    assert len(service.lines("STATUS")) == 1
    service.pass_time(STATUS_INTERVAL)
    assert service.lines("STATUS") == ["STATUS=Serving: generation 1, 5 of 8 worker(s) ready."]
    service.pass_time(100)
    assert service.lines("STATUS") == []


def test_a_status_is_one_short_line() -> None:
    service = Managed(size=1).booted()
    service.settings = "x\n\n" * 1000
    service.do(events.ReloadRequested())
    (status,) = service.lines("STATUS=Serving")
    assert "\n" not in status
    assert len(status) < FAILURE_LENGTH + 100


# --- whatever happens --------------------------------------------------------------------------

THINGS = st.sampled_from(
    ["ready", "die", "leave", "hup", "bad hup", "usr2", "trial", "winch", "time", "hang"]
)


def do(service: Managed, what: str) -> None:
    children = list(service.children.values())
    match what:
        case "ready":
            service.all_ready()
        case "die" if children:
            service.exit(children[0].wid, 1)
        case "leave":
            service.leave_all_told()
        case "hup" | "bad hup":
            service.settings = service.spec if what == "hup" else "wrong"
            service.do(events.ReloadRequested())
        case "usr2":
            service.do(events.UpgradeRequested())
        case "trial" if service.trial is not None:
            service.end_trial(len(children) % 2)
        case "winch":
            service.do(events.PauseRequested())
        case "hang" if children:
            children[-1].loop_hangs = not children[-1].loop_hangs
        case _:
            service.pass_time(7.0)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    spec=st.builds(PoolSpec, size=st.integers(1, 3), startup=st.sampled_from([0.0, 20.0])),
    things=st.lists(THINGS, max_size=30),
)
def test_what_is_said_is_in_order_whatever_happens(spec: PoolSpec, things: list[str]) -> None:
    service = Managed(watchdog=9, **asdict(spec))
    service.do(events.Start())
    for what in things:
        if service.exit_code is None:
            do(service, what)
    if service.exit_code is None:
        service.stop_requested = True
        service.do(events.StopRequested("SIGTERM"))
        service.leave_all_told()
    said = service.changes()
    assert said[-1] == "STOPPING=1"
    assert said.count("STOPPING=1") == 1
    order = [line for i, line in enumerate(said[:-1]) if line != "RELOADING=1" or said[i - 1] != line]
    assert all(line == ("READY=1", "RELOADING=1")[i % 2] for i, line in enumerate(order)), said
