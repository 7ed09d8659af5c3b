"""The machine as a whole: every event in every phase, and the stories that DESIGN tells."""

from __future__ import annotations

import pytest

from tests.supervisor.service import Service, respec
from uvicorn.supervisor import events
from uvicorn.supervisor.actions import (
    Abandon,
    Abort,
    Action,
    Adopt,
    CloseListeners,
    ExecUpgrade,
    Exit,
    Forget,
    Hurry,
    Inspect,
    Kill,
    KillTrial,
    LoadSettings,
    Log,
    ReadHealth,
    ReopenLogs,
    Spawn,
    StartTrial,
    TellToDrain,
)
from uvicorn.supervisor.events import Event, PoolSpec
from uvicorn.supervisor.machine import MAX_SIZE, Machine
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.state import Phase

TERM = events.StopRequested("SIGTERM")
HUP = events.ReloadRequested()
TTIN = events.ScaleRequested(+1)
TTOU = events.ScaleRequested(-1)
WINCH = events.PauseRequested()
USR2 = events.UpgradeRequested()


def spawned(actions: list[Action]) -> list[tuple[int, int]]:
    """Slot and generation of each start."""
    return [(action.slot, action.generation) for action in actions if isinstance(action, Spawn)]


def told(actions: list[Action]) -> list[int]:
    """Who was told to leave."""
    return [action.wid for action in actions if isinstance(action, TellToDrain)]


def only(actions: list[Action], *kinds: type) -> list[Action]:
    return [action for action in actions if isinstance(action, kinds)]


# --- every event in every phase ----------------------------------------------------------------

EVENTS: list[Event] = [
    events.Start(),
    events.Wake(),
    events.Spawned(1, 100),
    events.Spawned(99, 100),
    events.SpawnFailed(1, "no"),
    events.SpawnFailed(99, "no"),
    events.MoldSpawned(1, 200),
    events.MoldSpawnFailed(1, "no"),
    events.MoldLoaded(1, 2**20),
    events.MoldComplained(1, "SyntaxError"),
    events.Ready(1),
    events.Ready(99),
    events.RecycleWanted(1, "old"),
    events.RecycleWanted(99, "old"),
    events.Complained(1, "SyntaxError"),
    events.Complained(99, "SyntaxError"),
    events.StoppedAccepting(1),
    events.StoppedAccepting(99),
    events.Exited(100, 0),
    events.Exited(99, 0),
    events.HealthRead((events.Reading(1, 0.0, 0.0), events.Reading(99, 0.0, 0.0))),
    events.Inspected(1, True),
    events.Inspected(1, False),
    events.Inspected(99, False),
    TERM,
    HUP,
    events.SettingsLoaded(2, PoolSpec(3)),
    events.SettingsRejected(2, "wrong"),
    TTIN,
    TTOU,
    events.ReopenRequested(),
    WINCH,
    USR2,
    events.ReloadRequested(9),
    events.StopRequested("STOP", 9),
    events.ReopenRequested(9),
    events.UpgradeRequested(9),
    events.ResizeRequested(3, 9),
    events.ResizeRequested(0, 9),
    events.RestartRequested(1, 9),
    events.RestartRequested(99, 9),
    events.DumpRequested(1, 9),
    events.DumpRequested(99, 9),
    events.Reported(1, "here"),
    events.Reported(99, "here"),
    events.Reopened(1),
    events.Reopened(99),
    events.OverLimit(1, "too much"),
    events.OverLimit(99, "too much"),
    events.TrialStarted(55),
    events.TrialFailed("no"),
]


def in_phase(name: str) -> Machine:
    """A machine that has come to this phase, with one worker (wid 1, pid 100) and no world around it."""
    machine = Machine(PoolSpec(1, shutdown_delay=10 if name == "lingering" else 0), lambda: 0.5)
    machine.step(1.0, events.Start())
    if name == "booting":
        return machine
    machine.step(1.0, events.Spawned(1, 100))
    machine.step(1.0, events.Ready(1))
    if name in ("reloading", "paused"):
        machine.step(1.0, HUP if name == "reloading" else WINCH)
    elif name in ("lingering", "stopping", "exited"):
        machine.step(1.0, TERM)
    if name == "exited":
        machine.step(1.0, events.Exited(100, 0))
    return machine


@pytest.mark.parametrize("event", EVENTS, ids=repr)
@pytest.mark.parametrize(
    "phase", ["booting", "running", "reloading", "paused", "lingering", "stopping", "exited"]
)
def test_no_event_raises_in_any_phase_and_a_wake_never_asks_for_another_at_once(
    phase: str, event: Event
) -> None:
    machine = in_phase(phase)
    machine.step(2.0, event)
    machine.step(2.0, event)
    machine.step(2.5, events.Wake())
    assert machine.next_deadline() > 2.5
    if phase in ("lingering", "stopping", "exited"):
        assert not spawned(machine.step(3.0, events.Wake()))


def test_every_event_is_among_those_tested() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_after_the_end_nothing_is_done_and_nothing_waited_for(event: Event) -> None:
    machine = in_phase("exited")
    assert machine.state.phase is Phase.EXITED
    assert machine.step(5.0, event) == []
    assert machine.next_deadline() == NEVER


# --- boot --------------------------------------------------------------------------------------


def test_boot_starts_all_workers_at_once() -> None:
    service = Service(3)
    assert spawned(service.do(events.Start())) == [(1, 1), (2, 1), (3, 1)]
    assert service.holders() == {1: [1], 2: [1], 3: [1]}


def test_a_worker_is_ready_only_when_it_says_so() -> None:
    service = Service(1)
    service.do(events.Start())
    service.pass_time(200)
    assert service.stage(1) is Stage.STARTING
    service.ready(1)
    assert service.stage(1) is Stage.READY


def test_health_is_read_once_a_second() -> None:
    service = Service(1).boot()
    assert len(only(service.pass_time(10), ReadHealth)) == 10


def test_health_is_read_five_times_in_a_short_healthcheck() -> None:
    service = Service(1, healthcheck=1).boot()
    assert len(only(service.pass_time(1.05), ReadHealth)) == 5


@pytest.mark.parametrize("code", [0, 1, 3, 255, -9])
def test_a_failed_start_at_the_first_boot_ends_the_master_with_code_3(code: int) -> None:
    service = Service(3)
    service.do(events.Start())
    actions = service.exit(2, code)
    assert told(actions) == [1, 3]
    service.leave_all_told()
    assert service.exit_code == 3


def test_a_start_that_hangs_at_the_first_boot_is_aborted_and_ends_the_master_with_code_3() -> None:
    service = Service(2, startup=20)
    service.do(events.Start())
    actions = service.pass_time(20)
    assert [type(action) for action in only(actions, Abort, TellToDrain)] == [Abort, TellToDrain]
    assert service.logged("start-up not complete after 20 s")
    service.leave_all_told()
    assert service.exit_code == 3


def test_a_start_may_take_for_ever_where_the_limit_is_0() -> None:
    service = Service(1, startup=0)
    service.do(events.Start())
    service.pass_time(1000)
    assert service.stage(1) is Stage.STARTING


def test_a_start_that_hangs_is_not_judged_by_the_health_check() -> None:
    service = Service(1, startup=300).boot()
    service.exit(1)
    service.children[2].loop_hangs = service.children[2].thread_hangs = True
    service.pass_time(200)
    assert service.stage(2) is Stage.STARTING


# --- a worker dies -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 255, -9, -11])
def test_a_worker_that_dies_is_replaced_at_once_whatever_its_exit_code(code: int) -> None:
    service = Service(2).boot()
    actions = service.exit(2, code)
    assert spawned(actions) == [(2, 1)]
    assert told(actions) == []
    service.all_ready()
    assert service.holders() == {1: [1], 2: [1]}


def test_starts_that_fail_are_tried_again_ever_more_slowly() -> None:
    service = Service(2).boot()
    service.exit(2)
    delays = []
    for _ in range(8):
        failed_at = service.now
        service.exit(service.wid_of(2), 1)
        while len(service.holders()) == 1:
            service.wake()
        delays.append(service.now - failed_at)
    assert delays == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30])
    assert service.exit_code is None


def test_backoff_is_spread_by_chance() -> None:
    service = Service(2, random=lambda: 1.0).boot()
    service.exit(2)
    service.exit(3, 1)
    assert service.state.pool.slot(2).not_before == pytest.approx(service.now + 0.6)


def test_failures_are_forgotten_after_a_minute_of_service() -> None:
    service = Service(2).boot()
    service.exit(2)
    for _ in range(3):
        service.exit(service.wid_of(2), 1)
        while len(service.holders()) == 1:
            service.wake()
    service.ready(service.wid_of(2))
    service.pass_time(60)
    service.exit(service.wid_of(2))  # replaced at once
    failed_at = service.now
    service.exit(service.wid_of(2), 1)
    assert service.state.pool.slot(2).not_before == failed_at + 0.5


def test_a_worker_that_keeps_dying_young_waits_from_the_fourth_time_on() -> None:
    service = Service(2).boot()
    for _ in range(3):
        service.exit(service.wid_of(2), 1)
        service.ready(service.wid_of(2))
    service.exit(service.wid_of(2), 1)
    assert service.holders() == {1: [1]}
    service.pass_time(0.5)
    assert service.holders() == {1: [1], 2: [1]}


def test_a_slot_that_waits_keeps_the_machine_from_nothing_else() -> None:
    service = Service(2).boot()
    service.exit(2)
    service.exit(3, 1)
    service.exit(1, -9)
    assert service.holders() == {1: [1]}


def test_unknown_children_are_of_no_interest() -> None:
    service = Service(1).boot()
    assert service.do(events.Exited(99_999, 3)) == []


# --- the crash loop ----------------------------------------------------------------------------


def test_a_crash_loop_ends_the_master_with_code_70() -> None:
    service = Service(1, limit_restarts=5).boot()
    for _ in range(5):
        service.exit(service.wid_of(1), -9)
        if service.exit_code is None and service.children:
            service.all_ready()
    assert service.exit_code == 70
    assert service.logged(
        "No worker is ready, and 5 had to be replaced within a minute. Giving up with exit code 70."
    )


def test_workers_that_are_told_to_leave_by_hand_are_replaced_at_once_and_no_crash_loop() -> None:
    service = Service(3, limit_restarts=3).boot()
    for _ in range(3):
        leaving = [service.wid_of(slot) for slot in (1, 2, 3)]
        for slot, wid in enumerate(leaving, 1):
            assert spawned(service.do(events.StoppedAccepting(wid))) == [(slot, 1)]
        for wid in leaving:
            service.exit(wid)
        service.all_ready()
    assert service.exit_code is None
    assert not service.logged("died")


def test_a_worker_that_leaves_as_soon_as_it_is_ready_waits_from_the_fourth_time_on() -> None:
    service = Service(2).boot()
    for _ in range(4):
        wid = service.wid_of(2)
        service.do(events.StoppedAccepting(wid))
        service.exit(wid)
        service.all_ready()
    assert service.holders() == {1: [1]}
    service.pass_time(0.5)
    assert service.holders() == {1: [1], 2: [1]}


def test_a_worker_that_leaves_by_itself_has_the_time_of_any_other_that_drains() -> None:
    service = Service(1, drain=42).boot()
    service.do(events.StoppedAccepting(1))
    service.all_ready()
    service.pass_time(41)
    assert service.children[1].told == []
    service.pass_time(1.5)
    assert service.children[1].told == ["abort"]


def test_no_number_of_restarts_ends_a_service_that_still_serves() -> None:
    service = Service(2, limit_restarts=5).boot()
    for _ in range(50):
        service.exit(service.wid_of(2), -9)
        service.all_ready()
    assert service.exit_code is None


def test_restarts_are_forgotten_after_a_minute() -> None:
    service = Service(1, limit_restarts=2).boot()
    for _ in range(10):
        service.exit(service.wid_of(1), -9)
        service.all_ready()
        service.pass_time(60)
    assert service.exit_code is None


def test_starts_that_keep_failing_when_nobody_serves_any_more_are_a_crash_loop() -> None:
    service = Service(1, limit_restarts=3).boot()
    service.exit(1)
    while service.exit_code is None and service.holders():
        service.exit(service.wid_of(1), 1)
        if service.exit_code is None:
            service.pass_time(1.1)
    assert service.exit_code == 70


# --- health ------------------------------------------------------------------------------------


def test_a_stalled_worker_that_goes_on_is_left_alone() -> None:
    service = Service(2).boot()
    child = service.children[1]
    child.loop_hangs = True
    service.pass_time(7)
    assert service.stage(1) is Stage.STALLED
    child.loop_hangs = False
    service.pass_time(2)
    assert service.stage(1) is Stage.READY
    assert only(service.done, Abort, TellToDrain) == []


def test_a_stalled_worker_is_replaced_at_its_deadline() -> None:
    service = Service(2, stall=30).boot()
    stuck_at = service.now
    service.children[1].loop_hangs = True
    service.pass_time(29.5)
    assert service.stage(1) is Stage.STALLED
    actions = service.pass_time(1)
    assert only(actions, Abort, Spawn) == [Abort(1), Spawn(3, 1, 1)]
    assert service.worker(1).since == stuck_at + 30


def test_a_stalled_worker_may_stall_for_ever_where_the_limit_is_0() -> None:
    service = Service(2, stall=0).boot()
    service.children[1].loop_hangs = True
    service.pass_time(1000)
    assert service.stage(1) is Stage.STALLED


def test_an_aborted_worker_that_stays_is_killed_after_two_seconds_and_again() -> None:
    service = Service(2).boot()
    service.children[1].thread_hangs = True
    service.pass_time(30)
    assert service.children[1].told == ["abort", "kill", "kill", "kill", "kill", "kill"]
    service.exit(1, -9)
    assert service.holders() == {1: [1], 2: [1]}
    assert service.logged("is still there 5 s after SIGKILL.") == 4


def test_a_silent_worker_is_looked_at_and_replaced_at_once() -> None:
    service = Service(2).boot()
    service.children[1].thread_hangs = True
    actions = service.pass_time(6.5)
    assert only(actions, Inspect, Abort, Spawn) == [Inspect(1), Abort(1), Spawn(3, 1, 1)]
    assert service.logged("no sign of life for 5 s")


def test_a_process_that_somebody_has_stopped_is_left_alone_and_goes_on() -> None:
    service = Service(2).boot()
    child = service.children[1]
    child.stopped = True
    service.pass_time(1000)
    assert service.logged("is stopped by somebody") == 1
    child.stopped = False
    service.pass_time(2)
    assert service.stage(1) is Stage.READY
    assert not service.worker(1).frozen
    assert only(service.done, Abort) == []


def test_a_process_is_not_aborted_in_the_moment_in_which_it_goes_on() -> None:
    service = Service(2).boot()
    child = service.children[1]
    child.stopped = True
    service.pass_time(20)
    child.stopped, child.thread_hangs = False, True  # no longer stopped, but it has not ticked yet
    service.pass_time(5)
    child.thread_hangs = False
    service.pass_time(20)
    assert only(service.done, Abort) == []


def test_a_process_that_goes_on_without_a_sign_of_life_is_replaced() -> None:
    service = Service(2).boot()
    child = service.children[1]
    child.stopped = True
    service.pass_time(20)
    child.stopped, child.thread_hangs = False, True
    service.pass_time(20)
    assert child.told[0] == "abort"


def test_a_stalled_process_that_was_stopped_meanwhile_has_its_clock_started_again() -> None:
    service = Service(2, stall=30).boot()
    child = service.children[1]
    child.loop_hangs = True
    service.pass_time(10)
    child.stopped = True
    service.pass_time(100)
    assert service.stage(1) is Stage.STALLED
    assert service.worker(1).deadline == NEVER
    child.stopped = False
    service.pass_time(20)
    assert service.stage(1) is Stage.STALLED
    service.pass_time(30)
    assert child.told[0] == "abort"
    assert service.logged("event loop stalled for 30 s") == 1


def test_a_stopped_process_that_goes_on_is_not_blamed_for_the_time_in_which_it_stood() -> None:
    service = Service(2, stall=30).boot()
    child = service.children[1]
    child.stopped = True
    service.pass_time(1000)
    child.stopped, child.loop_hangs = False, True  # its thread has ticked, its event loop has not yet
    service.pass_time(8)
    child.loop_hangs = False
    service.pass_time(2)
    assert service.stage(1) is Stage.READY
    assert only(service.done, Abort) == []


def test_a_worker_of_another_generation_is_judged_by_its_own_health_check() -> None:
    service = Service(2, healthcheck=5).boot()
    service.settings = respec(service.spec, healthcheck=0.1)
    service.do(HUP)
    service.ready(3)
    service.machine.step(
        service.now, events.HealthRead((events.Reading(2, service.now - 1, service.now - 1),))
    )
    assert service.stage(2) is Stage.READY


# --- a late master -----------------------------------------------------------------------------


@pytest.mark.parametrize("children_too", [True, False])
def test_a_late_master_blames_nobody(children_too: bool) -> None:
    service = Service(2).boot()
    service.pass_time(10)
    service.sleep(3600, children_too)
    service.pass_time(60)
    assert service.state.restarts == []
    assert {service.stage(wid) for wid in (1, 2)} == {Stage.READY}
    assert only(service.done, Abort, Inspect) == []


def test_after_it_was_late_the_master_still_finds_who_hangs() -> None:
    service = Service(2).boot()
    service.pass_time(10)
    service.children[1].thread_hangs = True
    service.sleep(3600, children_too=True)
    assert only(service.pass_time(7), Abort) == [Abort(1)]


def test_time_in_which_the_master_was_late_is_no_part_of_any_clock() -> None:
    service = Service(4, startup=20, stall=30, drain=40).boot()
    service.children[1].loop_hangs = True
    service.pass_time(10)
    service.exit(3)  # a start that has 20 s
    service.do(TTOU)  # a drain that has 40 s
    assert [service.stage(wid) for wid in (1, 4, 5)] == [Stage.STALLED, Stage.DRAINING, Stage.STARTING]
    service.sleep(1000, children_too=True)
    service.pass_time(18)
    assert [service.stage(wid) for wid in (1, 4, 5)] == [Stage.STALLED, Stage.DRAINING, Stage.STARTING]
    service.pass_time(40)
    assert [service.children[wid].told[:2] for wid in (1, 4, 5)] == [
        ["abort", "kill"],
        ["drain", "abort"],
        ["abort", "kill"],
    ]


def test_a_drain_is_not_cut_short_by_a_machine_that_was_suspended_while_the_service_stops() -> None:
    service = Service(1, drain=40).boot()
    service.do(TERM)
    service.pass_time(5)
    service.sleep(3600, children_too=True)
    assert service.children[1].told == ["drain final"]
    service.pass_time(41)
    assert service.children[1].told[1] == "abort"


def test_a_trial_is_not_killed_for_a_machine_that_was_suspended() -> None:
    service = Service(1, startup=20).boot()
    service.do(USR2)
    service.pass_time(5)
    service.sleep(3600, children_too=True)
    assert only(service.done, KillTrial) == []
    assert only(service.pass_time(20), KillTrial)


# --- recycling ---------------------------------------------------------------------------------


def test_recycling_starts_the_successor_first() -> None:
    service = Service(2).boot()
    actions = service.do(events.RecycleWanted(1, "old"))
    assert (spawned(actions), told(actions)) == ([(1, 1)], [])
    assert told(service.ready(3)) == [1]
    assert service.stage(1) is Stage.DRAINING
    service.exit(1)
    assert service.holders() == {1: [1], 2: [1]}


@pytest.mark.parametrize(("size", "at_once"), [(1, 1), (9, 1), (10, 1), (20, 2), (35, 3)])
def test_at_most_one_worker_in_ten_is_replaced_at_a_time(size: int, at_once: int) -> None:
    service = Service(size).boot()
    for wid in range(1, size + 1):
        service.do(events.RecycleWanted(wid, "old"))
    assert len(service.children) == size + at_once
    while starting := [child.wid for child in service.children.values() if not child.is_ready]:
        assert len(starting) <= at_once
        assert len(service.state.pool.serving()) >= size
        service.ready(starting[0])
        service.leave_all_told()
    assert sorted(service.children) == list(range(size + 1, 2 * size + 1))


def test_a_successor_that_does_not_start_is_tried_again_and_the_old_one_serves_on() -> None:
    service = Service(1).boot()
    service.do(events.RecycleWanted(1, "old"))
    service.exit(2, 3)
    assert service.holders() == {1: [1]}
    service.pass_time(0.6)
    assert service.holders() == {1: [1, 1]}
    assert service.stage(1) is Stage.READY
    service.ready(3)
    assert service.stage(1) is Stage.DRAINING


def test_a_successor_that_hangs_is_tried_again_and_the_old_one_serves_on() -> None:
    service = Service(1, startup=20).boot()
    service.do(events.RecycleWanted(1, "old"))
    service.pass_time(20)
    assert service.children[2].told == ["abort"]
    service.pass_time(1)
    assert service.holders() == {1: [1, 1]}


def test_a_worker_that_dies_while_its_successor_starts_needs_no_other_one() -> None:
    service = Service(1).boot()
    service.do(events.RecycleWanted(1, "old"))
    assert spawned(service.exit(1, -11)) == []
    service.ready(2)
    assert service.holders() == {1: [1]}


def test_a_stalled_worker_that_is_to_be_replaced_is() -> None:
    service = Service(2).boot()
    service.children[1].loop_hangs = True
    service.pass_time(7)
    service.do(events.RecycleWanted(1, "old"))
    assert told(service.ready(3)) == [1]


def test_old_workers_that_drain_for_long_hold_up_the_next_replacement() -> None:
    service = Service(1).boot()
    for wid in (1, 2):
        service.do(events.RestartRequested(1, wid))
        service.ready(wid + 1)
    assert len(service.children) == 3  # two drain, one serves
    assert spawned(service.do(events.RestartRequested(1, 3))) == []
    assert spawned(service.exit(1)) == [(1, 1)]


def test_a_recycled_worker_that_still_drains_holds_up_the_next_one_but_nobody_who_waits_for_another() -> None:
    service = Service(3).boot()
    service.do(events.RecycleWanted(1, "limit_worker_memory: 9 MiB"))
    service.ready(4)
    assert spawned(service.do(events.RecycleWanted(2, "limit_worker_memory: 9 MiB"))) == []
    assert spawned(service.do(events.RestartRequested(3, 5))) == [(3, 1)]
    service.ready(5)
    assert spawned(service.exit(1)) == [(2, 1)]


def test_what_a_worker_was_recycled_for_is_counted() -> None:
    service = Service(1).boot()
    for i, reason in enumerate(
        ("limit_worker_memory: 9 MiB", "limit_worker_lifetime: 5 s", "limit_max_requests: 5"), 1
    ):
        service.do(events.RecycleWanted(i, reason))
        service.ready(i + 1)
        service.exit(i)
    service.headroom = False
    service.pass_time(1)
    service.do(events.RecycleWanted(4, "limit_worker_memory: 9 MiB"))
    reasons = service.state.ledger.reasons
    assert reasons == {"limit_worker_memory": 2, "limit_worker_lifetime": 1, "limit_max_requests": 1}


def test_that_a_limit_is_exceeded_from_the_start_is_said_once_in_each_generation() -> None:
    service = Service(2).boot()
    for wid in (1, 2, 1):
        service.do(
            events.OverLimit(wid, "limit_worker_memory: 9 MiB rss, above 8 MiB, already when it starts")
        )
    assert service.logged("already when it starts") == 1
    assert not service.state.pool.workers[1].retiring
    service.do(HUP)
    service.rest()
    service.do(events.OverLimit(service.wid_of(1), "already when it starts"))
    assert service.logged("already when it starts") == 2


# --- no memory for two -------------------------------------------------------------------------


def without_headroom(size: int) -> Service:
    service = Service(size).boot()
    service.headroom = False
    service.pass_time(1)
    return service


def test_without_headroom_the_old_one_goes_first_and_the_log_says_so() -> None:
    service = without_headroom(2)
    actions = service.do(events.RecycleWanted(1, "old"))
    assert (told(actions), spawned(actions)) == ([1], [])
    assert service.logged(
        "worker=1 gen=1 pid=100 goes before its successor comes: there is no memory for both."
    )
    assert spawned(service.pass_time(10)) == []
    assert spawned(service.exit(1)) == [(1, 1)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_without_headroom_no_slot_is_lost(size: int) -> None:
    service = without_headroom(size)
    for wid in range(1, size + 1):
        service.do(events.RecycleWanted(wid, "old"))
    for _ in range(size):
        service.leave_all_told()
        service.all_ready()
    assert sorted(service.children) == list(range(size + 1, 2 * size + 1))
    assert service.holders() == {slot: [1] for slot in range(1, size + 1)}


def test_without_headroom_nobody_else_goes_before_the_new_one_is_ready() -> None:
    service = without_headroom(3)
    for wid in (1, 2, 3):
        service.do(events.RecycleWanted(wid, "old"))
    service.exit(1)
    service.pass_time(20)
    assert [child.told for child in service.children.values()] == [[], [], []]
    assert told(service.ready(4)) == [2]


def test_without_headroom_nobody_goes_while_another_slot_has_lost_its_worker() -> None:
    service = without_headroom(2)
    service.exit(2)
    assert told(service.do(events.RecycleWanted(1, "old"))) == []
    assert told(service.ready(3)) == [1]


def test_when_memory_comes_back_the_slot_that_was_given_up_goes_first() -> None:
    service = without_headroom(2)
    service.do(events.RecycleWanted(1, "old"))
    service.do(events.RecycleWanted(2, "old"))
    service.headroom = True
    service.pass_time(1)
    assert len(service.children) == 2
    assert spawned(service.exit(1)) == [(1, 1)]
    assert spawned(service.ready(3)) == [(2, 1)]


def test_without_headroom_a_reload_rolls_all_workers() -> None:
    service = without_headroom(2)
    service.do(HUP)
    service.ready(3)
    service.rest()
    assert service.holders() == {1: [2], 2: [2]}
    assert service.logged("Reload complete: generation 2 serves with 2 worker(s).") == 1


def test_a_slot_that_was_given_up_and_then_removed_comes_back() -> None:
    service = without_headroom(2)
    service.do(events.RecycleWanted(2, "old"))
    service.do(TTOU)
    assert spawned(service.exit(2)) == []
    assert spawned(service.do(TTIN)) == [(2, 1)]


# --- scaling -----------------------------------------------------------------------------------


def test_ttin_adds_a_worker_and_ttou_takes_the_last_one_away() -> None:
    service = Service(2).boot()
    assert spawned(service.do(TTIN)) == [(3, 1)]
    service.ready(3)
    assert told(service.do(TTOU)) == [3]
    service.exit(3)
    assert service.holders() == {1: [1], 2: [1]}
    assert service.log[-4:-1] == [
        "Received SIGTTIN, increasing the number of processes.",
        "worker=3 gen=1 pid=102 ready after 0.00 s",
        "Received SIGTTOU, decreasing number of processes.",
    ]


def test_ttou_never_goes_below_one() -> None:
    service = Service(1).boot()
    assert told(service.do(TTOU)) == []
    assert service.state.size == 1
    assert service.log[-1] == "Already reached one process, cannot decrease the number of processes."


def test_ttin_never_goes_above_the_limit() -> None:
    service = Service(1).boot()
    service.state.size = MAX_SIZE
    service.do(TTIN)
    assert service.state.size == MAX_SIZE
    assert (
        service.log[-1] == f"Already reached {MAX_SIZE} processes, cannot increase the number of processes."
    )


def test_ttou_gives_a_start_up_too() -> None:
    service = Service(2)
    service.do(events.Start())
    assert told(service.do(TTOU)) == [2]


def test_hup_returns_to_the_configured_number() -> None:
    service = Service(2).boot()
    service.do(TTIN)
    service.all_ready()
    service.do(HUP)
    service.all_ready()
    assert service.holders() == {1: [2], 2: [2]}


def test_scaling_up_and_down_in_turn_does_not_pile_up_processes() -> None:
    service = Service(2).boot()
    for _ in range(50):
        service.do(TTIN)
        service.all_ready()
        service.do(TTOU)
    assert len(service.children) <= 2 * 3 + 1 + 1


def test_what_drains_after_scaling_down_does_not_hold_up_a_replacement() -> None:
    service = Service(10).boot()
    for _ in range(9):
        service.do(TTOU)
    assert len(service.children) == 10
    assert spawned(service.exit(1, -9)) == [(1, 1)]


# --- reload ------------------------------------------------------------------------------------


def test_hup_starts_one_canary_and_then_rolls_one_at_a_time() -> None:
    service = Service(3).boot()
    actions = service.do(HUP)
    assert only(actions, LoadSettings) == [LoadSettings(2)]
    assert (spawned(actions), told(actions)) == ([(1, 2)], [])
    actions = service.ready(4)
    assert only(actions, Adopt) == [Adopt(2)]
    assert (told(actions), spawned(actions)) == ([1], [(2, 2)])
    actions = service.ready(5)
    assert (told(actions), spawned(actions)) == ([2], [(3, 2)])
    assert not service.logged("Reload complete")
    assert told(service.ready(6)) == [3]
    service.do(events.StoppedAccepting(1))
    service.do(events.StoppedAccepting(2))
    assert not service.logged("Reload complete")
    service.do(events.StoppedAccepting(3))
    assert service.log[-1] == "Reload complete: generation 2 serves with 3 worker(s)."
    service.leave_all_told()
    assert service.holders() == {1: [2], 2: [2], 3: [2]}


def test_a_reload_does_not_wait_for_a_worker_that_is_too_busy_to_hear_that_it_is_to_leave() -> None:
    service = Service(1).boot()
    service.do(HUP)
    told_at = service.now
    assert told(service.ready(2)) == [1]
    while not service.logged("Reload complete"):
        service.wake()
    assert service.now == told_at + 2


def test_a_reload_never_leaves_fewer_ready_workers_than_there_were() -> None:
    service = Service(4).boot()
    service.do(HUP)
    while starting := [child.wid for child in service.children.values() if not child.is_ready]:
        assert len(starting) == 1
        assert len(service.state.pool.ready()) >= 4
        service.ready(starting[0])
    assert len(service.state.pool.ready()) == 4


def test_settings_that_are_rejected_change_nothing() -> None:
    service = Service(2).boot()
    service.settings = "uvicorn.yaml:3: port: not a number"
    actions = service.do(HUP)
    assert only(actions, Abandon, Spawn, TellToDrain) == [Abandon(2)]
    assert service.log[-1] == (
        "Reload failed, the settings cannot be used: uvicorn.yaml:3: port: not a number. "
        "Generation 1 goes on unchanged."
    )
    assert service.state.spec is service.spec


@pytest.mark.parametrize("how", ["exits", "hangs", "no process"])
def test_a_canary_that_fails_changes_nothing(how: str) -> None:
    service = Service(2, startup=20).boot()
    service.settings = respec(service.spec, size=5)
    service.fork_fails = how == "no process"
    service.do(HUP)
    if how == "exits":
        service.exit(3, 3)
    elif how == "hangs":
        service.pass_time(20)
        assert service.children[3].told == ["abort"]
        service.exit(3, -6)
    assert only(service.done, Abandon, Adopt) == [Abandon(2)]
    assert service.logged("Reload failed, ") == 1
    service.pass_time(100)
    assert service.holders() == {1: [1], 2: [1]}
    assert told(service.done) == []
    assert service.state.spec is service.spec
    assert service.state.restarts == []


def test_after_a_failed_reload_the_next_one_works() -> None:
    service = Service(1).boot()
    service.do(HUP)
    service.exit(2, 3)
    service.do(HUP)
    service.ready(3)
    assert service.state.generation == 3


def test_a_hup_during_a_reload_starts_over_with_the_newest_settings() -> None:
    service = Service(2).boot()
    service.do(HUP)
    newest = service.settings = respec(service.spec, size=3)
    actions = service.do(HUP)
    assert only(actions, Abandon, LoadSettings) == [Abandon(2), LoadSettings(3)]
    assert told(actions) == [3]
    assert service.logged("The reload to generation 2 is given up: a newer one begins.")
    service.exit(3)
    service.all_ready()
    assert service.state.spec is newest
    assert service.holders() == {1: [3], 2: [3], 3: [3]}


def test_a_canary_that_became_ready_as_it_was_given_up_takes_no_slot_and_gets_its_time() -> None:
    service = Service(1, drain=42).boot()
    service.do(HUP)
    service.do(HUP)
    service.ready(2)
    assert service.state.generation == 1
    assert service.stage(2) is Stage.DRAINING
    service.pass_time(41)
    assert service.children[2].told == ["drain"]


def test_a_storm_of_hups_does_not_pile_up_processes() -> None:
    service = Service(2).boot()
    for _ in range(20):
        service.do(HUP)
    assert len(service.children) <= 5
    service.pass_time(8)  # none of the canaries ends by itself
    for wid in [wid for wid, child in service.children.items() if child.told]:
        service.exit(wid, -9)
    service.all_ready()
    assert service.holders() == {1: [21], 2: [21]}


def test_a_hup_during_the_roll_goes_on_to_the_newest() -> None:
    service = Service(3).boot()
    service.do(HUP)
    service.ready(4)
    service.do(HUP)
    service.rest()
    assert service.holders() == {1: [3], 2: [3], 3: [3]}


def test_a_roll_goes_on_when_the_reload_after_it_fails() -> None:
    service = Service(3).boot()
    service.do(HUP)
    service.ready(4)
    service.settings = "wrong"
    service.do(HUP)
    service.rest()
    assert service.holders() == {1: [2], 2: [2], 3: [2]}
    assert service.log.count("Reload complete: generation 2 serves with 3 worker(s).") == 1


def test_more_workers_come_at_once_and_fewer_go_when_the_canary_is_ready() -> None:
    service = Service(2).boot()
    service.settings = respec(service.spec, size=4)
    service.do(HUP)
    assert spawned(service.ready(3)) == [(3, 2), (4, 2), (2, 2)]
    service.rest()
    service.settings = respec(service.spec, size=1)
    service.do(HUP)
    canary = max(service.children)
    assert len(told(service.ready(canary))) == 4
    service.leave_all_told()
    assert service.holders() == {1: [3]}


def test_an_old_worker_that_dies_during_the_roll_is_replaced_by_a_new_one() -> None:
    service = Service(3).boot()
    service.do(HUP)
    service.ready(4)
    assert spawned(service.exit(3, -9)) == [(3, 2)]
    service.rest()
    assert service.holders() == {1: [2], 2: [2], 3: [2]}


def test_a_worker_that_dies_while_the_canary_starts_in_its_slot_is_replaced_at_once() -> None:
    service = Service(1).boot()
    service.do(HUP)
    assert spawned(service.exit(1, -9)) == [(1, 1)]  # the canary may yet fail, or hang
    service.ready(3)
    assert service.holders() == {1: [2, 1]}
    assert told(service.exit(2, 3)) == []
    assert service.holders() == {1: [1]}


@pytest.mark.parametrize("replacement_is_ready", [True, False])
def test_a_canary_that_is_ready_goes_before_a_replacement_of_the_old_generation(
    replacement_is_ready: bool,
) -> None:
    service = Service(1).boot()
    service.do(HUP)
    service.exit(1, -9)
    if replacement_is_ready:
        service.ready(3)
    assert told(service.ready(2)) == [3]
    service.leave_all_told()
    assert service.holders() == {1: [2]}
    assert service.logged("Reload complete") == 1


def test_starts_of_the_old_generation_are_given_up_when_the_new_one_is_proved() -> None:
    service = Service(3)
    service.do(events.Start())
    service.do(HUP)
    actions = service.ready(4)
    assert sorted(told(actions)) == [1, 2, 3]
    assert spawned(actions) == [(2, 2), (3, 2)]
    service.rest()
    assert service.holders() == {1: [2], 2: [2], 3: [2]}


def test_new_code_does_not_wait_for_the_backoff_of_the_old() -> None:
    service = Service(2).boot()
    service.exit(2)
    for _ in range(7):
        if len(service.holders()) == 1:
            service.pass_time(30)
        service.exit(service.wid_of(2), 1)
    assert service.holders() == {1: [1]}
    service.do(HUP)
    assert spawned(service.ready(max(service.children))) == [(2, 2)]


def test_a_reload_while_a_worker_is_recycled_takes_over_its_slot() -> None:
    service = Service(1).boot()
    service.do(events.RecycleWanted(1, "old"))
    service.do(HUP)
    assert service.holders() == {1: [1, 1, 2]}
    assert sorted(told(service.ready(3))) == [1, 2]
    service.leave_all_told()
    assert service.holders() == {1: [2]}


def test_a_recycled_workers_successor_does_not_wait_for_the_canary() -> None:
    service = Service(1).boot()
    service.do(events.RecycleWanted(1, "old"))
    service.do(HUP)
    assert told(service.ready(2)) == [1]


def test_nothing_else_is_replaced_while_the_canary_proves_itself() -> None:
    service = Service(2).boot()
    service.do(HUP)
    assert spawned(service.do(events.RecycleWanted(2, "old"))) == []
    service.exit(3, 3)
    assert service.holders()[2] == [1, 1]


def test_a_worker_is_drained_by_the_clock_it_was_started_with() -> None:
    service = Service(1, drain=42).boot()
    service.settings = respec(service.spec, drain=1)
    service.do(HUP)
    service.ready(2)
    service.pass_time(41)
    assert service.children[1].told == ["drain"]


def test_the_canary_has_the_new_time_for_its_start() -> None:
    service = Service(1, startup=20).boot()
    service.settings = respec(service.spec, startup=100)
    service.do(HUP)
    service.pass_time(99)
    assert service.stage(2) is Stage.STARTING


def test_settings_for_another_generation_are_ignored() -> None:
    service = Service(1).boot()
    assert service.do(events.SettingsLoaded(7, PoolSpec(9))) == []
    assert service.do(events.SettingsRejected(7, "wrong")) == []
    assert service.state.reload is None


# --- pause -------------------------------------------------------------------------------------


def test_winch_drains_all_workers_and_hup_brings_them_back() -> None:
    service = Service(2).boot()
    assert sorted(told(service.do(WINCH))) == [1, 2]
    service.leave_all_told()
    service.pass_time(1000)
    assert service.children == {}
    assert service.listening
    assert service.exit_code is None
    service.do(HUP)
    service.rest()
    assert service.holders() == {1: [2], 2: [2]}


def test_hup_brings_the_workers_back_also_with_settings_that_cannot_be_used() -> None:
    service = Service(2).boot()
    service.do(WINCH)
    service.leave_all_told()
    service.settings = "wrong"
    service.do(HUP)
    service.all_ready()
    assert service.holders() == {1: [1], 2: [1]}


def test_workers_that_had_died_before_a_pause_make_no_crash_loop_of_its_end() -> None:
    service = Service(2, limit_restarts=3).boot()
    for _ in range(3):
        service.exit(service.wid_of(2), -9)
        service.all_ready()
    service.do(WINCH)
    service.leave_all_told()
    service.do(HUP)
    service.rest()
    assert service.exit_code is None


def test_winch_ends_a_reload() -> None:
    service = Service(1).boot()
    service.do(HUP)
    actions = service.do(WINCH)
    assert only(actions, Abandon) == [Abandon(2)]
    assert sorted(told(actions)) == [1, 2]
    assert service.logged("The reload to generation 2 is given up: all workers are to leave.")


def test_winch_during_the_roll_is_no_completed_reload() -> None:
    service = Service(2).boot()
    service.do(HUP)
    service.ready(3)
    service.do(WINCH)
    service.leave_all_told()
    assert not service.logged("Reload complete")
    service.do(HUP)
    service.rest()
    assert service.logged("Reload complete: generation 3 serves with 2 worker(s).") == 1


def test_pause_and_back_again_does_not_pile_up_processes() -> None:
    service = Service(2).boot()
    service.settings = "wrong"
    for _ in range(20):
        service.do(WINCH)
        service.do(HUP)
        service.all_ready()
    assert len(service.children) <= 6
    service.rest()
    assert service.holders() == {1: [1], 2: [1]}


@pytest.mark.parametrize("event", [WINCH, TTIN, TTOU])
def test_a_paused_service_neither_pauses_nor_scales(event: Event) -> None:
    service = Service(2).boot()
    service.do(WINCH)
    before = len(service.log)
    assert service.do(event) == []
    assert len(service.log) == before
    assert service.state.size == 2


def test_a_paused_service_stops() -> None:
    service = Service(2).boot()
    service.do(WINCH)
    service.leave_all_told()
    service.stop_requested = True
    assert service.do(TERM) == [CloseListeners(), Exit(0)]


# --- stop --------------------------------------------------------------------------------------


def stop(service: Service) -> list[Action]:
    service.stop_requested = True
    return service.do(TERM)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_stop_drains_everybody_then_closes_the_listeners_then_exits(name: str) -> None:
    service = Service(2).boot()
    service.stop_requested = True
    assert service.do(events.StopRequested(name)) == [TellToDrain(1, True), TellToDrain(2, True)]
    assert service.log[-5:] == [
        f"Received {name}, exiting.",
        "Terminated child process [100]",
        "Terminated child process [101]",
        "Waiting for child process [100]",
        "Waiting for child process [101]",
    ]
    assert service.do(events.StoppedAccepting(1)) == []
    assert service.do(events.StoppedAccepting(2)) == [CloseListeners()]
    service.exit(1)
    assert service.exit(2) == [Forget(2, 101), Exit(0)]


def test_listeners_close_after_half_a_second_though_somebody_still_accepts() -> None:
    service = Service(2).boot()
    stop(service)
    service.do(events.StoppedAccepting(1))
    assert only(service.pass_time(0.45), CloseListeners) == []
    assert only(service.pass_time(0.1), CloseListeners) == [CloseListeners()]


def test_a_stop_that_takes_too_long_is_aborted_and_killed() -> None:
    service = Service(1, drain=42).boot()
    stop(service)
    service.pass_time(41)
    assert service.children[1].told == ["drain final"]
    service.pass_time(1.5)
    assert service.children[1].told == ["drain final", "abort"]
    service.pass_time(2)
    assert service.children[1].told == ["drain final", "abort", "kill"]
    service.exit(1, -9)
    assert service.exit_code == 0


def test_term_during_the_first_start_ends_it() -> None:
    service = Service(2)
    service.do(events.Start())
    assert told(stop(service)) == [1, 2]
    assert not service.listening  # nobody accepts who could empty the queue
    service.pass_time(5)
    assert [child.told for child in service.children.values()] == [["drain final", "abort"]] * 2
    service.leave_all_told()
    assert service.exit_code == 0


def test_term_during_a_reload_wins() -> None:
    service = Service(2).boot()
    service.do(HUP)
    actions = stop(service)
    assert only(actions, Abandon) == [Abandon(2)]
    assert sorted(told(actions)) == [1, 2, 3]
    service.leave_all_told()
    assert service.exit_code == 0


def test_term_tells_those_who_drain_already_that_it_is_final() -> None:
    service = Service(2).boot()
    service.do(TTOU)
    stop(service)
    assert service.children[2].told == ["drain", "drain final"]
    assert service.children[1].told == ["drain final"]


def test_term_leaves_those_alone_who_are_aborted_or_killed() -> None:
    service = Service(3).boot()
    service.children[1].thread_hangs = True
    service.pass_time(8.5)
    service.children[2].thread_hangs = True
    service.pass_time(6)
    assert [service.stage(wid) for wid in (1, 2)] == [Stage.KILLED, Stage.ABORTING]
    stop(service)
    assert [service.children[wid].told for wid in (1, 2)] == [["abort", "kill", "kill"], ["abort"]]
    service.leave_all_told()
    assert service.exit_code == 0


def test_nothing_is_started_after_a_stop() -> None:
    service = Service(2).boot()
    stop(service)
    for event in (HUP, TTIN, TTOU, WINCH, USR2, events.RecycleWanted(1, "old")):
        assert spawned(service.do(event)) == []
    service.exit(1, -9)
    assert spawned(service.pass_time(10)) == []


def test_a_second_signal_stops_at_once() -> None:
    service = Service(2).boot()
    stop(service)
    service.pass_time(3)
    assert stop(service) == [Hurry(1), Hurry(2)]
    assert service.log[-1] == "Received SIGTERM again, stopping at once."
    assert only(service.pass_time(1), Kill) == [Kill(1), Kill(2)]
    service.exit(1, -9)
    service.exit(2, -9)
    assert service.exit_code == 0
    assert service.logged("killed by SIGKILL by the master") == 2


def test_a_third_signal_gives_nobody_more_time() -> None:
    service = Service(1).boot()
    stop(service)
    stop(service)
    service.pass_time(0.9)
    stop(service)
    assert only(service.pass_time(0.2), Kill) == [Kill(1)]


def test_a_worker_that_is_forked_in_the_moment_of_the_stop_is_told_to_leave() -> None:
    machine = Machine(PoolSpec(2), lambda: 0.5)
    machine.step(1.0, events.Start())
    machine.step(1.0, events.Spawned(1, 100))
    actions = machine.step(1.0, TERM)
    assert "Waiting for child process [None]" not in [each.text for each in actions if isinstance(each, Log)]
    assert only(machine.step(1.0, events.Spawned(2, 101)), TellToDrain) == [TellToDrain(2, True)]
    machine.step(1.0, events.Exited(100, 0))
    assert machine.step(1.0, events.Exited(101, 0))[-1] == Exit(0)


def test_a_fork_that_fails_in_the_moment_of_the_stop_does_not_keep_it() -> None:
    machine = Machine(PoolSpec(1), lambda: 0.5)
    machine.step(1.0, events.Start())
    machine.step(1.0, TERM)
    assert machine.step(1.0, events.SpawnFailed(1, "no"))[-1] == Exit(0)


# --- shutdown_delay ----------------------------------------------------------------------------


def test_shutdown_delay_serves_on_before_the_drain() -> None:
    service = Service(2, shutdown_delay=10).boot()
    assert stop(service) == []
    assert service.log[-2:] == ["Received SIGTERM, exiting.", "Serving on for 10 s."]
    assert told(service.pass_time(9.9)) == []
    assert told(service.pass_time(0.2)) == [1, 2]
    service.leave_all_told()
    assert service.exit_code == 0


def test_a_second_signal_ends_the_delay_and_a_third_stops_at_once() -> None:
    service = Service(1, shutdown_delay=10).boot()
    stop(service)
    assert told(stop(service)) == [1]
    assert service.logged("Received SIGTERM again, stopping without further delay.")
    assert only(stop(service), Hurry) == [Hurry(1)]


def test_there_is_no_delay_where_nobody_serves() -> None:
    service = Service(1, shutdown_delay=10)
    service.do(events.Start())
    assert told(stop(service)) == [1]


def test_the_delay_ends_when_nobody_is_left_to_serve() -> None:
    service = Service(2, shutdown_delay=10).boot()
    stop(service)
    assert spawned(service.exit(1, -9)) == []
    service.exit(2, -9)
    assert service.exit_code == 0


def test_health_is_looked_after_during_the_delay() -> None:
    service = Service(2, shutdown_delay=100).boot()
    stop(service)
    service.children[1].thread_hangs = True
    assert only(service.pass_time(7), Abort, Spawn) == [Abort(1)]


def test_a_reload_ends_where_the_delay_begins() -> None:
    service = Service(1, shutdown_delay=10).boot()
    service.do(HUP)
    actions = stop(service)
    assert only(actions, Abandon) == [Abandon(2)]
    assert told(actions) == [2]
    service.exit(2)
    assert service.state.generation == 1


def test_a_replacement_that_is_under_way_when_the_delay_begins_is_finished() -> None:
    service = Service(1, shutdown_delay=10).boot()
    service.do(events.RecycleWanted(1, "old"))
    stop(service)
    assert told(service.ready(2)) == [1]
    service.exit(1)
    service.pass_time(10)
    service.leave_all_told()
    assert service.exit_code == 0


def test_a_start_that_fails_during_the_delay_is_not_tried_again() -> None:
    service = Service(2, shutdown_delay=10).boot()
    service.exit(2)
    stop(service)
    assert spawned(service.exit(3, 3)) == []
    assert not service.logged("next try")


# --- fork failure ------------------------------------------------------------------------------


def test_a_fork_that_fails_is_tried_again_while_the_others_serve() -> None:
    service = Service(2).boot()
    service.fork_fails = True
    service.exit(2, -9)
    assert service.log[-1] == (
        "No process could be made for worker=2: Resource temporarily unavailable. Next try in 0.5 s."
    )
    service.pass_time(200)
    assert service.exit_code is None
    assert service.logged("No process could be made") == 12
    service.fork_fails = False
    service.pass_time(30)
    assert service.holders() == {1: [1], 2: [1]}


def test_a_fork_that_fails_at_the_first_boot_is_tried_again() -> None:
    service = Service(2)
    service.fork_fails = True
    service.do(events.Start())
    service.pass_time(10)
    service.fork_fails = False
    service.pass_time(30)
    service.all_ready()
    assert service.holders() == {1: [1], 2: [1]}


# --- logs --------------------------------------------------------------------------------------


def test_usr1_reopens_the_logs_of_all_processes() -> None:
    service = Service(3).boot()
    service.do(TTOU)
    assert service.do(events.ReopenRequested()) == [ReopenLogs((1, 2, 3))]
    assert service.log[-2:] == [
        "Received SIGUSR1, reopening log files.",
        "Master and workers have reopened their log files.",
    ]


# --- upgrade -----------------------------------------------------------------------------------


def test_usr2_tries_the_new_program_and_takes_its_place() -> None:
    service = Service(1).boot()
    assert service.do(USR2) == [StartTrial()]
    assert service.end_trial(0) == [ExecUpgrade()]
    assert service.logged("Upgrade: the new program starts; taking its place.")


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3"), (-11, "killed by SIGSEGV")])
def test_a_trial_that_fails_changes_nothing(code: int, words: str) -> None:
    service = Service(1).boot()
    service.do(USR2)
    assert service.end_trial(code) == []
    text = f"Upgrade failed: the new program does not start ({words}). Nothing has changed."
    assert service.log[-1] == text
    assert service.do(USR2) == [StartTrial()]


def test_a_trial_that_cannot_be_started_changes_nothing() -> None:
    service = Service(1).boot()
    service.trial_fails = True
    service.do(USR2)
    assert service.log[-1] == (
        "Upgrade failed: the trial could not be started: No such file or directory. Nothing has changed."
    )
    service.trial_fails = False
    assert service.do(USR2) == [StartTrial()]


def test_an_exec_that_fails_changes_nothing() -> None:
    service = Service(1).boot()
    service.do(USR2)
    service.end_trial(0)
    assert service.log[-1] == "Upgrade failed: it is only a test. Nothing has changed."
    assert service.do(USR2) == [StartTrial()]


def test_a_trial_that_takes_too_long_is_killed() -> None:
    service = Service(1, startup=20).boot()
    service.do(USR2)
    trial = service.trial
    assert only(service.pass_time(60), KillTrial) == [KillTrial(trial)]  # type: ignore[arg-type]
    service.end_trial(-9)
    assert service.execs == 0


def test_a_trial_may_take_for_ever_where_the_limit_is_0() -> None:
    service = Service(1, startup=0).boot()
    service.do(USR2)
    assert only(service.pass_time(1000), KillTrial) == []


@pytest.mark.parametrize("first", [HUP, USR2])
def test_usr2_during_a_reload_or_an_upgrade_is_ignored(first: Event) -> None:
    service = Service(1).boot()
    service.do(first)
    assert service.do(USR2) == []
    assert service.log[-1] == "Received SIGUSR2, but a reload or an upgrade is under way: ignored."


def test_a_stop_kills_the_trial_and_does_not_wait_for_it() -> None:
    service = Service(1).boot()
    service.do(USR2)
    assert only(stop(service), KillTrial) == [KillTrial(service.trial)]  # type: ignore[arg-type]
    service.exit(1)
    assert service.exit_code == 0


@pytest.mark.parametrize("delay", [0, 10])
def test_a_trial_that_succeeds_after_the_stop_is_too_late(delay: float) -> None:
    service = Service(1, shutdown_delay=delay).boot()
    service.do(USR2)
    stop(service)
    assert service.end_trial(0) == []
    assert service.execs == 0


def test_a_trial_that_was_started_in_the_moment_of_the_stop_is_killed() -> None:
    service = Service(1).boot()
    stop(service)
    assert service.machine.step(service.now, events.TrialStarted(55)) == [KillTrial(55)]


def adopted(*workers: Worker, size: int = 2) -> Service:
    """A service that has taken over these workers."""
    service = Service(size, generation=2)
    for worker in workers:
        assert worker.pid is not None
        service.children[worker.wid] = child = service_child(worker)
        child.tick(service.now)
    service.machine.adopt(workers, size)
    service.do(events.Start())
    return service


def service_child(worker: Worker):  # type: ignore[no-untyped-def]
    from tests.supervisor.service import Child

    assert worker.pid is not None
    child = Child(worker.wid, worker.pid, worker.slot, worker.generation)
    child.is_ready = worker.ready_at is not None
    if worker.stage not in (Stage.STARTING, Stage.READY, Stage.STALLED):
        child.told.append("drain")
    return child


def old(wid: int, slot: int, stage: Stage = Stage.READY) -> Worker:
    deadline = NEVER if stage is Stage.READY else 1020.0
    ready_at = None if stage is Stage.STARTING else 900.0
    return Worker(wid, slot, 1, stage, 900.0, PoolSpec(2), deadline, wid + 10, ready_at)


def test_after_an_upgrade_the_adopted_workers_are_rolled_one_at_a_time() -> None:
    service = adopted(old(5, 1), old(6, 2))
    assert spawned(service.done) == [(1, 2)]
    assert told(service.done) == []
    service.rest()
    assert service.holders() == {1: [2], 2: [2]}
    assert min(service.children) == 7
    assert service.logged("Reload complete: generation 2 serves with 2 worker(s).") == 1


def test_after_an_upgrade_that_does_not_start_after_all_the_adopted_workers_serve_on() -> None:
    service = adopted(old(5, 1), old(6, 2))
    for _ in range(3):
        service.exit(max(service.children), 3)
        service.pass_time(30)
    assert service.exit_code is None
    assert [service.stage(wid) for wid in (5, 6)] == [Stage.READY, Stage.READY]


def test_after_an_upgrade_old_starts_are_given_up_and_drains_have_their_time() -> None:
    service = adopted(old(5, 1, Stage.STARTING), old(6, 2, Stage.DRAINING), old(7, 2))
    assert told(service.done) == [5]
    service.pass_time(19)
    assert "abort" not in service.children[6].told
    service.pass_time(2)
    assert "abort" in service.children[6].told


def test_after_an_upgrade_with_fewer_workers_the_surplus_goes() -> None:
    service = adopted(old(5, 1), old(6, 2), old(7, 3), size=1)
    assert sorted(told(service.done)) == [6, 7]


def test_an_adopted_worker_that_dies_is_replaced() -> None:
    service = adopted(old(5, 1), old(6, 2))
    service.rest()
    assert spawned(service.exit(min(service.children), -9)) == [(1, 2)]
