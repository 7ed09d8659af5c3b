"""What the system has refused while an action was performed, as what comes of that action.

No memory, no descriptors: none of it ends the master. What the action was for has failed, and the machine has an answer to
that as to any other failure; where it has no event for it, the log says so, and the deadlines see to the rest.
"""

from __future__ import annotations

import logging

from uvicorn.supervisor import actions, events
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.events import Event

logger = logging.getLogger("uvicorn.error")


def reason_of(exc: BaseException) -> str:
    """In words, without an error number."""
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__


def with_notes(exc: BaseException) -> str:
    """In one line: what it is, and what was noted about where and why."""
    notes = "; ".join(getattr(exc, "__notes__", ()))
    return f"{type(exc).__name__}: {exc}" + (f" ({notes})" if notes else "")


def events_of(action: Action, exc: BaseException) -> list[Event]:
    """What comes of an action that the system has refused."""
    reason = reason_of(exc)
    match action:
        case actions.Spawn(wid):
            return [events.SpawnFailed(wid, reason)]
        case actions.SpawnMold(mid):
            return [events.MoldSpawnFailed(mid, reason)]
        case actions.LoadSettings(generation):
            return [events.SettingsRejected(generation, reason)]
        case actions.StartTrial():
            return [events.TrialFailed(f"the trial could not be started: {reason}")]
        case actions.ReadHealth():
            return []  # it is read again soon
        case actions.Log():
            return []  # there is no better place to say it
        case _:
            logger.error("%s failed: %s. The master goes on.", type(action).__name__, reason)
            return []
