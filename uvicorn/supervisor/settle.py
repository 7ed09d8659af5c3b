"""What follows from the state by itself: rules that run after every event, until none of them has anything to do.

Each rule looks at how things are and at how they are wanted, does at most one step, and says whether it did one. The
number of rounds is bounded: a rule that never comes to rest would be a bug, not an endless loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from uvicorn.supervisor import policy
from uvicorn.supervisor.actions import Exit, Spawn
from uvicorn.supervisor.asked import ON_REQUEST
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.pool import HOLDING, NEVER, SERVING, Stage, Worker
from uvicorn.supervisor.preload import ask, can_spawn, drop_outdated_mold, start_mold
from uvicorn.supervisor.reloads import reload_again
from uvicorn.supervisor.state import (
    Phase,
    State,
    begin_stop,
    close_listeners,
    drain,
    give_up,
)

Rule = Callable[[State, float], bool]

# How long a worker may take to hear that it is to leave, in seconds.
HEARING = 2.0


def settle(state: State, now: float) -> None:
    """Apply the rules of the phase until they are satisfied."""
    # Each round starts, drains or closes something; there are at most a few of each for every slot and worker.
    for _ in range(8 * (state.size + len(state.pool) + len(state.pool.molds)) + 16):
        if not any(rule(state, now) for rule in RULES[state.phase]):
            return


def spawn(state: State, slot: int, generation: int, spec: PoolSpec, now: float) -> Worker:
    worker = state.pool.add(slot, generation, spec, now)
    state.act(Spawn(worker.wid, slot, generation, ask(state, worker, now)))
    return worker


# --- while the service runs --------------------------------------------------------------------


def crash_loop(state: State, now: float) -> bool:
    """Nobody is ready any more, and the restarts are used up."""
    state.restarts = policy.recent(state.restarts, now)
    if (
        state.paused
        or state.pool.serving()
        or not policy.used_up(state.restarts, now, state.spec.limit_restarts)
    ):
        return False
    code = policy.ExitCode.CRASH_LOOP if state.ever_ready else policy.ExitCode.STARTUP_FAILURE
    count = len(state.restarts)
    give_up(state, now, code, f"No worker is ready, and {count} had to be replaced within a minute.")
    return True


def drop_outdated_start(state: State, now: float) -> bool:
    """A start belongs to a generation that nobody wants any more, or never did."""
    for worker in state.pool.in_stage(Stage.STARTING):
        if worker.generation != state.generation and not _is_canary(state, worker):
            drain(state, worker, now)
            return True
    return False


def finish_replacement(state: State, now: float) -> bool:
    """A successor is ready: those it replaces may go, also a start that has become needless."""
    for holders in state.pool.holders().values():
        heir = max((worker for worker in holders if worker.stage is Stage.READY), key=_rank, default=None)
        leaving = [
            worker
            for worker in holders
            if heir is not None and _rank(worker) < _rank(heir) and worker.pid is not None
        ]
        for worker in leaving:
            state.ledger.count(_why_replaced(state, worker))
            drain(state, worker, now)
        if leaving:
            return True
    return False


def drop_surplus(state: State, now: float) -> bool:
    """More slots are held than wanted."""
    surplus = [
        worker
        for worker in state.pool
        if worker.slot > state.wanted and worker.stage in HOLDING and worker.pid is not None
    ]
    for worker in sorted(surplus, key=_rank_by_slot, reverse=True):
        drain(state, worker, now)
    return bool(surplus)


def fill_slots(state: State, now: float) -> bool:
    """A slot is empty. A canary does not fill it: it may fail."""
    if not can_spawn(state, state.generation, state.spec):
        return False
    holders = state.pool.holders()
    for slot in range(1, state.wanted + 1):
        place = state.pool.slot(slot)
        if (
            all(_is_canary(state, holder) for holder in holders.get(slot, ()))
            and now >= place.not_before
            and not (place.vacated and _is_left(state, slot))
        ):
            if len(state.pool) >= _most_alive(state) + policy.surge(state.size):
                return False  # so many leave at the same time that some of them have to end first
            spawn(state, slot, state.generation, state.spec, now)
            return True
    return False


def start_canary(state: State, now: float) -> bool:
    """The new settings are there: one worker is to prove them."""
    reload = state.reload
    if reload is None or reload.spec is None or reload.canary is not None:
        return False
    if not can_spawn(state, reload.generation, reload.spec):
        return False
    if len(state.pool) >= _most_alive(state):
        return False  # old ones that drain, or canaries of reloads before, have to end first
    reload.canary = spawn(state, 1, reload.generation, reload.spec, now).wid
    return True


def start_replacement(state: State, now: float) -> bool:
    """A worker is outdated, or asks to be replaced: its successor comes first."""
    if state.reload is not None:
        return False  # the canary is the one successor there may be
    if not can_spawn(state, state.generation, state.spec):
        return False
    replaceable = _replaceable(state, now)
    outdated = [worker for worker in replaceable if worker.generation != state.generation]
    asking = sorted((worker for worker in replaceable if worker.retiring), key=_is_recycled)
    limit = 1 if outdated else policy.surge(state.size)
    candidates = outdated or asking
    # With memory for everybody, a slot that has lost its worker holds nobody up. Without, nobody goes before it has
    # one again: else one after the other would go.
    missing = _vacated(state) if state.headroom else _unserved(state)
    if not candidates or state.pool.being_replaced() + missing + _recycled(state, candidates[0]) >= limit:
        return False
    worker = candidates[0]
    if not state.headroom:
        state.ledger.count(_why_replaced(state, worker))
        state.log(
            f"{worker.name} goes before its successor comes: there is no memory for both.", logging.WARNING
        )
        drain(state, worker, now)
        state.pool.slot(worker.slot).vacated = True
        return True
    if len(state.pool) >= _most_alive(state):
        return False  # old ones that drain have to end first
    spawn(state, worker.slot, state.generation, state.spec, now)
    return True


def finish_roll(state: State, now: float) -> bool:
    """All workers belong to the new generation, and whoever connects now is answered by it."""
    if not state.rolling or state.reload is not None or state.paused:
        return False
    serving = state.pool.ready()
    if len(serving) < state.wanted or any(
        worker.generation != state.generation and (worker.stage in SERVING or now < answers_until(worker))
        for worker in state.pool
    ):
        return False
    state.rolling = False
    state.overtaken = 0
    text = f"Reload complete: generation {state.generation} serves with {len(serving)} worker(s)."
    state.log(text)
    if state.upgraded:
        state.upgraded = False
        state.end("upgrade", True, text.replace("Reload", "Upgrade", 1))
    if state.reloaded:
        state.reloaded = False
        state.end("reload", True, text)
    return True


def finish_scaling(state: State, now: float) -> bool:
    """As many workers are ready as were asked for."""
    if "scale" not in state.ledger.waiting or len(state.pool.ready()) != state.wanted:
        return False
    state.end("scale", True, f"{state.wanted} worker(s) are ready.")
    return True


def finish_reopening(state: State, now: float) -> bool:
    """Every worker has opened its log files again, or could not, or has had its time for it."""
    if state.reopen_deadline == NEVER or (state.reopening and now < state.reopen_deadline):
        return False
    state.reopen_deadline = NEVER
    late = [worker.name for worker in state.pool if worker.wid in state.reopening]
    state.reopening.clear()
    problems = [f"no answer from {', '.join(late)}"] if late else []
    problems += [f"{why} ({', '.join(names)})" for why, names in state.not_reopened.items()]
    if problems:
        text = f"Not all log files are reopened: {'; '.join(problems)}."
        state.log(text, logging.WARNING)
    else:
        text = "Master and workers have reopened their log files."
        state.log(text)
    state.out += state.ledger.end("reopen", not problems, text)
    return True


def forget_restart(state: State, now: float) -> bool:
    """A worker was to be replaced, and now its place is not wanted any more."""
    gone = [slot for slot in state.ledger.restarts if slot > state.wanted]
    for slot in gone:
        state.out += state.ledger.end_restart(slot, False, f"worker={slot} is not wanted any more.")
    return bool(gone)


# --- while it stops ----------------------------------------------------------------------------


def stop_serving_on(state: State, now: float) -> bool:
    """`shutdown_delay` is over, or nobody is left to serve on."""
    if now < state.phase_deadline and state.pool.serving():
        return False
    begin_stop(state, now)
    return True


def stop_listening(state: State, now: float) -> bool:
    """Every worker has emptied the accept queue, or has had its time for it."""
    if not state.listening:
        return False
    waiting = any(worker.accepting and worker.stage is Stage.DRAINING for worker in state.pool)
    if waiting and now < state.phase_deadline:
        return False
    close_listeners(state)
    return True


def exit_when_empty(state: State, now: float) -> bool:
    """Nobody is left."""
    if len(state.pool) or state.pool.molds or state.listening:
        return False
    state.phase = Phase.EXITED
    state.act(Exit(state.exit_code))
    return True


RULES: dict[Phase, tuple[Rule, ...]] = {
    Phase.RUNNING: (
        crash_loop,
        drop_outdated_start,
        finish_replacement,
        drop_surplus,
        drop_outdated_mold,
        start_mold,
        fill_slots,
        start_canary,
        start_replacement,
        finish_roll,
        reload_again,
        finish_scaling,
        finish_reopening,
        forget_restart,
    ),
    Phase.LINGERING: (stop_serving_on, drop_outdated_start, finish_replacement, finish_reopening),
    Phase.STOPPING: (stop_listening, finish_reopening, exit_when_empty),
    Phase.EXITED: (),
}


def _why_replaced(state: State, worker: Worker) -> str:
    """For the counts of restarts."""
    if worker.generation != state.generation:
        return "reloaded"
    if worker.retiring == ON_REQUEST:
        return "requested"
    return worker.retiring.partition(":")[0]  # the limit, by its name


def answers_until(worker: Worker) -> float:
    """Until when a worker that has been told to leave may still take connections: until it says that it does not. One that
    is so busy that it does not even hear of it takes none either, and is not waited for."""
    return worker.since + HEARING if worker.accepting and worker.stage is Stage.DRAINING else -NEVER


def _is_recycled(worker: Worker) -> bool:
    """Whether it goes because it has reached a limit; those that somebody waits for go first."""
    return bool(worker.retiring) and worker.retiring != ON_REQUEST


def _recycled(state: State, candidate: Worker) -> int:
    """How many workers that have reached a limit are still leaving, where one more would join them. Each of them uses
    memory beside its successor; one after the other would make twice as many processes as wanted."""
    if not _is_recycled(candidate) or candidate.generation != state.generation:
        return 0
    return sum(1 for worker in state.pool if _is_recycled(worker) and worker.stage not in HOLDING)


def _is_canary(state: State, worker: Worker) -> bool:
    return state.reload is not None and state.reload.canary == worker.wid


def _rank(worker: Worker) -> tuple[int, int]:
    """Of two workers in one slot the later generation stays, and in the same one the younger."""
    return worker.generation, worker.wid


def _rank_by_slot(worker: Worker) -> tuple[int, int]:
    return worker.slot, worker.wid


def _replaceable(state: State, now: float) -> list[Worker]:
    """Workers that serve alone in their slot, by slot."""
    found = [
        holders[0]
        for slot, holders in state.pool.holders().items()
        if len(holders) == 1 and holders[0].stage in SERVING and now >= state.pool.slot(slot).not_before
    ]
    return sorted(found, key=_rank_by_slot)


def _is_left(state: State, slot: int) -> bool:
    """Whether a worker that has left the slot is still alive."""
    return any(worker.slot == slot and worker.stage not in HOLDING for worker in state.pool)


def _vacated(state: State) -> int:
    """How many slots have given their worker up for want of memory, and have no ready one yet."""
    return sum(1 for slot in range(1, state.wanted + 1) if state.pool.slot(slot).vacated)


def _unserved(state: State) -> int:
    """How many slots nobody serves in."""
    served = {worker.slot for worker in state.pool.serving()}
    return sum(1 for slot in range(1, state.wanted + 1) if slot not in served)


def _most_alive(state: State) -> int:
    """How many processes there may be. Slots that are only left count: what drains there is in nobody's way."""
    return policy.most_alive(max([state.size, *(worker.slot for worker in state.pool)]))
