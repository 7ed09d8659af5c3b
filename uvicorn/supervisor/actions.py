"""What the master's machine wants done. The loop performs them in order; what comes of one comes back as an event."""

from __future__ import annotations

import logging

from uvicorn._values import value


@value
class Spawn:
    """Fork a worker; answered by Spawned or SpawnFailed.

    Attributes:
        mid: The mold that is to do it; the answer takes a while then. 0 for the master itself.
    """

    wid: int
    slot: int
    generation: int
    mid: int = 0


@value
class SpawnMold:
    """Fork a mold; answered by MoldSpawned or MoldSpawnFailed."""

    mid: int
    generation: int


@value
class EndMold:
    """SIGTERM, which ends a mold at once."""

    mid: int


@value
class AbortMold:
    """SIGABRT: the fault handler writes where it is stuck."""

    mid: int


@value
class KillMold:
    """SIGKILL to the mold's process group."""

    mid: int


@value
class ForgetMold:
    """The mold is gone: close its channel; end what its import has left in its process group."""

    mid: int
    pid: int


@value
class TellToDrain:
    """Tell a worker to finish what it has and leave.

    Attributes:
        final: Whether the whole service stops.
    """

    wid: int
    final: bool


@value
class Abort:
    """SIGABRT: the fault handler writes every thread's stack, then the process ends."""

    wid: int


@value
class Hurry:
    """SIGQUIT: stop waiting for requests in flight."""

    wid: int


@value
class Kill:
    """SIGKILL to the worker's process group."""

    wid: int


@value
class Forget:
    """The worker is gone: free its row and its channel; end what it has left in its process group.

    Attributes:
        pid: None where its mold was given up before it was heard of.
    """

    wid: int
    pid: int | None


@value
class ReadHealth:
    """Answered by HealthRead."""


@value
class Inspect:
    """Answered by Inspected."""

    wid: int


@value
class LoadSettings:
    """Read the configuration again; answered by SettingsLoaded or SettingsRejected."""

    generation: int


@value
class Adopt:
    """The generation has proved itself: listeners that it does not have may close."""

    generation: int


@value
class Abandon:
    """The generation is given up: listeners that only it has close."""

    generation: int


@value
class ReopenLogs:
    """In the master, and in these workers; answered by Reopened for each of them, unless it cannot."""

    wids: tuple[int, ...]


@value
class CloseListeners:
    """The service stops: nobody is to be accepted any more."""


@value
class StartTrial:
    """Try the new program; answered by TrialStarted or TrialFailed, then Exited."""


@value
class KillTrial:
    pid: int


@value
class ExecUpgrade:
    """Become the new program; answered by TrialFailed where that does not work."""


@value
class Answer:
    """Tell whoever has asked with this number how it ended."""

    number: int
    ok: bool
    text: str


@value
class AskForReport:
    """Let a worker say where it is; answered by Reported, unless it cannot."""

    wid: int


@value
class Log:
    text: str
    level: int = logging.INFO


@value
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
