"""What the master's machine wants done. The loop performs them in order; what comes of one comes back as an event."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a worker; answered by Spawned or SpawnFailed."""

    wid: int
    slot: int
    generation: int


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
    """The worker is gone: free its row and its channel; end what it has left in its process group."""

    wid: int
    pid: int


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
    """In the master, and by SIGUSR1 in these workers."""

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
