"""What happens to a mold: the table, and the stories that follow from it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.supervisor.service import FakeMold, Service, respec
from uvicorn.supervisor import events, preload
from uvicorn.supervisor.actions import AbortMold, EndMold, Forget, KillMold, Spawn, SpawnMold
from uvicorn.supervisor.pool import NEVER, Stage
from uvicorn.supervisor.preload import FORK_GRACE, TABLE, What
from uvicorn.supervisor.state import ABORT_GRACE, MOLD_GRACE, Phase

TERM = events.StopRequested("SIGTERM")
HUP = events.ReloadRequested()


def service(size: int = 2, **spec: float) -> Service:
    return Service(size, preload=True, **spec)


def mold_of(service: Service, generation: int) -> FakeMold:
    (found,) = (mold for mold in service.molds.values() if mold.generation == generation and not mold.told)
    return found


def reloading(service: Service, **changes: float) -> FakeMold:
    """A reload is under way, its mold is about to load; that mold."""
    service.settings = respec(service.spec, **changes)
    service.do(HUP)
    return mold_of(service, service.state.last_generation)


def test_the_table_has_an_entry_for_everything() -> None:
    assert set(TABLE) == set(What)
    for row in TABLE.values():
        assert set(row) == set(Stage) - {Stage.STALLED}  # it has no event loop


# --- start -------------------------------------------------------------------------------------


def test_the_mold_comes_first_and_the_workers_from_it() -> None:
    it = service(3)
    assert it.do(events.Start()) == [SpawnMold(1, 1)]
    assert it.children == {}
    actions = it.load(1)
    assert [action for action in actions if isinstance(action, Spawn)] == [
        Spawn(wid, wid, 1, mid=1) for wid in (1, 2, 3)
    ]
    it.all_ready()
    assert it.holders() == {1: [1], 2: [1], 3: [1]}


def test_without_preload_there_is_none() -> None:
    it = Service(2).boot()
    assert it.molds == {}
    assert all(action.mid == 0 for action in it.done if isinstance(action, Spawn))


def test_a_first_load_that_fails_ends_the_service_with_3() -> None:
    it = service()
    it.do(events.Start())
    it.do(events.MoldComplained(1, "SyntaxError: invalid syntax"))
    it.exit_mold(1, 3)
    assert it.exit_code == 3
    assert it.logged("The application could not be loaded: exit code 3. Giving up with exit code 3.") == 1


def test_a_load_has_the_time_that_a_start_has() -> None:
    it = service(startup=20)
    it.do(events.Start())
    it.pass_time(19.9)
    assert it.mold.told == []
    it.pass_time(0.2)
    assert it.mold.told == ["abort"]
    assert it.state.phase is Phase.STOPPING
    it.pass_time(ABORT_GRACE)
    assert it.mold.told == ["abort", "kill"]
    it.exit_mold(1, -9)
    assert it.exit_code == 3


def test_without_a_limit_a_load_may_take_for_ever() -> None:
    it = service(startup=0)
    it.do(events.Start())
    it.pass_time(100_000)
    assert it.mold.told == []


def test_no_process_for_the_mold_is_nobodys_fault() -> None:
    it = service()
    it.fork_fails = True
    it.do(events.Start())
    assert (
        it.logged(
            "No process could be made for the mold: Resource temporarily unavailable. Next try in 0.5 s"
        )
        == 1
    )
    it.fork_fails = False
    it.pass_time(0.6)
    it.rest()
    assert it.holders() == {1: [1], 2: [1]}


# --- a mold is lost ----------------------------------------------------------------------------


def test_a_killed_mold_is_built_again_at_once_and_nobody_who_serves_is_touched() -> None:
    it = service().boot()
    actions = it.exit_mold(1, -9)
    assert SpawnMold(2, 1) in actions
    assert it.holders() == {1: [1], 2: [1]}
    assert all(child.told == [] for child in it.children.values())


def test_workers_wait_for_the_mold() -> None:
    it = service().boot()
    it.exit_mold(1, -9)
    it.exit(1, -9)
    it.pass_time(60)
    assert len(it.children) == 1
    it.load(2)
    it.all_ready()
    assert it.holders() == {1: [1], 2: [1]}


def test_a_mold_that_keeps_dying_is_built_after_longer_and_longer_times() -> None:
    it = service().boot()
    times = []
    for _ in range(9):
        it.exit_mold(it.mold.mid, 1)
        while not it.molds:
            it.wake()
        times.append(it.now)
        it.load(it.mold.mid)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] == 0
    assert gaps[-1] > gaps[-2] > gaps[-3] > 0


def test_a_load_that_fails_later_is_tried_again_while_the_others_serve() -> None:
    it = service().boot()
    it.exit_mold(1, -9)
    it.exit_mold(2, 3)
    assert it.logged("The application could not be loaded; next try in 0.5 s.") == 1
    assert it.molds == {}
    it.pass_time(0.6)
    it.exit_mold(3, 3)
    assert it.logged("The application could not be loaded; next try in 1.0 s.") == 1
    assert it.exit_code is None
    assert len(it.children) == 2


def test_a_load_stands_for_all_the_starts_that_wait_for_it() -> None:
    """As many restarts are used up as if each worker had imported the application itself."""
    it = service(4, limit_restarts=10).boot()
    it.exit_mold(1, -9)
    for wid in (1, 2, 3, 4):
        it.exit(wid, -9)  # four restarts
    it.exit_mold(2, 3)  # eight
    assert it.exit_code is None
    it.pass_time(0.6)
    it.exit_mold(3, 3)
    assert it.exit_code == 70


def test_while_all_serve_a_load_that_fails_uses_nothing_up() -> None:
    it = service(2, limit_restarts=3).boot()
    it.exit_mold(1, -9)
    for mid in (2, 3, 4, 5):
        it.exit_mold(mid, 3)
        it.pass_time(40)
    assert it.state.restarts == []


# --- a mold is silent --------------------------------------------------------------------------


def test_a_mold_that_does_not_fork_is_aborted_and_another_one_does() -> None:
    it = service().boot()
    it.mold.is_slow = True
    it.exit(1, -9)
    assert it.molds[1].asked
    it.pass_time(FORK_GRACE - 0.1)
    assert it.molds[1].told == []
    actions = it.pass_time(0.2)
    assert [action for action in actions if isinstance(action, (AbortMold, Forget, SpawnMold))] == [
        AbortMold(1),
        Forget(3, None),
        SpawnMold(2, 1),
    ]
    it.pass_time(ABORT_GRACE)
    assert it.molds[1].told == ["abort", "kill"]
    it.rest()
    assert it.holders() == {1: [1], 2: [1]}


def test_every_answer_gives_it_time_for_the_next() -> None:
    it = service(3)
    it.do(events.Start())
    it.mold.is_slow = True
    it.load(1)
    for _ in range(3):
        it.pass_time(FORK_GRACE - 1)
        it.do(it._fork(it.mold.asked.pop(0)))
    assert it.mold.told == []
    assert it.state.pool.molds[1].deadline == NEVER
    it.pass_time(100)
    assert it.mold.told == []


def test_time_in_which_the_master_stood_still_does_not_count() -> None:
    it = service(1).boot()
    it.mold.is_slow = True
    it.exit(1, -9)
    it.sleep(3600, children_too=True)
    assert it.mold.told == []
    it.pass_time(FORK_GRACE + 0.1)
    assert it.molds[1].told == ["abort"]


def test_a_fork_that_fails_is_tried_again_with_a_pause() -> None:
    it = service(1).boot()
    it.fork_fails = True
    it.exit(1, -9)
    assert it.logged("No process could be made for worker=1: Resource temporarily unavailable.") == 1
    assert it.mold.told == []
    it.fork_fails = False
    it.pass_time(1)
    it.rest()
    assert it.holders() == {1: [1]}


# --- reload ------------------------------------------------------------------------------------


def test_a_reload_builds_a_mold_then_a_canary_and_the_old_mold_ends_when_that_is_ready() -> None:
    it = service().boot()
    new = reloading(it)
    assert it.holders() == {1: [1], 2: [1]}
    it.load(new.mid)
    assert it.holders() == {1: [1, 2], 2: [1]}
    assert it.molds[1].told == []
    it.ready(it.wid_of(1, 1))
    assert it.molds[1].told == ["end"]
    it.rest()
    assert it.holders() == {1: [2], 2: [2]}
    assert set(it.molds) == {new.mid}


def test_new_code_that_does_not_load_leaves_everything_as_it_is() -> None:
    it = service().boot()
    it.settings = it.spec
    it.do(events.ReloadRequested(7))
    new = mold_of(it, 2)
    it.do(events.MoldComplained(new.mid, "ImportError: no"))
    it.exit_mold(new.mid, 3)
    text = "Reload failed, the new code could not be loaded: exit code 3. Generation 1 goes on unchanged."
    assert it.logged(text) == 1
    assert it.answers[7] == (False, f"{text} The worker's error: ImportError: no")
    assert set(it.molds) == {1}
    assert it.molds[1].told == []
    it.exit(1, -9)
    assert it.holders() == {1: [1], 2: [1]}


def test_a_new_load_that_takes_too_long_is_given_up() -> None:
    it = service(startup=20).boot()
    new = reloading(it)
    it.pass_time(20.1)
    assert new.told == ["abort"]
    assert it.state.reload is None
    assert it.logged("Reload failed, the new code could not be loaded") == 1


def test_a_new_mold_that_is_lost_before_its_canary_ends_the_reload() -> None:
    it = service().boot()
    new = reloading(it)
    new.is_slow = True
    it.load(new.mid)
    assert new.asked
    it.exit_mold(new.mid, -9)
    assert (
        it.logged("Reload failed, the process that had loaded the new code is lost: killed by SIGKILL") == 1
    )
    assert it.holders() == {1: [1], 2: [1]}


def test_a_new_mold_that_is_lost_after_its_canary_was_started_is_built_again() -> None:
    it = service().boot()
    new = reloading(it)
    it.load(new.mid)
    it.exit_mold(new.mid, -9)
    assert it.state.reload is not None
    it.ready(it.wid_of(1, 1))
    it.rest()
    assert it.holders() == {1: [2], 2: [2]}
    assert [mold.generation for mold in it.molds.values()] == [2]


def test_a_canary_that_fails_ends_its_mold() -> None:
    it = service().boot()
    new = reloading(it)
    it.load(new.mid)
    it.exit(it.wid_of(1, 1), 3)
    assert new.told == ["end"]
    assert it.molds[1].told == []


def test_a_newer_reload_ends_the_mold_of_the_one_before() -> None:
    it = service().boot()
    first = reloading(it)
    second = reloading(it)
    assert (first.told, second.told) == (["end"], [])
    it.rest()
    assert it.holders() == {1: [3], 2: [3]}


def test_preload_goes_on_and_off_with_a_reload() -> None:
    it = Service(2).boot()
    it.settings = respec(it.spec, preload=True)
    it.do(HUP)
    it.rest()
    assert [mold.generation for mold in it.molds.values()] == [2]
    it.settings = it.spec
    it.do(HUP)
    it.rest()
    assert it.molds == {}
    assert it.holders() == {1: [3], 2: [3]}


# --- pause, stop, upgrade ----------------------------------------------------------------------


def test_over_a_pause_the_mold_stays() -> None:
    it = service().boot()
    it.do(events.PauseRequested())
    it.leave_all_told()
    assert it.mold.told == []
    it.exit_mold(1, -9)
    assert it.molds == {}  # but nobody needs another one
    it.do(HUP)
    it.rest()
    assert it.holders() == {1: [2], 2: [2]}


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_stop_ends_the_mold_at_once_and_the_service_when_it_is_gone(is_loaded: bool) -> None:
    it = service()
    it.do(events.Start())
    if is_loaded:
        it.load(1)
        it.all_ready()
    it.stop_requested = True
    assert EndMold(1) in it.do(TERM)
    for wid in list(it.children):
        it.exit(wid)
    it.pass_time(0.5)
    assert it.exit_code is None
    assert KillMold(1) in it.pass_time(MOLD_GRACE)
    it.exit_mold(1, -9)
    assert it.exit_code == 0


def test_a_stop_gives_back_what_the_mold_was_asked_for() -> None:
    it = service().boot()
    it.mold.is_slow = True
    it.exit(1, -9)
    it.stop_requested = True
    assert Forget(3, None) in it.do(TERM)
    it.leave_all_told()
    it.pass_time(0.6)
    assert it.exit_code == 0


def test_an_upgrade_waits_for_workers_whose_pids_nobody_knows() -> None:
    it = service().boot()
    assert it.machine.can_exec()
    it.mold.is_slow = True
    it.exit(1, -9)
    assert not it.machine.can_exec()
    it.answer(1)
    assert it.machine.can_exec()


def test_those_who_wait_for_a_worker_hear_that_the_application_does_not_load() -> None:
    it = service(1).boot()
    it.exit_mold(1, -9)
    it.do(events.ResizeRequested(2, 5))
    it.do(events.RestartRequested(1, 6))
    it.do(events.MoldComplained(2, "NameError: x"))
    it.exit_mold(2, 3)
    assert it.answers[5] == (
        False,
        "The application could not be loaded: exit code 3. The master goes on trying. The worker's error: NameError: x",
    )
    assert not it.answers[6][0]


def test_what_is_said_of_an_unknown_mold_is_ignored() -> None:
    it = service().boot()
    for event in (
        events.MoldLoaded(9),
        events.MoldComplained(9, "x"),
        events.MoldSpawned(9, 1),
        events.MoldSpawnFailed(9, "x"),
    ):
        assert it.do(event) == []
    assert preload.can_spawn(it.state, 1, it.spec)
