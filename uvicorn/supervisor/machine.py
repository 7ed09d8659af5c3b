"""The master's decisions: `step(now, event)` takes what has happened and returns what is to be done.

Pure: no system call, no clock, no log. Time is a value that comes with every event; what is to be logged is an action
like any other. Nothing from outside makes a step raise: an unknown pid, a late message, a second stop have their
answers in the tables. See `stages.py` for what happens to one worker, `settle.py` for what follows for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.supervisor import events, policy, preload, reloads
from uvicorn.supervisor.actions import (
    Action,
    Answer,
    AskForReport,
    ExecUpgrade,
    Hurry,
    KillTrial,
    ReadHealth,
    ReopenLogs,
    StartTrial,
)
from uvicorn.supervisor.asked import ON_REQUEST, Ledger, Restart
from uvicorn.supervisor.events import Event, PoolSpec
from uvicorn.supervisor.pool import GIVEN_UP, NEVER, SERVING, Mold, Stage, Worker
from uvicorn.supervisor.settle import answers_until, settle
from uvicorn.supervisor.stages import Details, What, happen
from uvicorn.supervisor.state import (
    HURRY_GRACE,
    REOPEN_TIME,
    Phase,
    State,
    abandon_reload,
    begin_stop,
    drain,
    give_up_reload,
    resize,
    set_stage,
    tell_of_failed_start,
)

# The scoreboard is read this many times in the time after which silence counts, at most once a second.
HEALTH_READS = 5
HEALTH_PERIOD = 1.0
# The master itself is late by this much: it was stopped, or the machine was. Nobody is blamed then.
LATE = 1.0


class Machine:
    """The state of the service and its one entrance.

    Args:
        spec: The settings to begin with.
        random: Gives numbers between 0 and 1, for jitter.
        generation: The first generation's number.
    """

    def __init__(self, spec: PoolSpec, random: Callable[[], float], generation: int = 1) -> None:
        self.state = State(spec, random, spec.size, generation=generation, last_generation=generation)
        self._now = 0.0

    def step(self, now: float, event: Event) -> list[Action]:
        """Take one event; return the actions, to be performed in order."""
        state = self.state
        self._now = state.now = now
        state.out = []
        if state.phase is Phase.EXITED:
            return []
        _excuse_all(state, now)
        _HANDLERS[type(event)](state, event, now)
        _pass_deadlines(state, now)
        settle(state, now)
        return state.out

    def next_deadline(self) -> float:
        """When `step` wants to be called next, if nothing happens before."""
        state = self.state
        if state.phase is Phase.EXITED:
            return NEVER
        due = [
            state.phase_deadline,
            state.trial_deadline,
            state.health_at,
            state.reopen_deadline,
            state.again_at,
        ]
        due += [worker.deadline for worker in state.pool]
        due += [mold.deadline for mold in state.pool.molds.values()]
        if state.phase is Phase.RUNNING:
            places = (*state.pool.slots.values(), state.pool.mold_place)
            due += [place.not_before for place in places if place.not_before > self._now]
        if state.rolling:
            due += [until for worker in state.pool if (until := answers_until(worker)) > self._now]
        return min(due)

    def can_exec(self) -> bool:
        """Whether the next program can take over now: not while workers are asked of a mold, whose pids nobody knows yet,
        and not when the service stops."""
        state = self.state
        return state.phase is Phase.RUNNING and not state.pool.in_stage(Stage.SPAWNING)

    def adopt(
        self,
        workers: Iterable[Worker],
        size: int,
        ledger: Ledger | None = None,
        molds: Iterable[Mold] = (),
    ) -> None:
        """Take over the workers of the program that this one has replaced, and what was asked of it. Its molds end by
        themselves: what they have loaded is another program's."""
        state = self.state
        state.ledger = ledger or state.ledger
        for worker in workers:
            state.pool.workers[worker.wid] = worker
            state.pool.next_wid = max(state.pool.next_wid, worker.wid + 1)
            state.ever_ready = state.ever_ready or worker.ready_at is not None
        for mold in molds:
            state.pool.molds[mold.mid] = mold
            state.pool.next_mid = max(state.pool.next_mid, mold.mid + 1)
        state.size = size
        state.rolling = state.upgraded = True


def _excuse_all(state: State, now: float) -> None:
    """What has passed while the master, or the machine, was stopped is nobody's fault, and no part of any clock."""
    late = now - state.health_at
    if late <= min(LATE, state.spec.healthcheck / 2):
        return
    for worker in state.pool:
        worker.excused_at = now
        if worker.stage in (Stage.STARTING, Stage.STALLED, Stage.DRAINING):
            worker.deadline += late
    preload.excuse(state, late)
    state.trial_deadline += late
    state.again_at += late


def _next_read(state: State, now: float) -> float:
    return now + min(HEALTH_PERIOD, state.spec.healthcheck / HEALTH_READS)


def _pass_deadlines(state: State, now: float) -> None:
    for worker in state.pool:
        if now >= worker.deadline:
            worker.deadline = NEVER
            happen(state, worker, What.DEADLINE, now)
    preload.pass_deadlines(state, now)
    if now >= state.health_at:
        state.health_at = _next_read(state, now)
        if state.phase is not Phase.STOPPING:
            state.act(ReadHealth())
    if state.trial is not None and now >= state.trial_deadline:
        state.trial_deadline = NEVER
        state.log("Upgrade: the trial of the new program takes too long.", logging.ERROR)
        state.act(KillTrial(state.trial))


# --- workers -----------------------------------------------------------------------------------


def _start(state: State, event: events.Start, now: float) -> None:
    state.health_at = _next_read(state, now)


def _wake(state: State, event: events.Wake, now: float) -> None:
    pass


def _spawned(state: State, event: events.Spawned, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is None or worker.stage is not Stage.SPAWNING:
        return
    worker.pid = event.pid
    limit = worker.spec.startup
    set_stage(worker, Stage.STARTING, now, now + limit if limit else NEVER)
    preload.heard(state, worker, now)
    if state.phase is Phase.STOPPING:
        drain(state, worker, now, final=True)


def _spawn_failed(state: State, event: events.SpawnFailed, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is None or worker.stage is not Stage.SPAWNING:
        return
    state.pool.remove(worker)
    preload.heard(state, worker, now)
    if state.reload is not None and state.reload.canary == worker.wid:
        abandon_reload(state, f"no process could be made: {event.error}")
        return
    if state.phase is not Phase.RUNNING:
        return
    # The system is short of something. What serves, serves on; nothing is said against the application.
    slot = state.pool.slot(worker.slot)
    slot.failures += 1
    delay = policy.backoff(slot.failures, state.random())
    slot.not_before = now + delay
    state.log(
        f"No process could be made for worker={worker.slot}: {event.error}. Next try in {delay:.1f} s.",
        logging.ERROR,
    )
    tell_of_failed_start(state, worker.slot, f"no process could be made: {event.error}")


def _ready(state: State, event: events.Ready, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None:
        happen(state, worker, What.READY, now)


def _recycle(state: State, event: events.RecycleWanted, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None:
        happen(state, worker, What.RECYCLE, now, Details(reason=event.reason))


def _complained(state: State, event: events.Complained, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None:
        worker.complaint = event.text


def _stopped_accepting(state: State, event: events.StoppedAccepting, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None:
        worker.accepting = False
        happen(state, worker, What.LEAVES, now)


def _exited(state: State, event: events.Exited, now: float) -> None:
    if event.pid == state.trial:
        _trial_ended(state, event)
        return
    mold = state.pool.mold_with_pid(event.pid)
    if mold is not None:
        preload.happen(state, mold, preload.What.EXITED, now, event)
        return
    worker = state.pool.with_pid(event.pid)
    if worker is not None:  # else an orphan that has come to us: it was reaped, and that is all
        happen(state, worker, What.EXITED, now, Details(exit=event))


def _health_read(state: State, event: events.HealthRead, now: float) -> None:
    state.headroom = event.headroom
    for reading in event.readings:
        worker = state.pool.workers.get(reading.wid)
        if worker is None:
            continue
        limit = worker.spec.healthcheck
        loop_at = max(reading.loop_at, worker.excused_at)
        if now - max(reading.thread_at, worker.excused_at) > limit:
            happen(state, worker, What.SILENT, now)
        elif now - loop_at > limit:
            happen(state, worker, What.STALE, now, Details(loop_at=loop_at))
        elif now - min(reading.loop_at, reading.thread_at) <= limit:
            happen(state, worker, What.FRESH, now)


def _inspected(state: State, event: events.Inspected, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None:
        happen(state, worker, What.STOPPED if event.stopped else What.RUNS, now)


def _reported(state: State, event: events.Reported, now: float) -> None:
    state.out += state.ledger.end_dump(event.wid, True, event.text)


# --- the service -------------------------------------------------------------------------------


def _heard(event: Any, signal: str) -> str:
    """How the log calls a request: by its signal, or by who else can ask."""
    return "Asked by uvicornctl" if event.asked else f"Received {signal}"


def _answer(state: State, event: Any, ok: bool, text: str) -> None:
    """Answer a request at once; a signal gets none."""
    if event.asked:
        state.act(Answer(event.asked, ok, text))


def _stop(state: State, event: events.StopRequested, now: float) -> None:
    _answer(state, event, True, STOPS)
    if state.phase is Phase.RUNNING:
        state.log(f"{_heard(event, event.signal)}, exiting.")
        give_up_reload(state, "the service stops")
        reloads.forget_next(state, STOPS)
        if state.spec.shutdown_delay and state.pool.serving():
            state.phase = Phase.LINGERING
            state.phase_deadline = now + state.spec.shutdown_delay
            state.log(f"Serving on for {state.spec.shutdown_delay:g} s.")
        else:
            begin_stop(state, now)
    elif state.phase is Phase.LINGERING:
        state.log(f"{_heard(event, event.signal)} again, stopping without further delay.")
        begin_stop(state, now)
    else:
        state.log(f"{_heard(event, event.signal)} again, stopping at once.", logging.WARNING)
        for worker in state.pool:
            if worker.stage in (Stage.DRAINING, Stage.STARTING, Stage.READY, Stage.STALLED):
                set_stage(worker, Stage.ABORTING, now, now + HURRY_GRACE)
                worker.doomed = f"{event.signal} came again"
                state.act(Hurry(worker.wid))


def _reload(state: State, event: events.ReloadRequested, now: float) -> None:
    if state.phase is not Phase.RUNNING:
        _answer(state, event, False, STOPS)
        return
    state.log(f"{_heard(event, 'SIGHUP')}, restarting processes.")
    if state.paused:
        # That nobody is ready now was wanted, and is no part of a crash loop.
        state.paused = False
        state.restarts = []
    reloads.ask(state, event.asked, now)


def _settings_loaded(state: State, event: events.SettingsLoaded, now: float) -> None:
    reload = state.reload
    if reload is not None and reload.generation == event.generation:
        reload.spec = event.spec


def _settings_rejected(state: State, event: events.SettingsRejected, now: float) -> None:
    reload = state.reload
    if reload is not None and reload.generation == event.generation:
        abandon_reload(state, f"the settings cannot be used: {event.reason}")


def _scale(state: State, event: events.ScaleRequested, now: float) -> None:
    if state.phase is not Phase.RUNNING or state.paused:
        return
    if event.step > 0:
        state.log("Received SIGTTIN, increasing the number of processes.")
        if state.size >= MAX_SIZE:
            state.log(f"Already reached {MAX_SIZE} processes, cannot increase the number of processes.")
            return
    else:
        state.log("Received SIGTTOU, decreasing number of processes.")
        if state.size <= 1:
            state.log("Already reached one process, cannot decrease the number of processes.")
            return
    resize(state, state.size + event.step)


def _resize(state: State, event: events.ResizeRequested, now: float) -> None:
    if state.phase is not Phase.RUNNING or state.paused:
        _answer(
            state, event, False, "All workers have been drained: reload first." if state.paused else STOPS
        )
    elif not 1 <= event.size <= MAX_SIZE:
        _answer(state, event, False, f"{event.size} is not between 1 and {MAX_SIZE} workers.")
    else:
        state.log(f"Asked by uvicornctl for {event.size} processes instead of {state.size}.")
        resize(state, event.size)
        state.ledger.wait("scale", event.asked)


# As many as the setting allows.
MAX_SIZE = 512
STOPS = "The service stops."
OVERTAKEN = "An upgrade begins: it replaces all workers, and returns to the configured number."


def _restart(state: State, event: events.RestartRequested, now: float) -> None:
    holders = state.pool.holders().get(event.slot, [])
    worker = holders[0] if holders else None
    if state.phase is not Phase.RUNNING:
        _answer(state, event, False, STOPS)
    elif worker is None:
        _answer(state, event, False, f"There is no worker={event.slot}.")
    elif worker.stage not in SERVING:
        _answer(
            state, event, False, f"{worker.name} is {worker.stage.value}: there is nothing to replace yet."
        )
    else:
        pending = state.ledger.restarts.setdefault(event.slot, Restart(worker.wid, []))
        pending.numbers.append(event.asked)
        happen(state, worker, What.RECYCLE, now, Details(reason=ON_REQUEST))


def _dump(state: State, event: events.DumpRequested, now: float) -> None:
    found = [worker for worker in state.pool if worker.slot == event.slot and worker.pid is not None]
    if not found:
        _answer(state, event, False, f"There is no worker={event.slot}.")
        return
    # The one that serves; else the one that leaves, which may be stuck in it.
    worker = next((worker for worker in found if worker.stage in SERVING), found[0])
    state.ledger.dumps.setdefault(worker.wid, []).append(event.asked)
    state.act(AskForReport(worker.wid))


def _reopen(state: State, event: events.ReopenRequested, now: float) -> None:
    state.log(f"{_heard(event, 'SIGUSR1')}, reopening log files.")
    told = [worker.wid for worker in state.pool if worker.stage not in GIVEN_UP]
    state.reopening |= set(told)
    state.not_reopened = {}
    state.reopen_deadline = now + REOPEN_TIME
    state.ledger.wait("reopen", event.asked)
    state.act(ReopenLogs(tuple(told)))


def _reopened(state: State, event: events.Reopened, now: float) -> None:
    state.reopening.discard(event.wid)
    worker = state.pool.workers.get(event.wid)
    if event.problem and (worker is not None or event.wid == 0):
        name = worker.name if worker is not None else "the master"
        state.not_reopened.setdefault(event.problem, []).append(name)


def _over_limit(state: State, event: events.OverLimit, now: float) -> None:
    worker = state.pool.workers.get(event.wid)
    if worker is not None and worker.generation != state.over_limit:
        state.over_limit = worker.generation
        state.log(f"{worker.name}: {event.text}", logging.WARNING)


def _pause(state: State, event: events.PauseRequested, now: float) -> None:
    if state.phase is not Phase.RUNNING or state.paused:
        return
    state.log(
        "Received SIGWINCH, draining all workers; the sockets stay open, SIGHUP brings the workers back."
    )
    give_up_reload(state, "all workers are to leave")
    reloads.forget_next(state, "All workers are to leave.")
    reloads.overtake(state, "All workers are to leave.")
    state.out += state.ledger.end("scale", False, "All workers are to leave.")
    state.paused = True


def _upgrade(state: State, event: events.UpgradeRequested, now: float) -> None:
    if state.phase is not Phase.RUNNING:
        _answer(state, event, False, STOPS)
        return
    if state.trial is not None or state.reload is not None:
        text = f"{_heard(event, 'SIGUSR2')}, but a reload or an upgrade is under way: ignored."
        state.log(text, logging.WARNING)
        _answer(state, event, False, text)
        return
    state.log(f"{_heard(event, 'SIGUSR2')}, trying the new program.")
    state.ledger.wait("upgrade", event.asked)
    state.upgrading = True
    state.act(StartTrial())


def _trial_started(state: State, event: events.TrialStarted, now: float) -> None:
    state.trial = event.pid
    state.trial_deadline = now + state.spec.startup if state.spec.startup else NEVER
    if state.phase is not Phase.RUNNING:
        state.act(KillTrial(event.pid))


def _trial_ended(state: State, event: events.Exited) -> None:
    state.trial = None
    state.trial_deadline = NEVER
    if state.phase is not Phase.RUNNING:
        return
    if event.code != 0:
        words = policy.exit_in_words(event.code, event.out_of_memory)
        _end_upgrade(state, f"the new program does not start ({words})")
        return
    state.log("Upgrade: the new program starts; taking its place.")
    state.out += state.ledger.end_all_but_upgrade(OVERTAKEN)
    state.act(ExecUpgrade())


def _trial_failed(state: State, event: events.TrialFailed, now: float) -> None:
    _end_upgrade(state, event.reason)


def _end_upgrade(state: State, why: str) -> None:
    state.upgrading = False
    text = f"Upgrade failed: {why}. Nothing has changed."
    state.log(text, logging.ERROR)
    state.end("upgrade", False, text)


_HANDLERS: dict[type, Callable[[State, Any, float], None]] = {
    events.Start: _start,
    events.Wake: _wake,
    events.Spawned: _spawned,
    events.SpawnFailed: _spawn_failed,
    events.MoldSpawned: preload.spawned,
    events.MoldSpawnFailed: preload.spawn_failed,
    events.MoldLoaded: preload.loaded,
    events.MoldComplained: preload.complained,
    events.Ready: _ready,
    events.RecycleWanted: _recycle,
    events.Complained: _complained,
    events.StoppedAccepting: _stopped_accepting,
    events.Exited: _exited,
    events.HealthRead: _health_read,
    events.Inspected: _inspected,
    events.StopRequested: _stop,
    events.ReloadRequested: _reload,
    events.SettingsLoaded: _settings_loaded,
    events.SettingsRejected: _settings_rejected,
    events.ScaleRequested: _scale,
    events.ReopenRequested: _reopen,
    events.PauseRequested: _pause,
    events.UpgradeRequested: _upgrade,
    events.ResizeRequested: _resize,
    events.RestartRequested: _restart,
    events.DumpRequested: _dump,
    events.Reported: _reported,
    events.Reopened: _reopened,
    events.OverLimit: _over_limit,
    events.TrialStarted: _trial_started,
    events.TrialFailed: _trial_failed,
}
