"""What happens to a worker in each stage: THE table of transitions.

Rows are what can happen, columns the stage a worker is in; a missing entry is a bug, found by a test. Whatever comes
from outside has a row, also when it comes late or twice: then the entry is `ignore`.

                 starting         ready        stalled      draining    aborting     killed
    ready        becomes ready    -            -            full time   -            -
    recycle      -                is retired   is retired   -           -            -
    leaves       -                is let go    is let go    -           -            -
    stale        -                stalled      clock runs   -           -            -
    fresh        -                goes on      recovers     -           -            -
    silent       -                inspected    inspected    -           -            -
    stopped      -                left alone   left alone   -           -            -
    runs         -                aborted      aborted      -           -            -
    deadline     aborted          -            aborted      aborted     killed       killed again
    exited       failed start     died         died         ended       ended        ended

(spawning is as short as a fork; nothing but its exit can happen in it.)
"""

from __future__ import annotations

import enum
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn.supervisor import policy, reloads
from uvicorn.supervisor.actions import Adopt, Forget, Inspect, Kill
from uvicorn.supervisor.events import Exited
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.state import Phase, State, abort, resize, set_stage, start_failed

# A killed process that is still there (in an uninterruptible system call) is killed again after this time.
KILL_AGAIN = 5.0


class What(enum.Enum):
    """What can happen to a worker."""

    READY = "ready"  # it says that it is
    RECYCLE = "recycle"  # it asks for a successor
    LEAVES = "leaves"  # it has stopped accepting
    STALE = "stale"  # its event loop has not ticked in time
    FRESH = "fresh"  # both its ticks are in time
    SILENT = "silent"  # the process itself has not ticked in time
    STOPPED = "stopped"  # a look at a silent one: somebody has stopped it
    RUNS = "runs"  # a look at a silent one: nobody has
    DEADLINE = "deadline"  # the stage's deadline has passed
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Details:
    """What comes with it.

    Attributes:
        reason: For `recycle`.
        loop_at: For `stale`: since when the event loop stands still.
        exit: For `exited`.
    """

    reason: str = ""
    loop_at: float = 0.0
    exit: Exited | None = None


Transition = Callable[[State, Worker, float, Details], None]


def happen(state: State, worker: Worker, what: What, now: float, details: Details | None = None) -> None:
    """Apply one entry of the table."""
    TABLE[what][worker.stage](state, worker, now, details or Details())


def ignore(state: State, worker: Worker, now: float, details: Details) -> None:
    pass


def become_ready(state: State, worker: Worker, now: float, details: Details) -> None:
    took = now - worker.since
    set_stage(worker, Stage.READY, now)
    worker.ready_at = now
    state.ever_ready = True
    state.start_took = took
    state.pool.slot(worker.slot).vacated = False
    state.log(f"{worker.name} ready after {took:.2f} s")
    restart = state.ledger.restarts.get(worker.slot)
    if restart is not None and worker.wid > restart.old:
        state.out += state.ledger.end_restart(worker.slot, True, f"{worker.name} has taken its place.")
    reload = state.reload
    if reload is not None and reload.canary == worker.wid:
        assert reload.spec is not None
        state.reload = None
        state.reloaded = True
        state.generation = reload.generation
        state.spec = reload.spec
        resize(state, reload.spec.size)
        state.rolling = True
        if state.again:
            state.again_at = now + state.size * reloads.patience(state)
        state.pool.forgive()
        state.act(Adopt(reload.generation))


def serve_out(state: State, worker: Worker, now: float, details: Details) -> None:
    """It became ready before it heard that it is not wanted: what it has accepted gets the full time."""
    if worker.ready_at is None:
        worker.ready_at = now
        worker.accepting = True
        worker.deadline = worker.since + worker.spec.drain
        state.ever_ready = True


def retire(state: State, worker: Worker, now: float, details: Details) -> None:
    if not worker.retiring:
        worker.retiring = details.reason
        state.log(f"{worker.name} is to be replaced: {details.reason}")


def let_go(state: State, worker: Worker, now: float, details: Details) -> None:
    """It drains, and we have not told it to: a SIGTERM by hand, or the application's own. Its place is free at once.

    An end in order speaks of no fault, so `limit_restarts` does not count it. A slot in which that happens again and again
    has to wait all the same.
    """
    state.log(f"{worker.name} leaves: it was told to, and not by the master.")
    set_stage(worker, Stage.DRAINING, now, now + worker.spec.drain)
    state.ledger.count("requested")
    _forget_if_stable(state, worker, now)
    _replace(state, worker, now, blamed=True)


def stall(state: State, worker: Worker, now: float, details: Details) -> None:
    limit = worker.spec.stall
    worker.frozen = False
    set_stage(worker, Stage.STALLED, now, details.loop_at + limit if limit else NEVER)
    consequence = f"replaced after {limit:g} s" if limit else "left alone"
    state.log(
        f"{worker.name} is stalled: its event loop has not run for {now - details.loop_at:.1f} s ({consequence}).",
        logging.WARNING,
    )


def keep_stalled(state: State, worker: Worker, now: float, details: Details) -> None:
    worker.frozen = False
    if worker.deadline == NEVER and worker.spec.stall:
        # Its clock stood while somebody had stopped the process.
        worker.deadline = details.loop_at + worker.spec.stall


def recover(state: State, worker: Worker, now: float, details: Details) -> None:
    worker.frozen = False
    state.log(f"{worker.name} goes on after {now - worker.since:.1f} s.")
    set_stage(worker, Stage.READY, now)


def unfreeze(state: State, worker: Worker, now: float, details: Details) -> None:
    worker.frozen = False


def inspect(state: State, worker: Worker, now: float, details: Details) -> None:
    state.act(Inspect(worker.wid))


def leave_alone(state: State, worker: Worker, now: float, details: Details) -> None:
    worker.excused_at = now
    worker.deadline = NEVER
    if not worker.frozen:
        worker.frozen = True
        state.log(f"{worker.name} is stopped by somebody (SIGSTOP, a debugger); left alone.", logging.WARNING)


def abort_silent(state: State, worker: Worker, now: float, details: Details) -> None:
    if worker.frozen:
        # It goes on only now, and has had no time for a sign of life.
        worker.frozen = False
        worker.excused_at = now
    else:
        state.ledger.count("unresponsive")
        abort(state, worker, now, f"no sign of life for {worker.spec.healthcheck:g} s")


def abort_start(state: State, worker: Worker, now: float, details: Details) -> None:
    state.ledger.count("start_timeout")
    abort(state, worker, now, f"start-up not complete after {now - worker.since:.0f} s")


def abort_stalled(state: State, worker: Worker, now: float, details: Details) -> None:
    state.ledger.count("stalled")
    abort(state, worker, now, f"event loop stalled for {worker.spec.stall:g} s")


def abort_drain(state: State, worker: Worker, now: float, details: Details) -> None:
    state.ledger.count("drain_timeout")
    abort(state, worker, now, f"not finished {now - worker.since:.0f} s after it was told to stop")


def kill(state: State, worker: Worker, now: float, details: Details) -> None:
    set_stage(worker, Stage.KILLED, now, now + KILL_AGAIN)
    state.act(Kill(worker.wid))


def kill_again(state: State, worker: Worker, now: float, details: Details) -> None:
    state.log(f"{worker.name} is still there {KILL_AGAIN:g} s after SIGKILL.", logging.ERROR)
    kill(state, worker, now, details)


def fail_start(state: State, worker: Worker, now: float, details: Details) -> None:
    words = _leave(state, worker, now, details)
    if state.phase is not Phase.STOPPING:
        state.log(f"Child process [{worker.pid}] died before it was ready: {words}", logging.ERROR)
        state.ledger.count("start_failed")
        start_failed(state, worker, now, words)


def die(state: State, worker: Worker, now: float, details: Details) -> None:
    words = _leave(state, worker, now, details)
    state.log(f"Waiting for child process [{worker.pid}]")
    state.log(f"Child process [{worker.pid}] died: {words}", logging.WARNING)
    if state.phase is Phase.STOPPING:
        return
    state.restarts.append(now)
    assert details.exit is not None
    state.ledger.count("out_of_memory" if details.exit.out_of_memory else "died")
    # Killed by somebody says nothing against the next one; leaving by itself, or for its size, does.
    _replace(state, worker, now, blamed=details.exit.code != -signal.SIGKILL or details.exit.out_of_memory)


def _replace(state: State, worker: Worker, now: float, *, blamed: bool) -> None:
    """Say when the next one may start: at once, unless they keep going young."""
    slot = state.pool.slot(worker.slot)
    slot.short_lives += blamed
    slot.not_before = now + policy.delay_after_death(slot.short_lives, state.random())


def _forget_if_stable(state: State, worker: Worker, now: float) -> None:
    if worker.ready_at is not None and now - worker.ready_at >= policy.STABLE_AFTER:
        slot = state.pool.slot(worker.slot)
        slot.failures = slot.short_lives = 0


def end(state: State, worker: Worker, now: float, details: Details) -> None:
    words = _leave(state, worker, now, details)
    level = logging.WARNING if worker.doomed else logging.INFO
    state.log(f"Child process [{worker.pid}] ended: {words}", level)


def _leave(state: State, worker: Worker, now: float, details: Details) -> str:
    """The worker is gone; what there is to say about it."""
    assert details.exit is not None
    assert worker.pid is not None
    state.pool.remove(worker)
    state.reopening.discard(worker.wid)
    state.act(Forget(worker.wid, worker.pid))
    state.out += state.ledger.end_dump(worker.wid, False, f"{worker.name} has ended.")
    _forget_if_stable(state, worker, now)
    leaving = details.exit
    words = (
        policy.exit_by_the_master(leaving.code)
        if worker.doomed
        else policy.exit_in_words(leaving.code, leaving.out_of_memory)
    )
    born = worker.ready_at if worker.ready_at is not None else worker.since
    age = policy.age_in_words(now - born)
    return f"{words} (worker={worker.slot} gen={worker.generation} age={age} requests={leaving.requests})"


_S = Stage
TABLE: dict[What, dict[Stage, Transition]] = {
    What.READY: {
        _S.SPAWNING: ignore,
        _S.STARTING: become_ready,
        _S.READY: ignore,
        _S.STALLED: ignore,
        _S.DRAINING: serve_out,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.RECYCLE: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: retire,
        _S.STALLED: retire,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.LEAVES: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: let_go,
        _S.STALLED: let_go,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.STALE: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: stall,
        _S.STALLED: keep_stalled,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.FRESH: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: unfreeze,
        _S.STALLED: recover,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.SILENT: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: inspect,
        _S.STALLED: inspect,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.STOPPED: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: leave_alone,
        _S.STALLED: leave_alone,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.RUNS: {
        _S.SPAWNING: ignore,
        _S.STARTING: ignore,
        _S.READY: abort_silent,
        _S.STALLED: abort_silent,
        _S.DRAINING: ignore,
        _S.ABORTING: ignore,
        _S.KILLED: ignore,
    },
    What.DEADLINE: {
        _S.SPAWNING: ignore,
        _S.STARTING: abort_start,
        _S.READY: ignore,
        _S.STALLED: abort_stalled,
        _S.DRAINING: abort_drain,
        _S.ABORTING: kill,
        _S.KILLED: kill_again,
    },
    What.EXITED: {
        _S.SPAWNING: fail_start,
        _S.STARTING: fail_start,
        _S.READY: die,
        _S.STALLED: die,
        _S.DRAINING: end,
        _S.ABORTING: end,
        _S.KILLED: end,
    },
}
