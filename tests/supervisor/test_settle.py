"""The rules that follow from the state by itself: each of them alone, and that they come to rest."""

from __future__ import annotations

import logging

import pytest

from uvicorn.supervisor import settle
from uvicorn.supervisor.actions import Abandon, Action, CloseListeners, Exit, Log, Spawn, TellToDrain
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.pool import HOLDING, NEVER, Stage, Worker
from uvicorn.supervisor.settle import RULES
from uvicorn.supervisor.state import Phase, Reload, State, set_stage

NOW = 1000.0
SPEC = PoolSpec(2)
NEW = PoolSpec(2, drain=7)


def state_of(*workers: tuple[int, Stage], size: int = 2, generation: int = 1) -> State:
    """A state with a worker for each slot and stage given; its pid is its wid plus 100."""
    state = State(SPEC, lambda: 0.5, size, ever_ready=True, generation=generation)
    for slot, stage in workers:
        add(state, slot, stage)
    return state


def add(state: State, slot: int, stage: Stage, generation: int = 1, **changes: object) -> Worker:
    worker = state.pool.add(slot, generation, SPEC, NOW - 100)
    if stage is not Stage.SPAWNING:
        worker.pid = worker.wid + 100
    if stage not in (Stage.SPAWNING, Stage.STARTING):
        worker.ready_at = NOW - 100
    set_stage(worker, stage, NOW - 100)
    for name, value in changes.items():
        setattr(worker, name, value)
    return worker


def done(state: State) -> list[Action]:
    return [action for action in state.out if not isinstance(action, Log)]


def serving(size: int = 2) -> State:
    return state_of(*((slot, Stage.READY) for slot in range(1, size + 1)), size=size)


# --- as a whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_its_rules(phase: Phase) -> None:
    assert isinstance(RULES[phase], tuple)


def test_a_service_that_is_as_it_should_be_has_nothing_to_do() -> None:
    state = serving()
    settle.settle(state, NOW)
    assert state.out == []


@pytest.mark.parametrize("size", [1, 2, 50])
def test_rules_are_applied_until_nothing_is_left_to_do(size: int) -> None:
    state = state_of(size=size)
    settle.settle(state, NOW)
    assert [action.slot for action in state.out if isinstance(action, Spawn)] == list(range(1, size + 1))
    for rule in RULES[Phase.RUNNING]:
        assert not rule(state, NOW)


def test_a_rule_that_never_comes_to_rest_is_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def restless(state: State, now: float) -> bool:
        calls.append(now)
        return True

    monkeypatch.setitem(settle.RULES, Phase.RUNNING, (restless,))
    settle.settle(serving(), NOW)
    assert len(calls) == 8 * (2 + 2) + 16


def test_spawn_gives_the_worker_the_settings_of_its_generation() -> None:
    state = state_of()
    worker = settle.spawn(state, 2, 3, NEW, NOW)
    assert (worker.slot, worker.generation, worker.spec, worker.stage) == (2, 3, NEW, Stage.SPAWNING)
    assert state.out == [Spawn(worker.wid, 2, 3)]


# --- crash_loop --------------------------------------------------------------------------------


@pytest.mark.parametrize(("ever_ready", "code"), [(True, 70), (False, 3)])
def test_crash_loop_gives_up_where_nobody_serves_and_the_restarts_are_used_up(
    ever_ready: bool, code: int
) -> None:
    state = state_of((1, Stage.STARTING))
    state.ever_ready = ever_ready
    state.restarts = [NOW - 59.0] * 10
    assert settle.crash_loop(state, NOW)
    assert (state.phase, state.exit_code) == (Phase.STOPPING, code)
    text = f"No worker is ready, and 10 had to be replaced within a minute. Giving up with exit code {code}."
    assert state.out[0] == Log(text, logging.CRITICAL)


@pytest.mark.parametrize("stage", list(Stage))
def test_crash_loop_is_none_while_somebody_serves(stage: Stage) -> None:
    state = state_of((1, stage))
    state.restarts = [NOW] * 10
    assert settle.crash_loop(state, NOW) is (stage not in (Stage.READY, Stage.STALLED))


def test_crash_loop_is_none_while_the_service_is_paused() -> None:
    state = state_of()
    state.restarts = [NOW] * 10
    state.paused = True
    assert not settle.crash_loop(state, NOW)


def test_crash_loop_forgets_restarts_of_more_than_a_minute_ago() -> None:
    state = state_of()
    state.restarts = [NOW - 60.0] * 5 + [NOW - 1.0] * 9
    assert not settle.crash_loop(state, NOW)
    assert state.restarts == [NOW - 1.0] * 9


# --- drop_outdated_start -----------------------------------------------------------------------


def test_drop_outdated_start_drains_a_start_of_another_generation() -> None:
    state = state_of((1, Stage.STARTING), generation=2)
    assert settle.drop_outdated_start(state, NOW)
    assert done(state) == [TellToDrain(1, False)]
    assert not settle.drop_outdated_start(state, NOW)


def test_drop_outdated_start_drains_the_canary_of_a_reload_that_is_given_up() -> None:
    state = serving()
    add(state, 1, Stage.STARTING, generation=2)
    state.reload = Reload(3)
    assert settle.drop_outdated_start(state, NOW)
    assert done(state) == [TellToDrain(3, False)]


def test_drop_outdated_start_leaves_the_canary_alone() -> None:
    state = serving()
    canary = add(state, 1, Stage.STARTING, generation=2)
    state.reload = Reload(2, NEW, canary.wid)
    assert not settle.drop_outdated_start(state, NOW)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.STARTING])
def test_drop_outdated_start_leaves_all_others_alone(stage: Stage) -> None:
    assert not settle.drop_outdated_start(state_of((1, stage), generation=2), NOW)


# --- finish_replacement ------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.READY, Stage.STALLED])
def test_finish_replacement_drains_whoever_was_there_before_the_ready_successor(stage: Stage) -> None:
    state = state_of((1, stage), (1, Stage.READY))
    assert settle.finish_replacement(state, NOW)
    assert done(state) == [TellToDrain(1, False)]
    assert not settle.finish_replacement(state, NOW)


@pytest.mark.parametrize("stage", [Stage.SPAWNING, Stage.STARTING, Stage.STALLED])
def test_finish_replacement_waits_until_the_successor_is_ready(stage: Stage) -> None:
    assert not settle.finish_replacement(state_of((1, Stage.READY), (1, stage)), NOW)


def test_finish_replacement_drains_an_older_generation_though_it_is_younger() -> None:
    state = state_of(generation=2)
    add(state, 1, Stage.READY, generation=2)
    add(state, 1, Stage.STARTING, generation=1)
    assert settle.finish_replacement(state, NOW)
    assert done(state) == [TellToDrain(2, False)]


def test_finish_replacement_waits_for_the_pid_of_whom_it_would_drain() -> None:
    state = state_of(generation=2)
    add(state, 1, Stage.READY, generation=2)
    add(state, 1, Stage.SPAWNING, generation=1)
    assert not settle.finish_replacement(state, NOW)


def test_finish_replacement_leaves_a_canary_alone() -> None:
    state = state_of((1, Stage.READY))
    canary = add(state, 1, Stage.STARTING, generation=2)
    add(state, 1, Stage.READY, generation=1)
    state.reload = Reload(2, NEW, canary.wid)
    assert settle.finish_replacement(state, NOW)
    assert done(state) == [TellToDrain(1, False)]


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in HOLDING])
def test_finish_replacement_leaves_those_alone_who_leave_already(stage: Stage) -> None:
    assert not settle.finish_replacement(state_of((1, stage), (1, Stage.READY)), NOW)


# --- drop_surplus ------------------------------------------------------------------------------


def test_drop_surplus_drains_every_holder_above_the_wanted_number_the_last_slot_first() -> None:
    state = state_of((1, Stage.READY), (2, Stage.READY), (3, Stage.STARTING), (2, Stage.STARTING), size=1)
    assert settle.drop_surplus(state, NOW)
    assert done(state) == [TellToDrain(3, False), TellToDrain(4, False), TellToDrain(2, False)]
    assert not settle.drop_surplus(state, NOW)


def test_drop_surplus_drains_everybody_while_the_service_is_paused() -> None:
    state = serving()
    state.paused = True
    assert settle.drop_surplus(state, NOW)
    assert done(state) == [TellToDrain(2, False), TellToDrain(1, False)]


@pytest.mark.parametrize("stage", [Stage.SPAWNING, Stage.DRAINING, Stage.ABORTING, Stage.KILLED])
def test_drop_surplus_leaves_those_alone_who_have_no_pid_or_leave_already(stage: Stage) -> None:
    assert not settle.drop_surplus(state_of((1, Stage.READY), (2, stage), size=1), NOW)


# --- fill_slots --------------------------------------------------------------------------------


def test_fill_slots_starts_one_worker_for_the_first_empty_slot() -> None:
    state = state_of((2, Stage.READY), size=3)
    assert settle.fill_slots(state, NOW)
    assert state.out == [Spawn(2, 1, 1)]


@pytest.mark.parametrize("stage", list(Stage))
def test_fill_slots_takes_a_slot_for_empty_whose_worker_leaves(stage: Stage) -> None:
    assert settle.fill_slots(state_of((1, stage), size=1), NOW) is (stage not in HOLDING)


def test_fill_slots_takes_a_slot_for_empty_that_only_a_canary_holds() -> None:
    state = state_of(size=1)
    canary = add(state, 1, Stage.STARTING, generation=2)
    state.reload = Reload(2, NEW, canary.wid)
    assert settle.fill_slots(state, NOW)
    assert state.out == [Spawn(2, 1, 1)]


@pytest.mark.parametrize(("not_before", "filled"), [(NOW + 0.1, False), (NOW, True), (NOW - 1, True)])
def test_fill_slots_waits_for_the_backoff(not_before: float, filled: bool) -> None:
    state = state_of(size=1)
    state.pool.slot(1).not_before = not_before
    assert settle.fill_slots(state, NOW) is filled


def test_fill_slots_goes_on_with_the_next_slot_while_one_waits() -> None:
    state = state_of()
    state.pool.slot(1).not_before = NOW + 1
    assert settle.fill_slots(state, NOW)
    assert state.out == [Spawn(1, 2, 1)]


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in HOLDING])
def test_fill_slots_waits_for_the_memory_of_the_worker_that_has_left(stage: Stage) -> None:
    state = state_of((1, stage), size=1)
    state.pool.slot(1).vacated = True
    assert not settle.fill_slots(state, NOW)
    state.pool.remove(state.pool.workers[1])
    assert settle.fill_slots(state, NOW)


def test_fill_slots_starts_nobody_while_the_service_is_paused() -> None:
    state = state_of()
    state.paused = True
    assert not settle.fill_slots(state, NOW)


def test_fill_slots_waits_where_too_many_leave_at_the_same_time() -> None:
    state = state_of(*[(1, Stage.DRAINING)] * 4, size=1)
    assert not settle.fill_slots(state, NOW)
    state.pool.remove(state.pool.workers[1])
    assert settle.fill_slots(state, NOW)


def test_fill_slots_does_not_wait_for_those_who_leave_other_slots() -> None:
    state = state_of(*((slot, Stage.DRAINING) for slot in range(2, 11)), size=1)
    assert settle.fill_slots(state, NOW)


# --- start_canary ------------------------------------------------------------------------------


def test_start_canary_starts_one_worker_of_the_new_generation_with_its_settings() -> None:
    state = serving()
    state.reload = Reload(2, NEW)
    assert settle.start_canary(state, NOW)
    assert state.out == [Spawn(3, 1, 2)]
    assert state.pool.workers[3].spec == NEW
    assert state.reload.canary == 3
    assert not settle.start_canary(state, NOW)


def test_start_canary_waits_for_the_settings() -> None:
    state = serving()
    assert not settle.start_canary(state, NOW)
    state.reload = Reload(2)
    assert not settle.start_canary(state, NOW)


def test_start_canary_waits_where_too_many_leave() -> None:
    state = state_of((1, Stage.READY), (1, Stage.DRAINING), (1, Stage.DRAINING), size=1)
    state.reload = Reload(2, NEW)
    assert not settle.start_canary(state, NOW)
    state.pool.remove(state.pool.workers[3])
    assert settle.start_canary(state, NOW)


# --- start_replacement -------------------------------------------------------------------------


def retiring(state: State, *wids: int) -> State:
    for wid in wids:
        state.pool.workers[wid].retiring = "old"
    return state


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_start_replacement_starts_a_successor_for_who_asks(stage: Stage) -> None:
    state = retiring(state_of((1, Stage.READY), (2, stage)), 2)
    assert settle.start_replacement(state, NOW)
    assert state.out == [Spawn(3, 2, 1)]


def test_start_replacement_starts_a_successor_for_who_is_outdated_before_who_asks() -> None:
    state = retiring(serving(3), 1)
    state.generation = 2
    state.pool.workers[1].generation = 2
    assert settle.start_replacement(state, NOW)
    assert state.out == [Spawn(4, 2, 2)]


def test_start_replacement_has_nothing_to_do_where_nobody_asks() -> None:
    assert not settle.start_replacement(serving(), NOW)


@pytest.mark.parametrize(("size", "at_once"), [(2, 1), (20, 2)])
def test_start_replacement_replaces_one_in_ten_at_a_time(size: int, at_once: int) -> None:
    state = retiring(serving(size), *range(1, size + 1))
    for _ in range(at_once):
        assert settle.start_replacement(state, NOW)
    assert not settle.start_replacement(state, NOW)


def test_start_replacement_rolls_one_at_a_time_however_many_there_are() -> None:
    state = serving(20)
    state.generation = 2
    assert settle.start_replacement(state, NOW)
    assert not settle.start_replacement(state, NOW)


@pytest.mark.parametrize("spec", [None, NEW])
def test_start_replacement_waits_for_the_end_of_a_reload(spec: PoolSpec | None) -> None:
    state = retiring(serving(), 1)
    state.reload = Reload(2, spec)
    assert not settle.start_replacement(state, NOW)


def test_start_replacement_waits_for_the_backoff_of_the_slot_and_goes_on_with_the_next() -> None:
    state = retiring(serving(), 1, 2)
    state.pool.slot(1).not_before = NOW + 1
    assert settle.start_replacement(state, NOW)
    assert state.out == [Spawn(3, 2, 1)]


def test_start_replacement_waits_where_too_many_drain() -> None:
    state = retiring(state_of((1, Stage.READY), (1, Stage.DRAINING), (1, Stage.DRAINING), size=1), 1)
    assert not settle.start_replacement(state, NOW)


def test_start_replacement_without_headroom_lets_the_old_one_go_first() -> None:
    state = retiring(serving(), 1)
    state.headroom = False
    assert settle.start_replacement(state, NOW)
    assert done(state) == [TellToDrain(1, False)]
    assert state.pool.slot(1).vacated
    text = "worker=1 gen=1 pid=101 goes before its successor comes: there is no memory for both."
    assert state.out[0] == Log(text, logging.WARNING)
    assert not settle.start_replacement(state, NOW)


@pytest.mark.parametrize("stage", [Stage.SPAWNING, Stage.STARTING, Stage.DRAINING, Stage.ABORTING])
def test_start_replacement_without_headroom_waits_until_all_slots_are_served(stage: Stage) -> None:
    state = retiring(state_of((1, Stage.READY), (2, stage)), 1)
    state.headroom = False
    assert not settle.start_replacement(state, NOW)


def test_start_replacement_with_headroom_does_not_wait_for_slots_that_are_not_served() -> None:
    assert settle.start_replacement(retiring(state_of((1, Stage.READY)), 1), NOW)


def test_start_replacement_waits_for_a_slot_that_was_given_up_for_want_of_memory() -> None:
    state = retiring(serving(), 1)
    state.pool.slot(2).vacated = True
    assert not settle.start_replacement(state, NOW)


# --- finish_roll -------------------------------------------------------------------------------


def rolling(*workers: tuple[int, Stage, int]) -> State:
    state = state_of(generation=2)
    state.rolling = True
    for slot, stage, generation in workers:
        add(state, slot, stage, generation)
    return state


def test_finish_roll_says_that_the_reload_is_complete() -> None:
    state = rolling((1, Stage.READY, 2), (2, Stage.READY, 2), (2, Stage.DRAINING, 1))
    (leaving,) = state.pool.in_stage(Stage.DRAINING)
    leaving.since = NOW
    assert not settle.finish_roll(state, NOW)
    leaving.accepting = False
    assert settle.finish_roll(state, NOW)
    assert state.out == [Log("Reload complete: generation 2 serves with 2 worker(s).")]
    assert not settle.finish_roll(state, NOW)


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_finish_roll_waits_for_the_last_old_worker(stage: Stage) -> None:
    assert not settle.finish_roll(rolling((1, Stage.READY, 2), (2, stage, 1), (2, Stage.READY, 2)), NOW)


def test_finish_roll_waits_for_all_slots() -> None:
    assert not settle.finish_roll(rolling((1, Stage.READY, 2), (2, Stage.STARTING, 2)), NOW)


def test_finish_roll_is_nothing_for_a_service_that_does_not_roll_is_paused_or_reloads_again() -> None:
    for name, value in (("rolling", False), ("paused", True), ("reload", Reload(3))):
        state = rolling((1, Stage.READY, 2), (2, Stage.READY, 2))
        setattr(state, name, value)
        assert not settle.finish_roll(state, NOW)


# --- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "deadline", "stops"),
    [
        (Stage.READY, NOW + 1, False),
        (Stage.STALLED, NOW + 1, False),
        (Stage.READY, NOW, True),
        (Stage.STARTING, NOW + 1, True),
    ],
)
def test_stop_serving_on_when_the_delay_is_over_or_nobody_serves(
    stage: Stage, deadline: float, stops: bool
) -> None:
    state = state_of((1, stage))
    state.phase, state.phase_deadline = Phase.LINGERING, deadline
    assert settle.stop_serving_on(state, NOW) is stops
    assert state.phase is (Phase.STOPPING if stops else Phase.LINGERING)


@pytest.mark.parametrize(
    ("stage", "accepting", "deadline", "closes"),
    [
        (Stage.DRAINING, True, NOW + 0.1, False),
        (Stage.DRAINING, True, NOW, True),
        (Stage.DRAINING, False, NOW + 0.1, True),
        (Stage.ABORTING, True, NOW + 0.1, True),
    ],
)
def test_stop_listening_when_everybody_has_emptied_the_queue_or_has_had_its_time(
    stage: Stage, accepting: bool, deadline: float, closes: bool
) -> None:
    state = state_of()
    add(state, 1, stage, accepting=accepting)
    state.phase, state.phase_deadline = Phase.STOPPING, deadline
    assert settle.stop_listening(state, NOW) is closes
    assert done(state) == [CloseListeners()] * closes
    if closes:
        assert state.phase_deadline == NEVER
        assert not settle.stop_listening(state, NOW)


@pytest.mark.parametrize("code", [0, 3, 70])
def test_exit_when_empty(code: int) -> None:
    state = state_of()
    state.phase, state.listening, state.exit_code = Phase.STOPPING, False, code
    assert settle.exit_when_empty(state, NOW)
    assert state.out == [Exit(code)]
    assert state.phase is Phase.EXITED


@pytest.mark.parametrize("stage", list(Stage))
def test_exit_waits_for_the_last_worker(stage: Stage) -> None:
    state = state_of((1, stage))
    state.listening = False
    assert not settle.exit_when_empty(state, NOW)


def test_exit_waits_for_the_listeners() -> None:
    assert not settle.exit_when_empty(state_of(), NOW)


def test_a_reload_that_a_stop_ends_is_abandoned_once() -> None:
    state = serving()
    state.phase, state.phase_deadline, state.reload = Phase.LINGERING, NOW, Reload(2)
    settle.settle(state, NOW)
    assert [action for action in done(state) if isinstance(action, Abandon)] == [Abandon(2)]
