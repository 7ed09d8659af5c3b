"""What follows from the state by itself: rules that run after every event, until none of them has anything to do.

Each rule looks at how things are and at how they are wanted, does at most one step, and says whether it did one. The
number of rounds is bounded: a rule that never comes to rest would be a bug, not an endless loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from uvicorn.supervisor import policy
from uvicorn.supervisor.actions import Exit, Spawn
from uvicorn.supervisor.pool import NEVER, SERVING, Stage, Worker
from uvicorn.supervisor.state import (
    Phase,
    State,
    begin_stop,
    close_listeners,
    drain,
    give_up,
)

Rule = Callable[[State, float], bool]


def settle(state: State, now: float) -> None:
    """Apply the rules of the phase until they are satisfied."""
    # Each round starts, drains or closes something; there are at most a few of each for every slot and worker.
    for _ in range(8 * (state.size + len(state.pool)) + 16):
        if not any(rule(state, now) for rule in RULES[state.phase]):
            return


def spawn(state: State, slot: int, generation: int, now: float) -> Worker:
    worker = state.pool.add(slot, generation, now)
    state.act(Spawn(worker.wid, slot, generation))
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


def finish_replacement(state: State, now: float) -> bool:
    """A successor is ready: the one it replaces may go."""
    for slot in _slots(state):
        holders = state.pool.holders(slot)
        if len(holders) > 1 and holders[-1].stage is Stage.READY:
            for worker in holders[:-1]:
                drain(state, worker, now)
            return True
    return False


def drop_surplus(state: State, now: float) -> bool:
    """More slots are held than wanted."""
    for slot in sorted(_slots(state), reverse=True):
        if slot > state.wanted and not _is_canary_slot(state, slot):
            holders = state.pool.holders(slot)
            for worker in holders:
                drain(state, worker, now)
            if holders:
                return True
    return False


def fill_slots(state: State, now: float) -> bool:
    """A slot is empty."""
    for slot in range(1, state.wanted + 1):
        if (
            not state.pool.holders(slot)
            and now >= state.pool.slot(slot).not_before
            and not _vacating(state, slot)
        ):
            spawn(state, slot, state.generation, now)
            return True
    return False


def start_canary(state: State, now: float) -> bool:
    """The new settings are there: one worker is to prove them."""
    reload = state.reload
    if reload is None or reload.spec is None or reload.canary is not None:
        return False
    reload.canary = spawn(state, 1, reload.generation, now).wid
    return True


def start_replacement(state: State, now: float) -> bool:
    """A worker is outdated, or asks to be replaced: its successor comes first."""
    if state.reload is not None and state.reload.canary is not None:
        return False  # the canary is the one successor there may be
    outdated = [worker for worker in _replaceable(state, now) if worker.generation != state.generation]
    asking = [worker for worker in _replaceable(state, now) if worker.retiring]
    limit = 1 if outdated else policy.surge(state.size)
    candidates = outdated or asking
    if not candidates or state.pool.being_replaced() + _vacated(state) >= limit:
        return False
    worker = candidates[0]
    if not state.headroom:
        state.log(
            f"{worker.name} goes before its successor comes: there is no memory for both.", logging.WARNING
        )
        drain(state, worker, now)
        state.pool.slot(worker.slot).not_before = NEVER
        return True
    if len(state.pool) >= policy.most_alive(state.size):
        return False  # old ones that drain have to end first
    spawn(state, worker.slot, state.generation, now)
    return True


def finish_roll(state: State, now: float) -> bool:
    """All workers belong to the new generation."""
    if not state.rolling or state.reload is not None:
        return False
    serving = state.pool.ready()
    if len(serving) < state.wanted or any(
        worker.generation != state.generation for worker in state.pool.serving()
    ):
        return False
    state.rolling = False
    state.log(f"Reload complete: generation {state.generation} serves with {len(serving)} worker(s).")
    return True


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
    if len(state.pool) or state.listening:
        return False
    state.phase = Phase.EXITED
    state.act(Exit(state.exit_code))
    return True


RULES: dict[Phase, tuple[Rule, ...]] = {
    Phase.RUNNING: (
        crash_loop,
        finish_replacement,
        drop_surplus,
        fill_slots,
        start_canary,
        start_replacement,
        finish_roll,
    ),
    Phase.LINGERING: (stop_serving_on, finish_replacement),
    Phase.STOPPING: (stop_listening, exit_when_empty),
    Phase.EXITED: (),
}


def _slots(state: State) -> list[int]:
    return sorted({worker.slot for worker in state.pool})


def _is_canary_slot(state: State, slot: int) -> bool:
    return state.reload is not None and state.reload.canary is not None and slot == 1


def _replaceable(state: State, now: float) -> list[Worker]:
    """Workers that serve alone in their slot, by slot."""
    found = [
        worker
        for worker in state.pool
        if worker.stage in SERVING
        and len(state.pool.holders(worker.slot)) == 1
        and now >= state.pool.slot(worker.slot).not_before
    ]
    return sorted(found, key=lambda worker: worker.slot)


def _vacating(state: State, slot: int) -> bool:
    """Whether a slot waits for the memory of the worker that leaves it."""
    if state.pool.slot(slot).not_before != NEVER:
        return False
    if any(worker.slot == slot for worker in state.pool):
        return True
    state.pool.slot(slot).not_before = 0.0
    return False


def _vacated(state: State) -> int:
    return sum(1 for number in state.pool.slots if _vacating(state, number))
