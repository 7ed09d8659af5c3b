"""What the master's machine is told. Everything that happens outside comes in as one of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The part of the configuration that the machine knows.

    Attributes:
        size: How many workers.
        startup: Seconds a start may take; 0 for ever.
        healthcheck: Seconds without a sign of life.
        stall: Seconds the event loop may stand still; 0 for ever.
        drain: Seconds from being told to stop until the worker is aborted.
        shutdown_delay: Seconds to serve on after a signal to stop.
        limit_restarts: How many restarts within 60 seconds are too many when nobody is ready.
        preload: Whether workers are forked from a mold, which has imported the application.
    """

    size: int
    startup: float = 300
    healthcheck: float = 5
    stall: float = 30
    drain: float = 42
    shutdown_delay: float = 0
    limit_restarts: int = 10
    preload: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The loop has begun."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The wait is over without anything else: a deadline may have passed."""


@dataclass(frozen=True, slots=True)
class Spawned:
    wid: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    wid: int
    error: str


@dataclass(frozen=True, slots=True)
class MoldSpawned:
    mid: int
    pid: int


@dataclass(frozen=True, slots=True)
class MoldSpawnFailed:
    mid: int
    error: str


@dataclass(frozen=True, slots=True)
class MoldLoaded:
    """A mold has imported the application.

    Attributes:
        memory: Its resident memory in bytes.
    """

    mid: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class MoldComplained:
    """A mold that cannot import the application says why, before it ends."""

    mid: int
    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    wid: int


@dataclass(frozen=True, slots=True)
class RecycleWanted:
    """A worker has reached a limit and asks for a successor."""

    wid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Complained:
    """A worker whose start has failed says why, before it ends."""

    wid: int
    text: str


@dataclass(frozen=True, slots=True)
class StoppedAccepting:
    wid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A child is gone and reaped.

    Attributes:
        pid: Its process id.
        code: Its exit code, or minus the number of the signal that killed it.
        requests: How many requests it had answered.
        out_of_memory: Whether the kernel says that it killed for lack of memory.
    """

    pid: int
    code: int
    requests: int = 0
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One worker's two ticks, in monotonic seconds."""

    wid: int
    loop_at: float
    thread_at: float


@dataclass(frozen=True, slots=True)
class HealthRead:
    """The scoreboard as it is now.

    Attributes:
        readings: Of every worker that could be read.
        headroom: Whether there is memory for one more worker.
    """

    readings: tuple[Reading, ...]
    headroom: bool = True


@dataclass(frozen=True, slots=True)
class Inspected:
    """The answer to `Inspect`.

    Attributes:
        stopped: Whether somebody has stopped the process: a debugger, SIGSTOP.
    """

    wid: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class StopRequested:
    """TERM, INT or QUIT, or a command.

    Attributes:
        signal: The signal's name, for the log.
        asked: The number of the command, which gets an answer with it; 0 for a signal. Likewise below.
    """

    signal: str
    asked: int = 0


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    asked: int = 0


@dataclass(frozen=True, slots=True)
class SettingsLoaded:
    generation: int
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class SettingsRejected:
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ScaleRequested:
    """TTIN or TTOU: one worker more or less."""

    step: int


@dataclass(frozen=True, slots=True)
class ReopenRequested:
    asked: int = 0


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """WINCH: no workers, but the sockets stay."""


@dataclass(frozen=True, slots=True)
class UpgradeRequested:
    asked: int = 0


@dataclass(frozen=True, slots=True)
class ResizeRequested:
    """A command: so many workers."""

    size: int
    asked: int


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """A command: replace the worker of this slot."""

    slot: int
    asked: int


@dataclass(frozen=True, slots=True)
class DumpRequested:
    """A command: where is the worker of this slot?"""

    slot: int
    asked: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's answer to `AskForReport`."""

    wid: int
    text: str


@dataclass(frozen=True, slots=True)
class Reopened:
    """A worker has opened its log files again, or cannot be asked for it.

    Attributes:
        wid: Its number; 0 for the master itself.
        problem: What could not be opened, and why.
    """

    wid: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A worker is above one of its limits from the start, and does not apply it: its successor would be as well."""

    wid: int
    text: str


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """The trial of the new program runs."""

    pid: int


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """The trial could not be started, or the exec after it has failed."""

    reason: str


Event = (
    Start
    | Wake
    | Spawned
    | SpawnFailed
    | MoldSpawned
    | MoldSpawnFailed
    | MoldLoaded
    | MoldComplained
    | Ready
    | RecycleWanted
    | Complained
    | StoppedAccepting
    | Exited
    | HealthRead
    | Inspected
    | StopRequested
    | ReloadRequested
    | SettingsLoaded
    | SettingsRejected
    | ScaleRequested
    | ReopenRequested
    | PauseRequested
    | UpgradeRequested
    | ResizeRequested
    | RestartRequested
    | DumpRequested
    | Reported
    | Reopened
    | OverLimit
    | TrialStarted
    | TrialFailed
)
