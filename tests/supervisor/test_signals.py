"""Signals to the master: the table, the source, and what a worker does with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from uvicorn.supervisor import events
from uvicorn.supervisor.signals import (
    COUNTED,
    EVENTS,
    IGNORED_BY_WORKERS,
    SignalSource,
    _is_terminal,
    events_of,
    reset_in_child,
)


@pytest.fixture
def source() -> Iterator[SignalSource]:
    source = SignalSource(on_terminal=False)
    yield source
    source.close()


@pytest.fixture
def installed(source: SignalSource) -> Iterator[SignalSource]:
    source.install()
    yield source
    source.restore()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signal handlers are afterwards what they were before."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in before.items():
        if handler is not None and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handler)


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("SIGTERM", events.StopRequested("SIGTERM")),
        ("SIGINT", events.StopRequested("SIGINT")),
        ("SIGQUIT", events.StopRequested("SIGQUIT")),
        ("SIGHUP", events.ReloadRequested()),
        ("SIGTTIN", events.ScaleRequested(+1)),
        ("SIGTTOU", events.ScaleRequested(-1)),
        ("SIGUSR1", events.ReopenRequested()),
        ("SIGUSR2", events.UpgradeRequested()),
        ("SIGWINCH", events.PauseRequested()),
    ],
)
def test_each_signal_means_one_event(name: str, event: events.Event) -> None:
    number = signal.Signals[name]
    assert EVENTS[number] == event
    assert events_of(bytes([number])) == ([event], False)


def test_there_are_no_other_signals_in_the_table() -> None:
    assert len(EVENTS) == 9


def test_the_end_of_a_child_is_no_event_but_told() -> None:
    assert events_of(bytes([signal.SIGCHLD] * 3)) == ([], True)


@pytest.mark.parametrize("number", [0, signal.SIGALRM, signal.SIGPIPE, 65, 200, 255])
def test_other_signals_are_ignored(number: int) -> None:
    assert events_of(bytes([number])) == ([], False)


def test_signals_keep_their_order() -> None:
    burst = [signal.SIGHUP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGUSR1, signal.SIGTERM]
    found, child = events_of(bytes(burst))
    assert found == [EVENTS[number] for number in burst if number != signal.SIGCHLD]
    assert child


@pytest.mark.parametrize("number", list(EVENTS))
def test_of_a_storm_only_stops_and_scaling_count_one_by_one(number: signal.Signals) -> None:
    found, _ = events_of(bytes([number] * 20))
    assert len(found) == (20 if number in COUNTED else 1)


# --- the source --------------------------------------------------------------------------------


def test_nothing_has_come_at_first(source: SignalSource) -> None:
    assert source.read() == ([], False)


def test_signals_wake_and_are_read_once_in_order(installed: SignalSource) -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD):
        signal.raise_signal(number)
    assert installed.read() == ([EVENTS[signal.SIGUSR1], EVENTS[signal.SIGTERM]], True)
    assert installed.read() == ([], False)


def test_a_stop_is_not_lost_in_a_storm(installed: SignalSource) -> None:
    for _ in range(5000):
        signal.raise_signal(signal.SIGCHLD)
    signal.raise_signal(signal.SIGTERM)
    assert installed.read() == ([EVENTS[signal.SIGTERM]], True)


def test_what_the_pipe_does_not_take_is_heard_all_the_same(installed: SignalSource) -> None:
    os.write(installed._writer, b"\0" * 65_536)
    signal.raise_signal(signal.SIGTERM)  # nowhere to put it: there is enough to wake up for
    for _ in range(2):
        assert installed.read() == ([EVENTS[signal.SIGTERM]], False)
        assert installed.read() == ([], False)
        signal.raise_signal(signal.SIGTERM)


def test_restore_puts_back_what_was_there(source: SignalSource, handlers: None) -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGHUP, mine)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        source.install()
        assert signal.getsignal(signal.SIGHUP) is not mine
        source.restore()
        assert signal.getsignal(signal.SIGHUP) is mine
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
        assert signal.set_wakeup_fd(before) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_after_the_last_thing_that_a_process_does_signals_are_ignored(handlers: None) -> None:
    source = SignalSource(on_terminal=False, is_last=True)
    source.install()
    source.restore()
    source.close()
    for number in EVENTS:
        signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


@pytest.mark.parametrize("on_terminal", [False, True])
def test_winch_is_taken_only_where_there_is_no_terminal(on_terminal: bool, handlers: None) -> None:
    source = SignalSource(on_terminal)
    before = signal.getsignal(signal.SIGWINCH)
    source.install()
    taken = signal.getsignal(signal.SIGWINCH) is not before
    source.restore()
    source.close()
    assert taken is not on_terminal


def test_a_terminal_is_looked_for_on_the_standard_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    source = SignalSource()
    source.close()
    assert signal.SIGWINCH not in source._signals


def test_a_descriptor_that_is_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> bool:
        raise OSError

    monkeypatch.setattr(os, "isatty", fails)
    assert _is_terminal(0) is False


def test_no_program_that_is_started_inherits_the_source(source: SignalSource) -> None:
    assert not os.get_inheritable(source.fileno())
    assert not os.get_inheritable(source._writer)


# --- in a worker -------------------------------------------------------------------------------


def test_a_worker_ignores_what_is_meant_for_the_master() -> None:
    names = {signal.Signals(number).name for number in IGNORED_BY_WORKERS}
    assert names == {"SIGHUP", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH", "SIGINT", "SIGPIPE"}


def test_a_worker_has_none_of_the_masters_handlers(installed: SignalSource, handlers: None) -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    reset_in_child()
    assert signal.set_wakeup_fd(before) == -1
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
        assert signal.getsignal(number) is signal.SIG_DFL
    for number in IGNORED_BY_WORKERS:
        assert signal.getsignal(number) is signal.SIG_IGN


def test_what_was_not_read_is_pending_where_signals_are_blocked(installed: SignalSource) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        installed.put_back()
        assert installed.read() == ([], False)
        assert {signal.SIGTERM, signal.SIGHUP} <= signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    assert sorted(map(str, installed.read()[0])) == sorted(
        map(str, [events.StopRequested("SIGTERM"), events.ReloadRequested()])
    )
