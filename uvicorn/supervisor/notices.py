"""What the service manager is told, and when: lines of sd_notify(3), derived from the machine's state after each event.

Pure: no system call, no clock. Time is a value; the lines are text that `notify.py` sends.

    starting    from the first event until all wanted workers serve, for the first time
    ready       READY=1; WATCHDOG=1 every third of the period
    reloading   RELOADING=1, from HUP or USR2 until the new generation serves alone, or is given up; then READY=1
    stopping    STOPPING=1, from the signal to stop on

While it starts, reloads or stops, EXTEND_TIMEOUT_USEC keeps the manager's own timeout from cutting short what has limits
of its own here; beyond those limits nothing is extended.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence

from uvicorn.supervisor.actions import Action, Log
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.state import ABORT_GRACE, Phase, State

# Each extension asks for so much from now on, and is repeated after a third of it.
EXTENSION = 30.0
# What the last abort of a stop may take beyond the worker's own limit.
STOP_MARGIN = ABORT_GRACE + 3.0
# The status line is renewed at most this often, unless something else is said anyhow.
STATUS_INTERVAL = 0.25
# Of a failure, the status line has room for so many characters.
FAILURE_LENGTH = 300


class Said(enum.Enum):
    """What the service manager has been told last."""

    STARTING = "starting"
    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"


class Notices:
    """What has been said, and what is to be said next.

    Args:
        watchdog: How often the manager wants a sign of life, in seconds; None where it wants none.
        adopted: Whether this is the program after an upgrade: then a reload is under way.
    """

    def __init__(self, watchdog: float | None = None, adopted: bool = False) -> None:
        self._said = Said.RELOADING if adopted else Said.STARTING
        self._period = NEVER if watchdog is None else watchdog / 3
        self._watchdog_at = NEVER if watchdog is None else 0.0
        self._status = ""
        self._status_at = 0.0
        self._is_late = False
        self._failure = ""
        # The generation that served when READY=1 was said, and the newest that RELOADING=1 was said for.
        self._generation = 0
        self._reloading_to = 0
        # No extension reaches beyond the limit.
        self._limit = -1.0
        self._extend_at = 0.0
        self._ready: frozenset[int] = frozenset()
        self._alone_since = NEVER
        self._now = 0.0

    def after(self, now: float, state: State, decided: Sequence[Action]) -> list[str]:
        """The lines to be sent after an event.

        Args:
            decided: What the machine has answered the event.
        """
        self._now = now
        for action in decided:
            if isinstance(action, Log) and action.level >= logging.ERROR:
                self._failure = " ".join(action.text.split())[:FAILURE_LENGTH]
        self._look(now, state)
        lines = self._change(now, state)
        lines += self._extension(now)
        lines += self._sign_of_life(now, state)
        return lines + self._status_line(now, state, bool(lines))

    def next_deadline(self) -> float:
        """When there is something to be said, if nothing happens before."""
        due = [self._extend_at, self._limit if self._said is Said.STARTING else NEVER]
        if self._said in (Said.READY, Said.RELOADING):
            due.append(self._watchdog_at)
        if self._is_late:
            due.append(self._status_at)
        return min((at for at in due if at > self._now), default=NEVER)

    # --- what has changed --------------------------------------------------------------------

    def _look(self, now: float, state: State) -> None:
        """Note since when nobody serves, and renew the limit of a reload that goes on."""
        ready = frozenset(worker.wid for worker in state.pool if _serves(worker))
        if ready:
            self._alone_since = NEVER
        elif self._alone_since == NEVER:
            self._alone_since = now
        if self._limit < 0 or (self._said is Said.RELOADING and ready != self._ready):
            self._limit = now + self._patience(state)
        self._ready = ready

    def _patience(self, state: State) -> float:
        """How long our own limits let the present step take: a start, a start and a drain, or the whole stop."""
        if self._said is Said.STOPPING:
            drains = [worker.spec.drain for worker in state.pool]
            delay = state.spec.shutdown_delay if state.phase is Phase.LINGERING else 0.0
            return delay + max([*drains, state.spec.drain]) + STOP_MARGIN
        startup = state.spec.startup or NEVER
        if state.spec.preload or (
            state.reload is not None and state.reload.spec and state.reload.spec.preload
        ):
            startup *= 2  # that of the mold, then that of the worker
        return startup if self._said is Said.STARTING else startup + state.spec.drain

    def _change(self, now: float, state: State) -> list[str]:
        before = self._said
        if state.phase is not Phase.RUNNING:
            if before is Said.STOPPING:
                return []
            return self._say(Said.STOPPING, now, state, ["STOPPING=1"])
        if before is Said.STARTING:
            return self._say(Said.READY, now, state, ["READY=1"]) if self._has_booted(now, state) else []
        if _is_reloading(state):
            generation = state.reload.generation if state.reload is not None else 0
            if before is Said.READY or generation > self._reloading_to:
                self._reloading_to = max(generation, self._reloading_to)
                lines = ["RELOADING=1", f"MONOTONIC_USEC={int(now * 1_000_000)}"]
                return self._say(Said.RELOADING, now, state, lines)
        elif before is Said.RELOADING:
            if state.generation != self._generation:
                self._failure = ""  # what serves now is new
            return self._say(Said.READY, now, state, ["READY=1"])
        return []

    def _say(self, what: Said, now: float, state: State, lines: list[str]) -> list[str]:
        self._said = what
        if what is Said.READY:
            self._generation = state.generation
            self._limit = self._extend_at = NEVER
        else:
            self._limit = now + self._patience(state)
            self._extend_at = now
        return lines

    def _has_booted(self, now: float, state: State) -> bool:
        """All wanted workers serve; or some do, and the others have had all the time that a start may take."""
        return len(self._ready) >= state.wanted or (bool(self._ready) and now >= self._limit)

    # --- time --------------------------------------------------------------------------------

    def _extension(self, now: float) -> list[str]:
        if self._said is Said.READY or now < self._extend_at or now >= self._limit:
            return []
        self._extend_at = now + EXTENSION / 3
        return [f"EXTEND_TIMEOUT_USEC={int(min(EXTENSION, self._limit - now) * 1_000_000)}"]

    def _sign_of_life(self, now: float, state: State) -> list[str]:
        if self._said not in (Said.READY, Said.RELOADING) or now < self._watchdog_at:
            return []
        self._watchdog_at = now + self._period
        return ["WATCHDOG=1"] if self._is_alive(now, state) else []

    def _is_alive(self, now: float, state: State) -> bool:
        """Whether the service is worth a sign of life: somebody serves, or nobody is meant to.

        Where the last one is lost, a start that is under way counts as well, for as long as a start may take: to be
        killed for it would only make everything start over. Workers that are stuck, or stopped, count for nothing.
        """
        if self._ready or state.wanted == 0:
            return True
        limit = self._alone_since + (state.spec.startup or NEVER) * (2 if state.spec.preload else 1)
        starting = bool(state.pool.in_stage(Stage.SPAWNING, Stage.STARTING))
        return now < limit and (starting or _loads(state))

    # --- for people --------------------------------------------------------------------------

    def _status_line(self, now: float, state: State, in_passing: bool) -> list[str]:
        status = self._in_words(state)
        self._is_late = status != self._status and not in_passing and now < self._status_at
        if status == self._status or self._is_late:
            return []
        self._status = status
        self._status_at = now + STATUS_INTERVAL
        return [f"STATUS={status}"]

    def _in_words(self, state: State) -> str:
        text = (
            f"{self._headline(state)}: generation {state.generation}, "
            f"{len(self._ready)} of {state.wanted} worker(s) ready"
        )
        for stage in (Stage.STALLED, Stage.DRAINING):
            count = len(state.pool.in_stage(stage))
            text += f", {count} {stage.value}" if count else ""
        text += ", loading the application" if _loads(state) else ""
        return f"{text}. Last failure: {self._failure}" if self._failure else f"{text}."

    def _headline(self, state: State) -> str:
        if state.phase is Phase.LINGERING:
            return "Serving on before the stop"
        if self._said is Said.READY:
            return "Paused" if state.paused else "Serving"
        if self._said is Said.RELOADING and state.upgrading:
            return "Upgrading"
        return str(self._said.value).capitalize()


def _loads(state: State) -> bool:
    """Whether a mold imports the application."""
    return any(mold.stage is Stage.STARTING for mold in state.pool.molds.values())


def _serves(worker: Worker) -> bool:
    return worker.stage is Stage.READY and not worker.frozen


def _is_reloading(state: State) -> bool:
    return state.upgrading or state.reload is not None or (state.rolling and not state.paused)
