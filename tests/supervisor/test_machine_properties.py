"""The machine under any sequence of events: what `service.py` asserts after every step, and what is asserted here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Search
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.supervisor.service import Child, FakeMold, Service
from uvicorn.supervisor import events
from uvicorn.supervisor.actions import Abandon, TellToDrain
from uvicorn.supervisor.events import PoolSpec
from uvicorn.supervisor.machine import Machine
from uvicorn.supervisor.pool import Stage
from uvicorn.supervisor.settle import RULES
from uvicorn.supervisor.state import ABORT_GRACE, Phase

SPECS = st.builds(
    PoolSpec,
    size=st.integers(1, 4),
    startup=st.sampled_from([0.0, 20.0]),
    healthcheck=st.sampled_from([0.5, 5.0]),
    stall=st.sampled_from([0.0, 3.0, 30.0]),
    drain=st.sampled_from([2.0, 42.0]),
    shutdown_delay=st.sampled_from([0.0, 10.0]),
    limit_restarts=st.sampled_from([3, 1000]),
    preload=st.booleans(),
)


# About workers, settings and commands that the machine does not know, or no longer.
STRAY = 999
STRAYS: list[Any] = [
    events.Spawned(STRAY, 99999),
    events.SpawnFailed(STRAY, "no memory"),
    events.Ready(STRAY),
    events.RecycleWanted(STRAY, "limit"),
    events.OverLimit(STRAY, "too much"),
    events.Complained(STRAY, "no such module"),
    events.StoppedAccepting(STRAY),
    events.Exited(99999, 1),
    events.HealthRead((events.Reading(STRAY, 0.0, 0.0),)),
    events.Inspected(STRAY, True),
    events.SettingsLoaded(0, PoolSpec(size=1)),
    events.SettingsRejected(0, "late"),
    events.Reported(STRAY, "here"),
    events.MoldSpawned(STRAY, 99998),
    events.MoldSpawnFailed(STRAY, "no memory"),
    events.MoldLoaded(STRAY, 1_000_000),
    events.MoldComplained(STRAY, "no such module"),
]
VERBS = ["reload", "upgrade", "reopen", "resize", "restart", "dump"]
# What cannot come: the loop begins once, and the trial of an upgrade answers at once.
NEVER = {
    (events.Start, Phase.LINGERING),
    (events.Start, Phase.STOPPING),
    (events.TrialStarted, Phase.LINGERING),
    (events.TrialStarted, Phase.STOPPING),
    (events.TrialFailed, Phase.LINGERING),
    (events.TrialFailed, Phase.STOPPING),
}


class AnyService(RuleBasedStateMachine):
    """Anything happens to a service at any time."""

    begins = "booting"

    @initialize(spec=SPECS)
    def start(self, spec: PoolSpec) -> None:
        self.commands = 0
        begins = self.begins
        changes = {"shutdown_delay": 60.0} if begins == "lingering" else {}
        self.service = Service(**(asdict(spec) | changes))
        self.service.do(events.Start())
        if begins != "booting":
            self.service.all_ready()
        if begins in ("stopping", "lingering"):
            self.service.stop_requested = True
            self.service.do(events.StopRequested("SIGTERM"))

    def pick(self, data: st.DataObject, **conditions: bool) -> Child | None:
        found = [
            child
            for child in self.service.children.values()
            if all(getattr(child, name) is value for name, value in conditions.items())
        ]
        return data.draw(st.sampled_from(found)) if found else None

    @property
    def running(self) -> bool:
        return self.service.exit_code is None

    # --- what children do ----------------------------------------------------------------------

    @rule(data=st.data())
    def one_becomes_ready(self, data: st.DataObject) -> None:
        if child := self.pick(data, is_ready=False):
            self.service.ready(child.wid)

    @rule()
    def all_become_ready(self) -> None:
        self.service.all_load()
        self.service.all_ready()

    @rule(data=st.data(), code=st.sampled_from([0, 1, 3, -6, -9, -11]), out_of_memory=st.booleans())
    def one_dies(self, data: st.DataObject, code: int, out_of_memory: bool) -> None:
        if child := self.pick(data):
            self.service.exit(child.wid, code, out_of_memory)

    @rule()
    def those_who_are_told_to_leave(self) -> None:
        self.service.leave_all_told()

    @rule(data=st.data())
    def one_complains(self, data: st.DataObject) -> None:
        if child := self.pick(data):
            self.service.do(events.Complained(child.wid, "no such module"))

    @rule(data=st.data())
    def one_stops_accepting(self, data: st.DataObject) -> None:
        if child := self.pick(data):
            self.service.do(events.StoppedAccepting(child.wid))

    @rule(data=st.data())
    def one_asks_to_be_replaced(self, data: st.DataObject) -> None:
        if child := self.pick(data, is_ready=True):
            self.service.do(events.RecycleWanted(child.wid, "limit"))

    @rule(data=st.data())
    def one_is_too_large_already_when_it_starts(self, data: st.DataObject) -> None:
        if child := self.pick(data, is_ready=True):
            self.service.do(events.OverLimit(child.wid, "too much"))

    @rule(
        data=st.data(), what=st.sampled_from(["loop_hangs", "thread_hangs", "stopped"]), value=st.booleans()
    )
    def one_hangs_or_goes_on(self, data: st.DataObject, what: str, value: bool) -> None:
        if child := self.pick(data, is_ready=True):
            setattr(child, what, value)

    # --- what molds do -------------------------------------------------------------------------

    def pick_mold(self, data: st.DataObject) -> FakeMold | None:
        found = list(self.service.molds.values())
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data())
    def one_loads_the_application(self, data: st.DataObject) -> None:
        mold = self.pick_mold(data)
        if mold is not None and not mold.is_loaded:
            self.service.load(mold.mid)

    @rule(data=st.data(), code=st.sampled_from([0, 3, -6, -9]), out_of_memory=st.booleans())
    def one_mold_dies(self, data: st.DataObject, code: int, out_of_memory: bool) -> None:
        if mold := self.pick_mold(data):
            self.service.exit_mold(mold.mid, code, out_of_memory)

    @rule(data=st.data())
    def one_mold_complains(self, data: st.DataObject) -> None:
        if mold := self.pick_mold(data):
            self.service.do(events.MoldComplained(mold.mid, "no such module"))

    @rule(data=st.data(), is_slow=st.booleans())
    def molds_become_slow_or_answer(self, data: st.DataObject, is_slow: bool) -> None:
        self.service.molds_are_slow = is_slow
        mold = self.pick_mold(data)
        if mold is not None:
            mold.is_slow = is_slow
            if not is_slow and not mold.told:
                self.service.answer(mold.mid)

    # --- what people do ------------------------------------------------------------------------

    @rule(settings_are=st.one_of(SPECS, st.just("wrong")))
    def hup(self, settings_are: PoolSpec | str) -> None:
        service = self.service
        current = {
            worker.wid
            for worker in service.state.pool
            if worker.generation == service.state.generation and not worker.retiring
        }
        service.settings = settings_are
        actions = service.do(events.ReloadRequested())
        if settings_are == "wrong" and any(isinstance(action, Abandon) for action in actions):
            # An abandoned generation leaves the current one untouched.
            assert not current & {action.wid for action in actions if isinstance(action, TellToDrain)}

    @rule(stray=st.permutations(STRAYS))
    def stray_events_come(self, stray: list[Any]) -> None:
        for event in stray:
            self.service.do(event)

    @rule(step=st.sampled_from([1, -1]))
    def scale(self, step: int) -> None:
        self.service.do(events.ScaleRequested(step))

    @rule()
    def winch(self) -> None:
        self.service.do(events.PauseRequested())

    @rule()
    def usr1(self) -> None:
        self.service.do(events.ReopenRequested())

    @rule(
        signals=st.permutations([events.PauseRequested(), events.ReopenRequested(), events.ScaleRequested(1)])
    )
    def several_signals_at_once(self, signals: list[Any]) -> None:
        for event in signals:
            self.service.do(event)

    @rule(fails=st.booleans())
    def usr2(self, fails: bool) -> None:
        self.service.trial_fails = fails
        self.service.do(events.UpgradeRequested())

    @precondition(lambda self: self.service.trial is not None)
    @rule(code=st.sampled_from([0, 3, -9]))
    def the_trial_ends(self, code: int) -> None:
        self.service.end_trial(code)

    @rule(dice=st.integers(0, 9))
    def term(self, dice: int) -> None:
        if dice == 0 or self.service.stop_requested:  # rarely, so that something can happen before
            self.service.stop_requested = True
            self.service.do(events.StopRequested("SIGTERM"))

    # --- what people do by number --------------------------------------------------------------

    @rule(
        verb=st.sampled_from(VERBS),
        argument=st.integers(0, 6),
        settings_are=st.one_of(SPECS, st.just("wrong")),
    )
    def command(self, verb: str, argument: int, settings_are: PoolSpec | str) -> None:
        self.ask(verb, argument, settings_are)

    @rule(verbs=st.permutations(VERBS), argument=st.integers(0, 6))
    def all_commands_at_once(self, verbs: list[str], argument: int) -> None:
        for verb in verbs:
            self.ask(verb, argument, "wrong")

    def ask(self, verb: str, argument: int, settings_are: PoolSpec | str) -> None:
        self.commands += 1
        number = self.commands
        self.service.settings = settings_are
        if self.running:
            self.service.do(
                {
                    "reload": events.ReloadRequested(number),
                    "upgrade": events.UpgradeRequested(number),
                    "reopen": events.ReopenRequested(number),
                    "resize": events.ResizeRequested(argument, number),
                    "restart": events.RestartRequested(argument, number),
                    "dump": events.DumpRequested(argument, number),
                }[verb]
            )
        else:
            self.service.answers[number] = (False, "too late")

    @rule(data=st.data())
    def one_reports(self, data: st.DataObject) -> None:
        if asked := sorted(self.service.asked & set(self.service.children)):
            self.service.report(data.draw(st.sampled_from(asked)), "here")

    # --- what the system does ------------------------------------------------------------------

    @rule(fails=st.booleans())
    def forks_fail(self, fails: bool) -> None:
        self.service.fork_fails = fails

    @rule(headroom=st.booleans())
    def memory_changes(self, headroom: bool) -> None:
        self.service.headroom = headroom

    @precondition(lambda self: self.running)
    @rule()
    def wake(self) -> None:
        self.service.wake()

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 45.0]))
    def time_passes(self, seconds: float) -> None:
        self.service.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.5, 1.5, 3600.0]), children_too=st.booleans())
    def the_master_stands_still(self, seconds: float, children_too: bool) -> None:
        blamed = self.service.logged("no sign of life")
        self.service.sleep(seconds, children_too)
        if seconds > 2.5:
            assert self.service.logged("no sign of life") == blamed, "blamed before it was given time"

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def the_rules_have_come_to_rest(self) -> None:
        if hasattr(self, "service"):
            state = self.service.state
            state.out = []
            assert not any(rule(state, self.service.machine._now) for rule in RULES[state.phase])

    @invariant()
    def the_machine_does_not_want_to_be_called_in_the_past(self) -> None:
        if hasattr(self, "service") and self.running:
            assert self.service.machine.next_deadline() >= self.service.machine._now

    def teardown(self) -> None:
        """From wherever it is, the service comes to rest, and a stop ends it in time."""
        if not hasattr(self, "service"):
            return
        service = self.service
        if not self.running:
            self.everybody_is_answered()
            return
        self.recover()
        state = service.state
        if state.phase is Phase.RUNNING:
            assert state.reload is None
            assert not state.rolling or state.paused
            wanted = 0 if state.paused else state.size
            assert service.holders() == {slot: [state.generation] for slot in range(1, wanted + 1)}
            assert len(service.children) == wanted
            molds = {mold.generation for mold in service.molds.values()}
            assert molds == ({state.generation} if state.spec.preload and wanted else set()) or (
                state.spec.preload and state.paused
            )
            assert all(worker.stage is Stage.READY for worker in state.pool)
            assert (
                set(state.ledger.waiting) <= {"reload", "upgrade"}
                if state.paused
                else not state.ledger.waiting
            )
            assert not state.ledger.restarts
        if self.running:
            self.stop_in_time()
        self.everybody_is_answered()

    def everybody_is_answered(self) -> None:
        """Whoever has asked for something hears how it ended, whatever else has happened."""
        assert set(self.service.answers) == set(range(1, self.commands + 1))

    def recover(self) -> None:
        """Nothing goes wrong any more."""
        service = self.service
        service.fork_fails, service.headroom = False, True
        for child in service.children.values():
            child.loop_hangs = child.thread_hangs = child.stopped = False
        service.molds_are_slow = False
        for mold in list(service.molds.values()):
            mold.is_slow = False
        for _ in range(40):
            service.rest()
            if not self.running:
                return
            for worker in service.state.pool.serving():
                service.children[worker.wid].loop_hangs = False
            service.pass_time(2)
        if service.trial is not None:
            service.end_trial(3)

    def stop_in_time(self) -> None:
        """Nobody listens, and everybody dies only when it is killed: the end comes within the clocks."""
        service = self.service
        service.stop_requested = True
        began = service.now
        drain = max([worker.spec.drain for worker in service.state.pool], default=0.0)
        while service.exit_code is None:
            if service.state.phase is Phase.RUNNING:
                service.do(events.StopRequested("SIGTERM"))
            for wid in [wid for wid, child in service.children.items() if "kill" in child.told]:
                service.exit(wid, -9)
            for mid in [mid for mid, mold in service.molds.items() if "kill" in mold.told]:
                service.exit_mold(mid, -9)
            if service.exit_code is None:
                service.wake()
            assert service.now - began <= service.state.spec.shutdown_delay + drain + ABORT_GRACE + 1


# Tens of seconds on a quiet machine.
@pytest.mark.timeout(600)
def test_any_sequence_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[tuple[type[Any], Phase]] = set()
    step = Machine.step

    def watched(machine: Machine, now: float, event: Any) -> Any:
        met.add((type(event), machine.state.phase))
        return step(machine, now, event)

    monkeypatch.setattr(Machine, "step", watched)
    for begins, examples in {"booting": 120, "serving": 60, "lingering": 150, "stopping": 60}.items():
        run_state_machine_as_test(
            type("AnyService", (AnyService,), {"begins": begins}),
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                # To find the shortest sequence as well would take minutes; add it when one is found.
                phases=[Search.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    # Each kind of event has come in each phase in which it can.
    phases = [phase for phase in Phase if phase is not Phase.EXITED]
    every = {(kind, phase) for kind in get_args(events.Event) for phase in phases}
    missed = every - met - NEVER
    assert sorted(f"{kind.__name__} in {phase.value}" for kind, phase in missed) == []


@pytest.mark.timeout(600)
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(data=st.data(), size=st.integers(1, 64), headroom=st.booleans())
def test_of_workers_that_all_reach_a_limit_at_once_one_in_ten_is_replaced_at_a_time(
    data: st.DataObject, size: int, headroom: bool
) -> None:
    service = Service(size).boot()
    service.headroom = headroom
    service.pass_time(1)
    most = max(1, size // 10)
    old = set(service.children)
    for wid in data.draw(st.permutations(sorted(old))):
        service.do(events.RecycleWanted(wid, "limit_worker_memory: too much"))
    while old & set(service.children):
        leaving = [child.wid for child in service.children.values() if child.told]
        starting = [child.wid for child in service.children.values() if not child.is_ready]
        places = {child.slot for child in service.children.values() if child.wid in leaving + starting}
        assert 0 < len(places) <= most
        serving = {child.slot for child in service.children.values() if child.is_ready and not child.told}
        if headroom:
            assert len(serving) == size  # the successor is ready first
            assert len(service.children) <= size + most
        else:
            assert len(serving) >= size - most
            assert len(service.children) <= size
        wid = data.draw(st.sampled_from(leaving + starting))
        if wid in leaving:
            service.exit(wid)
        else:
            service.ready(wid)
    service.rest()
    assert service.holders() == {slot: [1] for slot in range(1, size + 1)}
    assert service.state.ledger.reasons == {"limit_worker_memory": size}
