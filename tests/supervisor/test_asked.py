"""What is asked for by number gets one answer, and the answer is what has really happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.supervisor.service import Service, respec
from uvicorn._ipc.control import Outcome
from uvicorn.supervisor import actions, events
from uvicorn.supervisor.asked import ON_REQUEST, Ledger, Restart
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.pool import Stage
from uvicorn.supervisor.state import REOPEN_TIME

# --- the ledger --------------------------------------------------------------------------------


def test_a_signal_waits_for_nothing() -> None:
    ledger = Ledger()
    ledger.wait("reload", 0)
    assert ledger.end("reload", True, "done") == []


def test_all_who_wait_for_the_same_get_the_same_answer_once() -> None:
    ledger = Ledger()
    ledger.wait("reload", 4)
    ledger.wait("reload", 5)
    ledger.wait("scale", 6)
    assert ledger.end("reload", True, "done") == [
        actions.Answer(4, True, "done"),
        actions.Answer(5, True, "done"),
    ]
    assert ledger.end("reload", True, "done") == []
    assert ledger.end_all("over") == [actions.Answer(6, False, "over")]


def test_outcomes_are_counted_and_the_last_one_is_kept() -> None:
    ledger = Ledger()
    ledger.record("reload", True, "fine", 1.0)
    ledger.record("reload", False, "broken", 2.0)
    assert ledger.outcomes == {"reload": Outcome(1, 1, False, "broken", 2.0)}


def test_an_end_of_everything_ends_restarts_and_leaves_reports_that_may_still_come() -> None:
    ledger = Ledger(restarts={2: Restart(7, [1])}, dumps={7: [3]})
    assert ledger.end_all("over") == [actions.Answer(1, False, "over")]
    assert ledger.end_dump(7, True, "here") == [actions.Answer(3, True, "here")]


# --- reload ------------------------------------------------------------------------------------


def test_a_reload_is_answered_when_all_workers_are_new() -> None:
    service = Service(2).boot()
    service.do(events.ReloadRequested(7))
    assert service.logged("Asked by uvicornctl, restarting processes.") == 1
    service.ready(service.wid_of(1, 1))
    assert service.answers == {}
    service.rest()
    assert service.answers == {7: (True, "Reload complete: generation 2 serves with 2 worker(s).")}
    assert service.state.ledger.outcomes["reload"].succeeded == 1
    assert service.state.ledger.reasons == {"reloaded": 2}


def test_a_reload_with_settings_that_cannot_be_used_is_answered_with_the_reason() -> None:
    service = Service(2).boot()
    service.settings = "c.yaml:2: wrokers: no such setting"
    service.do(events.ReloadRequested(7))
    ok, text = service.answers[7]
    assert not ok
    assert "c.yaml:2: wrokers: no such setting" in text
    assert service.log[-1] == text


def test_a_reload_whose_first_worker_does_not_start_is_answered_with_the_reason() -> None:
    service = Service(2).boot()
    service.do(events.ReloadRequested(7))
    service.exit(service.wid_of(1, 1), 3)
    ok, text = service.answers[7]
    assert (ok, "Reload failed, its first worker did not start: exit code 3" in text) == (False, True)
    assert service.state.ledger.outcomes["reload"].failed == 1


def test_what_the_worker_says_of_its_failed_start_is_part_of_the_answer() -> None:
    service = Service(2).boot()
    service.do(events.ReloadRequested(7))
    canary = service.wid_of(1, 1)
    service.do(events.Complained(canary, "SyntaxError: invalid syntax (app.py, line 1)"))
    service.exit(canary, 3)
    text = f"{service.log[-1]} The worker's error: SyntaxError: invalid syntax (app.py, line 1)"
    assert service.answers == {7: (False, text)}


def test_a_newer_reload_answers_the_one_before() -> None:
    service = Service(2).boot()
    service.do(events.ReloadRequested(1))
    service.do(events.ReloadRequested(2))
    assert service.answers[1] == (False, "The reload to generation 2 is given up: a newer one begins.")
    service.ready(service.wid_of(1, 1))  # the canary has proved itself, and the others are rolled
    service.do(events.ReloadRequested(3))
    assert service.answers[2] == (False, "A newer reload begins.")
    service.rest()
    assert service.answers[3][0]


def test_a_stop_answers_everybody_who_waits() -> None:
    service = Service(2).boot()
    service.stop_requested = True
    service.do(events.ResizeRequested(4, 1))
    service.do(events.RestartRequested(1, 2))
    service.do(events.ReloadRequested(3))
    service.do(events.StopRequested("STOP", 4))
    assert {number: ok for number, (ok, _) in service.answers.items()} == {
        1: False,
        2: False,
        3: False,
        4: True,
    }


@pytest.mark.parametrize(
    "event",
    [
        events.ReloadRequested(9),
        events.UpgradeRequested(9),
        events.ResizeRequested(2, 9),
        events.RestartRequested(1, 9),
    ],
    ids=repr,
)
def test_a_service_that_stops_refuses(event: Event) -> None:
    service = Service(1).boot()
    service.stop_requested = True
    service.do(events.StopRequested("SIGTERM"))
    service.do(event)
    assert service.answers == {9: (False, "The service stops.")}


# --- scale -------------------------------------------------------------------------------------


def test_a_new_size_is_answered_when_all_are_ready() -> None:
    service = Service(1).boot()
    service.do(events.ResizeRequested(3, 5))
    service.ready(service.wid_of(2))
    assert service.answers == {}
    service.rest()
    assert service.answers == {5: (True, "3 worker(s) are ready.")}
    service.do(events.ResizeRequested(1, 6))
    assert service.answers[6] == (True, "1 worker(s) are ready.")


@pytest.mark.parametrize("size", [0, -1, 513])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    service = Service(1).boot()
    service.do(events.ResizeRequested(size, 5))
    assert service.answers == {5: (False, f"{size} is not between 1 and 512 workers.")}
    assert service.state.size == 1


def test_a_size_whose_workers_do_not_start_is_answered_with_the_reason() -> None:
    service = Service(1).boot()
    service.do(events.ResizeRequested(2, 5))
    service.exit(service.wid_of(2), 3)
    ok, text = service.answers[5]
    assert not ok
    assert text.startswith("worker=2 could not start: exit code 3")


def test_a_size_while_nobody_is_to_work_is_refused() -> None:
    service = Service(1).boot()
    service.do(events.PauseRequested())
    service.do(events.ResizeRequested(2, 5))
    assert service.answers == {5: (False, "All workers have been drained: reload first.")}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (events.ScaleRequested(+1), "Meanwhile the number was changed to 5."),
        (events.ResizeRequested(3, 6), "Meanwhile the number was changed to 3."),
        (events.PauseRequested(), "All workers are to leave."),
    ],
    ids=repr,
)
def test_a_size_that_is_not_wanted_any_more_is_not_said_to_be_reached(event: Event, text: str) -> None:
    service = Service(1).boot()
    service.do(events.ResizeRequested(4, 5))
    service.do(event)
    assert service.answers == {5: (False, text)}


def test_a_reload_returns_to_the_configured_number_and_says_so() -> None:
    service = Service(1).boot()
    service.do(events.ReloadRequested())
    service.do(events.ResizeRequested(4, 5))
    service.ready(service.wid_of(1, 1))
    assert service.answers == {5: (False, "Meanwhile the number was changed to 1.")}


# --- restart -----------------------------------------------------------------------------------


def test_a_restart_is_answered_when_the_successor_serves() -> None:
    service = Service(2).boot()
    old = service.wid_of(2)
    service.do(events.RestartRequested(2, 5))
    successor = service.wid_of(2, 1)
    assert service.children[old].told == []
    service.ready(successor)
    assert service.answers == {5: (True, f"{service.worker(successor).name} has taken its place.")}
    assert service.children[old].told == ["drain"]
    assert service.state.ledger.reasons == {"requested": 1}


def test_a_restart_whose_successor_does_not_start_leaves_the_old_worker_for_good() -> None:
    service = Service(2).boot()
    old = service.wid_of(2)
    service.do(events.RestartRequested(2, 5))
    service.exit(service.wid_of(2, 1), 3)
    ok, text = service.answers[5]
    assert (ok, text.endswith("The old worker serves on.")) == (False, True)
    assert service.worker(old).retiring == ""
    service.pass_time(60)
    assert service.holders()[2] == [1]


def test_a_worker_that_dies_while_it_is_replaced_is_replaced_all_the_same() -> None:
    service = Service(1).boot()
    service.do(events.RestartRequested(1, 5))
    service.exit(service.wid_of(1), -9)
    service.rest()
    assert service.answers[5][0]


@pytest.mark.parametrize("slot", [0, 3, 99])
def test_a_worker_that_is_not_there_is_not_restarted(slot: int) -> None:
    service = Service(2).boot()
    service.do(events.RestartRequested(slot, 5))
    assert service.answers == {5: (False, f"There is no worker={slot}.")}


def test_a_worker_that_starts_is_not_restarted() -> None:
    service = Service(1)
    service.do(events.Start())
    service.do(events.RestartRequested(1, 5))
    assert service.answers[5][0] is False
    assert "is starting" in service.answers[5][1]


def test_a_worker_that_is_scaled_away_is_not_restarted() -> None:
    service = Service(2).boot()
    service.do(events.RestartRequested(2, 5))
    service.do(events.ScaleRequested(-1))
    assert service.answers == {5: (False, "worker=2 is not wanted any more.")}


def test_a_worker_that_is_stalled_is_restarted() -> None:
    service = Service(1, stall=0).boot()
    service.children[service.wid_of(1)].loop_hangs = True
    service.pass_time(7)
    assert service.stage(service.wid_of(1)) is Stage.STALLED
    service.do(events.RestartRequested(1, 5))
    service.ready(service.wid_of(1, 1))
    assert service.answers[5][0]


def test_the_reason_is_in_the_log() -> None:
    service = Service(1).boot()
    service.do(events.RestartRequested(1, 5))
    assert service.logged(f"is to be replaced: {ON_REQUEST}") == 1


# --- dump --------------------------------------------------------------------------------------


def test_a_report_goes_to_all_who_have_asked() -> None:
    service = Service(2).boot()
    wid = service.wid_of(2)
    service.do(events.DumpRequested(2, 5))
    service.do(events.DumpRequested(2, 6))
    assert service.asked == {wid}
    service.report(wid, "line 7")
    assert service.answers == {5: (True, "line 7"), 6: (True, "line 7")}


def test_of_a_worker_that_ends_there_is_no_report() -> None:
    service = Service(2).boot()
    wid = service.wid_of(2)
    name = service.worker(wid).name
    service.do(events.DumpRequested(2, 5))
    service.exit(wid, -9)
    assert service.answers == {5: (False, f"{name} has ended.")}


def test_of_two_workers_in_a_slot_the_one_that_serves_is_asked() -> None:
    service = Service(1).boot()
    old = service.wid_of(1)
    service.do(events.RecycleWanted(old, "limit"))
    service.ready(service.wid_of(1, 1))
    service.do(events.DumpRequested(1, 5))
    assert service.asked == {service.wid_of(1)} != {old}


def test_there_is_no_report_of_nobody() -> None:
    service = Service(1).boot()
    service.do(events.DumpRequested(9, 5))
    assert service.answers == {5: (False, "There is no worker=9.")}


# --- logs and upgrade --------------------------------------------------------------------------


def test_it_is_answered_when_all_log_files_are_reopened() -> None:
    service = Service(3).boot()
    service.children[2].stopped = service.children[3].stopped = True
    service.do(events.ReopenRequested(5))
    assert service.answers == {}
    service.do(events.Reopened(3))
    service.exit(2, -9)
    assert service.answers == {5: (True, "Master and workers have reopened their log files.")}


def test_who_does_not_reopen_its_log_files_is_named_when_its_time_is_over() -> None:
    service = Service(2).boot()
    service.children[2].stopped = True
    service.do(events.ReopenRequested(5))
    service.do(events.ReopenRequested(6))
    service.pass_time(REOPEN_TIME)
    text = "Not all log files are reopened: no answer from worker=2 gen=1 pid=101."
    assert service.answers == {5: (False, text), 6: (False, text)}
    assert service.logged(text) == 1
    service.do(events.Reopened(2))  # late
    service.children[2].stopped = False
    service.do(events.ReopenRequested(7))
    assert service.answers[7][0]


def test_what_could_not_be_opened_again_is_the_answer_and_said_once_for_all() -> None:
    service = Service(2).boot()
    service.children[1].stopped = service.children[2].stopped = True
    service.do(events.ReopenRequested(5))
    for wid in (0, 1):
        service.do(events.Reopened(wid, "No such directory"))
    service.do(events.Reopened(99, "of one that is gone"))
    service.do(events.Reopened(2, "No space"))
    text = (
        "Not all log files are reopened: No such directory (the master, worker=1 gen=1 pid=100);"
        " No space (worker=2 gen=1 pid=101)."
    )
    assert service.answers == {5: (False, text)}
    assert service.logged(text) == 1
    service.children[1].stopped = service.children[2].stopped = False
    service.do(events.ReopenRequested(6))
    assert service.answers[6][0]


def test_without_workers_the_master_reopens_its_own_log_files() -> None:
    service = Service(1).boot()
    service.do(events.PauseRequested())
    service.leave_all_told()
    service.do(events.ReopenRequested(5))
    assert service.answers == {5: (True, "Master and workers have reopened their log files.")}


def test_an_upgrade_whose_trial_fails_is_answered_with_the_reason() -> None:
    service = Service(1).boot()
    service.do(events.UpgradeRequested(5))
    assert service.answers == {}
    service.end_trial(3)
    text = "Upgrade failed: the new program does not start (exit code 3). Nothing has changed."
    assert service.answers == {5: (False, text)}


def test_an_upgrade_beside_a_reload_is_refused() -> None:
    service = Service(1).boot()
    service.do(events.ReloadRequested())
    service.do(events.UpgradeRequested(5))
    assert service.answers[5][0] is False


def test_a_reload_during_a_trial_does_not_answer_the_upgrade() -> None:
    service = Service(1).boot()
    service.do(events.UpgradeRequested(5))
    service.do(events.ReloadRequested(6))
    assert 5 not in service.answers
    service.end_trial(0)
    assert service.answers[5] == (False, "Upgrade failed: it is only a test. Nothing has changed.")


def test_what_else_is_waited_for_is_answered_before_the_next_program_takes_over() -> None:
    service = Service(2).boot()
    service.do(events.ResizeRequested(3, 5))
    service.do(events.RestartRequested(1, 6))
    service.do(events.DumpRequested(2, 7))
    service.do(events.UpgradeRequested(8))
    assert service.answers == {}
    pid = service.state.trial
    assert pid is not None
    done = service.machine.step(service.now, events.Exited(pid, 0))
    answered = [action.number for action in done if isinstance(action, actions.Answer)]
    assert sorted(answered) == [5, 6, 7]
    assert isinstance(done[-1], actions.ExecUpgrade)
    assert service.state.ledger == replace(
        service.state.ledger, waiting={"upgrade": [8]}, restarts={}, dumps={}
    )


def test_the_program_that_takes_over_answers_when_its_workers_serve() -> None:
    before = Service(2).boot()
    service = Service(2, generation=2)
    workers = list(before.state.pool)
    service.children = dict(before.children)
    service._known_wids = {worker.wid for worker in workers}
    service._next_pid = 500
    service.machine.adopt(workers, 2, Ledger({"upgrade": [5]}))
    service.do(events.Start())
    assert service.answers == {}
    service.rest()
    assert service.answers == {5: (True, "Upgrade complete: generation 2 serves with 2 worker(s).")}
    assert service.state.ledger.outcomes["upgrade"].succeeded == 1


# --- counts ------------------------------------------------------------------------------------


def test_replacements_are_counted_by_reason() -> None:
    service = Service(1, stall=3, startup=20).boot()
    service.exit(service.wid_of(1), 1)
    service.all_ready()
    service.exit(service.wid_of(1), -9, out_of_memory=True)
    service.all_ready()
    service.do(events.RecycleWanted(service.wid_of(1), "limit_worker_memory: too much"))
    service.rest()
    service.children[service.wid_of(1)].loop_hangs = True
    service.pass_time(20)
    assert service.state.ledger.reasons == {
        "died": 1,
        "out_of_memory": 1,
        "limit_worker_memory": 1,
        "stalled": 1,
    }


def test_a_reload_with_another_size_ends_with_that_size() -> None:
    service = Service(2).boot()
    service.settings = respec(service.spec, size=3)
    service.do(events.ReloadRequested(5))
    service.rest()
    assert service.answers == {5: (True, "Reload complete: generation 2 serves with 3 worker(s).")}
