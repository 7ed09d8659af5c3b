"""What the master's machine wants done. The loop performs them in order; what comes of one comes back as an event."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker; answered by Spawned or SpawnFailed.

    Attributes:
        mid: The mold that is to do it; the answer takes a while then. 0 for the master itself.
    """

    wid: int
    slot: int
    generation: int
    mid: int = 0


@dataclass(frozen=True, slots=True)
class SpawnMold:
    """Fork a mold; answered by MoldSpawned or MoldSpawnFailed."""

    mid: int
    generation: int


@dataclass(frozen=True, slots=True)
class EndMold:
    """SIGTERM, which ends a mold at once."""

    mid: int


@dataclass(frozen=True, slots=True)
class AbortMold:
    """SIGABRT: the fault handler writes where it is stuck."""

    mid: int


@dataclass(frozen=True, slots=True)
class KillMold:
    """SIGKILL to the mold's process group."""

    mid: int


@dataclass(frozen=True, slots=True)
class ForgetMold:
    """The mold is gone: close its channel; end what its import has left in its process group."""

    mid: int
    pid: int


@dataclass(frozen=True, slots=True)
class TellToDrain:
    """Tell a worker to finish what it has and leave.

    Attributes:
        final: Whether the whole service stops.
    """

    wid: int
    final: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """SIGABRT: the fault handler writes every thread's stack, then the process ends."""

    wid: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """SIGQUIT: stop waiting for requests in flight."""

    wid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the worker's process group."""

    wid: int


@dataclass(frozen=True, slots=True)
class Forget:
    """The worker is gone: free its row and its channel; end what it has left in its process group.

    Attributes:
        pid: None where its mold was given up before it was heard of.
    """

    wid: int
    pid: int | None


@dataclass(frozen=True, slots=True)
class ReadHealth:
    """Answered by HealthRead."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Answered by Inspected."""

    wid: int


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Read the configuration again; answered by SettingsLoaded or SettingsRejected."""

    generation: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """The generation has proved itself: listeners that it does not have may close."""

    generation: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """The generation is given up: listeners that only it has close."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """In the master, and in these workers; answered by Reopened for each of them, unless it cannot."""

    wids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """The service stops: nobody is to be accepted any more."""


@dataclass(frozen=True, slots=True)
class StartTrial:
    """Try the new program; answered by TrialStarted or TrialFailed, then Exited."""


@dataclass(frozen=True, slots=True)
class KillTrial:
    pid: int


@dataclass(frozen=True, slots=True)
class ExecUpgrade:
    """Become the new program; answered by TrialFailed where that does not work."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell whoever has asked with this number how it ended."""

    number: int
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class AskForReport:
    """Let a worker say where it is; answered by Reported, unless it cannot."""

    wid: int


@dataclass(frozen=True, slots=True)
class Log:
    text: str
    level: int = logging.INFO


@dataclass(frozen=True, slots=True)
class Exit:
    """The master is done."""

    code: int


Action = (
    Spawn
    | SpawnMold
    | EndMold
    | AbortMold
    | KillMold
    | ForgetMold
    | TellToDrain
    | Abort
    | Hurry
    | Kill
    | Forget
    | ReadHealth
    | Inspect
    | LoadSettings
    | Adopt
    | Abandon
    | ReopenLogs
    | CloseListeners
    | StartTrial
    | KillTrial
    | ExecUpgrade
    | Answer
    | AskForReport
    | Log
    | Exit
)
