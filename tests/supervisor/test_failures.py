"""What the system refuses while an action is performed."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from uvicorn.supervisor import actions, events
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.failures import events_of, reason_of, with_notes

NO_DESCRIPTORS = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (actions.Spawn(7, 1, 1), events.SpawnFailed(7, "Too many open files")),
        (actions.SpawnMold(3, 1), events.MoldSpawnFailed(3, "Too many open files")),
        (actions.LoadSettings(2), events.SettingsRejected(2, "Too many open files")),
        (actions.StartTrial(), events.TrialFailed("the trial could not be started: Too many open files")),
    ],
)
def test_what_the_machine_waits_for_has_failed(action: Action, event: Event) -> None:
    assert events_of(action, NO_DESCRIPTORS) == [event]


def test_of_the_rest_the_log_says_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        assert events_of(actions.CloseListeners(), NO_DESCRIPTORS) == []
    assert caplog.messages == ["CloseListeners failed: Too many open files. The master goes on."]


@pytest.mark.parametrize("action", [actions.ReadHealth(), actions.Log("text")])
def test_what_comes_again_or_cannot_be_said_is_not_spoken_of(
    action: Action, caplog: pytest.LogCaptureFixture
) -> None:
    assert events_of(action, NO_DESCRIPTORS) == []
    assert not caplog.messages


def test_a_reason_is_never_empty() -> None:
    assert reason_of(NO_DESCRIPTORS) == "Too many open files"
    assert reason_of(OSError("odd")) == "odd"
    assert reason_of(MemoryError()) == "MemoryError"


def test_notes_are_part_of_the_reason() -> None:
    exc = ValueError("wrong")
    assert with_notes(exc) == "ValueError: wrong"
    exc.add_note("here")
    exc.add_note("because")
    assert with_notes(exc) == "ValueError: wrong (here; because)"
