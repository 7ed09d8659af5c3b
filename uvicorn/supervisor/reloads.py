"""Reloads that meet: which one goes on, and which one waits.

A newer reload takes the place of one under way, whose code or settings may be what it mends. But where they come faster than
a worker starts, none would ever get anywhere. So after a few in a row the one under way may finish, for as long as that
usually takes, and all that come meanwhile are one more, which follows with the newest settings. See
docs/decisions/storms-of-reloads.md.
"""

from __future__ import annotations

from uvicorn.supervisor.actions import LoadSettings
from uvicorn.supervisor.pool import NEVER
from uvicorn.supervisor.state import Reload, State, give_up_reload

# So many reloads in a row may take the place of the one before.
OVERTAKEN_MOST = 3
# What a start may take, beside the last one, before it is taken for one that hangs: so many times as long, and so many
# seconds more.
PATIENCE_FACTOR = 2.0
PATIENCE_MARGIN = 1.0


def ask(state: State, number: int, now: float) -> None:
    """Somebody wants a reload: now, or after the one under way."""
    if not _may_finish(state):
        _begin(state, [number])
        return
    if not state.again:
        state.again = True
        state.again_at = now + patience(state)
        state.log(
            "Reloads come faster than workers start: the one under way goes on, the newest one follows it."
        )
    state.ledger.wait("next reload", number)


def _may_finish(state: State) -> bool:
    """Whether the reload under way goes before newer ones: it has a worker to show for it already."""
    if state.again:
        return True
    under_way = state.rolling if state.reload is None else state.reload.canary is not None
    return under_way and state.overtaken >= OVERTAKEN_MOST


def patience(state: State) -> float:
    """How long a start may take before newer reloads wait for it no longer."""
    return PATIENCE_FACTOR * state.start_took + PATIENCE_MARGIN


def reload_again(state: State, now: float) -> bool:
    """The reload under way is over, or has had its time: the one that has waited for it begins."""
    if not state.again or ((state.reload is not None or state.rolling) and now < state.again_at):
        return False
    _begin(state, state.ledger.waiting.pop("next reload", []))
    return True


def forget_next(state: State, why: str) -> None:
    """Something else goes before the reload that waits."""
    state.again, state.again_at = False, NEVER
    state.out += state.ledger.end("next reload", False, why)


def _begin(state: State, numbers: list[int]) -> None:
    state.overtaken = state.overtaken + 1 if state.reload is not None or state.rolling else 0
    state.again, state.again_at = False, NEVER
    give_up_reload(state, "a newer one begins")
    overtake(state, "A newer reload begins.")
    for number in numbers:
        state.ledger.wait("reload", number)
    state.last_generation += 1
    state.reload = Reload(state.last_generation)
    state.act(LoadSettings(state.last_generation))


def overtake(state: State, why: str) -> None:
    """Something else begins while workers are rolled: those who wait for their end will not see it."""
    state.reloaded = state.upgraded = False
    state.out += state.ledger.end("reload", False, why)
    if state.trial is None:  # else it is only tried, and has its end before it
        state.out += state.ledger.end("upgrade", False, why)
