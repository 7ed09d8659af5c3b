"""A service without processes: the machine, and around it children that start, tick, hang and die when a test says so.

Events are given and actions performed in the same order as in the master's loop. What must never happen, whatever the
test does, is asserted here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from uvicorn.supervisor import actions, events, policy
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.events import Event, PoolSpec
from uvicorn.supervisor.machine import Machine
from uvicorn.supervisor.pool import NEVER, Stage, Worker
from uvicorn.supervisor.state import Phase, State

START = 1000.0


@dataclass
class Child:
    """A fake process.

    Attributes:
        told: What it has been told: "drain", "drain final", "abort", "hurry", "kill".
        loop_hangs, thread_hangs, stopped: What is wrong with it.
    """

    wid: int
    pid: int
    slot: int
    generation: int
    told: list[str] = field(default_factory=list)
    is_ready: bool = False
    loop_hangs: bool = False
    thread_hangs: bool = False
    stopped: bool = False
    loop_at: float = 0.0
    thread_at: float = 0.0

    def tick(self, now: float) -> None:
        if self.stopped or self.thread_hangs:
            return
        self.thread_at = now
        if not self.loop_hangs:
            self.loop_at = now


@dataclass
class FakeMold:
    """A fake process that forks others.

    Attributes:
        told: What it has been told: "end", "abort", "kill".
        is_slow: Whether it answers only when the test says so.
        asked: What it was asked for and has not answered.
    """

    mid: int
    pid: int
    generation: int
    told: list[str] = field(default_factory=list)
    is_loaded: bool = False
    is_slow: bool = False
    asked: list[actions.Spawn] = field(default_factory=list)


class Service:
    """The machine with its fake world.

    Args:
        spec: The settings to begin with.

    Attributes:
        now: The clock.
        children: All processes that have not been reaped, by wid.
        molds: Likewise, by mid.
        molds_are_slow: Whether new ones answer only when the test says so.
        done: All actions so far, but for logs.
        log: All log texts so far.
        settings: What the next LoadSettings finds: a spec, or why it is rejected.
        fork_fails: Whether processes cannot be made.
        trial_fails: Whether the trial of an upgrade cannot be started.
        headroom: Whether there is memory for one more worker.
        exit_code: The master's; None while it runs.
        answers: How each command has ended, by its number.
        asked: Who was asked for a report, and has not been heard of.
    """

    def __init__(
        self, size: int = 2, *, generation: int = 1, random: Callable[[], float] = lambda: 0.5, **spec: float
    ) -> None:
        self.spec = PoolSpec(size, **spec)  # type: ignore[arg-type]
        self.machine = Machine(self.spec, random, generation)
        self.now = START
        self.children: dict[int, Child] = {}
        self.molds: dict[int, FakeMold] = {}
        self.molds_are_slow = False
        self.done: list[Action] = []
        self.log: list[str] = []
        self.settings: PoolSpec | str = self.spec
        self.fork_fails = False
        self.trial_fails = False
        self.headroom = True
        self.trial: int | None = None
        self.execs = 0
        self.exit_code: int | None = None
        self.listening = True
        self.stop_requested = False
        self.loaded: set[int] = set()
        self.answers: dict[int, tuple[bool, str]] = {}
        self.asked: set[int] = set()
        self._known_wids: set[int] = set()
        self._known_mids: set[int] = set()
        self._lost: list[actions.Spawn] = []
        self._next_pid = 100
        self._just_reaped: tuple[int, int] | None = None

    # --- driving -----------------------------------------------------------------------------

    def do(self, event: Event) -> list[Action]:
        """Give an event, perform what it brings about, and what that does; the actions, but for logs."""
        before = len(self.done)
        queue = [event]
        while queue:
            for action in self.machine.step(self.now, queue.pop(0)):
                queue += self._perform(action)
            self._check()
        return self.done[before:]

    def boot(self) -> Service:
        """Start, and all workers become ready."""
        self.do(events.Start())
        self.all_load()
        self.all_ready()
        return self

    def all_load(self) -> None:
        """Whoever imports the application has done it, and has forked what it was asked for."""
        for mold in list(self.molds.values()):
            if not mold.told and not mold.is_loaded:
                self.load(mold.mid)
            if not mold.told and not mold.is_slow:
                self.answer(mold.mid)

    def load(self, mid: int) -> list[Action]:
        self.molds[mid].is_loaded = True
        return self.do(events.MoldLoaded(mid, 50 * 2**20))

    def answer(self, mid: int) -> None:
        """A mold forks everybody that it was asked for."""
        mold = self.molds[mid]
        while mold.asked:
            self.do(self._fork(mold.asked.pop(0)))

    def exit_mold(self, mid: int, code: int = 0, out_of_memory: bool = False) -> list[Action]:
        mold = self.molds.pop(mid)
        self._just_reaped = (mid, mold.pid)
        self._lost = mold.asked
        result = self.do(events.Exited(mold.pid, code, 0, out_of_memory))
        assert self._just_reaped is None, "not forgotten"
        assert not self._lost, "not given back"
        return result

    def all_ready(self) -> None:
        """Whoever starts becomes ready, and so do their successors."""
        while starting := [
            child for child in self.children.values() if not child.is_ready and not child.told
        ]:
            self.ready(starting[0].wid)

    def ready(self, wid: int) -> list[Action]:
        child = self.children[wid]
        child.is_ready = True
        child.loop_at = child.thread_at = self.now
        return self.do(events.Ready(wid))

    def exit(self, wid: int, code: int = 0, out_of_memory: bool = False) -> list[Action]:
        """A child ends and is reaped."""
        child = self.children.pop(wid)
        self._just_reaped = (wid, child.pid)
        result = self.do(events.Exited(child.pid, code, 7, out_of_memory))
        assert self._just_reaped is None, "not forgotten"
        return result

    def leave_all_told(self) -> None:
        """Whoever has been told to leave does."""
        while told := [child for child in self.children.values() if child.told]:
            self.exit(told[0].wid)
        while ended := [mold for mold in self.molds.values() if mold.told]:
            self.exit_mold(ended[0].mid, -15)

    def rest(self) -> None:
        """Everybody does what is expected of it, until nothing is expected any more."""
        for _ in range(1000):
            self.all_load()
            self.all_ready()
            self.leave_all_told()
            if all(child.is_ready for child in self.children.values()) and all(
                mold.is_loaded and not mold.asked for mold in self.molds.values()
            ):
                return
        raise AssertionError("no rest")

    def report(self, wid: int, text: str) -> None:
        """A worker says where it is."""
        self.asked.discard(wid)
        self.do(events.Reported(wid, text))

    def end_trial(self, code: int) -> list[Action]:
        assert self.trial is not None
        pid, self.trial = self.trial, None
        return self.do(events.Exited(pid, code))

    def wake(self) -> list[Action]:
        """Time passes to the next deadline."""
        due = self.machine.next_deadline()
        assert due != NEVER
        assert due >= self.now
        self.now = due
        self.tick()
        before = len(self.done)
        self.do(events.Wake())
        assert self.machine.next_deadline() > self.now, "the machine wants to be called again at once"
        return self.done[before:]

    def tick(self) -> None:
        for child in self.children.values():
            child.tick(self.now)

    def pass_time(self, seconds: float) -> list[Action]:
        """Time passes; the machine is woken whenever it wants to be."""
        end = self.now + seconds
        before = len(self.done)
        while self.exit_code is None and self.machine.next_deadline() <= end:
            self.wake()
        self.now = end
        self.tick()
        return self.done[before:]

    def sleep(self, seconds: float, children_too: bool = False) -> list[Action]:
        """The master, or the whole machine, stands still, and goes on."""
        self.now += seconds
        if not children_too:
            self.tick()
        return self.do(events.Wake())

    # --- looking -----------------------------------------------------------------------------

    @property
    def mold(self) -> FakeMold:
        """The only one."""
        (mold,) = self.molds.values()
        return mold

    @property
    def state(self) -> State:
        return self.machine.state

    def worker(self, wid: int) -> Worker:
        return self.state.pool.workers[wid]

    def stage(self, wid: int) -> Stage:
        return self.worker(wid).stage

    def holders(self) -> dict[int, list[int]]:
        """Generations of those who hold each slot, the oldest first."""
        held = self.state.pool.holders()
        return {slot: [worker.generation for worker in holders] for slot, holders in sorted(held.items())}

    def wid_of(self, slot: int, place: int = 0) -> int:
        return self.state.pool.holders()[slot][place].wid

    def logged(self, part: str) -> int:
        """How many log texts contain this."""
        return sum(part in text for text in self.log)

    # --- the world ---------------------------------------------------------------------------

    def _perform(self, action: Action) -> list[Event]:  # noqa: C901 - one `match` over all actions
        assert self.exit_code is None, f"{action} after the end"
        if isinstance(action, actions.Log):
            self.log.append(action.text)
            return []
        self.done.append(action)
        match action:
            case actions.Spawn():
                return self._spawn(action)
            case actions.SpawnMold():
                return [self._spawn_mold(action)]
            case actions.EndMold(mid):
                self.molds[mid].told.append("end")
            case actions.AbortMold(mid):
                self.molds[mid].told.append("abort")
            case actions.KillMold(mid):
                self.molds[mid].told.append("kill")
            case actions.ForgetMold(mid, pid):
                assert self._just_reaped == (mid, pid)
                self._just_reaped = None
            case actions.TellToDrain(wid, final):
                self.children[wid].told.append("drain final" if final else "drain")
            case actions.Abort(wid):
                self.children[wid].told.append("abort")
            case actions.Hurry(wid):
                self.children[wid].told.append("hurry")
            case actions.Kill(wid):
                self.children[wid].told.append("kill")
            case actions.Forget(wid, None):
                self._give_back(wid)
            case actions.Forget(wid, pid):
                assert self._just_reaped == (wid, pid)
                self._just_reaped = None
            case actions.ReadHealth():
                return [self._health()]
            case actions.Inspect(wid):
                return [events.Inspected(wid, self.children[wid].stopped)]
            case actions.LoadSettings(generation):
                return [self._load(generation)]
            case actions.Adopt(generation) | actions.Abandon(generation):
                self.loaded.remove(generation)
            case actions.ReopenLogs(wids):
                # One that a mold is still to fork answers later.
                there = [wid for wid in wids if wid in self.children]
                return [events.Reopened(wid) for wid in there if not self.children[wid].stopped]
            case actions.CloseListeners():
                assert self.listening
                self.listening = False
            case actions.StartTrial():
                return [self._start_trial()]
            case actions.KillTrial(pid):
                assert pid == self.trial
            case actions.ExecUpgrade():
                self.execs += 1
                return [events.TrialFailed("it is only a test")]
            case actions.Answer(number, ok, text):
                assert number not in self.answers, "answered twice"
                assert number > 0
                assert text
                self.answers[number] = (ok, text)
            case actions.AskForReport(wid):
                assert wid in self.children
                self.asked.add(wid)
            case actions.Exit(code):
                assert not self.children
                assert not self.molds
                assert not self.listening
                assert code != 0 or self.stop_requested, "exit code 0 without a stop"
                self.exit_code = code
        return []

    def _spawn_mold(self, action: actions.SpawnMold) -> Event:
        assert self.state.phase is Phase.RUNNING, "a mold after the stop"
        assert action.mid not in self._known_mids
        self._known_mids.add(action.mid)
        if self.fork_fails:
            return events.MoldSpawnFailed(action.mid, "Resource temporarily unavailable")
        assert all(mold.told for mold in self.molds.values() if mold.generation == action.generation)
        mold = FakeMold(action.mid, self._next_pid, action.generation, is_slow=self.molds_are_slow)
        self.molds[action.mid] = mold
        self._next_pid += 1
        return events.MoldSpawned(action.mid, self._next_pid - 1)

    def _give_back(self, wid: int) -> None:
        for asked in [self._lost, *(mold.asked for mold in self.molds.values())]:
            for spawn in asked:
                if spawn.wid == wid:
                    asked.remove(spawn)
                    return
        raise AssertionError(f"wid {wid} was asked of nobody")

    def _spawn(self, action: actions.Spawn) -> list[Event]:
        spec = self.worker(action.wid).spec
        assert bool(action.mid) is spec.preload, "a worker of a generation with a mold comes from that"
        if action.mid:
            mold = self.molds[action.mid]
            assert mold.is_loaded, "a worker was asked of a mold that has not loaded"
            assert not mold.told, "a worker was asked of a mold that was told to end"
            assert mold.generation == action.generation
            if mold.is_slow:
                mold.asked.append(action)
                return []
        return [self._fork(action)]

    def _fork(self, action: actions.Spawn) -> Event:
        if action.mid and self.state.phase is not Phase.RUNNING:
            assert not self.molds[action.mid].told
        else:
            assert self.state.phase is Phase.RUNNING, "a start after the stop"
        assert action.wid not in self._known_wids
        self._known_wids.add(action.wid)
        if self.fork_fails:
            return events.SpawnFailed(action.wid, "Resource temporarily unavailable")
        child = Child(action.wid, self._next_pid, action.slot, action.generation)
        self._next_pid += 1
        self.children[action.wid] = child
        places = max([self.state.size, *(each.slot for each in self.children.values())])
        assert len(self.children) <= policy.most_alive(places) + policy.surge(self.state.size)
        return events.Spawned(action.wid, child.pid)

    def _health(self) -> Event:
        readings = tuple(
            events.Reading(child.wid, child.loop_at, child.thread_at)
            for child in self.children.values()
            if child.is_ready
        )
        return events.HealthRead(readings, self.headroom)

    def _load(self, generation: int) -> Event:
        self.loaded.add(generation)
        if isinstance(self.settings, str):
            return events.SettingsRejected(generation, self.settings)
        return events.SettingsLoaded(generation, self.settings)

    def _start_trial(self) -> Event:
        assert self.trial is None
        if self.trial_fails:
            return events.TrialFailed("the trial could not be started: No such file or directory")
        self.trial = self._next_pid
        self._next_pid += 1
        return events.TrialStarted(self.trial)

    def _check(self) -> None:
        """What holds after every step."""
        state = self.state
        assert {worker.wid for worker in state.pool if worker.pid is not None} <= set(self.children)
        for mold in state.pool.molds.values():
            assert mold.pid is None or self.molds[mold.mid].pid == mold.pid
            # It may be that the news of a fork that has failed is still on its way.
            asked = mold.pid is not None and self.molds[mold.mid].asked
            if mold.stage in (Stage.DRAINING, Stage.ABORTING, Stage.KILLED) or asked:
                assert mold.deadline < NEVER
            if mold.stage is Stage.STARTING and mold.spec.startup:
                assert mold.deadline < NEVER
        for worker in state.pool:
            assert worker.stage is not Stage.SPAWNING or worker.spec.preload or worker.pid is None
            if worker.stage in (Stage.DRAINING, Stage.ABORTING, Stage.KILLED):
                assert worker.deadline < NEVER
            if worker.stage is Stage.STARTING and worker.spec.startup:
                assert worker.deadline < NEVER
        canary = state.reload.canary if state.reload is not None else None
        for holders in state.pool.holders().values():
            assert sum(worker.wid != canary for worker in holders) <= 2
        assert state.pool.being_replaced() <= policy.surge(max(state.size, 1)) + 1
        assert not self.loaded or (state.reload is not None and self.loaded == {state.reload.generation})


def respec(spec: PoolSpec, **changes: float) -> PoolSpec:
    return replace(spec, **changes)  # type: ignore[arg-type]
