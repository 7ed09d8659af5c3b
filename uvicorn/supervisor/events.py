"""What the master's machine is told. Everything that happens outside comes in as one of these."""

from __future__ import annotations

from dataclasses import dataclass

from uvicorn._values import value


@dataclass(frozen=True, slots=True)  # handed over as JSON
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


@value
class Start:
    """The loop has begun."""


@value
class Wake:
    """The wait is over without anything else: a deadline may have passed."""


@value
class Spawned:
    wid: int
    pid: int


@value
class SpawnFailed:
    wid: int
    error: str


@value
class MoldSpawned:
    mid: int
    pid: int


@value
class MoldSpawnFailed:
    mid: int
    error: str


@value
class MoldLoaded:
    """A mold has imported the application.

    Attributes:
        memory: Its resident memory in bytes.
    """

    mid: int
    memory: int = 0


@value
class MoldComplained:
    """A mold that cannot import the application says why, before it ends."""

    mid: int
    text: str


@value
class Ready:
    wid: int


@value
class RecycleWanted:
    """A worker has reached a limit and asks for a successor."""

    wid: int
    reason: str


@value
class Complained:
    """A worker whose start has failed says why, before it ends."""

    wid: int
    text: str


@value
class StoppedAccepting:
    wid: int


@value
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


@value
class Reading:
    """One worker's two ticks, in monotonic seconds."""

    wid: int
    loop_at: float
    thread_at: float


@value
class HealthRead:
    """The scoreboard as it is now.

    Attributes:
        readings: Of every worker that could be read.
        headroom: Whether there is memory for one more worker.
    """

    readings: tuple[Reading, ...]
    headroom: bool = True


@value
class Inspected:
    """The answer to `Inspect`.

    Attributes:
        stopped: Whether somebody has stopped the process: a debugger, SIGSTOP.
    """

    wid: int
    stopped: bool


@value
class StopRequested:
    """TERM, INT or QUIT, or a command.

    Attributes:
        signal: The signal's name, for the log.
        asked: The number of the command, which gets an answer with it; 0 for a signal. Likewise below.
    """

    signal: str
    asked: int = 0


@value
class ReloadRequested:
    asked: int = 0


@value
class SettingsLoaded:
    generation: int
    spec: PoolSpec


@value
class SettingsRejected:
    generation: int
    reason: str


@value
class ScaleRequested:
    """TTIN or TTOU: one worker more or less."""

    step: int


@value
class ReopenRequested:
    asked: int = 0


@value
class PauseRequested:
    """WINCH: no workers, but the sockets stay."""


@value
class UpgradeRequested:
    asked: int = 0


@value
class ResizeRequested:
    """A command: so many workers."""

    size: int
    asked: int


@value
class RestartRequested:
    """A command: replace the worker of this slot."""

    slot: int
    asked: int


@value
class DumpRequested:
    """A command: where is the worker of this slot?"""

    slot: int
    asked: int


@value
class Reported:
    """A worker's answer to `AskForReport`."""

    wid: int
    text: str


@value
class Reopened:
    """A worker has opened its log files again, or cannot be asked for it.

    Attributes:
        wid: Its number; 0 for the master itself.
        problem: What could not be opened, and why.
    """

    wid: int
    problem: str = ""


@value
class OverLimit:
    """A worker is above one of its limits from the start, and does not apply it: its successor would be as well."""

    wid: int
    text: str


@value
class TrialStarted:
    """The trial of the new program runs."""

    pid: int


@value
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
