"""The machine's whole state, and the few changes of it that several rules share."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from uvicorn.supervisor import policy
from uvicorn.supervisor.actions import (
    Abandon,
    Abort,
    Action,
    CloseListeners,
    EndMold,
    Forget,
    KillTrial,
    Log,
    TellToDrain,
)
from uvicorn.supervisor.asked import ON_REQUEST, Ledger
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.pool import HOLDING, NEVER, Mold, Pool, Stage, Worker

# From SIGABRT to SIGKILL.
ABORT_GRACE = 2.0
# From the second signal to stop to SIGKILL.
HURRY_GRACE = 1.0
# How long an abandoned start gets to end itself.
ABANDON_GRACE = 5.0
# A mold has nothing to finish, and dies of SIGTERM: this is for one in an uninterruptible system call.
MOLD_GRACE = 1.0
# How long workers are waited for that open their log files again.
REOPEN_TIME = 5.0
# How long the listeners stay open after the signal to stop, for workers to empty the accept queue.
QUEUE_GRACE = 0.5


class Phase(enum.Enum):
    """Where the service as a whole is."""

    RUNNING = "running"
    LINGERING = "lingering"  # told to stop, serving on for `shutdown_delay`
    STOPPING = "stopping"
    EXITED = "exited"


@dataclass(slots=True)
class Reload:
    """A reload that has not proved itself.

    Attributes:
        generation: Which one it would be.
        spec: The new settings; None while they are loaded.
        canary: The one worker that proves the new generation; None before it is started.
        mold: What imports its code, where workers are forked from a mold; None before it is started.
    """

    generation: int
    spec: PoolSpec | None = None
    canary: int | None = None
    mold: int | None = None


@dataclass(slots=True)
class State:
    """What the machine knows.

    Attributes:
        spec: The settings in effect.
        random: Gives numbers between 0 and 1, for jitter.
        size: How many workers are wanted; TTIN and TTOU move it away from `spec.size`.
        paused: Whether no workers are wanted for now.
        generation: The one that new workers belong to.
        ever_ready: Whether any worker has ever been ready.
        restarts: When workers had to be replaced without anybody wanting it.
        now: The time of the present step.
        overtaken: How many reloads in a row have taken the place of the one before.
        again: Whether one more reload follows the one under way.
        again_at: How long it waits for that.
        start_took: How long the last worker took to become ready.
        reloaded: Whether a reload has proved itself, and its workers are being rolled in.
        upgraded: Whether an upgrade has, and its workers are.
        ledger: What was asked for by number, and how things have ended.
        health_at: When the scoreboard is to be read next; a master that comes later was itself held up.
        upgrading: Whether another program is tried, or is about to take this one's place.
        reopening: The workers that have been asked to open their log files again, and have not answered.
        reopen_deadline: How long they are waited for.
        not_reopened: What could not be opened, and who could not.
        over_limit: The generation of which it has been said that its workers are above a limit from the start.
        out: The actions of the present step.
    """

    spec: PoolSpec
    random: Callable[[], float]
    size: int = 1
    phase: Phase = Phase.RUNNING
    phase_deadline: float = NEVER
    pool: Pool = field(default_factory=Pool)
    paused: bool = False
    generation: int = 1
    last_generation: int = 1
    reload: Reload | None = None
    rolling: bool = False
    overtaken: int = 0
    again: bool = False
    again_at: float = NEVER
    start_took: float = 0.0
    reloaded: bool = False
    upgraded: bool = False
    now: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    ever_ready: bool = False
    restarts: list[float] = field(default_factory=list)
    exit_code: int = 0
    health_at: float = NEVER
    headroom: bool = True
    listening: bool = True
    upgrading: bool = False
    reopening: set[int] = field(default_factory=set)
    reopen_deadline: float = NEVER
    not_reopened: dict[str, list[str]] = field(default_factory=dict)
    over_limit: int = 0
    trial: int | None = None
    trial_deadline: float = NEVER
    out: list[Action] = field(default_factory=list)

    @property
    def wanted(self) -> int:
        return 0 if self.paused else self.size

    def in_brief(self) -> str:
        """For the master's process title."""
        text = f"gen={self.generation} ready={len(self.pool.ready())}/{self.wanted}"
        if self.phase is not Phase.RUNNING:
            text += f" {self.phase.value}"
        return f"{text} reloading" if self.reload is not None or self.rolling else text

    def act(self, action: Action) -> None:
        self.out.append(action)

    def log(self, text: str, level: int = logging.INFO) -> None:
        self.out.append(Log(text, level))

    def end(self, what: str, ok: bool, text: str) -> None:
        """A reload, upgrade or change of size has ended: tell those who asked for it."""
        if what != "scale":
            self.ledger.record(what, ok, text, self.now)
        self.out += self.ledger.end(what, ok, text)


def resize(state: State, size: int) -> None:
    """So many workers are wanted. Who has asked for another number will not see it."""
    if size != state.size:
        state.size = size
        state.out += state.ledger.end("scale", False, f"Meanwhile the number was changed to {size}.")


def set_stage(process: Worker | Mold, stage: Stage, now: float, deadline: float = NEVER) -> None:
    process.stage = stage
    process.since = now
    process.deadline = deadline


def drain(state: State, worker: Worker, now: float, final: bool = False) -> None:
    """Tell a worker to leave. A start that is abandoned has nothing to finish and gets less time."""
    grace = ABANDON_GRACE if worker.ready_at is None else worker.spec.drain
    set_stage(worker, Stage.DRAINING, now, now + grace)
    worker.final = final
    worker.accepting = worker.ready_at is not None
    state.act(TellToDrain(worker.wid, final))


def abort(state: State, worker: Worker, now: float, why: str) -> None:
    """Give a worker up: its place is free at once, its process gets an end with evidence."""
    state.log(f"Aborting {worker.name}: {why}.", logging.ERROR)
    was = worker.stage
    worker.doomed = why
    set_stage(worker, Stage.ABORTING, now, now + ABORT_GRACE)
    state.act(Abort(worker.wid))
    if state.phase is Phase.STOPPING:
        return
    if was is Stage.STARTING:
        start_failed(state, worker, now, why)
    elif was is not Stage.DRAINING:
        state.restarts.append(now)


def start_failed(state: State, worker: Worker, now: float, why: str) -> None:
    """A worker that never became ready is lost: wait before the next try, or give up."""
    reload = state.reload
    if reload is not None and reload.canary == worker.wid:
        abandon_reload(state, f"its first worker did not start: {why}", worker.complaint)
        return
    if state.phase is not Phase.RUNNING:
        return
    slot = state.pool.slot(worker.slot)
    slot.failures += 1
    delay = policy.backoff(slot.failures, state.random())
    slot.not_before = now + delay
    state.restarts.append(now)
    tell_of_failed_start(state, worker.slot, why, worker.complaint)
    if not state.ever_ready:
        give_up(state, now, policy.ExitCode.STARTUP_FAILURE, f"No worker could start: {why}.")
    elif state.wanted >= worker.slot:
        state.log(f"worker={worker.slot} could not start; next try in {delay:.1f} s.", logging.WARNING)


def tell_of_failed_start(state: State, slot: int, why: str, complaint: str = "") -> None:
    """Those who wait for this start hear that it has failed; the service goes on trying, but not for a restart."""
    text = f"worker={slot} could not start: {why}."
    state.out += state.ledger.end("scale", False, f"{text} The master goes on trying." + quoted(complaint))
    answers = state.ledger.end_restart(slot, False, f"{text} The old worker serves on." + quoted(complaint))
    if answers:
        state.out += answers
        for worker in state.pool:
            if worker.slot == slot and worker.retiring == ON_REQUEST:
                worker.retiring = ""


def quoted(complaint: str) -> str:
    """What a worker has said of its failed start, for an answer: the log has it already, from the worker itself."""
    return f" The worker's error: {complaint}" if complaint else ""


def end_mold(state: State, mold: Mold, now: float) -> None:
    """Nothing is forked from this mold any more."""
    set_stage(mold, Stage.DRAINING, now, now + MOLD_GRACE)
    give_back(state, mold)
    state.act(EndMold(mold.mid))


def give_back(state: State, mold: Mold) -> None:
    """What the mold was asked for will not come. Nobody is to blame: the slots are free for the next start."""
    for worker in state.pool.asked_of(mold):
        state.pool.remove(worker)
        state.act(Forget(worker.wid, None))


def abandon_reload(state: State, why: str, complaint: str = "") -> None:
    """The new generation has not proved itself: everything stays as it is."""
    reload, state.reload = state.reload, None
    assert reload is not None
    state.overtaken = 0
    text = f"Reload failed, {why.rstrip('.')}. Generation {state.generation} goes on unchanged."
    state.log(text, logging.ERROR)
    state.end("reload", False, text + quoted(complaint))
    state.act(Abandon(reload.generation))


def give_up_reload(state: State, why: str) -> None:
    """Something else goes before the reload. Its canary is a start that nobody wants any more: see `settle.py`."""
    reload, state.reload = state.reload, None
    if reload is not None:
        text = f"The reload to generation {reload.generation} is given up: {why}."
        state.log(text)
        state.end("reload", False, text)
        state.act(Abandon(reload.generation))


def give_up(state: State, now: float, code: int, why: str) -> None:
    """The service cannot go on."""
    state.log(f"{why} Giving up with exit code {int(code)}.", logging.CRITICAL)
    state.exit_code = int(code)
    begin_stop(state, now)


def begin_stop(state: State, now: float) -> None:
    """Tell everybody that the service stops."""
    state.phase = Phase.STOPPING
    state.phase_deadline = now + QUEUE_GRACE
    give_up_reload(state, "the service stops")
    state.again, state.again_at = False, NEVER
    state.out += state.ledger.end_all("The service stops.")
    if state.trial is not None:
        state.act(KillTrial(state.trial))
    for mold in list(state.pool.molds.values()):
        if mold.stage in HOLDING and mold.pid is not None:
            end_mold(state, mold, now)
    for worker in state.pool:
        if worker.stage in (Stage.STARTING, Stage.READY, Stage.STALLED):
            drain(state, worker, now, final=True)
        elif worker.stage is Stage.DRAINING and not worker.final:
            worker.final = True
            state.act(TellToDrain(worker.wid, final=True))
            continue
        else:
            continue
        state.log(f"Terminated child process [{worker.pid}]")
    for worker in state.pool:
        if worker.pid is not None:
            state.log(f"Waiting for child process [{worker.pid}]")


def close_listeners(state: State) -> None:
    state.listening = False
    state.phase_deadline = NEVER
    state.act(CloseListeners())
