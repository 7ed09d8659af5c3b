"""What happens to a mold, the process that imports the application and that workers are forked from (`preload`). Pure.

A generation has one mold, and no worker of it is started before that has loaded. A mold that is lost is built again, and
until it is there, the workers that are needed wait for it: the master could fork one without a mold, but that one would
import the application by itself, take as long for it as the mold does, and share nothing of its memory for the rest of
its life. Those that serve go on meanwhile; they are the master's children, not the mold's.

                 starting          ready      draining   aborting   killed
    loaded       becomes ready     -          -          -          -
    deadline     failed load       lost       killed     killed     killed again
    exited       failed load       lost       ended      ended      ended

A ready mold has a deadline while it is asked for workers: whoever does not fork within it is stuck or stopped.
"""

from __future__ import annotations

import enum
import logging
import signal
from collections.abc import Callable

from uvicorn.supervisor import policy
from uvicorn.supervisor.actions import AbortMold, ForgetMold, KillMold, SpawnMold
from uvicorn.supervisor.events import (
    Exited,
    MoldComplained,
    MoldLoaded,
    MoldSpawned,
    MoldSpawnFailed,
    PoolSpec,
)
from uvicorn.supervisor.pool import NEVER, Mold, Stage, Worker
from uvicorn.supervisor.state import (
    ABORT_GRACE,
    Phase,
    State,
    abandon_reload,
    end_mold,
    give_back,
    give_up,
    quoted,
    set_stage,
    tell_of_failed_start,
)

# How long a mold may take for the next of the workers that it was asked for. A fork of a heap of a gigabyte takes some
# 10 ms; this is for one that is stuck in a hook of the application's, or that somebody has stopped.
FORK_GRACE = 5.0
# A killed process that is still there is killed again after this time.
KILL_AGAIN = 5.0


class What(enum.Enum):
    """What can happen to a mold."""

    LOADED = "loaded"  # it says that it has imported the application
    DEADLINE = "deadline"
    EXITED = "exited"


Transition = Callable[[State, Mold, float, Exited | None], None]


def happen(state: State, mold: Mold, what: What, now: float, exit: Exited | None = None) -> None:
    """Apply one entry of the table."""
    TABLE[what][mold.stage](state, mold, now, exit)


def ignore(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    pass


def become_ready(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    took = now - mold.since
    set_stage(mold, Stage.READY, now)
    mold.ready_at = now
    if mold.generation == state.generation:
        state.pool.mold_place.failures = 0
    state.log(f"{mold.name} ready after {took:.2f} s")


def abort_load(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    why = f"the application is not imported after {now - mold.since:.0f} s"
    _abort(state, mold, now, why)
    _load_failed(state, mold, now, why)


def abort_silent(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    why = f"it has not forked a worker for {FORK_GRACE:g} s"
    _abort(state, mold, now, why)
    _lost(state, mold, now, why, by_itself=True)


def kill(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    set_stage(mold, Stage.KILLED, now, now + KILL_AGAIN)
    state.act(KillMold(mold.mid))


def kill_again(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    state.log(f"{mold.name} is still there {KILL_AGAIN:g} s after SIGKILL.", logging.ERROR)
    kill(state, mold, now, exit)


def fail_load(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    assert exit is not None
    words = policy.exit_in_words(exit.code, exit.out_of_memory)
    _leave(state, mold)
    if state.phase is Phase.RUNNING:
        state.log(
            f"Mold process [{mold.pid}] died before it had loaded the application: {words}", logging.ERROR
        )
        _load_failed(state, mold, now, words)


def die(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    assert exit is not None
    words = policy.exit_in_words(exit.code, exit.out_of_memory)
    _leave(state, mold)
    state.log(
        f"Mold process [{mold.pid}] died: {words} (gen={mold.generation} age={policy.age_in_words(now - mold.since)})",
        logging.WARNING,
    )
    # Killed by somebody says nothing against the next one.
    by_itself = exit.code != -signal.SIGKILL or exit.out_of_memory
    _lost(state, mold, now, words, by_itself)


def end(state: State, mold: Mold, now: float, exit: Exited | None) -> None:
    assert exit is not None
    _leave(state, mold)
    words = f": {policy.exit_by_the_master(exit.code)}" if mold.doomed else ""
    state.log(
        f"Mold process [{mold.pid}] ended{words} (gen={mold.generation})",
        logging.WARNING if mold.doomed else logging.INFO,
    )


_S = Stage
TABLE: dict[What, dict[Stage, Transition]] = {
    What.LOADED: {
        _S.SPAWNING: ignore,
        _S.STARTING: become_ready,
        _S.READY: ignore,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.DEADLINE: {
        _S.SPAWNING: ignore,
        _S.STARTING: abort_load,
        _S.READY: abort_silent,
        _S.DRAINING: kill,
        _S.ABORTING: kill,
        _S.KILLED: kill_again,
    },
    What.EXITED: {
        _S.SPAWNING: ignore,
        _S.STARTING: fail_load,
        _S.READY: die,
        _S.DRAINING: end,
        _S.ABORTING: end,
        _S.KILLED: end,
    },
}


# --- what follows from it ----------------------------------------------------------------------


def _abort(state: State, mold: Mold, now: float, why: str) -> None:
    state.log(f"Aborting {mold.name}: {why}.", logging.ERROR)
    mold.doomed = why
    set_stage(mold, Stage.ABORTING, now, now + ABORT_GRACE)
    state.act(AbortMold(mold.mid))


def _leave(state: State, mold: Mold) -> None:
    assert mold.pid is not None
    del state.pool.molds[mold.mid]
    state.act(ForgetMold(mold.mid, mold.pid))


def _load_failed(state: State, mold: Mold, now: float, why: str) -> None:
    """The application cannot be imported: wait before the next try, or give up."""
    reload = state.reload
    if reload is not None and reload.generation == mold.generation:
        abandon_reload(state, f"the new code could not be loaded: {why}", mold.complaint)
        return
    if state.phase is not Phase.RUNNING or mold.generation != state.generation:
        return
    place = state.pool.mold_place
    place.failures += 1
    _count_missing(state, now)
    _tell_those_who_wait(state, why, mold.complaint)
    if not state.ever_ready:
        give_up(state, now, policy.ExitCode.STARTUP_FAILURE, f"The application could not be loaded: {why}.")
        return
    delay = policy.backoff(place.failures, state.random())
    place.not_before = now + delay
    state.log(f"The application could not be loaded; next try in {delay:.1f} s.", logging.WARNING)


def _lost(state: State, mold: Mold, now: float, why: str, by_itself: bool) -> None:
    """A mold that had loaded is gone, or given up."""
    asked = state.pool.asked_of(mold)
    give_back(state, mold)
    reload = state.reload
    if reload is not None and reload.generation == mold.generation:
        if reload.canary is None or any(worker.wid == reload.canary for worker in asked):
            abandon_reload(state, f"the process that had loaded the new code is lost: {why}")
        return
    if state.phase is not Phase.RUNNING or mold.generation != state.generation:
        return
    place = state.pool.mold_place
    if now - mold.since >= policy.STABLE_AFTER:
        place.short_lives = 0
    place.short_lives += by_itself
    place.not_before = now + policy.delay_after_death(place.short_lives, state.random())
    _count_missing(state, now)


def _count_missing(state: State, now: float) -> None:
    """One mold stands for all the starts that wait for it: as many restarts as there are slots that nobody serves in."""
    served = {worker.slot for worker in state.pool.serving()}
    missing = sum(1 for slot in range(1, state.wanted + 1) if slot not in served)
    state.restarts += [now] * missing


def _tell_those_who_wait(state: State, why: str, complaint: str) -> None:
    text = f"The application could not be loaded: {why}. The master goes on trying." + quoted(complaint)
    state.out += state.ledger.end("scale", False, text)
    for slot in list(state.ledger.restarts):
        tell_of_failed_start(state, slot, why, complaint)


def heard(state: State, worker: Worker, now: float) -> None:
    """The mold has done with one of the workers that it was asked for."""
    mold = state.pool.molds.get(worker.mold)
    if mold is not None and mold.stage is Stage.READY:
        mold.deadline = now + FORK_GRACE if state.pool.asked_of(mold) else NEVER


# --- rules, see settle.py ----------------------------------------------------------------------


def can_spawn(state: State, generation: int, spec: PoolSpec) -> bool:
    """Whether a worker can be started now: where there is to be a mold, it has to have loaded."""
    mold = state.pool.mold_for(generation)
    return not spec.preload or (mold is not None and mold.stage is Stage.READY)


def ask(state: State, worker: Worker, now: float) -> int:
    """The mold that is to fork the worker; 0 for the master itself."""
    mold = state.pool.mold_for(worker.generation) if worker.spec.preload else None
    if mold is None:
        return 0
    worker.mold = mold.mid
    if mold.deadline == NEVER:
        mold.deadline = now + FORK_GRACE
    return mold.mid


def drop_outdated_mold(state: State, now: float) -> bool:
    """A mold belongs to a generation that nothing is started in any more. Its workers need it for nothing."""
    wanted = {state.generation if state.spec.preload else 0}
    if state.reload is not None:
        wanted.add(state.reload.generation)
    for mold in list(state.pool.molds.values()):
        if mold.stage in (Stage.STARTING, Stage.READY) and mold.generation not in wanted:
            end_mold(state, mold, now)
            return True
    return False


def start_mold(state: State, now: float) -> bool:
    """A generation is to have a mold, and has none."""
    reload = state.reload
    if reload is not None and reload.spec is not None and reload.spec.preload and reload.mold is None:
        reload.mold = _spawn(state, reload.generation, reload.spec, now).mid
        return True
    if not state.spec.preload or not state.wanted or now < state.pool.mold_place.not_before:
        return False
    if state.pool.mold_for(state.generation) is not None:
        return False
    _spawn(state, state.generation, state.spec, now)
    return True


def _spawn(state: State, generation: int, spec: PoolSpec, now: float) -> Mold:
    mold = state.pool.add_mold(generation, spec, now)
    state.act(SpawnMold(mold.mid, generation))
    return mold


# --- events ------------------------------------------------------------------------------------


def spawned(state: State, event: MoldSpawned, now: float) -> None:
    mold = state.pool.molds.get(event.mid)
    if mold is None or mold.stage is not Stage.SPAWNING:
        return
    mold.pid = event.pid
    limit = mold.spec.startup
    set_stage(mold, Stage.STARTING, now, now + limit if limit else NEVER)
    if state.phase is Phase.STOPPING:
        end_mold(state, mold, now)


def spawn_failed(state: State, event: MoldSpawnFailed, now: float) -> None:
    mold = state.pool.molds.get(event.mid)
    if mold is None or mold.stage is not Stage.SPAWNING:
        return
    del state.pool.molds[mold.mid]
    why = f"no process could be made: {event.error}"
    if state.reload is not None and state.reload.mold == mold.mid:
        abandon_reload(state, why)
        return
    if state.phase is not Phase.RUNNING:
        return
    place = state.pool.mold_place
    place.failures += 1
    delay = policy.backoff(place.failures, state.random())
    place.not_before = now + delay
    state.log(
        f"No process could be made for the mold: {event.error}. Next try in {delay:.1f} s.", logging.ERROR
    )
    _tell_those_who_wait(state, why, "")


def loaded(state: State, event: MoldLoaded, now: float) -> None:
    mold = state.pool.molds.get(event.mid)
    if mold is not None:
        mold.memory = event.memory
        happen(state, mold, What.LOADED, now)


def complained(state: State, event: MoldComplained, now: float) -> None:
    mold = state.pool.molds.get(event.mid)
    if mold is not None:
        mold.complaint = event.text


def pass_deadlines(state: State, now: float) -> None:
    for mold in list(state.pool.molds.values()):
        if now >= mold.deadline:
            mold.deadline = NEVER
            happen(state, mold, What.DEADLINE, now)


def excuse(state: State, late: float) -> None:
    """So much time has passed that is no part of any clock."""
    for mold in state.pool.molds.values():
        if mold.stage in (Stage.STARTING, Stage.READY, Stage.DRAINING):
            mold.deadline += late
