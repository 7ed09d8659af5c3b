"""The table of transitions: every entry, and that none is missing."""

from __future__ import annotations

import itertools
import logging
import re
import signal

import pytest

from uvicorn.supervisor import stages
from uvicorn.supervisor.actions import Abort, Adopt, Forget, Inspect, Kill, Log
from uvicorn.supervisor.events import Exited, PoolSpec
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.stages import TABLE, Details, What, happen
from uvicorn.supervisor.state import Phase, Reload, State, set_stage

NOW = 1000.0
SPEC = PoolSpec(2, startup=300, healthcheck=5, stall=30, drain=42)
PID = 4711
EXITED = Details(exit=Exited(PID, 0, 7))

# The words of the diagram in the module's docstring.
WORDS = {
    "-": stages.ignore,
    "becomes ready": stages.become_ready,
    "full time": stages.serve_out,
    "is retired": stages.retire,
    "is let go": stages.let_go,
    "stalled": stages.stall,
    "clock runs": stages.keep_stalled,
    "goes on": stages.unfreeze,
    "recovers": stages.recover,
    "inspected": stages.inspect,
    "left alone": stages.leave_alone,
    ("runs", "aborted"): stages.abort_silent,
    ("deadline", "starting"): stages.abort_start,
    ("deadline", "stalled"): stages.abort_stalled,
    ("deadline", "draining"): stages.abort_drain,
    "killed": stages.kill,
    "killed again": stages.kill_again,
    "failed start": stages.fail_start,
    "died": stages.die,
    "ended": stages.end,
}


def state_of(stage: Stage, **changes: object) -> tuple[State, Worker]:
    """A state with two slots, of which the first one's worker is in this stage for ten seconds."""
    state = State(SPEC, lambda: 0.5, SPEC.size, ever_ready=True)
    worker = state.pool.add(1, 1, SPEC, NOW - 20)
    if stage is not Stage.SPAWNING:
        worker.pid = PID
    worker.ready_at = None if stage in (Stage.SPAWNING, Stage.STARTING) else NOW - 20
    set_stage(worker, stage, NOW - 10, NEVER if stage in (Stage.SPAWNING, Stage.READY) else NOW)
    for name, value in changes.items():
        setattr(worker, name, value)
    return state, worker


def apply(
    what: What, stage: Stage, details: Details | None = None, **changes: object
) -> tuple[State, Worker]:
    state, worker = state_of(stage, **changes)
    happen(state, worker, what, NOW, details)
    return state, worker


def logged(state: State) -> list[tuple[str, int]]:
    return [(action.text, action.level) for action in state.out if isinstance(action, Log)]


def done(state: State) -> list[object]:
    return [action for action in state.out if not isinstance(action, Log)]


# --- the table as a whole ----------------------------------------------------------------------


@pytest.mark.parametrize(("what", "stage"), list(itertools.product(What, Stage)))
def test_no_entry_is_missing(what: What, stage: Stage) -> None:
    assert callable(TABLE[what][stage])


def test_there_are_no_other_entries() -> None:
    assert set(TABLE) == set(What)
    assert all(set(row) == set(Stage) for row in TABLE.values())


def diagram() -> dict[tuple[str, str], str]:
    """Row and column of the docstring's diagram, and the words there."""
    assert stages.__doc__ is not None
    lines = [line for line in stages.__doc__.splitlines() if line.startswith("    ")]
    columns = [(match[0], match.start()) for match in re.finditer(r"\S+", lines[0])]
    found = {}
    for line in lines[1:]:
        row = line[: columns[0][1]].strip()
        for i, (column, start) in enumerate(columns):
            end = columns[i + 1][1] if i + 1 < len(columns) else None
            found[row, column] = line[start:end].strip()
    return found


def test_the_diagram_has_every_row_and_every_stage_but_spawning() -> None:
    rows = {row for row, _ in diagram()}
    columns = {column for _, column in diagram()}
    assert rows == {what.value for what in What}
    assert columns == {stage.value for stage in Stage} - {"spawning"}


@pytest.mark.parametrize(("row", "column"), list(diagram()))
def test_the_diagram_agrees_with_the_table(row: str, column: str) -> None:
    words = diagram()[row, column]
    meant = WORDS.get(words) or WORDS.get((row, words)) or WORDS[row, column]
    assert TABLE[What(row)][Stage(column)] is meant


@pytest.mark.parametrize("what", [what for what in What if what is not What.EXITED])
def test_nothing_but_its_exit_can_happen_in_spawning(what: What) -> None:
    assert TABLE[what][Stage.SPAWNING] is stages.ignore


IGNORED = [(what, stage) for what in What for stage in Stage if TABLE[what][stage] is stages.ignore]


@pytest.mark.parametrize(("what", "stage"), IGNORED)
def test_what_is_ignored_changes_nothing(what: What, stage: Stage) -> None:
    before, worker_before = state_of(stage)
    after, worker_after = apply(what, stage)
    assert worker_after == worker_before
    assert (after.out, after.restarts, after.pool.slots) == ([], [], before.pool.slots)


# --- ready -------------------------------------------------------------------------------------


def test_starting_ready_becomes_ready() -> None:
    state, worker = state_of(Stage.STARTING)
    state.ever_ready = False
    state.pool.slot(1).vacated = True
    happen(state, worker, What.READY, NOW)
    assert (worker.stage, worker.ready_at, worker.deadline, worker.since) == (Stage.READY, NOW, NEVER, NOW)
    assert state.ever_ready
    assert not state.pool.slot(1).vacated
    assert state.out == [Log(f"worker=1 gen=1 pid={PID} ready after 10.00 s")]


def test_starting_ready_of_a_canary_adopts_its_generation() -> None:
    state, worker = state_of(Stage.STARTING)
    worker.generation = 2
    new = PoolSpec(5)
    state.reload = Reload(2, new, worker.wid)
    state.size = 9
    state.pool.slot(2).failures = 4
    happen(state, worker, What.READY, NOW)
    assert (state.generation, state.spec, state.size, state.rolling, state.reload) == (2, new, 5, True, None)
    assert done(state) == [Adopt(2)]
    assert state.pool.slot(2).failures == 0


def test_starting_ready_of_another_worker_leaves_the_reload_alone() -> None:
    state, worker = state_of(Stage.STARTING)
    reload = state.reload = Reload(2, PoolSpec(5), worker.wid + 1)
    happen(state, worker, What.READY, NOW)
    assert state.reload is reload
    assert (state.generation, done(state)) == (1, [])


def test_draining_ready_of_an_abandoned_start_gets_the_full_time() -> None:
    state, worker = apply(What.READY, Stage.DRAINING, ready_at=None, accepting=False, since=NOW - 1)
    assert (worker.stage, worker.ready_at, worker.accepting) == (Stage.DRAINING, NOW, True)
    assert worker.deadline == NOW - 1 + SPEC.drain
    assert state.ever_ready


def test_draining_ready_that_comes_twice_changes_nothing() -> None:
    _, worker = apply(What.READY, Stage.DRAINING, accepting=False)
    assert worker == state_of(Stage.DRAINING, accepting=False)[1]


# --- recycle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_recycle_is_retired(stage: Stage) -> None:
    state, worker = apply(What.RECYCLE, stage, Details(reason="limit_max_requests: 5 requests answered"))
    assert (worker.stage, worker.retiring) == (stage, "limit_max_requests: 5 requests answered")
    assert logged(state) == [
        (f"worker=1 gen=1 pid={PID} is to be replaced: limit_max_requests: 5 requests answered", logging.INFO)
    ]


def test_ready_recycle_for_a_second_reason_is_not_logged_again() -> None:
    state, worker = apply(What.RECYCLE, Stage.READY, Details(reason="other"), retiring="first")
    assert (worker.retiring, state.out) == ("first", [])


# --- leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_leaves_is_let_go_and_not_blamed(stage: Stage) -> None:
    state, worker = apply(What.LEAVES, stage)
    assert (worker.stage, worker.since, worker.deadline) == (Stage.DRAINING, NOW, NOW + SPEC.drain)
    assert (state.restarts, state.ledger.reasons) == ([], {"requested": 1})
    assert (state.pool.slot(1).short_lives, state.pool.slot(1).not_before) == (1, NOW)
    assert state.out == [Log(f"worker=1 gen=1 pid={PID} leaves: it was told to, and not by the master.")]


# --- health ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "deadline", "words"), [(30, NOW + 24, "replaced after 30 s"), (0, NEVER, "left alone")]
)
def test_ready_stale_is_stalled(limit: float, deadline: float, words: str) -> None:
    spec = PoolSpec(2, stall=limit)
    state, worker = apply(What.STALE, Stage.READY, Details(loop_at=NOW - 6), spec=spec, frozen=True)
    assert (worker.stage, worker.deadline, worker.frozen) == (Stage.STALLED, deadline, False)
    text = f"worker=1 gen=1 pid={PID} is stalled: its event loop has not run for 6.0 s ({words})."
    assert state.out == [Log(text, logging.WARNING)]


def test_stalled_stale_leaves_the_clock_that_runs() -> None:
    state, worker = apply(What.STALE, Stage.STALLED, Details(loop_at=NOW - 6), deadline=NOW + 3)
    assert (worker.deadline, state.out) == (NOW + 3, [])


@pytest.mark.parametrize(("limit", "deadline"), [(30, NOW + 24), (0, NEVER)])
def test_stalled_stale_after_somebody_had_stopped_it_starts_the_clock_again(
    limit: float, deadline: float
) -> None:
    _, worker = apply(
        What.STALE,
        Stage.STALLED,
        Details(loop_at=NOW - 6),
        spec=PoolSpec(2, stall=limit),
        deadline=NEVER,
        frozen=True,
    )
    assert (worker.stage, worker.deadline, worker.frozen) == (Stage.STALLED, deadline, False)


def test_ready_fresh_is_not_frozen_any_more() -> None:
    state, worker = apply(What.FRESH, Stage.READY, frozen=True)
    assert (worker.stage, worker.frozen, state.out) == (Stage.READY, False, [])


def test_stalled_fresh_recovers() -> None:
    state, worker = apply(What.FRESH, Stage.STALLED, frozen=True)
    assert (worker.stage, worker.deadline, worker.frozen) == (Stage.READY, NEVER, False)
    assert state.out == [Log(f"worker=1 gen=1 pid={PID} goes on after 10.0 s.")]


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
@pytest.mark.parametrize("frozen", [False, True])
def test_serving_silent_is_inspected(stage: Stage, frozen: bool) -> None:
    state, worker = apply(What.SILENT, stage, frozen=frozen)
    assert (worker.stage, state.out) == (stage, [Inspect(worker.wid)])


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_stopped_is_left_alone_and_reported_once(stage: Stage) -> None:
    state, worker = apply(What.STOPPED, stage)
    assert (worker.stage, worker.deadline, worker.excused_at, worker.frozen) == (stage, NEVER, NOW, True)
    text = f"worker=1 gen=1 pid={PID} is stopped by somebody (SIGSTOP, a debugger); left alone."
    assert state.out == [Log(text, logging.WARNING)]
    state.out = []
    happen(state, worker, What.STOPPED, NOW + 5)
    assert (worker.excused_at, state.out) == (NOW + 5, [])


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_silent_though_it_runs_is_aborted(stage: Stage) -> None:
    state, worker = apply(What.RUNS, stage)
    assert (worker.stage, worker.deadline) == (Stage.ABORTING, NOW + 2)
    assert done(state) == [Abort(worker.wid)]
    assert logged(state) == [(f"Aborting worker=1 gen=1 pid={PID}: no sign of life for 5 s.", logging.ERROR)]
    assert state.restarts == [NOW]


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_that_runs_again_only_now_gets_time_for_a_sign_of_life(stage: Stage) -> None:
    state, worker = apply(What.RUNS, stage, frozen=True)
    assert (worker.stage, worker.excused_at, worker.frozen, state.out) == (stage, NOW, False, [])


# --- deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        (Stage.STARTING, "start-up not complete after 10 s"),
        (Stage.STALLED, "event loop stalled for 30 s"),
        (Stage.DRAINING, "not finished 10 s after it was told to stop"),
    ],
)
def test_deadline_aborts_with_evidence(stage: Stage, why: str) -> None:
    state, worker = apply(What.DEADLINE, stage)
    assert (worker.stage, worker.deadline, worker.doomed) == (Stage.ABORTING, NOW + 2, why)
    assert done(state) == [Abort(worker.wid)]
    assert logged(state)[0] == (f"Aborting worker=1 gen=1 pid={PID}: {why}.", logging.ERROR)


def test_starting_deadline_is_a_failed_start() -> None:
    state, _ = apply(What.DEADLINE, Stage.STARTING)
    slot = state.pool.slot(1)
    assert (slot.failures, slot.not_before, state.restarts) == (1, NOW + 0.5, [NOW])
    assert logged(state)[1] == ("worker=1 could not start; next try in 0.5 s.", logging.WARNING)


def test_stalled_deadline_counts_as_a_restart_and_frees_the_slot_at_once() -> None:
    state, _ = apply(What.DEADLINE, Stage.STALLED)
    assert state.restarts == [NOW]
    assert state.pool.holders() == {}
    assert state.pool.slot(1).not_before == 0


def test_draining_deadline_is_no_restart() -> None:
    state, _ = apply(What.DEADLINE, Stage.DRAINING)
    assert (state.restarts, state.pool.slots) == ([], {})


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.STALLED, Stage.DRAINING])
def test_deadline_while_the_service_stops_counts_nothing(stage: Stage) -> None:
    state, worker = state_of(stage)
    state.phase = Phase.STOPPING
    state.ever_ready = False
    happen(state, worker, What.DEADLINE, NOW)
    assert worker.stage is Stage.ABORTING
    assert (state.restarts, state.pool.slots, state.exit_code) == ([], {}, 0)


def test_aborting_deadline_kills() -> None:
    state, worker = apply(What.DEADLINE, Stage.ABORTING)
    assert (worker.stage, worker.deadline, state.out) == (Stage.KILLED, NOW + 5, [Kill(worker.wid)])


def test_killed_deadline_kills_again_and_says_so() -> None:
    state, worker = apply(What.DEADLINE, Stage.KILLED)
    assert (worker.stage, worker.deadline) == (Stage.KILLED, NOW + 5)
    text = f"worker=1 gen=1 pid={PID} is still there 5 s after SIGKILL."
    assert state.out == [Log(text, logging.ERROR), Kill(worker.wid)]


# --- exited ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.SPAWNING])
def test_exited_frees_everything(stage: Stage) -> None:
    state, worker = apply(What.EXITED, stage, EXITED)
    assert len(state.pool) == 0
    assert done(state) == [Forget(worker.wid, PID)]


def test_starting_exited_is_a_failed_start() -> None:
    state, _ = apply(What.EXITED, Stage.STARTING, Details(exit=Exited(PID, 3, 0)))
    slot = state.pool.slot(1)
    assert (slot.failures, slot.not_before, state.restarts) == (1, NOW + 0.5, [NOW])
    words = "exit code 3 (worker=1 gen=1 age=10.0 s requests=0)"
    assert logged(state) == [
        (f"Child process [{PID}] died before it was ready: {words}", logging.ERROR),
        ("worker=1 could not start; next try in 0.5 s.", logging.WARNING),
    ]


def test_starting_exited_before_anybody_was_ready_gives_up_with_code_3() -> None:
    state, worker = state_of(Stage.STARTING)
    state.ever_ready = False
    happen(state, worker, What.EXITED, NOW, Details(exit=Exited(PID, 1)))
    assert (state.phase, state.exit_code) == (Phase.STOPPING, 3)
    words = "exit code 1 (worker=1 gen=1 age=10.0 s requests=0)"
    assert logged(state)[-1] == (
        f"No worker could start: {words}. Giving up with exit code 3.",
        logging.CRITICAL,
    )


def test_starting_exited_in_a_slot_that_is_not_wanted_any_more_is_not_tried_again() -> None:
    state, worker = state_of(Stage.STARTING)
    worker.slot = 3
    happen(state, worker, What.EXITED, NOW, EXITED)
    assert not any("next try" in text for text, _ in logged(state))


def test_starting_exited_of_a_canary_abandons_the_reload() -> None:
    state, worker = state_of(Stage.STARTING)
    state.ever_ready = False
    state.reload = Reload(2, SPEC, worker.wid)
    worker.generation = 2
    happen(state, worker, What.EXITED, NOW, Details(exit=Exited(PID, 3)))
    assert (state.reload, state.phase, state.restarts, state.pool.slots) == (None, Phase.RUNNING, [], {})
    assert [type(action).__name__ for action in done(state)] == ["Forget", "Abandon"]
    words = "exit code 3 (worker=1 gen=2 age=10.0 s requests=0)"
    text = f"Reload failed, its first worker did not start: {words}. Generation 1 goes on unchanged."
    assert logged(state)[-1] == (text, logging.ERROR)


@pytest.mark.parametrize("stage", [Stage.READY, Stage.STALLED])
def test_serving_exited_died_and_is_replaced_at_once(stage: Stage) -> None:
    state, _ = apply(What.EXITED, stage, Details(exit=Exited(PID, -signal.SIGSEGV, 12)))
    slot = state.pool.slot(1)
    assert (slot.short_lives, slot.not_before, state.restarts) == (1, NOW, [NOW])
    words = "killed by SIGSEGV (worker=1 gen=1 age=20.0 s requests=12)"
    assert logged(state) == [
        (f"Waiting for child process [{PID}]", logging.INFO),
        (f"Child process [{PID}] died: {words}", logging.WARNING),
    ]


@pytest.mark.parametrize(("out_of_memory", "short_lives"), [(False, 0), (True, 1)])
def test_serving_exited_by_sigkill_counts_as_a_short_life_only_where_memory_was_short(
    out_of_memory: bool, short_lives: int
) -> None:
    state, _ = apply(What.EXITED, Stage.READY, Details(exit=Exited(PID, -9, 12, out_of_memory)))
    assert state.pool.slot(1).short_lives == short_lives
    why = (
        "killed by the kernel: out of memory"
        if out_of_memory
        else "killed by SIGKILL (perhaps out of memory)"
    )
    assert logged(state)[1][0].startswith(f"Child process [{PID}] died: {why} (worker=1 ")


def test_serving_exited_for_the_fourth_time_within_a_minute_waits() -> None:
    state, worker = state_of(Stage.READY)
    state.pool.slot(1).short_lives = 3
    happen(state, worker, What.EXITED, NOW, EXITED)
    assert state.pool.slot(1).not_before == NOW + 0.5


def test_serving_exited_after_a_minute_forgets_what_was_before() -> None:
    state, worker = state_of(Stage.READY, ready_at=NOW - 60)
    slot = state.pool.slot(1)
    slot.failures, slot.short_lives = 5, 9
    happen(state, worker, What.EXITED, NOW, EXITED)
    assert (slot.failures, slot.short_lives, slot.not_before) == (0, 1, NOW)


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.READY])
def test_exited_while_the_service_stops_counts_nothing(stage: Stage) -> None:
    state, worker = state_of(stage)
    state.phase = Phase.STOPPING
    state.ever_ready = False
    happen(state, worker, What.EXITED, NOW, EXITED)
    assert (state.restarts, state.exit_code) == ([], 0)
    assert all(slot.not_before == 0 for slot in state.pool.slots.values())


@pytest.mark.parametrize("stage", [Stage.DRAINING, Stage.ABORTING, Stage.KILLED])
def test_leaving_exited_ended(stage: Stage) -> None:
    state, _ = apply(What.EXITED, stage, EXITED)
    words = "exit code 0 (worker=1 gen=1 age=20.0 s requests=7)"
    assert logged(state) == [(f"Child process [{PID}] ended: {words}", logging.INFO)]
    assert (state.restarts, state.pool.slots) == ([], {})


@pytest.mark.parametrize("code", [-signal.SIGABRT, -signal.SIGKILL])
@pytest.mark.parametrize("out_of_memory", [False, True])
def test_aborted_exited_was_killed_by_the_master_and_by_nobody_else(code: int, out_of_memory: bool) -> None:
    details = Details(exit=Exited(PID, code, 7, out_of_memory))
    state, _ = apply(What.EXITED, Stage.KILLED, details, doomed="event loop stalled for 30 s")
    name = signal.Signals(-code).name
    words = f"killed by {name} by the master (worker=1 gen=1 age=20.0 s requests=7)"
    assert logged(state) == [(f"Child process [{PID}] ended: {words}", logging.WARNING)]
